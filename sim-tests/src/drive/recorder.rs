//! Writes the history down, with true times.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use crate::history::{Event, Message, Timed};

/// The history so far. Clones share it.
#[derive(Clone)]
pub struct Recorder {
    start: Instant,
    events: Arc<Mutex<Vec<Timed>>>,
    messages: Arc<Mutex<Vec<Message>>>,
}

impl Recorder {
    /// Time has begun at `start`.
    pub fn since(start: Instant) -> Self {
        Self { start, events: Arc::default(), messages: Arc::default() }
    }

    /// Microseconds since the start.
    pub fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    pub fn record(&self, event: Event) {
        // Under the lock, so that what is written later is not older.
        let mut events = self.events();
        let t = self.now();
        events.push(Timed { t, event });
    }

    /// Messages are only for pictures: they are kept apart.
    pub fn record_message(&self, message: Message) {
        self.messages.lock().unwrap_or_else(PoisonError::into_inner).push(message);
    }

    pub fn take_messages(&self) -> Vec<Message> {
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
