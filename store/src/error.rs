//! What can go wrong below the state machine. All but [`StoreError::Refused`] is fatal to the node: a disk that fails or
//! lies must not be voted with.

use std::io;

use campanile_model::codec::CodecError;

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk failed: read, write or fsync.
    #[error("disk: {0}")]
    Io(#[from] io::Error),
    /// What was read is not what was written.
    #[error("corrupt {what}: {source}")]
    Codec { what: &'static str, source: CodecError },
    #[error("corrupt state: {0}")]
    Corrupt(String),
    /// What a peer sent or asked for does not fit its manifest. The transfer has failed; the node's own state is
    /// untouched.
    #[error("snapshot refused: {0}")]
    Refused(String),
}

pub type StoreResult<T> = Result<T, StoreError>;
