//! `/v1/events` and `/v1/journal`: everything that happened, as a stream and by the page. `/v1/batch`: everything at
//! once.

use crate::answer::Answer;
use crate::app::App;
use crate::params::{Many, Page, query};
use crate::problem::{Problem, QUERY_INVALID};
use crate::request::{Call, LargeJson, Params, Present};
use crate::routes::{Routes, op};
use crate::stream::{Lens, compacted, follow};
use crate::wire;
use axum::extract::State;
use axum::response::Response;
use http::HeaderMap;
use onward_statemachine::journal::{self, Record};
use onward_statemachine::{Command, Event, Reply, Revision, history};

/// The records that one page looks at, however few of them are wanted.
const SCAN_MAX: usize = 20_000;

pub(super) fn routes(routes: Routes) -> Routes {
    routes
        .tag("events")
        .get(
            "/v1/events",
            stream,
            op("events", "Streams the journal, one message a revision")
                .query::<Following>()
                .stream::<wire::Entry>(),
        )
        .get(
            "/v1/journal",
            list,
            op(
                "journal",
                "Reads the journal by the page; `next_after` is the `after` of the next one",
            )
            .query::<Reading>()
            .answer::<wire::JournalPage>(),
        )
        .post(
            "/v1/batch",
            batch,
            op("batch", "All of these commands or none, in one revision")
                .writes()
                .body::<wire::Batch>()
                .answer::<wire::Results>(),
        )
}

query! {
    /// Which events.
    Following {
        /// After this revision; from now on without it, from the beginning with 0.
        after: Option<Revision>,
        /// Only of this area; may be there several times.
        area: Many<String>,
    }
}
query! {
    /// Which part of the journal.
    Reading {
        /// After this revision; from the beginning of what is kept without it.
        after: Option<Revision>,
        /// Before this revision.
        before: Option<Revision>,
        /// the newest of these instead of the oldest; in the order of revision all the same
        newest: Option<bool>,
        /// Only of this area; may be there several times.
        area: Many<String>,
        /// How fresh.
        fresh: Present,
        /// How much.
        page: Page,
    }
}

/// Lets the events of some areas through.
pub(super) struct Areas(Vec<String>);

impl Areas {
    pub(super) fn of(areas: Many<String>) -> Result<Self, Problem> {
        match areas
            .0
            .iter()
            .find(|area| !wire::Event::AREAS.contains(&area.as_str()))
        {
            None => Ok(Areas(areas.0)),
            Some(area) => Err(QUERY_INVALID.because(format!(
                "query parameter `area` is `{area}`; it takes one of {}",
                wire::Event::AREAS.join(", ")
            ))),
        }
    }
}

impl Lens for Areas {
    const NAME: &'static str = "revision";
    type Message = wire::Entry;

    fn wants(&self, event: &Event) -> bool {
        self.0.is_empty() || self.0.iter().any(|area| area == wire::Event::area(event))
    }

    fn message(&self, revision: Revision, mut record: Record) -> wire::Entry {
        record.events.retain(|event| self.wants(event));
        (revision, record).into()
    }
}

async fn stream(
    State(app): State<App>,
    Params(query): Params<Following>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let lens = Areas::of(query.area)?;
    follow(&app, &headers, query.after, lens)
}

async fn list(State(app): State<App>, Params(query): Params<Reading>) -> Answer {
    let lens = Areas::of(query.area)?;
    if query.page.cursor.is_some() {
        return Err(
            QUERY_INVALID.because("query parameter `cursor` is not for the journal: go on with `after`")
        );
    }
    let (limit, newest) = (query.page.limit, query.newest.unwrap_or(false));
    let before = query.before.unwrap_or(Revision(u64::MAX));
    let seen = app
        .read(query.fresh.0, |view| {
            let after = query.after.unwrap_or(history::oldest(view)?);
            let wanted = |record: &Record| record.events.iter().any(|event| lens.wants(event));
            if !newest {
                return journal::read(view, after, limit, SCAN_MAX, wanted);
            }
            let behind = journal::read(view, after, 0, 1, |_| false)?;
            let first = Revision(after.0.saturating_add(1));
            Ok(match behind {
                Err(behind) => Err(behind),
                Ok(_) => Ok(journal::read_back(view, before, first, limit, SCAN_MAX, wanted)?),
            })
        })
        .await?;
    let revision = seen.revision;
    let page = seen.value.map_err(|behind| compacted(behind).at(revision))?;
    let value = if newest {
        newest_of(page, revision, &lens)
    } else {
        oldest_of(page, before, &lens)
    };
    crate::answer::Seen {
        value,
        revision,
        age_ms: seen.age_ms,
    }
    .answer()
}

/// A page from its beginning on; it ends before `before`.
fn oldest_of(mut page: journal::Page, before: Revision, lens: &Areas) -> wire::JournalPage {
    page.records.retain(|(revision, _)| *revision < before);
    let ended = page.scanned >= before;
    let items = page.records.into_iter();
    wire::JournalPage {
        items: items
            .map(|(revision, record)| lens.message(revision, record))
            .collect(),
        next_after: page.scanned.0,
        next_before: None,
        complete: page.complete || ended,
    }
}

/// A page from its end back, turned round.
fn newest_of(page: journal::Page, head: Revision, lens: &Areas) -> wire::JournalPage {
    let items = page.records.into_iter().rev();
    wire::JournalPage {
        items: items
            .map(|(revision, record)| lens.message(revision, record))
            .collect(),
        next_after: head.0,
        next_before: (!page.complete).then_some(page.scanned.0),
        complete: page.complete,
    }
}

async fn batch(State(app): State<App>, call: Call, LargeJson(batch): LargeJson<wire::Batch>) -> Answer {
    let done = app.propose(call, Command::try_from(batch)?).await?;
    let results = match done.reply.clone() {
        Reply::Batch(replies) => replies.into_iter().map(wire::reply).collect(),
        other => vec![wire::reply(other)],
    };
    done.answer_with(&wire::Results { results })
}
