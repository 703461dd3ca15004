//! `onward event`: the journal.

use crate::age::exact;
use crate::examples::examples;
use crate::failure::Result;
use crate::global::duration;
use crate::session::Session;
use crate::table::{Cell, Details, Table, Tone, printable};
use clap::{Args, Subcommand};
use onward_api::client::{Client, JournalRange};
use onward_api::wire::{Entry, Event, JournalPage, history as wire};
use serde_json::Value;

/// Commands on events.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List what happened last, the newest at the end; with --after, what happened first after that
    #[command(visible_alias = "ls", after_help = examples![
        "event list --last 20",
        "event list --after 100 --before 200 -o json",
        "event list --area apps --area rollouts",
    ])]
    List(List),
    /// Print what happens, as it happens
    #[command(after_help = examples!["event follow", "event follow --after 100 --area kv -o json"])]
    Follow(Follow),
    /// Show how much of the journal is kept, or set it
    #[command(after_help = examples![
        "event retention",
        "event retention --age 30d --bytes 10GiB",
        "event retention --age none --bytes none",
    ])]
    Retention(Retention),
    /// Let go of events up to a revision, which is then the oldest that can be read
    #[command(after_help = examples!["event compact --to 120000", "event compact --to 120000 --yes"])]
    Compact(Compact),
}

