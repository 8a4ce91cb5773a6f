//! The README's first command, with the binary of this build: three processes, the leader killed half way, and an exit
//! status that says whether every occurrence fired exactly once.

use std::process::Command;

#[test]
fn the_demo_kills_the_leader_and_loses_nothing() {
    let demo = Command::new(env!("CARGO_BIN_EXE_campanile")).args(["demo", "--for", "12s"]).current_dir("..").output();
    let demo = demo.unwrap();
    let (out, err) = (String::from_utf8_lossy(&demo.stdout), String::from_utf8_lossy(&demo.stderr));
    assert!(demo.status.success(), "{}\n{out}\n{err}", demo.status);
    assert!(out.contains("every occurrence fired exactly once"), "{out}");
}
