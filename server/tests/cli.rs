//! The real binary, without a cluster: offline commands, the configuration, and how errors are told.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

/// The binary with none of the caller's own settings.
fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_campanile"));
    command.args(args).stdin(Stdio::null());
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("CAMPANILE_")) {
        command.env_remove(name);
    }
    command
}

fn run(args: &[&str]) -> Output {
    command(args).output().unwrap()
}

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

#[track_caller]
fn succeeds(args: &[&str]) -> String {
    let output = run(args);
    assert!(output.status.success(), "{args:?}: {}", stderr(&output));
    stdout(&output).to_owned()
}

#[track_caller]
fn succeeds_json(args: &[&str]) -> Value {
    serde_json::from_str(&succeeds(args)).unwrap()
}

/// Fails with this status and says this on standard error, and nothing on standard output.
#[track_caller]
fn fails(args: &[&str], status: i32, says: &[&str]) {
    let output = run(args);
    assert_eq!(output.status.code(), Some(status), "{args:?}: {}", stderr(&output));
    assert_eq!(stdout(&output), "", "{args:?}");
    for text in says {
        assert!(stderr(&output).contains(text), "{args:?} does not say {text:?}:\n{}", stderr(&output));
    }
}

fn example_crontab() -> String {
    "../examples/crontab".to_owned()
}

#[test]
fn next_passes_the_night_when_clocks_go_forward() {
    let args = ["next", "0 30 2 * * *", "--tz", "Europe/Berlin", "--after", "2026-03-28T12:00:00Z", "--count", "3"];
    let expected = json!([
        {"at": "2026-03-29T03:00:00+02:00", "utc": "2026-03-29T01:00:00.000Z"},
        {"at": "2026-03-30T02:30:00+02:00", "utc": "2026-03-30T00:30:00.000Z"},
        {"at": "2026-03-31T02:30:00+02:00", "utc": "2026-03-31T00:30:00.000Z"},
    ]);
    assert_eq!(succeeds_json(&[&args[..], &["--json"]].concat()), expected);
    assert_eq!(succeeds(&args), "2026-03-29T03:00:00+02:00\n2026-03-30T02:30:00+02:00\n2026-03-31T02:30:00+02:00\n");
}

#[test]
fn next_obeys_the_policy_on_clock_changes() {
    let next = |dst| {
        let args = ["next", "30 2 * * *", "--tz", "Europe/Berlin", "--after", "2026-10-24T12:00:00Z", "--count", "2"];
        succeeds(&[&args[..], &["--dst", dst]].concat())
    };
    assert_eq!(next("twice"), "2026-10-25T02:30:00+02:00\n2026-10-25T02:30:00+01:00\n");
    assert_eq!(next("skip"), "2026-10-25T02:30:00+02:00\n2026-10-26T02:30:00+01:00\n");
}

#[test]
fn next_reads_iso_8601_and_ends_where_the_repeat_ends() {
    let output = run(&["next", "R3/2026-01-31T09:00:00+08:00/P1M", "--after", "2026-01-01T00:00:00Z"]);
    assert!(output.status.success());
    assert_eq!(stdout(&output).lines().count(), 3, "{}", stdout(&output));
    assert!(stdout(&output).starts_with("2026-01-31T09:00:00+08:00\n2026-02-28T09:00:00+08:00\n"));
    assert_eq!(stderr(&output), "no occurrence follows\n");
}

#[test]
fn what_can_never_be_is_refused_with_its_reason() {
    fails(&["next", "30 2 31 2 *"], 1, &["error: never_occurs", "30 2 31 2 *", "hint:"]);
    fails(&["next", "@daily", "--tz", "Mars/Olympus"], 1, &["error: unknown_time_zone", "Mars/Olympus", "hint:"]);
    fails(&["next", "61 * * * *"], 1, &["error: invalid_schedule"]);
    fails(&["next", "R/2026-01-31/P0D"], 1, &["error: invalid_schedule"]);
}

