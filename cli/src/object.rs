//! `onward object`: object transactions.

use crate::age::exact;
use crate::examples::examples;
use crate::failure::{Failure, Result};
use crate::session::{Session, count, unreadable};
use crate::table::{Cell, Details, Table, Tone};
use clap::{Args, Subcommand};
use onward_api::wire::objects::{Commit, Entry, Head, History, Transaction, TransactionDetail, Write};
use std::path::PathBuf;

/// Commands on objects.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Print the bytes of an object, as they are
    #[command(after_help = examples![
        "object get 1",
        "object get 1 --tid 03f2a91c00000011 > old.bin",
        "object get 1 -o json   with its serial, to put it back changed",
    ])]
    Get(Get),
    /// Write one object in a transaction of its own
    #[command(after_help = examples![
        "object put 1 hello",
        "object put 2 - --read 0 < picture.jpg   only where there is no object 2",
        "object put 1 hallo --read 03f2a91c00000011   only where nobody wrote it since",
    ])]
    Put(Put),
    /// Delete one object in a transaction of its own
    #[command(visible_alias = "rm", after_help = examples!["object delete 1 --yes"])]
    Delete(Delete),
    /// Commit a transaction over many objects
    #[command(after_help = examples!["object commit -f transfer.yaml", "object commit -f - < transfer.json"])]
    Commit(CommitFile),
    /// List the revisions of an object, newest first
    #[command(after_help = examples!["object history 1", "object history 1 --limit 10 -o json"])]
    History(HistoryOf),
    /// List the objects that exist
    #[command(visible_alias = "ls", after_help = examples!["object list", "object list --limit 100 -o json"])]
    List(Limit),
    /// List transactions, newest first
    #[command(after_help = examples!["object log", "object log --limit 10 -o wide"])]
    Log(Limit),
    /// Show a transaction and what it wrote
    #[command(after_help = examples!["object transaction 03f2a91c00000011"])]
    Transaction(TransactionOf),
    /// Reserve object ids that nobody has
    #[command(after_help = examples!["object allocate", "object allocate --count 100"])]
    Allocate(Allocate),
    /// Show where the object database stands
    #[command(after_help = examples!["object status"])]
    Status,
}

/// Arguments of `object get`.
#[derive(Debug, Args)]
pub struct Get {
    /// The object id, in hexadecimal
    oid: String,
    /// As a snapshot at this transaction sees it
    #[arg(long, value_name = "TID")]
    tid: Option<String>,
}

/// Arguments of `object put`.
#[derive(Debug, Args)]
pub struct Put {
    /// The object id, in hexadecimal
    oid: String,
    /// Its bytes; `-` reads standard input
    #[arg(allow_hyphen_values = true)]
    value: String,
    #[command(flatten)]
    about: About,
}

