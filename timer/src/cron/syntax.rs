//! Cron's text, made ready for croner: the parts where croner is laxer than we want, or knows nothing of.
//!
//! Duties: take the zone prefix off; replace `@daily` and its kin; count fields; turn names into numbers, each in its
//! own field only; choose the values of `~`; refuse what croner would misread. The rest (ranges, steps, bounds, `L`, `W`,
//! `#`) is croner's to judge.

use campanile_model::{Code, Rejection};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// What a field may hold.
struct FieldRule {
    name: &'static str,
    min: u16,
    max: u16,
    /// Where an open `~` ends: a day that every month has, and a weekday that is not Sunday's second number.
    spread_max: u16,
    /// Three-letter names, the first standing for `min`.
    names: &'static [&'static str],
    /// Special letters, as runs that may stand in the field.
    letters: &'static [&'static str],
}

// Places in [`FIELDS`].
const SECOND: usize = 0;
pub(super) const MINUTE: usize = 1;
pub(super) const HOUR: usize = 2;
const DAY: usize = 3;
const WEEKDAY: usize = 5;
pub(super) const YEAR: usize = 6;

const fn plain(name: &'static str, max: u16) -> FieldRule {
    FieldRule { name, min: 0, max, spread_max: max, names: &[], letters: &[] }
}

const FIELDS: [FieldRule; 7] = [
    plain("second", 59),
    plain("minute", 59),
    plain("hour", 23),
    FieldRule { name: "day-of-month", min: 1, max: 31, spread_max: 28, names: &[], letters: &["L", "W", "LW"] },
    FieldRule {
        name: "month",
        min: 1,
        max: 12,
        spread_max: 12,
        names: &["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"],
        letters: &[],
    },
    FieldRule {
        name: "day-of-week",
        min: 0,
        max: 7,
        spread_max: 6,
        names: &["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"],
        letters: &["L"],
    },
    FieldRule { name: "year", min: 1, max: 5000, spread_max: 5000, names: &[], letters: &[] },
];

/// Splits `CRON_TZ=Zone ` or `TZ=Zone ` off the front.
pub(super) fn split_zone(text: &str) -> (Option<&str>, &str) {
    let text = text.trim();
    let Some(rest) = text.strip_prefix("CRON_TZ=").or_else(|| text.strip_prefix("TZ=")) else {
        return (None, text);
    };
    let (zone, expression) = rest.split_once(|c: char| c.is_ascii_whitespace()).unwrap_or((rest, ""));
    (Some(zone), expression.trim_start())
}

/// The seven fields of an expression (second first, year last), in croner's syntax.
pub(super) fn fields(expression: &str, spread: u64) -> Result<[String; 7], Rejection> {
    let expression = if expression.starts_with('@') { nickname(expression)? } else { expression };
    let given: Vec<&str> = expression.split_ascii_whitespace().collect();
    let first = match given.len() {
        5 => MINUTE,
        6 | 7 => SECOND,
        count => {
            return Err(invalid(format!(
                "a cron expression has 5 fields, 6 (seconds first) or 7 (years last), and {expression:?} has {count}"
            )));
        }
    };
    let mut fields = ["0", "", "", "", "", "", "*"].map(str::to_string);
    for (index, text) in (first..).zip(given) {
        fields[index] = field(index, text, spread)?;
    }
    Ok(fields)
}

fn nickname(text: &str) -> Result<&'static str, Rejection> {
    Ok(match text.trim_end().to_ascii_lowercase().as_str() {
        "@yearly" | "@annually" => "0 0 1 1 *",
        "@monthly" => "0 0 1 * *",
        "@weekly" => "0 0 * * 0",
        "@daily" | "@midnight" => "0 0 * * *",
        "@hourly" => "0 * * * *",
        "@reboot" => return Err(invalid("@reboot has no instant: a cluster does not boot")),
        every if every.starts_with("@every") => {
            return Err(invalid("@every is not a cron expression: use an `every` schedule"));
        }
        _ => {
            return Err(invalid(format!(
                "{text:?} is not one of @hourly, @daily, @midnight, @weekly, @monthly, @yearly, @annually"
            )));
        }
    })
}

/// One field in croner's syntax.
fn field(index: usize, text: &str, spread: u64) -> Result<String, Rejection> {
    let rule = &FIELDS[index];
    if text == "?" && (index == DAY || index == WEEKDAY) {
        return Ok("*".into());
    }
    if let Some(odd) = text.chars().find(|c| !(c.is_ascii_alphanumeric() || "*/,-~#".contains(*c))) {
        return Err(at_fault(index, text, format!("{odd:?} cannot stand here")));
    }
    let mut items = Vec::new();
    for (position, item) in text.split(',').enumerate() {
        if item.is_empty() {
            return Err(at_fault(index, text, "an element of the list is empty"));
        }
        if let Some((_, step)) = item.split_once('/') {
            check_step(index, text, step)?;
        }
        let item = numbered(index, text, item)?;
        let item = match item.split_once('~') {
            Some((low, high)) => spread_value(index, text, low, high, hash(spread, index, position))?,
            None => stepped(index, item),
        };
        items.push(item);
    }
    if index == WEEKDAY && items.iter().any(|item| item == "L") {
        return Err(at_fault(index, text, "L needs a weekday before it, as in 5L"));
    }
    if index == DAY && items.iter().any(|item| item == "L") && items.iter().any(|item| item == "LW") {
        return Err(at_fault(index, text, format!("L and LW cannot share a {} field", rule.name)));
    }
    Ok(items.join(","))
}

