//! Tables of scenarios that read, and of mistakes and what is said of them.

use std::fs;

use super::*;

const TASK: &str = "[workload.tasks.a]\nschedules = [{ every = \"1s\" }]\ntarget.http.url = \"http://r/\"\n";

fn read_text(text: &str) -> Result<Scenario, String> {
    read_str(text, Path::new("s.toml")).map_err(|error| error.to_string())
}

#[test]
fn mistakes_are_named_with_their_place() {
    let fault = |fields: &str| format!("{TASK}[[faults]]\n{fields}\n");
    let expect = |fields: &str| format!("{TASK}[expect]\n{fields}\n");
    let gone = "[[faults]]\nat = \"10s\"\nfault = \"receiver_gone\"\n";
    for (text, place, said) in [
        ("nodes = 3\nsapn = \"60s\"\n".into(), "2:1", "did you mean `span`?"),
        ("nodes = [".into(), "1:10", ""),
        (format!("nodes = 8\n{TASK}"), "1:1", "8 nodes; a scenario has 1 to 7"),
        (format!("nodes = 0\n{TASK}"), "1:9", "0 nodes; a scenario has 1 to 7"),
        (format!("nodes = \"some\"\n{TASK}"), "1:9", "a number of nodes"),
        (format!("nodes = \"drawn\"\n{gone}{TASK}"), "1:1", "need to know how many nodes"),
        (format!("span = \"10 parsecs\"\n{TASK}"), "1:8", "not a span of time"),
        (format!("span = \"0s\"\n{TASK}"), "1:1", "the span is empty"),
        (format!("pace = \"corse\"\n{TASK}"), "1:8", "did you mean `coarse`?"),
        (format!("start = \"yesterday\"\n{TASK}"), "1:9", "not an RFC 3339 instant"),
        (String::new(), "1:1", "the workload is empty"),
        ("nodes = 3\n[workload]\nclients = 3\n".into(), "2:2", "belong together"),
        (format!("{TASK}overlap = \"skipp\"\n"), "4:11", "did you mean `skip`?"),
        (format!("{TASK}overlapp = \"skip\"\n"), "4:1", "did you mean `overlap`?"),
        (TASK.replace("every = \"1s\"", "cron = \"61 * * * *\""), "1:17", "61"),
        (TASK.replace("every = \"1s\"", "cron = \"0 0 31 2 *\""), "1:17", "task \"a\""),
        (TASK.replace("tasks.a", "tasks.t0"), "1:17", "has the form of a task's id"),
        (TASK.replace("http://r/", "ftp://r/"), "1:17", "not an http or https URL"),
        (format!("{TASK}[bounds]\nplan = 3\n"), "5:1", "did you mean \"plans\"?"),
        (format!("{TASK}[bounds]\npage_items = 0\n"), "5:1", "0 is less than 1"),
        (fault("at = \"1s\"\nfault = \"partitoin\"\nside = [1]"), "6:1", "did you mean \"partition\"?"),
        (fault("at = \"1s\"\nfault = \"earthquake\""), "6:1", "known are partition, one_way"),
        (fault("at = \"1s\"\nfault = \"kill\"\nnode = 1\nfro = \"1s\""), "8:1", "did you mean \"for\"?"),
        (fault("at = \"1s\"\nfault = \"add_node\"\nnode = 1"), "7:1", "unknown field of the fault add_node"),
        (fault("at = \"1s\"\nfault = \"kill\""), "4:1", "lacks `node`"),
        (fault("fault = \"kill\"\nnode = 1"), "4:1", "lacks `at`"),
        (fault("at = \"1s\"\nfault = \"kill\"\nnode = 4"), "7:1", "there is no node 4; the nodes are 1 to 3"),
        (fault("at = \"1s\"\nfault = \"kill\"\nnode = \"laeder\""), "7:1", "did you mean \"leader\"?"),
        (fault("at = \"60s\"\nfault = \"kill\"\nnode = 1"), "5:1", "begins at 1m, and the span ends at 1m"),
        (fault("at = \"1x\"\nfault = \"kill\"\nnode = 1"), "5:1", "not a span of time"),
        (fault("at = \"1s\"\nfor = \"0s\"\nfault = \"kill\"\nnode = 1"), "6:1", "lasts no time"),
        (fault("at = \"1s\"\nfault = \"partition\"\nside = [1, 2, 3]"), "7:1", "3 of 3 nodes"),
        (fault("at = \"1s\"\nfault = \"partition\"\nside = \"all\""), "4:1", ""),
        (fault("at = \"1s\"\nfault = \"one_way\"\nfrom = [1]\nto = [1]"), "8:1", "on both sides"),
        (fault("at = \"1s\"\nfault = \"loss\"\nper_mille = 1001"), "7:1", "1 to 1000"),
        (fault("at = \"1s\"\nfault = \"delay\"\nmin = \"2s\"\nmax = \"1s\""), "7:1", "more than max"),
        (fault("at = \"1s\"\nfault = \"receiver_answers\"\nstatus = 42"), "7:1", "not the HTTP status"),
        (fault("at = \"1s\"\nfault = \"rolling_upgrade\"\nevery = \"0s\""), "7:1", "must not be 0"),
        (fault("at = \"1s\"\nfault = \"receiver_moody\"\nper_mille = 0"), "7:1", "1 to 1000"),
        (fault("at = \"1s\"\nfor = \"9s\"\nfault = \"lose_node\"\nnode = 1"), "6:1", "never comes back"),
        (fault("at = \"1s\"\nfault = \"lose_node\"\nnode = 4"), "7:1", "there is no node 4"),
        (
            fault(
                "at = \"1s\"\nfault = \"lose_node\"\nnode = 1\n[[faults]]\nat = \"2s\"\nfault = \"lose_node\"\nnode = 2",
            ),
            "10:1",
            "of 3 nodes 1 can be lost",
        ),
        (format!("{TASK}[swarm]\nkinds = [\"kill\", \"paus\"]\n"), "5:18", "did you mean \"pause\"?"),
        (format!("{TASK}[swarm]\nevery = \"0s\"\n"), "5:1", "must not be 0"),
        (expect("max_lateness = \"0s\""), "5:1", "can never be met"),
        (expect("max_latness = \"1s\""), "5:1", "did you mean `max_lateness`?"),
        (format!("{gone}{}", expect("no_missed = true")), "8:1", "receiver_gone begins at 10s and never ends"),
        (format!("{gone}for = \"55s\"\n{}", expect("all_succeed = true")), "9:1", "can never be met"),
        (
            format!(
                "{TASK}[[workload.operations]]\nat = \"61s\"\nclient = 1\naction = {{ do = \"get\", name = \"a\" }}\n"
            ),
            "5:1",
            "the span ends",
        ),
        (
            format!(
                "{TASK}[[workload.operations]]\nat = \"1s\"\nclient = 1\naction = {{ do = \"git\", name = \"a\" }}\n"
            ),
            "7:17",
            "did you mean `get`?",
        ),
    ] {
        let error = read_text(&text).expect_err(&text);
        assert!(error.starts_with(&format!("s.toml:{place}: ")) && error.contains(said), "{error}\nfor\n{text}");
        assert!(!error.contains('\n'), "{error}");
    }
}

