//! Taking requests apart: bodies within their bounds and time, query parameters, headers, page tokens. Whatever does
//! not fit is answered as a problem.

use axum::body::Body;
use axum::extract::{FromRequestParts, Path, Query};
use axum::http::request::Parts;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use campanile_model::{Code, Idempotency, PutMode, TaskName, bound, limits};
use campanile_raft::rt;
use http::header::{IF_MATCH, IF_NONE_MATCH};
use http::{HeaderMap, HeaderValue};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::problem::ApiError;

/// Reads a body of at most `max` bytes, as long as it is sent fast enough.
pub async fn body(body: Body, max: usize) -> Result<Bytes, ApiError> {
    let read = rt::timeout(limits::REQUEST_READ.to_std(), Limited::new(body, max).collect()).await;
    match read {
        None => {
            Err(ApiError::new(Code::RequestTimeout, format!("the body did not arrive within {}", limits::REQUEST_READ)))
        }
        Some(Ok(collected)) => Ok(collected.to_bytes()),
        Some(Err(error)) if error.is::<LengthLimitError>() => {
            Err(ApiError::new(Code::BodyTooLarge, format!("the body is larger than {max} bytes")))
        }
        Some(Err(error)) => Err(ApiError::new(Code::MalformedJson, format!("the body broke off: {error}"))),
    }
}

/// Query parameters; unknown ones are refused, so that a misspelt filter is not silently no filter.
pub struct Params<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Params<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let Query(params) = Query::try_from_uri(&parts.uri).map_err(|error| {
            let message = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
            let code = if message.contains("unknown field") { Code::UnknownField } else { Code::InvalidField };
            ApiError::new(code, format!("query: {message}"))
        })?;
        Ok(Self(params))
    }
}

/// Path segments.
pub struct Segments<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Segments<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Path(segments) = Path::from_request_parts(parts, state)
            .await
            .map_err(|error| ApiError::new(Code::InvalidField, format!("path: {}", error.body_text())))?;
        Ok(Self(segments))
    }
}

#[derive(Deserialize)]
pub struct TaskPath {
    ns: String,
    name: String,
}

impl TaskPath {
    pub fn task(self) -> TaskName {
        TaskName { namespace: self.ns, name: self.name }
    }
}

/// Whether a read must see every write acknowledged before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Consistency {
    #[default]
    Linearizable,
    Stale,
}

/// `If-Match` and `If-None-Match` of a `PUT`.
pub fn put_mode(headers: &HeaderMap) -> Result<PutMode, ApiError> {
    match (headers.get(IF_MATCH), headers.get(IF_NONE_MATCH)) {
        (None, None) => Ok(PutMode::Upsert),
        (None, Some(value)) if value == "*" => Ok(PutMode::Create),
        (Some(value), None) => version(value).map(PutMode::UpdateVersion),
        _ => Err(ApiError::field(
            Code::InvalidField,
            "If-None-Match",
            "a PUT takes If-Match with a version, or If-None-Match: *, not both",
        )),
    }
}

/// The version that `If-Match` asks for, if it is there.
pub fn if_match(headers: &HeaderMap) -> Result<Option<u32>, ApiError> {
    headers.get(IF_MATCH).map(version).transpose()
}

/// `"3"`, as the ETag says it, or a bare 3.
fn version(value: &HeaderValue) -> Result<u32, ApiError> {
    let text = value.to_str().unwrap_or_default().trim();
    let bare = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
    bare.parse().map_err(|_| {
        ApiError::field(Code::InvalidField, "If-Match", format!("{text:?} is not a task's version, such as \"3\""))
    })
}

/// The `Idempotency-Key`, with a hash of what it stands for.
pub fn idempotency(headers: &HeaderMap, request: &[&[u8]]) -> Result<Option<Idempotency>, ApiError> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    let field = "Idempotency-Key";
    let key = value.to_str().map_err(|_| ApiError::field(Code::InvalidField, field, "the key is not ASCII text"))?;
    if key.is_empty() {
        return Err(ApiError::field(Code::InvalidField, field, "the key is empty"));
    }
    if key.len() > limits::IDEMPOTENCY_KEY_BYTES {
        let message = format!("the key has {} bytes, the limit is {}", key.len(), limits::IDEMPOTENCY_KEY_BYTES);
        return Err(ApiError::field(Code::LimitExceeded, field, message));
    }
    let mut hash = xxhash_rust::xxh3::Xxh3::new();
    for part in request {
        hash.update(&(part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    Ok(Some(Idempotency { key: key.to_owned(), fingerprint: hash.digest128() }))
}

/// Items on a page: what the client asks for, within the limit.
pub fn page_size(limit: Option<usize>) -> Result<usize, ApiError> {
    match limit {
        None => Ok(bound!(PageItems, limits::PAGE_ITEMS_DEFAULT)),
        Some(limit) if (1..=limits::PAGE_ITEMS).contains(&limit) => Ok(limit),
        Some(limit) => Err(ApiError::field(
            Code::LimitExceeded,
            "limit",
            format!("{limit} is not between 1 and {}", limits::PAGE_ITEMS),
        )),
    }
}

/// An opaque page token: where the list goes on, tied to the list and filters it came from.
pub fn page_token(list: &str, position: &[u8]) -> String {
    let mut bytes = tie(list, position).to_be_bytes().to_vec();
    bytes.extend_from_slice(position);
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The position in a token that was made for the same list and filters.
pub fn page_position(list: &str, token: Option<&str>) -> Result<Option<Vec<u8>>, ApiError> {
    let Some(token) = token else { return Ok(None) };
    let position = URL_SAFE_NO_PAD.decode(token).ok().and_then(|bytes| {
        let (tied, position) = bytes.split_first_chunk::<4>()?;
        (u32::from_be_bytes(*tied) == tie(list, position)).then(|| position.to_vec())
    });
    match position {
        Some(position) => Ok(Some(position)),
        None => Err(ApiError::field(
            Code::InvalidPageToken,
            "page_token",
            "the token does not come from this list with these filters",
        )),
    }
}

fn tie(list: &str, position: &[u8]) -> u32 {
    let mut hash = crc32fast::Hasher::new();
    hash.update(list.as_bytes());
    hash.update(&[0]);
    hash.update(position);
    hash.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_tokens_belong_to_their_list() {
        let token = page_token("tasks?prefix=a", b"position");
        assert_eq!(page_position("tasks?prefix=a", Some(&token)).unwrap().as_deref(), Some(&b"position"[..]));
        for (list, token) in
            [("tasks?prefix=b", token.as_str()), ("tasks?prefix=a", "AAAA"), ("tasks", "%%%"), ("tasks", "")]
        {
            assert_eq!(page_position(list, Some(token)).unwrap_err().0.code, Code::InvalidPageToken, "{token}");
        }
    }

    #[test]
    fn versions_are_read_with_and_without_quotes() {
        let mode = |name: &'static str, value: &'static str| {
            put_mode(&HeaderMap::from_iter([(name.parse().unwrap(), HeaderValue::from_static(value))]))
        };
        assert!(matches!(mode("if-match", "\"3\""), Ok(PutMode::UpdateVersion(3))));
        assert!(matches!(mode("if-match", "3"), Ok(PutMode::UpdateVersion(3))));
        assert!(matches!(mode("if-none-match", "*"), Ok(PutMode::Create)));
        for (name, value) in [("if-match", "*"), ("if-match", "W/\"3\""), ("if-none-match", "\"3\"")] {
            assert!(mode(name, value).is_err(), "{name}: {value}");
        }
    }
}
