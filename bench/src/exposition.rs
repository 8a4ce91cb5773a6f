//! Reads figures out of what a node says at `/metrics` (OpenMetrics text, https://prometheus.io/docs/specs/om/).

use anyhow::{Context, Result, ensure};

/// One answer of `/metrics`.
pub struct Exposition(String);

impl Exposition {
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The value of a metric without labels.
    pub fn value(&self, name: &str) -> Result<f64> {
        let line = self.0.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|value| value.parse().ok()).with_context(|| format!("/metrics has no {name}"))
    }

    pub fn histogram(&self, name: &str) -> Result<Histogram> {
        let prefix = format!("{name}_bucket{{le=\"");
        let buckets = self.0.lines().filter_map(|line| {
            let (bound, count) = line.strip_prefix(&prefix)?.split_once("\"} ")?;
            let bound = if bound == "+Inf" { f64::INFINITY } else { bound.parse().ok()? };
            Some((bound, count.parse().ok()?))
        });
        let buckets: Vec<(f64, f64)> = buckets.collect();
        ensure!(!buckets.is_empty(), "/metrics has no histogram {name}");
        Ok(Histogram { buckets })
    }
}

/// Upper bounds and how many observations were not above them.
pub struct Histogram {
    buckets: Vec<(f64, f64)>,
}

impl Histogram {
    /// As Prometheus' `histogram_quantile`: observations lie evenly within their bucket. Of what is above the last
    /// bound, that bound.
    pub fn quantile(&self, quantile: f64) -> Option<f64> {
        let total = self.buckets.last()?.1;
        if total == 0.0 {
            return None;
        }
        let rank = quantile * total;
        let (mut lower, mut below) = (0.0, 0.0);
        for (bound, count) in &self.buckets {
            if *count >= rank && *count > below {
                let within = (rank - below) / (count - below);
                return Some(if bound.is_finite() { lower + (bound - lower) * within } else { lower });
            }
            (lower, below) = (*bound, *count);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exposition() -> Exposition {
        let text = "# TYPE a gauge\na 7\nab 8\nc_total 9\nh_bucket{le=\"0.1\"} 50\nh_bucket{le=\"0.2\"} 90\n\
                    h_bucket{le=\"+Inf\"} 100\n# EOF\n";
        Exposition::new(text.into())
    }

    #[test]
    fn values_are_found_by_their_whole_name() {
        assert_eq!([exposition().value("a").unwrap(), exposition().value("c_total").unwrap()], [7.0, 9.0]);
        assert!(exposition().value("b").is_err());
    }

    #[test]
    fn quantiles_lie_evenly_within_a_bucket() {
        let histogram = exposition().histogram("h").unwrap();
        let close = |quantile, expected: f64| {
            let found = histogram.quantile(quantile).unwrap();
            assert!((found - expected).abs() < 1e-9, "{quantile}: {found}");
        };
        close(0.25, 0.05);
        close(0.5, 0.1);
        close(0.7, 0.15);
        close(0.99, 0.2);
        assert!(exposition().histogram("g").is_err());
    }
}
