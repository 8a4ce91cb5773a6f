//! Beats: every node tells the leader that it is there, and learns how long it may go on delivering.
//!
//! 1. A node sends a beat with its incarnation; the leader notes when it heard it, on its own monotonic clock.
//! 2. The leader answers with its wall clock and, if the tables say that this incarnation is up, with a grant. A grant
//!    never outlives the lease counted from the last moment at which a quorum confirmed the leader: so a leader cut off
//!    from its quorum lets every lease run out before the next leader may count a node as lost. It counts only once its
//!    receiver knows the tables in which the leader saw it up: so a node that was fenced knows of its fence before it
//!    delivers again.
//! 3. The leader's own lease is its leadership: it ends before any other node may be elected, with the leader's word
//!    that another one shall be, and with its proposal to take itself out of the voters: a voter that is the only one
//!    left elects itself at once. A leader that is the only voter is its own quorum, and confirmed at any time.
//! 4. A leader that is not heard to be there by a quorum of the voters for some time has no business leading: others may
//!    hear it, so that nobody else stands, while nothing that they say arrives. It gives up its term, and while others
//!    cannot reach it they do not vote for it either ([`crate::network::server`]).
//! 5. A node that is about to stop says so in its beats, and the leader gives its shards to others.
//! 6. From the answer the node measures how far its wall clock is from the leader's (half a round trip, as NTP does)
//!    and says so in its next beat. From these the leader judges its own clock: further than allowed from the median of
//!    the voters it hears, itself included, it stops stamping and hands over. How old a measurement is the leader sees
//!    from its own monotonic clock, whose time its answers carry and beats repeat. What a node measured as a follower
//!    counts until it has been judged as a leader.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use campanile_model::{NodeId, filled, granted, planted, sometimes};
use openraft::async_runtime::WatchReceiver;
use openraft::errors::Fatal;
use tokio::sync::watch;

use crate::clock::Clock;
use crate::config::Timing;
use crate::leadership::{Leadership, address_of};
use crate::network::client::{Peers, Traffic};
use crate::network::wire::{self, BeatAnswer, BeatMessage, Measured};
use crate::stamping::Stamping;
use crate::state_machine::{Position, Raft};
use crate::types::TypeConfig;

/// A leader that has not answered for this many beats is not reachable.
const REACHABLE_BEATS: u32 = 5;
/// A lease is used up to this long before its end, so that what starts under it has left before it ends.
const LEASE_MARGIN: Duration = Duration::from_millis(100);
/// What the leader allows beyond a lease before it counts its holder as lost.
const LOST_MARGIN: Duration = Duration::from_millis(300);
/// Grants that wait for this node to catch up.
const PENDING_GRANTS: usize = 16;
/// A leader whose clock has jumped distrusts it for so many beats.
pub const REMEASURE_BEATS: u32 = 6;
/// A measurement counts for so many beats after the answer it was made by. That is enough for it to be told, and for the
/// next one to be told over round trips of a beat; and a judgement, which is made every beat, never outlasts
/// [`REMEASURE_BEATS`]: what counts after them was measured within them.
const MEASURED_BEATS: u32 = 4;
/// A leader that has not heard a quorum of the voters for so many beats gives up its term.
const UNHEARD_BEATS: u32 = 10;
/// Between two attempts of a leader to hand over because of its clock.
const HAND_OVER_EVERY: Duration = Duration::from_secs(10);

/// What the leader knows of another node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard {
    /// When its last beat arrived, on the leader's monotonic clock; if none has, when the leader became leader or saw it
    /// become a member.
    pub at: Instant,
    /// Zero until its first beat.
    pub incarnation: u64,
    /// Number of that beat.
    pub number: u64,
    /// How far its wall clock is ahead of the leader's, in microseconds.
    pub ahead_us: Option<i64>,
    /// When the leader gave the answer by which that was measured.
    pub measured_at: Instant,
    /// False once it has been removed: it gets no lease any more, and may still have one.
    pub is_member: bool,
    /// It is about to stop, and delivers only what it has been given already.
    pub drains: bool,
}

