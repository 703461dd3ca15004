//! How a node comes to belong to a cluster: forming it with the other initial members, or joining it.
//!
//! # The same id never comes back empty
//! A voter whose data is gone must not vote as if it had never acknowledged anything. An initial member that starts
//! without a log asks the others first, and refuses to start where the leader knows a log of its id. Where no leader
//! can tell, it starts, but votes for nobody until it has caught up with a leader, or until the initial members have
//! found that none of them has a log ([`Trust`], [`found`]). What is left is the loss of a voter's data together with
//! that of every other copy of an entry's majority.
//!
//! # A join goes on after a crash
//! A node that joins writes down which id it reserved, before it asks to be let in under it ([`Reservation`]); and how it
//! joins, before its identity and until it votes. Killed at any moment, it goes on with the one or the other when it is started
//! again; once it is let in, with or without the flags that it was started with first.

use super::reservation::Reservation;
use super::standing::stopped_as_removed;
use crate::StartError;
use crate::config::{Config, Join};
use crate::counters::Counters;
use crate::engine::Engine;
use crate::files::Files;
use crate::found;
use crate::host::Host;
use crate::identity::{self, Identity};
use crate::note;
use crate::peer::Peers;
use crate::peer::frame::Lane;
use crate::peer::net::Net;
use crate::peer::wire::{MemberAnswer, MemberRequest, kind};
use crate::runtime::Tasks;
use crate::trust::Trust;
use crate::types::PeerNode;
use futures::future::join_all;
use onward_statemachine::membership::ChangeRefusal;
use onward_statemachine::{NodeId, Revision, codec};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// How long a member may take to answer before another try.
const JOIN_DEADLINE: Duration = Duration::from_secs(20);
const JOIN_PAUSE: Duration = Duration::from_millis(500);
/// How often a member that does not answer, or has no leader, is asked to let this node in.
const JOIN_TRIES: usize = 20;
/// How often it is said what is waited for.
const SAY_INTERVAL: Duration = Duration::from_secs(5);
/// How long an initial member waits for the others to say whether they know it.
const ASK_DEADLINE: Duration = Duration::from_millis(400);

/// Finds out who this node is, and writes it down before anything else.
pub(crate) async fn establish(config: &Config, host: &Host, node: &PeerNode) -> Result<Identity, StartError> {
    let (files, path) = (&*host.files, || config.data_dir.clone());
    if let Some(known) = identity::read(files, &config.data_dir)? {
        if known.cluster_name != config.cluster_name {
            return Err(StartError::OtherCluster {
                path: path(),
                found: known.cluster_name,
                wanted: config.cluster_name.clone(),
            });
        }
        stopped_as_removed(files, &config.data_dir, &known)?;
        // One that is no initial member of this cluster joined it, was given its id, and is the only one to know it.
        let initial = config
            .initial_members
            .iter()
            .any(|member| member.id == known.node);
        let founded = identity::cluster_id(&config.cluster_name, &config.initial_members);
        let joined = !initial && known.cluster_id == founded;
        return match config.node_id {
            Some(wanted) if wanted != known.node && !joined => Err(StartError::OtherNode {
                path: path(),
                found: known.node,
                wanted,
            }),
            _ => Ok(known),
        };
    }
    let identity = match (&config.join, config.node_id) {
        (Some(join), _) => {
            let (identity, joining) = ask_to_join(config, host, join, node).await?;
            let noted = joining.write(files, &config.data_dir);
            noted.map_err(|error| StartError::Unwritable { path: path(), error })?;
            identity
        }
        (None, Some(id)) => {
            if !config.initial_members.iter().any(|member| member.id == id) {
                return Err(StartError::NotInitial(id));
            }
            ask_whether_known(config, host, id).await?;
            Trust::begin(files, &config.data_dir)
                .map_err(|error| StartError::Unwritable { path: path(), error })?;
            Identity {
                cluster_id: identity::cluster_id(&config.cluster_name, &config.initial_members),
                cluster_name: config.cluster_name.clone(),
                node: id,
            }
        }
        (None, None) => return Err(StartError::NoIdentity),
    };
    identity::write(files, &config.data_dir, &identity)?;
    Ok(identity)
}

/// Asks the other initial members whether there was a log of this id.
async fn ask_whether_known(config: &Config, host: &Host, node: NodeId) -> Result<(), StartError> {
    let request = MemberRequest::Known { id: node };
    let others = config.initial_members.iter().filter(|member| member.id != node);
    let asked = others.map(|member| ask_member(&host.net, &member.peer_address, &request, ASK_DEADLINE));
    // Who does not answer does not lead, or does not reach this node either.
    let known = join_all(asked)
        .await
        .into_iter()
        .any(|answer| answer == Ok(MemberAnswer::Done));
    if known {
        return Err(StartError::Forgot(format!(
            "the cluster knows a log of node {node}, and this data directory has none: entries that the node acknowledged \
             are gone. Start it with an empty data directory as a new node with `onward serve --join HOST:PORT --replaces {node}`"
        )));
    }
    Ok(())
}

