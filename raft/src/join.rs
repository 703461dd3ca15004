//! How a node comes to belong to a cluster: forming it with the other initial members, or joining it.
//!
//! # The same id never comes back empty
//! A voter whose data is gone must not vote as if it had never acknowledged anything. An initial member that starts
//! without a log asks the others first, and refuses to start where the leader knows a log of its id. Where no leader
//! can tell, it starts, but votes for nobody until it has caught up with a leader, or until the initial members have
//! found that none of them has a log ([`Trust`], [`found`]). What is left is the loss of a voter's data together with
//! that of every other copy of an entry's majority.

use crate::StartError;
use crate::config::{Config, Join};
use crate::counters::Counters;
use crate::engine::Engine;
use crate::found;
use crate::host::Host;
use crate::identity::{self, Identity};
use crate::peer::Peers;
use crate::peer::frame::Lane;
use crate::peer::net::Net;
use crate::peer::wire::{MemberAnswer, MemberRequest, kind};
use crate::runtime::Tasks;
use crate::trust::Trust;
use crate::types::PeerNode;
use futures::future::join_all;
use onward_statemachine::{NodeId, codec};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// How long a join, and its parts, may take before it is tried again.
const JOIN_DEADLINE: Duration = Duration::from_secs(20);
const PROMOTE_DEADLINE: Duration = Duration::from_secs(30 * 60);
const JOIN_PAUSE: Duration = Duration::from_millis(500);
const JOIN_TRIES: usize = 20;
/// How long an initial member waits for the others to say whether they know it.
const ASK_DEADLINE: Duration = Duration::from_millis(400);

/// Finds out who this node is, and writes it down before anything else.
pub(crate) async fn establish(config: &Config, host: &Host) -> Result<Identity, StartError> {
    let (files, path) = (&*host.files, || config.data_dir.clone());
    if let Some(known) = identity::read(files, &config.data_dir)? {
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
        (Some(join), _) => ask_to_join(config, host, join).await?,
        (None, Some(node)) => {
            if !config.initial_members.iter().any(|member| member.id == node) {
                return Err(StartError::NotInitial(node));
            }
            ask_whether_known(config, host, node).await?;
            Trust::begin(files, &config.data_dir)
                .map_err(|error| StartError::Unwritable { path: path(), error })?;
            Identity {
                cluster_id: identity::cluster_id(&config.cluster_name, &config.initial_members),
                cluster_name: config.cluster_name.clone(),
                node,
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
             are gone. Start it with an empty data directory as a new node with `onward serve --join URL`"
        )));
    }
    Ok(())
}

/// Asks a member for an id.
async fn ask_to_join(config: &Config, host: &Host, join: &Join) -> Result<Identity, StartError> {
    let failed = |reason: String| StartError::Join {
        address: join.peer_address.clone(),
        reason,
    };
    let mut reason = String::new();
    for _ in 0..JOIN_TRIES {
        match ask_member(
            &host.net,
            &join.peer_address,
            &MemberRequest::Allocate,
            JOIN_DEADLINE,
        )
        .await
        {
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
    if config.initial_members.iter().any(|member| member.id == me) {
        let founding = found::found(engine.clone(), config.initial_members.clone());
        let token = engine.token().clone();
        engine
            .tasks()
            .spawn(async move { token.run_until_cancelled_owned(founding).await });
    } else {
        tracing::warn!(node = %me, "this node has no log, is not an initial member and joins nobody: it waits to be added");
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
        match ask_member(&engine.peers.net, &join.peer_address, &request, PROMOTE_DEADLINE).await {
            Ok(MemberAnswer::Done) => {
                return tracing::info!(node = engine.id(), "this node is a voter now");
            }
            Ok(answer) => tracing::warn!(?answer, "this node was not made a member; trying again"),
            Err(error) => tracing::warn!(%error, "this node was not made a member; trying again"),
        }
        tokio::time::sleep(JOIN_PAUSE).await;
    }
}
