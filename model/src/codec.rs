//! The one place that knows how rows, log entries and peer messages become bytes.
//!
//! bincode 2 with fixed configuration behind a version byte: the format is not self-describing, so the byte says which
//! form of the type follows. A reader accepts the current version and refuses every other by name; when a struct
//! changes, its old form stays beside it as `V1`, and [`Versioned::decode_previous`] upgrades it.

use bincode::enc::write::SizeWriter;
use bincode::{Decode, Encode};

/// No value is larger than this; a length that claims more is refused before anything is allocated for it.
pub const MAX_ENCODED_BYTES: usize = 64 << 20;

type Config = bincode::config::Configuration<
    bincode::config::BigEndian,
    bincode::config::Varint,
    bincode::config::Limit<MAX_ENCODED_BYTES>,
>;
const CONFIG: Config = bincode::config::standard().with_big_endian().with_limit::<MAX_ENCODED_BYTES>();

/// A type with a version byte in front of its encoding.
pub trait Versioned: Encode + Decode<()> {
    /// What the type is called in error messages.
    const NAME: &'static str;
    /// The version this build writes.
    const VERSION: u8 = 1;

    /// Reads the version before the current one. The first version of a type has none.
    fn decode_previous(version: u8, _body: &[u8]) -> Result<Self, CodecError> {
        Err(CodecError::Version { name: Self::NAME, found: version, known: Self::VERSION })
    }
}

#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    #[error("{name} of version {found}, but this build reads version {known}")]
    Version { name: &'static str, found: u8, known: u8 },
    #[error("{name} is empty")]
    Empty { name: &'static str },
    #[error("{name} does not decode: {source}")]
    Malformed { name: &'static str, source: bincode::error::DecodeError },
    #[error("{name} has {excess} bytes after its end")]
    Trailing { name: &'static str, excess: usize },
}

/// Appends the version byte and the encoding of `value` to `out`.
pub fn encode_into<T: Versioned>(value: &T, out: &mut Vec<u8>) {
    out.push(T::VERSION);
    // Encoding into memory fails only for types that refuse to be encoded; none of ours do.
    bincode::encode_into_std_write(value, out, CONFIG).expect("encoding into memory cannot fail");
}

pub fn encode<T: Versioned>(value: &T) -> Vec<u8> {
    let mut out = Vec::with_capacity(64);
    encode_into(value, &mut out);
    out
}

/// How many bytes values take inside of an encoding, each after the other.
pub fn encoded_len<T: Encode>(values: &[T]) -> usize {
    let mut size = SizeWriter::default();
    // It fails as rarely as encoding into memory does.
    bincode::encode_into_writer(values, &mut size, CONFIG).expect("encoding into memory cannot fail");
    size.bytes_written
}

/// Reads a whole value; bytes left over are an error.
pub fn decode<T: Versioned>(bytes: &[u8]) -> Result<T, CodecError> {
    let (&version, body) = bytes.split_first().ok_or(CodecError::Empty { name: T::NAME })?;
    if version != T::VERSION {
        return T::decode_previous(version, body);
    }
    decode_body(T::NAME, body)
}

/// Whether [`decode`] knows the version in front of these bytes, without decoding them.
pub fn check_version<T: Versioned>(bytes: &[u8]) -> Result<(), CodecError> {
    let &found = bytes.first().ok_or(CodecError::Empty { name: T::NAME })?;
    // The current version and the one before it, if there was one.
    if found == T::VERSION || (found > 0 && found == T::VERSION - 1) {
        return Ok(());
    }
    Err(CodecError::Version { name: T::NAME, found, known: T::VERSION })
}

/// Reads a body without version byte, as [`Versioned::decode_previous`] does for an old form.
pub fn decode_body<T: Decode<()>>(name: &'static str, body: &[u8]) -> Result<T, CodecError> {
    let (value, used) =
        bincode::decode_from_slice(body, CONFIG).map_err(|source| CodecError::Malformed { name, source })?;
    if used != body.len() {
        return Err(CodecError::Trailing { name, excess: body.len() - used });
    }
    Ok(value)
}
