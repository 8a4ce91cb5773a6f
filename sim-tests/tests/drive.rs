//! The verbs that start processes, driven for real: this program against a small script that stands in for the
//! simulator.
#![cfg(not(madsim))]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use campanile_sim::scenario::Scenario;
use serde_json::Value;

const FAKE: &str = "tests/fake/simulator.sh";

struct Ran {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Ran {
    fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {} {}", self.stdout, self.stderr))
    }
}

fn sim(arguments: &[&str]) -> Ran {
    run(&[arguments, &["--simulator", FAKE]].concat())
}

fn run(arguments: &[&str]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_campanile-sim"));
    let Output { status, stdout, stderr } = command.args(arguments).env_remove("CAMPANILE_SIMULATOR").output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran { code: status.code(), stdout: text(stdout), stderr: text(stderr) }
}

/// A scenario whose name tells the script what to do.
fn scenario(folder: &Path, name: &str) -> PathBuf {
    let file = folder.join(format!("{name}.toml"));
    let text = format!(
        "name = \"{name}\"\n[workload.tasks.needed]\nschedules = [{{ every = \"1s\" }}]\n\
         target.http.url = \"http://receiver/\"\n[workload.tasks.other]\nschedules = [{{ every = \"1s\" }}]\n\
         target.http.url = \"http://receiver/\"\n"
    );
    std::fs::write(&file, text).unwrap();
    file
}

/// The same with nothing left to draw: 6 faults and 40 operations.
fn written_out(folder: &Path, name: &str) -> PathBuf {
    let file = scenario(folder, name);
    let plan = serde_json::from_str(include_str!("fake/plan.json")).unwrap();
    let planned = campanile_sim::scenario::read(&file).unwrap().with_plan(&plan);
    std::fs::write(&file, planned.text().unwrap()).unwrap();
    file
}

