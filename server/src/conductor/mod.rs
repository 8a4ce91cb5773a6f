//! The leader-only part: it keeps the wheel, proposes fires, retries and lapses when they are due, repeats attempts
//! whose owner was lost, moves shards, and proposes what retention wants removed.
//!
//! 1. On gaining leadership it reads the tables ([`window`]) and follows effects from there. Effects are hints: when
//!    some are lost it reads again.
//! 2. When a timer rings, [`ring`] turns it into decisions; [`proposals`] commits them in batches, several in flight.
//! 3. Nothing it holds is truth. Every line is compared with the state when it is applied, so a stale timer, a doubled
//!    one, or a conductor that does not yet know it was deposed can only cause no-ops.
//!
//! It never delivers, never answers a client, and never changes state except through the log.

mod backlog;
mod housekeeping;
mod membership;
mod orphans;
mod proposals;
mod ring;
mod window;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use campanile_model::{Command, Millis, NodeId, Timestamp, bound, planted, sometimes};
use campanile_raft::{Clock, Delivery, EffectStream, Lane, Replica};
use campanile_store::{Effect, Effects, StoreError};

use crate::metrics::Metrics;
use crate::plans::Plans;
use backlog::Backlog;
use housekeeping::Housekeeping;
use membership::Membership;
use orphans::Orphans;
use proposals::{Proposals, Step};
use window::{Armed, Window};

/// Batches of effects that may wait; beyond that the tables are read again.
const EFFECTS: usize = 1024;

#[derive(Clone)]
pub struct ConductorConfig {
    pub node: NodeId,
    /// Overdue timers handled per second once a leader takes over.
    pub catch_up_rate: u32,
    /// Between two looks at what no timer announces: members, backlog, housekeeping.
    pub tick: Duration,
}

/// What every part of the conductor works with.
pub(crate) struct Context {
    pub config: ConductorConfig,
    pub replica: Replica,
    pub clock: Clock,
    pub plans: Arc<Plans>,
    pub metrics: Arc<Metrics>,
}

/// Runs for as long as the node does; conducts whenever this node leads. Ends only with an error of the disk.
pub async fn run(
    config: ConductorConfig,
    replica: Replica,
    clock: Clock,
    plans: Arc<Plans>,
    metrics: Arc<Metrics>,
) -> Result<(), StoreError> {
    let context = Arc::new(Context { config, replica, clock, plans, metrics });
    let mut leadership = context.replica.leadership();
    // The last other leader that was seen, and its term.
    let mut seen: Option<(NodeId, u64)> = None;
    loop {
        let now = *leadership.borrow_and_update();
        if now.is_leader && now.ready {
            tracing::info!(term = now.term, "conducting");
            context.metrics.conducting.set(1);
            let ended = Reign::begin(&context, previous_leader(seen, now.term))?.conduct(&mut leadership).await;
            context.metrics.conducting.set(0);
            tracing::info!(term = now.term, "conducting no longer");
            match ended? {
                Ended::Deposed => continue,
                Ended::Stopped => return Ok(()),
            }
        }
        if let Some(leader) = now.leader.filter(|leader| *leader != context.config.node) {
            seen = Some((leader, now.term));
        }
        if leadership.changed().await.is_err() {
            return Ok(());
        }
    }
}

/// The leader before the one of `term`, if it is the one that was seen last. In a term between the two another may have
/// led, unseen, and have given that one a lease as a follower.
fn previous_leader(seen: Option<(NodeId, u64)>, term: u64) -> Option<NodeId> {
    seen.filter(|(_, led)| led + 1 == term).map(|(leader, _)| leader)
}

/// Why a reign ended.
enum Ended {
    /// Another node leads, or none.
    Deposed,
    /// The replica has stopped.
    Stopped,
}

/// One term of leadership.
struct Reign {
    context: Arc<Context>,
    effects: EffectStream,
    window: Window,
    /// Timers that have rung and are not decided yet, and when they did.
    rung: VecDeque<(Timestamp, Armed)>,
    rung_at: Timestamp,
    backlog: Backlog,
    proposals: Proposals,
    membership: Membership,
    orphans: Orphans,
    housekeeping: Housekeeping,
    /// Index up to which the tables have been read: effects up to it are already seen.
    read_until: u64,
}

