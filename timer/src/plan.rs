//! A task's schedules, compiled: the one place that answers "when next?".
//!
//! Pure arithmetic over a definition and its anchors: every node that compiles the same version gets the same instants.

use campanile_model::{Code, Dst, Millis, Next, Rejection, Schedule, TaskSpec, Timestamp, limits, planted};
use jiff::tz::TimeZone;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::cron::{self, Cron};
use crate::repeat::Repeat;
use crate::zone;

/// What a definition's times are counted from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Anchors {
    /// When the task was created.
    pub created_at: Timestamp,
    /// When this version of it was written.
    pub version_at: Timestamp,
    /// It has occurrences after this instant: `version_at`, or before it, where an update left the schedules as they were
    /// and jitter still held some back.
    pub since: Timestamp,
    /// The task's stable hash; spreads `jitter` and cron's `~`.
    pub spread: u64,
}

impl Anchors {
    /// Those of a task that is created at this instant.
    pub fn new(created_at: Timestamp, spread: u64) -> Self {
        Self { created_at, version_at: created_at, since: created_at, spread }
    }
}

/// The compiled form of a task's schedules. Compiling cron costs some tens of microseconds and asking it less than one,
/// so keep a plan for as long as its version lives.
#[derive(Clone, Debug)]
pub struct Plan {
    rules: Vec<Rule>,
    version_at: Timestamp,
    since: Timestamp,
    /// The first instant allowed.
    start_at: Timestamp,
    /// The first instant no longer allowed.
    end_at: Timestamp,
    jitter: Millis,
}

/// One schedule.
#[derive(Clone, Debug)]
enum Rule {
    /// `at` and `delay`.
    Once(Timestamp),
    Every {
        first: Timestamp,
        period: Millis,
    },
    Cron(Box<Cron>),
    Repeat(Box<Repeat>),
}

impl Plan {
    /// Compiles a definition. A refusal names the field (`schedules[0].cron`).
    ///
    /// A cron expression must have an occurrence after the version was written. A new task (`created_at` is
    /// `version_at`) must have one of any kind; an update of one whose occurrences are over may leave it with none.
    pub fn compile(spec: &TaskSpec, anchors: Anchors) -> Result<Self, Rejection> {
        if let (Some(start), Some(end)) = (spec.start_at, spec.end_at)
            && end <= start
        {
            let message = format!("end_at {end} is not after start_at {start}");
            return Err(Rejection::new(Code::NeverOccurs, message).with_field("end_at"));
        }
        let start_at = spec.start_at.unwrap_or(Timestamp::MIN);
        let end_at = spec.end_at.unwrap_or(AFTER_LAST);
        let jitter = match spec.jitter {
            Millis(0) => Millis(0),
            Millis(most) => Millis(xxh3_64_with_seed(b"jitter", anchors.spread) % most),
        };
        let rules = compile_all(&spec.schedules, spec.start_at, anchors)?;
        let Anchors { version_at, since, .. } = anchors;
        Self { rules, version_at, since, start_at, end_at, jitter }.checked(anchors)
    }

    /// Compiles schedules that belong to no task: unbounded, without jitter.
    pub fn of(schedules: &[Schedule], anchors: Anchors) -> Result<Self, Rejection> {
        let rules = compile_all(schedules, None, anchors)?;
        let (start_at, end_at, jitter) = (Timestamp::MIN, AFTER_LAST, Millis(0));
        let Anchors { version_at, since, .. } = anchors;
        Self { rules, version_at, since, start_at, end_at, jitter }.checked(anchors)
    }

    fn checked(self, anchors: Anchors) -> Result<Self, Rejection> {
        let is_new = anchors.created_at == anchors.version_at;
        if is_new && !self.rules.is_empty() && self.next_after(Timestamp::MIN).is_none() {
            let message = "no schedule has an occurrence from now on, between start_at and end_at";
            return Err(Rejection::new(Code::NeverOccurs, message).with_field("schedules"));
        }
        Ok(self)
    }

