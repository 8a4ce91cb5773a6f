//! The batch being built, readable before it is written.
//!
//! `apply` reads through [`Layered`]: what the batch has changed first, the engine below for the rest. The overlay is
//! ordered, so that the batch it becomes is the same on every node and reaches the engine in key order.

use std::collections::BTreeMap;
use std::io;
use std::iter::Peekable;
use std::ops::Bound;

use crate::engine::{Batch, Family, KeyValue, Read, Rows};
use crate::keys::is_empty_range;

/// Rows changed; `None` is a row removed.
type Changes = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// What a batch does to one family.
#[derive(Default)]
struct FamilyChanges {
    /// Ranges `[start, end)` removed, each before the rows in `rows` were changed.
    removed: Vec<(Vec<u8>, Vec<u8>)>,
    rows: Changes,
}

/// Everything applied since the last commit.
#[derive(Default)]
pub(crate) struct Overlay {
    families: BTreeMap<Family, FamilyChanges>,
    bytes: usize,
}

impl Overlay {
    pub fn put(&mut self, family: Family, key: Vec<u8>, value: Vec<u8>) {
        self.bytes += key.len() + value.len();
        self.families.entry(family).or_default().rows.insert(key, Some(value));
    }

    pub fn delete(&mut self, family: Family, key: Vec<u8>) {
        self.bytes += key.len();
        self.families.entry(family).or_default().rows.insert(key, None);
    }

    /// Removes keys in `[start, end)`.
    pub fn delete_range(&mut self, family: Family, start: Vec<u8>, end: Vec<u8>) {
        if start >= end {
            return;
        }
        self.bytes += start.len() + end.len();
        let changes = self.families.entry(family).or_default();
        changes.rows.retain(|key, _| *key < start || *key >= end);
        changes.removed.push((start, end));
    }

    /// What the batch makes of the row: `None` when it leaves it as the engine has it, `Some(None)` when it removes it.
    pub fn change(&self, family: Family, key: &[u8]) -> Option<Option<&[u8]>> {
        let changes = self.families.get(&family)?;
        match changes.rows.get(key) {
            Some(change) => Some(change.as_deref()),
            None => changes.hides(key).then_some(None),
        }
    }

    /// Bytes written into the batch, those overwritten in it since included.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The batch, in order of family and key. Ranges go first: rows put since then lie on top of them.
    pub fn into_batch(self) -> Batch {
        let mut batch = Batch::default();
        for (family, changes) in self.families {
            for (start, end) in changes.removed {
                batch.delete_range(family, start, end);
            }
            for (key, value) in changes.rows {
                match value {
                    Some(value) => batch.put(family, key, value),
                    None => batch.delete(family, key),
                }
            }
        }
        batch
    }
}

impl FamilyChanges {
    /// Whether the row that the engine has under this key is gone.
    fn hides(&self, key: &[u8]) -> bool {
        self.rows.contains_key(key)
            || self.removed.iter().any(|(start, end)| start.as_slice() <= key && key < end.as_slice())
    }
}

/// The engine with the overlay on top.
pub(crate) struct Layered<'a> {
    pub base: &'a dyn Read,
    pub overlay: &'a Overlay,
}

impl Read for Layered<'_> {
    fn get(&self, family: Family, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        match self.overlay.change(family, key) {
            Some(change) => Ok(change.map(<[u8]>::to_vec)),
            None => self.base.get(family, key),
        }
    }

    fn scan<'a>(&'a self, family: Family, lower: Bound<&[u8]>, upper: Bound<&[u8]>, reverse: bool) -> Rows<'a> {
        let base = self.base.scan(family, lower, upper, reverse);
        let Some(changes) = self.overlay.families.get(&family) else { return base };
        if is_empty_range(lower, upper) {
            return base;
        }
        let below = base.filter(|row| row.as_ref().map_or(true, |(key, _)| !changes.hides(key)));
        let above = changes
            .rows
            .range::<[u8], _>((lower, upper))
            .filter_map(|(key, value)| Some((key.clone(), value.as_ref()?.clone())));
        let above: Box<dyn Iterator<Item = KeyValue> + Send> =
            if reverse { Box::new(above.rev()) } else { Box::new(above) };
        Box::new(Merged { below: (Box::new(below) as Rows<'a>).peekable(), above: above.peekable(), reverse })
    }
}

/// Two sorted streams without a common key, as one.
struct Merged<'a> {
    below: Peekable<Rows<'a>>,
    above: Peekable<Box<dyn Iterator<Item = KeyValue> + Send + 'a>>,
    reverse: bool,
}

