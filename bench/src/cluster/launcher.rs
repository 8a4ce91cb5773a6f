//! Starts child processes that cannot outlive this one.
//!
//! The kernel's "die with your parent" is tied to the thread that forked, so children are started from one thread that
//! lives as long as the launcher, never from a worker that a runtime may end.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::sync::mpsc;

use rustix::process::{Signal, getpid, getppid, set_parent_process_death_signal};

type Answer = mpsc::Sender<io::Result<Child>>;

#[derive(Debug)]
pub struct Launcher {
    orders: mpsc::Sender<(Command, Answer)>,
}

impl Launcher {
    pub fn start() -> io::Result<Self> {
        let (orders, queue) = mpsc::channel::<(Command, Answer)>();
        std::thread::Builder::new().name("launcher".into()).spawn(move || {
            for (mut command, answer) in queue {
                // Whoever gave the order has given up when nobody takes the answer; the child goes with it.
                if let Err(mpsc::SendError(Ok(mut child))) = answer.send(command.spawn()) {
                    let _ = child.kill();
                    let _ = child.wait();
                }
            }
        })?;
        Ok(Self { orders })
    }

    /// Starts a process in a process group of its own, so that a Ctrl-C in the terminal reaches only this program.
    pub fn spawn(&self, mut command: Command) -> io::Result<Child> {
        let parent = getpid();
        command.process_group(0);
        // SAFETY: between fork and exec only two system calls are made; nothing allocates or takes a lock.
        unsafe {
            command.pre_exec(move || {
                set_parent_process_death_signal(Some(Signal::KILL))?;
                // The parent may have died before the line above.
                if getppid() == Some(parent) { Ok(()) } else { Err(io::ErrorKind::NotFound.into()) }
            });
        }
        let (answer, outcome) = mpsc::channel();
        let gone = || io::Error::other("the launcher's thread is gone");
        self.orders.send((command, answer)).map_err(|_| gone())?;
        outcome.recv().map_err(|_| gone())?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_dies_with_its_launcher() {
        let launcher = Launcher::start().unwrap();
        let mut command = Command::new("sleep");
        command.arg("600");
        let mut child = launcher.spawn(command).unwrap();
        assert!(child.try_wait().unwrap().is_none());
        drop(launcher);
        let status = child.wait().unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9));
    }

    #[test]
    fn a_program_that_is_not_there_is_an_error() {
        let launcher = Launcher::start().unwrap();
        assert_eq!(launcher.spawn(Command::new("/no/such/program")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