    /// The earliest occurrence strictly after an instant: of all schedules, equal instants once. Only `at` has
    /// occurrences at or before [`Anchors::since`].
    pub fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        let after = after.max(just_before(self.start_at));
        let nexts = self.rules.iter().filter_map(|rule| rule.next_after(after, self.since));
        nexts.min().filter(|next| *next < self.end_at)
    }

    /// [`Plan::next_after`] and when it is due: jitter later, and never before the version was written.
    pub fn next(&self, after: Timestamp) -> Option<Next> {
        let scheduled_at = self.next_after(after)?;
        let due_at = scheduled_at.max(self.since).saturating_add(self.jitter);
        Some(Next { scheduled_at, due_at: due_at.max(self.version_at) })
    }

    /// How long after one occurrence the next one is, if that is always the same and there is no end: then [`following`]
    /// says what the plan would.
    pub fn period(&self) -> Option<Millis> {
        match &self.rules[..] {
            _ if self.end_at != AFTER_LAST => None,
            // What an update found held back may be due sooner or later than its jitter says.
            _ if self.since != self.version_at => None,
            [Rule::Every { period, .. }] => Some(*period),
            [Rule::Repeat(repeat)] => repeat.period(),
            _ => None,
        }
    }

    /// The first occurrence of a new version of a task whose occurrences are decided up to an instant (that instant
    /// included). An `at` in the past that was not decided yet is one, and due at once.
    pub fn first(&self, decided_until: Timestamp) -> Option<Next> {
        self.next(decided_until)
    }
}

fn compile_all(schedules: &[Schedule], start_at: Option<Timestamp>, anchors: Anchors) -> Result<Vec<Rule>, Rejection> {
    if schedules.len() > limits::SCHEDULES {
        let message = format!("{} schedules are more than the {} a task may have", schedules.len(), limits::SCHEDULES);
        return Err(Rejection::new(Code::LimitExceeded, message).with_field("schedules"));
    }
    let rules = schedules.iter().enumerate().map(|(index, schedule)| {
        Rule::compile(schedule, start_at, anchors).map_err(|rejection| {
            let field = rejection.field.as_deref().map_or(String::new(), |field| format!(".{field}"));
            rejection.with_field(format!("schedules[{index}]{field}"))
        })
    });
    rules.collect()
}

impl Rule {
    fn compile(schedule: &Schedule, start_at: Option<Timestamp>, anchors: Anchors) -> Result<Self, Rejection> {
        match schedule {
            Schedule::At(at) if *at > Timestamp::LAST => Err(too_late("at")),
            Schedule::At(at) => Ok(Self::Once(*at)),
            // No delay at all still lies after the version, as all occurrences but those of `at` do.
            Schedule::Delay(delay) => match anchors.version_at.saturating_add(Millis(delay.0.max(1))) {
                at if at > Timestamp::LAST => Err(too_late("delay")),
                at => Ok(Self::Once(at)),
            },
            Schedule::Every(period) if *period < limits::EVERY_MIN => {
                let message = format!("every {period} is shorter than {}", limits::EVERY_MIN);
                Err(Rejection::new(Code::LimitExceeded, message).with_field("every"))
            }
            Schedule::Every(period) => {
                let first = start_at.unwrap_or_else(|| anchors.created_at.saturating_add(*period));
                Ok(Self::Every { first, period: *period })
            }
            Schedule::Cron { expression, time_zone, dst } => {
                bounded("cron", expression)?;
                bounded("time_zone", time_zone)?;
                let cron = Cron::compile(expression, time_zone, *dst, anchors.spread)?;
                if cron.next_after(anchors.version_at).is_none() {
                    let message = format!("{expression:?} never occurs after {}", anchors.version_at);
                    return Err(Rejection::new(Code::NeverOccurs, message).with_field("cron"));
                }
                Ok(Self::Cron(Box::new(cron)))
            }
            Schedule::Repeat(text) => {
                bounded("repeat", text)?;
                let repeat = Repeat::compile(text).map_err(|rejection| rejection.with_field("repeat"))?;
                Ok(Self::Repeat(Box::new(repeat)))
            }
        }
    }