impl Heard {
    /// How far its wall clock is ahead, if that was measured so lately, however late it was told.
    fn measured_within(&self, span: Duration, now: Instant) -> Option<i64> {
        self.ahead_us.filter(|_| now.saturating_duration_since(self.measured_at) <= span)
    }
}

#[derive(Default)]
struct State {
    /// The term the table belongs to.
    term: u64,
    leading_since: Option<Instant>,
    heard: BTreeMap<NodeId, Heard>,
    /// Nodes that get leases from this leader, with the incarnation that does.
    holders: BTreeMap<NodeId, u64>,
    /// Index of the tables that say so.
    holders_at: u64,
    lease_until: Option<Instant>,
    /// The leader that answered last, and when.
    answered: Option<(NodeId, Instant)>,
    /// Grants, and the index of the tables that this node must know before each counts; oldest first.
    pending: VecDeque<(u64, Instant)>,
    /// This node's clock against its leader's.
    measured: Option<Measured>,
    handed_over: Option<Instant>,
    /// The term that this leader has given up, as nobody was heard.
    given_up: Option<u64>,
    /// The term in which this node has handed leadership over.
    resigned: Option<u64>,
}

/// Beats, sent and received. Clones share them.
#[derive(Clone)]
pub struct Beats {
    inner: Arc<Inner>,
}

struct Inner {
    node: NodeId,
    incarnation: u64,
    raft: Raft,
    peers: Peers,
    leadership: watch::Receiver<Leadership>,
    position: watch::Receiver<Position>,
    clock: Clock,
    timing: Timing,
    max_skew_us: i64,
    stamping: Stamping,
    state: Mutex<State>,
    drains: watch::Sender<bool>,
    beats_sent: AtomicU64,
    /// From where `answered_us` is counted.
    origin: Instant,
}

/// What beats are made of.
pub struct Parts {
    pub node: NodeId,
    pub incarnation: u64,
    pub raft: Raft,
    pub peers: Peers,
    pub leadership: watch::Receiver<Leadership>,
    pub position: watch::Receiver<Position>,
    pub clock: Clock,
    pub timing: Timing,
    pub max_clock_skew: Duration,
    pub stamping: Stamping,
}

