//! One `campanile serve` process: its addresses, directory and log, and what can be done to it from outside.

use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use campanile_client::Client;
use campanile_model::NodeId;
use rustix::process::{Pid, Signal, kill_process};

use super::launcher::Launcher;

/// How much of a log an error message quotes.
const LOG_TAIL_BYTES: usize = 4096;
/// `USER_HZ`, which is the same for all programs (proc(5)).
const TICK: Duration = Duration::from_millis(10);

#[derive(Debug)]
pub struct NodeProcess {
    pub id: NodeId,
    /// Host and port of the API.
    pub api: String,
    /// Host and port for the other nodes.
    pub peer: String,
    pub data: PathBuf,
    pub log: PathBuf,
    /// What starts the program where the node lives; empty for here.
    pub(super) enter: Vec<String>,
    /// Started with `--join`.
    pub joins: bool,
    /// Speaks to this node only, and never tries twice.
    pub client: Client,
    pub(super) child: Option<Child>,
    pub(super) paused: bool,
}

impl NodeProcess {
    /// Starts the process; its log is added to the one it had before.
    pub(super) fn spawn(&mut self, launcher: &Launcher, binary: &Path, cluster: &str, extra: &[String]) -> Result<()> {
        ensure!(self.child.is_none(), "node {} is running already", self.id);
        fs::create_dir_all(&self.data).with_context(|| format!("making {}", self.data.display()))?;
        let log = File::options().create(true).append(true).open(&self.log);
        let log = log.with_context(|| format!("opening {}", self.log.display()))?;
        let mut command = match self.enter.split_first() {
            Some((enter, arguments)) => {
                let mut command = Command::new(enter);
                command.args(arguments).arg(binary);
                command
            }
            None => Command::new(binary),
        };
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"CAMPANILE_")) {
            // A variable meant for another node would win over the defaults.
            command.env_remove(name);
        }
        command.arg("serve").args(["--node", &self.id.to_string()]).arg("--data").arg(&self.data);
        command.args(["--listen", &self.api, "--peer", &self.peer, "--cluster", cluster]);
        if self.joins {
            command.arg("--join");
        }
        command.args(extra).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = launcher.spawn(command).with_context(|| format!("starting {}", binary.display()))?;
        self.child = Some(child);
        self.paused = false;
        Ok(())
    }

    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    pub fn is_paused(&self) -> bool {
        self.paused
    }

    pub(super) fn signal(&self, signal: Signal) -> Result<()> {
        let child = self.child.as_ref().with_context(|| format!("node {} is not running", self.id))?;
        kill_process(Pid::from_child(child), signal).with_context(|| format!("signalling node {}", self.id))
    }

    /// SIGKILL, and waits until the kernel has taken the process away. A node that is down stays down.
    pub(super) fn kill(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill().and_then(|()| child.wait()).with_context(|| format!("killing node {}", self.id))?;
        }
        Ok(())
    }

    /// The exit status, once the process has ended by itself.
    pub(super) fn try_wait(&mut self) -> Result<Option<ExitStatus>> {
        let Some(child) = self.child.as_mut() else { bail!("node {} is not running", self.id) };
        let status = child.try_wait().with_context(|| format!("waiting for node {}", self.id))?;
        if status.is_some() {
            self.child = None;
        }
        Ok(status)
    }

    /// Resident memory, in bytes.
    pub fn rss_bytes(&self) -> Result<u64> {
        let pid = self.pid().with_context(|| format!("node {} is not running", self.id))?;
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib =
            line.and_then(|line| line.trim().strip_suffix(" kB")).and_then(|text| text.trim().parse::<u64>().ok());
        Ok(kib.with_context(|| format!("no VmRSS in /proc/{pid}/status"))? * 1024)
    }

    /// Processor time it has taken since it started, in the kernel's ticks of a hundredth of a second.
    pub fn cpu(&self) -> Result<Duration> {
        let pid = self.pid().with_context(|| format!("node {} is not running", self.id))?;
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // The name in parentheses may hold anything; `utime` and `stime` are the 12th and 13th fields after it.
        let fields = stat.rsplit_once(") ").map(|(_, fields)| fields.split(' ').skip(11).take(2));
        let ticks: Option<u64> = fields.and_then(|fields| fields.map(|field| field.parse::<u64>().ok()).sum());
        Ok(TICK * u32::try_from(ticks.with_context(|| format!("no times in /proc/{pid}/stat"))?)?)
    }

    /// Space its data takes on disk, in bytes.
    pub fn disk_bytes(&self) -> Result<u64> {
        disk_bytes(&self.data)
    }

    /// The end of its log, for an error message.
    pub fn log_tail(&self) -> String {
        let bytes = fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(LOG_TAIL_BYTES)..]).trim_end().to_owned()
    }
}

impl Drop for NodeProcess {
    fn drop(&mut self) {
        // Nobody can be told here, and the launcher's end kills it in any case.
        let _ = self.kill();
    }
}

/// Blocks allocated to all files under a directory. Files that vanish while they are counted count as nothing.
pub fn disk_bytes(directory: &Path) -> Result<u64> {
    use std::os::unix::fs::MetadataExt;

    const BLOCK_BYTES: u64 = 512;
    let mut total = 0;
    let mut pending = vec![directory.to_owned()];
    while let Some(directory) = pending.pop() {
        let entries = match fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error).with_context(|| format!("reading {}", directory.display())),
        };
        for entry in entries {
            let entry = entry?;
            match entry.metadata() {
                Ok(meta) if meta.is_dir() => pending.push(entry.path()),
                // A checkpoint's hard link takes no space of its own.
                Ok(meta) => total += meta.blocks() * BLOCK_BYTES / meta.nlink().max(1),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(error).with_context(|| format!("reading {}", entry.path().display())),
            }
        }
    }
    Ok(total)
}

/// `exit status 1`, or `signal 9`.
pub fn describe_exit(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "an unknown status".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disk_space_is_what_is_allocated_and_links_count_once() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("inner")).unwrap();
        let file = directory.path().join("inner/file");
        fs::write(&file, vec![1; 100_000]).unwrap();
        File::open(&file).unwrap().sync_all().unwrap();
        let alone = disk_bytes(directory.path()).unwrap();
        assert!((100_000..200_000).contains(&alone), "{alone}");
        fs::hard_link(&file, directory.path().join("link")).unwrap();
        assert_eq!(disk_bytes(directory.path()).unwrap(), alone);
        assert_eq!(disk_bytes(&directory.path().join("absent")).unwrap(), 0);
    }
}
