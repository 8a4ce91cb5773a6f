//! Time as arithmetic: when a task is due, and a wheel that says when that time has come.
//!
//! - [`plan::Plan`]: a task's schedules, compiled; "the first occurrence after this instant?".
//! - [`wheel::Wheel`]: values handed out at their time.
//! - [`crontab`]: a crontab file as schedules and webhooks.
//! - [`zone`]: time zones by name, from the bundled database alone.
//!
//! ```
//! use campanile_model::Dst;
//! use campanile_timer::{Anchors, Plan, parse_expression, render};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let schedule = parse_expression("30 2 * * *", "Europe/Berlin", Dst::Vixie)?;
//! let now = "2026-03-28T12:00:00Z".parse()?;
//! let plan = Plan::of(&[schedule.clone()], Anchors::new(now, 0))?;
//!
//! // In the night to the 29th, Berlin's clock goes from 02:00 to 03:00.
//! let first = plan.next_after(now).ok_or("never")?;
//! assert_eq!(render(&schedule, first), "2026-03-29T03:00:00+02:00");
//! let second = plan.next_after(first).ok_or("never")?;
//! assert_eq!(render(&schedule, second), "2026-03-30T02:30:00+02:00");
//! # Ok(())
//! # }
//! ```
//!
//! This crate never reads a clock, draws a random number, or does I/O: every instant comes in as an argument, and the
//! same arguments give the same answer on every node.

mod cron;
pub mod crontab;
pub mod plan;
mod repeat;
pub mod wheel;
pub mod zone;

pub use plan::{Anchors, Plan, following, parse_expression, render};
pub use wheel::Wheel;

use campanile_model::Timestamp;

/// The time to stamp an entry with: the clock's, unless that lies behind the last stamp. So stamps never go back, and a
/// clock that was set back stands still until it has caught up.
pub fn stamp(last: Timestamp, now: Timestamp) -> Timestamp {
    last.max(now)
}
