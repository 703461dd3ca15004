//! Every no of the API, as an RFC 9457 problem document with a stable code.
//!
//! One exhaustive match an area ([`codes`]) turns refusals into a status and a code; what goes wrong before or beside
//! the log has its codes here. [`table`] lists all of them, for the documentation and `GET /v1/errors`.

mod codes;

use crate::wire;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use onward_statemachine::membership::ChangeError;
use onward_statemachine::ports::{BackupError, PastError, ProposeError, ReadError};
use onward_statemachine::{CommandId, Refusal, Revision};

pub use codes::table;

/// A kind of problem: what a client can tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Code {
    /// The HTTP status.
    pub status: u16,
    /// The stable name, in snake case, the area first.
    pub code: &'static str,
}

impl Code {
    const fn new(status: u16, code: &'static str) -> Self {
        Code { status, code }
    }

    /// A problem of this kind.
    pub(crate) fn because(self, detail: impl Into<String>) -> Problem {
        Problem(Box::new(wire::Problem {
            kind: format!("/v1/errors#{}", self.code),
            title: self.code.replace('_', " "),
            status: self.status,
            code: self.code.to_owned(),
            detail: detail.into(),
            revision: None,
            command_id: None,
            command_index: None,
            retry_after_ms: None,
            floor: None,
        }))
    }
}

