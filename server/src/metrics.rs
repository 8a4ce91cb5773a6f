//! What `/metrics` shows. One registry per node, nothing global, because many nodes may live in one process.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::AtomicU64;

use campanile_model::{NodeId, Outcome};
use campanile_raft::Status;
use campanile_store::engine::Statistic;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// Bounds of the latency histograms, in seconds.
const SECONDS: [f64; 14] = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 60.0];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RequestLabels {
    pub route: String,
    pub status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct NodeLabels {
    pub node: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ResultLabels {
    pub result: &'static str,
}

/// Counters and gauges of a node, each described where it is registered.
pub struct Metrics {
    registry: Registry,
    pub conducting: Gauge,
    pub serving: Gauge,
    pub window_timers: Gauge,
    pub timers_rung: Counter,
    pub decisions: Counter,
    pub stale_decisions: Counter,
    pub commit_lateness: Histogram,
    pub proposals_repeated: Counter,
    pub retries: Counter,
    pub attempts_repeated: Counter,
    pub attempts_queued: Gauge,
    pub attempts_in_flight: Gauge,
    pub attempts: Family<ResultLabels, Counter>,
    pub outcomes_refused: Counter,
    pub delivery_lateness: Histogram,
    pub requests: Family<RequestLabels, Counter>,
    pub request_seconds: Histogram,
    pub connections: Gauge,
    leader: Gauge,
    term: Gauge,
    last_log: Gauge,
    committed: Gauge,
    applied: Gauge,
    snapshot: Gauge,
    purged: Gauge,
    replication_lag: Family<NodeLabels, Gauge>,
    clock_skew_seconds: Gauge<f64, AtomicU64>,
    pub tasks: Gauge,
    pub live_runs: Gauge,
    pub disk_free_bytes: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("campanile");
        let mut make = Maker { registry: &mut registry };
        let conducting = make.gauge("conducting", "1 while this node leads and fires");
        let serving = make.gauge("serving", "1 while this node may deliver");
        let window_timers = make.gauge("window_timers", "Timers held in memory by the leader");
        let timers_rung = make.counter("timers_rung", "Timers that came due on this leader");
        let decisions = make.counter("decisions", "Fires and lapses committed by this leader");
        let stale_decisions = make.counter("stale_decisions", "Decisions that were no-ops when they were applied");
        let commit_lateness = make.histogram("commit_lateness_seconds", "Commit of a fire minus due, on this leader");
        let proposals_repeated = make.counter("proposals_repeated", "Decisions proposed again after no answer");
        let retries = make.counter("retries", "Retry timers that rang");
        let attempts_repeated = make.counter("attempts_repeated", "Attempts repeated because their owner was lost");
        let attempts_queued = make.gauge("attempts_queued", "Attempts waiting for a connection");
        let attempts_in_flight = make.gauge("attempts_in_flight", "Attempts being sent");
        let attempts = Family::default();
        make.registry.register("attempts", "Attempts that ended, by result", attempts.clone());
        let outcomes_refused = make.counter("outcomes_refused", "Outcomes the log refused for their token");
        let delivery_lateness = make.histogram("delivery_lateness_seconds", "Start of a first attempt minus due");
        let requests = Family::default();
        make.registry.register("http_requests", "API requests, by route and status", requests.clone());
        let request_seconds = make.histogram("http_request_seconds", "Time to answer an API request");
        let connections = make.gauge("http_connections", "Open API connections");
        let leader = make.gauge("leader", "The node this one believes to lead; 0 for none");
        let term = make.gauge("term", "Raft term");
        let last_log = make.gauge("last_log_index", "Last log index in this node's log");
        let committed = make.gauge("committed_index", "Last log index this node knows to be committed");
        let applied = make.gauge("applied_index", "Last log index applied");
        let snapshot = make.gauge("snapshot_index", "Last log index in this node's snapshot");
        let purged = make.gauge("purged_index", "Last log index removed from this node's log");
        let replication_lag = Family::default();
        make.registry.register(
            "replication_lag_entries",
            "Entries of this leader's log that a node has not acknowledged",
            replication_lag.clone(),
        );
        let clock_skew_seconds = Gauge::default();
        make.registry.register(
            "clock_skew_seconds",
            "This node's clock minus the leader's",
            clock_skew_seconds.clone(),
        );
        let tasks = make.gauge("tasks", "Tasks in the cluster");
        let live_runs = make.gauge("live_runs", "Runs that have not finished");
        let disk_free_bytes = make.gauge("disk_free_bytes", "Bytes free where this node keeps its data");
        Self {
            registry,
            conducting,
            serving,
            window_timers,
            timers_rung,
            decisions,
            stale_decisions,
            commit_lateness,
            proposals_repeated,
            retries,
            attempts_repeated,
            attempts_queued,
            attempts_in_flight,
            attempts,
            outcomes_refused,
            delivery_lateness,
            requests,
            request_seconds,
            connections,
            leader,
            term,
            last_log,
            committed,
            applied,
            snapshot,
            purged,
            replication_lag,
            clock_skew_seconds,
            tasks,
            live_runs,
            disk_free_bytes,
        }
    }
}

impl Metrics {
    /// The OpenMetrics text, with what the replica counts and how each of its databases does.
    pub fn render(
        &self,
        raft: &campanile_raft::metrics::Metrics,
        databases: &[(&'static str, Vec<Statistic>)],
    ) -> String {
        let mut text = String::new();
        // Writing into a string cannot fail.
        let _ = encode_registry(&mut text, &self.registry);
        for (name, help, value) in raft.all() {
            let name = format!("campanile_raft_{name}");
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} counter\n{name}_total {value}");
        }
        // All lines of a name stand together, as the format wants it.
        let mut statistics: BTreeMap<&str, (&str, String)> = BTreeMap::new();
        for (database, statistic) in databases.iter().flat_map(|(name, of)| of.iter().map(move |one| (name, one))) {
            let (_, lines) = statistics.entry(statistic.name).or_insert((statistic.help, String::new()));
            let value = statistic.value;
            let _ = writeln!(lines, "campanile_database_{}{{database=\"{database}\"}} {value}", statistic.name);
        }
        for (name, (help, lines)) in statistics {
            let name = format!("campanile_database_{name}");
            let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} gauge\n{lines}");
        }
        let _ = encode_eof(&mut text);
        text
    }

    /// What the replica on `node` says of itself, and as leader of the others.
    pub fn show_status(&self, node: NodeId, status: &Status) {
        self.leader.set(status.leader.map_or(0, |leader| leader.0 as i64));
        self.term.set(status.term as i64);
        self.last_log.set(status.last_log as i64);
        self.committed.set(status.committed as i64);
        self.applied.set(status.applied as i64);
        self.snapshot.set(status.snapshot as i64);
        self.purged.set(status.purged as i64);
        // Members come and go, and only a leader knows.
        self.replication_lag.clear();
        for other in status.nodes.iter().filter(|other| other.id != node) {
            if let Some(lag) = other.lag {
                self.replication_lag.get_or_create(&NodeLabels { node: other.id.0 }).set(lag as i64);
            }
        }
        if let Some(skew) = status.nodes.iter().find(|row| row.id == node).and_then(|row| row.clock_skew_ms) {
            self.clock_skew_seconds.set(skew / 1000.0);
        }
    }

    pub fn attempts_ended(&self, outcome: &Outcome) {
        let result = match outcome {
            Outcome::Succeeded => "succeeded",
            Outcome::RetryAfter(_) => "will_retry",
            Outcome::Failed => "failed",
            Outcome::TimedOut => "timed_out",
            Outcome::Gone => "gone",
        };
        self.attempts.get_or_create(&ResultLabels { result }).inc();
    }
}

struct Maker<'a> {
    registry: &'a mut Registry,
}

