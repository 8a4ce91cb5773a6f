//! What a person sees of the demo: events that stay, and one status line; redrawn in place on a terminal, printed once
//! a second elsewhere.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

#[derive(Debug)]
pub struct Screen {
    started: Instant,
    bar: Option<ProgressBar>,
}

impl Screen {
    pub fn new() -> Self {
        let bar = std::io::stdout().is_terminal().then(|| {
            let style =
                ProgressStyle::with_template("{spinner} {msg}").unwrap_or_else(|_| ProgressStyle::default_spinner());
            let bar = ProgressBar::new_spinner().with_style(style);
            bar.set_draw_target(indicatif::ProgressDrawTarget::stdout());
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        Self { started: Instant::now(), bar }
    }

    /// Something happened.
    pub fn event(&self, text: impl AsRef<str>) {
        let line = format!("{:>5.1} s  {}", self.started.elapsed().as_secs_f64(), text.as_ref());
        match &self.bar {
            Some(bar) => bar.println(line),
            None => print(&line),
        }
    }

    /// How things stand.
    pub fn status(&self, text: impl AsRef<str>) {
        match &self.bar {
            Some(bar) => bar.set_message(text.as_ref().to_owned()),
            None => self.event(text),
        }
    }

    /// Takes the status line away.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// A reader that has gone away is no reason to stop: the verdict is in the exit status too.
pub fn print(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}
