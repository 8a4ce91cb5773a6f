//! When a failed attempt is tried again: exponential back-off with jitter, and what the receiver asks for.

use campanile_model::{Millis, Ratio, Retry, planted};

/// Longest wait a receiver's `Retry-After` is honoured for.
const RETRY_AFTER_MAX: Millis = Millis::from_hours(24);

/// Delay after attempt number `attempt` has failed. `draw` is a random number that places the delay in the jitter's
/// range; `asked` is the receiver's `Retry-After`, which only ever lengthens the wait.
pub(crate) fn delay(retry: &Retry, attempt: u32, draw: u64, asked: Option<Millis>) -> Millis {
    if planted!(BackoffIgnored) {
        return Millis(0);
    }
    let mut delay = retry.initial.0.min(retry.max.0);
    for _ in 1..attempt {
        delay = scale(delay, retry.factor).min(retry.max.0);
        if delay == retry.max.0 {
            break;
        }
    }
    let spread = if planted!(JitterForgotten) { 0 } else { scale(delay, retry.jitter) };
    // Evenly in [delay - spread, delay + spread].
    let jittered = delay.saturating_sub(spread).saturating_add(draw % (2 * spread + 1));
    Millis(jittered.max(asked.map_or(0, |asked| asked.min(RETRY_AFTER_MAX).0)))
}

fn scale(millis: u64, ratio: Ratio) -> u64 {
    (u128::from(millis) * u128::from(ratio.0) / 1000).min(u128::from(u64::MAX / 4)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(retry: &Retry, attempt: u32) -> (u64, u64) {
        let delays: Vec<u64> = (0..10_000).map(|draw| delay(retry, attempt, draw * 7919, None).0).collect();
        (*delays.iter().min().unwrap(), *delays.iter().max().unwrap())
    }

    #[test]
    fn doubles_up_to_the_maximum_within_the_jitter() {
        let retry = Retry { max_attempts: 20, ..Retry::default() };
        for (attempt, nominal) in [(1, 1000), (2, 2000), (3, 4000), (9, 256_000), (10, 300_000), (19, 300_000)] {
            let (low, high) = range(&retry, attempt);
            assert!(low >= nominal * 8 / 10 && high <= nominal * 12 / 10, "attempt {attempt}: {low}..{high}");
            assert!(high > low, "attempt {attempt} has no jitter");
        }
    }

    #[test]
    fn without_jitter_it_is_exact() {
        let retry = Retry { jitter: Ratio(0), ..Retry::default() };
        assert_eq!(range(&retry, 3), (4000, 4000));
    }

    #[test]
    fn the_receiver_may_ask_for_more_but_not_for_less() {
        let retry = Retry { jitter: Ratio(0), ..Retry::default() };
        assert_eq!(delay(&retry, 1, 0, Some(Millis::from_secs(7))), Millis::from_secs(7));
        assert_eq!(delay(&retry, 3, 0, Some(Millis::from_secs(1))), Millis::from_secs(4));
        assert_eq!(delay(&retry, 1, 0, Some(Millis::from_days(30))), Millis::from_hours(24));
    }

    #[test]
    fn extreme_policies_do_not_overflow() {
        let retry = Retry {
            max_attempts: 100,
            initial: Millis(u64::MAX),
            factor: Ratio(1_000_000),
            max: Millis(u64::MAX),
            jitter: Ratio(1000),
        };
        delay(&retry, 100, u64::MAX, None);
    }
}
