//! Loopback ports for child processes, reserved so that clusters started side by side (by tests that run in parallel)
//! never meet, and a killed node finds its port free when it comes back.
//!
//! They lie below the kernel's range of ephemeral ports, from which any outgoing connection might take one.

use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};

use anyhow::{Context, Result, bail};

const FIRST_PORT: u16 = 10_240;
const BLOCK_PORTS: u16 = 16;
const BLOCKS: u16 = 1024;

/// Blocks of ports, each reserved by a lock on a file until this is dropped or the process dies.
#[derive(Debug, Default)]
pub struct Ports {
    locks: Vec<File>,
    free: Vec<u16>,
}

impl Ports {
    /// A port nobody listens on.
    pub fn take(&mut self) -> Result<u16> {
        loop {
            while let Some(port) = self.free.pop() {
                if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
                    return Ok(port);
                }
            }
            self.reserve()?;
        }
    }

    fn reserve(&mut self) -> Result<()> {
        let directory = std::env::temp_dir().join(format!("campanile-ports-{}", rustix::process::getuid().as_raw()));
        fs::create_dir_all(&directory).with_context(|| format!("making {}", directory.display()))?;
        // Processes that start together begin at different blocks.
        let start = std::process::id() % u32::from(BLOCKS);
        for step in 0..u32::from(BLOCKS) {
            let block = ((start + step) % u32::from(BLOCKS)) as u16;
            let path = directory.join(block.to_string());
            let lock = File::create(&path).with_context(|| format!("making {}", path.display()))?;
            if lock.try_lock().is_ok() {
                let first = FIRST_PORT + block * BLOCK_PORTS;
                self.locks.push(lock);
                self.free.extend((first..first + BLOCK_PORTS).rev());
                return Ok(());
            }
        }
        bail!("all {BLOCKS} blocks of ports are in use; see {}", directory.display())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_port_is_given_twice() {
        let (mut one, mut other) = (Ports::default(), Ports::default());
        let mut seen = BTreeSet::new();
        for _ in 0..20 {
            assert!(seen.insert(one.take().unwrap()));
            assert!(seen.insert(other.take().unwrap()));
        }
    }

    #[test]
    fn a_port_in_use_is_passed_over() {
        let mut ports = Ports::default();
        ports.reserve().unwrap();
        let next = *ports.free.last().unwrap();
        let _listener = TcpListener::bind((Ipv4Addr::LOCALHOST, next)).unwrap();
        assert_ne!(ports.take().unwrap(), next);
    }
}
