//! The logical content of a state as one number, to compare replicas at one index.

use std::fmt;
use std::ops::Bound;

use xxhash_rust::xxh3::Xxh3;

use crate::engine::Read;
use crate::error::StoreResult;
use crate::keys;

/// Hash over every replicated row. Raft's mark is left out: it says how the log was replicated, not what it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub u128);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

pub(crate) fn of(read: &dyn Read) -> StoreResult<Digest> {
    let mut hash = Xxh3::new();
    for family in keys::FAMILIES {
        part(&mut hash, family.0.as_bytes());
        for row in read.scan(family, Bound::Unbounded, Bound::Unbounded, false) {
            let (key, value) = row?;
            if (family, key.as_slice()) == (keys::META, keys::POSITION) {
                continue;
            }
            part(&mut hash, &key);
            part(&mut hash, &value);
        }
    }
    Ok(Digest(hash.digest128()))
}

/// With its length in front, so that no two sequences of parts run together alike.
fn part(hash: &mut Xxh3, bytes: &[u8]) {
    hash.update(&(bytes.len() as u64).to_be_bytes());
    hash.update(bytes);
}
