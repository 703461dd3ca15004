//! `onward kv`: key-value pairs.

use crate::examples::examples;
use crate::failure::Result;
use crate::session::{Session, count, unreadable};
use crate::table::{Cell, Table, printable};
use clap::{Args, Subcommand};
use onward_api::wire::kv::{self as wire, Change, Event, OpResult, Pair};
use std::path::PathBuf;

/// Commands on key-value pairs.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Print the value of a key, as it is
    #[command(after_help = examples!["kv get site/name", "kv get site/name -o json", "kv get site/ --prefix"])]
    Get(Get),
    /// Put a value
    #[command(after_help = examples![
        "kv put site/name tokyo-1",
        "kv put site/motd - < motd.txt",
        "kv put lock mine --expect 0   only where there is no such key",
    ])]
    Put(Put),
    /// Delete a key, or all keys with a prefix
    #[command(visible_alias = "rm", after_help = examples![
        "kv delete site/name",
        "kv delete site/name --expect 42",
        "kv delete site/ --prefix --yes",
    ])]
    Delete(Delete),
    /// List keys
    #[command(visible_alias = "ls", after_help = examples!["kv list", "kv list site/ -o json"])]
    List(List),
    /// Run a transaction: compares, then one thing or the other
    #[command(after_help = examples!["kv txn -f swap.yaml", "kv txn -f - < swap.json"])]
    Txn(Txn),
    /// Print changes of keys with a prefix as they happen
    #[command(after_help = examples!["kv watch site/", "kv watch site/ --after 100 -o json"])]
    Watch(Watch),
}

/// Arguments of `kv get`.
#[derive(Debug, Args)]
pub struct Get {
    /// The key
    key: String,
    /// Print all pairs whose keys begin with KEY
    #[arg(long)]
    prefix: bool,
}

/// Arguments of `kv put`.
#[derive(Debug, Args)]
pub struct Put {
    /// The key
    key: String,
    /// The value; `-` reads standard input
    #[arg(allow_hyphen_values = true)]
    value: String,
    /// Only if the key was last modified at this revision; 0 for "does not exist"
    #[arg(long, value_name = "REVISION")]
    expect: Option<u64>,
}

