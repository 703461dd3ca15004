//! Whether files can be written past the page cache.

use nix::fcntl::OFlag;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Whether the filesystem of the directory `path`, which is made where it is not there, lets files be opened with
/// `O_DIRECT` (open(2)). Not all do: RocksDB would refuse to open a database there.
pub(super) fn is_possible(path: &Path) -> bool {
    let probe = path.join("direct.probe");
    let opened = fs::create_dir_all(path).and_then(|()| {
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .custom_flags(OFlag::O_DIRECT.bits())
            .open(&probe)
    });
    // One that a crash left behind is in nobody's way.
    drop(fs::remove_file(&probe));
    opened.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_probe_makes_the_directory_and_leaves_nothing_in_it() {
        let parent = tempfile::tempdir().expect("a directory");
        let path = parent.path().join("state");
        let first = is_possible(&path);
        assert_eq!(is_possible(&path), first);
        assert_eq!(fs::read_dir(&path).expect("is there").count(), 0);
    }

    #[test]
    fn it_is_not_possible_where_nothing_can_be_written() {
        assert!(!is_possible(Path::new("/proc/self")));
    }
}
