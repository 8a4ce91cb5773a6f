//! A crontab file as named webhooks on schedules.
//!
//! ```text
//! CRON_TZ=Europe/Berlin
//! # name: nightly-report
//! 30 2 * * *  POST http://127.0.0.1:9000/report
//! @hourly     https://example.com/ping
//! ```
//!
//! Five fields or a nickname, then a URL, perhaps with a method before it (`POST` otherwise). `CRON_TZ=` and `TZ=` lines
//! set the zone of the lines after them; other environment lines mean nothing here and are passed over. This module
//! reads text, not files, and makes no tasks: it says what they would be.

use std::collections::BTreeMap;

use campanile_model::{Dst, HttpMethod, Rejection, Schedule, limits};
use xxhash_rust::xxh3::xxh3_64;

use crate::{cron, zone};

/// One line that makes a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Counted from 1.
    pub line: usize,
    /// What a `# name: …` comment on the line above says, else made from the line: the same text, the same name.
    pub name: String,
    pub schedule: Schedule,
    pub method: HttpMethod,
    pub url: String,
}

/// A line that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {message}")]
pub struct LineError {
    /// Counted from 1.
    pub line: usize,
    pub message: String,
}

/// Every line of a crontab that makes a task or is at fault, in order. `time_zone` is that of the lines before the first
/// `CRON_TZ=`.
pub fn parse(text: &str, time_zone: &str, dst: Dst) -> Vec<Result<Entry, LineError>> {
    let mut zone = time_zone.to_string();
    let mut name = None;
    let mut lines_by_name: BTreeMap<String, usize> = BTreeMap::new();
    let mut results = Vec::new();
    for (line, text) in (1..).zip(text.lines()) {
        let text = text.trim();
        let name_above = name.take();
        let result = match Line::read(text) {
            Line::Nothing => continue,
            Line::Name(text) => {
                name = Some(text.to_string());
                continue;
            }
            Line::Zone(value) => {
                let value = if value.is_empty() { time_zone } else { value };
                match zone::find(value) {
                    Ok(_) => {
                        zone = value.to_string();
                        continue;
                    }
                    Err(refusal) => Err(refusal.message),
                }
            }
            Line::Task => task(text, &zone, dst),
        };
        let result = result.and_then(|(schedule, method, url)| {
            let name = name_above.unwrap_or_else(|| derived_name(&schedule, method, &url));
            match lines_by_name.get(&name) {
                Some(other) => Err(format!("line {other} is named {name:?} already")),
                None => {
                    lines_by_name.insert(name.clone(), line);
                    Ok(Entry { line, name, schedule, method, url })
                }
            }
        });
        results.push(result.map_err(|message| LineError { line, message }));
    }
    results
}

