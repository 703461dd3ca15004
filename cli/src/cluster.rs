//! `onward cluster`: the cluster itself.

use crate::age::exact;
use crate::backup::{self, Backup};
use crate::examples::examples;
use crate::failure::Result;
use crate::member;
use crate::session::Session;
use crate::table::{Cell, Details, Table, Tone};
use clap::Subcommand;
use onward_api::client::{Client, Consistency, Url};
use onward_api::wire::Stamped;
use onward_api::wire::cluster::{Disk, Member, Role, Status};
use std::fmt::Display;
use std::time::Duration;

/// How long the leader is waited for, where another node has answered already.
const LEADER_DEADLINE: Duration = Duration::from_secs(1);

/// Commands on the cluster.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show the members, who leads, and how far each of them is, as the leader sees it; with `--consistency local`, as
    /// the node sees it that is asked
    #[command(after_help = examples!["cluster status", "cluster status -o wide", "cluster status --consistency local"])]
    Status,
    /// Let a node in: it follows as a learner, and votes once it has caught up
    #[command(after_help = examples!["cluster add 10.0.0.4:7401", "cluster add 10.0.0.4:7401 --no-wait -o json"])]
    Add(member::Add),
    /// Let a node in that takes the place of a member, in one step
    #[command(after_help = examples!["cluster replace 3 10.0.0.4:7401", "cluster replace 3 10.0.0.3:7401"])]
    Replace(member::Replace),
    /// Let go of a member, for good; refused where no majority would be left
    #[command(visible_alias = "rm", after_help = examples!["cluster remove 3", "cluster remove 3 --yes"])]
    Remove(member::Remove),
    /// Make another voter the leader; no request fails that is tried again
    #[command(after_help = examples!["cluster transfer", "cluster transfer --to 2"])]
    Transfer(member::Transfer),
    /// Write the whole state into a file, as of one revision, while the cluster serves
    Backup(Backup),
    /// Show where the scheduled backups stand
    #[command(after_help = examples!["cluster backups", "cluster backups -o json"])]
    Backups,
    /// Show the hash of the whole state of the server that is asked, to compare replicas: those at one revision have the
    /// same
    #[command(after_help = examples![
        "cluster hash",
        "cluster hash --server 10.0.0.2:7400 -o json   of this one",
    ])]
    Hash,
}

/// Runs a command on the cluster.
pub(crate) async fn run(session: &mut Session<'_>, command: Command) -> Result {
    match command {
        Command::Status => status(session).await,
        Command::Add(arguments) => member::add(session, arguments).await,
        Command::Replace(arguments) => member::replace(session, arguments).await,
        Command::Remove(arguments) => member::remove(session, arguments).await,
        Command::Transfer(arguments) => member::transfer(session, arguments).await,
        Command::Backup(arguments) => backup::run(session, &arguments).await,
        Command::Backups => backup::show(session).await,
        Command::Hash => hash(session).await,
    }
}

async fn hash(session: &mut Session<'_>) -> Result {
    let answer = session.client.cluster_hash().await?;
    let color = session.output.color();
    session.output.show(&answer, |answer| {
        let mut table = Table::new(&["NODE", "REVISION", "HASH"], &[]);
        table.push(vec![
            Cell::from(answer.value.node),
            Cell::from(answer.revision),
            Cell::from(&answer.value.hash),
        ]);
        table.render(false, color)
    })
}

async fn status(session: &mut Session<'_>) -> Result {
    let asked = session.client.cluster().await?;
    let (status, unreached) = as_leader_sees(&session.client, asked).await;
    if let Some(why) = unreached {
        session.output.message(&why);
    }
    let color = session.output.color();
    let wide = session.output.wide();
    session.output.show(&status, |status| view(status, wide, color))
}

/// What the leader sees of the cluster that was `asked`: how far the others are, only it knows. Where it cannot be reached,
/// what was asked, and a line that says so.
pub(crate) async fn as_leader_sees(
    client: &Client,
    asked: Stamped<Status>,
) -> (Stamped<Status>, Option<String>) {
    // What is local is wanted of the node that was asked.
    let elsewhere = asked.value.role != Role::Leader && client.consistency() != Consistency::Local;
    let mut members = asked.value.members.iter();
    let leader = members.find(|member| elsewhere && Some(member.id) == asked.value.leader);
    let Some(leader) = leader else {
        return (asked, None);
    };
    match ask_leader(client, leader, &asked.value).await {
        Ok(seen) => (seen, None),
        Err(why) => {
            let node = asked.value.node;
            let why = format!("{why}: shown is what node {node} knows, which is not how far the others are");
            (asked, Some(why))
        }
    }
}