#[test]
fn what_is_left_out_has_its_default() {
    let scenario = read_text(TASK).unwrap();
    assert_eq!((scenario.name.as_str(), scenario.nodes, scenario.span), ("s", 3, Millis::from_secs(60)));
    assert_eq!((scenario.seed, scenario.pace, scenario.plan()), (None, Pace::Normal, None));
}

#[test]
fn every_part_is_read() {
    let text = format!(
        "name = \"x\"\nnodes = 5\nstart = \"2026-03-29T00:00:00Z\"\nspan = \"2h\"\npace = \"coarse\"\nseed = 7\n{TASK}\
         [[faults]]\nat = \"10s\"\nfor = \"5s\"\nfault = \"partition\"\nside = [1, 2]\n\
         [[faults]]\nat = \"1m\"\nfault = \"clock_jump\"\nnode = \"leader\"\nby_ms = -250\n\
         [swarm]\nkinds = [\"kill\"]\n[bounds]\nplans = 3\n[expect]\nmax_lateness = \"2s\"\nno_repeats = true\n"
    );
    let scenario = read_text(&text).unwrap();
    assert_eq!((scenario.nodes, scenario.seed, scenario.pace), (5, Some(7), Pace::Coarse));
    let faults: Vec<_> = scenario.faults.iter().map(|f| (f.fault.name(), f.at.0, f.lasts.map(|l| l.0))).collect();
    assert_eq!(faults, [("partition", 10_000, Some(5000)), ("clock_jump", 60_000, None)]);
    assert_eq!(scenario.bounds, Bounds::from([("plans".to_owned(), 3)]));
    assert_eq!(scenario.expect.max_lateness, Some(Millis::from_secs(2)));
    // As a file again, it is the same scenario.
    assert_eq!(read_text(&scenario.text().unwrap()).unwrap(), scenario);
}