enum Line<'t> {
    Nothing,
    Name(&'t str),
    Zone(&'t str),
    Task,
}

impl<'t> Line<'t> {
    fn read(text: &'t str) -> Self {
        if let Some(comment) = text.strip_prefix('#') {
            let name = comment.trim_start().strip_prefix("name:").map(str::trim).filter(|name| !name.is_empty());
            return name.map_or(Self::Nothing, Self::Name);
        }
        let Some((variable, value)) = text.split_once('=') else {
            return if text.is_empty() { Self::Nothing } else { Self::Task };
        };
        // An `=` further on belongs to a task's URL.
        match variable.trim_end() {
            "CRON_TZ" | "TZ" => Self::Zone(unquoted(value.trim())),
            variable if variable.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') => Self::Nothing,
            _ => Self::Task,
        }
    }
}

fn unquoted(value: &str) -> &str {
    let inner = |quote: char| value.strip_prefix(quote)?.strip_suffix(quote);
    inner('"').or_else(|| inner('\'')).unwrap_or(value)
}

fn task(text: &str, zone: &str, dst: Dst) -> Result<(Schedule, HttpMethod, String), String> {
    let fields = if text.starts_with('@') { 1 } else { 5 };
    let words: Vec<&str> = text.split_ascii_whitespace().collect();
    if words.len() <= fields {
        return Err(format!("{text:?} has no command after its {fields} fields"));
    }
    let (fields, command) = words.split_at(fields);
    let expression = fields.join(" ");
    let (method, url) = webhook(command)?;
    let refused = |refusal: Rejection| refusal.message;
    if expression.len() > limits::SCHEDULE_BYTES {
        return Err(format!("the fields are longer than {} bytes", limits::SCHEDULE_BYTES));
    }
    cron::Cron::compile(&expression, zone, dst, 0).map_err(refused)?;
    Ok((Schedule::Cron { expression, time_zone: zone.into(), dst }, method, url))
}

fn webhook(command: &[&str]) -> Result<(HttpMethod, String), String> {
    const METHODS: [HttpMethod; 5] =
        [HttpMethod::Get, HttpMethod::Post, HttpMethod::Put, HttpMethod::Patch, HttpMethod::Delete];
    let is_url = |word: &str| word.starts_with("http://") || word.starts_with("https://");
    let method_of = |word: &str| METHODS.into_iter().find(|method| method.as_str() == word);
    let (method, url, rest) = match command {
        [url, rest @ ..] if is_url(url) => (HttpMethod::Post, url, rest),
        [word, url, rest @ ..] if is_url(url) => {
            let method = method_of(word)
                .ok_or_else(|| format!("{word:?} before the URL is not one of GET, POST, PUT, PATCH, DELETE"))?;
            (method, url, rest)
        }
        _ => {
            let command = command.join(" ");
            return Err(format!("{command:?} is not a URL, and only http targets exist: `[METHOD] http://host/path`"));
        }
    };
    if !rest.is_empty() {
        return Err(format!("{:?} follows the URL; a payload is given to the task, not in a crontab", rest.join(" ")));
    }
    if url.len() > limits::URL_BYTES {
        return Err(format!("the URL is longer than {} bytes", limits::URL_BYTES));
    }
    Ok((method, (*url).to_string()))
}

/// The URL in letters and digits, and a hash of the whole line so that two schedules of one URL differ.
fn derived_name(schedule: &Schedule, method: HttpMethod, url: &str) -> String {
    const SLUG_BYTES: usize = 60;
    let (_, address) = url.split_once("://").unwrap_or(("", url));
    let mut slug = String::new();
    for c in address.chars() {
        if c.is_ascii_alphanumeric() || c == '.' {
            slug.push(c.to_ascii_lowercase());
        } else if !slug.is_empty() && !slug.ends_with('-') {
            slug.push('-');
        }
        if slug.len() == SLUG_BYTES {
            break;
        }
    }
    let slug = slug.trim_matches(['-', '.']);
    let slug = if slug.is_empty() { "task" } else { slug };
    let line = format!("{schedule:?} {} {url}", method.as_str());
    format!("{slug}-{:08x}", xxh3_64(line.as_bytes()) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_utc(text: &str) -> Vec<Result<Entry, LineError>> {
        parse(text, "UTC", Dst::Vixie)
    }

    #[test]
    fn a_crontab_makes_tasks() {
        let entries: Vec<Entry> = parse_utc(
            "# my jobs\n\
             SHELL=/bin/sh\n\
             MAILTO = ops@example.com\n\
             */5 * * * *\tPOST http://127.0.0.1:9000/hook?a=b\n\
             \n\
             CRON_TZ=\"Europe/Berlin\"\n\
             # name: nightly\n\
             30 2 * * mon-fri  GET   https://example.com/x\n\
             TZ=\n\
             @daily http://127.0.0.1:9000/\r\n",
        )
        .into_iter()
        .collect::<Result<_, _>>()
        .unwrap();
        let seen: Vec<_> = entries.iter().map(|e| (e.line, e.method.as_str(), e.url.as_str())).collect();
        assert_eq!(
            seen,
            [
                (4, "POST", "http://127.0.0.1:9000/hook?a=b"),
                (8, "GET", "https://example.com/x"),
                (10, "POST", "http://127.0.0.1:9000/"),
            ]
        );
        let cron = |expression: &str, zone: &str| Schedule::Cron {
            expression: expression.into(),
            time_zone: zone.into(),
            dst: Dst::Vixie,
        };
        assert_eq!(entries[0].schedule, cron("*/5 * * * *", "UTC"));
        assert_eq!(entries[1].schedule, cron("30 2 * * mon-fri", "Europe/Berlin"));
        assert_eq!(entries[2].schedule, cron("@daily", "UTC"));
        assert_eq!(entries[1].name, "nightly");
        assert!(entries[0].name.starts_with("127.0.0.1-9000-hook-a-b-"), "{}", entries[0].name);
    }

    #[test]
    fn names_depend_on_the_line_alone() {
        let line = "0 1 * * * http://h/x";
        let [first, other] = [format!("{line}\n"), format!("\n\n{line}\n0 2 * * * http://h/x\n")]
            .map(|text| parse_utc(&text).into_iter().map(|entry| entry.unwrap().name).collect::<Vec<_>>());
        assert_eq!(first[0], other[0]);
        assert_ne!(other[0], other[1]);
        assert!(parse_utc(&format!("{line}\n{line}\n"))[1].is_err());
    }

    #[test]
    fn a_bad_line_is_named_and_the_others_stand() {
        for (line, reason) in [
            ("* * * * * /usr/bin/backup --all", "only http targets exist"),
            ("* * * * * curl http://h/", "\"curl\" before the URL"),
            ("* * * * * HEAD http://h/", "\"HEAD\" before the URL"),
            ("* * * * * http://h/ -d x", "follows the URL"),
            ("* * * * *", "no command"),
            ("@daily", "no command"),
            ("@reboot http://h/", "@reboot"),
            ("60 * * * * http://h/", "minute field \"60\""),
            ("30 2 31 2 * http://h/", "never occurs"),
            ("CRON_TZ=Mars/Olympus", "Mars/Olympus"),
        ] {
            let results = parse_utc(&format!("@hourly http://h/a\n{line}\n@hourly http://h/b\n"));
            let [Ok(_), Err(error), Ok(_)] = &results[..] else { panic!("{line}: {results:?}") };
            assert_eq!(error.line, 2);
            assert!(error.to_string().contains(reason), "{error}");
        }
    }

    #[test]
    fn a_name_is_for_the_next_line_only() {
        let entries = parse_utc("# name: a\n\n@hourly http://h/1\n# name: b\n@hourly http://h/2\n@hourly http://h/3\n");
        let names: Vec<String> = entries.into_iter().map(|entry| entry.unwrap().name).collect();
        assert!(names[0].starts_with("h-1-") && names[1] == "b" && names[2].starts_with("h-3-"), "{names:?}");
    }
}
