//! What the tests of both stores need.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Copies a directory as a crash at one instant would leave it: again, until no file came, went or changed meanwhile.
/// A database moves its files in the background, and a copy across such a move is a state that never was.
pub(crate) fn copy_as_of_now(from: &Path, to: &Path) {
    loop {
        let before = files(from).expect("lists");
        match copy(from, to) {
            Ok(()) if files(from).expect("lists") == before => return,
            Err(error) if error.kind() != io::ErrorKind::NotFound => panic!("cannot copy: {error}"),
            _ => fs::remove_dir_all(to).expect("clears"),
        }
    }
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for file in fs::read_dir(from)? {
        let file = file?;
        let target = to.join(file.file_name());
        if file.file_type()?.is_dir() {
            copy(&file.path(), &target)?;
        } else {
            fs::copy(file.path(), target)?;
        }
    }
    Ok(())
}

/// All files below `dir`, with what tells one state of a file from another.
fn files(dir: &Path) -> io::Result<BTreeMap<PathBuf, (u64, SystemTime)>> {
    let mut found = BTreeMap::new();
    for file in fs::read_dir(dir)? {
        let file = file?;
        // One that goes between the listing and this look is a change, and the next look finds it.
        let Ok(metadata) = file.metadata() else { continue };
        if metadata.is_dir() {
            found.extend(files(&file.path())?);
        } else {
            found.insert(file.path(), (metadata.len(), metadata.modified()?));
        }
    }
    Ok(found)
}
