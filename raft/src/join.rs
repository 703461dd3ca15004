//! How a node comes to belong to a cluster: forming it with the other initial members, or joining it.
//!
//! # The same id never comes back empty
//! A voter whose data is gone must not vote as if it had never acknowledged anything. An initial member that starts
//! without a log asks the others first, and refuses to start where the leader knows a log of its id. Where no leader
//! can tell, it starts, but votes for nobody who has entries until it has caught up with a leader ([`Trust`]). What is
//! left is the loss of a voter's data together with that of every other copy of an entry's majority.

use crate::StartError;
use crate::config::{Config, Join};
use crate::counters::Counters;
use crate::engine::Engine;
use crate::identity::{self, Identity};
use crate::peer::Peers;
use crate::peer::frame::Lane;
use crate::peer::net::Tcp;
use crate::peer::wire::{MemberAnswer, MemberRequest, kind};
use crate::state::snapshot::sync_dir;
use crate::types::{LogId, PeerNode, Vote};
use futures::future::join_all;
use onward_statemachine::{NodeId, Revision, codec};
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

/// How long a join, and its parts, may take before it is tried again.
const JOIN_DEADLINE: Duration = Duration::from_secs(20);
const PROMOTE_DEADLINE: Duration = Duration::from_secs(30 * 60);
const JOIN_PAUSE: Duration = Duration::from_millis(500);
const JOIN_TRIES: usize = 20;
/// How long an initial member waits for the others to say whether they know it.
const ASK_DEADLINE: Duration = Duration::from_millis(400);

/// Whether this node's log can be trusted to hold all that the node ever acknowledged. A node that starts with a log
/// can (the durable watermark saw to that); an initial member that starts without can once it has all that a leader
/// had committed in its own term, which covers everything before it. A file remembers that it cannot yet.
pub(crate) struct Trust {
    /// The revision to be applied first; [`Trust::UNKNOWN`] until a leader told, 0 where there is nothing to wait for.
    target: AtomicU64,
    mark: PathBuf,
}

impl Trust {
    const UNKNOWN: u64 = u64::MAX;

    const MARK: &str = "catching-up";

    /// Reads whether the node in `dir` has caught up.
    pub(crate) fn of(dir: &Path) -> Self {
        let mark = dir.join(Self::MARK);
        Trust {
            target: AtomicU64::new(if mark.exists() { Self::UNKNOWN } else { 0 }),
            mark,
        }
    }

    /// Notes, before anything else is written, that the node in `dir` begins without a log.
    fn begin(dir: &Path) -> io::Result<()> {
        File::create(dir.join(Self::MARK))?.sync_all()?;
        sync_dir(dir)
    }

    /// Forgets the note once it no longer holds: the node has caught up, or leads, and so has everything.
    pub(crate) fn settle(&self, applied: Revision, leads: bool) {
        let target = self.target.load(Relaxed);
        if target == 0 || (!leads && applied.0 < target) {
            return;
        }
        match std::fs::remove_file(&self.mark) {
            Ok(()) => self.target.store(0, Relaxed),
            Err(error) => tracing::warn!(path = %self.mark.display(), %error, "the note cannot be deleted"),
        }
    }

    /// The file that remembers that the node has not caught up.
    pub(crate) fn note(&self) -> &Path {
        &self.mark
    }

    /// Whether there is nothing to wait for.
    pub(crate) fn settled(&self) -> bool {
        self.target.load(Relaxed) == 0
    }

    /// A leader with this vote has this committed.
    pub(crate) fn learn(&self, vote: &Vote, committed: Option<&LogId>) {
        if self.target.load(Relaxed) == Self::UNKNOWN
            && let Some(committed) = committed
            && committed.leader_id == vote.leader_id
        {
            self.target.store(committed.index, Relaxed);
        }
    }

    /// Whether this node may vote for a candidate whose log ends at `last`. Where nobody has more than the entry that
    /// formed the cluster, there is nothing to have forgotten.
    pub(crate) fn may_vote(&self, last: Option<&LogId>, applied: Revision) -> bool {
        last.is_none_or(|last| last.index == 0) || applied.0 >= self.target.load(Relaxed)
    }
}

