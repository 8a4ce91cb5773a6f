//! Once the faults are over, the healed nodes agree again and owe nothing.

use super::index::Facts;
use super::report::Report;
use crate::verdict::Finding;

pub fn check(facts: &Facts) -> Finding {
    let Some(healed) = facts.healed else {
        return Finding::NotApplicable { needs: "the end of the faults" };
    };
    let mut report = Report::new("liveness");
    let end = facts.history.end();
    report.hold(facts.converged.is_some_and(|converged| converged >= healed), end, || {
        "the healed nodes did not come to one leader and equal states with nothing owed".to_owned()
    });
    report.finish()
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    const NAME: &str = "liveness";

    #[test]
    fn a_healed_cluster_converges() {
        let healed = || Script::new().at(1_000).healed();
        refuses(NAME, healed());
        refuses(NAME, Script::new().converged().at(1_000).healed());
        accepts(NAME, healed().at(2_000).converged());
    }
}