impl Maker<'_> {
    fn gauge(&mut self, name: &str, help: &str) -> Gauge {
        let gauge = Gauge::default();
        self.registry.register(name, help, gauge.clone());
        gauge
    }

    fn counter(&mut self, name: &str, help: &str) -> Counter {
        let counter = Counter::default();
        self.registry.register(name, help, counter.clone());
        counter
    }

    fn histogram(&mut self, name: &str, help: &str) -> Histogram {
        let histogram = Histogram::new(SECONDS);
        self.registry.register(name, help, histogram.clone());
        histogram
    }
}

#[cfg(test)]
mod tests {
    use campanile_raft::{NodeStatus, Role};

    use super::*;

    fn text_of(metrics: &Metrics) -> String {
        metrics.render(&campanile_raft::metrics::Metrics::default(), &[])
    }

    #[cfg(not(madsim))]
    #[test]
    fn the_guide_lists_every_metric_with_its_kind() {
        use campanile_store::engine::{Disk, FsDisk, Purpose};

        let guide = include_str!("../../docs/guide/operations.md");
        let directory = tempfile::tempdir().unwrap();
        let database = FsDisk::open(directory.path()).unwrap().open("state", Purpose::State, &[]).unwrap();
        let databases = [("log", database.statistics()), ("state", database.statistics())];
        let text = Metrics::default().render(&campanile_raft::metrics::Metrics::default(), &databases);
        let types: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
        assert!(types.len() > 40, "{text}");
        for line in types {
            let (name, kind) = line.split_once(' ').unwrap();
            let suffix = if kind == "counter" { "_total" } else { "" };
            let (plain, labelled) = (format!("| `{name}{suffix}` | {kind} |"), format!("| `{name}{suffix}{{"));
            assert!(guide.contains(&plain) || guide.contains(&labelled), "docs/guide/operations.md lacks {plain}");
        }
        assert!(text.ends_with("# EOF\n"), "{text}");
    }

