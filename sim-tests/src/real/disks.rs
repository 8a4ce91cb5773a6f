//! Disks of the nodes' own, small enough to be filled: memory file systems, mounted where the nodes keep their data.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use campanile_model::NodeId;

/// Room for what a short run writes, and for the least that a node wants free.
const SIZE: &str = "256m";
const MIN_FREE: &str = "32MiB";
/// What takes the space when a disk is to be full.
const BALLAST: &str = "ballast";

/// Dropping it unmounts them.
pub struct Disks {
    mounted: Vec<PathBuf>,
}

impl Disks {
    /// One for each node, in the order of their ids; else why not.
    pub fn mount(homes: &[PathBuf]) -> Result<Self, String> {
        unmount_stale();
        let mut disks = Self { mounted: Vec::new() };
        let no_disk = |error: String| format!("no disks of the nodes' own here: {error}");
        for home in homes {
            fs::create_dir_all(home).map_err(|error| no_disk(format!("making {}: {error}", home.display())))?;
            let options = format!("size={SIZE},mode=0755");
            let name = format!("{NAME}{}", std::process::id());
            run(Command::new("mount").args(["-t", "tmpfs", "-o", &options, &name]).arg(home)).map_err(no_disk)?;
            disks.mounted.push(home.clone());
        }
        Ok(disks)
    }

    /// A small disk has little to spare.
    pub fn serve_args() -> Vec<String> {
        vec!["--min-free-disk".into(), MIN_FREE.into()]
    }

    fn ballast(&self, node: NodeId) -> Option<PathBuf> {
        let place = usize::try_from(node.0).ok()?.checked_sub(1)?;
        Some(self.mounted.get(place)?.join(BALLAST))
    }

    /// Leaves not a byte.
    pub fn fill(&self, node: NodeId) -> io::Result<()> {
        let Some(path) = self.ballast(node) else { return Ok(()) };
        let mut ballast = File::create(path)?;
        // Large pieces, then small ones into what these leave.
        for piece in [1 << 20, 1 << 12, 1] {
            let zeros = vec![0; piece];
            loop {
                match ballast.write(&zeros) {
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::StorageFull => break,
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    /// Gives the space back.
    pub fn free(&self, node: NodeId) -> io::Result<()> {
        match self.ballast(node).map(fs::remove_file) {
            Some(Err(error)) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

impl Drop for Disks {
    fn drop(&mut self) {
        for home in &self.mounted {
            unmount(home);
        }
    }
}

/// Mounts carry it, and the process they are of.
const NAME: &str = "campanile-sim-";

/// Those of a process that was killed before it could clean up.
fn unmount_stale() {
    let Ok(mounts) = fs::read_to_string("/proc/mounts") else { return };
    for line in mounts.lines() {
        let mut columns = line.split(' ');
        let (Some(name), Some(home)) = (columns.next(), columns.next()) else { continue };
        let Some(pid) = name.strip_prefix(NAME).and_then(|pid| pid.parse::<u32>().ok()) else { continue };
        if !Path::new(&format!("/proc/{pid}")).exists() {
            unmount(Path::new(home));
        }
    }
}

/// Lazily: a process on its way out may still hold a file. Nobody can be told of a failure.
fn unmount(home: &Path) {
    let _ = run(Command::new("umount").arg("--lazy").arg(home));
}

fn run(command: &mut Command) -> Result<(), String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|error| format!("{program}: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(()) } else { Err(said.trim().lines().next().unwrap_or_default().to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_takes_nothing_until_it_is_freed_and_is_gone_in_the_end() {
        let directory = tempfile::tempdir().unwrap();
        let home = directory.path().join("node-1");
        let disks = match Disks::mount(std::slice::from_ref(&home)) {
            Ok(disks) => disks,
            Err(why) => return println!("skipped: {why}"),
        };
        let write = || fs::write(home.join("some"), [1; 5000]);
        write().unwrap();
        fs::remove_file(home.join("some")).unwrap();
        disks.fill(NodeId(1)).unwrap();
        assert_eq!(write().unwrap_err().kind(), io::ErrorKind::StorageFull);
        disks.free(NodeId(1)).unwrap();
        // As at the end of a fault that has been ended already.
        disks.free(NodeId(1)).unwrap();
        write().unwrap();
        drop(disks);
        assert_eq!(fs::read_dir(&home).unwrap().count(), 0);
    }
}