/// Replaces names by numbers. Upper-cases the special letters.
fn numbered(index: usize, text: &str, item: &str) -> Result<String, Rejection> {
    let rule = &FIELDS[index];
    let item = item.to_ascii_uppercase();
    let mut numbered = String::with_capacity(item.len());
    let mut rest = item.as_str();
    while let Some(start) = rest.find(|c: char| c.is_ascii_alphabetic()) {
        numbered.push_str(&rest[..start]);
        let run = &rest[start..];
        let end = run.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(run.len());
        let (word, after) = run.split_at(end);
        // `FRIL` is the last Friday of the month.
        let (name, last) = match word.strip_suffix('L') {
            Some(name) if index == WEEKDAY && name.len() == 3 => (name, "L"),
            _ => (word, ""),
        };
        if let Some(place) = rule.names.iter().position(|known| *known == name) {
            if numbered.ends_with(|c: char| c.is_ascii_digit()) {
                return Err(at_fault(index, text, format!("a name follows a number in {item:?}")));
            }
            let ends_range = index == WEEKDAY && place == 0 && numbered.ends_with(['-', '~']);
            let number = if ends_range { 7 } else { rule.min as usize + place };
            numbered.push_str(&number.to_string());
            numbered.push_str(last);
            if after.starts_with(|c: char| c.is_ascii_digit()) {
                return Err(at_fault(index, text, format!("a number follows a name in {item:?}")));
            }
        } else if rule.letters.contains(&word) {
            numbered.push_str(word);
        } else {
            return Err(at_fault(index, text, format!("{word:?} is not known here")));
        }
        rest = after;
    }
    numbered.push_str(rest);
    Ok(numbered)
}

/// `5/15` means `5-59/15`, as in Quartz and in Go's cron. (Sunday's second number is no place to end.)
fn stepped(index: usize, item: String) -> String {
    match item.split_once('/') {
        Some((start, step)) if !start.is_empty() && start.bytes().all(|b| b.is_ascii_digit()) => {
            let last = if index == WEEKDAY && start != "7" { 6 } else { FIELDS[index].max };
            format!("{start}-{last}/{step}")
        }
        _ => item,
    }
}

/// A step wider than the field would not mean what it says: `*/90` minutes is every hour.
fn check_step(index: usize, text: &str, step: &str) -> Result<(), Rejection> {
    let rule = &FIELDS[index];
    let widest = rule.max - rule.min + u16::from(index != WEEKDAY);
    // What is no number at all is for croner to say.
    match step.parse::<u64>() {
        Ok(step) if step == 0 || step > u64::from(widest) => {
            Err(at_fault(index, text, format!("a step of {step} is not from 1 to {widest}")))
        }
        _ => Ok(()),
    }
}

/// `~`, `low~high`, `low~`, `~high`: a value chosen by hash. With `/step`, every step from one chosen in the first.
fn spread_value(index: usize, text: &str, low: &str, high: &str, hash: u64) -> Result<String, Rejection> {
    let rule = &FIELDS[index];
    let bound = |bound: &str, open: u16| {
        if bound.is_empty() {
            return Ok(open);
        }
        let value = bound.parse::<u16>().ok().filter(|value| (rule.min..=rule.max).contains(value));
        value.ok_or_else(|| {
            at_fault(index, text, format!("{bound:?} is not a number from {} to {}", rule.min, rule.max))
        })
    };
    if index == YEAR && (low.is_empty() || high.is_empty()) {
        return Err(at_fault(index, text, "`~` in years needs both of its ends"));
    }
    let (high, step) = high.split_once('/').map_or((high, None), |(high, step)| (high, Some(step)));
    let (low, high) = (bound(low, rule.min)?, bound(high, rule.spread_max)?);
    if low > high {
        return Err(at_fault(index, text, format!("{low} comes after {high}")));
    }
    let values = u64::from(high - low) + 1;
    let chosen_of = |values: u64| u64::from(low) + hash % values;
    match step {
        None => Ok(chosen_of(values).to_string()),
        Some(step) => match step.parse::<u64>() {
            Ok(step) => Ok(format!("{}-{high}/{step}", chosen_of(values.min(step)))),
            Err(_) => Err(at_fault(index, text, format!("{step:?} is not a step"))),
        },
    }
}

/// Spreads tasks evenly, and the fields of one task independently of each other.
fn hash(spread: u64, index: usize, position: usize) -> u64 {
    xxh3_64_with_seed(&[index as u8, position as u8], spread)
}

pub(super) fn invalid(message: impl Into<String>) -> Rejection {
    Rejection::new(Code::InvalidSchedule, message)
}

/// What croner could not read, as it was given, and the values that the field takes.
pub(super) fn unreadable(expression: &str, index: usize, why: String) -> Rejection {
    let given: Vec<&str> = expression.split_ascii_whitespace().collect();
    let place = index.checked_sub(usize::from(given.len() == 5));
    let text = place.and_then(|place| given.get(place)).copied().unwrap_or(expression);
    let rule = &FIELDS[index];
    at_fault(index, text, format!("{why} (values are {} to {})", rule.min, rule.max))
}

fn at_fault(index: usize, text: &str, why: impl std::fmt::Display) -> Rejection {
    invalid(format!("{} field {text:?}: {why}", FIELDS[index].name))
}
