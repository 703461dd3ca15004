//! Mounts: whether they can be made here, how they end, and those that a killed harness left.

use anyhow::Context;
use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};
use nix::unistd::Uid;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// What the table of mounts shows as the source of our mounts.
pub(super) const SOURCE: &str = "onward-faulty-disk";

/// Whether a disk can be mounted here; if not, why.
///
/// # Errors
/// The reason, for people.
pub fn usable() -> Result<(), &'static str> {
    if !Uid::effective().is_root() {
        return Err("it takes root");
    }
    if !Path::new("/dev/fuse").exists() {
        return Err("this machine has no /dev/fuse");
    }
    Ok(())
}

/// Unmounts every disk below `dir` that a killed harness left mounted; those that work are left alone. Returns where.
///
/// # Errors
/// Where the table of mounts cannot be read, or one cannot be unmounted.
pub fn unmount_stale(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let Ok(dir) = dir.canonicalize() else {
        return Ok(Vec::new());
    };
    let table = fs::read_to_string("/proc/self/mounts").context("cannot read the table of mounts")?;
    let mut unmounted = Vec::new();
    for line in table.lines() {
        let mut fields = line.split(' ');
        if fields.next() != Some(SOURCE) {
            continue;
        }
        let Some(mount_point) = fields.next().map(unescape) else {
            continue;
        };
        if mount_point.starts_with(&dir) && is_dead(&mount_point) {
            force_unmount(&mount_point)?;
            unmounted.push(mount_point);
        }
    }
    Ok(unmounted)
}

/// Takes a mount away, whoever uses it, and ends the session behind it.
pub(super) fn force_unmount(mount_point: &Path) -> anyhow::Result<()> {
    match umount2(mount_point, MntFlags::MNT_FORCE | MntFlags::MNT_DETACH) {
        // Somebody was faster.
        Ok(()) | Err(Errno::EINVAL) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("cannot unmount {}", mount_point.display())),
    }
}

/// Whether a session ended with `error` because of [`force_unmount`].
pub(super) fn was_forced(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::ECONNABORTED as i32)
}

/// Whether nobody answers behind the mount.
fn is_dead(mount_point: &Path) -> bool {
    let not_connected = Errno::ENOTCONN as i32;
    fs::metadata(mount_point).is_err_and(|error| error.raw_os_error() == Some(not_connected))
}

/// The table writes spaces, tabs, line ends and backslashes as three octal digits.
fn unescape(field: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        let digits = behind.get(..3).filter(|_| *first == b'\\');
        let digits = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &behind[3..];
            }
            None => {
                bytes.push(*first);
                rest = behind;
            }
        }
    }
    PathBuf::from(OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_the_table_of_mounts_are_read() {
        assert_eq!(unescape("/a\\040b\\134c"), Path::new("/a b\\c"));
        assert_eq!(unescape("/plain\\"), Path::new("/plain\\"));
    }
}
