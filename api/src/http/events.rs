//! `/v1/events` and `/v1/journal`: everything that happened, as a stream and by the page. `/v1/batch`: everything at
//! once.

use crate::answer::Answer;
use crate::app::App;
use crate::params::{Many, Page, query};
use crate::problem::{Problem, QUERY_INVALID};
use crate::request::{Call, Fresh, LargeJson, Params};
use crate::routes::{Routes, op};
use crate::stream::{Lens, compacted, follow};
use crate::wire;
use axum::extract::State;
use axum::response::Response;
use http::HeaderMap;
use onward_statemachine::journal::{self, Record};
use onward_statemachine::{Command, Event, Reply, Revision};

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
        /// Only of this area; may be there several times.
        area: Many<String>,
        /// How fresh.
        fresh: Fresh,
        /// How much.
        page: Page,
    }
}

/// Lets the events of some areas through.
struct Areas(Vec<String>);

impl Areas {
    fn of(areas: Many<String>) -> Result<Self, Problem> {
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
    let limit = query.page.limit;
    let seen = app
        .read(query.fresh, |view| {
            let floor = onward_statemachine::system::gate(view)?.journal_floor;
            let after = query.after.unwrap_or(Revision(floor.0.saturating_sub(1)));
            let wanted = |record: &Record| record.events.iter().any(|event| lens.wants(event));
            journal::read(view, after, limit, SCAN_MAX, wanted)
        })
        .await?;
    let revision = seen.revision;
    let page = seen.value.map_err(|behind| compacted(behind).at(revision))?;
    let items = page.records.into_iter();
    let value = wire::JournalPage {
        items: items
            .map(|(revision, record)| lens.message(revision, record))
            .collect(),
        next_after: page.scanned.0,
        complete: page.complete,
    };
    crate::answer::Seen {
        value,
        revision,
        age_ms: seen.age_ms,
    }
    .answer()
}

async fn batch(State(app): State<App>, call: Call, LargeJson(batch): LargeJson<wire::Batch>) -> Answer {
    let done = app.propose(call, Command::try_from(batch)?).await?;
    let results = match done.reply.clone() {
        Reply::Batch(replies) => replies.into_iter().map(wire::reply).collect(),
        other => vec![wire::reply(other)],
    };
    done.answer_with(&wire::Results { results })
}
