use campanile_model::NodeId;

use super::*;
use crate::history::{FORMAT, Header, Source};
use crate::report::{Case, Facts, junit};
use crate::verdict::{Finding, Verdict, Violation};

fn history() -> History {
    let header = Header {
        format: FORMAT,
        version: "0".into(),
        source: Source::Simulated,
        scenario: "<b>\"bold\"</b> & {{script}}".into(),
        seed: Some(7),
        planted: None,
        epoch_ms: 0,
        nodes: vec![NodeId(1)],
        clock_error_ms: 0,
        lateness_bound_ms: 5000,
        bounds: Default::default(),
        webhook_secret: None,
        left_out: Vec::new(),
    };
    History { header, events: Vec::new() }
}

fn summary(history: &History, what: &str) -> Summary {
    let violation = |t| Violation { invariant: "unique_fire".into(), t, what: what.into() };
    let verdict = Verdict {
        findings: vec![
            ("never_early", Finding::Held { checked: 9 }),
            ("unique_fire", Finding::Violated(vec![violation(2_000_000), violation(1_500_000)])),
            ("lease_exclusivity", Finding::NotApplicable { needs: "the log" }),
        ],
    };
    let facts = Facts {
        replay: Some("campanile-sim replay --seed 7".into()),
        simulated_ms: Some(60_000),
        real_ms: Some(200),
        cpu_ms: None,
        ..Facts::default()
    };
    Summary::of(history, &verdict, facts)
}

#[test]
fn a_page_stands_alone_whatever_the_names_are() {
    let history = history();
    let page = html(&history, &summary(&history, "</script><script>alert(1)</script>"));
    for forbidden in ["http://", "https://", "<b>", "<link", "src=", "alert(1)</script>"] {
        let allowed = "http://www.w3.org/2000/svg";
        assert!(!page.replace(allowed, "").contains(forbidden), "{forbidden}");
    }
    // A name in braces is a name.
    assert!(page.contains("&amp; {{script}}, seed 7 · Campanile</title>"));
    let data = page.split_once("type=\"application/json\">").unwrap().1.split_once("</script>").unwrap().0;
    let data: serde_json::Value = serde_json::from_str(data).unwrap();
    assert_eq!(data["violations"][0]["t"], 1_500_000);
    assert_eq!(data["replay"], "campanile-sim replay --seed 7");
}

#[test]
fn the_text_has_a_line_for_each_invariant_and_the_replay_line_last() {
    let history = history();
    let text = text(&summary(&history, "fired twice"));
    for line in [
        "held      never_early        9 checked",
        "VIOLATED  unique_fire        2 times",
        "at 1.500 s: fired twice",
        "-         lease_exclusivity  needs the log",
        "60.0 s simulated in 0.20 s, 300 times as fast",
        "VIOLATED: unique_fire, first unique_fire at 1.500 s.",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    assert_eq!(text.lines().last().unwrap(), "Again:  campanile-sim replay --seed 7");
}

#[test]
fn a_summary_reads_back_what_it_writes() {
    let history = history();
    let summary = summary(&history, "fired twice");
    let json = serde_json::to_string(&summary).unwrap();
    assert_eq!(serde_json::from_str::<Summary>(&json).unwrap(), summary);
}

#[test]
fn junit_counts_and_escapes() {
    let cases = [
        Case { name: "good".into(), seconds: 0.5, ..Case::default() },
        Case { name: "bad".into(), failure: Some(("a < b & \"c\"\n\u{1}".into(), "all".into())), ..Case::default() },
        Case { name: "skipped".into(), skipped: Some("needs x".into()), ..Case::default() },
    ];
    assert_eq!(
        junit("s", &cases),
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n\
         <testsuite name=\"s\" tests=\"3\" failures=\"1\" skipped=\"1\" time=\"0.500\">\n\
         <testcase classname=\"s\" name=\"good\" time=\"0.500\"/>\n\
         <testcase classname=\"s\" name=\"bad\" time=\"0.000\">\
         <failure message=\"a &lt; b &amp; &quot;c&quot;&#10;\u{fffd}\">all</failure></testcase>\n\
         <testcase classname=\"s\" name=\"skipped\" time=\"0.000\"><skipped message=\"needs x\"/></testcase>\n\
         </testsuite>\n</testsuites>\n"
    );
}