/// What the leader of the cluster that was `asked` sees, or why it cannot be asked.
async fn ask_leader(
    client: &Client,
    leader: &Member,
    asked: &Status,
) -> std::result::Result<Stamped<Status>, String> {
    let (id, address) = (leader.id, &leader.http_url);
    let unreached =
        |error: &dyn Display| format!("node {id} leads, and was not reached at `{address}` ({error})");
    let server: Url = address.parse().map_err(|error| unreached(&error))?;
    let client = client.of(server).map_err(|error| unreached(&error))?;
    let answer = client.with_deadline(LEADER_DEADLINE).cluster().await;
    let seen = answer.map_err(|error| unreached(&error))?;
    if seen.value.cluster_id != asked.cluster_id {
        return Err(unreached(&"another cluster answers there"));
    }
    Ok(seen)
}

fn view(answer: &Stamped<Status>, wide: bool, color: bool) -> String {
    let status = &answer.value;
    let health = match (status.healthy, status.leader) {
        (true, _) => Cell::toned("yes", Tone::Good),
        (false, Some(_)) => Cell::toned("no: no majority answers", Tone::Bad),
        (false, None) => Cell::toned("no: no leader is known", Tone::Bad),
    };
    let mut details = Details::default()
        .field("cluster", status.cluster_id)
        .field("healthy", health)
        .field("leader", Cell::maybe(status.leader))
        .field("term", status.term)
        .field("revision", status.applied);
    if let Some(bytes) = status.journal_bytes {
        let journal = format!("{}, back to revision {}", backup::size(bytes), status.oldest);
        details = details.field("journal", journal);
    }
    for alarm in &status.alarms {
        details = details.field("alarm", Cell::toned(alarm, Tone::Bad));
    }
    if let Some(under_way) = &status.under_way {
        let (step, far) = member::step(under_way);
        let far = if far.is_empty() { far } else { format!(", {far}") };
        details = details.field("under way", Cell::toned(format!("{step}{far}"), Tone::Fair));
    }
    if wide {
        details = details
            .field("asked", format!("node {}, {}", status.node, role(status.role)))
            .field(
                "log",
                format!(
                    "{} to {}, committed {}",
                    status.first_log, status.last_log, status.committed
                ),
            )
            .field("snapshot", status.snapshot)
            .field("same state", format!("found at revision {}", status.agreed))
            .field("feature level", feature_level(status))
            .field("log time", exact(status.log_time))
            .field(
                "leader heard",
                Cell::maybe(answer.age_ms.map(|age_ms| format!("{age_ms} ms ago"))),
            );
    }
    format!(
        "{}\n{}",
        details.render(color),
        members(status).render(wide, color)
    )
}

/// What is in force, and what the node that answered knows; a server of an earlier release tells neither.
fn feature_level(status: &Status) -> Cell {
    let (level, max) = (status.feature_level, status.feature_level_max);
    let node = status.node;
    Cell::maybe((level > 0).then(|| format!("{level} in force, node {node} knows {max}")))
}

fn role(role: Role) -> &'static str {
    match role {
        Role::Leader => "leader",
        Role::Follower => "follower",
        Role::Candidate => "candidate",
        Role::Learner => "learner",
    }
}

/// What is free, in bytes and of the whole.
fn disk_free(disk: Option<&Disk>) -> Cell {
    let Some(disk) = disk else {
        return Cell::maybe(None::<u64>);
    };
    let gib_tenths = disk.free_bytes * 10 / (1 << 30);
    let percent = disk.free_bytes * 100 / disk.total_bytes.max(1);
    let text = format!("{}.{} GiB, {percent} %", gib_tenths / 10, gib_tenths % 10);
    Cell::toned(text, if disk.nearly_full { Tone::Bad } else { Tone::Plain })
}

fn members(status: &Status) -> Table {
    let mut table = Table::new(
        &["NODE", "ROLE", "API", "LAG", "LAST CONTACT", "DISK FREE"],
        &["PEERS", "MATCHED", "KNOWS LEVEL"],
    );
    for member in &status.members {
        let role = match (status.leader == Some(member.id), member.voter) {
            (true, _) => Cell::toned("leader", Tone::Good),
            (false, true) => Cell::from("voter"),
            (false, false) => Cell::toned("learner", Tone::Dim),
        };
        table.push(vec![
            Cell::from(member.id),
            role,
            Cell::from(&member.http_url),
            Cell::maybe(member.lag),
            Cell::maybe(member.last_contact_ms.map(|ms| format!("{ms} ms"))),
            disk_free(member.disk.as_ref()),
            Cell::from(&member.peer_address),
            Cell::maybe(member.matched),
            Cell::maybe(member.feature_level_max),
        ]);
    }
    table
}
