//! What every handler holds: the ports, the limits, and the two roads through them, `propose` and `read`.

use crate::answer::{Done, Seen};
use crate::metrics::Metrics;
use crate::problem::{self, CONTENT_INVALID, Problem};
use crate::receiving::Receiving;
use crate::request::{Call, Fresh};
use onward_statemachine::ports::{Backups, Cluster, Freshness, Proposal, Proposer, Reader, Schedule};
use onward_statemachine::{Command, Fault, Outcome, Revision, View, history, system};
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

/// What the API stands on.
#[derive(Clone)]
pub struct Services {
    /// Puts demands into the log.
    pub proposer: Arc<dyn Proposer>,
    /// Reads this node's replica.
    pub reader: Arc<dyn Reader>,
    /// Looks at the cluster.
    pub cluster: Arc<dyn Cluster>,
    /// Takes backups of this node's replica.
    pub backups: Arc<dyn Backups>,
    /// Looks at the scheduled backups, where there are any.
    pub schedule: Option<Arc<dyn Schedule>>,
    /// What a command must pass beyond what the state machine decides: rules that need more than state, such as that a
    /// template is one. The text says which object breaks which rule.
    pub check: fn(&Command) -> Result<(), String>,
    /// The limits in force.
    pub limits: Limits,
    /// Ends the streams, which a graceful shutdown would otherwise wait for.
    pub shutdown: CancellationToken,
}

impl Services {
    /// With the default limits and a shutdown of its own.
    pub fn new(
        proposer: Arc<dyn Proposer>,
        reader: Arc<dyn Reader>,
        cluster: Arc<dyn Cluster>,
        backups: Arc<dyn Backups>,
    ) -> Self {
        Services {
            proposer,
            reader,
            cluster,
            backups,
            schedule: None,
            check: |_| Ok(()),
            limits: Limits::default(),
            shutdown: CancellationToken::new(),
        }
    }
}

/// The limits of the API. Those of the commands themselves are in `onward-statemachine`, named in each area.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The largest request body, in bytes.
    pub body_bytes: usize,
    /// The largest body of an object transaction, a batch or a manifest, in bytes: base64 costs a third on top of what
    /// the log takes.
    pub large_body_bytes: usize,
    /// The bytes of bodies that are being received at a time, in all.
    pub receiving_bytes: usize,
    /// How long a write waits for its outcome, in ms.
    pub deadline_ms: u64,
    /// The streams that are open at a time.
    pub streams: usize,
    /// How often an idle stream says how far it has come, in ms.
    pub progress_ms: u64,
    /// How long ago a ready node last heard from its leader at most, in ms.
    pub ready_age_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            body_bytes: 3 << 19,
            large_body_bytes: 6 << 20,
            receiving_bytes: 256 << 20,
            deadline_ms: 10_000,
            streams: 4096,
            progress_ms: 5_000,
            ready_age_ms: 5_000,
        }
    }
}

/// The items of a list that are answered at once, unless the request says otherwise, and the most.
pub(crate) const LIST_LIMIT_DEFAULT: usize = 500;
pub(crate) const LIST_LIMIT_MAX: usize = 5000;
/// The bytes of values that one page of a list carries.
pub(crate) const LIST_BYTES_MAX: usize = 4 << 20;

/// The state of the router.
#[derive(Clone)]
pub(crate) struct App(Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) services: Services,
    pub(crate) metrics: Metrics,
    pub(crate) receiving: Receiving,
    streams: Arc<Semaphore>,
}

impl std::ops::Deref for App {
    type Target = Inner;
    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl App {
    pub(crate) fn new(services: Services, metrics: Metrics) -> Self {
        let streams = Arc::new(Semaphore::new(services.limits.streams));
        let receiving = Receiving::new(services.limits.receiving_bytes);
        App(Arc::new(Inner {
            services,
            metrics,
            receiving,
            streams,
        }))
    }

    /// Proposes `command` and waits for its outcome.
    pub(crate) async fn propose(&self, call: Call, command: Command) -> Result<Done, Problem> {
        self.check(&command)?;
        let proposal = Proposal {
            command_id: call.command_id,
            actor: call.actor,
            command,
        };
        let deadline_ms = self.services.limits.deadline_ms;
        match self.services.proposer.propose(proposal, deadline_ms).await {
            Ok(Outcome::Accepted { revision, reply }) => Ok(Done { revision, reply }),
            Ok(Outcome::Refused { revision, refusal }) => Err(problem::refused(revision, &refusal)),
            Err(error) => Err(problem::not_proposed(&error)),
        }
    }

    /// Whether the commands could be proposed, as far as their content alone tells.
    pub(crate) fn check(&self, command: &Command) -> Result<(), Problem> {
        let each = match command {
            Command::Batch(commands) => commands.as_slice(),
            single => std::slice::from_ref(single),
        };
        each.iter().try_for_each(|command| {
            (self.services.check)(command).map_err(|rule| CONTENT_INVALID.because(rule))
        })
    }

    /// Waits until this replica is as fresh as asked, then reads one consistent view of it, or of what it was.
    pub(crate) async fn read<T>(
        &self,
        fresh: Fresh,
        read: impl FnOnce(&dyn View) -> Result<T, Fault> + Send,
    ) -> Result<Seen<T>, Problem> {
        let freshness = fresh.freshness();
        let stamp = self.services.reader.barrier(freshness).await?;
        if let Some(at) = fresh.at {
            return Ok(Seen {
                value: self.read_at(at, read).await?,
                revision: at,
                age_ms: None,
            });
        }
        let (revision, value) = self
            .services
            .reader
            .read(|view| Ok((system::clock(view)?.revision, read(view)?)));
        let age_ms = (freshness == Freshness::Local).then_some(stamp.age_ms);
        Ok(Seen {
            value,
            revision,
            age_ms,
        })
    }

    /// Reads the state as of `at`, which is the present one where nothing happened since.
    async fn read_at<T>(
        &self,
        at: Revision,
        read: impl FnOnce(&dyn View) -> Result<T, Fault> + Send,
    ) -> Result<T, Problem> {
        let reader = &self.services.reader;
        let head = reader.stamp().applied;
        let read = match reader.read(|view| {
            if history::check(view, at, head)?.is_ok() && history::is_present(view, at)? {
                return Ok(Ok(read(view)?));
            }
            Ok(Err(read))
        }) {
            Ok(value) => return Ok(value),
            Err(read) => read,
        };
        let past = reader.past(at).await?;
        Ok(past.read(read))
    }

    /// The right to keep one stream open.
    pub(crate) fn stream_permit(&self) -> Result<OwnedSemaphorePermit, Problem> {
        let limit = self.services.limits.streams;
        Arc::clone(&self.streams).try_acquire_owned().map_err(|_| {
            problem::STREAMS_EXHAUSTED.because(format!("{limit} streams are open, which is the limit"))
        })
    }
}
