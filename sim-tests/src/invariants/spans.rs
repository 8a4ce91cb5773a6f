//! Spans of time in which something was wrong.

/// From, inclusive, to, inclusive, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    pub from: u64,
    pub to: u64,
}

/// Spans that do not overlap, in order, once [`Spans::settle`] has been called.
#[derive(Debug, Default)]
pub struct Spans(Vec<Span>);

impl Spans {
    pub fn add(&mut self, span: Span) {
        self.0.push(span);
    }

    /// Cuts off what lies after `t`.
    pub fn end_by(&mut self, t: u64) {
        self.0.retain(|span| span.from <= t);
        for span in &mut self.0 {
            span.to = span.to.min(t);
        }
    }

    /// Puts them in order and joins those that overlap.
    pub fn settle(&mut self) {
        self.0.sort_unstable();
        let mut joined: Vec<Span> = Vec::with_capacity(self.0.len());
        for span in self.0.drain(..) {
            match joined.last_mut() {
                Some(last) if span.from <= last.to => last.to = last.to.max(span.to),
                _ => joined.push(span),
            }
        }
        self.0 = joined;
    }

    /// The first instant from `t` on after which nothing is wrong for `long`.
    pub fn first_quiet(&self, t: u64, long: u64) -> u64 {
        let first = self.0.partition_point(|span| span.to < t);
        let mut quiet = t;
        for span in &self.0[first..] {
            if span.from > quiet.saturating_add(long) {
                break;
            }
            quiet = span.to;
        }
        quiet
    }

    /// Since when nothing is wrong at `t`; `None` if something is.
    pub fn quiet_since(&self, t: u64) -> Option<u64> {
        let began = self.0.partition_point(|span| span.from <= t);
        let last = began.checked_sub(1).map(|last| self.0[last].to);
        last.map_or(Some(0), |to| (to < t).then_some(to))
    }

    /// Whether anything is wrong at any time from `from` to `to`.
    pub fn touch(&self, from: u64, to: u64) -> bool {
        let first = self.0.partition_point(|span| span.to < from);
        self.0.get(first).is_some_and(|span| span.from <= to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spans() -> Spans {
        let mut spans = Spans::default();
        for (from, to) in [(50, 60), (10, 20), (15, 30), (90, u64::MAX)] {
            spans.add(Span { from, to });
        }
        spans.settle();
        spans
    }

    #[test]
    fn overlapping_spans_are_one() {
        assert_eq!(spans().0, [Span { from: 10, to: 30 }, Span { from: 50, to: 60 }, Span { from: 90, to: u64::MAX }]);
    }

    #[test]
    fn quiet_is_what_stays_quiet_for_long_enough() {
        let spans = spans();
        for (t, long, quiet) in
            [(0, 5, 0), (0, 10, 30), (12, 5, 30), (12, 20, 60), (31, 10, 31), (60, 5, 60), (61, 30, u64::MAX)]
        {
            assert_eq!(spans.first_quiet(t, long), quiet, "from {t} for {long}");
        }
    }

    #[test]
    fn quiet_has_a_beginning() {
        let spans = spans();
        for (t, since) in [(5, Some(0)), (10, None), (30, None), (31, Some(30)), (70, Some(60)), (95, None)] {
            assert_eq!(spans.quiet_since(t), since, "at {t}");
        }
    }

    #[test]
    fn touching_includes_the_edges() {
        let spans = spans();
        assert!(spans.touch(30, 40) && spans.touch(0, 10) && spans.touch(1000, 1000));
        assert!(!spans.touch(31, 49));
    }

    #[test]
    fn nothing_is_wrong_after_the_end() {
        let mut spans = spans();
        spans.end_by(55);
        assert_eq!(spans.0, [Span { from: 10, to: 30 }, Span { from: 50, to: 55 }]);
    }
}