/// Arguments of `event list`.
#[derive(Debug, Args)]
pub struct List {
    #[command(flatten)]
    which: Which,
    /// What happened before this revision
    #[arg(long, value_name = "REVISION")]
    before: Option<u64>,
    /// At most so many revisions
    #[arg(long, value_name = "COUNT", default_value_t = 500, conflicts_with = "last")]
    limit: usize,
    /// Only the last so many revisions, also where --after says where they begin; all that was done at once is one
    #[arg(short = 'n', long, value_name = "COUNT")]
    last: Option<usize>,
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

/// Arguments of `event retention`.
#[derive(Debug, Args)]
pub struct Retention {
    /// Keep events at least this young: 12h, 30d; `none` for any age
    #[arg(long, value_name = "TIME", value_parser = age)]
    age: Option<Limit>,
    /// Keep about this much of them, before compression: 512MiB, 10GiB; `none` for any size
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    bytes: Option<Limit>,
}

/// Arguments of `event compact`.
#[derive(Debug, Args)]
pub struct Compact {
    /// Events up to this revision go
    #[arg(long, value_name = "REVISION")]
    to: u64,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

/// A limit that may be none.
type Limit = Option<u64>;

fn age(text: &str) -> std::result::Result<Limit, String> {
    match text {
        "none" => Ok(None),
        text => duration(text).map(|age| Some(u64::try_from(age.as_millis()).unwrap_or(u64::MAX))),
    }
}

fn bytes(text: &str) -> std::result::Result<Limit, String> {
    if text == "none" {
        return Ok(None);
    }
    let rule = || "it is `none`, or a whole number and a unit: 512MiB, 10GiB".to_owned();
    let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(rule)?;
    let (number, unit) = text.split_at(digits);
    let unit = match unit {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return Err(rule()),
    };
    let number: u64 = number.parse().map_err(|_| rule())?;
    number.checked_mul(unit).map(Some).ok_or_else(rule)
}

/// Runs a command on events.
pub(crate) async fn run(session: &mut Session<'_>, command: Command) -> Result {
    match command {
        Command::List(arguments) => list(session, arguments).await,
        Command::Follow(Follow { which }) => {
            let mut entries = session.client.events(which.after, &which.area).await?;
            while let Some(entry) = entries.next().await? {
                session.output.item(&entry, lines)?;
            }
            Ok(())
        }
        Command::Retention(arguments) => retention(session, arguments).await,
        Command::Compact(Compact { to, yes }) => {
            session.output.confirm(
                &format!("let go of all events up to revision {to}, for good"),
                yes,
            )?;
            let done = session.client.journal_compact(to).await?;
            session.output.done(&done, |done| {
                format!(
                    "compacted at revision {}: history begins at revision {to}",
                    done.revision
                )
            })
        }
    }
}

/// The most revisions of one page.
const PAGE_REVISIONS: usize = 5000;

async fn list(session: &mut Session<'_>, arguments: List) -> Result {
    let mut range = JournalRange {
        after: arguments.which.after,
        before: arguments.before,
        newest: arguments.last.is_some() || arguments.which.after.is_none(),
        areas: arguments.which.area,
    };
    let wanted = arguments.last.unwrap_or(arguments.limit);
    let page = async |client: &Client, range: &JournalRange, found: usize| {
        client
            .journal(range, (wanted - found).clamp(1, PAGE_REVISIONS))
            .await
    };
    let mut whole = page(&session.client, &range, 0).await?;
    // A page looks at so much of the journal, and may have found nothing there.
    while !whole.value.complete && whole.value.items.len() < wanted {
        if range.newest {
            range.before = whole.value.next_before;
        } else {
            range.after = Some(whole.value.next_after);
        }
        let mut next = page(&session.client, &range, whole.value.items.len())
            .await?
            .value;
        if range.newest {
            std::mem::swap(&mut next.items, &mut whole.value.items);
        }
        whole.value.items.append(&mut next.items);
        let items = std::mem::take(&mut whole.value.items);
        whole.value = JournalPage { items, ..next };
    }
    let wide = session.output.wide();
    session
        .output
        .show(&whole, |whole| table(&whole.value.items, wide))?;
    if !whole.value.complete {
        let (way, from) = match whole.value.next_before {
            Some(before) => ("--before", before),
            None => ("--after", whole.value.next_after),
        };
        session
            .output
            .message(&format!("there is more: onward event list {way} {from}"));
    }
    Ok(())
}

async fn retention(session: &mut Session<'_>, arguments: Retention) -> Result {
    let state = session.client.journal_state().await?;
    if arguments.age.is_none() && arguments.bytes.is_none() {
        return session.output.show(&state, |state| view(&state.value));
    }
    let now = state.value.retention;
    let retention = wire::Retention {
        age_ms: arguments.age.unwrap_or(now.age_ms),
        bytes: arguments.bytes.unwrap_or(now.bytes),
    };
    let done = session.client.journal_set_retention(&retention).await?;
    session.output.done(&done, |done| {
        let (age, bytes) = told_limits(&retention);
        format!(
            "set at revision {}: events are kept by age {age}, by size {bytes}",
            done.revision
        )
    })
}

fn told_limits(retention: &wire::Retention) -> (String, String) {
    let age = retention
        .age_ms
        .map_or_else(|| "any".to_owned(), |ms| format!("{} s", ms.div_ceil(1000)));
    let bytes = retention
        .bytes
        .map_or_else(|| "any".to_owned(), |bytes| format!("{bytes} bytes"));
    (age, bytes)
}

fn view(state: &wire::JournalState) -> Details {
    let (age, bytes) = told_limits(&state.retention);
    Details::default()
        .field("keep by age", age)
        .field("keep by size", bytes)
        .field("oldest revision", state.oldest)
        .field("oldest event", Cell::maybe(state.oldest_at.map(exact)))
        .field("kept bytes", Cell::maybe(state.bytes))
}

/// The most events of one revision in a table that is not wide: a manifest makes hundreds of them.
const EVENTS_SHOWN: usize = 10;

/// A row for each event; the first ones of each revision, unless it is to be `wide`.
pub(crate) fn table(entries: &[Entry], wide: bool) -> Table {
    let mut table = Table::new(&["REVISION", "AT", "EVENT", "WHAT"], &["ACTOR", "COMMAND"]);
    for entry in entries {
        let mut row = |name: String, what: Cell| {
            table.push(vec![
                Cell::from(entry.revision),
                Cell::from(exact(entry.at)),
                Cell::from(name),
                what,
                Cell::from(&entry.actor),
                Cell::from(entry.command_id),
            ]);
        };
        let shown = if wide { entry.events.len() } else { EVENTS_SHOWN };
        for event in entry.events.iter().take(shown) {
            let (name, what) = told(event);
            row(name, Cell::from(what));
        }
        let left = entry.events.len().saturating_sub(shown);
        if left > 0 {
            let more = format!("{left} more: `-o wide` shows them all");
            row("...".to_owned(), Cell::toned(more, Tone::Dim));
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
