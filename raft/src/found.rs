//! How the initial members form their cluster: once, and only where none of them has a log.
//!
//! A member that begins without a log cannot tell by itself whether it is new or was wiped. Together they can: if *no*
//! initial member has a log, nothing was ever acknowledged. So one that begins asks all others whether they are fresh, each
//! naming the life of its directory; and then tells each that all were, in those lives ([`crate::trust::Trust`]). Whoever was
//! told may vote from then on, with no leader to catch up with first, and passes it on until all know, for whoever told it
//! may be lost; who is wiped later has another life, and was told nothing.
//!
//! So all initial members must be up at one time, once. Once a majority was told, any of them forms the cluster, with the
//! first entry, the list that all were configured with. Several may: what they do not agree on, the first leader settles.
//!
//! Whoever formed it may be lost, with its disk, before anybody else has that entry. The others that were told have no log
//! and need none, for they have acknowledged nothing: such a member may form the cluster as well as any, once it knows of a
//! majority of such members. What was acknowledged by a majority meanwhile is on one that has a log, and that one votes for
//! nobody without it. With fewer it would only be one more that has a log, for which those that are not told yet would wait.
//!
//! Whoever votes forms it first. One that had voted and had no first entry would be no member of anything: if whom it voted
//! for is lost, it neither stands for election nor forms the cluster.

use crate::config::InitialMember;
use crate::engine::Engine;
use crate::peer::frame::Lane;
use crate::peer::wire::{FoundAnswer, FoundRequest, kind};
use crate::trust::Lives;
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
/// How often those that do not know yet are told, once there is a cluster.
const TELL_PAUSE: Duration = Duration::from_secs(2);
/// How often it is said what is waited for.
const SAY_INTERVAL: Duration = Duration::from_secs(5);

/// Forms the cluster with the other initial members; returns once it is formed, here or by another, and all know that none of
/// them had a log.
pub(crate) async fn found(engine: Arc<Engine>) {
    let mut said = None;
    loop {
        if matches!(engine.raft.is_initialized().await, Ok(true) | Err(_)) {
            if pass_on(&engine).await {
                return;
            }
            tokio::time::sleep(TELL_PAUSE).await;
            continue;
        }
        match may_form(&engine).await {
            Ok(()) => form(&engine).await,
            Err(reason) => {
                let now = Instant::now();
                if said.is_none_or(|said| now - said >= SAY_INTERVAL) {
                    said = Some(now);
                    tracing::info!(node = engine.id(), %reason, "the cluster is not formed yet");
                }
                tokio::time::sleep(ROUND_PAUSE).await;
            }
        }
    }
}

/// Finds that all members were fresh at one time, or was told so; and tells the others, until a majority knows.
async fn may_form(engine: &Arc<Engine>) -> Result<(), String> {
    if !engine.trust.settled() {
        let lives = all_fresh(engine).await?;
        let noted = engine.found(&lives);
        noted.map_err(|error| format!("it cannot be noted that no member has a log: {error}"))?;
    }
    let Some(lives) = engine.trust.lives() else {
        return Err("this node had a log once, or joined another way: it waits for a leader".to_owned());
    };
    let others = others(engine);
    let told = join_all(others.iter().map(|member| tell_founded(engine, member, &lives))).await;
    let known = 1 + told.iter().filter(|told| **told == Ok(Told::Knows)).count();
    if known * 2 > engine.founders.len() {
        return Ok(());
    }
    told.into_iter().collect::<Result<Vec<_>, _>>()?;
    Err("a majority began anew meanwhile: this node waits for a leader".to_owned())
}

/// The lives in which no initial member has a log.
async fn all_fresh(engine: &Arc<Engine>) -> Result<Lives, String> {
    let members = others(engine);
    let ask_all = || join_all(members.iter().map(|member| ask_whether_fresh(engine, member)));
    let mut rounds = Vec::new();
    // Each had no log when it was asked. That all had none at one time is known when each says so again: between the two
    // rounds nobody can have had one, in the life that it names.
    for _ in 0..2 {
        rounds.push(
            ask_all()
                .await
                .into_iter()
                .collect::<Result<Vec<Uuid>, String>>()?,
        );
    }
    if rounds[0] != rounds[1] {
        return Err("a member began anew meanwhile".to_owned());
    }
    let lives = rounds.swap_remove(0);
    let own = [(engine.identity.node, engine.trust.life())];
    Ok(members
        .iter()
        .map(|member| member.id)
        .zip(lives)
        .chain(own)
        .collect())
}

/// Tells those that are still members and may not know that no member had a log; whether all know now.
async fn pass_on(engine: &Arc<Engine>) -> bool {
    let Some(lives) = engine.trust.lives() else {
        return true;
    };
    let voters = engine.voters();
    let here = |member: &InitialMember| voters.is_empty() || voters.contains(&member.id.0);
    let others: Vec<InitialMember> = others(engine).into_iter().filter(here).collect();
    let told = join_all(others.iter().map(|member| tell_founded(engine, member, &lives))).await;
    if !told.iter().all(Result::is_ok) {
        return false;
    }
    if let Err(error) = engine.trust.all_told() {
        tracing::warn!(%error, "the lives of the initial members cannot be forgotten");
    }
    true
}

/// The other initial members.
fn others(engine: &Engine) -> Vec<InitialMember> {
    let others = engine
        .founders
        .iter()
        .filter(|member| member.id != engine.identity.node);
    others.cloned().collect()
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

/// What came of telling a member that none had a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Knows,
    /// It began anew since: a leader has to catch it up.
    OtherLife,
}

async fn tell_founded(engine: &Arc<Engine>, member: &InitialMember, lives: &Lives) -> Result<Told, String> {
    let request = FoundRequest::Founded {
        cluster: engine.cluster_id(),
        member: member.id,
        lives: lives.clone(),
    };
    match ask(engine, member, &request).await? {
        FoundAnswer::Founded => Ok(Told::Knows),
        FoundAnswer::OtherLife => Ok(Told::OtherLife),
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

async fn form(engine: &Engine) {
    let members: BTreeMap<u64, PeerNode> = engine
        .founders
        .iter()
        .map(|member| (member.id.0, peer_node(member)))
        .collect();
    if let Err(error) = engine.raft.initialize(members).await {
        tracing::debug!(%error, "the cluster is formed already");
    }
}

impl Engine {
    /// Has the first entry before this node votes.
    pub(crate) async fn form_before_voting(&self) {
        let founds = !self.founders.is_empty() && self.trust.settled();
        if founds && matches!(self.raft.is_initialized().await, Ok(false)) {
            form(self).await;
        }
    }

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
            FoundRequest::Founded { lives, .. } => match self.found(&lives) {
                Ok(true) => FoundAnswer::Founded,
                Ok(false) => FoundAnswer::OtherLife,
                Err(error) => FoundAnswer::Failed(error.to_string()),
            },
        }
    }
}
