//! The timeline as one HTML file that needs no network: the page, its style, its script and the data, in one.

use super::timeline::Timeline;
use super::{Summary, text};
use crate::history::History;

const PAGE: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

pub fn html(history: &History, summary: &Summary) -> String {
    let timeline = Timeline::of(history, summary);
    // Every value of the timeline has a JSON form.
    let data = serde_json::to_string(&timeline).unwrap_or_else(|error| format!("{:?}", error.to_string()));
    let title = match summary.seed {
        Some(seed) => format!("{}, seed {seed}", summary.scenario),
        None => summary.scenario.clone(),
    };
    // One pass, so that what is put in is not looked at again.
    let mut page = String::with_capacity(PAGE.len() + STYLE.len() + SCRIPT.len() + data.len());
    let mut rest = PAGE;
    while let Some((before, after)) = rest.split_once("{{") {
        let (name, after) = after.split_once("}}").unwrap_or((after, ""));
        page.push_str(before);
        match name {
            "title" => page.push_str(&escaped(&title)),
            "style" => page.push_str(STYLE),
            "script" => page.push_str(SCRIPT),
            "verdict" => page.push_str(&escaped(&text(summary))),
            // Inside a script element nothing but `<` could end it.
            "data" => page.push_str(&data.replace('<', "\\u003c")),
            _ => {}
        }
        rest = after;
    }
    page.push_str(rest);
    page
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
#[path = "report_tests.rs"]
mod tests;
