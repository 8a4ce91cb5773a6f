//! The wait before the next attempt is the policy's: `initial * factor^(n-1)`, each step in whole milliseconds and at most
//! `max`, give or take the jitter's share of it, to the millisecond and drawn from both sides; what the receiver asks for
//! with a 429 or a 503 lengthens it to just that, up to a day; and when it is over the next attempt starts.

use campanile_model::{NodeId, Ratio, Retry, RunState};

use super::index::{At, Facts, RunFacts};
use super::report::Report;
use crate::history::RunRow;
use crate::verdict::Finding;

/// The longest that a receiver may ask to wait.
const ASKED_MAX: u64 = 24 * 3_600_000;
/// Where nothing is wrong, the next attempt is in the log within this of its time.
const CALM: u64 = 500_000;
/// Only draws from a range as wide as this say whether they are drawn, and so many of them.
const WIDE_MS: u64 = 20;
const DRAWS: usize = 5;
/// So many draws do not all fall into one half of their ranges, or a little more: it would be once in a billion
/// histories. A little, because the ends of the halves are off by some milliseconds; which tells of wide ranges only.
const MANY_DRAWS: usize = 32;
const HALF_PER_MILLE: u64 = 520;
const HALVES_WIDE_MS: u64 = 200;

pub fn check(facts: &Facts) -> Finding {
    let mut report = Report::new("backoff_exact");
    let mut draws: Vec<Draw> = Vec::new();
    for run in facts.runs.values() {
        for (nth, row) in run.rows.iter().enumerate().filter(|(_, row)| row.it.state == RunState::Retrying) {
            draws.extend(waits_as_told(facts, run, row, &mut report));
            goes_on_in_time(facts, row, run.rows.get(nth + 1), &mut report);
        }
    }
    are_drawn(&mut draws, &mut report);
    report.finish_if_any("waits for another attempt, and the definitions they are of")
}

/// A wait that the jitter alone decided, and the ends of its range.
#[derive(Clone, Copy)]
struct Draw {
    t: u64,
    low: u64,
    high: u64,
    waits: u64,
}

fn waits_as_told(facts: &Facts, run: &RunFacts, row: &At<&RunRow>, report: &mut Report) -> Option<Draw> {
    let RunRow { index, run: id, attempt, version, occurrence, .. } = row.it;
    let (retry_at, stamp) = (row.it.retry_at?, facts.stamp(*index)?);
    let spec = facts.spec(occurrence.task, *version)?;
    let waits = retry_at.since(stamp).0;
    let (low, high) = range(&spec.retry, *attempt);
    let status = row.it.last.as_ref().and_then(|record| record.status);
    let delivered = run.delivery(row.it.token);
    let asked = match (status, delivered) {
        (Some(429 | 503), Some(delivered)) => delivered.retry_after.and_then(|text| {
            let (answered, _) = delivered.answer?;
            Asked::read(text).map(|asked| asked.between(facts, delivered.it.node, answered, row.t))
        }),
        _ => None,
    };
    let (least, most) = asked.map_or((low, high), |(least, most)| (low.max(least), high.max(most)));
    report.hold((least..=most).contains(&waits), row.t, || {
        format!(
            "run {id} waits {waits} ms after attempt {attempt} ({status:?}, Retry-After {:?}); it should be {least} to {most}",
            delivered.and_then(|delivered| delivered.retry_after)
        )
    });
    let free = asked.is_none() && high - low >= WIDE_MS;
    free.then_some(Draw { t: row.t, low, high, waits })
}

/// What `Retry-After` says.
enum Asked {
    Seconds(u64),
    /// Milliseconds since 1970.
    Until(i64),
}

impl Asked {
    /// Digits, or a date of HTTP in its one form that is still made. Anything else asks for nothing.
    fn read(text: &str) -> Option<Self> {
        let text = text.trim();
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Some(Self::Seconds(text.parse::<u32>().unwrap_or(u32::MAX).into()));
        }
        let date = chrono::DateTime::parse_from_rfc2822(text).ok()?;
        Some(Self::Until(date.timestamp_millis()))
    }

    /// The shortest and longest wait, if the answer was read between two instants by a node's clock, which may be off.
    fn between(&self, facts: &Facts, node: NodeId, from: u64, to: u64) -> (u64, u64) {
        let (least, most) = match self {
            Self::Seconds(seconds) => (seconds * 1000, seconds * 1000),
            Self::Until(at) => {
                // That of one who does not lead is off as far as it was set.
                let wrong = facts.wrong_by(node, from, to).cast_signed();
                let error = facts.history.header.clock_error_ms + 1 + wrong;
                let left = |t: u64| at.saturating_sub(facts.history.wall_ms(t));
                let whole = |ms: i64| u64::try_from(ms).unwrap_or(0);
                (whole(left(to).saturating_sub(error)), whole(left(from).saturating_add(error)))
            }
        };
        (least.min(ASKED_MAX), most.min(ASKED_MAX))
    }
}

