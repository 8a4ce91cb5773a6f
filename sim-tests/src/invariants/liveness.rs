//! Once the faults are over, the healed nodes agree again and owe nothing; and a cluster that has converged answers who
//! asks for all it has. Without that answer the checkers of final states would have nothing to look at.

use super::index::Facts;
use super::report::Report;
use crate::history::{FinalRead, Source};
use crate::verdict::Finding;

pub fn check(facts: &Facts) -> Finding {
    let Some(healed) = facts.healed else {
        return Finding::NotApplicable { needs: "the end of the faults" };
    };
    let mut report = Report::new("liveness");
    let end = facts.history.end();
    let converged = facts.converged.is_some_and(|converged| converged >= healed);
    report.hold(converged, end, || {
        "the healed nodes did not come to one leader and equal states with nothing owed".to_owned()
    });
    // Whether real processes are read is asked by who drives them.
    if converged && facts.history.header.source == Source::Simulated {
        let why = match facts.final_read {
            Some((_, FinalRead::Whole)) => None,
            Some((_, FinalRead::Failed { error })) => Some(error.as_str()),
            Some((_, FinalRead::Begun)) | None => Some("nobody asked for it"),
        };
        report.hold(why.is_none(), end, || {
            format!("the converged cluster did not tell its final state: {}", why.unwrap_or_default())
        });
    }
    report.finish()
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use crate::history::{Event, FinalRead};
    use campanile_model::NodeId;

    const NAME: &str = "liveness";

    fn told(script: Script, read: FinalRead) -> Script {
        script.event(Event::FinalState { node: NodeId(1), read })
    }

    #[test]
    fn a_healed_cluster_converges_and_tells_its_state() {
        let healed = || Script::new().at(1_000).healed();
        refuses(NAME, healed());
        refuses(NAME, Script::new().converged().at(1_000).healed());
        let converged = || healed().at(2_000).converged();
        accepts(NAME, told(converged(), FinalRead::Whole));
        refuses(NAME, converged());
        let failed = || FinalRead::Failed { error: "connection refused".into() };
        refuses(NAME, told(converged(), failed()));
        accepts(NAME, told(told(converged(), failed()), FinalRead::Whole));
        accepts(NAME, Script::new().real().at(1_000).healed().at(2_000).converged());
    }
}
