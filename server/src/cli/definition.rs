//! A task's definition from a file, from flags, or from both: flags win over what is there.

use std::collections::BTreeMap;
use std::io::Read;

use campanile_model::api::READ_ONLY_FIELDS;
use campanile_model::{
    CatchUpPolicy, Delivery, Dst, HttpMethod, HttpTarget, Json, Millis, OnFinish, Overlap, Schedule, Target, TaskSpec,
    Timestamp,
};
use clap::Args;

use super::failure::Failure;
use super::words::{self, words};

/// Where a definition comes from.
#[derive(Clone, Debug, Default, Args)]
pub struct Definition {
    /// Read the definition from a JSON or TOML (.toml) file, or JSON from standard input (-)
    #[arg(short, long, value_name = "FILE")]
    pub file: Option<String>,

    #[command(flatten)]
    flags: Flags,
}

/// A definition's parts as flags. Several schedules may be given; any of them replaces all that were there.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Definition")]
struct Flags {
    /// Fire when this cron expression is due
    #[arg(long, value_name = "EXPR")]
    cron: Vec<String>,
    /// Time zone of the cron expressions [default: UTC]
    #[arg(long, value_name = "ZONE")]
    tz: Option<String>,
    /// What the cron expressions do when a clock change skips or repeats a time [default: vixie]
    #[arg(long, value_name = "POLICY", value_parser = words::<Dst>(words::DST))]
    dst: Option<Dst>,
    /// Fire at this RFC 3339 instant
    #[arg(long, value_name = "INSTANT")]
    at: Vec<Timestamp>,
    /// Fire this long after the definition is written
    #[arg(long, value_name = "SPAN")]
    delay: Vec<Millis>,
    /// Fire at this interval
    #[arg(long, value_name = "SPAN")]
    every: Vec<Millis>,
    /// Fire by this ISO 8601 repeat, such as R3/2026-01-31T09:00:00+08:00/P1M
    #[arg(long, value_name = "ISO8601")]
    repeat: Vec<String>,
    /// Send runs to this URL
    #[arg(long)]
    url: Option<String>,
    /// With this method [default: POST]
    #[arg(long, value_parser = words::<HttpMethod>(words::METHODS), ignore_case = true)]
    method: Option<HttpMethod>,
    /// And this header; may be given several times
    #[arg(long, value_name = "NAME: VALUE", value_parser = words::header)]
    header: Vec<(String, String)>,
    /// Sign webhooks with this Standard Webhooks secret (whsec_ and base64)
    #[arg(long, value_name = "SECRET")]
    signing_secret: Option<String>,
    /// Send this JSON as the body
    #[arg(long, value_name = "JSON")]
    payload: Option<String>,
    /// Label the task; may be given several times
    #[arg(long, value_name = "KEY=VALUE", value_parser = words::pair)]
    label: Vec<(String, String)>,
    /// -100 to 100
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    priority: Option<i8>,
    /// Longest time one attempt may take [default: 30s]
    #[arg(long, value_name = "SPAN")]
    timeout: Option<Millis>,
    /// Start no attempt later than this after the run was fired
    #[arg(long, value_name = "SPAN")]
    deadline: Option<Millis>,
    /// What an occurrence does when a run of the task is still live [default: allow]
    #[arg(long, value_name = "POLICY", value_parser = words::<Overlap>(words::OVERLAP))]
    overlap: Option<Overlap>,
    /// What becomes of occurrences that an outage made late [default: fire_once]
    #[arg(long, value_name = "POLICY", value_parser = words::<CatchUpPolicy>(words::CATCH_UP))]
    catch_up: Option<CatchUpPolicy>,
    /// Late by more than this is missed [default: 1h]
    #[arg(long, value_name = "SPAN")]
    catch_up_window: Option<Millis>,
    /// Attempts of a run, the first included [default: 4]
    #[arg(long, value_name = "COUNT")]
    max_attempts: Option<u32>,
    /// Whether an attempt whose outcome is lost is repeated [default: at_least_once]
    #[arg(long, value_name = "MODE", value_parser = words::<Delivery>(words::DELIVERY))]
    delivery: Option<Delivery>,
    /// Spread occurrences over this long after their nominal time [default: 0s]
    #[arg(long, value_name = "SPAN")]
    jitter: Option<Millis>,
    /// No occurrence before this instant
    #[arg(long, value_name = "INSTANT")]
    start_at: Option<Timestamp>,
    /// No occurrence at or after this instant
    #[arg(long, value_name = "INSTANT")]
    end_at: Option<Timestamp>,
    /// Finish after this many fires
    #[arg(long, value_name = "COUNT")]
    remaining: Option<u32>,
    /// Pause after this many failed runs in a row
    #[arg(long, value_name = "COUNT")]
    pause_on_failure: Option<u32>,
    /// What becomes of the task when no occurrence is left [default: keep]
    #[arg(long, value_name = "WHAT", value_parser = words::<OnFinish>(words::ON_FINISH))]
    on_finish: Option<OnFinish>,
}

