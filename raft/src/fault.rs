//! The end of a node that cannot go on.
//!
//! After a failed write or fsync the state of the page cache is unknown, and a replica that could not apply an entry as
//! the others did must not serve: there is no road back from either, so the process stops at once. A restart recovers
//! from what is durable, and if that is not enough, the durable watermark keeps the node from voting.

use std::fmt::Display;

/// Logs and aborts the process; a simulated one ends alone.
pub(crate) fn die(what: &'static str, error: impl Display) -> ! {
    tracing::error!(what, error = %error, "this node cannot go on and stops");
    #[cfg(feature = "simulation")]
    crate::sim::process::die(what, &error);
    std::process::abort()
}
