//! The end of a node that cannot go on.
//!
//! After a failed write or fsync the state of the page cache is unknown, and a replica that could not apply an entry as
//! the others did must not serve: there is no road back from either, so the process stops at once. A restart recovers
//! from what is durable, and if that is not enough, the durable watermark keeps the node from voting.

use std::fmt::Display;

/// Logs and aborts the process; a simulated one ends alone.
pub(crate) fn die(what: &'static str, error: impl Display) -> ! {
    let hint = hint(&error);
    tracing::error!(what, error = %error, "this node cannot go on and stops{hint}");
    #[cfg(feature = "simulation")]
    crate::sim::process::die(what, &error);
    std::process::abort()
}

/// The exit code of a node that stopped, or does not start, because its state is not the others' (`EX_DATAERR`).
pub const DIVERGED_EXIT_CODE: u8 = 65;

/// Logs and ends the process of a node that must not come back; a simulated one ends alone.
pub(crate) fn leave(what: &str, advice: &'static str) -> ! {
    tracing::error!(what, "this node stops for good; {advice}");
    #[cfg(feature = "simulation")]
    crate::sim::process::die("left", &what);
    std::process::exit(DIVERGED_EXIT_CODE.into())
}

/// What to do about an error of the disk, to put behind it; empty where nothing better than the error is known.
///
/// Told by the words of the operating system and of RocksDB, which is all that comes through RocksDB's interface.
pub(crate) fn hint(error: &impl Display) -> &'static str {
    let error = error.to_string();
    if error.contains("No space left on device") || error.contains("Disk quota exceeded") {
        "; the disk is full: free some of it or enlarge it, then start this node again: what it acknowledged is safe"
    } else if error.contains("Input/output error") {
        "; the disk failed: look into the kernel's log and at the disk, then start this node again; if it stops again, \
         replace it"
    } else if error.contains("Corruption") || error.contains("checksum") {
        "; a file is damaged: replace this node, the others have what it had"
    } else {
        ""
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    #[test]
    fn errors_of_the_disk_say_what_to_do() {
        // By the numbers of Linux: ENOSPC, EIO.
        assert!(hint(&io::Error::from_raw_os_error(28)).contains("full"));
        assert!(hint(&io::Error::from_raw_os_error(5)).contains("failed"));
        assert!(hint(&"Corruption: block checksum mismatch").contains("damaged"));
        assert_eq!(hint(&"its thread panicked"), "");
    }
}
