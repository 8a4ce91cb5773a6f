//! Where the wheel's timers live: one vector of entries, threaded by index into lists and a free list.
//!
//! Duties: hand out entries in O(1), check a key's generation, link and unlink. It knows nothing of levels or time.

/// No entry.
const NIL: u32 = u32::MAX;

/// A handle to one timer. It stays valid until that timer fires or is cancelled, and never names another one
/// afterwards (short of 2^32 insertions in between).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    index: u32,
    generation: u32,
}

/// The ends of a doubly linked list of entries, in insertion order.
#[derive(Clone, Copy, Debug)]
pub(super) struct List {
    head: u32,
    tail: u32,
}

impl List {
    pub const EMPTY: Self = Self { head: NIL, tail: NIL };

    pub fn is_empty(self) -> bool {
        self.head == NIL
    }

    /// The first entry, if any.
    pub fn first(self) -> Option<u32> {
        (self.head != NIL).then_some(self.head)
    }
}

/// 24 bytes beside the value.
struct Entry<T> {
    deadline: u64,
    next: u32,
    prev: u32,
    generation: u32,
    /// Which list holds the entry; the wheel's own code.
    place: u16,
    /// `None` while the entry is free.
    value: Option<T>,
}

pub(super) struct Slab<T> {
    entries: Vec<Entry<T>>,
    /// Head of the free list, linked by `next`.
    free: u32,
    len: usize,
    /// Counts insertions, so that keys from before a `clear` are stale too.
    generation: u32,
}

impl<T> Slab<T> {
    pub fn new() -> Self {
        Self { entries: Vec::new(), free: NIL, len: 0, generation: 0 }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    /// Drops every value and gives the memory back.
    pub fn clear(&mut self) {
        self.entries = Vec::new();
        self.free = NIL;
        self.len = 0;
    }

    /// Stores an entry that is in no list yet.
    pub fn insert(&mut self, deadline: u64, value: T) -> Key {
        self.generation = self.generation.wrapping_add(1);
        let entry = Entry { deadline, next: NIL, prev: NIL, generation: self.generation, place: 0, value: Some(value) };
        let index = if self.free == NIL {
            let index = u32::try_from(self.entries.len()).ok().filter(|&index| index != NIL);
            self.entries.push(entry);
            index.expect("a wheel holds fewer than 2^32 - 1 timers")
        } else {
            let index = self.free;
            self.free = self.entries[index as usize].next;
            self.entries[index as usize] = entry;
            index
        };
        self.len += 1;
        Key { index, generation: self.generation }
    }

    /// The entry a key names, if it still lives.
    pub fn find(&self, key: Key) -> Option<u32> {
        let entry = self.entries.get(key.index as usize)?;
        (entry.value.is_some() && entry.generation == key.generation).then_some(key.index)
    }

    /// Takes a live, unlinked entry out and frees its place.
    pub fn remove(&mut self, index: u32) -> (u64, T) {
        let free = self.free;
        let entry = self.entry(index);
        let value = entry.value.take().expect("only live entries are in lists");
        let deadline = entry.deadline;
        entry.next = free;
        self.free = index;
        self.len -= 1;
        (deadline, value)
    }

    pub fn deadline(&self, index: u32) -> u64 {
        self.entries[index as usize].deadline
    }

    pub fn place(&self, index: u32) -> u16 {
        self.entries[index as usize].place
    }

    /// Appends an unlinked entry to a list that `place` names.
    pub fn push_back(&mut self, list: &mut List, index: u32, place: u16) {
        let entry = self.entry(index);
        entry.place = place;
        entry.prev = list.tail;
        entry.next = NIL;
        if list.tail == NIL {
            list.head = index;
        } else {
            self.entry(list.tail).next = index;
        }
        list.tail = index;
    }

    /// Takes an entry out of the list that holds it.
    pub fn unlink(&mut self, list: &mut List, index: u32) {
        let Entry { prev, next, .. } = *self.entry(index);
        match prev {
            NIL => list.head = next,
            prev => self.entry(prev).next = next,
        }
        match next {
            NIL => list.tail = prev,
            next => self.entry(next).prev = prev,
        }
    }

    fn entry(&mut self, index: u32) -> &mut Entry<T> {
        &mut self.entries[index as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_costs_at_most_32_bytes_beside_its_value() {
        for (entry, value) in
            [(size_of::<Entry<u64>>(), size_of::<u64>()), (size_of::<Entry<[u64; 4]>>(), size_of::<[u64; 4]>())]
        {
            assert!(entry <= value + 32, "{entry} bytes for a value of {value}");
        }
    }

    #[test]
    fn a_key_dies_with_its_entry() {
        let mut slab = Slab::new();
        let first = slab.insert(1, 'a');
        let index = slab.find(first).unwrap();
        assert_eq!(slab.remove(index), (1, 'a'));
        assert_eq!(slab.find(first), None);
        let second = slab.insert(2, 'b');
        assert_eq!((slab.find(first), slab.find(second)), (None, Some(index)));
        slab.clear();
        let third = slab.insert(3, 'c');
        assert_eq!((slab.find(second), slab.find(third)), (None, Some(index)));
    }
}
