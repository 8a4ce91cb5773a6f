//! A node that has lost its lease sends nothing more: once the log has fenced it, no attempt from before arrives from
//! it. Left out are deliveries around anything that may hold up what was sent in time: receivers that are slow or gone,
//! slow networks, paused processes, drifting clocks (leases are measured by them).

use super::index::Facts;
use super::report::Report;
use crate::verdict::Finding;

/// A request is on its way, or being sent, for so long.
const ON_ITS_WAY: u64 = 1_000_000;
/// What was held up before the fence may come out so much later: the longest that an attempt may hang by default.
const HELD_UP: u64 = 30_000_000;

pub fn check(facts: &Facts) -> Finding {
    let mut report = Report::new("no_stale_send");
    for (id, run) in &facts.runs {
        for delivered in &run.deliveries {
            let (node, token, attempt) = (delivered.it.node, delivered.it.token, delivered.it.attempt);
            let Some(rows) = facts.fences.get(&node) else { continue };
            // Fences rise, so the first above the token is the one that took the attempt away.
            let Some(row) = rows.get(rows.partition_point(|row| row.fence <= token)) else {
                report.looked();
                continue;
            };
            let late = delivered.t > row.t + ON_ITS_WAY;
            let excused = late && facts.receiver_troubles.touch(row.t.saturating_sub(HELD_UP), delivered.t);
            report.hold(!late || excused, delivered.t, || {
                format!(
                    "attempt {attempt} of run {id} came from node {node} {} ms after entry {} had fenced it",
                    (delivered.t - row.t) / 1000,
                    row.index
                )
            });
        }
    }
    report.finish_if_any("deliveries, and rows of nodes")
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use crate::plan::Fault;

    const NAME: &str = "no_stale_send";

    #[test]
    fn a_send_after_the_lease() {
        let run = fired(5, 10);
        let fenced = || Script::new().row(&run).at(50_000).node_row(6, 1, 1, 6, false);
        accepts(NAME, fenced().at(51_000).deliver(1, &run));
        refuses(NAME, fenced().at(51_001).deliver(1, &run));
        accepts(NAME, fenced().at(51_001).deliver(1, &attempt(&run, 2, 7)));
        not_applicable(NAME, Script::new().real().deliver(1, &run));
    }

    #[test]
    fn what_was_held_up_is_excused_and_what_was_cut_off_is_not() {
        let run = fired(5, 10);
        let under = |fault| {
            Script::new().at(30_000).begin(0, fault).at(50_000).node_row(6, 1, 1, 6, false).at(60_000).deliver(1, &run)
        };
        accepts(NAME, under(Fault::ReceiverHangs));
        refuses(NAME, under(Fault::LeaderInMinority));
    }
}