/// Finds out who this node is, and writes it down before anything else.
pub(crate) async fn establish(config: &Config) -> Result<Identity, StartError> {
    let path = || config.data_dir.clone();
    if let Some(known) = identity::read(&config.data_dir)? {
        if known.cluster_name != config.cluster_name {
            return Err(StartError::OtherCluster {
                path: path(),
                found: known.cluster_name,
                wanted: config.cluster_name.clone(),
            });
        }
        return match config.node_id {
            Some(wanted) if wanted != known.node => Err(StartError::OtherNode {
                path: path(),
                found: known.node,
                wanted,
            }),
            _ => Ok(known),
        };
    }
    let identity = match (&config.join, config.node_id) {
        (Some(join), _) => ask_to_join(config, join).await?,
        (None, Some(node)) => {
            if !config.initial_members.iter().any(|member| member.id == node) {
                return Err(StartError::NotInitial(node));
            }
            ask_whether_known(config, node).await?;
            Trust::begin(&config.data_dir).map_err(|error| StartError::Unwritable { path: path(), error })?;
            Identity {
                cluster_id: identity::cluster_id(&config.cluster_name, &config.initial_members),
                cluster_name: config.cluster_name.clone(),
                node,
            }
        }
        (None, None) => return Err(StartError::NoIdentity),
    };
    identity::write(&config.data_dir, &identity)?;
    Ok(identity)
}

/// Asks the other initial members whether there was a log of this id.
async fn ask_whether_known(config: &Config, node: NodeId) -> Result<(), StartError> {
    let request = MemberRequest::Known { id: node };
    let others = config.initial_members.iter().filter(|member| member.id != node);
    let asked = others.map(|member| ask_member(&member.peer_address, &request, ASK_DEADLINE));
    // Who does not answer does not lead, or does not reach this node either.
    let known = join_all(asked)
        .await
        .into_iter()
        .any(|answer| answer == Ok(MemberAnswer::Done));
    if known {
        return Err(StartError::Forgot(format!(
            "the cluster knows a log of node {node}, and this data directory has none: entries that the node acknowledged \
             are gone. Start it with an empty data directory as a new node with `onward serve --join URL`"
        )));
    }
    Ok(())
}

/// Asks a member for an id.
async fn ask_to_join(config: &Config, join: &Join) -> Result<Identity, StartError> {
    let failed = |reason: String| StartError::Join {
        address: join.peer_address.clone(),
        reason,
    };
    let mut reason = String::new();
    for _ in 0..JOIN_TRIES {
        match ask_member(&join.peer_address, &MemberRequest::Allocate, JOIN_DEADLINE).await {
            Ok(MemberAnswer::Allocated {
                id,
                cluster_id,
                cluster_name,
            }) => {
                if cluster_name != config.cluster_name {
                    return Err(failed(format!(
                        "it belongs to cluster `{cluster_name}`, not to `{}`",
                        config.cluster_name
                    )));
                }
                tracing::info!(node = %id, cluster = %cluster_id, "joining the cluster under a new id");
                return Ok(Identity {
                    cluster_id,
                    cluster_name,
                    node: id,
                });
            }
            Ok(answer) => reason = format!("{answer:?}"),
            Err(error) => reason = error,
        }
        tokio::time::sleep(JOIN_PAUSE).await;
    }
    Err(failed(reason))
}

/// One request on the join lane, over a connection of its own.
async fn ask_member(
    address: &str,
    request: &MemberRequest,
    deadline: Duration,
) -> Result<MemberAnswer, String> {
    let token = CancellationToken::new();
    let _ended = token.clone().drop_guard();
    let counters = Arc::new(Counters::default());
    let peers = Peers::new(
        Arc::new(Tcp),
        (0, Uuid::nil()),
        deadline,
        counters,
        token,
        TaskTracker::new(),
    );
    let node = PeerNode {
        peer: address.to_owned(),
        http: String::new(),
    };
    let channel = peers.channel(0, &node, Lane::Join);
    let body = channel
        .call(kind::MEMBER, &codec::encode(request), deadline)
        .await
        .map_err(|error| error.to_string())?;
    codec::decode(&body).map_err(|error| error.to_string())
}

