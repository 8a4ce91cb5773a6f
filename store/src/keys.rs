//! Where every row lies: the families of the state database and how their keys are made.
//!
//! Keys are big-endian, so that byte order is the order of the values. Ids are places in the log, so that rows keyed by
//! them are written nearly in sequence, which is what the memtable likes best (see `FACTS.md`, "Apply cost per fire").
//!
//! | Family        | Key                              | Value                    | Written |
//! |---------------|----------------------------------|--------------------------|---------|
//! | `meta`        | a fixed word                     | position, globals, shards| once per batch |
//! | `names`       | namespace, 0, name; or 1, id     | `TaskId`                 | create, delete |
//! | `tasks`       | `TaskId`                         | `TaskState`              | every fire |
//! | `specs`       | `TaskId`, version                | `TaskSpec`               | create, update |
//! | `versions`    | `TaskId`, superseded version     | ledger lines that need it| update, trim |
//! | `time`        | `wake_at`, kind, id              | `TaskTimer` or token     | when a timer is armed; removed in ranges only |
//! | `live`        | `RunId`                          | `Run`, unfinished        | fire, retry, end |
//! | `runs`        | `RunId`                          | `Run`, finished          | end |
//! | `ledger`      | `TaskId`, `scheduled_at`, origin | `LedgerRow`              | fire, except of a one-shot |
//! | `idem`        | namespace, 0, key                | `IdempotencyRow`         | a request with a key |
//! | `idem_expiry` | `expires_at`, namespace, 0, key  | nothing                  | with `idem` |
//! | `nodes`       | `NodeId`                         | `NodeState`              | a node comes or goes |

use std::ops::Bound;

use campanile_model::{NodeId, Origin, RunId, TaskId, Timer, Timestamp};

use crate::engine::Family;

pub const META: Family = Family("meta");
pub const NAMES: Family = Family("names");
pub const TASKS: Family = Family("tasks");
pub const SPECS: Family = Family("specs");
pub const VERSIONS: Family = Family("versions");
pub const TIME: Family = Family("time");
pub const LIVE: Family = Family("live");
pub const RUNS: Family = Family("runs");
pub const LEDGER: Family = Family("ledger");
pub const IDEM: Family = Family("idem");
pub const IDEM_EXPIRY: Family = Family("idem_expiry");
pub const NODES: Family = Family("nodes");

/// Every family of the state database, in the order in which the digest reads them.
pub const FAMILIES: [Family; 12] =
    [META, NAMES, TASKS, SPECS, VERSIONS, TIME, LIVE, RUNS, LEDGER, IDEM, IDEM_EXPIRY, NODES];

/// `meta`: the last applied index and raft's mark. The only row that is not part of the digest.
pub const POSITION: &[u8] = b"position";
/// `meta`: time, counters, watermark.
pub const GLOBALS: &[u8] = b"globals";
/// `meta`: the shard table.
pub const SHARDS: &[u8] = b"shards";

/// A place in the time index. Ordered as its key is: by instant, then kind, then id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TimerKey {
    pub wake_at: Timestamp,
    pub timer: Timer,
}

/// Bytes that sort as the instants do: the sign bit is flipped, so that instants before 1970 come first.
pub fn instant(at: Timestamp) -> [u8; 8] {
    ((at.as_millis() as u64) ^ (1 << 63)).to_be_bytes()
}

fn read_instant(bytes: [u8; 8]) -> Timestamp {
    Timestamp::from_millis((u64::from_be_bytes(bytes) ^ (1 << 63)) as i64)
}

pub fn task(id: TaskId) -> [u8; 8] {
    id.0.to_be_bytes()
}

pub fn run(id: RunId) -> [u8; 8] {
    id.0.to_be_bytes()
}

pub fn node(id: NodeId) -> [u8; 8] {
    id.0.to_be_bytes()
}

/// `specs` and `versions`.
pub fn version(id: TaskId, version: u32) -> Vec<u8> {
    let mut key = Vec::with_capacity(12);
    key.extend_from_slice(&task(id));
    key.extend_from_slice(&version.to_be_bytes());
    key
}

/// `names` and `idem`. No namespace has a zero byte in its name, so the first one ends it.
pub fn named(namespace: &str, name: &str) -> Vec<u8> {
    let mut key = Vec::with_capacity(namespace.len() + 1 + name.len());
    key.extend_from_slice(namespace.as_bytes());
    key.push(0);
    key.extend_from_slice(name.as_bytes());
    key
}

/// `names`, of a task without a name: after all that have one, in the order of their ids.
pub fn unnamed(namespace: &str, id: TaskId) -> Vec<u8> {
    let mut key = unnamed_prefix(namespace);
    key.extend_from_slice(&task(id));
    key
}

/// What the keys of all tasks without a name begin with.
pub fn unnamed_prefix(namespace: &str) -> Vec<u8> {
    let mut key = Vec::with_capacity(namespace.len() + 9);
    key.extend_from_slice(namespace.as_bytes());
    key.push(1);
    key
}

/// `idem_expiry`.
pub fn key_expiry(expires_at: Timestamp, named: &[u8]) -> Vec<u8> {
    let mut bytes = instant(expires_at).to_vec();
    bytes.extend_from_slice(named);
    bytes
}

/// The instant of a key of `idem_expiry` and the key of `idem` it speaks of.
pub fn read_key_expiry(key: &[u8]) -> Option<(Timestamp, &[u8])> {
    let (at, named) = key.split_first_chunk::<8>()?;
    Some((read_instant(*at), named))
}

