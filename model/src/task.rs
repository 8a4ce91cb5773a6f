//! A task's definition: what the user wrote, with every default filled in, so that equal definitions are equal values.

use std::collections::BTreeMap;

use bincode::{Decode, Encode};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::codec::Versioned;
use crate::{Json, Millis, Schedule, Timestamp};

/// One version of a task: immutable once written, kept while a run refers to it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct TaskSpec {
    /// Empty: the task fires only when triggered by hand.
    #[serde(default)]
    pub schedules: Vec<Schedule>,
    pub target: Target,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload: Option<Json>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    #[serde(default)]
    pub priority: i8,
    /// Longest time one attempt may take.
    #[serde(default = "default_timeout")]
    pub timeout: Millis,
    /// No attempt starts later than this after the run was fired.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Millis>,
    #[serde(default)]
    pub overlap: Overlap,
    #[serde(default)]
    pub catch_up: CatchUp,
    #[serde(default)]
    pub retry: Retry,
    #[serde(default)]
    pub delivery: Delivery,
    /// Occurrences are due up to this much after their nominal time: a stable hash of the task, not a draw.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub jitter: Millis,
    /// No occurrence before this instant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_at: Option<Timestamp>,
    /// No occurrence at or after this instant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_at: Option<Timestamp>,
    /// Fires left before the task is finished; counted from the version that sets it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remaining: Option<u32>,
    /// Pauses the task after this many runs in a row have failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pause_on_failure: Option<u32>,
    #[serde(default)]
    pub retention: Retention,
    #[serde(default)]
    pub on_finish: OnFinish,
}

impl Versioned for TaskSpec {
    const NAME: &'static str = "task version";
}

impl TaskSpec {
    /// A definition with every policy at its default.
    pub fn new(schedules: Vec<Schedule>, target: Target) -> Self {
        Self {
            schedules,
            target,
            payload: None,
            labels: BTreeMap::new(),
            priority: 0,
            timeout: default_timeout(),
            deadline: None,
            overlap: Overlap::default(),
            catch_up: CatchUp::default(),
            retry: Retry::default(),
            delivery: Delivery::default(),
            jitter: Millis(0),
            start_at: None,
            end_at: None,
            remaining: None,
            pause_on_failure: None,
            retention: Retention::default(),
            on_finish: OnFinish::default(),
        }
    }

    /// See [`crate::TaskState::tracks_runs`].
    pub fn tracks_runs(&self) -> bool {
        crate::state::tracks_runs(self.overlap, self.pause_on_failure, self.on_finish)
    }

    /// Has at most one scheduled occurrence, whose ledger line is then kept in the task's own row.
    pub fn is_one_shot(&self) -> bool {
        self.schedules.len() == 1 && self.schedules[0].is_once()
    }
}

fn default_timeout() -> Millis {
    Millis::from_secs(30)
}

fn is_zero(span: &Millis) -> bool {
    span.0 == 0
}

/// Where a run goes.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Target {
    Http(HttpTarget),
}

/// A webhook.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct HttpTarget {
    pub url: String,
    #[serde(default)]
    pub method: HttpMethod,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// Standard Webhooks secret (`whsec_` and base64). Never shown again: reads answer `whsec_***`, which on write
    /// means "as it is".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signing_secret: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "UPPERCASE")]
pub enum HttpMethod {
    #[default]
    Post,
    Get,
    Put,
    Patch,
    Delete,
}

impl HttpMethod {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Post => "POST",
            Self::Get => "GET",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        }
    }
}

/// What an occurrence does when a run of the same task is still live.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Overlap {
    /// Runs beside it.
    #[default]
    Allow,
    /// Is dropped, with a ledger line.
    Skip,
    /// Waits; a later one takes the waiting one's place. Both have fired and stand in the ledger as such, so the run
    /// that gave way ends as cancelled.
    BufferOne,
    /// Waits in line, up to [`crate::limits::BUFFERED_RUNS`]; beyond that it is skipped.
    BufferAll,
    /// Cancels it and runs.
    CancelOther,
}

/// What becomes of occurrences that could not fire in time because no leader was there to fire them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct CatchUp {
    /// Overdue by less than this: fires, whatever the policy.
    pub grace: Millis,
    /// Overdue by more than this: missed, whatever the policy.
    pub window: Millis,
    pub policy: CatchUpPolicy,
}

impl Default for CatchUp {
    fn default() -> Self {
        Self { grace: Millis::from_secs(10), window: Millis::from_hours(1), policy: CatchUpPolicy::default() }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum CatchUpPolicy {
    /// The latest overdue occurrence fires; the ones before it are missed.
    #[default]
    FireOnce,
    FireAll,
    /// All are missed.
    Skip,
}

/// Exponential back-off: `initial * factor^(n-1)`, at most `max`, give or take `jitter` of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Retry {
    /// The first attempt included.
    pub max_attempts: u32,
    pub initial: Millis,
    pub factor: Ratio,
    pub max: Millis,
    /// Share of the delay, 0 to 1.
    pub jitter: Ratio,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            max_attempts: 4,
            initial: Millis::from_secs(1),
            factor: Ratio(2000),
            max: Millis::from_mins(5),
            jitter: Ratio(200),
        }
    }
}

/// A factor in thousandths, so that replicated state holds no float. JSON form: a number (`2`, `0.2`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct Ratio(pub u32);

impl Ratio {
    pub const ONE: Self = Self(1000);
}

impl Serialize for Ratio {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0.is_multiple_of(1000) {
            serializer.serialize_u32(self.0 / 1000)
        } else {
            serializer.serialize_f64(f64::from(self.0) / 1000.0)
        }
    }
}

impl<'de> Deserialize<'de> for Ratio {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = f64::deserialize(deserializer)?;
        let thousandths = (number * 1000.0).round();
        if !(0.0..=1_000_000.0).contains(&thousandths) {
            return Err(serde::de::Error::custom(format!("{number} is not between 0 and 1000")));
        }
        Ok(Self(thousandths as u32))
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Delivery {
    #[default]
    AtLeastOnce,
    /// One attempt; a lost owner ends the run as `failed(outcome_unknown)`.
    AtMostOnce,
}

/// A finished run is kept while it is one of the task's last `runs` or younger than `age`;
/// a finished one-shot, task and run, for one day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Retention {
    pub runs: u32,
    pub age: Millis,
}

impl Default for Retention {
    fn default() -> Self {
        Self { runs: 100, age: Millis::from_days(7) }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum OnFinish {
    #[default]
    Keep,
    Delete,
}
