//! What drives a cluster and watches it, the same over simulated nodes and real ones: the plan that a seed draws, clients,
//! operators, the receiver's answers, the recorder, the reading of the final state.
//!
//! Nothing here knows what a node is made of or what breaks it: that is `world` and `real`.

pub mod clients;
pub mod draw;
pub mod final_state;
mod mood;
pub mod operators;
mod reading;
pub mod receiver;
pub mod recorder;
