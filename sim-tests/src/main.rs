//! `campanile-sim`.

fn main() {}
