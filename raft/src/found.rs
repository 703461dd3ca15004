//! How the initial members form their cluster: once, and only where none of them has a log.
//!
//! A member that begins without a log cannot tell by itself whether it is new or was wiped. Together they can: if *no*
//! initial member has a log, nothing was ever acknowledged. So each that begins asks all others whether they are fresh,
//! and then tells each that all are, naming the life in which it said so ([`crate::trust::Trust`]); only then does it form the cluster.
//! Who was told may vote from then on, with no leader to catch up with first; who is wiped later has another life, is not
//! fresh for long, and was told nothing.
//!
//! So all initial members must be up at one time, once. Several may find the same at once: they form the same cluster,
//! whose first entry is the list that all were configured with.
//!
//! Whoever formed it may be lost, with its disk, before anybody else has that entry. The others were told by then, each in
//! the life that it is in: they have no log and need none, for they have acknowledged nothing. Such a member may form the
//! cluster as well as any, whatever became of the others: what was acknowledged by a majority is on one that has a log, and
//! that one votes for nobody without it. So it does, once it knows of a majority of such members. With fewer it would
//! only be one more that has a log, for which those that are not told yet would wait.

use crate::config::InitialMember;
use crate::engine::Engine;
use crate::peer::frame::Lane;
use crate::peer::wire::{FoundAnswer, FoundRequest, kind};
use crate::types::PeerNode;
use futures::future::join_all;
use onward_statemachine::{NodeId, codec};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::time::Instant;
use uuid::Uuid;

/// How long another member may take to answer.
const ASK_DEADLINE: Duration = Duration::from_secs(2);
const ROUND_PAUSE: Duration = Duration::from_millis(100);
/// How often it is said what is waited for.
const SAY_INTERVAL: Duration = Duration::from_secs(5);

/// Forms the cluster of `members`, this node among them; returns once it is formed, here or by another.
pub(crate) async fn found(engine: Arc<Engine>, members: Vec<InitialMember>) {
    let mut said = None;
    while !matches!(engine.raft.is_initialized().await, Ok(true) | Err(_)) {
        match may_form(&engine, &members).await {
            Ok(()) => return form(&engine, &members).await,
            Err(reason) => {
                let now = Instant::now();
                if said.is_none_or(|said| now - said >= SAY_INTERVAL) {
                    said = Some(now);
                    tracing::info!(node = engine.id(), %reason, "the cluster is not formed yet");
                }
            }
        }
        tokio::time::sleep(ROUND_PAUSE).await;
    }
}

/// Asks all other members whether they are fresh, and tells all that all are. Where some do not answer or have a log,
/// those that were told so before go on, if they are a majority.
async fn may_form(engine: &Arc<Engine>, members: &[InitialMember]) -> Result<(), String> {
    let others = || members.iter().filter(|member| member.id != engine.identity.node);
    let ask_all = || join_all(others().map(|member| ask_whether_fresh(engine, member)));
    let first = ask_all().await;
    let founded = first.iter().filter(|one| **one == Ok(Uuid::nil())).count();
    if engine.trust.settled() && (founded + 1) * 2 > members.len() {
        return Ok(());
    }
    let lives = first.into_iter().collect::<Result<Vec<Uuid>, String>>()?;
    // Each had no log when it was asked. That all had none at one time is known when each says so again: between the two
    // rounds nobody can have had one, in the life that it names.
    let again = ask_all()
        .await
        .into_iter()
        .collect::<Result<Vec<Uuid>, String>>()?;
    if again != lives {
        return Err("a member began anew meanwhile".to_owned());
    }
    let told = join_all(
        others()
            .zip(lives)
            .map(|(member, life)| tell_founded(engine, member, life)),
    )
    .await;
    told.into_iter().collect::<Result<(), String>>()?;
    match engine.found(engine.trust.life()) {
        Ok(_) => Ok(()),
        Err(error) => Err(format!(
            "{} cannot be deleted: {error}",
            engine.trust.note().display()
        )),
    }
}

