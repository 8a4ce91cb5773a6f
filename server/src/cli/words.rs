//! Parsers for arguments that are one of a fixed list of words, shown in help and completed by shells.

use clap::builder::{PossibleValuesParser, TypedValueParser};
use serde::de::DeserializeOwned;

/// Reads one of `words` as the JSON word of `T`.
pub fn words<T>(words: &'static [&'static str]) -> impl TypedValueParser<Value = T>
where
    T: DeserializeOwned + Clone + Send + Sync + 'static,
{
    PossibleValuesParser::new(words).try_map(|given| {
        // Where an argument ignores case, its type does not.
        let word = words.iter().find(|word| word.eq_ignore_ascii_case(&given)).copied().unwrap_or(&given);
        serde_json::from_value(word.into())
    })
}

/// `key=value`.
pub fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected key=value")?;
    Ok((key.into(), value.into()))
}

/// `Name: value`.
pub fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("expected 'Name: value'")?;
    Ok((name.trim().into(), value.trim().into()))
}

pub const DST: &[&str] = &["vixie", "skip", "twice"];
pub const METHODS: &[&str] = &["POST", "GET", "PUT", "PATCH", "DELETE"];
pub const OVERLAP: &[&str] = &["allow", "skip", "buffer_one", "buffer_all", "cancel_other"];
pub const CATCH_UP: &[&str] = &["fire_once", "fire_all", "skip"];
pub const DELIVERY: &[&str] = &["at_least_once", "at_most_once"];
pub const ON_FINISH: &[&str] = &["keep", "delete"];
pub const TASK_STATES: &[&str] = &["active", "paused", "finished"];
pub const RUN_STATES: &[&str] = &["pending", "running", "retrying", "succeeded", "failed", "cancelled", "timed_out"];

#[cfg(test)]
mod tests {
    use campanile_model::{CatchUpPolicy, Delivery, Dst, HttpMethod, OnFinish, Overlap, RunState, TaskStatus};

    use super::*;

    fn all_are<T: DeserializeOwned>(words: &[&str]) {
        for word in words {
            let read: Result<T, _> = serde_json::from_value((*word).into());
            assert!(read.is_ok(), "{word}");
        }
    }

    #[test]
    fn every_word_offered_is_one_of_its_type() {
        all_are::<Dst>(DST);
        all_are::<HttpMethod>(METHODS);
        all_are::<Overlap>(OVERLAP);
        all_are::<CatchUpPolicy>(CATCH_UP);
        all_are::<Delivery>(DELIVERY);
        all_are::<OnFinish>(ON_FINISH);
        all_are::<TaskStatus>(TASK_STATES);
        all_are::<RunState>(RUN_STATES);
    }
}
