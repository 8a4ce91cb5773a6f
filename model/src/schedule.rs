//! When a task is due, as the user wrote it. What it means in instants is the `timer` crate's business.

use bincode::{Decode, Encode};
use serde::{Deserialize, Serialize};

use crate::{Millis, Timestamp};

/// What happens to a cron time in a daylight-saving gap or fold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Encode, Decode, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Dst {
    /// Debian cron: fixed times in a gap run just after it and once in a fold (the first pass);
    /// wildcards follow the clock.
    #[default]
    Vixie,
    /// Times in a gap do not run; times in a fold run once, the first pass.
    Skip,
    /// Times in a gap do not run; times in a fold run in both passes.
    Twice,
}

/// One schedule of a task.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Encode, Decode, Serialize, Deserialize)]
#[serde(try_from = "ScheduleJson", into = "ScheduleJson")]
pub enum Schedule {
    /// Once, at an instant. One in the past fires at once.
    At(Timestamp),
    /// Once, this long after the version of the task that has it was written.
    Delay(Millis),
    /// At a fixed interval, anchored at the task's `start_at`, else at its creation; the first firing is one interval
    /// after the anchor (at the anchor itself when it is `start_at`), and updates do not move it.
    Every(Millis),
    /// A cron expression of five, six (seconds first) or seven (years last) fields in a time zone.
    Cron { expression: String, time_zone: String, dst: Dst },
    /// ISO 8601 `R[n]/start/period`.
    Repeat(String),
}

impl Schedule {
    /// Fires at most once in the life of a definition.
    pub fn is_once(&self) -> bool {
        matches!(self, Self::At(_) | Self::Delay(_))
    }
}

/// The JSON form: an object with exactly one of the kinds as key.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ScheduleJson {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    delay: Option<Millis>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    every: Option<Millis>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cron: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    repeat: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    time_zone: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    dst: Option<Dst>,
}

impl TryFrom<ScheduleJson> for Schedule {
    type Error = String;

    fn try_from(json: ScheduleJson) -> Result<Self, String> {
        let ScheduleJson { at, delay, every, cron, repeat, time_zone, dst } = json;
        if cron.is_none() {
            if time_zone.is_some() {
                return Err("time_zone belongs to a cron schedule only".into());
            }
            if dst.is_some() {
                return Err("dst belongs to a cron schedule only".into());
            }
        }
        match (at, delay, every, cron, repeat) {
            (Some(at), None, None, None, None) => Ok(Self::At(at)),
            (None, Some(delay), None, None, None) => Ok(Self::Delay(delay)),
            (None, None, Some(every), None, None) => Ok(Self::Every(every)),
            (None, None, None, Some(expression), None) => Ok(Self::Cron {
                expression,
                time_zone: time_zone.unwrap_or_else(|| "UTC".into()),
                dst: dst.unwrap_or_default(),
            }),
            (None, None, None, None, Some(repeat)) => Ok(Self::Repeat(repeat)),
            _ => Err("a schedule has exactly one of at, delay, every, cron and repeat".into()),
        }
    }
}

impl From<Schedule> for ScheduleJson {
    fn from(schedule: Schedule) -> Self {
        let mut json =
            Self { at: None, delay: None, every: None, cron: None, repeat: None, time_zone: None, dst: None };
        match schedule {
            Schedule::At(at) => json.at = Some(at),
            Schedule::Delay(delay) => json.delay = Some(delay),
            Schedule::Every(every) => json.every = Some(every),
            Schedule::Cron { expression, time_zone, dst } => {
                json.cron = Some(expression);
                json.time_zone = Some(time_zone);
                json.dst = Some(dst);
            }
            Schedule::Repeat(repeat) => json.repeat = Some(repeat),
        }
        json
    }
}
