//! The log's tail in memory, and its bounds.
//!
//! Holds every entry that is not written yet, and as many of the newest written ones as fit into a budget. Never
//! evicts what is not yet readable from disk.

use std::collections::VecDeque;

use campanile_model::sometimes;

use crate::form::record_bytes;
use crate::types::{Entry, LogId, Vote};

pub struct Cache {
    budget_bytes: usize,
    bytes: usize,
    /// The newest entries, without a gap, ending at `last`; each with the sequence number of its append.
    tail: VecDeque<(u64, Entry)>,
    next_sequence: u64,
    /// Appends up to this sequence number are on disk.
    written: u64,
    /// Index of the first entry of the log, if there is one.
    begin: u64,
    /// Greatest id removed from the front.
    pub purged: Option<LogId>,
    /// Greatest id in the log, or `purged` if it is empty.
    pub last: Option<LogId>,
    pub vote: Option<Vote>,
    pub committed: Option<LogId>,
}

impl Cache {
    pub fn new(
        budget_bytes: usize,
        begin: u64,
        purged: Option<LogId>,
        last: Option<LogId>,
        vote: Option<Vote>,
        committed: Option<LogId>,
    ) -> Self {
        Self {
            budget_bytes,
            bytes: 0,
            tail: VecDeque::new(),
            next_sequence: 1,
            written: 0,
            begin,
            purged,
            last,
            vote,
            committed,
        }
    }

    /// Index of the first entry of the log.
    pub fn first(&self) -> u64 {
        self.begin
    }

    /// Index that the next entry will get.
    pub fn next(&self) -> u64 {
        self.last.map_or(0, |last| last.index + 1)
    }

    /// Entries from this index on are in memory.
    pub fn cached_from(&self) -> u64 {
        self.tail.front().map_or(self.next(), |(_, entry)| entry.log_id.index)
    }

    /// Cached entries of `[start, end)`, at most about `max_bytes` but at least one. `start` is cached.
    pub fn range(&self, start: u64, end: u64, max_bytes: usize) -> Vec<Entry> {
        let skip = (start - self.cached_from()) as usize;
        let mut bytes = 0;
        let mut entries = Vec::new();
        for (_, entry) in self.tail.iter().skip(skip).take((end - start) as usize) {
            bytes += record_bytes(entry);
            if bytes > max_bytes && !entries.is_empty() {
                break;
            }
            entries.push(entry.clone());
        }
        entries
    }

    /// Adds entries at the end and returns the sequence number of the append.
    pub fn append(&mut self, entries: &[Entry]) -> u64 {
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        // An empty log may begin anywhere.
        if let Some(first) = entries.first().filter(|_| self.last == self.purged) {
            self.begin = first.log_id.index;
        }
        for entry in entries {
            assert!(self.last.is_none() || entry.log_id.index == self.next(), "append leaves a hole in the log");
            self.last = Some(entry.log_id);
            self.bytes += record_bytes(entry);
            self.tail.push_back((sequence, entry.clone()));
        }
        sequence
    }

    /// Notes that appends up to `sequence` are on disk.
    pub fn set_written(&mut self, sequence: u64) {
        self.written = self.written.max(sequence);
        self.evict(self.budget_bytes);
    }

    /// Keeps nothing that can be read from disk.
    pub fn forget_written(&mut self) {
        self.evict(0);
        self.tail.shrink_to_fit();
    }

    fn evict(&mut self, budget_bytes: usize) {
        while self.bytes > budget_bytes && self.tail.front().is_some_and(|(at, _)| *at <= self.written) {
            sometimes!(LogCacheEvicted);
            self.drop_front();
        }
    }

    pub fn truncate_after(&mut self, last: Option<LogId>) {
        let end = last.map_or(0, |last| last.index + 1);
        while self.tail.back().is_some_and(|(_, entry)| entry.log_id.index >= end) {
            if let Some((_, entry)) = self.tail.pop_back() {
                self.bytes -= record_bytes(&entry);
            }
        }
        if self.next() > end {
            self.last = last.max(self.purged);
        }
    }

    pub fn purge(&mut self, upto: LogId) {
        while self.tail.front().is_some_and(|(_, entry)| entry.log_id.index <= upto.index) {
            self.drop_front();
        }
        self.purged = self.purged.max(Some(upto));
        self.begin = self.begin.max(upto.index + 1);
        self.last = self.last.max(self.purged);
        sometimes!(LogPurgedWhole, self.last == self.purged);
    }

    fn drop_front(&mut self) {
        if let Some((_, entry)) = self.tail.pop_front() {
            self.bytes -= record_bytes(&entry);
        }
    }

    #[cfg(test)]
    pub fn cached(&self) -> (usize, usize) {
        (self.tail.len(), self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::log_id;
    use openraft::EntryPayload;

    fn blanks(term: u64, from: u64, to: u64) -> Vec<Entry> {
        (from..to).map(|index| Entry { log_id: log_id(term, index), payload: EntryPayload::Blank }).collect()
    }

    fn cache() -> Cache {
        Cache::new(2 * record_bytes(&blanks(1, 0, 1)[0]), 0, None, None, None, None)
    }

    #[test]
    fn evicts_only_what_is_written() {
        let mut cache = cache();
        let first = cache.append(&blanks(1, 0, 5));
        cache.append(&blanks(1, 5, 8));
        assert_eq!(cache.cached().0, 8);
        cache.set_written(first);
        assert_eq!(cache.cached_from(), 5, "the second append is not written and stays");
    }

    #[test]
    fn forgets_all_that_is_written_and_nothing_else() {
        let mut cache = cache();
        let first = cache.append(&blanks(1, 0, 2));
        cache.set_written(first);
        assert_eq!(cache.cached().0, 2);
        cache.append(&blanks(1, 2, 4));
        cache.forget_written();
        assert_eq!((cache.cached_from(), cache.cached().0, cache.next()), (2, 2, 4));
    }

    #[test]
    fn a_late_write_does_not_evict_entries_that_replaced_it() {
        let mut cache = cache();
        let old = cache.append(&blanks(1, 0, 6));
        cache.truncate_after(Some(log_id(1, 1)));
        cache.append(&blanks(2, 2, 8));
        cache.set_written(old);
        assert_eq!(cache.cached_from(), 2, "entries 2.. of term 2 are not written yet");
        assert_eq!(cache.range(2, 3, 1)[0].log_id, log_id(2, 2));
    }

    #[test]
    fn a_purge_beyond_the_end_moves_the_end() {
        let mut cache = cache();
        cache.append(&blanks(1, 0, 3));
        cache.purge(log_id(2, 9));
        assert_eq!((cache.first(), cache.next(), cache.cached().1), (10, 10, 0));
    }
}
