//! What receivers answer: every class of status, the headers that matter, and all that is no answer.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use chrono::DateTime;
use hyper::body::{Body, Frame};
use rand::RngExt;
use rand::rngs::SmallRng;

/// What becomes of a request.
pub enum Answer {
    /// Nothing, and the connection stays.
    Silence,
    /// Nothing, and the connection ends.
    Reset,
    /// A head that no client may read to its end.
    EndlessHead,
    Says {
        status: u16,
        after: Duration,
        retry_after: Option<Wait>,
        body: AnswerBody,
    },
}

/// What `Retry-After` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    Seconds(u32),
    /// A date so many seconds after the request was sent.
    Date(i64),
    /// Neither: as if there were none.
    Nonsense,
}

impl Wait {
    /// As it stands in the header, when the request was sent at this second.
    pub fn text(self, sent_at: i64) -> String {
        let date = |second| DateTime::from_timestamp(second, 0).unwrap_or_default();
        match self {
            Self::Seconds(seconds) => seconds.to_string(),
            Self::Date(in_seconds) => date(sent_at + in_seconds).format("%a, %d %b %Y %H:%M:%S GMT").to_string(),
            Self::Nonsense => "when it suits".into(),
        }
    }

    fn draw(rng: &mut SmallRng) -> Option<Self> {
        match rng.random_range(0..8) {
            0..3 => Some(Self::Seconds(rng.random_range(0..5))),
            3..5 => Some(Self::Date(rng.random_range(-2..6))),
            5 => Some(Self::Nonsense),
            _ => None,
        }
    }
}

const SUCCEEDED: [u16; 6] = [200, 200, 201, 202, 204, 206];
const REDIRECTED: [u16; 4] = [301, 302, 304, 308];
const REFUSED: [u16; 6] = [400, 401, 404, 409, 413, 422];
const BUSY: [u16; 2] = [429, 503];
const MAY_PASS: [u16; 7] = [408, 425, 429, 500, 502, 503, 504];
const GONE: u16 = 410;

fn among(rng: &mut SmallRng, statuses: &[u16]) -> u16 {
    statuses[rng.random_range(0..statuses.len())]
}

impl Answer {
    pub fn status(status: u16) -> Self {
        Self::Says { status, after: Duration::ZERO, retry_after: None, body: AnswerBody::empty() }
    }

    pub fn slowly(after: Duration) -> Self {
        Self::Says { status: 200, after, retry_after: None, body: AnswerBody::empty() }
    }

    /// Whatever there is, but for 410: that pauses the task, and one that nobody resumes has no more to show.
    fn any(rng: &mut SmallRng) -> Self {
        match rng.random_range(0..14) {
            0 => Self::Silence,
            1 | 2 => Self::slowly(Duration::from_millis(rng.random_range(50..3000))),
            3 => Self::Reset,
            4 => Self::EndlessHead,
            5 => Self::with_body(rng, AnswerBody::without_end()),
            6 => {
                let every = Duration::from_millis(rng.random_range(20..600));
                let body = AnswerBody::drips(rng.random_range(2..12), 10, every);
                Self::with_body(rng, body)
            }
            7 => Self::status(among(rng, &REDIRECTED)),
            8 => Self::status(among(rng, &REFUSED)),
            9 | 10 => Self::busy(rng),
            11 => Self::status(among(rng, &SUCCEEDED)),
            _ => Self::status(among(rng, &MAY_PASS)),
        }
    }

    fn with_body(rng: &mut SmallRng, body: AnswerBody) -> Self {
        let status = if rng.random_bool(0.7) { 200 } else { 500 };
        Self::Says { status, after: Duration::ZERO, retry_after: None, body }
    }

    /// Asks to wait; where the status is another, that means nothing.
    fn busy(rng: &mut SmallRng) -> Self {
        let status = if rng.random_bool(0.85) { among(rng, &BUSY) } else { among(rng, &MAY_PASS) };
        Self::Says { status, after: Duration::ZERO, retry_after: Wait::draw(rng), body: AnswerBody::empty() }
    }
}

/// Paths at which a closing round finds failing and slow receivers, when all others are well.
pub struct Closing {
    pub failing: &'static str,
    pub slow: &'static str,
}

pub const CLOSING: Closing = Closing { failing: "/closing/failing", slow: "/closing/slow" };