/// The life in which a member has no log; nil where it was founded before.
async fn ask_whether_fresh(engine: &Arc<Engine>, member: &InitialMember) -> Result<Uuid, String> {
    let request = FoundRequest::Fresh {
        cluster: engine.cluster_id(),
        member: member.id,
    };
    match ask(engine, member, &request).await? {
        FoundAnswer::Fresh { life } => Ok(life),
        FoundAnswer::Empty => Ok(Uuid::nil()),
        answer => Err(unlike(member, &answer)),
    }
}

async fn tell_founded(engine: &Arc<Engine>, member: &InitialMember, life: Uuid) -> Result<(), String> {
    let request = FoundRequest::Founded {
        cluster: engine.cluster_id(),
        member: member.id,
        life,
    };
    match ask(engine, member, &request).await? {
        FoundAnswer::Founded => Ok(()),
        answer => Err(unlike(member, &answer)),
    }
}

fn unlike(member: &InitialMember, answer: &FoundAnswer) -> String {
    let (id, address) = (member.id, &member.peer_address);
    match answer {
        FoundAnswer::HasLog => format!("node {id} has a log already: this node waits for a leader"),
        FoundAnswer::Stranger { node, cluster } => format!(
            "at {address}, node {node} of cluster {cluster} answers instead of node {id}: do all nodes have the same initial \
             members?"
        ),
        FoundAnswer::Fresh { .. } | FoundAnswer::Empty | FoundAnswer::Founded | FoundAnswer::OtherLife => {
            format!("node {id} at {address} began anew meanwhile")
        }
        FoundAnswer::Failed(reason) => format!("node {id} at {address}: {reason}"),
    }
}

async fn ask(
    engine: &Arc<Engine>,
    member: &InitialMember,
    request: &FoundRequest,
) -> Result<FoundAnswer, String> {
    let node = peer_node(member);
    let channel = engine.peers.channel(member.id.0, &node, Lane::Join);
    let answered = channel
        .call(kind::FOUND, &codec::encode(request), ASK_DEADLINE)
        .await;
    let failed = |error: &dyn std::fmt::Display| {
        format!(
            "all initial members must be up at one time, once: node {} at {} does not answer: {error}",
            member.id, member.peer_address
        )
    };
    let body = answered.map_err(|error| failed(&error))?;
    codec::decode(&body).map_err(|error| failed(&error))
}

fn peer_node(member: &InitialMember) -> PeerNode {
    PeerNode {
        peer: member.peer_address.clone(),
        http: member.http_url.clone(),
    }
}

async fn form(engine: &Arc<Engine>, members: &[InitialMember]) {
    let members: BTreeMap<u64, PeerNode> = members
        .iter()
        .map(|member| (member.id.0, peer_node(member)))
        .collect();
    if let Err(error) = engine.raft.initialize(members).await {
        tracing::debug!(%error, "the cluster is formed already");
    }
}

impl Engine {
    /// Answers another initial member that wants to form the cluster.
    pub(crate) async fn answer_founder(&self, request: FoundRequest) -> FoundAnswer {
        let (FoundRequest::Fresh { cluster, member } | FoundRequest::Founded { cluster, member, .. }) =
            request;
        if cluster != self.cluster_id() || member != NodeId(self.id()) {
            self.counters.peer_refusals.fetch_add(1, Relaxed);
            tracing::warn!(
                our_node = self.id(), our_cluster = %self.cluster_id(), wanted_node = %member, wanted_cluster = %cluster,
                "a node that wants to form another cluster was refused"
            );
            return FoundAnswer::Stranger {
                node: NodeId(self.id()),
                cluster: self.cluster_id(),
            };
        }
        match request {
            FoundRequest::Fresh { .. } => match self.raft.is_initialized().await {
                Ok(false) if self.trust.settled() => FoundAnswer::Empty,
                Ok(false) => FoundAnswer::Fresh {
                    life: self.trust.life(),
                },
                Ok(true) => FoundAnswer::HasLog,
                Err(error) => FoundAnswer::Failed(error.to_string()),
            },
            FoundRequest::Founded { life, .. } => match self.found(life) {
                Ok(true) => FoundAnswer::Founded,
                Ok(false) => FoundAnswer::OtherLife,
                Err(error) => FoundAnswer::Failed(error.to_string()),
            },
        }
    }
}