#[test]
fn a_written_plan_is_the_plan() {
    let text = format!(
        "{TASK}[[workload.operations]]\nat = \"1s\"\nclient = 1\nnode = 2\naction = {{ do = \"pause\", name = \"a\" }}\n"
    );
    let scenario = read_text(&text).unwrap();
    let plan = scenario.plan().unwrap();
    assert_eq!((plan.operations.len(), plan.operations[0].node), (1, 2));
    assert_eq!(read_text(&scenario.text().unwrap()).unwrap(), scenario);
    let swarm = format!("{text}[swarm]\n");
    assert!(read_text(&swarm).unwrap_err().contains("exclude a swarm"));
}

#[test]
fn definitions_may_stand_in_a_crontab_and_in_a_directory() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("scenario.toml");
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    fs::create_dir(folder.path().join("tasks")).unwrap();
    write("tab", "CRON_TZ=Europe/Berlin\n# name: nightly\n30 2 * * * http://r/nightly\n");
    write("tasks/by-file.toml", "schedules = [{ every = \"1m\" }]\n[target.http]\nurl = \"http://r/\"\n");
    write("tasks/x.toml", "name = \"own\"\nid = \"t1\"\nschedules = []\ntarget.http.url = \"http://r/\"\n");
    write("tasks/shown.json", r#"{"name":"shown","version":3,"schedules":[],"target":{"http":{"url":"http://r/"}}}"#);
    write("tasks/README.md", "not a task");
    write("scenario.toml", "[workload]\ncrontab = \"tab\"\ntasks_dir = \"tasks\"\n");
    let names: Vec<String> = read(&file).unwrap().workload.tasks.into_keys().collect();
    assert_eq!(names, ["by-file", "nightly", "own", "shown"]);

    let said = || read(&file).unwrap_err().to_string();
    write("tasks/bad.toml", "schedules = []\ntarget.http.url = \"http://r/\"\nprioritty = 1\n");
    assert!(
        said().contains("tasks/bad.toml:3:1: unknown field `prioritty`") && said().contains("`priority`?"),
        "{}",
        said()
    );
    write("tasks/bad.toml", "name = \"own\"\nschedules = []\ntarget.http.url = \"http://r/\"\n");
    assert!(said().contains("scenario.toml:3:1: the task \"own\" is defined twice"), "{}", said());
    write("tab", "@hourly http://r/\n* * * * * /bin/true\n");
    assert!(said().contains("tab:2:1: ") && said().contains("only http targets"), "{}", said());
    write("scenario.toml", "[workload]\ncrontab = \"nowhere\"\n");
    assert!(said().contains("cannot read") && said().contains("nowhere"), "{}", said());
    write("tab", "# nothing\n");
    write("scenario.toml", "[workload]\ncrontab = \"tab\"\n");
    assert!(said().contains("scenario.toml:2:1: ") && said().contains("defines no task"), "{}", said());
}

#[test]
fn every_worked_example_reads() {
    let folder = Path::new("scenarios");
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let file = entry.unwrap().path();
        if file.extension().is_some_and(|extension| extension == "toml") {
            let scenario = read(&file).unwrap_or_else(|error| panic!("{error}"));
            assert!(!scenario.about.is_empty(), "{} says nothing about itself", file.display());
            assert_eq!(Some(scenario.name.as_str()), file.file_stem().and_then(|stem| stem.to_str()));
            names.push(scenario.name);
        }
    }
    assert_eq!(names.len(), 13, "eleven examples, the default, and what speed is measured with: {names:?}");
    assert_eq!(read_text(super::super::DEFAULT).unwrap().name, "default");
}
