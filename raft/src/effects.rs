//! Hands the effects of applied entries to whoever wants to act on them.
//!
//! Applying never waits for a subscriber. One that falls behind misses effects, is told so once, and reads the tables
//! instead.

use campanile_model::{planted, sometimes};
use std::sync::{Arc, Mutex};

use campanile_store::Effects;
use tokio::sync::mpsc;

use crate::metrics::Metrics;

/// What a subscriber receives.
#[derive(Clone, Debug)]
pub enum Delivery {
    /// What one batch of entries would have somebody do.
    Effects(Arc<Effects>),
    /// Some effects before the next ones were missed: read the tables.
    Lagged,
}

/// A subscription. Dropping it ends it.
#[derive(Debug)]
pub struct EffectStream {
    receiver: mpsc::Receiver<Delivery>,
}

impl EffectStream {
    /// The next delivery, in log order; `None` when the replica has stopped.
    pub async fn next(&mut self) -> Option<Delivery> {
        self.receiver.recv().await
    }

    /// The next delivery if it is there already.
    pub fn try_next(&mut self) -> Option<Delivery> {
        self.receiver.try_recv().ok()
    }
}

struct Subscriber {
    name: &'static str,
    sender: mpsc::Sender<Delivery>,
    lagged: bool,
}

impl Subscriber {
    /// False when nobody listens any more.
    fn deliver(&mut self, delivery: &Delivery, metrics: &Metrics) -> bool {
        if self.sender.is_closed() {
            return false;
        }
        if self.lagged && self.sender.try_send(Delivery::Lagged).is_ok() {
            self.lagged = false;
        }
        if self.lagged || self.sender.try_send(delivery.clone()).is_err() {
            if !self.lagged {
                sometimes!(EffectsLagged);
                tracing::warn!(subscriber = self.name, "effects missed; it will read the tables");
            }
            self.lagged = true;
            metrics.effects_lagged.add(1);
        }
        true
    }
}

/// Where effects are published. Clones share the subscribers.
#[derive(Clone, Default)]
pub struct Publisher {
    subscribers: Arc<Mutex<Vec<Subscriber>>>,
    metrics: Arc<Metrics>,
}

impl Publisher {
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self { subscribers: Arc::default(), metrics }
    }

    /// Effects from now on, at most `capacity` batches of them waiting.
    pub fn subscribe(&self, name: &'static str, capacity: usize) -> EffectStream {
        let (sender, receiver) = mpsc::channel(capacity.max(1));
        self.lock().push(Subscriber { name, sender, lagged: false });
        EffectStream { receiver }
    }

    pub fn publish(&self, effects: Effects) {
        let delivery = Delivery::Effects(Arc::new(effects));
        self.lock().retain_mut(|subscriber| subscriber.deliver(&delivery, &self.metrics));
    }

    /// The state was replaced as a whole: everybody has missed something.
    pub fn publish_gap(&self) {
        sometimes!(SnapshotInstalled);
        if planted!(GapNotTold) {
            return;
        }
        self.lock().retain_mut(|subscriber| {
            subscriber.lagged = true;
            subscriber.sender.try_send(Delivery::Lagged).map(|()| subscriber.lagged = false).ok();
            !subscriber.sender.is_closed()
        });
    }

    /// Ends every subscription.
    pub fn close(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Subscriber>> {
        self.subscribers.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use campanile_model::Timestamp;

    fn effects(index: u64) -> Effects {
        Effects { index, time: Timestamp::from_millis(0), list: Vec::new() }
    }

    fn seen(stream: &mut EffectStream) -> Vec<u64> {
        std::iter::from_fn(|| stream.try_next())
            .map(|delivery| match delivery {
                Delivery::Effects(effects) => effects.index,
                Delivery::Lagged => 0,
            })
            .collect()
    }

    #[test]
    fn a_slow_subscriber_is_told_once_and_goes_on() {
        let publisher = Publisher::default();
        let mut slow = publisher.subscribe("slow", 2);
        let mut fast = publisher.subscribe("fast", 100);
        (1..=5).for_each(|index| publisher.publish(effects(index)));
        assert_eq!(seen(&mut slow), [1, 2]);
        (6..=7).for_each(|index| publisher.publish(effects(index)));
        assert_eq!(seen(&mut slow), [0, 6], "told of the gap, then on; 7 did not fit");
        publisher.publish(effects(8));
        assert_eq!(seen(&mut slow), [0, 8]);
        assert_eq!(seen(&mut fast), [1, 2, 3, 4, 5, 6, 7, 8]);
    }

    #[test]
    fn a_replaced_state_is_a_gap_for_everybody() {
        let publisher = Publisher::default();
        let mut stream = publisher.subscribe("any", 4);
        publisher.publish(effects(1));
        publisher.publish_gap();
        publisher.publish(effects(9));
        assert_eq!(seen(&mut stream), [1, 0, 9]);
    }
}
