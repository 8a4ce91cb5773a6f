//! Delta debugging (Zeller's ddmin): the fewest parts of a list that still fail.

use anyhow::Result;

/// A part of `all`, in order, for which `fails` holds and which loses that with any one element less, as long as `fails`
/// answers honestly. It is also told how many such questions there are: few as long as large pieces are left out. `all`
/// itself is taken to fail.
pub fn minimise<T: Clone>(all: &[T], mut fails: impl FnMut(&[T], usize) -> Result<bool>) -> Result<Vec<T>> {
    let mut left = all.to_vec();
    // Often nothing of a kind is needed.
    if !left.is_empty() && fails(&[], 1)? {
        return Ok(Vec::new());
    }
    let mut pieces = 2;
    while left.len() > 1 {
        let size = left.len().div_ceil(pieces.min(left.len()));
        let mut smaller = None;
        for from in (0..left.len()).step_by(size) {
            let to = (from + size).min(left.len());
            let without: Vec<T> = left[..from].iter().chain(&left[to..]).cloned().collect();
            if !without.is_empty() && fails(&without, pieces)? {
                smaller = Some(without);
                break;
            }
        }
        match smaller {
            Some(without) => {
                left = without;
                pieces = (pieces - 1).max(2);
            }
            None if size == 1 => break,
            None => pieces *= 2,
        }
    }
    Ok(left)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn needing(all: u32, needed: &[u32]) -> (Vec<u32>, u32) {
        let mut trials = 0;
        let list: Vec<u32> = (0..all).collect();
        let left = minimise(&list, |part, _| {
            trials += 1;
            Ok(needed.iter().all(|n| part.contains(n)))
        });
        (left.unwrap(), trials)
    }

    #[test]
    fn what_is_needed_is_left() {
        for needed in [&[][..], &[0], &[99], &[3, 4], &[0, 50, 99], &[10, 20, 30, 40, 50]] {
            let (left, trials) = needing(100, needed);
            assert_eq!(left, needed);
            assert!(trials < 200, "{needed:?} took {trials} trials");
        }
        assert_eq!(needing(1, &[0]).0, [0]);
        assert!(needing(0, &[]).0.is_empty());
    }
}
