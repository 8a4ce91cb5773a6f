//! Stored histories: judged and drawn by any build, through the command line.

use std::process::Command;

const HISTORY: &str = "tests/histories/late-fire.jsonl";
const SCENARIO: &str = "tests/histories/late-fire.toml";

fn sim(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_campanile-sim")).args(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn a_stored_history_is_judged_with_the_expectations_of_its_scenario() {
    let folder = tempfile::tempdir().unwrap();
    let junit = folder.path().join("junit.xml");
    let (code, stdout, stderr) =
        sim(&["check", HISTORY, "--scenario", SCENARIO, "--json", "--junit", junit.to_str().unwrap()]);
    assert_eq!(code, Some(1), "{stderr}");
    let verdict: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((&verdict["worst_lateness_ms"], &verdict["held"]), (&7200.into(), &false.into()));
    let expectations =
        verdict["findings"].as_array().unwrap().iter().find(|line| line["name"] == "expectations").unwrap();
    assert_eq!(expectations["violations"].as_array().unwrap().len(), 1);
    assert!(std::fs::read_to_string(junit).unwrap().contains("7200 ms late; 5000 ms are allowed"));
    let (_, text, _) = sim(&["check", HISTORY, "--scenario", SCENARIO]);
    assert!(text.contains("the worst 7200 ms late") && text.contains("isolate 1"), "{text}");
    assert!(text.contains("campanile-sim replay --seed 17"), "{text}");
}

#[test]
fn a_stored_history_is_drawn() {
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("page.html");
    let (code, stdout, stderr) = sim(&["report", HISTORY, "--scenario", SCENARIO, "--out", page.to_str().unwrap()]);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stdout.contains("Timeline: "), "{stdout}");
    let page = std::fs::read_to_string(page).unwrap();
    for piece in ["nightly-report", "\"name\":\"isolate\"", "leads term 2", "7200"] {
        assert!(page.contains(piece), "{piece}");
    }
}

#[test]
fn what_is_no_history_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("h.jsonl");
    let header = std::fs::read_to_string(HISTORY).unwrap().lines().next().unwrap().to_string();
    for (text, said) in [
        (String::new(), "the history is empty"),
        ("{}\n".into(), "line 1 of the history"),
        (header.replace("\"format\": 1", "\"format\": 99"), "has format 99; this build reads format 1"),
        (
            format!("{header}\n{{\"t\": 1, \"event\": \"earthquake\"}}\n"),
            "line 2 of the history: unknown variant `earthquake`",
        ),
    ] {
        std::fs::write(&file, text).unwrap();
        for verb in [&["check"][..], &["report", "--out", "/dev/null"]] {
            let (code, _, stderr) = sim(&[verb, &[file.to_str().unwrap()]].concat());
            assert_eq!(code, Some(2), "{stderr}");
            assert!(stderr.contains("h.jsonl") && stderr.contains(said) && stderr.lines().count() == 1, "{stderr}");
        }
    }
}