pub(crate) async fn form_or_join(
    engine: &Arc<Engine>,
    config: &Config,
    node: PeerNode,
) -> Result<(), StartError> {
    let failed = |error: &dyn std::fmt::Display| StartError::Engine(error.to_string());
    if engine
        .raft
        .is_initialized()
        .await
        .map_err(|error| failed(&error))?
    {
        return Ok(());
    }
    if let Some(join) = &config.join {
        let (joining, join) = (engine.clone(), join.clone());
        let token = engine.token().clone();
        engine.tasks().spawn(async move {
            token
                .run_until_cancelled_owned(promote(joining, join, node))
                .await
        });
        return Ok(());
    }
    let me = engine.identity.node;
    if !config.initial_members.iter().any(|member| member.id == me) {
        tracing::warn!(node = %me, "this node has no log, is not an initial member and joins nobody: it waits to be added");
        return Ok(());
    }
    let members: BTreeMap<u64, PeerNode> = config
        .initial_members
        .iter()
        .map(|member| {
            let node = PeerNode {
                peer: member.peer_address.clone(),
                http: member.http_url.clone(),
            };
            (member.id.0, node)
        })
        .collect();
    // All initial members do this with the same list; who comes late finds the cluster formed.
    if let Err(error) = engine.raft.initialize(members).await {
        tracing::debug!(%error, "the cluster is formed already");
    }
    Ok(())
}

/// Asks to be made a member until it is.
async fn promote(engine: Arc<Engine>, join: Join, node: PeerNode) {
    let request = MemberRequest::Promote {
        id: engine.identity.node,
        peer: node.peer,
        http: node.http,
        replaces: join.replaces,
    };
    loop {
        match ask_member(&join.peer_address, &request, PROMOTE_DEADLINE).await {
            Ok(MemberAnswer::Done) => {
                return tracing::info!(node = engine.id(), "this node is a voter now");
            }
            Ok(answer) => tracing::warn!(?answer, "this node was not made a member; trying again"),
            Err(error) => tracing::warn!(%error, "this node was not made a member; trying again"),
        }
        tokio::time::sleep(JOIN_PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::LeaderId;

    #[test]
    fn a_voter_without_its_log_votes_only_once_it_has_caught_up() {
        let dir = tempfile::tempdir().expect("temp dir");
        let id = |term, index| LogId::new(LeaderId { term, node_id: 1 }, index);
        assert!(Trust::of(dir.path()).may_vote(Some(&id(1, 9)), Revision(0)));
        Trust::begin(dir.path()).expect("notes");
        let trust = Trust::of(dir.path());
        assert!(trust.may_vote(Some(&id(0, 0)), Revision(0)), "a cluster can form");
        assert!(!trust.may_vote(Some(&id(1, 9)), Revision(0)));
        let leader = Vote::new_committed(2, 1);
        // What a leader commits of an earlier term may be less than what was acknowledged.
        trust.learn(&leader, Some(&id(1, 5)));
        assert!(!trust.may_vote(Some(&id(1, 9)), Revision(5)));
        trust.learn(&leader, Some(&id(2, 9)));
        trust.settle(Revision(8), false);
        assert!(!trust.may_vote(Some(&id(2, 9)), Revision(8)));
        // A restart does not make it forget.
        let trust = Trust::of(dir.path());
        assert!(!trust.may_vote(Some(&id(2, 9)), Revision(9)));
        trust.learn(&leader, Some(&id(2, 9)));
        assert!(trust.may_vote(Some(&id(2, 9)), Revision(9)));
        trust.settle(Revision(9), false);
        assert!(Trust::of(dir.path()).may_vote(Some(&id(2, 9)), Revision(0)));
    }
}
