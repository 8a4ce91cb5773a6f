//! How long a request may have been on its way to the receiver: what the network takes when nothing is wrong, and what
//! the faults in force add, each by its own size.

use std::collections::BTreeMap;

use campanile_model::NodeId;

use super::spans::Span;
use crate::history::{Event, History, NodeEvent};
use crate::plan::Fault;

/// Messages until a request has arrived: to connect, the answer to that, and the request.
const MESSAGES: u64 = 3;
/// One takes up to 4 ms between machines; and a little to be written and read.
const USUAL: u64 = MESSAGES * 4_000 + 1_000;
/// A lost message is sent again after 1 ms, and each time after twice as long, up to this.
const LONGEST_PAUSE: u64 = 10_000_000;
/// So many messages of a million are lost more often than is allowed for.
const UNLUCKY_PER_MILLION: f64 = 1.0;

/// What may hold up a request.
pub struct Transit {
    /// When slow or lossy networks were in force, and what they add.
    slow: Vec<(Span, u64)>,
    /// When a process stood still: what it was about to send, it sends when it goes on.
    pauses: BTreeMap<NodeId, Vec<Span>>,
    /// When monotonic clocks may have been off, and by how many of a million.
    drifts: Vec<(Span, u64)>,
}

impl Transit {
    pub fn new(history: &History) -> Self {
        let mut transit = Self { slow: Vec::new(), pauses: BTreeMap::new(), drifts: Vec::new() };
        let mut faults = BTreeMap::new();
        let mut paused = BTreeMap::new();
        let end = history.end();
        for timed in &history.events {
            let t = timed.t;
            match &timed.event {
                Event::FaultBegins { id, planned, .. } => {
                    faults.insert(*id, (t, &planned.fault));
                }
                Event::FaultEnds { id } => {
                    if let Some((from, fault)) = faults.remove(id) {
                        transit.fault(fault, Span { from, to: t });
                    }
                }
                Event::Node { node, what: NodeEvent::Paused } => {
                    paused.entry(*node).or_insert(t);
                }
                Event::Node { node, what: NodeEvent::Resumed | NodeEvent::Started } => {
                    if let Some(from) = paused.remove(node) {
                        transit.pauses.entry(*node).or_default().push(Span { from, to: t });
                    }
                }
                _ => {}
            }
        }
        for (from, fault) in faults.into_values() {
            transit.fault(fault, Span { from, to: end });
        }
        for (node, from) in paused {
            transit.pauses.entry(node).or_default().push(Span { from, to: end });
        }
        transit
    }

    fn fault(&mut self, fault: &Fault, span: Span) {
        match fault {
            Fault::Delay { max, .. } => self.slow.push((span, MESSAGES * max.0 * 1000)),
            Fault::Loss { per_mille } => self.slow.push((span, MESSAGES * resent_for(*per_mille))),
            Fault::ClockDrift { ppm, .. } => self.drifts.push((span, u64::from(ppm.unsigned_abs()))),
            _ => {}
        }
    }

    /// The earliest that a request may have been begun by a node which arrived at `t`.
    pub fn begun(&self, node: NodeId, t: u64) -> u64 {
        // What a fault adds counts if it was in force while the request was on its way.
        let adds = |(span, adds): &(Span, u64)| {
            let from = t.saturating_sub(USUAL + adds);
            if span.from <= t && span.to >= from { *adds } else { 0 }
        };
        let begun = t.saturating_sub(USUAL + self.slow.iter().map(adds).sum::<u64>());
        let stood_still =
            self.pauses.get(&node).into_iter().flatten().filter(|span| span.from <= t && span.to >= begun);
        stood_still.map(|span| span.from.saturating_sub(USUAL)).min().map_or(begun, |before| begun.min(before))
    }

    /// How much longer than `span` a clock may take for it that runs for it at some time from `from` to `to`.
    pub fn stretch(&self, span: u64, from: u64, to: u64) -> u64 {
        let touches = |at: &&(Span, u64)| at.0.from <= to && at.0.to >= from;
        let ppm = self.drifts.iter().filter(touches).map(|(_, ppm)| *ppm).max().unwrap_or(0).min(500_000);
        span * ppm / (1_000_000 - ppm)
    }
}

/// How long a message is sent again and again until all but a few have arrived.
fn resent_for(per_mille: u32) -> u64 {
    let lost = f64::from(per_mille.min(999)) / 1000.0;
    let (mut share, mut pause, mut sum) = (1_000_000.0 * lost, 1000, 0);
    while share > UNLUCKY_PER_MILLION {
        sum += pause;
        pause = (pause * 2).min(LONGEST_PAUSE);
        share *= lost;
    }
    sum
}

#[cfg(test)]
mod tests {
    use campanile_model::Millis;

    use super::super::testing::*;
    use super::*;
    use crate::plan::{RoleOf, Who};

    #[test]
    fn a_request_is_on_its_way_for_as_long_as_the_faults_say() {
        let history = Script::new()
            .at(1000)
            .begin(0, Fault::Delay { min: Millis(1), max: Millis(200) })
            .at(2000)
            .end(0)
            .at(3000)
            .node(1, NodeEvent::Paused)
            .at(4000)
            .node(1, NodeEvent::Resumed)
            .at(9000)
            .healed()
            .done();
        let transit = Transit::new(&history);
        let begun = |node, ms: u64| transit.begun(NodeId(node), ms * 1000) / 1000;
        assert_eq!([begun(1, 900), begun(1, 1500), begun(1, 2613), begun(1, 2614)], [887, 887, 2000, 2601]);
        assert_eq!([begun(1, 3500), begun(1, 4013), begun(1, 4014), begun(2, 4013)], [2987, 2987, 4001, 4000]);
    }

    #[test]
    fn what_is_lost_is_sent_again() {
        assert_eq!([0, 1, 10, 100].map(resent_for), [0, 1000, 3000, 31_000]);
        assert!((1_000_000..10_000_000).contains(&resent_for(300)));
    }

    #[test]
    fn a_slow_clock_takes_longer() {
        let drift = Fault::ClockDrift { node: Who::Role(RoleOf::Any), ppm: -20_000 };
        let transit = Transit::new(&Script::new().at(10).begin(0, drift).at(20).end(0).done());
        assert_eq!(transit.stretch(1_500_000, 0, 9_000), 0);
        assert_eq!(transit.stretch(1_500_000, 0, 10_000), 30_612);
    }
}
