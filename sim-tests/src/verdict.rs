//! What a checker says of a history.

use serde::{Deserialize, Serialize};

/// A promise that was broken, with what shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Violation {
    /// Name of the invariant, or of the expectation.
    pub invariant: String,
    /// When it shows, in microseconds since the start.
    pub t: u64,
    /// One sentence with the ids in it.
    pub what: String,
}

/// What one checker found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// It held; `checked` things were looked at.
    Held {
        checked: u64,
    },
    Violated(Vec<Violation>),
    /// The history does not have the facts it needs.
    NotApplicable {
        needs: &'static str,
    },
}

/// The judgement of a whole history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub findings: Vec<(&'static str, Finding)>,
}

impl Verdict {
    pub fn violations(&self) -> impl Iterator<Item = &Violation> {
        self.findings.iter().flat_map(|(_, finding)| match finding {
            Finding::Violated(violations) => violations.as_slice(),
            _ => &[],
        })
    }

    pub fn holds(&self) -> bool {
        self.violations().next().is_none()
    }
}