/// What is left of a scenario that fails under a seed, and what was said of it.
fn shrunk(file: &Path, seed: &str) -> (Scenario, Value) {
    let smallest = file.with_extension("smallest");
    let paths = [file, &smallest].map(|path| path.to_str().unwrap());
    let ran = sim(&["shrink", paths[0], "--seed", seed, "--out", paths[1], "--json"]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    (campanile_sim::scenario::read(&smallest).unwrap(), ran.json())
}

#[test]
fn a_sweep_tells_of_failing_seeds_and_how_to_replay_them() {
    let folder = tempfile::tempdir().unwrap();
    let file = scenario(folder.path(), "fourth");
    let (file, keep) = (file.to_str().unwrap(), folder.path().join("kept"));
    let junit = folder.path().join("junit.xml");
    let flags = ["--keep", keep.to_str().unwrap(), "--junit", junit.to_str().unwrap(), "--jobs", "3"];
    let ran = sim(&[&["sweep", file, "--seeds", "10", "--json"][..], &flags].concat());
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    let json = ran.json();
    let mut seeds: Vec<u64> =
        json["failures"].as_array().unwrap().iter().map(|f| f["seed"].as_u64().unwrap()).collect();
    seeds.sort_unstable();
    assert_eq!(seeds, [4, 8]);
    assert_eq!(json["marks"], serde_json::json!({"always_hit": 20, "hit_by_seed_5": 1}));
    assert!(json["rechecked"].as_u64().unwrap() >= 2 && json["differing"] == serde_json::json!([]));
    assert!(ran.stderr.contains(&format!("replay --seed 4 {file}")), "{}", ran.stderr);
    assert!(keep.join("seed-4.jsonl").exists() && keep.join("seed-8.html").exists());
    let junit = std::fs::read_to_string(junit).unwrap();
    assert!(junit.contains("failures=\"2\"") && junit.contains("8 seeds held"), "{junit}");
}

#[test]
fn a_sweep_that_holds_says_so_and_marks_can_be_required() {
    let ran = sim(&["sweep", "--seeds", "4", "--jobs", "2"]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(ran.stdout.contains("4 seeds") && ran.stdout.contains("never: hit_by_seed_5"), "{}", ran.stdout);
    assert_eq!(sim(&["sweep", "--seeds", "4", "--require-marks"]).code, Some(1));
    assert_eq!(sim(&["sweep", "--seeds", "3..6", "--require-marks"]).code, Some(0));
}

#[test]
fn a_sweep_goes_on_where_it_was_ended() {
    let folder = tempfile::tempdir().unwrap();
    let file = scenario(folder.path(), "fourth");
    let state = folder.path().join("state.json");
    let (file, state) = (file.to_str().unwrap(), state.to_str().unwrap());
    let sweep = ["sweep", file, "--resume", state, "--jobs", "1", "--json"];
    let first = sim(&[&sweep[..], &["--seeds", "20", "--stop-after", "1"]].concat());
    assert_eq!(first.code, Some(1));
    assert_eq!(first.json()["failures"].as_array().unwrap().len(), 1);
    let done = first.json()["through"].as_u64().unwrap();
    assert!((5..8).contains(&done), "{done}");
    let second = sim(&[&sweep[..], &["--seeds", "20"]].concat()).json();
    assert_eq!(second["failures"].as_array().unwrap().len(), 5);
    assert_eq!((&second["through"], &second["marks"]["always_hit"]), (&21.into(), &40.into()));
    // All is done: nothing runs again.
    assert_eq!(sim(&[&sweep[..], &["--seeds", "20"]].concat()).json()["marks"]["always_hit"], 40);
    let other = scenario(folder.path(), "other");
    let refused = sim(&["sweep", other.to_str().unwrap(), "--resume", state, "--seeds", "20"]);
    assert_eq!(refused.code, Some(2));
    assert!(refused.stderr.contains("another build, scenario"), "{}", refused.stderr);
}

#[test]
fn a_seed_that_runs_differently_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let file = scenario(folder.path(), "wavering");
    let file = file.to_str().unwrap();
    let ran = sim(&["replay", file, "--seed", "1"]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.stdout.contains("NOT DETERMINISTIC"), "{}", ran.stdout);
    let ran = sim(&["sweep", file, "--seeds", "2", "--recheck", "100", "--json"]);
    assert_eq!(ran.code, Some(1));
    assert_eq!(ran.json()["differing"].as_array().unwrap().len(), 2);
}

#[test]
fn a_replay_prints_the_hash() {
    let ran = sim(&["replay", "--seed", "7"]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(ran.stdout.contains("same trace: 0000000000000007"), "{}", ran.stdout);
    let json = sim(&["replay", "--seed", "7", "--json"]).json();
    assert_eq!((&json["same"], &json["traces"][1]), (&true.into(), &"0000000000000007".into()));
}

#[test]
fn a_hunt_makes_a_table_and_fails_where_a_bug_gets_away() {
    let folder = tempfile::tempdir().unwrap();
    let table = folder.path().join("table.md");
    let ran = sim(&["hunt", "--max-seeds", "6", "--jobs", "2", "--json", "--out", table.to_str().unwrap()]);
    assert_eq!(ran.code, Some(1));
    let json = ran.json();
    let rows: Vec<_> =
        json["rows"].as_array().unwrap().iter().map(|row| (&row["bug"], &row["caught_by"][0], &row["seed"])).collect();
    let [text, none] = [|text: &str| Value::from(text), |_: &str| Value::Null];
    assert_eq!(rows[0], (&text("early"), &text("unique_fire"), &3.into()));
    assert_eq!(rows[1], (&text("never"), &none(""), &Value::Null));
    assert_eq!(rows[2], (&text("crasher"), &text("crash"), &1.into()));
    let table = std::fs::read_to_string(table).unwrap();
    assert!(
        table.contains("| early | default | unique_fire | 3 | 3 |")
            && table.contains("| never | default | **nothing** |"),
        "{table}"
    );
    assert_eq!(sim(&["hunt", "--planted", "early"]).code, Some(0));
    let slip = sim(&["hunt", "--planted", "erly"]);
    assert_eq!(slip.code, Some(2));
    assert!(slip.stderr.contains("did you mean \"early\""), "{}", slip.stderr);
}

#[test]
fn a_failing_seed_shrinks_to_what_it_needs() {
    let folder = tempfile::tempdir().unwrap();
    let (scenario, json) = shrunk(&written_out(folder.path(), "needle"), "9");
    assert_eq!((&json["events_before"], &json["events"]), (&48.into(), &3.into()));
    assert_eq!(scenario.faults.len(), 1);
    assert_eq!(scenario.faults[0].fault.name(), "kill");
    assert_eq!(scenario.workload.operations.len(), 1);
    assert_eq!(scenario.workload.tasks.keys().collect::<Vec<_>>(), ["needed"]);
    assert_eq!(scenario.seed, json["seed"].as_u64());
    // The trigger comes at 8.5 s.
    assert_eq!(scenario.span, campanile_model::Millis::from_secs(9));
    let holds = sim(&["shrink", "--seed", "1"]);
    assert_eq!(holds.code, Some(2));
    assert!(holds.stderr.contains("nothing to shrink"), "{}", holds.stderr);
}

#[test]
fn operations_that_only_fill_the_log_shrink_to_one_task() {
    let folder = tempfile::tempdir().unwrap();
    let (scenario, _) = shrunk(&written_out(folder.path(), "volume"), "9");
    assert_eq!((scenario.faults.len(), scenario.workload.operations.len()), (1, 0));
    assert_eq!(scenario.workload.tasks.keys().collect::<Vec<_>>(), ["standing-load"]);
}

#[test]
fn what_fails_by_accident_shrinks_with_the_faults_of_another_seed() {
    let folder = tempfile::tempdir().unwrap();
    let file = scenario(folder.path(), "accident");
    let drawn = "[workload]\nclients = 3\noperations_per_second = 2\n[swarm]\nevery = \"5s\"\n";
    std::fs::write(&file, std::fs::read_to_string(&file).unwrap() + drawn).unwrap();
    let (scenario, json) = shrunk(&file, "9");
    assert_eq!((scenario.faults.len(), scenario.workload.operations.len()), (1, 0));
    assert_eq!(scenario.workload.tasks.keys().collect::<Vec<_>>(), ["standing-load"]);
    assert!(json["seed"].as_u64() >= Some(60), "{json}");
}

#[test]
fn what_a_child_refuses_is_said_once() {
    let folder = tempfile::tempdir().unwrap();
    let file = scenario(folder.path(), "refused");
    let file = file.to_str().unwrap();
    for verb in [&["replay", "--seed", "1", file][..], &["sweep", "--seeds", "3", file], &["hunt", file]] {
        let ran = sim(verb);
        assert_eq!((ran.code, ran.stderr.trim()), (Some(2), "error: the child refuses"), "{verb:?}");
    }
}

#[test]
fn a_build_without_the_simulator_says_what_to_do() {
    for verb in
        [&["run"][..], &["sweep", "--seeds", "1"], &["replay", "--seed", "1"], &["hunt"], &["planted"], &["marks"]]
    {
        let ran = run(verb);
        assert_eq!(ran.code, Some(2), "{verb:?}");
        assert!(ran.stderr.contains("make sim-build"), "{verb:?}: {}", ran.stderr);
    }
    assert_eq!(run(&["run", "--sed", "1"]).code, Some(2));
    assert!(run(&["check", "/nonexistent"]).stderr.contains("/nonexistent"));
}
