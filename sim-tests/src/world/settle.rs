//! The end of a simulation: waits until the nodes agree and nothing is owed.

use std::time::Duration;

use campanile_model::NodeId;

use super::nemesis::Nemesis;
use crate::drive::recorder::Recorder;
use crate::history::Event;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(200);

/// Waits until the nodes have one leader, are equally far, and owe nothing. Whether they came to it within the bound.
pub async fn converge(nemesis: &mut Nemesis, nodes: &[NodeId], bound: Duration, recorder: &Recorder) -> bool {
    let end = recorder.now() + u64::try_from(bound.as_micros()).unwrap_or(u64::MAX);
    while recorder.now() < end {
        if converged(nemesis, nodes) {
            recorder.record(Event::Converged);
            return true;
        }
        nemesis.tend(LOOK).await;
    }
    false
}

fn converged(nemesis: &Nemesis, nodes: &[NodeId]) -> bool {
    let Some(leader) = nemesis.cluster.leader() else { return false };
    let seen = nemesis.cluster.seen_all();
    let Some(members) = seen.get(&leader).filter(|seen| seen.ready).map(|seen| seen.members.clone()) else {
        return false;
    };
    let applied = seen.get(&leader).map_or(0, |seen| seen.applied);
    nodes.iter().filter(|node| members.contains(node)).all(|node| {
        // A busy log moves between two looks at two nodes.
        seen.get(node)
            .is_some_and(|seen| seen.leader == Some(leader) && seen.applied + 20 >= applied && seen.live_runs == 0)
    })
}
