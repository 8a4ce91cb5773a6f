//! A process that simulates one seed: started, waited for, its verdict read.

use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Resource, Rlimit, Signal, prlimit};

use super::STOOD_STILL;
use super::simulator::{self, Named};
use crate::report::Summary;

/// Longer than this in real time, and a simulation is taken to have no end.
const LONGEST: Duration = Duration::from_secs(900);
/// Of what a crashed process said last.
const TAIL_BYTES: usize = 2000;

/// The program that simulates.
pub struct Simulator {
    program: PathBuf,
}

/// What one process is to do.
#[derive(Clone, Debug, Default)]
pub struct Trial<'t> {
    pub scenario: Option<&'t Path>,
    pub seed: u64,
    pub planted: Option<&'t str>,
    pub history: Option<&'t Path>,
    pub report: Option<&'t Path>,
    /// Variables of its own.
    pub environment: &'t [(&'t str, &'t OsStr)],
    pub limits: Option<Limits>,
}

/// What a process may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Processor time.
    pub computing: Duration,
    /// Bytes of address space.
    pub memory: Option<u64>,
}

/// How it ended.
#[derive(Clone, Debug)]
pub enum Ended {
    Judged(Box<Summary>),
    /// It said no verdict.
    Crashed {
        how: String,
        said: String,
    },
    /// Its simulated time stood still, or it was still at it when its time was over: a quarter of an hour, or less where
    /// it was given less.
    Endless,
}

impl Simulator {
    pub fn new(program: Option<PathBuf>) -> Result<Self> {
        let program = match program {
            Some(program) => program,
            None => {
                simulator::check_present()?;
                std::env::current_exe().context("cannot find this program")?
            }
        };
        Ok(Self { program })
    }

    pub fn run(&self, trial: &Trial<'_>) -> Result<Ended> {
        let mut arguments: Vec<OsString> = vec!["run".into(), "--json".into()];
        let mut option = |name: &str, value: Option<OsString>| {
            if let Some(value) = value {
                arguments.extend([name.into(), value]);
            }
        };
        let path = |path: Option<&Path>| path.map(OsString::from);
        option("--seed", Some(trial.seed.to_string().into()));
        option("--planted", trial.planted.map(OsString::from));
        option("--history", path(trial.history));
        option("--report", path(trial.report));
        arguments.extend(path(trial.scenario));
        self.start(&arguments, trial)?.ended()
    }

    /// What `planted` or `marks` lists.
    pub fn names(&self, verb: &str) -> Result<Vec<Named>> {
        let process = self.start(&[verb.into(), "--json".into()], &Trial::default())?;
        let (status, stdout, stderr) = process.wait()?;
        if !status.is_some_and(|status| status.success()) {
            bail!("{} {verb}: {}", self.program.display(), tail(&stderr));
        }
        serde_json::from_slice(&stdout).with_context(|| format!("what {} {verb} says", self.program.display()))
    }

    fn start(&self, arguments: &[OsString], trial: &Trial<'_>) -> Result<Process> {
        let mut command = Command::new(&self.program);
        // The child must be its own simulator.
        command.args(arguments).env_remove("CAMPANILE_SIMULATOR").envs(trial.environment.iter().copied());
        Process::start(command, trial.limits)
    }
}

pub struct Process(Child);

impl Process {
    pub fn start(mut command: Command, limits: Option<Limits>) -> Result<Self> {
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let child = child.with_context(|| format!("cannot start {}", command.get_program().display()))?;
        if let Some(Limits { computing, memory }) = limits {
            // Past the first of the two it is told by a signal of its own, which says why it ended.
            let seconds = computing.as_secs();
            let computing = Rlimit { current: Some(seconds), maximum: Some(seconds + 10) };
            let memory = Rlimit { current: memory, maximum: memory };
            for (resource, limit) in [(Resource::Cpu, computing), (Resource::As, memory)] {
                prlimit(Some(Pid::from_child(&child)), resource, limit).context("cannot limit a child process")?;
            }
        }
        Ok(Self(child))
    }