#[test]
fn errors_are_one_json_object_under_json() {
    let output = run(&["--json", "next", "@daily", "--tz", "Mars"]);
    assert_eq!(output.status.code(), Some(1));
    let error: Value = serde_json::from_str(stderr(&output)).unwrap();
    assert_eq!(error["code"], "unknown_time_zone");
    assert!(error["detail"].as_str().unwrap().contains("Mars") && error["hint"].is_string());
}

#[test]
fn a_wrong_command_line_exits_with_2() {
    for args in [
        &["nonsense"][..],
        &["next"],
        &["next", "@daily", "--count", "none"],
        &["next", "@daily", "--count", "0"],
        &["next", "@daily", "--dst", "never"],
        &["next", "@daily", "--after", "yesterday"],
        &["task", "get"],
        &["run", "get", "t1"],
        &["task", "create", "a", "--cron", "@daily"],
        &["task", "create", "a", "--url", "http://a/", "--tz", "UTC"],
        &["task", "create", "a", "--url", "http://a/", "--timeout", "soon"],
        &["task", "list", "-e", "https://a:1"],
        &["task", "list", "-e", "7701"],
        &["serve", "--cluster", "1=a"],
        &["bench", "--only", "submit,nothing"],
        &["bench", "--soak", "1s"],
    ] {
        fails(args, 2, &["error: "]);
    }
}

#[test]
fn help_names_every_command_and_the_exit_statuses() {
    let help = succeeds(&["--help"]);
    for text in
        ["serve", "task", "run", "cluster", "import", "next", "completions", "CAMPANILE_ENDPOINT", "4  the outcome"]
    {
        assert!(help.contains(text), "{text} is not in:\n{help}");
    }
    let task = succeeds(&["task", "--help"]);
    for verb in ["create", "get", "list", "update", "delete", "pause", "resume", "trigger", "preview", "runs", "ledger"]
    {
        assert!(task.contains(&format!("  {verb}")), "{verb}");
    }
    assert!(succeeds(&["completions", "bash"]).contains("_campanile"));
    assert!(succeeds(&["--version"]).starts_with("campanile 0."));
}

#[test]
fn a_node_that_cannot_be_reached_exits_with_3() {
    // Bound and dropped: nobody listens there.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let endpoint = format!("http://127.0.0.1:{port}");
    for args in [&["task", "list"][..], &["cluster", "status"], &["task", "trigger", "a"], &["task", "delete", "a"]] {
        fails(&[args, &["-e", &endpoint]].concat(), 3, &["error: unreachable: ", "refused", "hint:"]);
    }
}

#[test]
fn a_write_whose_answer_is_lost_exits_with_4() {
    // Reads a request and hangs up.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let node = std::thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        let mut request = [0; 4096];
        assert!(socket.read(&mut request).unwrap() > 0);
    });
    fails(&["run", "cancel", "r1", "-e", &endpoint], 4, &["error: outcome_unknown: ", "hint:"]);
    node.join().unwrap();
}

#[test]
fn the_configuration_in_effect_is_flags_over_environment_over_file() {
    let dir = tempfile::tempdir().unwrap();
    let file = write(&dir, "campanile.toml", "node = 1\nlog = \"file\"\nlisten = \"h:1\"\ncatch_up_rate = 7\n");
    let output = command(&["serve", "--config", &file, "--print-config", "--listen", "h:3"])
        .envs([("CAMPANILE_LISTEN", "h:2"), ("CAMPANILE_LOG", "environment"), ("CAMPANILE_JOIN", "true")])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let settings: toml::Table = stdout(&output).parse().unwrap();
    assert_eq!(settings["listen"].as_str(), Some("h:3"));
    assert_eq!(settings["log"].as_str(), Some("environment"));
    assert_eq!(settings["join"].as_bool(), Some(true));
    assert_eq!(settings["catch_up_rate"].as_integer(), Some(7));
    assert_eq!(settings["drain_timeout"].as_str(), Some("30s"));
}

