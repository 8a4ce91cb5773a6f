//! Long-lived bodies, cut into frames: a length and that many bytes.
//!
//! Whoever reads bounds every frame before it allocates for it, and gives up on a peer that says nothing for too long
//! while something is owed.

use std::io;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use campanile_model::codec;
use futures::Stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use openraft::raft::{AppendEntriesRequest, StreamAppendError};

use super::channel::Body;
use super::wire::{AppendAnswer, AppendHead};
use crate::form::{self, VoteForm};
use crate::rt;
use crate::types::{LogId, TypeConfig};

/// No frame is larger: one append request (see `log_store`'s read bound; one entry may be as large as a proposal), or
/// one chunk of a snapshot.
pub const MAX_FRAME_BYTES: usize = 16 << 20;

pub type AppendRequest = AppendEntriesRequest<TypeConfig>;
pub type AppendResult = Result<Option<LogId>, StreamAppendError<TypeConfig>>;

fn invalid(message: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

/// A body made of frames.
pub fn body(frames: impl Stream<Item = io::Result<Bytes>> + Send + 'static) -> Body {
    use futures::StreamExt;
    StreamBody::new(frames.map(|bytes| bytes.map(Frame::data))).boxed_unsync()
}

/// Reads the frames of a body.
pub struct FrameReader {
    body: Incoming,
    buffer: BytesMut,
}

impl FrameReader {
    pub fn new(body: Incoming) -> Self {
        Self { body, buffer: BytesMut::new() }
    }

    /// The next frame; `None` at the end of the body. A body that ends inside a frame is an error.
    pub async fn next(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            if let Some(frame) = self.take()? {
                return Ok(Some(frame));
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
                Some(Err(error)) => return Err(io::Error::new(io::ErrorKind::ConnectionReset, error)),
                None if self.buffer.is_empty() => return Ok(None),
                None => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
    }

    /// The same, at most `idle` long.
    pub async fn next_within(&mut self, idle: Duration) -> io::Result<Option<Bytes>> {
        match rt::timeout(idle, self.next()).await {
            Some(result) => result,
            None => Err(io::Error::new(io::ErrorKind::TimedOut, format!("nothing in {idle:?}"))),
        }
    }

    fn take(&mut self) -> io::Result<Option<Bytes>> {
        let Some(length) = self.buffer.first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_be_bytes(*length) as usize;
        if length > MAX_FRAME_BYTES {
            return Err(invalid(format!("frame of {length} bytes, more than {MAX_FRAME_BYTES}")));
        }
        if self.buffer.len() < 4 + length {
            return Ok(None);
        }
        self.buffer.advance(4);
        Ok(Some(self.buffer.split_to(length).freeze()))
    }
}

/// Puts the length in front of what `fill` writes.
pub fn frame(fill: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    let mut out = vec![0; 4];
    fill(&mut out);
    let length = (out.len() - 4) as u32;
    out[..4].copy_from_slice(&length.to_be_bytes());
    out.into()
}

/// Frames an append request: the head, then the records as they stand in the log, each with its length.
pub fn encode_append(request: &AppendRequest) -> Bytes {
    let head = AppendHead {
        vote: VoteForm::from(&request.vote),
        prev: request.prev_log_id.map(Into::into),
        commit: request.leader_commit.map(Into::into),
    };
    frame(|out| {
        put_sized(out, |out| codec::encode_into(&head, out));
        for entry in &request.entries {
            put_sized(out, |out| form::encode_record(entry, out));
        }
    })
}

fn put_sized(out: &mut Vec<u8>, fill: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.put_u32(0);
    fill(out);
    let length = (out.len() - start - 4) as u32;
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
}

fn take_sized(bytes: &mut Bytes) -> io::Result<Bytes> {
    if bytes.len() < 4 {
        return Err(invalid("append request is cut short"));
    }
    let length = bytes.get_u32() as usize;
    if bytes.len() < length {
        return Err(invalid("append request is cut short"));
    }
    Ok(bytes.split_to(length))
}

pub fn decode_append(mut bytes: Bytes) -> io::Result<AppendRequest> {
    let head: AppendHead = codec::decode(&take_sized(&mut bytes)?).map_err(invalid)?;
    let mut entries = Vec::new();
    while !bytes.is_empty() {
        // A copy: the log's tail would keep the whole frame for one entry, and the room that it had to grow.
        let record = Bytes::copy_from_slice(&take_sized(&mut bytes)?);
        entries.push(form::decode_record(record).map_err(invalid)?);
    }
    Ok(AppendRequest {
        vote: head.vote.into(),
        prev_log_id: head.prev.map(Into::into),
        leader_commit: head.commit.map(Into::into),
        entries,
    })
}

pub fn encode_answer(result: &AppendResult) -> Bytes {
    let answer = match result {
        Ok(matched) => AppendAnswer::Matched(matched.map(Into::into)),
        Err(StreamAppendError::Conflict(at)) => AppendAnswer::Conflict((*at).into()),
        Err(StreamAppendError::HigherVote(vote)) => AppendAnswer::HigherVote(VoteForm::from(vote)),
    };
    frame(|out| codec::encode_into(&answer, out))
}

pub fn decode_answer(bytes: &[u8]) -> io::Result<AppendResult> {
    Ok(match codec::decode(bytes).map_err(invalid)? {
        AppendAnswer::Matched(matched) => Ok(matched.map(Into::into)),
        AppendAnswer::Conflict(at) => Err(StreamAppendError::Conflict(at.into())),
        AppendAnswer::HigherVote(vote) => Err(StreamAppendError::HigherVote(vote.into())),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Entry, Proposal, log_id};
    use campanile_model::Timestamp;
    use openraft::EntryPayload;

    #[test]
    fn append_requests_read_back_and_damage_is_refused() {
        let request = AppendRequest {
            vote: VoteForm { term: 4, node: 2, committed: true }.into(),
            prev_log_id: Some(log_id(3, 9)),
            leader_commit: None,
            entries: (10..13).map(|index| Entry { log_id: log_id(4, index), payload: EntryPayload::Blank }).collect(),
        };
        let framed = encode_append(&request);
        let read = decode_append(framed.slice(4..)).unwrap();
        assert_eq!((read.vote, read.prev_log_id, read.entries.len()), (request.vote, request.prev_log_id, 3));
        for cut in 4..framed.len() - 1 {
            // Cut between records it is a shorter request, which the log's own checks catch; elsewhere it is refused.
            if let Ok(read) = decode_append(framed.slice(4..cut)) {
                assert!(read.entries.len() < 3);
            }
        }
        let mut damaged = framed.to_vec();
        *damaged.last_mut().unwrap() ^= 1;
        assert!(decode_append(Bytes::from(damaged).slice(4..)).is_err());
    }

    #[test]
    fn an_entry_that_is_kept_keeps_nothing_of_the_frame() {
        let content = campanile_model::Entry { time: Timestamp::default(), commands: Vec::new() };
        let payload = || EntryPayload::Normal(Proposal::new(&content));
        let request = AppendRequest {
            vote: VoteForm { term: 4, node: 2, committed: true }.into(),
            prev_log_id: None,
            leader_commit: None,
            entries: (10..13).map(|index| Entry { log_id: log_id(4, index), payload: payload() }).collect(),
        };
        let framed = encode_append(&request);
        for entry in decode_append(framed.slice(4..)).unwrap().entries {
            let EntryPayload::Normal(proposal) = entry.payload else { panic!("a proposal was sent") };
            assert!(proposal.bytes().is_unique());
        }
    }
}