    fn next_after(&self, after: Timestamp, since: Timestamp) -> Option<Timestamp> {
        let later = after.max(since);
        let next = match self {
            Self::Once(at) => Some(*at).filter(|at| *at > after),
            Self::Every { first, period } => every_after(*first, *period, later),
            Self::Cron(cron) => cron.next_after(later),
            Self::Repeat(repeat) => repeat.next_after(later),
        };
        next.filter(|next| *next <= Timestamp::LAST)
    }
}

fn every_after(first: Timestamp, period: Millis, after: Timestamp) -> Option<Timestamp> {
    if first > after {
        return Some(first);
    }
    let passed = i128::from(after.as_millis()) - i128::from(first.as_millis());
    let period = i128::from(period.0);
    let step = if planted!(OccurrenceSkipped) && passed % 11 == 0 { 2 } else { 1 };
    let next = i128::from(first.as_millis()) + (passed / period + step) * period;
    i64::try_from(next).ok().map(Timestamp::from_millis)
}

/// The occurrence after this one, of a plan whose occurrences are a period apart ([`Plan::period`]).
pub fn following(occurrence: Next, period: Millis) -> Option<Next> {
    let step = if planted!(OccurrenceSkipped) && occurrence.scheduled_at.as_millis() % 11 == 0 { 2 } else { 1 };
    let further = Millis(period.0.saturating_mul(step));
    let scheduled_at = occurrence.scheduled_at.saturating_add(further);
    // The jitter, because none of these was scheduled before its version was written.
    let jitter = occurrence.due_at.since(occurrence.scheduled_at);
    let next = Next { scheduled_at, due_at: scheduled_at.saturating_add(jitter) };
    Some(next).filter(|next| next.scheduled_at <= Timestamp::LAST)
}

/// The instant that no occurrence reaches.
const AFTER_LAST: Timestamp = Timestamp::from_millis(Timestamp::LAST.as_millis() + 1);

fn just_before(instant: Timestamp) -> Timestamp {
    instant.saturating_sub(Millis(1))
}

fn bounded(field: &str, text: &str) -> Result<(), Rejection> {
    if text.len() <= limits::SCHEDULE_BYTES {
        return Ok(());
    }
    let message =
        format!("{} bytes are more than the {} a schedule's text may have", text.len(), limits::SCHEDULE_BYTES);
    Err(Rejection::new(Code::LimitExceeded, message).with_field(field))
}

fn too_late(field: &str) -> Rejection {
    let message = format!("falls after {}, the last instant that can be scheduled", Timestamp::LAST);
    Rejection::new(Code::InvalidSchedule, message).with_field(field)
}

/// Reads what a command line gives as one argument: an ISO 8601 repeat, or else a cron expression in a zone. The result
/// is valid as far as can be said without knowing what time it is.
pub fn parse_expression(text: &str, time_zone: &str, dst: Dst) -> Result<Schedule, Rejection> {
    let text = text.trim();
    bounded("expression", text)?;
    if text.starts_with('R') && text.contains('/') {
        Repeat::compile(text)?;
        return Ok(Schedule::Repeat(text.into()));
    }
    Cron::compile(text, time_zone, dst, 0)?;
    Ok(Schedule::Cron { expression: text.into(), time_zone: time_zone.into(), dst })
}

/// An instant as RFC 3339 text in the zone that its schedule is written in: cron's time zone, the zone or offset of a
/// repeat's start, else UTC.
pub fn render(schedule: &Schedule, instant: Timestamp) -> String {
    let zone = match schedule {
        Schedule::Cron { expression, time_zone, .. } => {
            cron::split_zone(expression, time_zone).ok().map(|(zone, _)| zone)
        }
        Schedule::Repeat(text) => Repeat::compile(text).ok().map(|repeat| repeat.zone().clone()),
        Schedule::At(_) | Schedule::Delay(_) | Schedule::Every(_) => None,
    };
    zone::render(instant, &zone.unwrap_or(TimeZone::UTC))
}
