//! Simulated time that stands still: something in a node tries again and again without ever waiting, so that time has no
//! reason to move on. Nothing inside the simulation would ever see that, so a real thread beside it does.
//!
//! It counts the processor's time, not the clock's: a busy machine is no reason to give up.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::cli::STOOD_STILL;

/// Processor time that a second of simulated time may take. It takes a hundredth of one, in a big cluster a few tenths.
const A_SECOND_TAKES: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(200);

/// How far simulated time has come, in whole seconds, and whether the simulation is over.
static SECOND: AtomicU64 = AtomicU64::new(0);
static OVER: AtomicBool = AtomicBool::new(false);

/// Simulated time has come so far, in microseconds.
pub fn note(now: u64) {
    SECOND.store(now / 1_000_000, Ordering::Relaxed);
}

/// Nothing is simulated any more; what is computed now is the judgement.
pub fn over() {
    OVER.store(true, Ordering::Relaxed);
}

/// Ends the process if simulated time stands still.
pub fn watch() {
    thread::spawn(|| {
        let mut last = (SECOND.load(Ordering::Relaxed), computed());
        while !OVER.load(Ordering::Relaxed) {
            thread::sleep(LOOK);
            let (second, computed) = (SECOND.load(Ordering::Relaxed), computed());
            if second != last.0 {
                last = (second, computed);
            } else if computed.saturating_sub(last.1) > A_SECOND_TAKES {
                eprintln!(
                    "error: simulated time stands still at second {second}: a node tries something without a pause"
                );
                std::process::exit(i32::from(STOOD_STILL));
            }
        }
    });
}

/// How long this process has computed.
fn computed() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).unwrap_or_default()
}
