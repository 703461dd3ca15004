//! `onward cluster add`, `replace`, `remove` and `transfer`: who belongs to the cluster, and who leads it.

use crate::cluster::as_leader_sees;
use crate::failure::{Failure, Result};
use crate::session::{Session, count};
use clap::Args;
use onward_api::wire::Stamped;
use onward_api::wire::cluster::Status;
use onward_api::wire::members::{AdmittedMember, UnderWay};
use std::time::{Duration, Instant};

/// Arguments of `cluster add`.
#[derive(Debug, Args)]
pub struct Add {
    /// Where its peers will reach the node: its `peer.advertise`, or `peer.listen`
    #[arg(value_name = "HOST:PORT")]
    peer_address: String,
    #[command(flatten)]
    wait: Wait,
}

/// Arguments of `cluster replace`.
#[derive(Debug, Args)]
pub struct Replace {
    /// The member that leaves
    #[arg(value_name = "NODE")]
    node: u64,
    /// Where its peers will reach the new node; this may be where the old one was
    #[arg(value_name = "HOST:PORT")]
    peer_address: String,
    #[command(flatten)]
    wait: Wait,
}

/// Arguments of `cluster remove`.
#[derive(Debug, Args)]
pub struct Remove {
    /// The member that leaves
    #[arg(value_name = "NODE")]
    node: u64,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

/// Arguments of `cluster transfer`.
#[derive(Debug, Args)]
pub struct Transfer {
    /// Who should lead; by default the voter with most of the log
    #[arg(long, value_name = "NODE")]
    to: Option<u64>,
}

/// Whether to follow a node on its way.
#[derive(Debug, Args)]
pub struct Wait {
    /// Only let the node in, do not follow it
    #[arg(long)]
    no_wait: bool,
    /// How long to follow the node before giving up on watching it; it goes on by itself
    #[arg(long, value_name = "TIME", default_value = "30m", value_parser = crate::global::duration)]
    wait: Duration,
}

/// Lets a node in and follows it until it votes.
pub(crate) async fn add(session: &mut Session<'_>, arguments: Add) -> Result {
    let admitted = session.client.cluster_add(&arguments.peer_address).await?;
    follow(session, admitted, &arguments.wait).await
}

/// Lets a node in for another and follows it until it votes in its place.
pub(crate) async fn replace(session: &mut Session<'_>, arguments: Replace) -> Result {
    let Replace {
        node,
        peer_address,
        wait,
    } = arguments;
    let admitted = session.client.cluster_replace(node, &peer_address).await?;
    follow(session, admitted, &wait).await
}

/// Lets go of a member.
pub(crate) async fn remove(session: &mut Session<'_>, arguments: Remove) -> Result {
    let Remove { node, yes } = arguments;
    session
        .output
        .confirm(&format!("remove node {node} from the cluster, for good"), yes)?;
    let done = session.client.cluster_remove(node).await?;
    let left = session.client.cluster().await.ok();
    session.output.done(&done, |_| {
        let left = left.map(|status| format!("; {}", voters(&status.value)));
        format!(
            "node {node} is no member any more, and stops by itself{}",
            left.unwrap_or_default()
        )
    })
}

/// Makes another voter the leader.
pub(crate) async fn transfer(session: &mut Session<'_>, arguments: Transfer) -> Result {
    let began = Instant::now();
    let leader = session.client.cluster_transfer(arguments.to).await?;
    let took = began.elapsed().as_millis();
    session.output.done(&leader, |leader| {
        format!("node {} leads ({took} ms)", leader.value.leader)
    })
}

/// The time between two looks at a node on its way.
const LOOK_EVERY: Duration = Duration::from_millis(300);

/// Says how a node is started, and follows it until it votes: a line for each step, and on a terminal how far it is.
async fn follow(session: &mut Session<'_>, admitted: Stamped<AdmittedMember>, wait: &Wait) -> Result {
    let AdmittedMember {
        peer_address,
        command,
        node,
        ..
    } = &admitted.value;
    if wait.no_wait {
        return session.output.show(&admitted, |admitted| {
            let AdmittedMember { node, command, .. } = &admitted.value;
            format!("node {node} may start, and votes once it has caught up:\n\n  {command}\n")
        });
    }
    session.output.message(&format!(
        "node {node} may start, and votes once it has caught up; if it does not run yet:\n\n  {command}\n"
    ));
    let began = Instant::now();
    let mut told = String::new();
    let mut unreached = None;
    loop {
        match look(session, &mut unreached).await {
            Ok(status) if status.revision < admitted.revision => {}
            Ok(status) => match arrival(&status.value, &admitted.value) {
                Arrival::Votes(id) => return arrived(session, &admitted, &status.value, id),
                Arrival::Gone => {
                    clear(session);
                    let why = format!("the node at {peer_address} was removed before it could vote");
                    return Err(Failure::Refused(why));
                }
                Arrival::UnderWay(step, far) => {
                    if step != told {
                        clear(session);
                        session.output.message(&format!("  {step}"));
                        told = step;
                    }
                    draw(session, &far, began.elapsed());
                }
            },
            // It goes on whoever watches it.
            Err(Failure::Unreachable(why)) => draw(session, &why, began.elapsed()),
            Err(failure) => return Err(failure),
        }
        if began.elapsed() > wait.wait {
            clear(session);
            let waited = wait.wait.as_secs();
            return Err(Failure::Unknown(format!(
                "the node at {peer_address} has no vote after {waited} s; it goes on by itself: see `onward cluster status`, \
                 or give it up with `onward cluster remove {node}`"
            )));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// What the leader sees, whichever node answers; it is said once that it cannot be reached.
async fn look(session: &mut Session<'_>, unreached: &mut Option<String>) -> Result<Stamped<Status>> {
    let asked = session.client.cluster().await?;
    let (status, why) = as_leader_sees(&session.client, asked).await;
    if let Some(why) = why
        && unreached.is_none()
    {
        clear(session);
        session.output.message(&format!("  {why}"));
        *unreached = Some(why);
    }
    Ok(status)
}

/// Where a node is on its way.
enum Arrival {
    /// There, under this id.
    Votes(u64),
    /// It is no member.
    Gone,
    /// At this step, and so far.
    UnderWay(String, String),
}

fn arrival(status: &Status, admitted: &AdmittedMember) -> Arrival {
    let of_old = |id: u64| Some(id) == admitted.replaces;
    let here = |member: &&onward_api::wire::cluster::Member| {
        member.peer_address == admitted.peer_address && !of_old(member.id)
    };
    // A node that lost its data meanwhile has come back under another id.
    let Some(member) = status.members.iter().find(here) else {
        return Arrival::Gone;
    };
    let old_is_gone = !status.members.iter().any(|member| of_old(member.id));
    let own = status.under_way.as_ref().filter(|under_way| match under_way {
        UnderWay::Awaited { node } | UnderWay::Snapshot { node, .. } | UnderWay::CatchingUp { node, .. } => {
            *node == member.id
        }
        UnderWay::Voting { from, .. } => !from.contains(&member.id) || !old_is_gone,
    });
    match own {
        Some(under_way) => {
            let (step, far) = step(under_way);
            Arrival::UnderWay(step, far)
        }
        None if member.voter && old_is_gone => Arrival::Votes(member.id),
        None => Arrival::UnderWay("waiting for its vote".to_owned(), String::new()),
    }
}

fn arrived(
    session: &mut Session<'_>,
    admitted: &Stamped<AdmittedMember>,
    status: &Status,
    id: u64,
) -> Result {
    clear(session);
    let mut arrived = admitted.clone();
    arrived.value.node = id;
    let place = admitted
        .value
        .replaces
        .map(|gone| format!(" in the place of node {gone}"));
    session.output.done(&arrived, |_| {
        format!("node {id} votes{}; {}", place.unwrap_or_default(), voters(status))
    })
}

/// What is changing, as a step that lasts and how far it is.
pub(crate) fn step(under_way: &UnderWay) -> (String, String) {
    match under_way {
        UnderWay::Awaited { node } => (
            format!("node {node} may start, and was not seen yet"),
            String::new(),
        ),
        UnderWay::Snapshot {
            node,
            sent_bytes,
            total_bytes,
        } => {
            let (sent, total) = (sent_bytes / 1_000_000, total_bytes / 1_000_000);
            (
                format!("node {node} receives a snapshot"),
                format!("{sent} of {total} MB"),
            )
        }
        UnderWay::CatchingUp { node, lag } => {
            let far = lag.map(|lag| format!("{lag} entries behind"));
            (format!("node {node} catches up"), far.unwrap_or_default())
        }
        UnderWay::Voting { from, to } => (
            format!("the voters change from {} to {}", listed(from), listed(to)),
            String::new(),
        ),
    }
}

/// How many voters there are, and what that is good for.
fn voters(status: &Status) -> String {
    let voters = status.members.iter().filter(|member| member.voter).count() as u64;
    let spare = voters.saturating_sub(1) / 2;
    let spared = match spare {
        0 => "none of them may fail".to_owned(),
        spare => format!("{spare} of them may fail"),
    };
    format!("{}, {spared}", count(voters, "voter"))
}

fn listed(ids: &[u64]) -> String {
    let ids: Vec<String> = ids.iter().map(u64::to_string).collect();
    ids.join(", ")
}

fn draw(session: &mut Session<'_>, far: &str, elapsed: Duration) {
    if session.output.animated() {
        let elapsed = elapsed.as_secs();
        session.output.redraw(&format!("  {far} ({elapsed} s)"));
    }
}

fn clear(session: &mut Session<'_>) {
    if session.output.animated() {
        session.output.redraw("");
    }
}
