//! The trace of a simulation as one number, so that two runs of a seed can be compared.

use xxhash_rust::xxh3::Xxh3;

use crate::history::Timed;

/// One number for everything that happened, to the microsecond.
pub fn trace_hash(events: &[Timed], messages: u64) -> u64 {
    let mut hasher = Xxh3::new();
    for event in events {
        hasher.update(&serde_json::to_vec(event).expect("events are plain data, which has a JSON form"));
    }
    hasher.update(&messages.to_be_bytes());
    hasher.digest()
}