impl Iterator for Merged<'_> {
    type Item = io::Result<KeyValue>;

    fn next(&mut self) -> Option<Self::Item> {
        let below_first = match (self.below.peek(), self.above.peek()) {
            (Some(Ok((below, _))), Some((above, _))) => (below < above) != self.reverse,
            // An error comes out at once.
            (Some(_), _) => true,
            (None, _) => false,
        };
        if below_first { self.below.next() } else { self.above.next().map(Ok) }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::engine::Purpose;
    use crate::engine::mem::MemDisk;

    const FAMILY: Family = Family("rows");

    #[derive(Clone, Debug)]
    enum Change {
        Put(u8, u8),
        Delete(u8),
        DeleteRange(u8, u8),
    }

    fn any_change() -> impl Strategy<Value = Change> {
        prop_oneof![
            3 => (0..20u8, any::<u8>()).prop_map(|(key, value)| Change::Put(key, value)),
            1 => (0..20u8).prop_map(Change::Delete),
            1 => (0..20u8, 0..20u8).prop_map(|(start, end)| Change::DeleteRange(start, end)),
        ]
    }

    fn any_bound() -> impl Strategy<Value = Bound<Vec<u8>>> {
        prop_oneof![
            Just(Bound::Unbounded),
            (0..20u8).prop_map(|key| Bound::Included(vec![key])),
            (0..20u8).prop_map(|key| Bound::Excluded(vec![key])),
        ]
    }

    fn overlay_of(changes: &[Change], model: &mut BTreeMap<Vec<u8>, Vec<u8>>) -> Overlay {
        let mut overlay = Overlay::default();
        for change in changes {
            match *change {
                Change::Put(key, value) => {
                    overlay.put(FAMILY, vec![key], vec![value]);
                    model.insert(vec![key], vec![value]);
                }
                Change::Delete(key) => {
                    overlay.delete(FAMILY, vec![key]);
                    model.remove(&vec![key]);
                }
                Change::DeleteRange(start, end) => {
                    overlay.delete_range(FAMILY, vec![start], vec![end]);
                    model.retain(|key, _| key[0] < start || key[0] >= end);
                }
            }
        }
        overlay
    }

    proptest! {
        #[test]
        fn a_layered_state_reads_as_the_written_one(
            first in proptest::collection::vec(any_change(), 0..30),
            second in proptest::collection::vec(any_change(), 0..30),
            lower in any_bound(),
            upper in any_bound(),
            reverse in any::<bool>(),
        ) {
            let engine = MemDisk::new().attach().open("rows", Purpose::State, &[FAMILY]).unwrap();
            let mut model = BTreeMap::new();
            engine.write(overlay_of(&first, &mut model).into_batch()).unwrap();
            let overlay = overlay_of(&second, &mut model);
            let (lower, upper) = (lower.as_ref().map(Vec::as_slice), upper.as_ref().map(Vec::as_slice));
            let mut wanted: Vec<KeyValue> = if is_empty_range(lower, upper) {
                Vec::new()
            } else {
                model.range::<[u8], _>((lower, upper)).map(|(k, v)| (k.clone(), v.clone())).collect()
            };
            if reverse {
                wanted.reverse();
            }
            let layered = Layered { base: engine.as_ref(), overlay: &overlay };
            let rows: Result<Vec<_>, _> = layered.scan(FAMILY, lower, upper, reverse).collect();
            prop_assert_eq!(&rows.unwrap(), &wanted);
            for key in 0..20u8 {
                prop_assert_eq!(layered.get(FAMILY, &[key]).unwrap(), model.get(&vec![key]).cloned());
            }
            engine.write(overlay.into_batch()).unwrap();
            let rows: Result<Vec<_>, _> = engine.scan(FAMILY, lower, upper, reverse).collect();
            prop_assert_eq!(rows.unwrap(), wanted);
        }
    }
}
