//! Every type that is written reads back as it was, and nothing that is read makes a node panic.

use std::ops::Bound;

use campanile_model::codec::{self, Versioned};
use campanile_model::*;
use proptest::prelude::*;
use proptest::sample::Index;

use super::properties::{any_step, live_through};
use crate::effect::TaskTimer;
use crate::engine::Family;
use crate::keys;
use crate::tables::{Globals, NameRow, Position, RetryTimer, VersionRow};

/// What a type does with bytes: whether they decode, and to what they are encoded again.
type Recode = fn(&[u8]) -> Option<Vec<u8>>;

fn recode<T: Versioned>(bytes: &[u8]) -> Option<Vec<u8>> {
    codec::decode::<T>(bytes).ok().map(|value| codec::encode(&value))
}

/// Every versioned type of this crate and of the model.
const TYPES: [Recode; 14] = [
    recode::<Entry>,
    recode::<TaskSpec>,
    recode::<TaskState>,
    recode::<Run>,
    recode::<LedgerRow>,
    recode::<NodeState>,
    recode::<ShardTable>,
    recode::<IdempotencyRow>,
    recode::<Position>,
    recode::<Globals>,
    recode::<NameRow>,
    recode::<RetryTimer>,
    recode::<TaskTimer>,
    recode::<VersionRow>,
];

fn type_of(family: Family, key: &[u8]) -> Recode {
    match (family, key) {
        (keys::META, keys::POSITION) => recode::<Position>,
        (keys::META, keys::GLOBALS) => recode::<Globals>,
        (keys::META, _) => recode::<ShardTable>,
        (keys::NAMES, _) => recode::<NameRow>,
        (keys::TASKS, _) => recode::<TaskState>,
        (keys::SPECS, _) => recode::<TaskSpec>,
        (keys::VERSIONS, _) => recode::<VersionRow>,
        (keys::TIME, key) => match keys::read_timer(key).expect("a timer's key").timer {
            Timer::Task(_) => recode::<TaskTimer>,
            Timer::Retry(_) => recode::<RetryTimer>,
            Timer::Expire(_) => |bytes| Some(bytes.to_vec()),
        },
        (keys::LIVE | keys::RUNS, _) => recode::<Run>,
        (keys::LEDGER, _) => recode::<LedgerRow>,
        (keys::IDEM, _) => recode::<IdempotencyRow>,
        (keys::IDEM_EXPIRY, _) => |bytes| Some(bytes.to_vec()),
        (keys::NODES, _) => recode::<NodeState>,
        (family, _) => panic!("family {} is not known here", family.0),
    }
}

proptest! {
    #[test]
    fn rows_and_entries_read_back_as_written_and_damaged_ones_do_no_harm(
        steps in proptest::collection::vec(any_step(), 1..40),
        at in any::<Index>(),
        byte in any::<u8>(),
    ) {
        let (m, log) = live_through(&steps);
        let mut written: Vec<(Recode, Vec<u8>)> = Vec::new();
        for (_, entry) in &log {
            written.push((recode::<Entry>, codec::encode(entry)));
        }
        let view = m.view();
        for family in keys::FAMILIES {
            for row in view.read().scan(family, Bound::Unbounded, Bound::Unbounded, false) {
                let (key, value) = row?;
                written.push((type_of(family, &key), value));
            }
        }
        for (recode, bytes) in written {
            prop_assert_eq!(recode(&bytes), Some(bytes.clone()));
            if bytes.is_empty() {
                continue;
            }
            let at = at.index(bytes.len());
            recode(&bytes[..at]);
            let mut damaged = bytes;
            damaged[at] = byte;
            recode(&damaged);
        }
    }

    #[test]
    fn arbitrary_bytes_do_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let marked = [&[1], bytes.as_slice()].concat();
        for recode in TYPES {
            recode(&bytes);
            recode(&marked);
        }
    }
}

#[test]
fn a_version_from_the_future_is_refused_by_name() {
    let mut bytes = codec::encode(&NodeState::default());
    bytes[0] = 9;
    let error = codec::decode::<NodeState>(&bytes).unwrap_err().to_string();
    assert_eq!(error, "node of version 9, but this build reads version 1");
}
