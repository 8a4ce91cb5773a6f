//! Paths and queries, percent-encoded. Names may hold `:` and `/`, which must not be taken for verbs or segments.

use std::fmt::{Display, Write};

/// A path that grows into a request target.
pub(crate) struct Target {
    text: String,
    has_query: bool,
}

impl Target {
    /// `base` is written as it is.
    pub fn new(base: &str) -> Self {
        Self { text: base.into(), has_query: false }
    }

    /// Adds `/segment`, encoded.
    pub fn segment(mut self, segment: &str) -> Self {
        self.text.push('/');
        encode(segment, &mut self.text);
        self
    }

    /// Adds text that is already a path.
    pub fn then(mut self, path: &str) -> Self {
        self.text.push_str(path);
        self
    }

    pub fn query(mut self, key: &str, value: Option<impl Display>) -> Self {
        if let Some(value) = value {
            self.text.push(if self.has_query { '&' } else { '?' });
            self.has_query = true;
            self.text.push_str(key);
            self.text.push('=');
            encode(&value.to_string(), &mut self.text);
        }
        self
    }

    pub fn finish(self) -> String {
        self.text
    }
}

/// Encodes all but RFC 3986's unreserved characters.
fn encode(text: &str, out: &mut String) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_break_out_of_their_segment() {
        let target = Target::new("/v1/namespaces")
            .segment("default")
            .then("/tasks")
            .segment("billing/eu:nightly?x")
            .query("after", Some("2026-03-28T12:00:00+01:00"))
            .query("count", None::<u32>)
            .query("label", Some("team=ü"))
            .finish();
        assert_eq!(
            target,
            "/v1/namespaces/default/tasks/billing%2Feu%3Anightly%3Fx?after=2026-03-28T12%3A00%3A00%2B01%3A00&label=team%3D%C3%BC"
        );
    }
}