/// Receivers of their own kind, by the path at which they are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Answers well, but for the moods of all.
    Fine,
    /// Errs every other time, one way or another.
    Flaky,
    /// Has too much to do and says when to come again.
    Busy,
    /// Takes its time, so that runs meet the next.
    Slow,
    /// Fails nearly always.
    Failing,
    /// Both for a closing round: fails every other time with what may pass, and takes most of a second.
    ClosingFailing,
    ClosingSlow,
    /// Is gone (410) every few times.
    Gone,
}

impl Kind {
    pub fn of(path: &str) -> Self {
        match path {
            "/moods/flaky" => Self::Flaky,
            "/moods/busy" => Self::Busy,
            "/moods/slow" => Self::Slow,
            "/moods/failing" => Self::Failing,
            "/moods/gone" => Self::Gone,
            path if path == CLOSING.failing => Self::ClosingFailing,
            path if path == CLOSING.slow => Self::ClosingSlow,
            _ => Self::Fine,
        }
    }

    /// Whether it stays as it is when every other receiver is well again.
    pub fn is_of_closing(self) -> bool {
        matches!(self, Self::ClosingFailing | Self::ClosingSlow)
    }

    /// Its answer to one request, when so many of a thousand are answered somehow.
    pub fn answer(self, rng: &mut SmallRng, moody_per_mille: u32) -> Answer {
        let fine = Answer::status(200);
        match self {
            _ if rng.random_range(0..1000) < moody_per_mille => Answer::any(rng),
            Self::Flaky if rng.random_bool(0.5) => Answer::any(rng),
            Self::Busy if rng.random_bool(0.5) => Answer::busy(rng),
            Self::Slow => Answer::slowly(Duration::from_millis(rng.random_range(200..5000))),
            Self::Failing if rng.random_bool(0.8) => {
                let retryable = rng.random_bool(0.5);
                Answer::status(if retryable { among(rng, &MAY_PASS) } else { among(rng, &REFUSED) })
            }
            Self::ClosingFailing if rng.random_bool(0.5) => Answer::status(among(rng, &MAY_PASS)),
            Self::ClosingSlow => Answer::slowly(Duration::from_millis(rng.random_range(500..900))),
            Self::Gone if rng.random_bool(0.15) => Answer::status(GONE),
            _ => fine,
        }
    }
}

/// A body that comes at once, in drips, or for longer than anybody listens.
pub struct AnswerBody {
    left: u32,
    bytes: usize,
    every: Duration,
    next: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl AnswerBody {
    pub fn empty() -> Self {
        Self::drips(0, 0, Duration::ZERO)
    }

    fn drips(left: u32, bytes: usize, every: Duration) -> Self {
        Self { left, bytes, every, next: None }
    }

    /// A megabyte: far more than a client reads of an answer, and not so much that a simulation would not end.
    fn without_end() -> Self {
        Self::drips(64, 16 << 10, Duration::from_millis(1))
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let every = self.every;
        let next = self.next.get_or_insert_with(|| Box::pin(tokio::time::sleep(every)));
        if next.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        self.next = None;
        self.left -= 1;
        Poll::Ready(Some(Ok(Frame::data(vec![b'x'; self.bytes].into()))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        match self.left {
            0 => hyper::body::SizeHint::with_exact(0),
            _ => hyper::body::SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use rand::SeedableRng;

    use super::*;

    #[test]
    fn a_wait_is_written_as_headers_have_it() {
        assert_eq!(Wait::Seconds(3).text(0), "3");
        assert_eq!(Wait::Date(5).text(1_792_889_970), "Sun, 25 Oct 2026 00:59:35 GMT");
    }

    #[test]
    fn every_class_of_answer_is_given() {
        let mut rng = SmallRng::seed_from_u64(1);
        let (mut classes, mut others) = (BTreeSet::new(), 0);
        for kind in [Kind::Fine, Kind::Flaky, Kind::Busy, Kind::Slow, Kind::Failing, Kind::Gone] {
            for _ in 0..500 {
                match kind.answer(&mut rng, 20) {
                    Answer::Says { status, .. } => {
                        classes.insert(status);
                    }
                    _ => others += 1,
                }
            }
        }
        let all = [SUCCEEDED.as_slice(), &REDIRECTED, &REFUSED, &BUSY, &MAY_PASS, &[GONE]].concat();
        assert_eq!(classes, all.into_iter().collect::<BTreeSet<u16>>());
        assert!(others > 0);
    }
}
