//! Why a command did not do what was asked, and the exit code that says so.

use std::fmt;
use std::io;

/// Exit codes, for `--help`.
pub const EXIT_CODES: &str = "Exit codes:
  0  done
  1  refused, or not found
  2  wrong usage, or a file that does not read
  3  the cluster could not be reached, or has no majority: nothing was done
  4  outcome unknown: it may have been done; the message says how to find out";

/// Why a command did not do what was asked.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The cluster said no, or does not have it.
    Refused(String),
    /// The arguments, or what they point to, make no sense.
    Usage(String),
    /// Nothing was done: nobody answered, or no majority does.
    Unreachable(String),
    /// It may have been done.
    Unknown(String),
    /// Standard output did not take it.
    Output(io::Error),
}

impl Failure {
    /// The number of the exit code.
    pub(crate) fn code(&self) -> u8 {
        match self {
            Failure::Refused(_) => 1,
            Failure::Usage(_) => 2,
            Failure::Unreachable(_) => 3,
            Failure::Unknown(_) => 4,
            // Whoever closed the pipe had seen enough.
            Failure::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => 0,
            Failure::Output(_) => 1,
        }
    }

    /// A usage failure.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Failure::Usage(message.into())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Refused(message)
            | Failure::Usage(message)
            | Failure::Unreachable(message)
            | Failure::Unknown(message) => f.write_str(message),
            Failure::Output(error) => write!(f, "standard output: {error}"),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Failure::Output(error)
    }
}

/// What a command comes to.
pub(crate) type Result<T = ()> = std::result::Result<T, Failure>;