impl Reign {
    fn begin(context: &Arc<Context>, previous_leader: Option<NodeId>) -> Result<Self, StoreError> {
        // Subscribed before the view is taken, so that no effect falls between the two.
        let effects = context.replica.subscribe("conductor", bound!(ConductorEffects, EFFECTS));
        let view = context.replica.store().view();
        let now = context.clock.now();
        let window = Window::new(now);
        sometimes!(LedAfterSnapshot, context.replica.metrics().snapshots_installed.get() > 0);
        Ok(Self {
            effects,
            backlog: Backlog::new(&view, now, context.config.catch_up_rate),
            read_until: view.index(),
            window,
            rung: VecDeque::new(),
            rung_at: now,
            proposals: Proposals::default(),
            membership: Membership::new(context.config.node, previous_leader, context.clock.instant()),
            orphans: Orphans::default(),
            housekeeping: Housekeeping::default(),
            context: context.clone(),
        })
    }

    async fn conduct(
        mut self,
        leadership: &mut tokio::sync::watch::Receiver<campanile_raft::Leadership>,
    ) -> Result<Ended, StoreError> {
        let mut tick = tokio::time::interval(self.context.config.tick);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let until_due = self.until_due(self.context.clock.now());
            tokio::select! {
                biased;
                changed = leadership.changed() => {
                    let still = *leadership.borrow_and_update();
                    if changed.is_err() {
                        return Ok(Ended::Stopped);
                    }
                    if !still.is_leader || !still.ready {
                        #[cfg(madsim)]
                        if self.proposals.is_busy() {
                            campanile_model::sometimes!(DeposedWhileFiring);
                        }
                        return Ok(Ended::Deposed);
                    }
                }
                () = self.context.clock.sleep(until_due), if self.may_fire() => self.ring()?,
                Some(finished) = self.proposals.finished() => self.settle(finished)?,
                event = self.effects.next() => match event {
                    Some(event) => self.follow(event)?,
                    None => return Ok(Ended::Stopped),
                },
                _ = tick.tick() => self.tick()?,
            }
        }
    }

    /// How long until there is something to decide. What has rung waits only if the clock has gone back since.
    fn until_due(&self, now: Timestamp) -> Duration {
        if self.rung.is_empty() { self.window.until_due(now) } else { self.rung_at.since(now).to_std() }
    }

    /// A fire names its run's owner, so the first ones wait until every shard has one.
    fn may_fire(&self) -> bool {
        self.proposals.has_room() && self.may_decide()
    }

    /// What is decided by a clock that jumped may be committed when it is right again: an occurrence that was not late
    /// would have lapsed, or a timer be taken for one that is not due. So nothing is decided by a clock in doubt.
    fn may_decide(&self) -> bool {
        // A lane that nobody leaves can hold decisions only where they are made by a clock in doubt.
        let (doubted, waits) = (planted!(DecidedByDoubtedClock), planted!(DecisionWaitsForEver));
        let clock_counts = self.context.replica.stamping_allowed() || doubted || waits;
        self.membership.every_shard_has_an_owner() && clock_counts
    }

    /// Decides timers that are due, as many as there is room for. The others wait for their decision, so that it is
    /// fresh when it is proposed.
    fn ring(&mut self) -> Result<(), StoreError> {
        if !self.may_decide() {
            // The clock has jumped since this was waited for. The next tick looks again.
            return Ok(());
        }
        let now = self.context.clock.now();
        if self.rung.is_empty() {
            self.rung.extend(self.window.advance(now));
            self.rung_at = now;
            self.context.metrics.timers_rung.inc_by(self.rung.len() as u64);
        }
        if now < self.rung_at {
            return Ok(());
        }
        let late = ring::ring(&self.context, &mut self.rung, now, &mut self.proposals)?;
        self.backlog.add(late);
        self.submit()
    }

    fn settle(&mut self, finished: proposals::Finished) -> Result<(), StoreError> {
        self.ended(finished.from);
        let clock = &self.context.clock;
        self.proposals.settle(finished, clock.instant(), clock.now(), &self.context.metrics);
        // A sleep of no time at all takes up to a millisecond.
        if !self.rung.is_empty() && self.may_fire() { self.ring() } else { self.submit() }
    }

    fn ended(&mut self, from: From) {
        match from {
            From::Backlog => self.backlog.finished(),
            From::Membership => self.membership.finished(),
            From::Wheel => {}
        }
    }

    /// Puts decisions into flight. Those that waited too long are made anew.
    fn submit(&mut self) -> Result<(), StoreError> {
        let context = self.context.clone();
        while let Some(step) = self.proposals.next(context.clock.instant(), self.may_decide()) {
            match step {
                Step::Propose(proposal) => self.proposals.submit(proposal, &context.replica, &context.clock),
                Step::DecideAgain(undecided) => {
                    let late = ring::decide_again(&context, undecided, &mut self.proposals, &mut self.window)?;
                    self.backlog.decide_again(late);
                }
                Step::GiveBack(proposal) => {
                    self.ended(proposal.from);
                    self.proposals.give_back(&proposal);
                }
            }
        }
        Ok(())
    }

    fn follow(&mut self, event: Delivery) -> Result<(), StoreError> {
        match event {
            Delivery::Effects(effects) => {
                if effects.index > self.read_until {
                    self.apply_effects(&effects);
                }
            }
            Delivery::Lagged => {
                tracing::warn!("conductor fell behind the log; reading the tables again");
                let view = self.context.replica.store().view();
                let now = self.context.clock.now();
                self.read_until = view.index();
                self.window = Window::new(now);
                self.rung.clear();
                self.backlog = Backlog::new(&view, now, self.context.config.catch_up_rate);
                self.orphans.look_again();
            }
        }
        Ok(())
    }

    fn apply_effects(&mut self, effects: &Effects) {
        for effect in &effects.list {
            match effect {
                Effect::TaskArmed { task, .. } if planted!(EffectDropped) && task.0 % 5 == 0 => {}
                Effect::TaskArmed { task, wake_at, timer } => self.window.arm_task(*task, *wake_at, *timer),
                Effect::RetryArmed { .. } if planted!(RetryForgotten) => {}
                Effect::RetryArmed { run, token, wake_at } if planted!(RetryTooEarly) => {
                    self.window.arm_retry(*run, wake_at.saturating_sub(Millis(250)), *token);
                }
                Effect::RetryArmed { run, token, wake_at } => self.window.arm_retry(*run, *wake_at, *token),
                Effect::ExpiryArmed { task, wake_at } => self.window.arm_expiry(*task, *wake_at),
                Effect::TrimDue { task } => self.housekeeping.trim(*task),
                Effect::NodeFenced { .. } if planted!(OrphansForgotten) => {}
                Effect::NodeFenced { .. } => self.orphans.look_again(),
                Effect::ShardsMoved => self.membership.shards_moved(),
                Effect::TaskDisarmed { .. } | Effect::AttemptReady { .. } | Effect::RunEnded { .. } => {}
            }
        }
    }

    fn tick(&mut self) -> Result<(), StoreError> {
        let now = self.context.clock.now();
        self.membership.tick(&self.context, &mut self.proposals)?;
        if self.may_decide() {
            if self.window.wants_filling(now) {
                self.window.fill(&self.context.replica.store().view(), self.backlog.reads_until(), now)?;
            }
            self.backlog.tick(&self.context, now, &mut self.proposals, &mut self.window)?;
            self.orphans.tick(&self.context);
            self.housekeeping.tick(&self.context, self.undecided_since(now));
        }
        self.context.metrics.window_timers.set(self.window.len() as i64);
        self.submit()
    }

    /// The earliest instant at which a timer may still be waiting to be decided.
    fn undecided_since(&self, now: Timestamp) -> Timestamp {
        let rung = self.rung.iter().map(|(wake_at, _)| *wake_at).min();
        [self.window.first_due(), rung, self.backlog.first_due(), self.proposals.first_due()]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(now)
            .min(now)
    }
}

/// Commands on their way, and who wants to hear of its end.
pub(crate) struct Proposal {
    pub lane: Lane,
    pub commands: Vec<Command>,
    pub from: From,
    /// The earliest timer it decides, if it decides any.
    pub first_due: Option<Timestamp>,
    /// The timers of all lines of a fire that is on time.
    pub dues: Vec<Timestamp>,
    /// When the oldest of its decisions was made. `None` for what does not age.
    pub decided_at: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum From {
    Wheel,
    Backlog,
    Membership,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_of_the_term_before_it_is_known_who_led() {
        let seen = Some((NodeId(2), 5));
        assert_eq!(previous_leader(seen, 6), Some(NodeId(2)));
        assert_eq!(previous_leader(seen, 7), None);
        assert_eq!(previous_leader(None, 6), None);
    }
}
