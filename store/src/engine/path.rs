//! Names of files and directories on a [`super::Disk`]: relative, `/` between the parts, and no way out of the disk.

use std::io;

/// Refuses names that could leave the data directory or mean the same file twice.
pub fn check(name: &str) -> io::Result<()> {
    let part_is_plain = |part: &str| !part.is_empty() && part != "." && part != ".." && !part.contains(['\0', '\\']);
    if name.split('/').all(part_is_plain) {
        Ok(())
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidInput, format!("not a name on this disk: {name:?}")))
    }
}

/// The directory a file is in; `None` for one at the top.
pub fn parent(name: &str) -> Option<&str> {
    name.rsplit_once('/').map(|(dir, _)| dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_relative_names_pass() {
        for good in ["CURRENT", "state/CURRENT", "snapshots/1/files/000012.sst", "..x"] {
            assert!(check(good).is_ok(), "{good}");
        }
        for bad in ["", "/", "/etc/passwd", "a/", "a//b", ".", "a/./b", "..", "a/../../b", "a\\b", "a\0b"] {
            assert!(check(bad).is_err(), "{bad:?}");
        }
    }
}
