//! Lets go of instances that stopped renewing.
//!
//! Runs on every node and acts on the leader alone: it reads which deadlines passed and proposes to expire them. The
//! state machine decides again, on log time and on the deadline as it then is, so that a proposal that comes late, twice
//! or from a deposed leader changes nothing that a renewal has changed before.
//!
//! While there is no leader, nobody can renew. So a leader lets each instance have its whole TTL, though no more than
//! [`GRACE_MAX`], from when it began to lead before it holds a missed deadline against it; and a node that finds itself
//! paused begins anew, for it answered no renewals either.
//!
//! Invariant: no instance expires within its TTL of a time at which it could not renew, but for TTLs over [`GRACE_MAX`].

use onward_statemachine::ports::{Cluster, Proposal, Proposer, Reader, Role};
use onward_statemachine::services::catalog::{self, BULK_MAX, Due, TTL_MS_MIN};
use onward_statemachine::{Actor, Command, Fault, Millis, View, system};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

/// The longest that a new leader waits before it expires an instance with a longer TTL.
pub const GRACE_MAX: Duration = Duration::from_secs(30);

/// How often to look whether this node leads, and, on the leader, the longest sleep towards a deadline. No deadline is
/// set less than this ahead, so that none is slept through.
const LOOK: Duration = Duration::from_millis(TTL_MS_MIN);
/// How much later than planned a sleep may end before it counts as a pause of the node.
const PAUSE: Duration = Duration::from_secs(1);
/// The shortest sleep, which is also how long deadlines are gathered into one command.
const GATHER: Duration = Duration::from_millis(50);
/// How long a proposal may take.
const PROPOSE_MS: u64 = 5000;

/// Expires what is due, while this node leads, until `token` is cancelled.
pub async fn run(
    proposer: Arc<dyn Proposer>,
    reader: Arc<dyn Reader>,
    cluster: Arc<dyn Cluster>,
    token: CancellationToken,
) {
    let node = cluster.status().node;
    let actor = Actor::new(&format!("applier:services@{node}"));
    let work = async {
        let mut led = Led::default();
        loop {
            let status = cluster.status();
            let now = Instant::now();
            let pause = match led.look(now, (status.role == Role::Leader).then_some(status.term)) {
                None => LOOK,
                Some(led) => {
                    let now = proposer.now();
                    let plan = reader.read(|view| plan(view, now, led));
                    if plan.due.is_empty() {
                        plan.pause
                    } else {
                        expire(&*proposer, &actor, plan.due).await
                    }
                }
            };
            led.awaits(Instant::now() + pause);
            sleep(pause).await;
        }
    };
    tokio::select! {
        () = token.cancelled() => {}
        () = work => {}
    }
}

/// Proposes to expire `due`; says how long to wait before looking again.
async fn expire(proposer: &dyn Proposer, actor: &Actor, due: Vec<Due>) -> Duration {
    let count = due.len();
    let command = Command::Catalog(catalog::Command::Expire { due });
    match proposer
        .propose(Proposal::new(actor.clone(), command), PROPOSE_MS)
        .await
    {
        Ok(outcome) => {
            tracing::info!(
                count,
                revision = outcome.revision().0,
                "instances missed their deadlines"
            );
            GATHER
        }
        Err(error) => {
            // Whatever came of it, the next look starts from what is so.
            tracing::debug!(count, %error, "expiring instances is put off");
            LOOK
        }
    }
}

/// How long this node has led without a pause.
#[derive(Debug, Default)]
struct Led {
    /// The term, and since when.
    reign: Option<(u64, Instant)>,
    /// When the next look was planned.
    next: Option<Instant>,
}

impl Led {
    /// Takes note of a look at `now`, when this node leads in `term`; how long it has led.
    fn look(&mut self, now: Instant, term: Option<u64>) -> Option<Duration> {
        let paused = self.next.is_some_and(|next| now > next + PAUSE);
        self.reign = match (term, self.reign) {
            (Some(term), Some((before, since))) if term == before && !paused => Some((term, since)),
            (Some(term), _) => Some((term, now)),
            (None, _) => None,
        };
        self.reign.map(|(_, since)| now - since)
    }

    fn awaits(&mut self, next: Instant) {
        self.next = Some(next);
    }
}

/// What to do now, and else how long to wait.
#[derive(Debug, PartialEq, Eq)]
struct Plan {
    due: Vec<Due>,
    pause: Duration,
}

/// What is due at `now`, for a leader who has led for `led`. Pure: reads `view` and nothing else.
fn plan(view: &dyn View, now: Millis, led: Duration) -> Result<Plan, Fault> {
    // The leader's stamp counts, and log time where that is ahead, as it will for the command.
    let now = now.max(system::clock(view)?.now);
    let mut due = Vec::new();
    let mut after = None;
    loop {
        let passed = catalog::due(view, now, after.as_ref(), BULK_MAX)?;
        let whole = passed.len() < BULK_MAX;
        after = passed.last().cloned();
        for candidate in passed {
            if led >= GRACE_MAX || led >= grace(view, &candidate)? {
                due.push(candidate);
            }
        }
        if whole || due.len() >= BULK_MAX {
            break;
        }
    }
    due.truncate(BULK_MAX);
    let next = catalog::due(view, now.plus(LOOK.as_millis() as u64), after.as_ref(), 1)?;
    let pause = next.first().map_or(LOOK, |next| {
        Duration::from_millis(next.deadline.since(now)).clamp(GATHER, LOOK)
    });
    Ok(Plan { due, pause })
}

