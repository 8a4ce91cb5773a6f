//! The network between nodes: HTTP/2 on the peer port, bodies in the codec.
//!
//! 1. [`wire`] has the messages, and the headers that every call carries: protocol version, cluster, sender, addressee.
//!    A call that does not match is refused by name, never interpreted.
//! 2. [`channel`] is a connection to one peer, re-made with back-off, with a deadline on every call.
//! 3. [`stream`] frames long-lived bodies: log replication and snapshots.
//! 4. [`client`] is what openraft calls, [`heartbeat`] its part that keeps a leader in office; [`server`] is what answers.

pub mod channel;
pub mod client;
pub mod heartbeat;
pub mod server;
pub mod snapshot;
pub mod stream;
pub mod wire;