    fn ended(self) -> Result<Ended> {
        let (status, stdout, stderr) = self.wait()?;
        let Some(status) = status else { return Ok(Ended::Endless) };
        match status.code() {
            Some(0 | 1) => {
                let summary: Summary = serde_json::from_slice(&stdout).context("the verdict of a child process")?;
                Ok(Ended::Judged(Box::new(summary)))
            }
            Some(2) => {
                let said = tail(&stderr);
                let said = serde_json::from_str::<serde_json::Value>(&said)
                    .ok()
                    .and_then(|json| json["error"].as_str().map(str::to_owned))
                    .unwrap_or(said);
                bail!("{said}")
            }
            Some(code) if code == i32::from(STOOD_STILL) => Ok(Ended::Endless),
            _ => Ok(Ended::Crashed { how: status.to_string(), said: tail(&stderr) }),
        }
    }

    /// Its status and what it said; no status when it had to be ended.
    pub fn wait(mut self) -> Result<(Option<ExitStatus>, Vec<u8>, Vec<u8>)> {
        let reader = |pipe: Option<Box<dyn Read + Send>>| {
            thread::spawn(move || {
                let mut bytes = Vec::new();
                pipe.map_or(Ok(0), |mut pipe| pipe.read_to_end(&mut bytes)).map(|_| bytes)
            })
        };
        let stdout = reader(self.0.stdout.take().map(|pipe| Box::new(pipe) as _));
        let stderr = reader(self.0.stderr.take().map(|pipe| Box::new(pipe) as _));
        let started = Instant::now();
        let mut pause = Duration::from_millis(1);
        let status = loop {
            if let Some(status) = self.0.try_wait().context("cannot wait for a child process")? {
                let over_time = status.signal() == Some(Signal::XCPU.as_raw());
                break (!over_time).then_some(status);
            }
            if started.elapsed() > LONGEST {
                self.0.kill().context("cannot end a child process")?;
                self.0.wait().context("cannot wait for a child process")?;
                break None;
            }
            thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(20));
        };
        let read = |reader: thread::JoinHandle<std::io::Result<Vec<u8>>>| match reader.join() {
            Ok(bytes) => bytes.context("cannot read what a child process says"),
            Err(_) => bail!("the reader of a child process ended early"),
        };
        Ok((status, read(stdout)?, read(stderr)?))
    }
}

fn tail(bytes: &[u8]) -> String {
    let from = bytes.len().saturating_sub(TAIL_BYTES);
    let text = String::from_utf8_lossy(&bytes[from..]);
    text.trim().trim_start_matches("error: ").to_string()
}

impl Ended {
    pub fn held(&self) -> bool {
        matches!(self, Self::Judged(summary) if summary.held)
    }

    /// What was broken, by name; a process that crashed or never ended has broken that.
    pub fn broken(&self) -> Vec<String> {
        match self {
            Self::Judged(summary) => summary.broken(),
            Self::Crashed { .. } => vec!["crash".into()],
            Self::Endless => vec!["endless".into()],
        }
    }

    pub fn trace(&self) -> Option<&str> {
        match self {
            Self::Judged(summary) => summary.facts.trace_hash.as_deref(),
            _ => None,
        }
    }

    /// In a sentence.
    pub fn why(&self) -> String {
        match self {
            Self::Judged(summary) => match summary.violations().min_by_key(|violation| violation.t) {
                Some(first) => format!("{}: {} (at {:.3} s)", first.invariant, first.what, first.t as f64 / 1e6),
                None => "held".into(),
            },
            Self::Crashed { how, said } => {
                format!("crash, {how}: {}", said.lines().find(|line| line.contains("panicked")).unwrap_or(said))
            }
            Self::Endless => "simulated time stood still, or it did not end in its time".into(),
        }
    }
}