/// Arguments of `kv delete`.
#[derive(Debug, Args)]
pub struct Delete {
    /// The key
    key: String,
    /// Delete all keys that begin with KEY
    #[arg(long, conflicts_with = "expect")]
    prefix: bool,
    /// Only if the key was last modified at this revision
    #[arg(long, value_name = "REVISION")]
    expect: Option<u64>,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

/// Arguments of `kv list`.
#[derive(Debug, Args)]
pub struct List {
    /// Only keys that begin with this
    #[arg(default_value = "")]
    prefix: String,
    /// At most so many
    #[arg(long, value_name = "COUNT")]
    limit: Option<usize>,
}

/// Arguments of `kv txn`.
#[derive(Debug, Args)]
pub struct Txn {
    /// The transaction, in YAML or JSON; `-` reads standard input
    #[arg(short, long, value_name = "FILE")]
    file: PathBuf,
}

/// Arguments of `kv watch`.
#[derive(Debug, Args)]
pub struct Watch {
    /// The prefix; empty for every key
    #[arg(default_value = "")]
    prefix: String,
    /// Also what happened after this revision; without it, what happens from now on
    #[arg(long, value_name = "REVISION")]
    after: Option<u64>,
}

/// Runs a command on key-value pairs.
pub(crate) async fn run(session: &mut Session<'_>, command: Command) -> Result {
    match command {
        Command::Get(arguments) if arguments.prefix => {
            list(
                session,
                List {
                    prefix: arguments.key,
                    limit: None,
                },
            )
            .await
        }
        Command::Get(arguments) => get(session, arguments).await,
        Command::Put(arguments) => put(session, arguments).await,
        Command::Delete(arguments) => delete(session, arguments).await,
        Command::List(arguments) => list(session, arguments).await,
        Command::Txn(arguments) => txn(session, arguments).await,
        Command::Watch(arguments) => watch(session, arguments).await,
    }
}

async fn get(session: &mut Session<'_>, arguments: Get) -> Result {
    let pair = session.client.kv_get(&arguments.key).await?;
    if session.output.structured() {
        return session.output.show(&pair, |_| String::new());
    }
    let value = pair.value.value_bytes().map_err(|invalid| unreadable(&invalid))?;
    session.output.value(&value)
}

async fn put(session: &mut Session<'_>, arguments: Put) -> Result {
    let value = match arguments.value.as_str() {
        "-" => session.output.read_input()?,
        value => value.as_bytes().to_vec(),
    };
    let done = session
        .client
        .kv_put(&arguments.key, value, arguments.expect)
        .await?;
    let key = arguments.key;
    session
        .output
        .done(&done, |done| format!("put {key} at revision {}", done.revision))
}

async fn delete(session: &mut Session<'_>, arguments: Delete) -> Result {
    let Delete {
        key,
        prefix,
        expect,
        yes,
    } = arguments;
    let done = if prefix {
        session
            .output
            .confirm(&format!("delete all keys that begin with `{key}`"), yes)?;
        session.client.kv_delete_prefix(&key).await?
    } else {
        session.client.kv_delete(&key, expect).await?
    };
    if done.value.deleted == 0 && !prefix {
        session
            .output
            .done(&done, |_| format!("there was no key `{key}`"))
    } else {
        session.output.done(&done, |done| {
            format!(
                "deleted {} at revision {}",
                count(done.value.deleted, "key"),
                done.revision
            )
        })
    }
}

async fn list(session: &mut Session<'_>, arguments: List) -> Result {
    let prefix = arguments.prefix;
    let pairs = session
        .list(arguments.limit, async |client, page| {
            client.kv_list(&prefix, page).await
        })
        .await?;
    session.output.show(&pairs, |pairs| table(&pairs.items))
}

fn table(pairs: &[Pair]) -> Table {
    let mut table = Table::new(&["KEY", "VALUE", "MODIFIED"], &["CREATED", "VERSION", "BYTES"]);
    for pair in pairs {
        table.push(vec![
            Cell::from(name(pair.key.as_deref(), pair.key_base64.as_deref())),
            Cell::from(preview(&name(
                pair.value.as_deref(),
                pair.value_base64.as_deref(),
            ))),
            Cell::from(pair.modified),
            Cell::from(pair.created),
            Cell::from(pair.version),
            Cell::maybe(pair.value_bytes().ok().map(|value| value.len())),
        ]);
    }
    table
}

/// Bytes as they are shown: text as text, anything else as base64.
fn name(text: Option<&str>, base64: Option<&str>) -> String {
    match (text, base64) {
        (Some(text), _) => text.to_owned(),
        (None, Some(base64)) => format!("base64:{base64}"),
        (None, None) => String::new(),
    }
}

/// The most characters of a value that a row shows.
const PREVIEW_CHARS: usize = 60;

fn preview(value: &str) -> String {
    match value.char_indices().nth(PREVIEW_CHARS) {
        Some((end, _)) => format!("{}...", &value[..end]),
        None => value.to_owned(),
    }
}

async fn txn(session: &mut Session<'_>, arguments: Txn) -> Result {
    let txn: wire::Txn = session.read_one(&arguments.file)?;
    let done = session.client.kv_txn(&txn).await?;
    session.output.show(&done, |done| {
        let mut text = String::from(if done.value.succeeded {
            "all conditions held: `then` was done\n"
        } else {
            "a condition did not hold: `else` was done\n"
        });
        for result in &done.value.results {
            text.push_str(&match result {
                OpResult::Got(None) => "got nothing\n".to_owned(),
                OpResult::Got(Some(got)) => {
                    let value = name(got.value.as_deref(), got.value_base64.as_deref());
                    format!("got {}\n", printable(&preview(&value)))
                }
                OpResult::Put => "put\n".to_owned(),
                OpResult::Deleted(keys) => format!("deleted {}\n", count(*keys, "key")),
            });
        }
        text + &format!("revision {}\n", done.revision)
    })
}

async fn watch(session: &mut Session<'_>, arguments: Watch) -> Result {
    let mut changes = session
        .client
        .kv_watch(&arguments.prefix, arguments.after)
        .await?;
    while let Some(change) = changes.next().await? {
        session.output.item(&change, lines)?;
    }
    Ok(())
}

/// `REVISION put KEY VALUE`, a line for each event.
fn lines(change: &Change) -> String {
    let mut text = String::new();
    for event in &change.events {
        let line = match event {
            Event::Put {
                key,
                key_base64,
                value,
                value_base64,
            } => {
                let key = name(key.as_deref(), key_base64.as_deref());
                let value = name(value.as_deref(), value_base64.as_deref());
                format!("put {} {}", printable(&key), printable(&value))
            }
            Event::Deleted { key, key_base64 } => {
                format!(
                    "deleted {}",
                    printable(&name(key.as_deref(), key_base64.as_deref()))
                )
            }
        };
        text.push_str(&format!("{} {line}\n", change.revision));
    }
    text
}