/// `time`.
pub fn timer(key: TimerKey) -> Vec<u8> {
    let (kind, id) = match key.timer {
        Timer::Task(id) => (0, id.0),
        Timer::Retry(id) => (1, id.0),
        Timer::Expire(id) => (2, id.0),
    };
    let mut bytes = Vec::with_capacity(17);
    bytes.extend_from_slice(&instant(key.wake_at));
    bytes.push(kind);
    bytes.extend_from_slice(&id.to_be_bytes());
    bytes
}

pub fn read_timer(key: &[u8]) -> Option<TimerKey> {
    let (at, rest) = key.split_first_chunk::<8>()?;
    let (&kind, id) = rest.split_first()?;
    let id = u64::from_be_bytes(id.try_into().ok()?);
    let timer = match kind {
        0 => Timer::Task(TaskId(id)),
        1 => Timer::Retry(RunId(id)),
        2 => Timer::Expire(TaskId(id)),
        _ => return None,
    };
    Some(TimerKey { wake_at: read_instant(*at), timer })
}

/// What tells a task's ledger lines apart, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LineKey {
    pub task: TaskId,
    pub scheduled_at: Timestamp,
    pub origin: Origin,
}

/// `ledger`.
pub fn ledger(line: LineKey) -> Vec<u8> {
    let mut key = ledger_from(line.task, line.scheduled_at);
    match line.origin {
        Origin::Schedule => key.push(0),
        Origin::Manual(n) => {
            key.push(1);
            key.extend_from_slice(&n.to_be_bytes());
        }
    }
    key
}

/// Before every ledger line of the task at or after `at`, and after every earlier one.
pub fn ledger_from(id: TaskId, at: Timestamp) -> Vec<u8> {
    let mut key = Vec::with_capacity(21);
    key.extend_from_slice(&task(id));
    key.extend_from_slice(&instant(at));
    key
}

pub fn read_ledger(key: &[u8]) -> Option<LineKey> {
    let (id, rest) = key.split_first_chunk::<8>()?;
    let (at, rest) = rest.split_first_chunk::<8>()?;
    let origin = match rest {
        [0] => Origin::Schedule,
        [1, n @ ..] => Origin::Manual(u32::from_be_bytes(n.try_into().ok()?)),
        _ => return None,
    };
    Some(LineKey { task: TaskId(u64::from_be_bytes(*id)), scheduled_at: read_instant(*at), origin })
}

/// The key after every key that starts with `prefix`: where a scan of the prefix ends. `None` if there is none.
pub fn after_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != 0xff)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end)
}

/// Whether no key can lie between these ends. An ordered map panics when it is asked for such a range.
pub fn is_empty_range(lower: Bound<&[u8]>, upper: Bound<&[u8]>) -> bool {
    match (lower, upper) {
        (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
        (Bound::Included(a), Bound::Included(b)) => a > b,
        (Bound::Included(a) | Bound::Excluded(a), Bound::Included(b) | Bound::Excluded(b)) => a >= b,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_instant() -> impl Strategy<Value = Timestamp> {
        prop_oneof![any::<i64>(), -3i64..3, Just(i64::MIN), Just(i64::MAX)].prop_map(Timestamp::from_millis)
    }

    fn any_origin() -> impl Strategy<Value = Origin> {
        prop_oneof![Just(Origin::Schedule), any::<u32>().prop_map(Origin::Manual)]
    }

    fn any_timer() -> impl Strategy<Value = TimerKey> {
        let id = prop_oneof![any::<u64>(), 0u64..3];
        (any_instant(), 0..3, id).prop_map(|(wake_at, kind, id)| {
            let timer = match kind {
                0 => Timer::Task(TaskId(id)),
                1 => Timer::Retry(RunId(id)),
                _ => Timer::Expire(TaskId(id)),
            };
            TimerKey { wake_at, timer }
        })
    }

    fn any_line() -> impl Strategy<Value = LineKey> {
        (0u64..3, any_instant(), any_origin()).prop_map(|(id, scheduled_at, origin)| LineKey {
            task: TaskId(id),
            scheduled_at,
            origin,
        })
    }

    proptest! {
        #[test]
        fn timer_keys_sort_as_timers_and_read_back(a in any_timer(), b in any_timer()) {
            prop_assert_eq!(timer(a).cmp(&timer(b)), a.cmp(&b));
            prop_assert_eq!(read_timer(&timer(a)), Some(a));
        }

        #[test]
        fn ledger_keys_sort_as_lines_and_read_back(a in any_line(), b in any_line()) {
            prop_assert_eq!(ledger(a).cmp(&ledger(b)), a.cmp(&b));
            prop_assert_eq!(read_ledger(&ledger(a)), Some(a));
            prop_assert!(ledger_from(a.task, a.scheduled_at) < ledger(a));
        }

        #[test]
        fn expiry_keys_sort_by_instant_and_read_back(a in any_instant(), b in any_instant(), key in "[a-z]{0,4}") {
            let named = named("default", &key);
            let (x, y) = (key_expiry(a, &named), key_expiry(b, &named));
            prop_assert_eq!(x.cmp(&y), a.cmp(&b));
            prop_assert_eq!(read_key_expiry(&x), Some((a, named.as_slice())));
        }

        #[test]
        fn arbitrary_keys_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = read_timer(&bytes);
            let _ = read_ledger(&bytes);
            let _ = read_key_expiry(&bytes);
        }

        #[test]
        fn the_end_of_a_prefix_is_after_all_it_starts(
            prefix in proptest::collection::vec(prop_oneof![Just(0xffu8), any::<u8>()], 1..4),
            rest in proptest::collection::vec(any::<u8>(), 0..4),
        ) {
            let key = [prefix.as_slice(), &rest].concat();
            match after_prefix(&prefix) {
                Some(end) => prop_assert!(key < end && !end.starts_with(&prefix)),
                None => prop_assert!(prefix.iter().all(|byte| *byte == 0xff)),
            }
        }
    }
}
