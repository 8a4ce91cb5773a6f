//! Consensus: openraft, its log and its peers' network, behind one face, [`Replica`]: propose, read, watch.
//!
//! 1. [`rt`] and [`clock`] are the seam to the world: tasks, sockets, randomness, time. Nothing else reaches for them.
//! 2. `log_store` keeps the Raft log; one fsync for all that waits.
//! 3. `state_machine` applies what is committed to the store and publishes its effects.
//! 4. `network` carries everything between nodes.
//! 5. `proposer` takes commands into the log, `read_index` makes reads linearizable, `beats` tell who is there.
//! 6. `formation` and `membership` say who belongs to the cluster.
//!
//! This crate knows nothing of schedules or webhooks: what a command needs from the leader is filled in by whoever
//! implements [`Prepare`].

#![cfg_attr(madsim, allow(clippy::useless_conversion, reason = "tokio's instant and std's are one type under madsim"))]

mod beats;
pub mod clock;
mod config;
mod effects;
mod error;
mod fatal;
mod form;
mod formation;
mod identity;
mod leadership;
mod log_store;
mod membership;
pub mod metrics;
mod network;
mod node;
mod proposer;
mod read_index;
mod replica;
pub mod rt;
pub mod runtime;
mod snapshots;
mod stamping;
mod state_machine;
mod status;
#[cfg(test)]
mod storage_tests;
mod types;

pub use beats::Heard;
pub use clock::Clock;
pub use config::{Limits, ReplicaConfig, SnapshotPolicy, Timing};
pub use effects::{Delivery, EffectStream};
pub use error::{MembershipError, ProposeError, ReadError, StartError};
pub use identity::ClusterId;
pub use leadership::Leadership;
pub use proposer::{Lane, Prepare, Prepared};
pub use replica::Replica;
pub use status::{NodeStatus, Role, Status};
