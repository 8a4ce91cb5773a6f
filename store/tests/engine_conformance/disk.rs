//! Plain files and directories of a disk.

use std::io::ErrorKind;

use campanile_store::engine::Purpose;

use crate::{Bench, on_both, open};

on_both!(
    a_small_file_is_replaced_whole,
    a_file_grows_and_is_read_in_parts,
    directories_are_listed_in_order,
    a_directory_is_removed_with_all_in_it,
    no_name_leads_out_of_the_disk,
    there_is_space,
);

fn a_small_file_is_replaced_whole(bench: Bench) {
    let disk = bench.disk;
    assert_eq!(disk.read_file("state/CURRENT").unwrap(), None);
    disk.write_file("state/CURRENT", b"a long first content").unwrap();
    disk.write_file("state/CURRENT", b"short").unwrap();
    assert_eq!(disk.read_file("state/CURRENT").unwrap().as_deref(), Some(&b"short"[..]));
    assert_eq!(disk.list("state").unwrap(), [("CURRENT".to_owned(), 5)], "nothing is left beside it");
}

fn a_file_grows_and_is_read_in_parts(bench: Bench) {
    let disk = bench.disk;
    disk.append("in/coming", b"0123").unwrap();
    disk.append("in/coming", b"").unwrap();
    disk.append("in/coming", b"456789").unwrap();
    disk.append("in/empty", b"").unwrap();
    disk.sync_dir("in").unwrap();
    assert_eq!(disk.list("in").unwrap(), [("coming".to_owned(), 10), ("empty".to_owned(), 0)]);
    assert_eq!(disk.read_at("in/coming", 0, 4).unwrap(), b"0123");
    assert_eq!(disk.read_at("in/coming", 8, 4).unwrap(), b"89");
    assert_eq!(disk.read_at("in/coming", 10, 4).unwrap(), b"");
    assert_eq!(disk.read_at("in/coming", u64::MAX, usize::MAX).unwrap(), b"");
    assert_eq!(disk.read_at("in/coming", 0, usize::MAX).unwrap(), b"0123456789");
    assert_eq!(disk.read_at("in/nothing", 0, 4).unwrap_err().kind(), ErrorKind::NotFound);
}

fn directories_are_listed_in_order(bench: Bench) {
    let disk = bench.disk;
    assert!(disk.list("nowhere").unwrap().is_empty());
    assert!(disk.list_dirs("nowhere").unwrap().is_empty());
    for name in ["d/b", "d/a", "d/sub2/x", "d/sub1/deep/x"] {
        disk.append(name, b"x").unwrap();
    }
    let database = open(&disk, "d/sub3", Purpose::State);
    assert_eq!(disk.list("d").unwrap(), [("a".to_owned(), 1), ("b".to_owned(), 1)]);
    assert_eq!(disk.list_dirs("d").unwrap(), ["sub1", "sub2", "sub3"]);
    drop(database);
}

fn a_directory_is_removed_with_all_in_it(bench: Bench) {
    let disk = bench.disk;
    disk.append("d/e/f", b"x").unwrap();
    disk.append("de", b"x").unwrap();
    drop(open(&disk, "d/db", Purpose::State));
    disk.remove_dir("d").unwrap();
    disk.remove_dir("d").unwrap();
    assert_eq!(disk.read_file("d/e/f").unwrap(), None);
    assert!(disk.list_dirs("d").unwrap().is_empty());
    assert!(disk.read_file("de").unwrap().is_some(), "a name that only begins alike stays");
}

fn no_name_leads_out_of_the_disk(bench: Bench) {
    let disk = bench.disk;
    for name in ["../x", "/etc/hostname", "a/../../x", ""] {
        assert_eq!(disk.read_file(name).unwrap_err().kind(), ErrorKind::InvalidInput);
        assert_eq!(disk.write_file(name, b"").unwrap_err().kind(), ErrorKind::InvalidInput);
        assert_eq!(disk.append(name, b"").unwrap_err().kind(), ErrorKind::InvalidInput);
        assert_eq!(disk.remove_dir(name).unwrap_err().kind(), ErrorKind::InvalidInput);
        assert!(disk.list(name).is_err() && disk.list_dirs(name).is_err() && disk.sync_dir(name).is_err());
        assert!(disk.read_at(name, 0, 1).is_err() && disk.open(name, Purpose::State, &[]).is_err());
    }
}

fn there_is_space(bench: Bench) {
    let space = bench.disk.space().unwrap();
    assert!(0 < space.free_bytes && space.free_bytes <= space.total_bytes);
}
