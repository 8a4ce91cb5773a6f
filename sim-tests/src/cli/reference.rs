//! `docs/reference/simulator.md`: what of it is made from the code, and the test that holds the page to it.

use campanile_model::sim::Bound;
use clap::Command;

use super::{EXIT_STATUS_HELP, command};
use crate::scenario::faults::KINDS;

const PAGE: &str = "../docs/reference/simulator.md";
const GUIDE: &str = "../docs/guide/chaos.md";

/// The page with everything between `<!-- made: NAME -->` and `<!-- end -->` made anew.
fn made(page: &str) -> String {
    let mut out = String::new();
    let mut rest = page;
    while let Some((before, after)) = rest.split_once("<!-- made: ") {
        let (name, after) = after.split_once(" -->\n").unwrap();
        let (_, after) = after.split_once("<!-- end -->").unwrap();
        let part = match name {
            "faults" => faults(),
            "bounds" => bounds(),
            "verbs" => verbs(),
            "exit" => format!("```text\n{EXIT_STATUS_HELP}\n```\n"),
            other => panic!("nothing is made for {other}"),
        };
        out += &format!("{before}<!-- made: {name} -->\n{part}<!-- end -->");
        rest = after;
    }
    out + rest
}

fn faults() -> String {
    let mut out = String::from("| Kind | Fault | Fields | What it does |\n|---|---|---|---|\n");
    for kind in KINDS {
        let fields: Vec<String> = kind.fields.iter().map(|field| format!("`{field}`")).collect();
        out += &format!("| {} | `{}` | {} | {} |\n", kind.group, kind.name, fields.join(", "), kind.about);
    }
    out
}

fn bounds() -> String {
    let mut out = String::from("| Bound | When small | Of what |\n|---|---|---|\n");
    for bound in Bound::ALL {
        let small = bound.small();
        out += &format!("| `{}` | {} to {} | {} |\n", bound.name(), small.start(), small.end(), bound.about());
    }
    out
}

fn verbs() -> String {
    let mut out = String::new();
    let mut root = values_hidden(command());
    root.build();
    for verb in root.get_subcommands_mut() {
        let name = verb.get_name().to_string();
        let mut verb = verb.clone().mut_args(|arg| {
            let common = ["json", "simulator", "help"].contains(&arg.get_id().as_str());
            if common { arg.hide(true) } else { arg }
        });
        let help = verb.render_help().to_string();
        let help: String = help.lines().map(|line| format!("{}\n", line.trim_end())).collect();
        out += &format!("### `campanile-sim {name}`\n\n```text\n{}\n```\n\n", help.trim_end());
    }
    out
}

fn values_hidden(command: Command) -> Command {
    command.mut_args(|arg| arg.hide_env_values(true)).mut_subcommands(values_hidden)
}

#[test]
fn the_page_on_the_simulator_is_current() {
    let written = std::fs::read_to_string(PAGE).unwrap();
    let page = made(&written);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(PAGE, &page).unwrap();
    } else {
        assert!(
            written == page,
            "docs/reference/simulator.md is out of date: run UPDATE_DOCS=1 cargo test -p campanile-sim-tests"
        );
    }
}

#[test]
fn every_scenario_field_expectation_and_example_is_documented() {
    let page = std::fs::read_to_string(PAGE).unwrap();
    let mut scenario = crate::scenario::Scenario::default();
    scenario.seed = Some(1);
    scenario.swarm = Some(crate::scenario::Swarm::default());
    scenario.expect.max_lateness = Some(campanile_model::Millis(1));
    let json = serde_json::to_value(&scenario).unwrap();
    let top = json.as_object().unwrap().keys();
    let keys = |part: &str| json[part].as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    let left_out = ["faults", "operations", "crontab", "tasks_dir"].map(String::from);
    for field in top.cloned().chain(keys("workload")).chain(keys("swarm")).chain(keys("expect")).chain(left_out) {
        assert!(page.contains(&format!("`{field}`")), "{field}");
    }
    for entry in std::fs::read_dir("scenarios").unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(name.ends_with(".crontab") || page.contains(&format!("`{name}`")), "{name}");
    }
}

/// The scenarios and command lines that the guide shows are read as a user would have them read.
#[test]
fn what_the_guide_shows_is_right() {
    let guide = std::fs::read_to_string(GUIDE).unwrap();
    let blocks: Vec<(&str, &str)> =
        guide.split("```").skip(1).step_by(2).filter_map(|block| block.split_once('\n')).collect();
    let scenarios: Vec<&str> =
        blocks.iter().filter(|(language, _)| *language == "toml").map(|(_, text)| *text).collect();
    assert!(!scenarios.is_empty());
    for text in scenarios {
        let scenario = crate::scenario::read_str(text, std::path::Path::new("guide.toml"));
        assert!(scenario.is_ok(), "{text}\n{}", scenario.unwrap_err());
    }
    let mut lines = 0;
    for line in blocks.iter().filter(|(language, _)| *language == "sh").flat_map(|(_, text)| text.lines()) {
        if let Some(arguments) = line.strip_prefix("campanile-sim ") {
            let words = arguments.split('#').next().unwrap_or_default().split_ascii_whitespace();
            let parsed = command().try_get_matches_from(std::iter::once("campanile-sim").chain(words));
            assert!(parsed.is_ok(), "{line}\n{}", parsed.unwrap_err());
            lines += 1;
        }
    }
    assert!(lines >= 8, "{lines} command lines");
}
