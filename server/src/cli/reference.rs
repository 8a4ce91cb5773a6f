//! `docs/reference/cli.md`, made from the command tree, and the test that holds the page to it.

use clap::{Command, CommandFactory};

use super::{Cli, failure};

const PAGE: &str = "../docs/reference/cli.md";

fn page() -> String {
    let mut text = format!(
        "# The command line\n\n\
         This page is made from the program (`UPDATE_DOCS=1 cargo test -p campanile-server`); `campanile help` and\n\
         `campanile help COMMAND` show the same.\n\n\
         Output is for people by default. `--json` prints one JSON document on standard output instead: what the API\n\
         answers, with RFC 3339 instants; a list is an object with `items`, and `next_page_token` where there is more\n\
         (`--all` reads to the end). `next --json` prints an array of `{{\"at\": …, \"utc\": …}}`, `at` with the offset of\n\
         the schedule's zone; `import crontab --json` an array with one object a line.\n\n\
         Errors go to standard error as `error: CODE: DETAIL`, with the `field` at fault and a `hint` where there is\n\
         one; with `--json` as one object with `code`, `detail`, `field` and `hint`. Codes are those of the API.\n\n\
         ```text\n{}\n```\n",
        failure::EXIT_STATUS_HELP
    );
    let mut root = without_values(Cli::command());
    root.build();
    append(&mut text, &mut root, "campanile");
    text
}

fn append(text: &mut String, command: &mut Command, path: &str) {
    // The program's own arguments stand once, under its name.
    let help = if path == "campanile" { command.render_help() } else { without_globals(command).render_help() };
    let help: String = help.to_string().lines().map(|line| format!("{}\n", line.trim_end())).collect();
    text.push_str(&format!("\n## `{path}`\n\n```text\n{}\n```\n", help.trim_end()));
    let names: Vec<String> = command.get_subcommands().map(|sub| sub.get_name().to_owned()).collect();
    for name in names.iter().filter(|name| *name != "help") {
        if let Some(sub) = command.find_subcommand_mut(name) {
            append(text, sub, &format!("{path} {name}"));
        }
    }
}

/// What the variables are set to where this runs is not for the page.
fn without_values(command: Command) -> Command {
    command.mut_args(|arg| arg.hide_env_values(true)).mut_subcommands(without_values)
}

fn without_globals(command: &Command) -> Command {
    command.clone().mut_args(|arg| {
        let global = ["endpoint", "namespace", "json", "help"].contains(&arg.get_id().as_str());
        if global { arg.hide(true) } else { arg }
    })
}

#[test]
fn the_page_on_the_command_line_is_current() {
    let page = page();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(PAGE, &page).unwrap();
    }
    let written = std::fs::read_to_string(PAGE).unwrap_or_default();
    assert!(written == page, "docs/reference/cli.md is out of date: run UPDATE_DOCS=1 cargo test -p campanile-server");
}
