//! Writes the history down, with true times.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;
use xxhash_rust::xxh3::Xxh3;

use crate::history::{Event, Timed};

/// The history so far. Clones share it.
#[derive(Clone)]
pub struct Recorder {
    start: Instant,
    events: Arc<Mutex<Vec<Timed>>>,
    messages: Arc<Mutex<Vec<Timed>>>,
}

impl Recorder {
    /// Time begins now.
    pub fn new() -> Self {
        Self { start: Instant::now(), events: Arc::default(), messages: Arc::default() }
    }

    /// Microseconds since the start.
    pub fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    pub fn record(&self, event: Event) {
        let t = self.now();
        self.events().push(Timed { t, event });
    }

    /// Messages are many, and only for pictures: they are kept apart.
    pub fn record_message(&self, message: Event) {
        let t = self.now();
        self.messages.lock().unwrap_or_else(PoisonError::into_inner).push(Timed { t, event: message });
    }

    pub fn take_messages(&self) -> Vec<Timed> {
        std::mem::take(&mut *self.messages.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The events so far; the recorder is empty afterwards.
    pub fn take(&self) -> Vec<Timed> {
        std::mem::take(&mut *self.events())
    }

    fn events(&self) -> MutexGuard<'_, Vec<Timed>> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One number for everything that happened, to the microsecond.
pub fn trace_hash(events: &[Timed], messages: u64) -> u64 {
    let mut hasher = Xxh3::new();
    for event in events {
        // Every event is plain data: it always has a JSON form.
        hasher.update(&serde_json::to_vec(event).unwrap_or_default());
    }
    hasher.update(&messages.to_be_bytes());
    hasher.digest()
}
