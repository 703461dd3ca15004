//! Strikes on who belongs to the cluster, and on who leads it.
//!
//! A node that is let go of has to stop by itself and to say so. Its place counts as a lost disk until a new member votes
//! there, so that what other faults take still leaves a majority.

use super::campaign::Campaign;
use super::plan::{Heir, Strike};
use super::strike::{Came, Ongoing, POLL};
use super::target::{Target, running};
use crate::cluster::{Asked, last_words};
use crate::history::Edge;
use rand::rngs::ChaCha8Rng;
use std::time::Duration;
use tokio::time::Instant;

/// How long a node that is let go of may take to notice. Another fault may keep it from it.
const LEAVE_PATIENCE: Duration = Duration::from_secs(5);
/// And how long one may take to stop with its apps, that nothing else is done to.
const STOP_PATIENCE: Duration = Duration::from_secs(40);
/// How a node says that it was let go of, when it stops over it and when it is started again.
const LEFT: &str = "was removed from";

impl Campaign<'_> {
    /// Hands leadership over.
    pub(super) async fn transfer(
        &mut self,
        strike: &Strike,
        heir: Heir,
        rng: &mut ChaCha8Rng,
    ) -> anyhow::Result<Came> {
        let Some(leader) = self.cluster.leader().await else {
            return Ok(Came::Missed("nobody leads".to_owned()));
        };
        let to = match heir {
            Heir::Best => None,
            Heir::Named => match running(Target::Follower, self.cluster, rng).await?[..] {
                [id] => Some(id),
                _ => return Ok(Came::Missed("there is no follower".to_owned())),
            },
        };
        match self.cluster.transfer(to).await {
            Ok(Asked::Done(now)) => {
                let what = format!("from node {leader} to member {now}");
                self.record(strike, Edge::Moment, what, &[leader]);
                Ok(Came::Struck(Ongoing::Over))
            }
            Ok(Asked::Refused(why) | Asked::Lost(why)) => Ok(Came::Missed(why)),
            // Other faults may keep it from answering.
            Err(error) => Ok(Came::Missed(error.to_string())),
        }
    }

    /// Lets go of the member in a place.
    pub(super) async fn remove(&mut self, strike: &Strike, id: u64) -> anyhow::Result<Came> {
        if !self.may_lose_disk().await {
            let why = "one member less would be more than a minority lost";
            return Ok(Came::Missed(why.to_owned()));
        }
        let Ok(member) = self.cluster.member_in(id).await else {
            return Ok(Came::Missed(format!("node {id} does not say who it is")));
        };
        // From here on it may be gone, whatever is heard of it.
        self.losses.insert(id);
        self.leaving.insert(id);
        let what = match self.cluster.remove(id, member).await {
            Asked::Done(()) => format!("node {id} leaves"),
            Asked::Lost(why) => format!("node {id} leaves, or may have left: {why}"),
            Asked::Refused(why) => {
                self.leaving.remove(&id);
                return Ok(Came::Missed(why));
            }
        };
        self.record(strike, Edge::Begin, what, &[id]);
        let deadline = Instant::now() + LEAVE_PATIENCE;
        while self.cluster.is_up(id).await? && Instant::now() < deadline {
            tokio::time::sleep(POLL).await;
        }
        Ok(Came::Struck(Ongoing::Gone(id)))
    }

    /// Lets a new member join where one was let go of; says what was found there.
    pub(super) async fn bring_back(&mut self, id: u64) -> anyhow::Result<String> {
        let deadline = Instant::now() + STOP_PATIENCE;
        while self.cluster.is_up(id).await? {
            if let Ok(member) = self.cluster.member_in(id).await
                && self.cluster.is_member(member).await != Some(false)
            {
                return Ok(format!("node {id} is still a member"));
            }
            let late = Instant::now() > deadline;
            if late || !self.undisturbed {
                if late {
                    self.stayed(id);
                }
                // Another fault may have kept it from noticing.
                self.cluster.kill(id).await?;
                self.cluster.start_node(id).await?;
                return Ok(format!(
                    "node {id} may join again, and has not noticed that it was let go of"
                ));
            }
            tokio::time::sleep(POLL).await;
        }
        // Who is down is raised, as a new member if it says that it was let go of.
        Ok(format!("node {id} may join again"))
    }

    /// Whether a node that has ended was let go of, as was asked for.
    pub(super) fn has_left(&self, id: u64) -> bool {
        self.leaving.contains(&id) && last_words(self.cluster.node(id)).contains(LEFT)
    }

    /// Starts a node that was let go of as a new member.
    pub(super) async fn rejoin(&mut self, id: u64) -> anyhow::Result<()> {
        if self.others_running(id).await? == 0 {
            // There is nobody yet whom a new member could join.
            return Ok(());
        }
        self.losses.insert(id);
        self.leaving.remove(&id);
        self.cluster.join_anew(id).await
    }
}
