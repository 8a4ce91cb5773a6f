//! Real processes: the program itself under faults, by the runner that users have, judged by its checkers; and whether
//! they would notice if what the record says were otherwise.
#![cfg(not(madsim))]

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// One scenario, with a leader that dies, one that stands still, and where the machine allows it one that is cut off.
const SCENARIO: &str = r#"
name = "kill-pause-isolate"
span = "16s"

[workload]
clients = 2
operations_per_second = 5

[workload.tasks.every-second]
schedules = [{ every = "1s" }]
target.http.url = "http://receiver/every-second"

[[faults]]
at = "1s"
for = "4s"
fault = "kill"
node = "leader"

[[faults]]
at = "6s"
for = "4s"
fault = "pause"
node = "leader"

[[faults]]
at = "11s"
for = "4s"
fault = "isolate"
node = "leader"

[[faults]]
at = "12s"
for = "1s"
fault = "clock_jump"
node = "any"
by_ms = 100

[expect]
no_missed = true
"#;

/// The program that `make test` has built beside this one, or another by name. Without either there is nothing to test,
/// as where this package is built alone.
fn campanile() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_BIN_EXE_campanile-sim")).with_file_name("campanile");
    let named = std::env::var_os("CAMPANILE_BINARY").map(PathBuf::from);
    named.or_else(|| beside.exists().then_some(beside))
}

fn sim(arguments: &[&str]) -> (Option<i32>, Value, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_campanile-sim"));
    let output = command.args(arguments).arg("--json").env(MARK, std::process::id().to_string()).output().unwrap();
    let (stdout, stderr) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    (output.status.code(), serde_json::from_str(&stdout).unwrap_or_default(), stderr)
}

/// The names of what was violated.
fn broken(verdict: &Value) -> Vec<&str> {
    let lines = verdict["findings"].as_array().unwrap().iter();
    lines.filter(|line| line["judgement"] == "violated").map(|line| line["name"].as_str().unwrap()).collect()
}

#[test]
fn real_processes_keep_what_is_promised_and_the_checkers_would_notice_if_not() {
    let Some(binary) = campanile() else {
        println!("skipped: no program campanile beside the tests, and CAMPANILE_BINARY names none");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (scenario, history) = (path("scenario.toml"), path("history.jsonl"));
    std::fs::write(&scenario, SCENARIO).unwrap();
    let binary = binary.to_str().unwrap();
    let (code, verdict, stderr) = sim(&["real", &scenario, "--seed", "7", "--binary", binary, "--history", &history]);
    assert_eq!(code, Some(0), "{verdict:#} {stderr}");
    assert_eq!((&verdict["held"], &verdict["source"]), (&true.into(), &"real_processes".into()));
    let count = |value: &Value| value.as_u64().unwrap();
    assert!(count(&verdict["fired"]) >= 20 && count(&verdict["deliveries"]) >= 20, "{verdict:#}");
    assert_eq!((&verdict["faults"]["kill"], &verdict["faults"]["pause"]), (&1.into(), &1.into()));
    // What cannot be done is said: never a clock, and a network only by root.
    let left_out: Vec<&str> =
        verdict["left_out"].as_array().unwrap().iter().map(|left| left["fault"].as_str().unwrap()).collect();
    assert!(left_out.contains(&"clock_jump"), "{left_out:?}");
    assert_eq!(left_out.contains(&"isolate"), verdict["faults"]["isolate"].is_null(), "{left_out:?}");
    another_leads_in_each_fault(&history);
    assert_no_process_is_left();
    tampered_with(&history, &path("tampered.jsonl"));
}

/// Each fault takes the leader's leadership, or it did not do what it says.
fn another_leads_in_each_fault(history: &str) {
    let text = std::fs::read_to_string(history).unwrap();
    let (mut struck, mut followed): (Option<Value>, bool) = (None, false);
    for event in text.lines().skip(1).map(|line| serde_json::from_str::<Value>(line).unwrap()) {
        match event["event"].as_str().unwrap() {
            "fault_begins" => (struck, followed) = (Some(event), false),
            "node" if event["what"]["is"] == "leads" => {
                followed |= struck.as_ref().is_some_and(|fault| fault["nodes"][0] != event["node"]);
            }
            "fault_ends" => assert!(followed, "nobody followed the leader struck by {struck:?}"),
            _ => {}
        }
    }
}

/// Every process of a run has this in its environment.
const MARK: &str = "REAL_PROCESSES_TEST";

/// No node outlives the run.
fn assert_no_process_is_left() {
    let mark = format!("{MARK}={}", std::process::id());
    for process in std::fs::read_dir("/proc").unwrap().flatten() {
        // Most of what is there is no process, or not ours to read.
        let Ok(environment) = std::fs::read(process.path().join("environ")) else { continue };
        let marked = environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes());
        assert!(!marked, "{} is left", process.path().display());
    }
}

