//! The figures of a benchmark run: as a document, and as a table for people.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use serde::Serialize;

use crate::latency::Latencies;

/// One figure.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    pub name: String,
    pub value: f64,
    pub unit: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p50_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p99_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_ms: Option<f64>,
    /// What it has to reach.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub floor: Option<Floor>,
    /// How often it was measured; the median is shown.
    pub runs: u32,
    /// Largest minus smallest, as a share of the median.
    pub spread: f64,
    /// The calibration that a rate is compared with, and the rate as a multiple of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub baseline: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ratio: Option<f64>,
    /// What else is worth knowing.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Floor {
    AtLeast(f64),
    AtMost(f64),
}

impl Floor {
    pub fn is_met(self, value: f64) -> bool {
        match self {
            Self::AtLeast(floor) => value >= floor,
            Self::AtMost(ceiling) => value <= ceiling,
        }
    }
}

impl Row {
    pub fn new(name: impl Into<String>, value: f64, unit: &'static str) -> Self {
        Self {
            name: name.into(),
            value,
            unit,
            p50_ms: None,
            p99_ms: None,
            max_ms: None,
            floor: None,
            runs: 1,
            spread: 0.0,
            baseline: None,
            ratio: None,
            detail: String::new(),
        }
    }

    pub fn latencies(self, latencies: &Latencies) -> Self {
        if latencies.is_empty() {
            return self;
        }
        let (p50_ms, p99_ms, max_ms) = (latencies.p50_ms(), latencies.p99_ms(), latencies.max_ms());
        Self { p50_ms: Some(p50_ms), p99_ms: Some(p99_ms), max_ms: Some(max_ms), ..self }
    }

    pub fn floor(self, floor: Floor) -> Self {
        Self { floor: Some(floor), ..self }
    }

    pub fn detail(self, detail: impl Into<String>) -> Self {
        Self { detail: detail.into(), ..self }
    }
}

/// Repetitions of the same rows as one set: of each the one with the median value, and how far they spread.
pub fn merge(repetitions: Vec<Vec<Row>>) -> Vec<Row> {
    let mut order = Vec::new();
    let mut by_name: BTreeMap<String, Vec<Row>> = BTreeMap::new();
    for row in repetitions.into_iter().flatten() {
        if !by_name.contains_key(&row.name) {
            order.push(row.name.clone());
        }
        by_name.entry(row.name.clone()).or_default().push(row);
    }
    let mut merged = Vec::new();
    for mut rows in order.into_iter().filter_map(|name| by_name.remove(&name)) {
        rows.sort_by(|a, b| a.value.total_cmp(&b.value));
        let range = rows[rows.len() - 1].value - rows[0].value;
        let (count, middle) = (rows.len(), rows.len() / 2);
        let median = rows.swap_remove(middle);
        let spread = if median.value == 0.0 { 0.0 } else { range / median.value };
        merged.push(Row { runs: u32::try_from(count).unwrap_or(u32::MAX), spread, ..median });
    }
    merged
}

#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub machine: String,
    /// Of the source tree the program is run from, if it is one.
    pub commit: String,
    pub version: &'static str,
    /// Load averages when the run began.
    pub load: String,
    pub command: String,
    pub results: Vec<Row>,
}

impl Report {
    pub fn new(load: String, results: Vec<Row>) -> Self {
        let command: Vec<String> = std::env::args().collect();
        let version = env!("CARGO_PKG_VERSION");
        Self { machine: machine(), commit: commit(), version, load, command: command.join(" "), results }
    }

    pub fn table(&self) -> String {
        let mut table = Table::new();
        table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        table.set_header([
            "NAME", "VALUE", "UNIT", "P50 MS", "P99 MS", "MAX MS", "FLOOR", "RUNS", "SPREAD", "RATIO", "",
        ]);
        for row in &self.results {
            let millis = |value: Option<f64>| value.map_or(String::new(), |value| format!("{value:.2}"));
            let floor = row.floor.map_or(String::new(), |floor| {
                let mark = if floor.is_met(row.value) { "met" } else { "MISSED" };
                match floor {
                    Floor::AtLeast(value) => format!(">= {} {mark}", number(value)),
                    Floor::AtMost(value) => format!("<= {} {mark}", number(value)),
                }
            });
            table.add_row([
                row.name.clone(),
                number(row.value),
                row.unit.to_owned(),
                millis(row.p50_ms),
                millis(row.p99_ms),
                millis(row.max_ms),
                floor,
                row.runs.to_string(),
                format!("{:.0} %", row.spread * 100.0),
                row.ratio.map_or(String::new(), |ratio| format!("{ratio:.2}")),
                row.detail.clone(),
            ]);
        }
        for column in [1, 3, 4, 5, 7, 8, 9] {
            if let Some(column) = table.column_mut(column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        let lines: String = table.lines().map(|line| format!("{}\n", line.trim_end())).collect();
        format!("machine: {}\ncommit:  {}\nload:    {}\n\n{lines}", self.machine, self.commit, self.load)
    }
}

/// `12345.6` as `12,346`; small numbers with two digits.
fn number(value: f64) -> String {
    if value.abs() < 100.0 {
        return format!("{value:.2}");
    }
    let digits = format!("{:.0}", value.abs());
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if value < 0.0 { format!("-{text}") } else { text }
}

fn machine() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| info.lines().find(|line| line.starts_with(name)).and_then(|line| line.split(": ").nth(1));
    let model = field("model name").unwrap_or("unknown processor").to_owned();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = memory.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.parse().ok());
    let gib = kib.unwrap_or(0_u64) / (1 << 20);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{cores} x {model}, {gib} GiB, Linux {}", kernel.trim())
}

fn commit() -> String {
    let output = Command::new("git").args(["describe", "--always", "--dirty", "--abbrev=12"]).output();
    match output {
        Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        // Run outside a checkout, or without git: the version is all there is to say.
        _ => "unknown".into(),
    }
}

/// One, five and fifteen minutes.
pub fn load_average() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().take(3).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repetitions_become_their_median_with_its_spread() {
        let rows = |value| vec![Row::new("a", value, "1/s"), Row::new("b", 1.0, "1/s")];
        let merged = merge(vec![rows(10.0), rows(30.0), rows(20.0)]);
        let names: Vec<_> = merged.iter().map(|row| row.name.as_str()).collect();
        assert_eq!(names, ["a", "b"]);
        assert_eq!((merged[0].value, merged[0].runs, merged[0].spread), (20.0, 3, 1.0));
    }

    #[test]
    fn the_table_says_whether_a_floor_is_met() {
        let rows = vec![
            Row::new("fast", 12_345.6, "1/s").floor(Floor::AtLeast(10_000.0)),
            Row::new("slow", 2.5, "s").floor(Floor::AtMost(1.5)),
        ];
        let table = Report::new(String::new(), rows).table();
        assert!(table.contains("12,346") && table.contains(">= 10,000 met"), "{table}");
        assert!(table.contains("<= 1.50 MISSED"), "{table}");
    }

    #[test]
    fn numbers_are_grouped() {
        assert_eq!([number(0.5), number(999.6), number(1_234_567.0)], ["0.50", "1,000", "1,234,567"]);
    }
}
