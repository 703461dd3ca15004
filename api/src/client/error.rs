//! What a request can end with instead of an answer.

use crate::wire::Problem;
use uuid::Uuid;

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The cluster said no; nothing was done.
    #[error("{}", .0.detail)]
    Refused(Box<Problem>),
    /// No server took the request; nothing was done.
    #[error("no server answered in time: {0}")]
    Unreachable(String),
    /// The write may have been done, or may yet be.
    #[error(
        "the outcome of command {command_id} is unknown: it may have been done, or may yet be ({reason}); look at the \
         state, or send the same again under this id"
    )]
    OutcomeUnknown {
        /// The `Idempotency-Key` that it was sent under.
        command_id: Uuid,
        /// What went wrong last.
        reason: String,
    },
    /// The request makes no sense; nothing was sent.
    #[error("{0}")]
    Usage(String),
    /// The answer is not what this client understands: it comes from something else, or from another version.
    #[error("the answer of {server} is not understood: {reason}")]
    Unreadable {
        /// Who answered.
        server: String,
        /// What was wrong with it.
        reason: String,
    },
}

impl Error {
    /// Whether what was asked for does not exist.
    pub fn is_not_found(&self) -> bool {
        self.problem()
            .is_some_and(|problem| problem.status == 404 && problem.code != "route_not_found")
    }

    /// The problem that the cluster answered with.
    pub fn problem(&self) -> Option<&Problem> {
        match self {
            Error::Refused(problem) => Some(problem),
            _ => None,
        }
    }
}
