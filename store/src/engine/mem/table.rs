//! A table of the simulated disk: a persistent ordered map, of which a copy costs nothing, and a cursor that owns one.

use std::collections::VecDeque;
use std::io;
use std::ops::Bound;
use std::sync::Arc;

use rpds::RedBlackTreeMapSync;

use crate::engine::KeyValue;

type Bytes = Arc<[u8]>;

/// Rows of one family, in the order of their keys.
#[derive(Clone)]
pub(super) struct Table {
    rows: RedBlackTreeMapSync<Bytes, Bytes>,
    bytes: u64,
}

impl Default for Table {
    fn default() -> Self {
        Self { rows: RedBlackTreeMapSync::new_sync(), bytes: 0 }
    }
}

impl Table {
    pub fn insert(&mut self, key: &[u8], value: &[u8]) {
        self.forget(key);
        self.bytes += (key.len() + value.len()) as u64;
        self.rows.insert_mut(key.into(), value.into());
    }

    pub fn remove(&mut self, key: &[u8]) {
        if self.forget(key) {
            self.rows.remove_mut(key);
        }
    }

    /// Removes the rows from `start` on, before `end`.
    pub fn remove_range(&mut self, start: &[u8], end: &[u8]) {
        if start >= end {
            return;
        }
        let range = (Bound::Included(start), Bound::Excluded(end));
        let keys: Vec<Bytes> = self.rows.range::<[u8], _>(range).map(|(key, _)| key.clone()).collect();
        for key in keys {
            self.remove(&key);
        }
    }

    /// Takes a row off the account. Returns whether there is one.
    fn forget(&mut self, key: &[u8]) -> bool {
        let row = self.rows.get(key).map(|value| (key.len() + value.len()) as u64);
        self.bytes -= row.unwrap_or(0);
        row.is_some()
    }

    pub fn get(&self, key: &[u8]) -> Option<&[u8]> {
        self.rows.get(key).map(|value| &value[..])
    }

    pub fn keys(&self) -> impl Iterator<Item = &Bytes> {
        self.rows.keys()
    }

    pub fn iter(&self) -> impl Iterator<Item = (&Bytes, &Bytes)> {
        self.rows.iter()
    }

    /// What keys and values take together.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Walks this state of the table, whatever becomes of it meanwhile.
    pub fn scan(&self, lower: Bound<&[u8]>, upper: Bound<&[u8]>, reverse: bool) -> Cursor {
        let (lower, upper) = (lower.map(Arc::from), upper.map(Arc::from));
        Cursor { table: self.clone(), lower, upper, reverse, ahead: VecDeque::new(), batch: FIRST_BATCH }
    }
}

/// Rows that a cursor takes with its first seek: most readers want a few. Each seek takes twice as many as the last.
const FIRST_BATCH: usize = 4;
const LARGEST_BATCH: usize = 256;

/// Walks a table it owns. As it cannot hold an iterator into what it owns, it seeks, and takes some rows each time.
pub(super) struct Cursor {
    table: Table,
    lower: Bound<Bytes>,
    upper: Bound<Bytes>,
    reverse: bool,
    ahead: VecDeque<(Bytes, Bytes)>,
    batch: usize,
}

fn borrowed(bound: &Bound<Bytes>) -> Bound<&[u8]> {
    bound.as_ref().map(|key| &key[..])
}

impl Cursor {
    /// Whether nothing is left between the bounds; the map would not take such a range.
    fn is_empty(&self) -> bool {
        match (borrowed(&self.lower), borrowed(&self.upper)) {
            (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
            (Bound::Included(lower), Bound::Included(upper)) => lower > upper,
            (Bound::Included(lower) | Bound::Excluded(lower), Bound::Included(upper) | Bound::Excluded(upper)) => {
                lower >= upper
            }
        }
    }

    fn seek(&mut self) {
        if self.is_empty() {
            return;
        }
        let left = self.table.rows.range::<[u8], _>((borrowed(&self.lower), borrowed(&self.upper)));
        let row = |(key, value): (&Bytes, &Bytes)| (key.clone(), value.clone());
        if self.reverse {
            self.ahead.extend(left.rev().take(self.batch).map(row));
        } else {
            self.ahead.extend(left.take(self.batch).map(row));
        }
        self.batch = (2 * self.batch).min(LARGEST_BATCH);
        let Some((last, _)) = self.ahead.back() else { return };
        let passed = Bound::Excluded(last.clone());
        if self.reverse {
            self.upper = passed;
        } else {
            self.lower = passed;
        }
    }
}

impl Iterator for Cursor {
    type Item = io::Result<KeyValue>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ahead.is_empty() {
            self.seek();
        }
        let (key, value) = self.ahead.pop_front()?;
        Some(Ok((key.to_vec(), value.to_vec())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(rows: u16) -> Table {
        let mut table = Table::default();
        for row in 0..rows {
            table.insert(&row.to_be_bytes(), b"value");
        }
        table
    }

    fn keys(cursor: Cursor) -> Vec<u16> {
        let key = |row: io::Result<KeyValue>| <[u8; 2]>::try_from(row.unwrap().0.as_slice()).unwrap();
        cursor.map(|row| u16::from_be_bytes(key(row))).collect()
    }

    #[test]
    fn a_cursor_sees_every_row_between_its_bounds_once_in_both_directions() {
        let table = table(1000);
        for (lower, upper) in [(0, 0), (0, 1), (3, 7), (3, 8), (0, 1000), (1, 999), (500, 2000), (7, 3)] {
            let (from, to) = (u16::to_be_bytes(lower), u16::to_be_bytes(upper));
            let scan = |reverse| keys(table.scan(Bound::Included(&from), Bound::Excluded(&to), reverse));
            let mut expected: Vec<u16> = (lower..upper.min(1000)).collect();
            assert_eq!(scan(false), expected);
            expected.reverse();
            assert_eq!(scan(true), expected);
        }
        assert_eq!(keys(table.scan(Bound::Unbounded, Bound::Unbounded, false)).len(), 1000);
    }

    #[test]
    fn a_cursor_does_not_see_what_comes_after_it() {
        let mut table = table(10);
        let cursor = table.scan(Bound::Unbounded, Bound::Unbounded, false);
        table.remove_range(&0_u16.to_be_bytes(), &9_u16.to_be_bytes());
        assert_eq!(keys(cursor).len(), 10);
        assert_eq!(table.keys().count(), 1);
    }

    #[test]
    fn the_bytes_are_those_of_the_rows() {
        let mut table = Table::default();
        table.insert(b"a", b"12345");
        table.insert(b"a", b"1");
        table.insert(b"bc", b"");
        assert_eq!(table.bytes(), 4);
        table.remove(b"missing");
        table.remove_range(b"a", b"b");
        assert_eq!(table.bytes(), 2);
        table.remove(b"bc");
        assert_eq!(table.bytes(), 0);
    }
}
