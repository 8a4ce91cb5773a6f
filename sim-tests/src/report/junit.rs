//! JUnit XML, for CI.

use std::fmt::Write;

/// A line of the table that CI shows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Case {
    pub name: String,
    pub seconds: f64,
    /// Why it failed: a sentence, then all there is to say.
    pub failure: Option<(String, String)>,
    /// Why it could not be judged.
    pub skipped: Option<String>,
}

/// One suite.
pub fn junit(suite: &str, cases: &[Case]) -> String {
    let failures = cases.iter().filter(|case| case.failure.is_some()).count();
    let skipped = cases.iter().filter(|case| case.skipped.is_some()).count();
    let seconds: f64 = cases.iter().map(|case| case.seconds).sum();
    let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    let suite = escaped(suite);
    let tests = cases.len();
    // Writing to a string does not fail.
    let _ = writeln!(
        out,
        "<testsuites>\n<testsuite name=\"{suite}\" tests=\"{tests}\" failures=\"{failures}\" skipped=\"{skipped}\" time=\"{seconds:.3}\">"
    );
    for case in cases {
        let _ = write!(
            out,
            "<testcase classname=\"{suite}\" name=\"{}\" time=\"{:.3}\"",
            escaped(&case.name),
            case.seconds
        );
        let inside = match (&case.failure, &case.skipped) {
            (Some((why, all)), _) => format!("<failure message=\"{}\">{}</failure>", escaped(why), escaped(all)),
            (None, Some(why)) => format!("<skipped message=\"{}\"/>", escaped(why)),
            (None, None) => String::new(),
        };
        let _ = if inside.is_empty() { writeln!(out, "/>") } else { writeln!(out, ">{inside}</testcase>") };
    }
    out.push_str("</testsuite>\n</testsuites>\n");
    out
}

/// Characters that XML gives a meaning, and those it forbids.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '"' => out.push_str("&quot;"),
            '\n' => out.push_str("&#10;"),
            '\t' => out.push(c),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}