#[test]
fn the_issue_s_command_line_is_understood() {
    let cluster = "1=127.0.0.1:7801,2=127.0.0.1:7802,3=127.0.0.1:7803";
    let args = ["serve", "--node", "1", "--data", "d", "--listen", "127.0.0.1:7701", "--peer", "127.0.0.1:7801"];
    let printed = succeeds(&[&args[..], &["--cluster", cluster, "--print-config"]].concat());
    let settings: toml::Table = printed.parse().unwrap();
    assert_eq!(settings["cluster"].as_table().unwrap().len(), 3);
    assert_eq!(settings["node"].as_integer(), Some(1));
}

#[test]
fn a_configuration_that_cannot_work_names_the_key() {
    let dir = tempfile::tempdir().unwrap();
    let unknown = write(&dir, "unknown.toml", "node = 1\nlissten = \"h:1\"\n");
    fails(&["serve", "--config", &unknown], 2, &["invalid_configuration", "unknown.toml", "lissten", "line 2"]);
    fails(&["serve", "--config", "/nonexistent.toml"], 2, &["invalid_configuration", "/nonexistent.toml"]);
    fails(&["serve", "--node", "1"], 2, &["data is not set", "--data", "CAMPANILE_DATA"]);
    let base = ["serve", "--node", "1", "--data", "d"];
    fails(&base, 2, &["cluster is not set"]);
    fails(&[&base[..], &["--cluster", "2=h:1"]].concat(), 2, &["cluster does not list node 1", "--join"]);
    fails(&[&base[..], &["--cluster", "1=h:1", "--log", "a=b=c"]].concat(), 2, &["log \"a=b=c\""]);
}

#[test]
fn a_crontab_is_checked_without_a_cluster() {
    let lines = succeeds_json(&["import", "crontab", &example_crontab(), "--dry-run", "--json"]);
    let lines = lines.as_array().unwrap();
    assert!(lines.len() >= 5);
    for line in lines {
        assert_eq!(line["result"], "valid", "{line}");
        assert!(line["next"].is_string() && line["line"].is_u64(), "{line}");
    }
    assert!(lines.iter().any(|line| line["name"] == "nightly-report"));
    assert!(succeeds(&["import", "crontab", &example_crontab(), "--dry-run"]).contains("nightly-report"));
}

#[test]
fn a_crontab_with_faults_is_refused_whole_and_every_fault_named() {
    let dir = tempfile::tempdir().unwrap();
    let crontab = write(
        &dir,
        "crontab",
        "* * * * * http://127.0.0.1:9000/\n61 * * * * http://127.0.0.1:9000/\n* * * * * /usr/bin/true\n",
    );
    fails(&["import", "crontab", &crontab], 1, &["line 2: ", "line 3: ", "nothing was imported"]);
    fails(&["import", "crontab", "/nonexistent"], 1, &["unreadable", "/nonexistent"]);
    fails(&["import", "crontab", &crontab, "--tz", "Mars"], 1, &["unknown_time_zone"]);
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let mut child = command(&["next", "* * * * *", "--count", "1000"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(said, "");
}

#[test]
fn definitions_come_from_standard_input_too() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let send = |definition: &str| {
        let mut child = command(&["task", "create", "a", "-f", "-", "-e", &format!("127.0.0.1:{port}")])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(definition.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    };
    // Understood, and so the cluster is asked.
    let output = send(r#"{"schedules": [{"every": "1m"}], "target": {"http": {"url": "http://127.0.0.1:9/"}}}"#);
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    let output = send(r#"{"shedules": []}"#);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("shedules"), "{}", stderr(&output));
}

fn write(dir: &tempfile::TempDir, name: &str, text: &str) -> String {
    let path: PathBuf = dir.path().join(name);
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}
