//! What a node promised to a leader before it was started anew: that nobody is elected for as long as the leader's lease
//! lasts. The leader answers reads by itself on the strength of that. openraft forgets the lease when the process ends, and
//! would vote for another at once; meanwhile the old leader, cut off, would answer with what was there before.

use crate::log::LogStore;
use onward_statemachine::mutant::{self, Mutant};
use std::time::Duration;
use tokio::time::Instant;

/// Until when a leader may count on what this node acknowledged in an earlier process.
pub(crate) struct Promise {
    until: Option<Instant>,
}

impl Promise {
    /// What the log of the node `me`, which starts at `now`, says of it. When the leader was last heard is not known, but
    /// it was before that. Who led by himself has nothing promised to anybody.
    pub(crate) fn of(log: &LogStore, me: u64, lease: Duration, now: Instant) -> Self {
        let promised = log.follows_another(me) && !mutant::on(Mutant::PromiseForgotten);
        Promise {
            until: promised.then(|| now + lease),
        }
    }

    /// Whether it holds, so that this node neither votes nor stands for election.
    pub(crate) fn holds(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| now < until)
    }

    /// Waits until it is over; `None` where there is none.
    pub(crate) async fn is_over(&self) -> Option<()> {
        tokio::time::sleep_until(self.until?).await;
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, InitialMember, Timings};
    use crate::node::Node;
    use crate::peer::channel::CallError;
    use crate::peer::frame::Lane;
    use crate::peer::wire::kind;
    use crate::peer::{Peers, net};
    use crate::runtime::Tasks;
    use crate::types::{LeaderId, LogId, PeerNode, TypeConfig, Vote};
    use onward_statemachine::{NodeId, codec};
    use openraft::raft::VoteRequest;
    use std::net::TcpListener;
    use std::path::Path;
    use std::sync::Arc;
    use tokio_util::sync::CancellationToken;

    fn config(dir: &Path, members: &[InitialMember], number: usize) -> Config {
        let mut config = Config::new(dir.join(number.to_string()), "test");
        config.node_id = Some(members[number].id);
        config.peer_listen.clone_from(&members[number].peer_address);
        config.initial_members = members.to_vec();
        config
    }

    /// Has the node vote for another, whose log is ahead of all; what it says.
    async fn ask_for_a_vote(node: &Node, from: NodeId, leadership_transfer: bool) -> Result<(), CallError> {
        let to = node.cluster().status().node.0;
        let (token, tasks) = (CancellationToken::new(), Tasks::default());
        let who = (from.0, node.cluster_id());
        let peers = Peers::new(
            Arc::new(net::Tcp),
            who,
            Duration::from_secs(10),
            Arc::default(),
            token,
            tasks,
        );
        let address = PeerNode {
            peer: node.peer_address().to_string(),
            ..PeerNode::default()
        };
        let last = LogId::new(
            LeaderId {
                term: 98,
                node_id: from.0,
            },
            1 << 30,
        );
        let request = VoteRequest::<TypeConfig> {
            leadership_transfer,
            ..VoteRequest::new(Vote::new(99, from.0), Some(last))
        };
        let channel = peers.channel(to, &address, Lane::Control);
        let request = codec::encode(&request);
        let called = channel.call(kind::VOTE, &request, Duration::from_secs(10)).await;
        called.map(drop)
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn who_starts_anew_votes_for_nobody_while_the_leader_may_count_on_it() {
        let dir = tempfile::tempdir().expect("temp dir");
        let ports: Vec<TcpListener> = (0..3)
            .map(|_| TcpListener::bind("127.0.0.1:0").expect("a free port"))
            .collect();
        let members: Vec<InitialMember> = (1..)
            .zip(&ports)
            .map(|(id, port)| InitialMember {
                id: NodeId(id),
                peer_address: port.local_addr().expect("is bound").to_string(),
                http_url: "http://127.0.0.1:1".to_owned(),
            })
            .collect();
        drop(ports);
        let starting = (0..3).map(|number| Node::start(config(dir.path(), &members, number)));
        let mut nodes = futures::future::try_join_all(starting).await.expect("all start");
        let leader = loop {
            let heard: Vec<_> = nodes.iter().map(|node| node.cluster().status().leader).collect();
            match heard[0] {
                Some(leader) if heard.iter().all(|other| *other == Some(leader)) => break leader,
                _ => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        };
        let leads = (leader.0 - 1) as usize;
        let (follows, stranger) = ((leads + 1) % 3, members[(leads + 2) % 3].id);
        nodes.remove(follows).abandon().await;
        let mut config = config(dir.path(), &members, follows);
        // A promise that lasts for longer than the test.
        config.timings = Timings {
            election_min_ms: 200_000,
            election_max_ms: 400_000,
            ..config.timings
        };
        let again = Node::start(config).await.expect("starts again");
        let refused = ask_for_a_vote(&again, stranger, false).await;
        let said = match refused {
            Err(CallError::Failed(said)) => said,
            other => panic!("it voted: {other:?}"),
        };
        assert!(said.contains("started just now"), "{said}");
        // The leader itself asks for it.
        ask_for_a_vote(&again, stranger, true).await.expect("votes");
        again.abandon().await;
        for node in nodes {
            node.abandon().await;
        }
    }
}