/// The shortest and the longest wait after attempt number `attempt`.
fn range(retry: &Retry, attempt: u32) -> (u64, u64) {
    let share = |of: u64, ratio: Ratio| u64::try_from(u128::from(of) * u128::from(ratio.0) / 1000).unwrap_or(u64::MAX);
    let mut nominal = retry.initial.0.min(retry.max.0);
    // A factor of 1 never gets there, but 100 steps are all there are.
    for _ in 1..attempt {
        nominal = share(nominal, retry.factor).min(retry.max.0);
    }
    let spread = share(nominal, retry.jitter);
    (nominal - spread.min(nominal), nominal.saturating_add(spread))
}

fn goes_on_in_time(facts: &Facts, waits: &At<&RunRow>, next: Option<&At<&RunRow>>, report: &mut Report) {
    let Some(retry_at) = waits.it.retry_at else { return };
    let due = facts.since_start(retry_at).max(waits.t).saturating_add(facts.clock_error());
    let calm_until = due.saturating_add(CALM);
    let until = if facts.is_calm(waits.t, calm_until) { calm_until } else { facts.deadline(due) };
    let seen = next.map_or_else(|| facts.history.end(), |next| next.t);
    report.hold(seen <= until, seen, || {
        let RunRow { run, attempt, .. } = waits.it;
        format!(
            "run {run} was to go on after attempt {attempt} at {retry_at}, and {} ms later had not",
            (seen - due) / 1000
        )
    });
}