/// How long a new leader lets an instance be.
fn grace(view: &dyn View, due: &Due) -> Result<Duration, Fault> {
    let ttl_ms = catalog::get(view, &due.id)?.and_then(|instance| instance.spec.ttl_ms);
    Ok(Duration::from_millis(ttl_ms.unwrap_or(0)).min(GRACE_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{instance, propose};
    use onward_statemachine::services::catalog::{Health, Id};
    use onward_statemachine::testing::SingleNode;

    /// A node on which `web/a` has a TTL of 10 s from time 0, and `web/b` none.
    fn node() -> Arc<SingleNode> {
        let node = Arc::new(SingleNode::new());
        node.set_now(Millis(0));
        let mut a = instance("web", "a");
        a.spec.ttl_ms = Some(10_000);
        propose(
            &node,
            catalog::Command::Register {
                registrations: vec![a, instance("web", "b")],
            },
        );
        node
    }

    fn plan_at(node: &Arc<SingleNode>, now: u64, led: Duration) -> Plan {
        let reader: &dyn Reader = &**node;
        reader.read(|view| plan(view, Millis(now), led))
    }

    fn due_a() -> Due {
        Due {
            deadline: Millis(10_000),
            id: Id::new("web", "a"),
        }
    }

    #[test]
    fn sleeps_towards_the_deadline() {
        let node = node();
        let plan = |now| plan_at(&node, now, GRACE_MAX);
        assert_eq!(
            plan(0),
            Plan {
                due: vec![],
                pause: LOOK
            }
        );
        assert_eq!(
            plan(9_400),
            Plan {
                due: vec![],
                pause: Duration::from_millis(600)
            }
        );
        assert_eq!(
            plan(9_999),
            Plan {
                due: vec![],
                pause: GATHER
            }
        );
        assert_eq!(plan(10_000).due, [due_a()]);
    }

    #[test]
    fn a_new_leader_lets_an_instance_have_its_ttl() {
        let node = node();
        assert_eq!(plan_at(&node, 60_000, Duration::from_millis(9_999)).due, []);
        assert_eq!(
            plan_at(&node, 60_000, Duration::from_millis(10_000)).due,
            [due_a()]
        );
    }

    #[test]
    fn a_long_ttl_waits_no_longer_than_the_greatest_grace() {
        let node = node();
        let mut c = instance("web", "c");
        c.spec.ttl_ms = Some(3_600_000);
        propose(
            &node,
            catalog::Command::Register {
                registrations: vec![c],
            },
        );
        let late = 7_200_000;
        assert_eq!(
            plan_at(&node, late, GRACE_MAX - Duration::from_millis(1)).due,
            [due_a()]
        );
        assert_eq!(plan_at(&node, late, GRACE_MAX).due.len(), 2);
    }

    #[test]
    fn unripe_deadlines_do_not_hide_ripe_ones() {
        let node = node();
        let many = |ttl_ms| {
            move |n| {
                let mut one = instance("web", &format!("i{ttl_ms}-{n}"));
                one.spec.ttl_ms = Some(ttl_ms);
                one
            }
        };
        let unripe = (0..catalog::BULK_MAX - 96).map(many(20_000));
        propose(
            &node,
            catalog::Command::Register {
                registrations: unripe.collect(),
            },
        );
        let mut other: Vec<_> = (0..200)
            .map(many(20_000))
            .chain((0..5).map(many(25_000)))
            .collect();
        for registration in &mut other {
            registration.id.service = "other".to_owned();
        }
        other[..200]
            .iter_mut()
            .for_each(|registration| registration.spec.ttl_ms = Some(20_000));
        other[200..]
            .iter_mut()
            .for_each(|registration| registration.spec.ttl_ms = Some(1_000));
        node.set_now(Millis(20_000));
        propose(&node, catalog::Command::Register { registrations: other });
        // Page after page of those that the new leader spares, and behind them five with a short TTL.
        let plan = plan_at(&node, 40_000, Duration::from_millis(1_000));
        assert_eq!(plan.due.len(), 5);
    }

    #[test]
    fn leading_is_counted_from_election_and_from_the_last_pause() {
        let mut led = Led::default();
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut look = |ms, term| {
            let answer = led.look(at(ms), term);
            led.awaits(at(ms + 1000));
            answer.map(|led| led.as_millis())
        };
        assert_eq!(look(0, None), None);
        assert_eq!(look(1000, Some(1)), Some(0));
        assert_eq!(look(2000, Some(1)), Some(1000));
        assert_eq!(look(3900, Some(1)), Some(2900));
        assert_eq!(look(6000, Some(1)), Some(0), "it was paused");
        assert_eq!(
            look(7000, Some(2)),
            Some(0),
            "another leader may have led between"
        );
        assert_eq!(look(8000, None), None);
        assert_eq!(look(9000, Some(2)), Some(0));
    }

    #[tokio::test(start_paused = true)]
    async fn expires_on_the_leader() {
        let node = node();
        let token = CancellationToken::new();
        let task = tokio::spawn(run(node.clone(), node.clone(), node.clone(), token.clone()));
        // Log time is far past the deadline; the TTL in which the instance could renew runs on paused time.
        node.set_now(Millis(3_600_000));
        let reader: &dyn Reader = &*node;
        let health = || {
            let a = reader.read(|view| catalog::get(view, &Id::new("web", "a")));
            a.map(|instance| instance.health)
        };
        sleep(Duration::from_secs(9)).await;
        assert_eq!(health(), Some(Health::Passing));
        sleep(Duration::from_secs(3)).await;
        assert_eq!(health(), Some(Health::Critical));
        token.cancel();
        task.await.expect("it ends when cancelled");
    }
}
