//! Latencies as a histogram with three significant digits, and their figures in milliseconds.

use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;

/// Longer ones count as this: one hour.
const LONGEST_US: u64 = 3_600_000_000;

/// Recorded in microseconds. Negative ones count as zero: earliness is the verdict's business.
#[derive(Clone, Debug)]
pub struct Latencies(Histogram<u64>);

impl Default for Latencies {
    fn default() -> Self {
        const DIGITS: u8 = 3;
        Self(Histogram::new_with_max(LONGEST_US, DIGITS).expect("bounds that a histogram can have"))
    }
}

impl Latencies {
    pub fn record_us(&mut self, micros: i64) {
        self.0.saturating_record(u64::try_from(micros).unwrap_or_default());
    }

    pub fn record(&mut self, took: Duration) {
        self.record_us(i64::try_from(took.as_micros()).unwrap_or(i64::MAX));
    }

    pub fn add(&mut self, other: &Self) {
        self.0 += &other.0;
    }

    pub fn len(&self) -> u64 {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn mean_ms(&self) -> f64 {
        self.0.mean() / 1000.0
    }

    pub fn p50_ms(&self) -> f64 {
        self.0.value_at_quantile(0.5) as f64 / 1000.0
    }

    pub fn p99_ms(&self) -> f64 {
        self.0.value_at_quantile(0.99) as f64 / 1000.0
    }

    pub fn max_ms(&self) -> f64 {
        self.0.max() as f64 / 1000.0
    }
}

impl fmt::Display for Latencies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p50 {:.1}  p99 {:.1}  max {:.1} ms", self.p50_ms(), self.p99_ms(), self.max_ms())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_those_of_what_was_recorded() {
        let mut latencies = Latencies::default();
        for millis in 1..=100 {
            latencies.record_us(millis * 1000);
        }
        latencies.record_us(-5);
        assert_eq!(latencies.len(), 101);
        assert!((latencies.mean_ms() - 50.0).abs() < 0.1, "{}", latencies.mean_ms());
        assert!((latencies.p50_ms() - 50.0).abs() < 0.1, "{latencies}");
        assert!((latencies.p99_ms() - 99.0).abs() < 0.2, "{latencies}");
        assert!((latencies.max_ms() - 100.0).abs() < 0.1, "{latencies}");
    }
}
