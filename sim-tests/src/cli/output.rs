//! Standard output: text for people, or one JSON document. Progress goes to standard error, where it is a terminal.

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

#[derive(Clone, Copy)]
pub struct Output {
    pub json: bool,
}

impl Output {
    /// The document itself under `--json`, else what `people` makes of it.
    pub fn print<T: Serialize + ?Sized>(self, document: &T, people: impl FnOnce(&T) -> String) -> Result<()> {
        let text = if self.json { serde_json::to_string_pretty(document)? } else { people(document) };
        let written = writeln!(io::stdout().lock(), "{}", text.trim_end());
        match written {
            // As `head` or a pager does; there is nothing left to say to it.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            written => written.context("standard output"),
        }
    }

    /// Something to be known at once, for people.
    pub fn note(self, text: &str) {
        // A remark is not worth failing for.
        let clear = if io::stderr().is_terminal() { "\r\x1b[K" } else { "" };
        let _ = writeln!(io::stderr(), "{clear}{text}");
    }

    /// A line that the next one overwrites.
    pub fn progress(self, text: &str) {
        if io::stderr().is_terminal() {
            let _ = write!(io::stderr(), "\r\x1b[K{text}");
            let _ = io::stderr().flush();
        }
    }
}

/// Writes a file as a whole.
pub fn write_file(file: &Path, text: &str) -> Result<()> {
    write_with(file, |out| out.write_all(text.as_bytes()))
}

/// Writes a file as it is made.
pub fn write_with(file: &Path, write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>) -> Result<()> {
    let made = File::create(file).map(BufWriter::new).and_then(|mut out| write(&mut out).and_then(|()| out.flush()));
    made.with_context(|| format!("cannot write {}", file.display()))
}
