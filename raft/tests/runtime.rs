//! openraft's conformance suite for runtimes. A program of its own: it measures time, and wants no company.

#[test]
fn the_runtime_conforms() {
    openraft_rt::testing::Suite::<campanile_raft::runtime::Runtime>::test_all();
}