    #[test]
    fn statistics_of_databases_stand_together_by_name() {
        let one = |name, value| Statistic { name, help: "What it is", value };
        let databases = [("log", vec![one("rows", 1), one("bytes", 2)]), ("state", vec![one("rows", 3)])];
        let text = Metrics::default().render(&campanile_raft::metrics::Metrics::default(), &databases);
        let (_, shown) = text.split_once("# HELP campanile_database").unwrap();
        let wanted = "_bytes What it is\n# TYPE campanile_database_bytes gauge\n\
            campanile_database_bytes{database=\"log\"} 2\n\
            # HELP campanile_database_rows What it is\n# TYPE campanile_database_rows gauge\n\
            campanile_database_rows{database=\"log\"} 1\n\
            campanile_database_rows{database=\"state\"} 3\n# EOF\n";
        assert_eq!(shown, wanted);
    }

    #[test]
    fn a_leader_shows_how_far_the_others_are_behind() {
        let node = |id, lag| NodeStatus {
            id: NodeId(id),
            role: Role::Follower,
            peer: String::new(),
            api: String::new(),
            lag,
            last_heard: None,
            clock_skew_ms: None,
            incarnation: None,
        };
        let mut status = Status {
            node: NodeId(1),
            cluster: None,
            leader: Some(NodeId(1)),
            term: 7,
            voted_for: NodeId(1),
            elected: true,
            applied: 40,
            committed: 41,
            last_log: 42,
            snapshot: 30,
            purged: 20,
            nodes: vec![node(1, Some(0)), node(2, Some(5)), node(3, None)],
            members_since: (1, 1),
            joint: false,
        };
        let metrics = Metrics::default();
        metrics.show_status(NodeId(1), &status);
        let text = text_of(&metrics);
        for line in [
            "campanile_leader 1",
            "campanile_term 7",
            "campanile_last_log_index 42",
            "campanile_committed_index 41",
            "campanile_applied_index 40",
            "campanile_snapshot_index 30",
            "campanile_purged_index 20",
            "campanile_replication_lag_entries{node=\"2\"} 5",
        ] {
            assert!(text.lines().any(|shown| shown == line), "{line} is not in {text}");
        }
        status.nodes.iter_mut().for_each(|node| node.lag = None);
        metrics.show_status(NodeId(1), &status);
        assert!(!text_of(&metrics).contains("lag_entries{"), "it leads no more");
    }
}
