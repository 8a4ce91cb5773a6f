//! `docs/reference/configuration.md` is made from the table of settings; this test holds the page to it.

use campanile_server::config::Settings;
use clap::{Args, Command};

const PAGE: &str = "../docs/reference/configuration.md";

const HEAD: &str = "\
# Configuration of a node

This page is made from the program (`UPDATE_DOCS=1 cargo test -p campanile-server`).

Every setting has one name in three places: a flag of `campanile serve`, an environment variable, and a key of the TOML
file given by `--config FILE` (or `CAMPANILE_CONFIG`). A flag wins over the variable, the variable over the file, the file
over the default. A key that the file does not know is an error, and so is a value out of range; both name the key.
`campanile serve --print-config` prints the settings in effect, in the file's form, and exits.

Spans are written `500ms`, `30s`, `1h30m`, `7d`, or in ISO 8601; sizes `4096`, `64KiB`, `256MiB`, `1GiB`.

| Flag | Variable | Key | Default | What it does |
|---|---|---|---|---|
";

const TAIL: &str = "
A file for one of three nodes:

```toml
node = 1
data = \"/var/lib/campanile\"
listen = \"10.0.0.1:7701\"
peer = \"10.0.0.1:7801\"
log_format = \"json\"

[cluster]
1 = \"10.0.0.1:7801\"
2 = \"10.0.0.2:7801\"
3 = \"10.0.0.3:7801\"
```
";

fn page() -> String {
    let defaults = toml::Table::try_from(Settings::defaults()).unwrap();
    let mut command = Settings::augment_args(Command::new("serve"));
    command.build();
    let mut text = HEAD.to_owned();
    for setting in command.get_arguments().filter(|setting| setting.get_id() != "help") {
        let key = setting.get_id().as_str();
        let flag = setting.get_long().unwrap();
        let variable = setting.get_env().unwrap().to_str().unwrap();
        assert_eq!(flag, key.replace('_', "-"), "one name in three places");
        assert_eq!(variable, format!("CAMPANILE_{}", key.to_ascii_uppercase()), "one name in three places");
        let default =
            defaults.get(key).map_or("none".to_owned(), |value| format!("`{}`", value.to_string().trim_matches('"')));
        let help = setting.get_help().unwrap().to_string().replace('|', "\\|");
        let values: Vec<String> =
            setting.get_possible_values().iter().map(|value| format!("`{}`", value.get_name())).collect();
        let values = if values.is_empty() { values.concat() } else { format!(": {}", values.join(" or ")) };
        text.push_str(&format!("| `--{flag}` | `{variable}` | `{key}` | {default} | {help}{values} |\n"));
    }
    text + TAIL
}

#[test]
fn the_page_on_configuration_is_current() {
    let page = page();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(PAGE, &page).unwrap();
    }
    let written = std::fs::read_to_string(PAGE).unwrap_or_default();
    assert!(
        written == page,
        "docs/reference/configuration.md is out of date: run UPDATE_DOCS=1 cargo test -p campanile-server"
    );
}
