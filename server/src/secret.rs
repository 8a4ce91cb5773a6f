//! Signing secrets are written, never read back: answers show [`REDACTED`], and a client that sends that back means
//! "as it is".

use base64::Engine as _;
use campanile_model::{Code, Rejection, Target};

/// What a secret reads as.
pub const REDACTED: &str = "whsec_***";
/// What a Standard Webhooks secret starts with; base64 follows.
const PREFIX: &str = "whsec_";

/// Hides the secret of a target that is about to be shown.
pub fn redact(target: &mut Target) {
    let Target::Http(http) = target;
    if let Some(secret) = &mut http.signing_secret {
        *secret = REDACTED.into();
    }
}

/// Puts the current secret where the client sent the redacted one back.
pub fn keep(target: &mut Target, current: Option<&Target>) -> Result<(), Rejection> {
    let Target::Http(http) = target;
    if http.signing_secret.as_deref() != Some(REDACTED) {
        return Ok(());
    }
    let kept = current.and_then(|Target::Http(http)| http.signing_secret.clone());
    if kept.is_none() {
        return Err(Rejection::new(Code::InvalidField, "there is no signing secret to keep")
            .with_field("target.http.signing_secret"));
    }
    http.signing_secret = kept;
    Ok(())
}

/// The key bytes of a secret: Standard Webhooks asks for 24 to 64 of them, base64 behind `whsec_`.
pub fn key(secret: &str) -> Result<Vec<u8>, &'static str> {
    let encoded = secret.strip_prefix(PREFIX).ok_or("a signing secret starts with whsec_")?;
    let key = base64::engine::general_purpose::STANDARD
        .decode(encoded)
        .map_err(|_| "a signing secret is base64 after whsec_")?;
    if !(24..=64).contains(&key.len()) {
        return Err("a signing secret has 24 to 64 bytes");
    }
    Ok(key)
}