macro_rules! edge_codes {
    ($($(#[$doc:meta])* $name:ident = $status:literal $code:literal;)*) => {
        $($(#[$doc])* pub(crate) const $name: Code = Code::new($status, $code);)*
        /// The problems that never reached a decision of the log.
        const EDGE: &[Code] = &[$($name),*];
    };
}
edge_codes! {
    /// The body is not the JSON that the route takes.
    BODY_INVALID = 400 "body_invalid";
    /// A field is JSON of the right shape and still means nothing.
    FIELD_INVALID = 400 "field_invalid";
    /// A query parameter is unknown or means nothing.
    QUERY_INVALID = 400 "query_invalid";
    /// A part of the path means nothing.
    PATH_INVALID = 400 "path_invalid";
    /// A header means nothing.
    HEADER_INVALID = 400 "header_invalid";
    /// A cursor that this list did not give.
    CURSOR_INVALID = 400 "cursor_invalid";
    /// Nothing is served there.
    ROUTE_NOT_FOUND = 404 "route_not_found";
    /// There is no such thing.
    NOT_FOUND = 404 "not_found";
    /// The path takes other methods.
    METHOD_NOT_ALLOWED = 405 "method_not_allowed";
    /// A history that does not reach back so far.
    COMPACTED = 410 "compacted";
    /// A revision whose state is no longer kept.
    REVISION_COMPACTED = 410 "revision_compacted";
    /// A revision that has not come yet.
    REVISION_FUTURE = 404 "revision_future";
    /// State moved on since the plan was made.
    PLAN_STALE = 412 "plan_stale";
    /// The body is larger than the route takes.
    BODY_TOO_LARGE = 413 "body_too_large";
    /// The command is larger than the log takes.
    COMMAND_TOO_LARGE = 413 "command_too_large";
    /// More changed than one comparison holds.
    DIFF_TOO_LARGE = 413 "diff_too_large";
    /// There is more than one export holds.
    EXPORT_TOO_LARGE = 413 "export_too_large";
    /// The body is of a type that the route does not take.
    MEDIA_TYPE_UNSUPPORTED = 415 "media_type_unsupported";
    /// The content of an object means nothing, such as a template that does not parse.
    CONTENT_INVALID = 422 "content_invalid";
    /// Too many proposals are under way, too many reads wait, or too much is being received.
    OVERLOADED = 429 "overloaded";
    /// Too many streams are open.
    STREAMS_EXHAUSTED = 429 "streams_exhausted";
    /// As many backups as a node takes at a time are under way.
    BACKUPS_EXHAUSTED = 429 "backups_exhausted";
    /// The command would break every node.
    COMMAND_POISONOUS = 500 "command_poisonous";
    /// The state of this node could not be copied.
    BACKUP_FAILED = 500 "backup_failed";
    /// No majority.
    NO_LEADER = 503 "no_leader";
    /// The revision that was asked for has not arrived at this node.
    REVISION_NOT_APPLIED = 503 "revision_not_applied";
    /// An earlier state is still being put together, or the disk of the node has no room for that.
    HISTORY_NOT_READY = 503 "history_not_ready";
    /// This node cannot serve yet, or any more.
    NOT_READY = 503 "not_ready";
    /// This node is going down.
    SHUTTING_DOWN = 503 "shutting_down";
    /// The disks have no room for what adds to them.
    DISK_NEARLY_FULL = 507 "disk_nearly_full";
    /// The command may have been done, or may yet be.
    OUTCOME_UNKNOWN = 504 "outcome_unknown";
}

/// How long a client should wait before it asks another node, where nothing better is known, in ms.
const RETRY_AFTER_MS: u64 = 500;

/// A problem on its way to the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem(pub(crate) Box<wire::Problem>);

impl Problem {
    /// With the revision of the state that it was decided on.
    pub(crate) fn at(mut self, revision: Revision) -> Self {
        self.0.revision = Some(revision.0);
        self
    }

    fn retry_after(mut self, ms: u64) -> Self {
        self.0.retry_after_ms = Some(ms);
        self
    }

    fn command(mut self, id: CommandId) -> Self {
        self.0.command_id = Some(id.0);
        self
    }

    pub(crate) fn floor(mut self, floor: Revision) -> Self {
        self.0.floor = Some(floor.0);
        self
    }
}

impl IntoResponse for Problem {
    fn into_response(mut self) -> Response {
        let status = StatusCode::from_u16(self.0.status).expect("codes hold HTTP statuses");
        if matches!(
            status,
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE
        ) {
            self.0.retry_after_ms.get_or_insert(RETRY_AFTER_MS);
        }
        let body = serde_json::to_vec(&self.0).expect("a problem is a map with text keys");
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        let content_type = HeaderValue::from_static("application/problem+json");
        headers.insert(header::CONTENT_TYPE, content_type);
        if let Some(ms) = self.0.retry_after_ms {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(ms.div_ceil(1000)));
        }
        if let Some(revision) = self.0.revision {
            headers.insert(crate::answer::REVISION, HeaderValue::from(revision));
        }
        response
    }
}

/// The log said no.
pub(crate) fn refused(revision: Revision, refusal: &Refusal) -> Problem {
    let code = codes::of(refusal);
    let mut problem = code.because(refusal.to_string()).at(revision);
    if let Refusal::Batch { index, .. } = refusal {
        problem.0.command_index = Some(*index);
    }
    problem
}

/// The proposal has no outcome.
pub(crate) fn not_proposed(error: &ProposeError) -> Problem {
    let detail = error.to_string();
    match error {
        ProposeError::NoLeader => NO_LEADER.because(detail),
        ProposeError::Overloaded { retry_after_ms, .. } => OVERLOADED.because(detail).retry_after(*retry_after_ms),
        ProposeError::DiskNearlyFull { retry_after_ms, .. } => {
            DISK_NEARLY_FULL.because(detail).retry_after(*retry_after_ms)
        }
        ProposeError::TooLarge { .. } => COMMAND_TOO_LARGE.because(detail),
        ProposeError::Poisonous(_) => COMMAND_POISONOUS.because(detail),
        ProposeError::ShuttingDown => SHUTTING_DOWN.because(detail),
        ProposeError::Unknown(id) => OUTCOME_UNKNOWN
            .because(format!(
                "the outcome of command {id} is unknown: it may have been done, or may yet be. Send the same request \
                 again with `Idempotency-Key: {id}` to learn it; it is done once however often it is sent"
            ))
            .command(*id),
    }
}

/// The cluster was not changed, or not seen to be.
pub(crate) fn not_changed(error: &ChangeError) -> Problem {
    let detail = error.to_string();
    match error {
        ChangeError::Refused(refusal) => codes::change(refusal).because(detail),
        ChangeError::NoLeader => NO_LEADER.because(detail),
        ChangeError::Unknown(_) => OUTCOME_UNKNOWN.because(detail),
    }
}

impl From<ReadError> for Problem {
    fn from(error: ReadError) -> Self {
        let detail = error.to_string();
        match error {
            ReadError::NoLeader => NO_LEADER
                .because("no leader confirmed the read; `?consistency=local` reads are still answered"),
            ReadError::NotApplied { applied, .. } => REVISION_NOT_APPLIED.because(detail).at(applied),
            ReadError::Overloaded { retry_after_ms, .. } => {
                OVERLOADED.because(detail).retry_after(retry_after_ms)
            }
            ReadError::ShuttingDown => SHUTTING_DOWN.because(detail),
        }
    }
}

impl From<PastError> for Problem {
    fn from(error: PastError) -> Self {
        let detail = error.to_string();
        match error {
            PastError::Compacted { oldest, .. } => REVISION_COMPACTED.because(detail).floor(oldest),
            PastError::Future { head, .. } => REVISION_FUTURE.because(detail).at(head),
            PastError::NotReady { retry_after_ms, .. } | PastError::NoRoom { retry_after_ms, .. } => {
                HISTORY_NOT_READY.because(detail).retry_after(retry_after_ms)
            }
            PastError::ShuttingDown => SHUTTING_DOWN.because(detail),
        }
    }
}

impl From<BackupError> for Problem {
    fn from(error: BackupError) -> Self {
        let detail = error.to_string();
        match error {
            BackupError::Busy { .. } => BACKUPS_EXHAUSTED.because(detail),
            BackupError::Failed(_) => BACKUP_FAILED.because(detail),
        }
    }
}

impl From<wire::Invalid> for Problem {
    fn from(invalid: wire::Invalid) -> Self {
        FIELD_INVALID.because(invalid.to_string())
    }
}
