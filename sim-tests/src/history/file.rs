//! Histories as files: one JSON object a line.

use std::io::{self, BufRead, Write};

use super::{FORMAT, Header, History, Timed};

#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("cannot read the history: {0}")]
    Io(#[from] io::Error),
    #[error("line {line} of the history: {error}")]
    Line { line: usize, error: serde_json::Error },
    #[error("the history has format {found}; this build reads format {FORMAT}")]
    Format { found: u64 },
    #[error("line {line} of the history goes back in time, from {before} µs to {t} µs")]
    Order { line: usize, before: u64, t: u64 },
    #[error("the history is empty")]
    Empty,
}

/// Reads a whole history.
pub fn read(input: impl BufRead) -> Result<History, FileError> {
    let mut lines = input.lines().zip(1..);
    let (first, _) = lines.next().ok_or(FileError::Empty)?;
    let header = read_header(&first?)?;
    let mut events: Vec<Timed> = Vec::new();
    for (text, line) in lines {
        let event: Timed = serde_json::from_str(&text?).map_err(|error| FileError::Line { line, error })?;
        let before = events.last().map_or(0, |last| last.t);
        if event.t < before {
            return Err(FileError::Order { line, before, t: event.t });
        }
        events.push(event);
    }
    Ok(History { header, events })
}

/// The format is looked at before anything else: a header of another one need not read as ours.
fn read_header(text: &str) -> Result<Header, FileError> {
    let line = |error| FileError::Line { line: 1, error };
    let value: serde_json::Value = serde_json::from_str(text).map_err(line)?;
    if let Some(found) =
        value.get("format").and_then(serde_json::Value::as_u64).filter(|found| *found != u64::from(FORMAT))
    {
        return Err(FileError::Format { found });
    }
    serde_json::from_value(value).map_err(line)
}

/// Writes a whole history.
pub fn write(history: &History, mut out: impl Write) -> io::Result<()> {
    let mut line = |text: serde_json::Result<String>| writeln!(out, "{}", text?);
    line(serde_json::to_string(&history.header))?;
    history.events.iter().try_for_each(|event| line(serde_json::to_string(event)))
}
