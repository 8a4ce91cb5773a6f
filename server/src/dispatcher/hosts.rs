//! Attempts waiting to be sent, by receiving host: a host that does not answer holds up its own queue and no other.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use campanile_model::{RunId, planted};

use super::Attempt;

pub(crate) struct Hosts {
    connections: usize,
    connections_per_host: usize,
    in_flight: usize,
    queued: usize,
    /// Whose attempts wait.
    runs: BTreeSet<RunId>,
    /// Attempts pushed so far.
    pushed: u64,
    hosts: BTreeMap<Arc<str>, Host>,
    /// Hosts that have both an attempt waiting and a place free, in the order they are served.
    ready: VecDeque<Arc<str>>,
    /// Those of them that have ended meanwhile: dropped when their turn comes.
    forgotten: BTreeSet<RunId>,
}

#[derive(Default)]
struct Host {
    /// By priority, then in the order they came.
    waiting: BTreeMap<(Reverse<i8>, u64), Attempt>,
    in_flight: usize,
    /// Stands in `ready`.
    listed: bool,
}

impl Hosts {
    pub fn new(connections: usize, connections_per_host: usize) -> Self {
        Self {
            connections,
            connections_per_host,
            in_flight: 0,
            queued: 0,
            runs: BTreeSet::new(),
            pushed: 0,
            hosts: BTreeMap::new(),
            ready: VecDeque::new(),
            forgotten: BTreeSet::new(),
        }
    }

    pub fn queued(&self) -> usize {
        self.queued
    }

    pub fn is_queued(&self, run: RunId) -> bool {
        self.runs.contains(&run)
    }

    /// Whether [`Hosts::pop`] has something to give.
    pub fn has_ready(&self) -> bool {
        self.in_flight < self.connections && !self.ready.is_empty()
    }

    pub fn push(&mut self, name: Arc<str>, attempt: Attempt) {
        self.forgotten.remove(&attempt.run.id);
        self.runs.insert(attempt.run.id);
        let host = self.hosts.entry(name.clone()).or_default();
        host.waiting.insert((Reverse(attempt.spec.priority), self.pushed), attempt);
        self.pushed += 1;
        self.queued += 1;
        if !host.listed && host.in_flight < self.connections_per_host {
            host.listed = true;
            self.ready.push_back(name);
        }
    }

    /// The next attempt, hosts taking turns. Its place is taken until [`Hosts::release`].
    pub fn pop(&mut self) -> Option<(Arc<str>, Attempt)> {
        while self.in_flight < self.connections {
            let name = self.ready.pop_front()?;
            let Some(host) = self.hosts.get_mut(&name) else { continue };
            host.listed = false;
            let attempt = loop {
                let Some((_, attempt)) = host.waiting.pop_first() else { break None };
                self.queued -= 1;
                self.runs.remove(&attempt.run.id);
                if !self.forgotten.remove(&attempt.run.id) {
                    break Some(attempt);
                }
            };
            let Some(attempt) = attempt else {
                if host.in_flight == 0 {
                    self.hosts.remove(&name);
                }
                continue;
            };
            host.in_flight += usize::from(!planted!(PlacesNotCounted));
            self.in_flight += 1;
            if !host.waiting.is_empty() && host.in_flight < self.connections_per_host {
                host.listed = true;
                self.ready.push_back(name.clone());
            }
            return Some((name, attempt));
        }
        None
    }

    /// Gives a place back.
    pub fn release(&mut self, name: &Arc<str>) {
        self.in_flight = self.in_flight.saturating_sub(1);
        let Some(host) = self.hosts.get_mut(name) else { return };
        host.in_flight = host.in_flight.saturating_sub(1);
        if !host.waiting.is_empty() && !host.listed {
            host.listed = true;
            self.ready.push_back(name.clone());
        } else if host.waiting.is_empty() && host.in_flight == 0 {
            self.hosts.remove(name);
        }
    }

    /// Drops a waiting attempt of this run, if there is one.
    pub fn forget(&mut self, run: RunId) {
        // Most runs that end were not waiting here.
        if self.runs.contains(&run) {
            self.forgotten.insert(run);
        }
    }

    /// Drops everything that waits. Attempts in flight keep their places.
    pub fn clear(&mut self) {
        self.hosts.retain(|_, host| {
            host.waiting.clear();
            host.listed = false;
            host.in_flight > 0
        });
        self.ready.clear();
        self.runs.clear();
        self.forgotten.clear();
        self.queued = 0;
    }
}