/// Arguments of `object delete`.
#[derive(Debug, Args)]
pub struct Delete {
    /// The object id, in hexadecimal
    oid: String,
    #[command(flatten)]
    about: About,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

/// What a transaction of one object read, and what it says about itself.
#[derive(Debug, Args)]
pub struct About {
    /// Only if this is still its serial; 0 for "does not exist". Without it, it is read first
    #[arg(long, value_name = "SERIAL")]
    read: Option<String>,
    /// On whose behalf
    #[arg(long, value_name = "TEXT", default_value = "")]
    user: String,
    /// What for
    #[arg(short, long, value_name = "TEXT", default_value = "")]
    message: String,
}

/// Arguments of `object commit`.
#[derive(Debug, Args)]
pub struct CommitFile {
    /// The transaction, in YAML or JSON; `-` reads standard input
    #[arg(short, long, value_name = "FILE")]
    file: PathBuf,
}

/// Arguments of `object history`.
#[derive(Debug, Args)]
pub struct HistoryOf {
    /// The object id, in hexadecimal
    oid: String,
    #[command(flatten)]
    limit: Limit,
}

/// How much of a list.
#[derive(Debug, Args)]
pub struct Limit {
    /// At most so many
    #[arg(long, value_name = "COUNT")]
    limit: Option<usize>,
}

/// Arguments of `object transaction`.
#[derive(Debug, Args)]
pub struct TransactionOf {
    /// Its tid
    tid: String,
}

/// Arguments of `object allocate`.
#[derive(Debug, Args)]
pub struct Allocate {
    /// How many
    #[arg(long, default_value_t = 1)]
    count: u32,
}

/// Runs a command on objects.
pub(crate) async fn run(session: &mut Session<'_>, command: Command) -> Result {
    match command {
        Command::Get(Get { oid, tid }) => {
            let object = session.client.object_get(&oid, tid.as_deref()).await?;
            if session.output.structured() {
                return session.output.show(&object, |_| String::new());
            }
            let bytes = object.value.bytes().map_err(|invalid| unreadable(&invalid))?;
            session.output.value(&bytes)
        }
        Command::Put(Put { oid, value, about }) => {
            let bytes = match value.as_str() {
                "-" => session.output.read_input()?,
                value => value.as_bytes().to_vec(),
            };
            commit_one(session, Write::new(oid, bytes), about).await
        }
        Command::Delete(Delete { oid, about, yes }) => {
            session.output.confirm(&format!("delete object {oid}"), yes)?;
            commit_one(
                session,
                Write {
                    oid,
                    delete: true,
                    ..Write::default()
                },
                about,
            )
            .await
        }
        Command::Commit(CommitFile { file }) => {
            let commit = session.read_one(&file)?;
            self::commit(session, &commit).await
        }
        Command::History(HistoryOf { oid, limit }) => {
            let history = session
                .list(limit.limit, async |client, page| {
                    client.object_history(&oid, page).await
                })
                .await?;
            session.output.show(&history, |history| revisions(&history.items))
        }
        Command::List(Limit { limit }) => {
            let objects = session
                .list(limit, async |client, page| client.object_list(page).await)
                .await?;
            session.output.show(&objects, |objects| entries(&objects.items))
        }
        Command::Log(Limit { limit }) => {
            let log = session
                .list(limit, async |client, page| client.object_transactions(page).await)
                .await?;
            session.output.show(&log, |log| transactions(&log.items))
        }
        Command::Transaction(TransactionOf { tid }) => {
            let detail = session.client.object_transaction(&tid).await?;
            session.output.show(&detail, |detail| transaction(&detail.value))
        }
        Command::Allocate(Allocate { count }) => {
            let given = session.client.object_allocate(count).await?;
            session
                .output
                .show(&given, |given| format!("{}\n", given.value.first))
        }
        Command::Status => {
            let head = session.client.object_head().await?;
            session.output.show(&head, |head| status(&head.value))
        }
    }
}

/// Commits a transaction that writes one object on top of what is there, or of what the user says to have read.
async fn commit_one(session: &mut Session<'_>, mut write: Write, about: About) -> Result {
    write.read = match about.read {
        Some(serial) => Some(serial).filter(|serial| serial != "0"),
        None => match session.client.object_get(&write.oid, None).await {
            Ok(object) => Some(object.value.serial),
            Err(error) if error.is_not_found() => None,
            Err(error) => return Err(Failure::from(error)),
        },
    };
    let commit = Commit {
        user: about.user,
        description: about.message,
        writes: vec![write],
        ..Commit::default()
    };
    self::commit(session, &commit).await
}

async fn commit(session: &mut Session<'_>, commit: &Commit) -> Result {
    let done = session.client.object_commit(commit).await?;
    let written = count(commit.writes.len() as u64, "object");
    session.output.done(&done, |done| {
        format!(
            "committed {written} as transaction {} at revision {}",
            done.value.tid, done.revision
        )
    })
}

fn size(bytes: Option<u64>) -> Cell {
    bytes.map_or_else(|| Cell::toned("deleted", Tone::Dim), Cell::from)
}

fn revisions(history: &[History]) -> Table {
    let mut table = Table::new(
        &["SERIAL", "BYTES", "AT", "USER", "DESCRIPTION"],
        &["REVISION", "OBJECTS WRITTEN"],
    );
    for revision in history {
        let transaction = &revision.transaction;
        table.push(vec![
            Cell::from(&transaction.tid),
            size(revision.size),
            Cell::from(exact(transaction.at)),
            Cell::from(&transaction.user),
            Cell::from(&transaction.description),
            Cell::from(transaction.created),
            Cell::from(transaction.writes),
        ]);
    }
    table
}

fn transactions(log: &[Transaction]) -> Table {
    let mut table = Table::new(&["TID", "OBJECTS", "AT", "USER", "DESCRIPTION"], &["REVISION"]);
    for transaction in log {
        table.push(vec![
            Cell::from(&transaction.tid),
            Cell::from(transaction.writes),
            Cell::from(exact(transaction.at)),
            Cell::from(&transaction.user),
            Cell::from(&transaction.description),
            Cell::from(transaction.created),
        ]);
    }
    table
}

fn entries(objects: &[Entry]) -> Table {
    let mut table = Table::new(&["OID", "SERIAL", "BYTES"], &["MODIFIED"]);
    for object in objects {
        table.push(vec![
            Cell::from(&object.oid),
            Cell::from(&object.serial),
            size(object.size),
            Cell::from(object.modified),
        ]);
    }
    table
}

fn transaction(detail: &TransactionDetail) -> String {
    let head = transactions(std::slice::from_ref(&detail.transaction)).render(true, false);
    format!("{head}\n{}", entries(&detail.objects).render(false, false))
}

fn status(head: &Head) -> Details {
    Details::default()
        .field("last transaction", &head.tid)
        .field("largest object id", &head.oid)
        .field("objects", head.objects)
}
