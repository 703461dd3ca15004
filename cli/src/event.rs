//! `onward event`: the journal.

use crate::age::exact;
use crate::examples::examples;
use crate::failure::Result;
use crate::session::Session;
use crate::table::{Cell, Table, printable};
use clap::{Args, Subcommand};
use onward_api::wire::{Entry, Event};
use serde_json::Value;

/// Commands on events.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List what happened, oldest first
    #[command(visible_alias = "ls", after_help = examples![
        "event list",
        "event list --after 100 --limit 50 -o json",
        "event list --area apps --area rollouts",
    ])]
    List(List),
    /// Print what happens, as it happens
    #[command(after_help = examples!["event follow", "event follow --after 100 --area kv -o json"])]
    Follow(Follow),
}

/// Arguments of `event list`.
#[derive(Debug, Args)]
pub struct List {
    #[command(flatten)]
    which: Which,
    /// At most so many revisions
    #[arg(long, value_name = "COUNT", default_value_t = 500)]
    limit: usize,
}

/// Arguments of `event follow`.
#[derive(Debug, Args)]
pub struct Follow {
    #[command(flatten)]
    which: Which,
}

/// Which events.
#[derive(Debug, Args)]
pub struct Which {
    /// What happened after this revision
    #[arg(long, value_name = "REVISION")]
    after: Option<u64>,
    /// Only events of this area; may be given more than once
    #[arg(long, value_parser = Event::AREAS)]
    area: Vec<String>,
}

/// Runs a command on events.
pub(crate) async fn run(session: &mut Session<'_>, command: Command) -> Result {
    match command {
        Command::List(List { which, limit }) => list(session, which, limit).await,
        Command::Follow(Follow { which }) => {
            let mut entries = session.client.events(which.after, &which.area).await?;
            while let Some(entry) = entries.next().await? {
                session.output.item(&entry, lines)?;
            }
            Ok(())
        }
    }
}

async fn list(session: &mut Session<'_>, which: Which, limit: usize) -> Result {
    let journal = session.client.journal(which.after, &which.area, limit).await?;
    session
        .output
        .show(&journal, |journal| table(&journal.value.items))?;
    if !journal.value.complete {
        let next = journal.value.next_after;
        session
            .output
            .message(&format!("there is more: onward event list --after {next}"));
    }
    Ok(())
}

fn table(entries: &[Entry]) -> Table {
    let mut table = Table::new(&["REVISION", "AT", "EVENT", "WHAT"], &["ACTOR", "COMMAND"]);
    for entry in entries {
        for event in &entry.events {
            let (name, what) = told(event);
            table.push(vec![
                Cell::from(entry.revision),
                Cell::from(exact(entry.at)),
                Cell::from(name),
                Cell::from(what),
                Cell::from(&entry.actor),
                Cell::from(entry.command_id),
            ]);
        }
    }
    table
}

fn lines(entry: &Entry) -> String {
    let mut text = String::new();
    for event in &entry.events {
        let (name, what) = told(event);
        let at = exact(entry.at);
        text.push_str(&printable(&format!(
            "{} {at} {name} {what} by {}",
            entry.revision, entry.actor
        )));
        text.push('\n');
    }
    text
}

/// The most characters of one field that a line shows.
const FIELD_CHARS: usize = 48;

/// `area.event`, and its fields as `name=value`.
fn told(event: &Event) -> (String, String) {
    let Ok(Value::Object(mut fields)) = serde_json::to_value(event) else {
        return Default::default();
    };
    let mut word = |name: &str| match fields.remove(name) {
        Some(Value::String(word)) => word,
        _ => String::new(),
    };
    let name = format!("{}.{}", word("area"), word("event"));
    let fields = fields.iter().filter(|(_, value)| !value.is_null());
    let what: Vec<String> = fields
        .map(|(name, value)| format!("{name}={}", shown(value)))
        .collect();
    (name, what.join(" "))
}

fn shown(value: &Value) -> String {
    let text = match value {
        Value::String(text) if !text.is_empty() && !text.contains(char::is_whitespace) => text.clone(),
        value => value.to_string(),
    };
    match text.char_indices().nth(FIELD_CHARS) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}