#[cfg(madsim)]
impl Hosts {
    /// What does not agree when all is counted anew: attempts that wait, places that are taken, and hosts that have more
    /// than they may, stand in `ready` and should not or the other way round, or are kept for nothing.
    pub fn miscounted(&self, in_flight: usize) -> usize {
        let waiting: usize = self.hosts.values().map(|host| host.waiting.len()).sum();
        let taken: usize = self.hosts.values().map(|host| host.in_flight).sum();
        let is_wrong = |name: &Arc<str>, host: &Host| {
            let listed = self.ready.iter().filter(|ready| *ready == name).count();
            let is_ready = !host.waiting.is_empty() && host.in_flight < self.connections_per_host;
            let is_needed = !host.waiting.is_empty() || host.in_flight > 0;
            let is_within = host.in_flight <= self.connections_per_host;
            listed != usize::from(is_ready) || host.listed != is_ready || !is_needed || !is_within
        };
        let wrong = self.hosts.iter().filter(|(name, host)| is_wrong(name, host)).count();
        let taken = taken.abs_diff(self.in_flight) + in_flight.abs_diff(self.in_flight);
        waiting.abs_diff(self.queued()) + taken + wrong + self.in_flight.saturating_sub(self.connections)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use campanile_model::{
        HttpTarget, LogPlace, NodeId, Origin, Run, RunState, Target, TaskId, TaskSpec, Timestamp, Token,
    };

    fn attempt(number: u64) -> Attempt {
        let place = LogPlace::new(number, 0);
        let target = HttpTarget {
            url: "http://a/".into(),
            method: Default::default(),
            headers: Default::default(),
            signing_secret: None,
        };
        Attempt {
            run: Run {
                id: RunId::at(place),
                task: TaskId(1),
                version: 1,
                scheduled_at: Timestamp::from_millis(0),
                origin: Origin::Schedule,
                due_at: Timestamp::from_millis(0),
                fired_at: Timestamp::from_millis(0),
                state: RunState::Running,
                attempt: 1,
                token: Token::at(place),
                owner: NodeId(1),
                epoch: 1,
                retry_at: None,
                finished_at: None,
                attempts: Vec::new(),
            },
            spec: Arc::new(TaskSpec::new(Vec::new(), Target::Http(target))),
            task_name: "t".into(),
        }
    }

    fn run(number: u64) -> RunId {
        RunId::at(LogPlace::new(number, 0))
    }

    fn popped(hosts: &mut Hosts) -> Vec<(String, RunId)> {
        std::iter::from_fn(|| hosts.pop().map(|(host, attempt)| (host.to_string(), attempt.run.id))).collect()
    }

    #[test]
    fn a_busy_host_holds_up_only_itself() {
        let mut hosts = Hosts::new(10, 2);
        for number in 1..=4 {
            hosts.push("slow".into(), attempt(number));
        }
        hosts.push("quick".into(), attempt(5));
        let sent = popped(&mut hosts);
        assert_eq!(sent, [("slow".into(), run(1)), ("quick".into(), run(5)), ("slow".into(), run(2))]);
        assert!(!hosts.has_ready());
        hosts.release(&"slow".into());
        assert_eq!(popped(&mut hosts), [("slow".into(), run(3))]);
        #[cfg(madsim)]
        assert_eq!((hosts.miscounted(3), hosts.miscounted(2)), (0, 1));
        assert_eq!(hosts.queued(), 1);
    }

    #[test]
    fn what_is_more_urgent_goes_first() {
        let mut hosts = Hosts::new(1, 1);
        for (number, priority) in [(1, 0), (2, -5), (3, 7), (4, 7)] {
            let mut attempt = attempt(number);
            Arc::make_mut(&mut attempt.spec).priority = priority;
            hosts.push("h".into(), attempt);
        }
        let order = (0..4).map(|_| {
            let sent = popped(&mut hosts);
            hosts.release(&"h".into());
            sent[0].1
        });
        assert_eq!(order.collect::<Vec<_>>(), [run(3), run(4), run(1), run(2)]);
    }

    #[test]
    fn all_hosts_together_stay_within_the_bound() {
        let mut hosts = Hosts::new(3, 2);
        for number in 0..6 {
            hosts.push(format!("h{number}").into(), attempt(number + 1));
        }
        assert_eq!(popped(&mut hosts).len(), 3);
        hosts.release(&"h0".into());
        assert_eq!(popped(&mut hosts).len(), 1);
    }

    #[test]
    fn what_ended_while_it_waited_is_not_sent() {
        let mut hosts = Hosts::new(1, 1);
        for number in 1..=3 {
            hosts.push("h".into(), attempt(number));
        }
        assert_eq!(popped(&mut hosts), [("h".into(), run(1))]);
        hosts.forget(run(1));
        assert!(hosts.forgotten.is_empty(), "it is on its way, and is remembered nowhere");
        hosts.forget(run(2));
        hosts.release(&"h".into());
        assert_eq!(popped(&mut hosts), [("h".into(), run(3))]);
        hosts.release(&"h".into());
        assert_eq!((hosts.queued(), hosts.hosts.len(), hosts.runs.len(), hosts.forgotten.len()), (0, 0, 0, 0));
    }

    #[test]
    fn clearing_keeps_the_places_of_what_is_in_flight() {
        let mut hosts = Hosts::new(1, 1);
        hosts.push("h".into(), attempt(1));
        hosts.push("h".into(), attempt(2));
        assert_eq!(popped(&mut hosts).len(), 1);
        hosts.clear();
        hosts.push("h".into(), attempt(3));
        assert!(popped(&mut hosts).is_empty());
        hosts.release(&"h".into());
        assert_eq!(popped(&mut hosts), [("h".into(), run(3))]);
    }
}