/// Draws fall neither all on one point of their ranges nor all into one half.
fn are_drawn(draws: &mut [Draw], report: &mut Report) {
    draws.sort_by_key(|draw| draw.t);
    let Some(last) = draws.last().copied() else { return };
    let at = |draw: &Draw, per_mille: u64| draw.low + (draw.high - draw.low) * per_mille / 1000;
    if draws.len() >= DRAWS {
        for (per_mille, name) in [(0, "shortest"), (500, "middle"), (1000, "longest")] {
            let same = draws.iter().all(|draw| draw.waits.abs_diff(at(draw, per_mille)) <= 1);
            report.hold(!same, last.t, || format!("all {} waits are the {name} of their range", draws.len()));
        }
    }
    let wide: Vec<&Draw> = draws.iter().filter(|draw| draw.high - draw.low >= HALVES_WIDE_MS).collect();
    if wide.len() >= MANY_DRAWS {
        let short = wide.iter().filter(|draw| draw.waits < at(draw, 1000 - HALF_PER_MILLE)).count();
        let long = wide.iter().filter(|draw| draw.waits > at(draw, HALF_PER_MILLE)).count();
        report.hold(short > 0 && long > 0, last.t, || {
            format!("of {} waits {short} are short and {long} long for their range", wide.len())
        });
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use crate::history::Event;
    use crate::plan::Fault;
    use campanile_model::api::Change;
    use campanile_model::{AttemptResult, Millis};

    const NAME: &str = "backoff_exact";

    fn known(retry: Retry) -> Script {
        Script::new().invoke(1, put_with(|spec| spec.retry = retry)).wrote(1, Change::Created, 1)
    }

    /// A first attempt that fails at second 11 and waits so long.
    fn waiting(nth: u64, ms: i64, status: Option<u16>) -> (RunRow, RunRow) {
        let run = changed(&fired(2 * nth + 5, 10), |row| row.due_at = millis(10_000 + nth as i64));
        let waits = changed(&retrying(&run, 2 * nth + 6, 0), |row| {
            row.retry_at = Some(millis(11_000 + ms));
            row.last = Some(campanile_model::AttemptRecord { status, ..record(&run, AttemptResult::Failed) });
        });
        (run, waits)
    }

    fn failed(script: Script, ms: i64, status: u16, retry_after: Option<&str>) -> Script {
        let (run, waits) = waiting(0, ms, Some(status));
        let retry_after = retry_after.map(ToOwned::to_owned);
        let answered = script.at(10_000).row(&run).deliver(1, &run).at(10_990);
        answered.event(Event::Answer { delivery: 1, status, retry_after }).at(11_000).entry(6).row(&waits)
    }

    #[test]
    fn a_wait_is_in_its_range_to_the_millisecond() {
        for (ms, fits) in [(800, true), (1200, true), (799, false), (1201, false), (0, false)] {
            let told = failed(known(Retry::default()), ms, 500, None);
            if fits { accepts(NAME, told) } else { refuses(NAME, told) }
        }
    }

    #[test]
    fn what_the_receiver_asks_for_is_kept_to_the_millisecond() {
        let asked = |ms, status, text| failed(known(Retry::default()), ms, status, Some(text));
        for status in [429, 503] {
            accepts(NAME, asked(7000, status, "7"));
            refuses(NAME, asked(6999, status, "7"));
            refuses(NAME, asked(7001, status, "7"));
        }
        refuses(NAME, asked(7000, 500, "7"));
        accepts(NAME, asked(1000, 500, "7"));
        // Less than the back-off changes nothing, and nonsense neither.
        accepts(NAME, asked(900, 503, "0"));
        accepts(NAME, asked(900, 503, "soon"));
        accepts(NAME, asked(86_400_000, 503, "999999"));
        refuses(NAME, asked(999_999_000, 503, "999999"));
        accepts(NAME, asked(86_400_000, 503, "99999999999999999999"));
        refuses(NAME, asked(900, 503, "99999999999999999999"));
        // Second 31 of the epoch.
        let date = "Mon, 05 Jan 2026 00:00:31 GMT";
        accepts(NAME, asked(20_000, 503, date));
        accepts(NAME, asked(20_010, 503, date));
        refuses(NAME, asked(19_000, 503, date));
        refuses(NAME, asked(21_000, 503, date));
        // By the clock of the node that was answered.
        let jump = || Fault::ClockJump { node: crate::plan::Who::Node(NodeId(1)), by_ms: 2000 };
        let ahead = |node| failed(known(Retry::default()).begin_at(node, 0, jump()), 18_000, 503, Some(date));
        accepts(NAME, ahead(1));
        refuses(NAME, ahead(2));
        refuses(NAME, failed(known(Retry::default()).begin_at(1, 0, jump()).at(9000).end(0), 18_000, 503, Some(date)));
    }

    #[test]
    fn it_goes_on_when_its_time_has_come() {
        let then = |ms| {
            let (run, waits) = waiting(0, 1000, Some(500));
            let again = attempt(&waits, 2, 7);
            known(Retry::default()).at(10_000).row(&run).at(11_000).entry(6).row(&waits).at(ms).entry(7).row(&again)
        };
        accepts(NAME, then(12_500));
        refuses(NAME, then(12_501));
        refuses(NAME, failed(known(Retry::default()), 1000, 500, None).at(12_501).converged());
        let troubled = failed(known(Retry::default()), 1000, 500, None).begin(0, Fault::LeaderInMinority);
        accepts(NAME, troubled.at(13_000).converged());
    }

    #[test]
    fn jitter_is_drawn() {
        let many = |waits: &dyn Fn(u64) -> i64, count: u64| {
            (0..count).fold(known(Retry::default()).at(11_000), |script, nth| {
                let (run, row) = waiting(nth, waits(nth), Some(500));
                script.row(&run).entry(2 * nth + 6).row(&row)
            })
        };
        accepts(NAME, many(&|nth| 800 + nth as i64 * 13, 31));
        accepts(NAME, many(&|_| 1000, 4));
        refuses(NAME, many(&|_| 1000, 5));
        refuses(NAME, many(&|_| 1200, 5));
        refuses(NAME, many(&|nth| 1010 + nth as i64, 32));
        refuses(NAME, many(&|nth| 800 + nth as i64 * 6, 32));
        accepts(NAME, many(&|nth| 800 + nth as i64 * 6, 31));
    }

    #[test]
    fn ranges() {
        let retry = Retry { jitter: Ratio(0), factor: Ratio(1500), ..Retry::default() };
        assert_eq!(range(&retry, 1), (1000, 1000));
        assert_eq!(range(&retry, 4), (3375, 3375));
        assert_eq!(range(&Retry::default(), 99), (240_000, 360_000));
        assert_eq!(range(&Retry { jitter: Ratio::ONE, ..Retry::default() }, 1), (0, 2000));
        let extreme = Retry { initial: Millis(u64::MAX), max: Millis(u64::MAX), ..Retry::default() };
        range(&extreme, 100);
    }
}