impl Definition {
    /// A definition of its own: the file's, else an empty one, with the flags laid over it.
    pub fn complete(self) -> Result<TaskSpec, Failure> {
        let base = match &self.file {
            Some(file) => read(file)?,
            None if self.flags.url.is_some() => TaskSpec::new(Vec::new(), http_target(String::new())),
            None => return Err(Failure::usage("a task needs a target: give --url, or a definition with --file")),
        };
        self.flags.over(base)
    }

    /// A change: the file replaces the current definition, flags change parts of it.
    pub fn change(self, current: TaskSpec) -> Result<TaskSpec, Failure> {
        let base = self.file.as_deref().map(read).transpose()?.unwrap_or(current);
        self.flags.over(base)
    }
}

impl Flags {
    fn over(self, mut spec: TaskSpec) -> Result<TaskSpec, Failure> {
        let mut schedules: Vec<Schedule> = Vec::new();
        schedules.extend(self.cron.into_iter().map(|expression| Schedule::Cron {
            expression,
            time_zone: "UTC".into(),
            dst: Dst::default(),
        }));
        schedules.extend(self.at.into_iter().map(Schedule::At));
        schedules.extend(self.delay.into_iter().map(Schedule::Delay));
        schedules.extend(self.every.into_iter().map(Schedule::Every));
        schedules.extend(self.repeat.into_iter().map(Schedule::Repeat));
        if !schedules.is_empty() {
            spec.schedules = schedules;
        }
        set_cron_parts(&mut spec.schedules, self.tz, self.dst)?;

        let Target::Http(target) = &mut spec.target;
        set(&mut target.url, self.url);
        set(&mut target.method, self.method);
        set(&mut target.headers, some_map(self.header));
        set_optional(&mut target.signing_secret, self.signing_secret);
        if let Some(text) = self.payload {
            let value: serde_json::Value = serde_json::from_str(&text)
                .map_err(|error| Failure::usage(format!("--payload is not JSON: {error}")))?;
            spec.payload = Some(Json::from_value(&value));
        }
        set(&mut spec.labels, some_map(self.label));
        set(&mut spec.priority, self.priority);
        set(&mut spec.timeout, self.timeout);
        set_optional(&mut spec.deadline, self.deadline);
        set(&mut spec.overlap, self.overlap);
        set(&mut spec.catch_up.policy, self.catch_up);
        set(&mut spec.catch_up.window, self.catch_up_window);
        set(&mut spec.retry.max_attempts, self.max_attempts);
        set(&mut spec.delivery, self.delivery);
        set(&mut spec.jitter, self.jitter);
        set_optional(&mut spec.start_at, self.start_at);
        set_optional(&mut spec.end_at, self.end_at);
        set_optional(&mut spec.remaining, self.remaining);
        set_optional(&mut spec.pause_on_failure, self.pause_on_failure);
        set(&mut spec.on_finish, self.on_finish);
        Ok(spec)
    }
}

fn set<T>(place: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *place = value;
    }
}

fn set_optional<T>(place: &mut Option<T>, value: Option<T>) {
    if value.is_some() {
        *place = value;
    }
}

fn some_map(pairs: Vec<(String, String)>) -> Option<BTreeMap<String, String>> {
    (!pairs.is_empty()).then(|| pairs.into_iter().collect())
}

/// `--tz` and `--dst` mean every cron schedule of the task.
fn set_cron_parts(schedules: &mut [Schedule], tz: Option<String>, new_dst: Option<Dst>) -> Result<(), Failure> {
    let mut crons = 0;
    for schedule in schedules {
        if let Schedule::Cron { time_zone, dst, .. } = schedule {
            set(time_zone, tz.clone());
            set(dst, new_dst);
            crons += 1;
        }
    }
    if crons == 0 && (tz.is_some() || new_dst.is_some()) {
        return Err(Failure::usage("--tz and --dst belong to a cron schedule, and the task has none"));
    }
    Ok(())
}

/// A webhook with everything but its URL at the default.
pub fn http_target(url: String) -> Target {
    Target::Http(HttpTarget { url, method: HttpMethod::default(), headers: BTreeMap::new(), signing_secret: None })
}

