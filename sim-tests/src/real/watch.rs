//! Looks at every node's `/cluster` all the time: who leads, how far each is. What faults that strike "the leader" go by.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use campanile_client::Client;
use campanile_model::NodeId;
use campanile_model::api::ClusterView;
use tokio::time::{Instant, sleep};

use crate::drive::recorder::Recorder;
use crate::history::{Event, NodeEvent};

/// Between two looks at a node.
const LOOK: Duration = Duration::from_millis(100);
/// A view older than this says nothing of the node.
const FRESH: Duration = Duration::from_millis(500);
/// A busy log moves between two looks at two nodes.
const BETWEEN_LOOKS: u64 = 20;

#[derive(Default)]
struct Seen {
    views: BTreeMap<NodeId, (Instant, ClusterView)>,
    /// The highest term whose leader has been written down.
    told: u64,
}

pub struct Watch {
    seen: Arc<Mutex<Seen>>,
}

impl Watch {
    /// The clients speak to one node each and never try twice.
    pub fn start(clients: BTreeMap<NodeId, Client>, recorder: &Recorder) -> Self {
        let seen: Arc<Mutex<Seen>> = Arc::default();
        for (node, client) in clients {
            tokio::spawn(look(node, client, seen.clone(), recorder.clone()));
        }
        Self { seen }
    }

    /// What the nodes say that answer, of those asked at this moment or later.
    fn views(&self, since: Instant) -> BTreeMap<NodeId, ClusterView> {
        let seen = lock(&self.seen);
        let fresh = seen.views.iter().filter(|(_, (at, _))| *at >= since && at.elapsed() < FRESH);
        fresh.map(|(node, (_, view))| (*node, view.clone())).collect()
    }

    /// The node that says it leads, in the highest term.
    pub fn leader(&self) -> Option<NodeId> {
        let ago = Instant::now().checked_sub(FRESH)?;
        leading(&self.views(ago)).map(|view| view.node)
    }

    /// Whether these nodes have one leader, are equally far, and owe nothing, as they have said since a moment.
    pub fn agree(&self, nodes: &[NodeId], since: Instant) -> bool {
        let views = self.views(since);
        let Some(leader) = leading(&views) else { return false };
        nodes.iter().all(|node| {
            views.get(node).is_some_and(|view| {
                let same = (view.leader, view.term) == (Some(leader.node), leader.term);
                same && view.applied + BETWEEN_LOOKS >= leader.applied && view.live_runs == 0
            })
        })
    }
}

/// The view of the node that says it leads, in the highest term.
fn leading(views: &BTreeMap<NodeId, ClusterView>) -> Option<&ClusterView> {
    let term = views.values().map(|view| view.term).max()?;
    views.values().find(|view| view.term == term && view.leader == Some(view.node))
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn look(node: NodeId, client: Client, seen: Arc<Mutex<Seen>>, recorder: Recorder) {
    loop {
        let asked = Instant::now();
        // A node that is down or does not answer leaves its last view to age.
        if let Ok(view) = client.cluster().await {
            let mut seen = lock(&seen);
            if view.leader == Some(node) && view.term > seen.told {
                seen.told = view.term;
                recorder.record(Event::Node { node, what: NodeEvent::Leads { term: view.term } });
            }
            seen.views.insert(node, (asked, view));
        }
        sleep(LOOK).await;
    }
}
