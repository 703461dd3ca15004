//! `onward diff` and `onward why`: what changed between two revisions, and what made an object as it is.

use crate::event;
use crate::examples::examples;
use crate::failure::Result;
use crate::manifest::diff;
use crate::session::{Session, count};
use crate::table::{Tone, printable};
use clap::Args;
use onward_api::client::Client;
use onward_api::wire::history::{Became, Change, Diff as Compared, Why as Story};
use onward_api::wire::{Event, Page, Stamped};

/// Arguments of `diff`.
#[derive(Debug, Args)]
#[command(after_help = examples![
    "diff --from 1200 --to 1300",
    "diff --from 1200 --area machines --area kv -o json",
])]
pub struct Diff {
    /// What was: the state as of this revision
    #[arg(long, value_name = "REVISION")]
    from: u64,
    /// What became of it: the state as of this revision; without it, the present one
    #[arg(long, value_name = "REVISION")]
    to: Option<u64>,
    /// Only what events of this area changed; may be given more than once
    #[arg(long, value_parser = Event::AREAS)]
    area: Vec<String>,
    /// At most so many objects
    #[arg(long, value_name = "COUNT")]
    limit: Option<usize>,
}

/// Runs `diff`.
pub(crate) async fn diff(session: &mut Session<'_>, arguments: Diff) -> Result {
    let listed = session
        .list(arguments.limit, async |client, page| {
            let answer = client
                .diff(arguments.from, arguments.to, &arguments.area, page)
                .await?;
            let Compared { items, next, .. } = answer.value;
            Ok(Stamped {
                value: Page { items, next },
                revision: answer.revision,
                age_ms: answer.age_ms,
            })
        })
        .await?;
    let color = session.output.color();
    session.output.show(&listed, |listed| {
        let mut text: String = listed.items.iter().map(|change| lines(change, color)).collect();
        let counted = |became| {
            listed
                .items
                .iter()
                .filter(|change| change.became == became)
                .count()
        };
        text.push_str(&format!(
            "{} added, {} changed, {} removed\n",
            counted(Became::Added),
            counted(Became::Changed),
            counted(Became::Removed)
        ));
        text
    })
}

/// `+`, `~` or `-` and the object; of what changed, a line for each field.
fn lines(change: &Change, color: bool) -> String {
    let (sign, tone) = match change.became {
        Became::Added => ("+", Tone::Good),
        Became::Changed => ("~", Tone::Fair),
        Became::Removed => ("-", Tone::Bad),
    };
    let mut text = format!("{} {}\n", tone.paint(sign, color), printable(&change.object));
    for difference in &change.fields {
        text.push_str(&format!("    {}\n", diff::line(difference, color)));
    }
    text
}

/// Arguments of `why`.
#[derive(Debug, Args)]
#[command(after_help = examples![
    "why machine/S1001",
    "why kv/site/name -o wide",
    "why app/hello --last 20",
    "why service/web/web-1 --all",
])]
pub struct Why {
    /// kv/KEY, machine/SERIAL, service/NAME, service/NAME/INSTANCE, app/NAME, object/OID, boot_template/NAME,
    /// address_plan or settings
    object: String,
    /// Only the last so many revisions
    #[arg(short = 'n', long, value_name = "COUNT")]
    last: Option<usize>,
    /// Also what happened before the object was created, to an earlier one of the same name
    #[arg(long)]
    all: bool,
}

/// The revisions of one page.
const PAGE_REVISIONS: usize = 500;

/// Runs `why`.
pub(crate) async fn why(session: &mut Session<'_>, arguments: Why) -> Result {
    let wanted = arguments.last.unwrap_or(usize::MAX);
    let page = async |client: &Client, before, found: usize| {
        let limit = (wanted - found).clamp(1, PAGE_REVISIONS);
        client.why(&arguments.object, before, arguments.all, limit).await
    };
    let mut whole = page(&session.client, None, 0).await?;
    while let (Some(before), true) = (whole.value.next_before, whole.value.items.len() < wanted) {
        let Story {
            mut items,
            next_before,
            compacted,
            ..
        } = page(&session.client, Some(before), whole.value.items.len())
            .await?
            .value;
        items.append(&mut whole.value.items);
        whole.value = Story {
            items,
            next_before,
            compacted,
            ..whole.value
        };
    }
    let wide = session.output.wide();
    session
        .output
        .show(&whole, |whole| event::table(&whole.value.items, wide))?;
    let story = &whole.value;
    if let Some(oldest) = story.compacted {
        session.output.message(&format!(
            "events up to revision {oldest} were compacted; there may have been earlier ones"
        ));
    }
    if story.next_before.is_some() {
        let shown = count(story.items.len() as u64, "revision");
        session
            .output
            .message(&format!("the last {shown}; leave --last out to see all"));
    }
    if !story.exists {
        let object = printable(&story.object);
        session.output.message(&format!("there is no {object} now"));
    }
    Ok(())
}