/// Reads a definition; what the cluster adds when it shows a task (`task get --json`) is passed over.
fn read(file: &str) -> Result<TaskSpec, Failure> {
    let text = read_text(file)?;
    let invalid = |error: &dyn std::fmt::Display| {
        Failure::refused(campanile_model::Code::InvalidField, format!("{file}: {error}"))
    };
    let mut definition: serde_json::Map<String, serde_json::Value> = if file.ends_with(".toml") {
        toml::from_str(&text).map_err(|error| invalid(&error))?
    } else {
        serde_json::from_str(&text).map_err(|error| invalid(&error))?
    };
    definition.retain(|field, _| !READ_ONLY_FIELDS.contains(&field.as_str()));
    serde_json::from_value(definition.into()).map_err(|error| invalid(&error))
}

/// The text of a file, or of standard input (`-`).
pub fn read_text(file: &str) -> Result<String, Failure> {
    let mut text = String::new();
    let result = match file {
        "-" => std::io::stdin().read_to_string(&mut text).map(drop),
        path => std::fs::read_to_string(path).map(|content| text = content),
    };
    result.map_err(|error| Failure::unreadable(file, &error))?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, FromArgMatches, Parser};

    use super::*;

    #[derive(Parser)]
    #[command(no_binary_name = true)]
    struct Line {
        #[command(flatten)]
        definition: Definition,
    }

    fn definition(args: &[&str]) -> Definition {
        let matches = Line::command().try_get_matches_from(args).unwrap();
        Line::from_arg_matches(&matches).unwrap().definition
    }

    #[test]
    fn flags_make_a_definition() {
        let spec = definition(&[
            "--cron",
            "0 30 2 * * *",
            "--cron",
            "@daily",
            "--tz",
            "Europe/Berlin",
            "--every",
            "15m",
            "--url",
            "http://127.0.0.1:9000/hook",
            "--method",
            "put",
            "--header",
            "X-Team: billing",
            "--label",
            "team=billing",
            "--payload",
            r#"{"a": 1}"#,
            "--priority",
            "-5",
            "--overlap",
            "buffer_one",
            "--timeout",
            "5s",
        ])
        .complete()
        .unwrap();
        let json = serde_json::to_value(&spec).unwrap();
        let dst = "vixie";
        let zone = "Europe/Berlin";
        assert_eq!(
            json["schedules"],
            serde_json::json!([
                {"cron": "0 30 2 * * *", "time_zone": zone, "dst": dst},
                {"cron": "@daily", "time_zone": zone, "dst": dst},
                {"every": "15m"}
            ])
        );
        assert_eq!(
            json["target"]["http"],
            serde_json::json!({"url": "http://127.0.0.1:9000/hook", "method": "PUT", "headers": {"X-Team": "billing"}})
        );
        assert_eq!((&json["payload"]["a"], &json["priority"]), (&1.into(), &(-5).into()));
        assert_eq!((spec.overlap, spec.timeout), (Overlap::BufferOne, Millis::from_secs(5)));
    }

    #[test]
    fn a_change_keeps_what_it_does_not_name() {
        let current = definition(&["--cron", "@daily", "--every", "1h", "--url", "http://a/"]).complete().unwrap();
        let changed = definition(&["--priority", "7"]).change(current.clone()).unwrap();
        assert_eq!(changed, TaskSpec { priority: 7, ..current.clone() });
        let changed = definition(&["--tz", "Asia/Tokyo"]).change(current.clone()).unwrap();
        assert_eq!(changed.schedules.len(), 2);
        assert!(matches!(&changed.schedules[0], Schedule::Cron { time_zone, .. } if time_zone == "Asia/Tokyo"));
        let changed = definition(&["--delay", "5s"]).change(current).unwrap();
        assert_eq!(changed.schedules, [Schedule::Delay(Millis::from_secs(5))]);
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        assert!(definition(&["--cron", "@daily"]).complete().is_err());
        assert!(definition(&["--every", "1m", "--tz", "UTC", "--url", "http://a/"]).complete().is_err());
        assert!(definition(&["--payload", "{", "--url", "http://a/"]).complete().is_err());
        assert!(definition(&["--file", "/nonexistent"]).complete().is_err());
    }

    #[test]
    fn files_are_json_or_toml_and_what_get_shows_is_accepted() {
        let dir = tempfile::tempdir().unwrap();
        let json = dir.path().join("task.json");
        let toml = dir.path().join("task.toml");
        let shown = r#"{"id":"t1","version":3,"state":"active","next":null,"priority":4,
            "schedules":[{"every":"1m"}],"target":{"http":{"url":"http://a/"}}}"#;
        std::fs::write(&json, shown).unwrap();
        std::fs::write(&toml, "priority = 4\n[[schedules]]\nevery = \"1m\"\n[target.http]\nurl = \"http://a/\"\n")
            .unwrap();
        let [from_json, from_toml] =
            [json, toml].map(|file| definition(&["-f", file.to_str().unwrap()]).complete().unwrap());
        assert_eq!(from_json, from_toml);
        assert_eq!(from_json.priority, 4);
    }
}
