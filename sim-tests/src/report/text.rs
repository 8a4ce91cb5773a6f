//! The verdict for people.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::{Judgement, Outcomes, Summary};
use crate::history::{LeftOut, Source};
use crate::scenario::Pace;

/// Violations of one invariant that are shown; the rest are counted.
const SHOWN: usize = 5;

pub fn text(summary: &Summary) -> String {
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = write(summary, &mut out);
    out
}

fn write(summary: &Summary, out: &mut String) -> std::fmt::Result {
    let seed = summary.seed.map_or_else(String::new, |seed| format!(", seed {seed}"));
    let planted = summary.planted.as_ref().map_or_else(String::new, |bug| format!(", planted {bug}"));
    let how = match summary.source {
        Source::Simulated => "simulated",
        Source::RealProcesses => "real processes",
    };
    writeln!(out, "{}{seed}{planted}: {} nodes, {how}", summary.scenario, summary.nodes)?;
    if summary.facts.pace == Some(Pace::Coarse) {
        writeln!(out, "Coarse pace: heartbeats, elections and leases a thousand times slower than the product's own.")?;
    }
    writeln!(out)?;
    let width = summary.findings.iter().map(|line| line.name.len()).max().unwrap_or(0);
    for line in &summary.findings {
        let name = &line.name;
        match &line.judgement {
            Judgement::Held { checked } => writeln!(out, "  held      {name:width$}  {checked} checked")?,
            Judgement::NotApplicable { needs } => writeln!(out, "  -         {name:width$}  needs {needs}")?,
            Judgement::Violated { violations } => {
                writeln!(out, "  VIOLATED  {name:width$}  {} times", violations.len())?;
                for violation in violations.iter().take(SHOWN) {
                    let of =
                        if violation.invariant == *name { String::new() } else { format!("{}: ", violation.invariant) };
                    writeln!(out, "            at {:.3} s: {of}{}", violation.t as f64 / 1e6, violation.what)?;
                }
                if violations.len() > SHOWN {
                    writeln!(out, "            and {} more", violations.len() - SHOWN)?;
                }
            }
        }
    }
    if summary.findings.is_empty() {
        writeln!(out, "  nothing was judged")?;
    }
    writeln!(out)?;
    let late = summary.worst_lateness_ms.map_or_else(String::new, |ms| format!(", the worst {ms} ms late"));
    writeln!(out, "  fired       {}{late}", summary.fired)?;
    if !summary.lapsed.is_empty() {
        writeln!(out, "  not fired   {}", counted(&summary.lapsed))?;
    }
    writeln!(out, "  delivered   {}", summary.deliveries)?;
    let not_sent = if summary.not_sent == 0 { String::new() } else { format!(", {} not sent", summary.not_sent) };
    writeln!(out, "  operations  {}{not_sent}", outcomes(&summary.operations))?;
    if summary.changes != Outcomes::default() {
        writeln!(out, "  changes     {}", outcomes(&summary.changes))?;
    }
    writeln!(out, "  leaders     {}", summary.elections)?;
    let faults = if summary.faults.is_empty() { "none".into() } else { counted(&summary.faults) };
    writeln!(out, "  faults      {faults}")?;
    if !summary.bounds.is_empty() {
        writeln!(out, "  bounds      {}", counted(&summary.bounds))?;
    }
    for (n, (why, faults)) in by_reason(&summary.left_out).into_iter().enumerate() {
        let head = if n == 0 { "left out" } else { "" };
        writeln!(out, "  {head:10}  {}: {why}", faults.join(", "))?;
    }
    let time = match (summary.facts.simulated_ms, summary.facts.real_ms) {
        (Some(simulated), Some(real)) => {
            let speed = summary.speed().map_or_else(String::new, |speed| format!(", {speed:.0} times as fast"));
            format!("{:.1} s simulated in {:.2} s{speed}", seconds(simulated), seconds(real))
        }
        _ => format!("{:.1} s observed", seconds(summary.observed_ms)),
    };
    writeln!(out, "  time        {time}")?;
    if let Some(hash) = &summary.facts.trace_hash {
        writeln!(out, "  trace       {hash}")?;
    }
    writeln!(out)?;
    let Some(first) = summary.violations().min_by_key(|violation| violation.t) else {
        return writeln!(out, "Held.");
    };
    writeln!(
        out,
        "VIOLATED: {}, first {} at {:.3} s.",
        summary.broken().join(", "),
        first.invariant,
        first.t as f64 / 1e6
    )?;
    summary.facts.replay.as_ref().map_or(Ok(()), |replay| writeln!(out, "Again:  {replay}"))
}

fn outcomes(of: &Outcomes) -> String {
    format!("{} done, {} refused, {} unknown", of.done, of.refused, of.unknown)
}

fn seconds(ms: u64) -> f64 {
    ms as f64 / 1000.0
}

fn counted(counts: &BTreeMap<String, u64>) -> String {
    counts.iter().map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>().join(", ")
}

/// Kinds of faults, with counts where they were planned, by why they were left out.
fn by_reason(left_out: &[LeftOut]) -> BTreeMap<&str, Vec<String>> {
    let mut reasons = BTreeMap::<&str, Vec<String>>::new();
    for LeftOut { fault, count, why } in left_out {
        let times = if *count > 0 { format!(" {count}") } else { String::new() };
        reasons.entry(why).or_default().push(format!("{fault}{times}"));
    }
    reasons
}
