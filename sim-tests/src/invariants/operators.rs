//! What operators ask for is made, or there is a reason why not.
//!
//! What was answered to be done is so: a node that was taken in is seen among the voters, one that was taken out is seen
//! gone, and whoever was handed leadership leads. In the end the members are those that the answers make them. A refusal,
//! an answer that does not say, and one that never comes need a cause: something was wrong in that time or shortly before,
//! another change was made beside, or what was asked for cannot be. A change that an operator gave up after all his tries,
//! with nothing wrong, is one that cannot be made.

use std::collections::{BTreeMap, BTreeSet};

use campanile_model::NodeId;

use super::index::Facts;
use super::report::Report;
use crate::history::{Event, Members, NodeEvent, Told, Wanted};
use crate::verdict::Finding;

const NAME: &str = "operators";
/// A change shows within this share of the bound on lateness: nodes are looked at now and then.
const SHOWS: u64 = 15;

pub fn check(facts: &Facts) -> Finding {
    let story = Story::of(facts);
    let mut report = Report::new(NAME);
    for call in &story.calls {
        story.judge(call, &mut report);
    }
    for (t, change) in &story.given_up {
        story.judge_giving_up(*t, *change, &mut report);
    }
    story.judge_the_end(&mut report);
    report.finish_if_any("changes that operators asked for")
}

struct Call<'h> {
    change: u64,
    node: NodeId,
    wanted: Wanted,
    asked: u64,
    told: Option<(u64, &'h Told)>,
}

impl Call<'_> {
    fn is_done(&self) -> bool {
        matches!(self.told, Some((_, Told::Done)))
    }

    fn may_have_happened(&self) -> bool {
        !matches!(self.told, Some((_, Told::Refused { .. })))
    }
}

/// What concerns members and leadership.
struct Story<'h> {
    facts: &'h Facts<'h>,
    calls: Vec<Call<'h>>,
    given_up: Vec<(u64, u64)>,
    members: Vec<(u64, &'h Members)>,
    /// Who led, as it said itself.
    leads: Vec<(u64, NodeId)>,
    /// When a node's process began (true) and ended.
    lives: BTreeMap<NodeId, Vec<(u64, bool)>>,
    converged: Option<u64>,
}

impl<'h> Story<'h> {
    fn of(facts: &'h Facts<'h>) -> Self {
        let mut story = Self {
            facts,
            calls: Vec::new(),
            given_up: Vec::new(),
            members: Vec::new(),
            leads: Vec::new(),
            lives: BTreeMap::new(),
            converged: None,
        };
        let mut places = BTreeMap::new();
        for timed in &facts.history.events {
            let t = timed.t;
            match &timed.event {
                Event::Ask { call, change, node, wanted } => {
                    places.insert(*call, story.calls.len());
                    let (change, node, wanted) = (*change, *node, *wanted);
                    story.calls.push(Call { change, node, wanted, asked: t, told: None });
                }
                Event::Told { call, answer } => {
                    if let Some(place) = places.get(call) {
                        story.calls[*place].told = Some((t, answer));
                    }
                }
                Event::GaveUp { change } => story.given_up.push((t, *change)),
                Event::Members(members) => story.members.push((t, members)),
                Event::Raft(state) if state.leads => story.leads.push((t, state.node)),
                Event::Node { node, what } => match what {
                    NodeEvent::Started => story.lives.entry(*node).or_default().push((t, true)),
                    NodeEvent::Killed | NodeEvent::PowerCut | NodeEvent::Stopped { .. } => {
                        story.lives.entry(*node).or_default().push((t, false));
                    }
                    NodeEvent::Leads { .. } => story.leads.push((t, *node)),
                    NodeEvent::Paused | NodeEvent::Resumed | NodeEvent::Broke { .. } => {}
                },
                Event::Converged => story.converged = Some(t),
                _ => {}
            }
        }
        story
    }

    /// By when what was done at `t` has shown.
    fn shown_by(&self, t: u64) -> u64 {
        t.saturating_add(self.facts.bound() / SHOWS)
    }

    fn judge(&self, call: &Call, report: &mut Report) {
        match call.told {
            Some((t, Told::Done)) => {
                // Nobody looked any more.
                if self.shown_by(t) <= self.facts.history.end() {
                    report.hold(self.is_shown(call, t), t, || {
                        format!("node {} said that it did {}, and nothing shows it", call.node, call.wanted)
                    });
                }
            }
            Some((t, answer)) => report.hold(self.cause(call, t).is_some(), t, || {
                format!("nothing was wrong, and node {} did not {}: {answer}", call.node, call.wanted)
            }),
            None => {
                let end = call.asked.saturating_add(2 * self.facts.bound());
                if end <= self.facts.history.end() {
                    report.hold(self.cause(call, end).is_some(), end, || {
                        format!("nothing was wrong, and node {} never answered to {}", call.node, call.wanted)
                    });
                }
            }
        }
    }