/// A real history that says something else is refused.
fn tampered_with(history: &str, file: &str) {
    let lines: Vec<String> = std::fs::read_to_string(history).unwrap().lines().map(str::to_owned).collect();
    let events: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    // Of a task that nobody changes, by its schedule: then the schedule alone tells what is missing.
    let succeeded = |run: &Value| {
        events.iter().any(|event| {
            let view = &event["run"];
            event["event"] == "final_run"
                && view["id"] == *run
                && view["state"] == "succeeded"
                && (&view["task"], &view["origin"]) == (&"every-second".into(), &"schedule".into())
        })
    };
    let deliver = events
        .iter()
        .position(|event| event["event"] == "deliver" && event["attempt"] == 1 && succeeded(&event["run"]));
    let deliver = deliver.expect("a delivery of a run that succeeded");
    let check = |lines: Vec<String>, name: &str| {
        std::fs::write(file, lines.join("\n")).unwrap();
        let (code, verdict, stderr) = sim(&["check", file]);
        assert_eq!(code, Some(1), "{name}: {stderr}");
        let broken = broken(&verdict);
        assert!(broken.contains(&name), "{name}: {broken:?}");
    };

    let without = |places: &dyn Fn(usize, &Value) -> bool| -> Vec<String> {
        let kept = lines.iter().zip(&events).enumerate().filter(|(place, (_, event))| !places(*place, event));
        kept.map(|(_, (line, _))| line.clone()).collect()
    };
    let run = &events[deliver]["run"];
    // Lost: it succeeded, and never arrived.
    let number = &events[deliver]["delivery"];
    check(
        without(&|place, event| place == deliver || event["event"] == "answer" && event["delivery"] == *number),
        "delivery_complete",
    );
    // Lost without a trace: nothing tells of it but the schedule.
    let of_it =
        |event: &Value| event["delivery"] == *number || event["event"] == "final_run" && event["run"]["id"] == *run;
    check(
        (lines.iter().zip(&events))
            .filter(|(_, event)| !of_it(event))
            .map(|(line, event)| if event["event"] == "final_ledger" { without_run(event, run) } else { line.clone() })
            .collect(),
        "no_lost_fire",
    );
    // Doubled.
    let mut doubled = lines.clone();
    let mut again = events[deliver].clone();
    again["delivery"] = 1_000_000.into();
    doubled.insert(deliver + 1, again.to_string());
    check(doubled, "unique_fire");
    // A task that was acknowledged and is gone.
    let task = &events[deliver]["task"];
    check(without(&|_, event| event["event"] == "final_task" && event["task"]["id"] == *task), "durability");
}

/// A final ledger that does not know the run.
fn without_run(event: &Value, run: &Value) -> String {
    let mut event = event.clone();
    let ledger = &mut event["ledger"];
    let items = ledger["items"].as_array_mut().unwrap();
    let before = items.len();
    items.retain(|line| line["run"] != *run);
    let gone = (before - items.len()) as u64;
    ledger["tally"]["fired"] = (ledger["tally"]["fired"].as_u64().unwrap() - gone).into();
    event.to_string()
}