/// Asks members to be let in, until one does.
async fn ask_to_join(
    config: &Config,
    host: &Host,
    join: &Join,
    node: &PeerNode,
) -> Result<(Identity, Joining), StartError> {
    let (files, dir) = (&*host.files, &config.data_dir);
    let path = || dir.clone();
    let failed = |reason: String| StartError::Join {
        address: join.peer_address.clone(),
        reason,
    };
    // What an earlier process asked may yet be carried out: this one asks for the same.
    let mut reserved =
        Reservation::read(files, dir).map_err(|error| StartError::Io { path: path(), error })?;
    let mut tries = 0;
    let mut saying = Saying::default();
    loop {
        let request = request_to_join(config, join, node, reserved.as_ref());
        let reason = match ask_member(&host.net, &join.peer_address, &request, JOIN_DEADLINE).await {
            Ok(MemberAnswer::Reserved(given)) => {
                let written = given.write(files, dir);
                written.map_err(|error| StartError::Unwritable { path: path(), error })?;
                reserved = Some(given);
                continue;
            }
            Ok(MemberAnswer::Admitted {
                id,
                cluster_id,
                cluster_name,
                revision,
                replaces,
                ..
            }) => {
                tracing::info!(node = %id, cluster = %cluster_id, "joining the cluster under a new id");
                let identity = Identity {
                    cluster_id,
                    cluster_name,
                    node: id,
                };
                let joining = Joining {
                    through: join.peer_address.clone(),
                    admitted: revision,
                    replaces: join.replaces.or(replaces),
                };
                return Ok((identity, joining));
            }
            Ok(MemberAnswer::Outdated) => {
                reserved = None;
                tokio::time::sleep(JOIN_PAUSE).await;
                continue;
            }
            // Its turn comes.
            Ok(MemberAnswer::Refused(refusal @ (ChangeRefusal::Joining { .. } | ChangeRefusal::Voting))) => {
                saying.once_in_a_while(|| tracing::info!(%refusal, "waiting to join"));
                tokio::time::sleep(JOIN_PAUSE).await;
                continue;
            }
            Ok(MemberAnswer::Refused(refusal)) => return Err(failed(refusal.to_string())),
            Ok(MemberAnswer::NotLeader | MemberAnswer::Unknown) => "its cluster has no leader now".to_owned(),
            Ok(MemberAnswer::Failed(reason)) | Err(reason) => reason,
            Ok(answer) => format!("{answer:?}"),
        };
        tries += 1;
        if tries == JOIN_TRIES {
            return Err(failed(reason));
        }
        tokio::time::sleep(JOIN_PAUSE).await;
    }
}

/// What a node asks that has reserved this, or nothing yet.
fn request_to_join(
    config: &Config,
    join: &Join,
    node: &PeerNode,
    reserved: Option<&Reservation>,
) -> MemberRequest {
    let PeerNode { peer, http } = node.clone();
    match reserved.cloned() {
        Some(reserved) => MemberRequest::Enter {
            reserved,
            peer,
            http,
            replaces: join.replaces,
        },
        None => MemberRequest::Reserve {
            peer,
            cluster: config.cluster_name.clone(),
        },
    }
}

