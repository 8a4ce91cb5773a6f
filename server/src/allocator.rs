//! The allocator of the whole process, RocksDB's C++ included: mimalloc, because submits and fires are many small
//! allocations on several threads.

use std::ffi::{c_int, c_long};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

unsafe extern "C" {
    fn mi_option_set(option: c_int, value: c_long);
}

/// mimalloc's option `purge_delay`, by its place in `mi_option_e` of version 3.
const PURGE_DELAY: c_int = 15;

/// For so many milliseconds what is free is kept before the system gets it back, instead of a second: whoever is busy
/// never stops for a second, and kept 50 MiB a node of what passing batches, merges and snapshots had needed.
const PURGE_DELAY_MS: c_long = 10;

/// Gives the system back soon what is not needed. To be called before there are threads.
pub fn keep_little() {
    // SAFETY: `void mi_option_set(mi_option_t, long)` changes a number that nobody reads meanwhile.
    unsafe { mi_option_set(PURGE_DELAY, PURGE_DELAY_MS) }
}

#[cfg(test)]
mod tests {
    use super::*;

    unsafe extern "C" {
        fn mi_option_get(option: c_int) -> c_long;
    }

    /// A release of mimalloc could move its options; this one is a second at first.
    #[test]
    fn the_option_that_is_set_is_the_one_that_is_meant() {
        // SAFETY: `long mi_option_get(mi_option_t)` reads a number.
        let delay = || unsafe { mi_option_get(PURGE_DELAY) };
        assert_eq!(delay(), 1000);
        keep_little();
        assert_eq!(delay(), PURGE_DELAY_MS);
    }
}