    /// Whether what was done is seen between the question and a little after the answer, or cannot have been.
    fn is_shown(&self, call: &Call, told: u64) -> bool {
        let seen = call.asked..=self.shown_by(told);
        let looks = || self.members.iter().filter(|(t, _)| seen.contains(t)).map(|(_, members)| *members);
        match call.wanted {
            // Real processes do not tell.
            _ if self.members.is_empty() && !matches!(call.wanted, Wanted::TransferLeader { .. }) => true,
            Wanted::AddNode { id } => {
                self.members_at(call.asked).contains(&id) || looks().any(|members| members.voters.contains(&id))
            }
            Wanted::RemoveNode { id } => {
                let is_gone = |members: &Members| !members.voters.contains(&id) && !members.learners.contains(&id);
                looks().any(is_gone) || !self.members_at(call.asked).contains(&id)
            }
            Wanted::TransferLeader { to } => {
                let led = self.leads.iter().any(|(t, node)| *node == to && seen.contains(t));
                led || self.leader_at(call.asked) == Some(to) || !self.lived(to, call.asked, self.shown_by(told))
            }
        }
    }

    /// Why a call may have come to nothing by `end`.
    fn cause(&self, call: &Call, end: u64) -> Option<&'static str> {
        let members = self.members_at(call.asked);
        let is_voter = |id: NodeId| members.contains(&id) && self.members_at(end).contains(&id);
        if !self.facts.is_healthy(call.asked, end) {
            return Some("something was wrong");
        }
        if self.calls.iter().any(|other| self.is_beside(other, call, end)) {
            return Some("another change was made");
        }
        if !is_voter(call.node) || !self.lived(call.node, call.asked, end) {
            return Some("the node that was asked is no member, or not there");
        }
        let impossible = match call.wanted {
            Wanted::AddNode { id } => {
                let removed = |other: &Call| other.wanted == Wanted::RemoveNode { id } && other.asked < end;
                members.contains(&id) || self.calls.iter().any(removed) || !self.lived(id, call.asked, end)
            }
            Wanted::RemoveNode { id } => !members.contains(&id) || members.len() == 1,
            Wanted::TransferLeader { to } => !is_voter(to) || !self.lived(to, call.asked, end),
        };
        impossible.then_some("it could not be done")
    }

    /// Whether a call of another change was made so near that it may have come between.
    fn is_beside(&self, other: &Call, call: &Call, end: u64) -> bool {
        let over = other.told.map_or(u64::MAX, |(t, _)| t);
        other.change != call.change && other.asked <= end && over.saturating_add(self.facts.bound()) >= call.asked
    }

    fn judge_giving_up(&self, t: u64, change: u64, report: &mut Report) {
        let tries: Vec<&Call> = self.calls.iter().filter(|call| call.change == change).collect();
        let (Some(first), Some(last)) = (tries.first(), tries.last()) else { return };
        let end = last.told.map_or(t, |(told, _)| told);
        // From the first to the last there was nothing that any one of them could be excused by.
        let excused = self.cause(&Call { asked: first.asked, told: last.told, ..**last }, end).is_some();
        report.hold(excused || tries.iter().any(|call| call.is_done()), t, || {
            format!("nothing was wrong, and {} was tried {} times in vain", last.wanted, tries.len())
        });
    }

    /// Once the cluster has converged, members are those that the answers make them.
    fn judge_the_end(&self, report: &mut Report) {
        let (Some(converged), false) = (self.converged, self.members.is_empty()) else { return };
        let Some(last) = latest(self.members.iter()) else { return };
        report.hold(!last.joint, converged, || {
            format!("the last change of members, entry {}, was left half made: two majorities are needed", last.index)
        });
        let mut about: BTreeMap<NodeId, Vec<&Call>> = BTreeMap::new();
        for call in self.calls.iter().filter(|call| call.may_have_happened()) {
            match call.wanted {
                Wanted::AddNode { id } | Wanted::RemoveNode { id } => about.entry(id).or_default().push(call),
                Wanted::TransferLeader { .. } => {}
            }
        }
        let founders = self.facts.history.header.nodes.iter().copied();
        let all: BTreeSet<NodeId> = founders.chain(about.keys().copied()).chain(last.voters.iter().copied()).collect();
        for id in all {
            let calls = about.get(&id).map_or(&[][..], Vec::as_slice);
            let Some(is_in) = self.expected(id, calls) else { continue };
            report.hold(last.voters.contains(&id) == is_in, converged, || {
                let so = if is_in { "is to be" } else { "is not to be" };
                format!(
                    "node {id} {so} a member by what operators were told, and entry {} has it otherwise",
                    last.index
                )
            });
        }
    }

    /// Whether a node is a member by what was answered; `None` where that does not say.
    fn expected(&self, id: NodeId, calls: &[&Call]) -> Option<bool> {
        let founder = self.facts.history.header.nodes.contains(&id);
        let removal = |call: &&&Call| matches!(call.wanted, Wanted::RemoveNode { .. });
        // An id is not used again: a removal is the last word.
        match calls.iter().find(removal) {
            Some(_) if calls.iter().filter(removal).any(|call| call.is_done()) => Some(false),
            Some(_) => None,
            None if founder || calls.is_empty() => Some(founder),
            None => calls.iter().any(|call| call.is_done()).then_some(true),
        }
    }

    /// The voters at that time, as far as any node knew; at the start, the founders.
    fn members_at(&self, t: u64) -> BTreeSet<NodeId> {
        let known = latest(self.members.iter().filter(|(seen, _)| *seen <= t));
        match known {
            Some(members) => members.voters.iter().copied().collect(),
            None => self.facts.history.header.nodes.iter().copied().collect(),
        }
    }

    fn leader_at(&self, t: u64) -> Option<NodeId> {
        self.leads.iter().rev().find(|(led, _)| *led <= t).map(|(_, node)| *node)
    }

    /// Whether a node was there all that time.
    fn lived(&self, node: NodeId, from: u64, to: u64) -> bool {
        let lives = self.lives.get(&node).map_or(&[][..], Vec::as_slice);
        let before = lives.iter().rev().find(|(t, _)| *t <= from);
        before.is_some_and(|(_, up)| *up) && !lives.iter().any(|(t, up)| !up && (from..=to).contains(t))
    }
}

