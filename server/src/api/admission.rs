//! How much of a node batches may take, so that what comes due is fired on time whatever is submitted: few batches at
//! a time, further ones refused before a byte of them is looked at, and one parsed at a time, off the threads that
//! serve all else.

use axum::body::{Body, HttpBody};
use campanile_model::{Code, limits};
use campanile_raft::rt;
use http_body_util::BodyExt;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::problem::ApiError;

/// In units of 1 KiB, so that they fit a semaphore.
const UNIT: u64 = 1024;

/// The batches of a node.
pub struct Admission {
    batches: Semaphore,
    units: Semaphore,
    parsing: Semaphore,
}

/// A batch's place, until it is dropped.
pub struct Place<'a> {
    _batch: SemaphorePermit<'a>,
    _units: SemaphorePermit<'a>,
}

impl Default for Admission {
    fn default() -> Self {
        Self {
            batches: Semaphore::new(limits::BATCHES),
            units: Semaphore::new(units(limits::BATCHES_BYTES as u64) as usize),
            parsing: Semaphore::new(1),
        }
    }
}

fn units(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX)
}

impl Admission {
    /// A place for a batch, if there is one. A body of unknown size counts as the largest.
    pub fn admit(&self, body: &Body) -> Option<Place<'_>> {
        let most = limits::BATCH_BODY_BYTES as u64;
        let bytes = body.size_hint().upper().unwrap_or(most).min(most);
        let batch = self.batches.try_acquire().ok()?;
        let units = self.units.try_acquire_many(units(bytes)).ok()?;
        Some(Place { _batch: batch, _units: units })
    }

    /// Does a batch's share of computing.
    pub async fn compute<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, ApiError> {
        let _turn = self.parsing.acquire().await;
        let done = rt::run_blocking(work).await;
        done.map_err(|error| ApiError::new(Code::Internal, format!("a batch was not worked on: {error}")))
    }
}

/// Refuses a batch that there is no place for.
pub async fn refuse(body: Body) -> ApiError {
    discard(body).await;
    let message = format!("this node works on as many batches as it takes ({} at a time)", limits::BATCHES);
    ApiError::new(Code::Overloaded, message)
}

/// Lets a client send what it has begun to send, so that it reads the answer and keeps its connection.
async fn discard(mut body: Body) {
    let mut left = limits::BATCH_BODY_BYTES;
    let reading = async {
        while let Some(Ok(frame)) = body.frame().await {
            let bytes = frame.data_ref().map_or(0, bytes::Bytes::len);
            match left.checked_sub(bytes) {
                Some(rest) => left = rest,
                None => break,
            }
        }
    };
    // One that sends it too slowly loses its connection.
    let _ = rt::timeout(limits::REQUEST_READ.to_std(), reading).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_counted_and_weighed() {
        let admission = Admission::default();
        let small = Body::from("{}");
        let places: Vec<Place<'_>> = (0..limits::BATCHES).map(|_| admission.admit(&small).unwrap()).collect();
        assert!(admission.admit(&small).is_none(), "as many as there may be");
        drop(places);

        let unknown = || Body::from_stream(futures::stream::empty::<Result<bytes::Bytes, std::io::Error>>());
        let largest = limits::BATCHES_BYTES / limits::BATCH_BODY_BYTES;
        let places: Vec<Place<'_>> = (0..largest).map(|_| admission.admit(&unknown()).unwrap()).collect();
        assert!(admission.admit(&small).is_none(), "as large as they may be together");
        drop(places);
        assert!(admission.admit(&small).is_some());
    }
}
