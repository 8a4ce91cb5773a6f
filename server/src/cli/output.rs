//! Standard output: tables and lines for people, or one JSON document. A reader that has gone away ends the program
//! quietly.

use std::io::{self, BufWriter, Stdout, Write};

use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

use super::failure::Failure;

pub struct Output {
    writer: BufWriter<Stdout>,
    json: bool,
}

impl Output {
    pub fn new(json: bool) -> Self {
        Self { writer: BufWriter::new(io::stdout()), json }
    }

    /// The document itself under `--json`, else what `people` makes of it.
    pub fn print<T: Serialize + ?Sized>(
        &mut self,
        document: &T,
        people: impl FnOnce(&T) -> String,
    ) -> Result<(), Failure> {
        let mut text = if self.json {
            serde_json::to_string_pretty(document).map_err(|error| Failure::failed(error.to_string()))?
        } else {
            people(document)
        };
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        self.bytes(text.as_bytes())
    }

    pub fn bytes(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        ended_quietly(self.writer.write_all(bytes))
    }

    pub fn flush(&mut self) -> Result<(), Failure> {
        ended_quietly(self.writer.flush())
    }

    /// A remark beside the output, for people only: under `--json` the document says it already.
    pub fn note(&mut self, text: &str) {
        if !self.json {
            // A remark is not worth failing for.
            let _ = writeln!(io::stderr(), "{text}");
        }
    }
}

fn ended_quietly(result: io::Result<()>) -> Result<(), Failure> {
    match result {
        // As `head` or a pager does; there is nothing left to say to it.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        Err(error) => Err(Failure::unreadable("standard output", &error)),
        Ok(()) => Ok(()),
    }
}

/// A table without frames, so that it can be read and cut.
pub fn table(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header.iter().copied());
    for row in rows {
        table.add_row(row);
    }
    trimmed(&table)
}

/// Names and values, one pair a line. Empty values are left out.
pub fn sheet(pairs: Vec<(&str, String)>) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    for (name, value) in pairs {
        if !value.is_empty() {
            table.add_row([name.to_owned(), value]);
        }
    }
    trimmed(&table)
}

/// The table without the padding around its lines.
fn trimmed(table: &Table) -> String {
    table.lines().map(|line| format!("{}\n", line.trim_end().strip_prefix(' ').unwrap_or(&line).trim_end())).collect()
}

/// What is there, or a dash.
pub fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".into(), |value| value.to_string())
}

/// The JSON word of an enum (`timed_out`).
pub fn word(value: impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        Ok(other) => other.to_string(),
        Err(_) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_have_no_frames_and_no_padding() {
        let text = table(&["NAME", "STATE"], [vec!["a".into(), "active".into()], vec!["long-name".into(), "-".into()]]);
        assert_eq!(text, "NAME       STATE\na          active\nlong-name  -\n");
        assert_eq!(sheet(vec![("id", "t1".into()), ("none", String::new())]), "id  t1\n");
    }
}
