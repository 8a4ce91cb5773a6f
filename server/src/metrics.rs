//! What `/metrics` shows. One registry per node, nothing global, because many nodes may live in one process.

use std::sync::atomic::AtomicU64;

use campanile_model::Outcome;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
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
    pub leader: Gauge,
    pub term: Gauge,
    pub applied: Gauge,
    pub clock_skew_seconds: Gauge<f64, AtomicU64>,
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
        let applied = make.gauge("applied_index", "Last log index applied");
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
            applied,
            clock_skew_seconds,
            tasks,
            live_runs,
            disk_free_bytes,
        }
    }
}

impl Metrics {
    /// The OpenMetrics text.
    pub fn render(&self) -> String {
        let mut text = String::new();
        // Writing into a string cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
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
