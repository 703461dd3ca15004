//! Whether this node still belongs to its cluster.
//!
//! Hardly ever is a member told that it was let go of: it just hears no more of a leader. So a node that hears of none asks
//! the members that it knows. What they have applied is committed, and an id is never given out again; so one membership
//! without this node, later than one with it, settles it for good. The node then writes that down and stops, and
//! refuses to start from then on.

use super::join::Joining;
use super::reservation::Reservation;
use crate::StartError;
use crate::engine::Engine;
use crate::files::Files;
use crate::identity::Identity;
use crate::peer::wire::{MemberAnswer, MemberRequest};
use crate::runtime::watch;
use futures::future::join_all;
use onward_statemachine::mutant::{self, Mutant};
use onward_statemachine::{NodeId, Revision};
use openraft::async_runtime::watch::WatchReceiver;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// How often a node that hears of no leader asks whether it still belongs.
const ASK_INTERVAL: Duration = Duration::from_millis(500);
const ASK_DEADLINE: Duration = Duration::from_secs(1);

const NOTE: &str = "removed";

/// That a node was let go of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Removal {
    /// The change of the membership that shows it.
    pub revision: Revision,
}

/// What a node knows of its own place in the cluster.
pub(crate) struct Standing {
    dir: PathBuf,
    files: Arc<dyn Files>,
    /// How it joined, as long as it does not vote.
    pub(super) joining: Option<Joining>,
    removal: watch::Sender<Option<Removal>>,
}

impl Standing {
    /// Reads what the directory of a node says.
    pub(crate) fn of(files: Arc<dyn Files>, dir: &Path) -> std::io::Result<Self> {
        Ok(Standing {
            joining: Joining::read(&*files, dir)?,
            dir: dir.to_owned(),
            files,
            removal: watch::Sender::default(),
        })
    }

    /// Whether the node joins, and does not vote yet.
    pub(crate) fn joins(&self) -> bool {
        self.joining.is_some()
    }

    /// Forgets how the node joined: it votes.
    pub(super) fn joined(&self) -> std::io::Result<()> {
        Reservation::forget(&*self.files, &self.dir)?;
        Joining::forget(&*self.files, &self.dir)
    }
}

/// Refuses to start a node that was let go of.
pub(crate) fn stopped_as_removed(
    files: &dyn Files,
    dir: &Path,
    identity: &Identity,
) -> Result<(), StartError> {
    let path = dir.join(NOTE);
    match files.read_text(&path) {
        Ok(None) => Ok(()),
        Ok(Some(_)) => Err(StartError::Removed {
            path: dir.to_owned(),
            node: identity.node,
            cluster: identity.cluster_name.clone(),
        }),
        Err(error) => Err(StartError::Io { path, error }),
    }
}

impl Engine {
    /// Returns once this node was let go of, and never where it goes on.
    pub(crate) async fn removed(&self) -> Removal {
        let mut removal = self.standing.removal.subscribe();
        match removal.wait_for(Option::is_some).await.map(|found| *found) {
            Ok(Some(removal)) => removal,
            _ => std::future::pending().await,
        }
    }

    /// Asks whether this node still belongs, whenever it hears of no leader, until it does not.
    pub(crate) async fn watch_standing(self: Arc<Self>) {
        if mutant::on(Mutant::RemovedStays) {
            return;
        }
        let waits = || tokio::time::sleep(ASK_INTERVAL);
        while self.token().run_until_cancelled(waits()).await.is_some() {
            let silent = !self.leads() && self.age_ms() > 2 * self.timings.election_max_ms;
            if silent && let Some(revision) = self.let_go_of().await {
                return self.dismiss(revision);
            }
        }
    }

    /// The revision of a membership without this node that is later than one with it.
    async fn let_go_of(self: &Arc<Self>) -> Option<Revision> {
        let me = NodeId(self.id());
        let admitted = self.standing.joining.as_ref().map(|joining| joining.admitted);
        let own = match self.standing_of(me) {
            MemberAnswer::Standing { revision, member } => Some((revision, member)),
            _ => None,
        };
        if let Some(removed) = self.applied_removal() {
            return Some(removed);
        }
        let since = match own {
            Some((revision, true)) => Some(revision).max(admitted),
            _ => admitted,
        }?;
        let cluster = self.cluster_id();
        let request = MemberRequest::Standing { id: me, cluster };
        // One that has no log yet knows only whom it joined through.
        let through = self
            .standing
            .joining
            .as_ref()
            .map(|joining| joining.through.clone());
        let asked = self
            .others()
            .into_iter()
            .chain(through)
            .map(|address| self.ask_member(address, &request, ASK_DEADLINE));
        let told = join_all(asked)
            .await
            .into_iter()
            .filter_map(|answer| match answer {
                Ok(MemberAnswer::Standing { revision, member }) => Some((revision, member)),
                _ => None,
            });
        told.chain(own)
            .find_map(|(revision, member)| (!member && revision > since).then_some(revision))
    }

    /// The revision of its own removal, where it was sent that. Who votes has the change in its log that let it in, so one
    /// without it that is the last there came later; and what is applied is committed.
    fn applied_removal(&self) -> Option<Revision> {
        let applied = self.state.membership().ok()?;
        let is_member = applied.membership().get_node(&self.id()).is_some();
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        let is_last = applied.log_id() == metrics.membership_config.log_id();
        let removed = !self.standing.joins() && !is_member && is_last;
        // Before the first is applied there is none.
        applied
            .log_id()
            .as_ref()
            .filter(|_| removed)
            .map(|id| Revision(id.index))
    }

    fn dismiss(&self, revision: Revision) {
        let Identity {
            node, cluster_name, ..
        } = &self.identity;
        let text =
            format!("node {node} was removed from cluster {cluster_name}, seen at revision {revision}\n");
        if let Err(error) = self
            .standing
            .files
            .replace(&self.standing.dir.join(NOTE), text.as_bytes())
        {
            tracing::warn!(%error, "it could not be noted that this node was removed");
        }
        tracing::warn!(
            %node, cluster = %cluster_name, %revision,
            "this node was removed from the cluster and stops. Its id is never used again and its data directory may be \
             deleted; to take this machine in again, start it with an empty directory and --join"
        );
        self.standing.removal.send_replace(Some(Removal { revision }));
    }
}