impl Beats {
    pub fn new(parts: Parts) -> Self {
        let inner = Inner {
            origin: parts.clock.instant(),
            node: parts.node,
            incarnation: parts.incarnation,
            raft: parts.raft,
            peers: parts.peers,
            leadership: parts.leadership,
            position: parts.position,
            clock: parts.clock,
            timing: parts.timing,
            max_skew_us: i64::try_from(parts.max_clock_skew.as_micros()).unwrap_or(i64::MAX),
            stamping: parts.stamping,
            state: Mutex::default(),
            drains: watch::Sender::new(false),
            beats_sent: AtomicU64::new(0),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Drawn anew each time the process starts.
    pub fn incarnation(&self) -> u64 {
        self.inner.incarnation
    }

    /// The leader hears at once, and from now on, that this node is about to stop.
    pub fn drain(&self) {
        self.inner.drains.send_replace(!planted!(DrainNotTold));
    }

    /// Leader: another node is to lead. This one delivers nothing as the leader from here on, whatever becomes of it:
    /// nothing it proposed would be taken either.
    pub async fn hand_over(&self, to: NodeId) -> Result<(), Fatal<TypeConfig>> {
        self.inner.hand_over(to).await
    }

    /// Whether this node is about to stop.
    pub fn drains(&self) -> bool {
        *self.inner.drains.borrow()
    }

    /// Whether this node may start a delivery now: it holds a lease, or leads and is itself up, and whoever delivers
    /// knows the tables that say so, having followed the log up to the index `known`.
    pub fn may_deliver(&self, known: u64) -> bool {
        if planted!(DeliversWithoutLease) {
            return true;
        }
        let inner = &self.inner;
        let now = inner.clock.instant();
        let leadership = *inner.leadership.borrow();
        if leadership.is_leader {
            // No voter listens to a candidate before `election_max` has passed since it last heard its leader.
            let state = inner.state();
            let holds = state.holders.get(&inner.node) == Some(&inner.incarnation);
            let is_up = state.term == leadership.term && holds && state.holders_at <= known;
            let resigned = state.resigned == Some(leadership.term);
            drop(state);
            // Whom it has named is elected without waiting for that, and so is a voter that is to be the only one.
            let gone = resigned || inner.is_taken_out();
            let until = if gone { now } else { inner.confirmed_until(inner.timing.election_max, now) };
            if !is_up {
                return false;
            }
            granted!(
                node: inner.node,
                incarnation: inner.incarnation,
                term: leadership.term,
                lasts: until.saturating_duration_since(now),
            );
            return may_start(now, until);
        }
        let mut state = inner.state();
        while let Some((_, until)) = state.pending.pop_front_if(|(index, _)| *index <= known) {
            state.lease_until = state.lease_until.max(Some(until));
        }
        state.lease_until.is_some_and(|until| may_start(now, until))
    }

    /// Leader: from now on exactly these incarnations get leases, because the tables at this index say that they are up.
    pub fn grant_to(&self, holders: BTreeMap<NodeId, u64>, holders_at: u64) {
        let mut state = self.inner.state();
        (state.holders, state.holders_at) = (holders, holders_at);
    }

    /// A node not heard for so long has no lease left.
    pub fn lost_after(&self) -> Duration {
        self.inner.lost_after()
    }

    /// Leader: who was heard when, other than itself; every other member is in it, and whoever was one until so lately
    /// that it may have a lease. Empty on other nodes.
    pub fn heard(&self) -> BTreeMap<NodeId, Heard> {
        let leadership = *self.inner.leadership.borrow();
        if !leadership.is_leader {
            return BTreeMap::new();
        }
        // The table of a term begins with the first look at it: nobody is silent before that.
        self.inner.lead(&leadership, self.inner.clock.instant());
        self.inner.state().heard.clone()
    }

    /// The leader, if it has answered this node lately, or is this node. What openraft calls the leader may be one of
    /// long ago that nobody has voted out.
    pub fn answering_leader(&self) -> Option<NodeId> {
        let inner = &self.inner;
        let leadership = *inner.leadership.borrow();
        if leadership.is_leader {
            return Some(inner.node);
        }
        let (leader, at) = inner.state().answered?;
        let fresh = inner.clock.instant().saturating_duration_since(at) <= inner.timing.beat * REACHABLE_BEATS;
        (fresh && leadership.leader == Some(leader)).then_some(leader)
    }

    /// How far this node's wall clock is ahead of its leader's, in milliseconds; zero on the leader.
    pub fn clock_skew_ms(&self) -> Option<f64> {
        let leadership = *self.inner.leadership.borrow();
        if leadership.is_leader {
            return Some(0.0);
        }
        let measured = self.inner.state().measured;
        measured.filter(|measured| measured.term == leadership.term).map(|measured| measured.ahead_us as f64 / 1000.0)
    }

    /// How far a member's wall clock is ahead of this leader's, if it is further than may be.
    pub fn clock_off_ms(&self, node: NodeId) -> Option<i64> {
        let ahead_us = self.inner.state().heard.get(&node)?.ahead_us?;
        (ahead_us.abs() > self.inner.max_skew_us).then_some(ahead_us / 1000)
    }

    /// Whether this node, if it leads, may stamp its clock into entries.
    pub fn stamping_allowed(&self) -> bool {
        self.inner.stamping.is_allowed()
    }

    /// Answers a beat.
    pub fn serve(&self, beat: BeatMessage) -> BeatAnswer {
        let inner = &self.inner;
        let leadership = *inner.leadership.borrow();
        if !leadership.is_leader {
            return BeatAnswer::NotLeader;
        }
        let now = inner.clock.instant();
        inner.lead(&leadership, now);
        let BeatMessage { node, incarnation, number, measured, drains } = beat;
        let measured = measured.filter(|measured| measured.term == leadership.term).and_then(|measured| {
            let at = inner.origin.checked_add(Duration::from_micros(measured.answered_us))?;
            let (old, late) = (planted!(OldMeasurementTold), planted!(LateBeatCounts));
            Some((measured.ahead_us, if old || late { now } else { at }))
        });
        let (ahead_us, measured_at) = (measured.map(|(ahead_us, _)| ahead_us), measured.map_or(now, |(_, at)| at));
        let heard = Heard { at: now, incarnation, number, ahead_us, measured_at, is_member: true, drains };
        // Heard and granted in one step: who takes a node off the list and then finds it not heard knows that it was
        // granted nothing since.
        let (holds, holders_at) = {
            let mut state = inner.state();
            let before = state.heard.get(&node).copied();
            let again = before.is_some_and(|before| before.incarnation == incarnation && before.number >= number);
            if again && !planted!(LateBeatCounts) {
                // It says what was so when it was sent.
                return BeatAnswer::NotLeader;
            }
            let is_member = before.is_some_and(|before| before.is_member);
            if is_member {
                state.heard.insert(node, heard);
            }
            (is_member && state.holders.get(&node) == Some(&incarnation), state.holders_at)
        };
        let until = if holds { inner.confirmed_until(inner.timing.lease, now) } else { now };
        let grant = until.saturating_duration_since(now);
        granted!(node: node, incarnation: incarnation, term: leadership.term, lasts: grant);
        BeatAnswer::Leader {
            term: leadership.term,
            answered_us: micros(now.saturating_duration_since(inner.origin)),
            wall_us: inner.clock.now_us(),
            grant_ms: u64::try_from(grant.as_millis()).unwrap_or(u64::MAX),
            holders_at,
        }
    }

    /// Sends beats, or as leader looks after its own lease and clock, until the node stops.
    pub async fn run(self, mut stopping: watch::Receiver<bool>) {
        let inner = self.inner;
        let mut changes = inner.leadership.clone();
        let mut drains = inner.drains.subscribe();
        loop {
            let leadership = *changes.borrow_and_update();
            let beat = async {
                match leadership.leader {
                    Some(_) if leadership.is_leader => inner.beat_as_leader(&leadership).await,
                    Some(leader) => inner.beat(leader).await,
                    None => {}
                }
                inner.clock.sleep(inner.timing.beat).await;
            };
            tokio::select! {
                biased;
                _ = stopping.wait_for(|stopping| *stopping) => return,
                () = beat => {}
                // A new leader hears of this node at once.
                changed = changes.changed() => if changed.is_err() { return },
                // And that this one is about to stop. The sender is `inner`'s own.
                _ = drains.changed() => {}
            }
        }
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Starts a new table when a new term of leading has begun.
    fn lead(&self, leadership: &Leadership, now: Instant) {
        let members: Vec<NodeId> = {
            let position = self.position.borrow();
            position.membership.nodes().map(|(id, _)| NodeId(*id)).filter(|id| *id != self.node).collect()
        };
        let mut state = self.state();
        if state.term != leadership.term || state.leading_since.is_none() {
            state.term = leadership.term;
            state.leading_since = Some(now);
            state.heard.clear();
            (state.holders, state.holders_at) = (BTreeMap::new(), 0);
            // From here on this node's lease is its leadership.
            state.lease_until = None;
            state.pending.clear();
        }
        let lost_after = self.lost_after();
        state.heard.retain(|node, heard| {
            heard.is_member = members.contains(node);
            heard.is_member || now.saturating_duration_since(heard.at) <= lost_after
        });
        for node in members {
            state.heard.entry(node).or_insert(Heard {
                at: now,
                incarnation: 0,
                number: 0,
                ahead_us: None,
                measured_at: now,
                is_member: true,
                drains: false,
            });
        }
    }

    fn lost_after(&self) -> Duration {
        if planted!(FencedUnderLease) {
            return self.timing.lease - LOST_MARGIN;
        }
        self.timing.lease + LOST_MARGIN
    }

    /// The other voters, by what this node has applied.
    fn other_voters(&self) -> Vec<NodeId> {
        let position = self.position.borrow();
        position.membership.voter_ids().map(NodeId).filter(|voter| *voter != self.node).collect()
    }

    /// Whether this node is a quorum by itself.
    fn is_alone(&self) -> bool {
        let position = self.position.borrow();
        let mut voters = position.membership.voter_ids();
        voters.next() == Some(self.node.0) && voters.next().is_none()
    }

    /// Whether this node is no voter by the newest members it knows of, in force from when they are in its log.
    fn is_taken_out(&self) -> bool {
        let metrics = self.raft.server_metrics();
        let is_voter = metrics.borrow_watched().membership_config.voter_ids().any(|voter| voter == self.node.0);
        !is_voter && !planted!(RemovedLeaderDelivers)
    }

    /// `span` after the last time a quorum confirmed this leader.
    fn confirmed_until(&self, span: Duration, now: Instant) -> Instant {
        // Openraft notes a quorum's word only when another node answers. Whoever is to be elected without this node has
        // applied, on this node, that there are others.
        if self.is_alone() && !planted!(LoneLeaderUnconfirmed) {
            return now + span;
        }
        let metrics = self.raft.data_metrics();
        let acknowledged = metrics.borrow_watched().last_quorum_acked.map(|at| at.0);
        acknowledged.map_or(now, |acknowledged| acknowledged.min(now) + span)
    }

    async fn beat(&self, leader: NodeId) {
        let Some(address) = address_of(&self.raft, leader) else { return };
        self.state().leading_since = None;
        let term = self.leadership.borrow().term;
        let measured = self.state().measured.filter(|measured| measured.term == term);
        let (number, drains) = (self.beats_sent.fetch_add(1, Ordering::Relaxed) + 1, *self.drains.borrow());
        let message = BeatMessage { node: self.node, incarnation: self.incarnation, number, measured, drains };
        let channel = self.peers.channel(leader, &address, Traffic::Control);
        let (sent, sent_us) = (self.clock.instant(), self.clock.now_us());
        let answer = channel.call(wire::BEAT, &message, self.timing.election_min).await;
        let Ok(BeatAnswer::Leader { term, answered_us, wall_us, grant_ms, holders_at }) = answer else {
            if !planted!(OldMeasurementTold) {
                self.state().measured = None;
            }
            return;
        };
        // Half the round trip on the monotonic clock: the wall clock may have jumped meanwhile.
        let round_trip = self.clock.instant().saturating_duration_since(sent);
        let midpoint_us = sent_us + i64::try_from(round_trip.as_micros() / 2).unwrap_or(0);
        let grant = Duration::from_millis(grant_ms).min(self.timing.lease);
        // A measurement is off by up to half its round trip: one that took too long says nothing.
        let says_something = round_trip <= Duration::from_micros(self.max_skew_us.unsigned_abs());
        let ahead_us = midpoint_us - wall_us;
        if says_something {
            if ahead_us.abs() <= self.max_skew_us {
                self.stamping.compared(true);
            } else {
                // This clock is wrong, or the leader's.
                self.stamping.doubt();
            }
        }
        let mut state = self.state();
        state.measured = says_something.then_some(Measured { term, answered_us, ahead_us });
        state.answered = Some((leader, self.clock.instant()));
        if !grant.is_zero() {
            if state.pending.len() == PENDING_GRANTS {
                // Far behind: the newest grants are the ones it may yet live to use.
                state.pending.pop_front();
            }
            state.pending.push_back((holders_at, sent + grant));
            filled!("pending grants", state.pending.len(), PENDING_GRANTS);
        }
    }

    async fn beat_as_leader(&self, leadership: &Leadership) {
        let now = self.clock.instant();
        self.lead(leadership, now);
        self.perhaps_give_up(leadership.term, now).await;
        let (verdict, hand_over) = {
            let mut state = self.state();
            state.measured = None;
            let Some(verdict) = self.judge(&state, now) else { return };
            let due = state.handed_over.is_none_or(|at| now.saturating_duration_since(at) >= HAND_OVER_EVERY);
            let hand_over = verdict.successor.filter(|_| !verdict.allowed && due);
            if hand_over.is_some() {
                state.handed_over = Some(now);
            }
            (verdict, hand_over)
        };
        if self.stamping.compared(verdict.allowed) {
            if verdict.allowed {
                tracing::info!("clock is inside the bound again; stamping goes on");
            } else {
                tracing::error!(
                    off_ms = verdict.off_us / 1000,
                    "clock is too far from the other voters'; stamping stops"
                );
            }
        }
        if let Some(successor) = hand_over {
            tracing::warn!(to = %successor, "handing leadership to a node with a better clock");
            // If openraft has stopped there is nothing to hand over.
            drop(self.hand_over(successor).await);
        }
    }

    /// Gives up the term if too few voters have been heard for too long.
    async fn perhaps_give_up(&self, term: u64, now: Instant) {
        let others = self.other_voters();
        let unheard_after = self.timing.beat * UNHEARD_BEATS;
        {
            let mut state = self.state();
            let is_heard = |voter: &&NodeId| {
                let heard = state.heard.get(*voter);
                heard.is_some_and(|heard| now.saturating_duration_since(heard.at) <= unheard_after)
            };
            let heard = others.iter().filter(is_heard).count();
            if is_quorum(1 + heard, 1 + others.len()) || state.given_up == Some(term) || planted!(UnheardLeaderStays) {
                return;
            }
            state.given_up = Some(term);
        }
        sometimes!(LeaderGaveUp);
        let furthest = self.furthest(&others);
        tracing::warn!(term, to = ?furthest, "too few voters are heard; giving up leadership");
        // From here on it sends no heartbeats and takes no writes in this term: whoever hears the others can be elected,
        // the one that is asked or another. If openraft has stopped there is nothing to give up.
        if let Some(to) = furthest {
            drop(self.hand_over(to).await);
        }
    }

    /// Of these voters the one that is known to have most of the log.
    fn furthest(&self, voters: &[NodeId]) -> Option<NodeId> {
        let metrics = self.raft.data_metrics();
        let metrics = metrics.borrow_watched();
        let matched =
            |voter: &NodeId| metrics.replication.as_ref().and_then(|all| all.get(&voter.0).copied().flatten());
        voters.iter().copied().max_by_key(|voter| (matched(voter).map(|id| id.index), std::cmp::Reverse(*voter)))
    }

    async fn hand_over(&self, to: NodeId) -> Result<(), Fatal<TypeConfig>> {
        let term = self.leadership.borrow().term;
        if !planted!(ResignedGoesOn) {
            self.state().resigned = Some(term);
            granted!(node: self.node, incarnation: self.incarnation, term: term, lasts: Duration::ZERO);
        }
        self.raft.trigger().transfer_leader(to.0).await
    }

    /// What the voters that are heard say of this leader's clock. `None` while there are others and none is heard: then
    /// what was said before goes on to count, and nothing can be committed anyway. `None` as well where the first to say
    /// something to a new leader disagree with it: who of them is wrong, those that are still to be heard will tell.
    fn judge(&self, state: &State, now: Instant) -> Option<Verdict> {
        let beats = if planted!(LateBeatCounts) { REMEASURE_BEATS + 1 } else { MEASURED_BEATS };
        let measured_within = self.timing.beat * beats;
        let others = self.other_voters();
        let ahead: BTreeMap<_, _> = others
            .iter()
            .filter_map(|voter| Some((*voter, state.heard.get(voter)?.measured_within(measured_within, now)?)))
            .collect();
        if ahead.is_empty() && !others.is_empty() && !planted!(UnheardClockTrusted) {
            return None;
        }
        let verdict = judge(&ahead, self.max_skew_us);
        let is_new = state.leading_since.is_some_and(|since| now.saturating_duration_since(since) < measured_within);
        (verdict.allowed || ahead.len() == others.len() || !is_new).then_some(verdict)
    }
}

/// Whether so many of the voters are more than half of them.
fn is_quorum(some: usize, voters: usize) -> bool {
    some > voters / 2
}

/// Whether a delivery may start under a lease that ends `until`.
fn may_start(now: Instant, until: Instant) -> bool {
    if planted!(MarginAdded) {
        return now < until + LEASE_MARGIN;
    }
    now + LEASE_MARGIN < until
}

fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

/// What the leader thinks of its clock.
#[derive(Debug, PartialEq, Eq)]
struct Verdict {
    allowed: bool,
    /// How far the leader is ahead of the median.
    off_us: i64,
    /// The voter nearest to the median, if it is inside the bound.
    successor: Option<NodeId>,
}

/// Judges the leader's clock by how far the other voters' are ahead of it.
fn judge(ahead_us: &BTreeMap<NodeId, i64>, max_skew_us: i64) -> Verdict {
    let mut offsets: Vec<i64> = ahead_us.values().copied().chain([0]).collect();
    offsets.sort_unstable();
    let middle = offsets.len() / 2;
    let median =
        if offsets.len().is_multiple_of(2) { offsets[middle - 1].midpoint(offsets[middle]) } else { offsets[middle] };
    let nearest = ahead_us.iter().min_by_key(|(node, ahead)| ((**ahead - median).abs(), **node));
    Verdict {
        allowed: median.abs() <= max_skew_us,
        off_us: -median,
        successor: nearest.filter(|(_, ahead)| (**ahead - median).abs() <= max_skew_us).map(|(node, _)| *node),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(ahead_ms: &[(u64, i64)]) -> Verdict {
        judge(&ahead_ms.iter().map(|(node, ahead)| (NodeId(*node), ahead * 1000)).collect(), 500_000)
    }

    #[test]
    fn a_leader_like_the_others_stamps() {
        assert!(verdict(&[]).allowed, "alone, it is its own median");
        assert!(verdict(&[(2, 400), (3, -300)]).allowed);
        assert!(verdict(&[(2, 0), (3, 90_000)]).allowed, "another node's clock is wrong, not the leader's");
    }

    #[test]
    fn a_leader_off_the_median_stops_and_hands_over_to_the_nearest() {
        let verdict = verdict(&[(2, -2000), (3, -1900)]);
        assert_eq!(verdict, Verdict { allowed: false, off_us: 1_900_000, successor: Some(NodeId(3)) });
    }

    #[test]
    fn a_measurement_is_as_old_as_the_answer_it_was_made_by() {
        let (answered, span) = (Instant::now(), Duration::from_secs(1));
        let told = answered + Duration::from_secs(2);
        let heard = Heard {
            at: told,
            incarnation: 1,
            number: 1,
            ahead_us: Some(7),
            measured_at: answered,
            is_member: true,
            drains: false,
        };
        assert_eq!(heard.measured_within(span, answered + span), Some(7));
        assert_eq!(heard.measured_within(span, told), None, "it was on its way for longer than it counts");
        assert_eq!(Heard { ahead_us: None, ..heard }.measured_within(span, answered), None);
    }

    #[test]
    fn a_quorum_is_more_than_half() {
        for (voters, quorum) in [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3), (6, 4), (7, 4)] {
            assert!(is_quorum(quorum, voters) && !is_quorum(quorum - 1, voters), "{voters}");
        }
    }

    #[test]
    fn of_two_that_disagree_neither_is_inside() {
        let verdict = verdict(&[(2, 3000)]);
        assert!(!verdict.allowed);
        assert_eq!(verdict.successor, None);
    }
}