/// Of what nodes knew of their members, what the latest entry says. A newcomer knows of none.
fn latest<'a, 'h: 'a>(seen: impl Iterator<Item = &'a (u64, &'h Members)>) -> Option<&'h Members> {
    let known = seen.map(|(_, members)| *members).filter(|members| !members.voters.is_empty());
    known.max_by_key(|members| (members.term, members.index))
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use crate::plan::{Fault, RoleOf, Who};

    const ADD: Wanted = Wanted::AddNode { id: NodeId(4) };
    const REMOVE: Wanted = Wanted::RemoveNode { id: NodeId(3) };
    const HAND_OVER: Wanted = Wanted::TransferLeader { to: NodeId(2) };

    /// Three nodes, and a fourth that has been started; node 1 leads. The bound is 2 s, and what is done shows in 133 ms.
    fn calm() -> Script {
        let script = Script::new().started(1).started(2).started(3).started(4);
        script.raft(1, 1, |state| state.leads = true).members(1, 1, &[1, 2, 3]).at(9_000)
    }

    fn refused() -> Told {
        Told::Refused { status: 409, code: "conflict".into(), detail: "no".into() }
    }

    fn unknown() -> Told {
        Told::Unknown { reason: "no answer".into() }
    }

    fn asked(script: Script, wanted: Wanted, answer: Told) -> Script {
        script.ask(1, 1, 1, wanted).at(9_500).told(1, answer)
    }

    /// One to whom nothing more happens for long, and which converges.
    fn over(script: Script) -> Script {
        script.at(60_000).converged()
    }

    #[test]
    fn what_is_done_shows() {
        accepts(NAME, over(asked(calm(), ADD, Told::Done).at(9_600).members(2, 5, &[1, 2, 3, 4])));
        refuses(NAME, over(asked(calm(), ADD, Told::Done)));
        refuses(NAME, over(asked(calm(), ADD, Told::Done).at(9_800).members(2, 5, &[1, 2, 3, 4])));
        accepts(NAME, over(asked(calm(), REMOVE, Told::Done).at(9_600).members(2, 5, &[1, 2])));
        refuses(NAME, over(asked(calm(), REMOVE, Told::Done)));
        let leads = |node| asked(calm(), HAND_OVER, Told::Done).at(9_600).raft(node, 2, |state| state.leads = true);
        accepts(NAME, over(leads(2)));
        refuses(NAME, over(leads(3)));
        // It may have led for a moment.
        accepts(NAME, over(asked(calm(), HAND_OVER, Told::Done).at(9_600).killed(2)));
        // Nobody looked any more.
        permits(NAME, asked(calm(), HAND_OVER, Told::Done));
    }

    #[test]
    fn what_fails_has_a_cause() {
        for answer in [refused(), unknown()] {
            refuses(NAME, asked(calm(), ADD, answer.clone()));
            accepts(NAME, asked(calm().begin(7, Fault::Isolate { node: Who::Role(RoleOf::Any) }), ADD, answer));
        }
        // One that is over excuses for a bound more, and what operators ask for does not.
        let isolated = |at| calm().begin(7, Fault::Isolate { node: Who::Role(RoleOf::Any) }).at(9_100).end(7).at(at);
        let ask = |script: Script, at| script.ask(1, 1, 1, ADD).at(at).told(1, refused());
        accepts(NAME, ask(isolated(11_000), 11_100));
        refuses(NAME, ask(isolated(11_200), 11_300));
        refuses(NAME, asked(calm().begin(7, Fault::AddNode), ADD, refused()));
        // Another change beside.
        accepts(NAME, ask(calm().ask(2, 2, 2, REMOVE), 9_100));
        refuses(NAME, ask(calm().ask(2, 1, 2, ADD), 9_100));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        accepts(NAME, asked(calm().members(1, 2, &[1, 2, 3, 4]), ADD, refused()));
        accepts(NAME, asked(calm().members(1, 2, &[1, 2]), REMOVE, refused()));
        let last = Wanted::RemoveNode { id: NodeId(1) };
        accepts(NAME, asked(calm().members(1, 2, &[1]), last, refused()));
        refuses(NAME, asked(calm(), last, refused()));
        accepts(NAME, asked(calm().members(1, 2, &[1, 3]), HAND_OVER, refused()));
        refuses(NAME, asked(calm(), HAND_OVER, refused()));
        // Of a node that is not there, or no member, nothing can be asked.
        accepts(NAME, asked(calm().members(1, 2, &[2, 3]), REMOVE, refused()));
        accepts(NAME, calm().ask(1, 1, 9, ADD).at(9_500).told(1, refused()));
    }

    #[test]
    fn an_answer_comes() {
        let asked = || calm().ask(1, 1, 1, ADD);
        permits(NAME, asked().at(12_999).entry(9));
        refuses(NAME, asked().at(13_001).entry(9));
        accepts(NAME, asked().at(12_000).killed(3).at(14_000).entry(9));
    }

    #[test]
    fn a_change_is_not_tried_in_vain() {
        let tries = |script: Script| {
            (1..=12).fold(script, |script, call| {
                let at = 9_000 + call * 100;
                script.at(at).ask(call, 1, 1, ADD).at(at + 50).told(call, refused())
            })
        };
        refuses(NAME, tries(calm()).event(Event::GaveUp { change: 1 }));
        let killed = || tries(calm().killed(3)).event(Event::GaveUp { change: 1 });
        accepts(NAME, killed());
    }

    #[test]
    fn members_in_the_end_are_those_that_were_made_so() {
        let added = |at_end: &[u64]| {
            let added = asked(calm(), ADD, Told::Done).at(9_600).members(2, 5, &[1, 2, 3, 4]);
            over(added.at(20_000).members(2, 6, at_end))
        };
        accepts(NAME, added(&[1, 2, 3, 4]));
        refuses(NAME, added(&[1, 2, 3]));
        refuses(NAME, added(&[1, 2, 4]));
        // What is not known may be either way; what was refused was not done.
        let ended = |answer, at_end: &[u64]| over(asked(calm().killed(3), ADD, answer).members(2, 5, at_end));
        for at_end in [&[1, 2, 3][..], &[1, 2, 3, 4]] {
            accepts(NAME, ended(unknown(), at_end));
        }
        accepts(NAME, ended(refused(), &[1, 2, 3]));
        refuses(NAME, ended(refused(), &[1, 2, 3, 4]));
        let joint = Members { node: NodeId(1), term: 1, index: 9, joint: true, voters: vec![], learners: vec![] };
        let half = Members { voters: vec![NodeId(1), NodeId(2), NodeId(3)], ..joint };
        refuses(NAME, over(asked(calm().killed(3), ADD, unknown()).event(Event::Members(half))));
        // One that waits to be added knows of no members.
        accepts(NAME, ended(refused(), &[1, 2, 3]).members(4, 9, &[]));
    }

    #[test]
    fn real_processes_do_not_tell_of_their_members() {
        let real = || Script::new().real().started(1).started(2).at(9_000);
        let leads = |script: Script| script.at(9_600).node(2, NodeEvent::Leads { term: 2 });
        accepts(NAME, over(leads(asked(real(), HAND_OVER, Told::Done))));
        refuses(NAME, over(asked(real(), HAND_OVER, Told::Done)));
        refuses(NAME, asked(real(), HAND_OVER, refused()));
        not_applicable(NAME, real());
    }
}