/// One request on the join lane, over a connection of its own.
async fn ask_member(
    net: &Arc<dyn Net>,
    address: &str,
    request: &MemberRequest,
    deadline: Duration,
) -> Result<MemberAnswer, String> {
    let token = CancellationToken::new();
    let _ended = token.clone().drop_guard();
    let counters = Arc::new(Counters::default());
    let peers = Peers::new(
        net.clone(),
        (0, Uuid::nil()),
        deadline,
        counters,
        token,
        Tasks::default(),
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

/// Forms the cluster or goes on joining it, in the background.
pub(crate) async fn form_or_join(engine: &Arc<Engine>) -> Result<(), StartError> {
    if let Some(joining) = engine.standing.joining.clone() {
        let token = engine.token().clone();
        let asking = ask_for_vote(engine.clone(), joining);
        engine
            .tasks()
            .spawn(async move { token.run_until_cancelled_owned(asking).await });
        return Ok(());
    }
    if !engine.founders.is_empty() {
        let token = engine.token().clone();
        let founding = found::found(engine.clone());
        engine
            .tasks()
            .spawn(async move { token.run_until_cancelled_owned(founding).await });
        return Ok(());
    }
    let initialized = engine.raft.is_initialized().await;
    if !initialized.map_err(|error| StartError::Engine(error.to_string()))? {
        let node = engine.identity.node;
        tracing::warn!(%node, "this node has no log, is not an initial member and joins nobody: it waits to be added");
    }
    Ok(())
}

/// Asks for a vote until this node has it.
async fn ask_for_vote(engine: Arc<Engine>, joining: Joining) {
    let request = MemberRequest::Promote {
        id: engine.identity.node,
        cluster: engine.cluster_id(),
        replaces: joining.replaces,
    };
    let mut saying = Saying::default();
    for turn in 0.. {
        // Whom it joined through may be gone by now.
        let mut members = engine.others();
        members.insert(0, joining.through.clone());
        let address = &members[turn % members.len()];
        match engine.ask_member(address.clone(), &request, JOIN_DEADLINE).await {
            Ok(MemberAnswer::Done) => break,
            Ok(MemberAnswer::Following { lag }) => saying.once_in_a_while(|| {
                tracing::info!(lag, "this node follows, and votes once it has caught up");
            }),
            Ok(answer) => saying.once_in_a_while(|| {
                tracing::info!(?answer, "this node has no vote yet; asking on");
            }),
            Err(error) => {
                saying.once_in_a_while(|| tracing::info!(%error, "this node has no vote yet; asking on"));
            }
        }
        tokio::time::sleep(JOIN_PAUSE).await;
    }
    if let Err(error) = engine.standing.joined() {
        tracing::warn!(%error, "it could not be noted that this node votes; it asks again after a restart");
    }
    tracing::info!(node = engine.id(), "this node is a voter now");
}

impl Engine {
    /// The peer addresses of the other members.
    pub(super) fn others(&self) -> Vec<String> {
        let others = self.members().into_iter().filter(|(id, _)| *id != self.id());
        others.map(|(_, node)| node.peer).collect()
    }

    /// Asks whoever is at an address.
    pub(super) async fn ask_member(
        &self,
        address: String,
        request: &MemberRequest,
        deadline: Duration,
    ) -> Result<MemberAnswer, String> {
        ask_member(&self.peers.net, &address, request, deadline).await
    }
}

/// Says what is waited for, and does not repeat it too often.
#[derive(Default)]
struct Saying(Option<Instant>);

impl Saying {
    fn once_in_a_while(&mut self, say: impl FnOnce()) {
        let now = Instant::now();
        if self.0.is_none_or(|said| now - said >= SAY_INTERVAL) {
            self.0 = Some(now);
            say();
        }
    }
}

/// How a node joins, as its directory remembers it until the node votes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Joining {
    /// The peer address of a member.
    pub(super) through: String,
    /// A revision at which it was a member.
    pub(super) admitted: Revision,
    /// Whose place it takes.
    pub(super) replaces: Option<NodeId>,
}

impl Joining {
    const NOTE: &str = "joining";

    pub(super) fn read(files: &dyn Files, dir: &Path) -> io::Result<Option<Self>> {
        let Some(text) = files.read_text(&dir.join(Self::NOTE))? else {
            return Ok(None);
        };
        let field = |name: &str| note::field(&text, name);
        let number = |name: &str| field(name).and_then(|value| value.parse::<u64>().ok());
        let read = || {
            Some(Joining {
                through: field("through")?.to_owned(),
                admitted: Revision(number("admitted")?),
                replaces: number("replaces").map(NodeId),
            })
        };
        let damaged = || io::Error::new(io::ErrorKind::InvalidData, format!("`{}` is damaged", Self::NOTE));
        read().map(Some).ok_or_else(damaged)
    }

    fn write(&self, files: &dyn Files, dir: &Path) -> io::Result<()> {
        let Joining {
            through,
            admitted,
            replaces,
        } = self;
        let mut text = format!("through = {through}\nadmitted = {admitted}\n");
        if let Some(gone) = replaces {
            text.push_str(&format!("replaces = {gone}\n"));
        }
        files.replace(&dir.join(Self::NOTE), text.as_bytes())
    }

    pub(super) fn forget(files: &dyn Files, dir: &Path) -> io::Result<()> {
        files.remove_file(&dir.join(Self::NOTE))?;
        files.sync_dir(dir)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::Disk;

    #[test]
    fn a_directory_remembers_how_its_node_joins_until_it_votes() {
        let dir = tempfile::tempdir().expect("temp dir");
        assert_eq!(Joining::read(&Disk, dir.path()).expect("reads"), None);
        for replaces in [None, Some(NodeId(3))] {
            let joining = Joining {
                through: "10.0.0.1:7401".to_owned(),
                admitted: Revision(17),
                replaces,
            };
            joining.write(&Disk, dir.path()).expect("writes");
            assert_eq!(Joining::read(&Disk, dir.path()).expect("reads"), Some(joining));
        }
        Joining::forget(&Disk, dir.path()).expect("deletes");
        assert_eq!(Joining::read(&Disk, dir.path()).expect("reads"), None);
        std::fs::write(dir.path().join(Joining::NOTE), "x").expect("writes");
        assert!(Joining::read(&Disk, dir.path()).is_err());
    }
}
