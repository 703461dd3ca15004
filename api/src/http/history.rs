//! `/v1/diff`, `/v1/why`: what changed, and what made an object as it is. `/v1/journal/retention` and
//! `/v1/journal/compact`: how far back that reaches.

use crate::answer::{Answer, Seen};
use crate::app::App;
use crate::cursor::List as Cursors;
use crate::http::events::Areas;
use crate::manifest::compare;
use crate::params::{Many, Now, Page, query};
use crate::problem::{DIFF_TOO_LARGE, Problem, QUERY_INVALID};
use crate::request::{Call, Fresh, Json, Params, Present};
use crate::routes::{Routes, op};
use crate::stream::{Lens, compacted};
use crate::subject::{self, Subject};
use crate::wire::history::{Became, Change, Compact, Diff, JournalState, Retention, Why};
use axum::extract::State;
use onward_statemachine::journal::{self, Record};
use onward_statemachine::system::{self, Command};
use onward_statemachine::{Command as Demand, Event, Fault, Revision, View, history, retention};
use std::collections::BTreeSet;

const CHANGES: Cursors = Cursors("differences");

/// The revisions that are looked at in one go.
const SCAN_MAX: usize = 20_000;
/// The same for one page of what made an object as it is.
const WHY_SCAN_MAX: usize = 100_000;
/// The most objects that a comparison is over.
const SUBJECTS_MAX: usize = 200_000;
/// The most objects that one page of a comparison looks at.
const COMPARED_MAX: usize = 20_000;

pub(super) fn routes(routes: Routes) -> Routes {
    routes
        .tag("history")
        .get(
            "/v1/diff",
            diff,
            op("diff", "What changed between two revisions, object by object")
                .query::<Between>()
                .answer::<Diff>(),
        )
        .get(
            "/v1/why",
            why,
            op(
                "why",
                "The events that made an object what it is, with who demanded them",
            )
            .query::<Of>()
            .answer::<Why>(),
        )
        .get(
            "/v1/journal/retention",
            state,
            op(
                "journal_retention",
                "How much of the journal is to be kept, and is",
            )
            .query::<Now>()
            .answer::<JournalState>(),
        )
        .put(
            "/v1/journal/retention",
            set,
            op("journal_set_retention", "Sets how much of the journal is kept")
                .writes()
                .body::<Retention>()
                .done(),
        )
        .post(
            "/v1/journal/compact",
            compact,
            op("journal_compact", "Lets go of events up to a revision")
                .writes()
                .body::<Compact>()
                .done(),
        )
}

query! {
    /// Between which revisions.
    Between {
        /// what was: the state as of this revision
        from: Option<Revision>,
        /// what became of it: the state as of this revision; the present one without it
        to: Option<Revision>,
        /// only of this area; may be there several times
        area: Many<String>,
        /// How fresh.
        fresh: Present,
        /// Which page.
        page: Page,
    }
}
query! {
    /// Of which object.
    Of {
        /// which: `kv/KEY`, `machine/SERIAL`, `service/NAME`, `app/NAME`, `object/OID`, ...
        object: Option<Vec<u8>>,
        /// only what happened before this revision
        before: Option<Revision>,
        /// also what happened before the object was created, to one of the same name
        all: Option<bool>,
        /// How fresh.
        fresh: Present,
        /// How much.
        page: Page,
    }
}

async fn state(State(app): State<App>, Params(Now { fresh }): Params<Now>) -> Answer {
    app.read(fresh.0, |view| {
        let floor = system::gate(view)?.journal_floor;
        let first = journal::first_from(view, floor)?;
        Ok(JournalState {
            retention: retention::settings(view)?.into(),
            oldest: history::oldest(view)?.0,
            oldest_at: first.map(|(_, record)| crate::wire::time(record.at)),
            bytes: retention::size(view)?.map(|size| size.kept()),
        })
    })
    .await?
    .answer()
}

async fn set(State(app): State<App>, call: Call, Json(retention): Json<Retention>) -> Answer {
    let retention = retention.into();
    app.propose(call, Demand::System(Command::SetRetention { retention }))
        .await?
        .answer()
}

async fn compact(State(app): State<App>, call: Call, Json(compact): Json<Compact>) -> Answer {
    let below = compact.below()?;
    app.propose(call, Demand::System(Command::CompactJournal { below }))
        .await?
        .answer()
}

async fn diff(State(app): State<App>, Params(query): Params<Between>) -> Answer {
    let areas = Areas::of(query.area)?;
    let from = query
        .from
        .ok_or_else(|| QUERY_INVALID.because("query parameter `from` is missing: a revision"))?;
    let head = app.read(query.fresh.0, |_| Ok(())).await?.revision;
    let place = query.page.cursor.as_deref().map(Place::of).transpose()?;
    // Pages after the first are of the same revisions, whatever has happened since.
    let to = place.map(|place| place.to).or(query.to).unwrap_or(head);
    if query.to.is_some_and(|wanted| wanted != to) {
        return Err(CHANGES.foreign());
    }
    let number = place.map_or(0, |place| place.number);
    if from > to {
        return Err(QUERY_INVALID.because(format!("query parameter `from` is {from}, which is after {to}")));
    }
    let reader = &app.services.reader;
    let before = reader.past(from).await?;
    let mut subjects = touched(&app, &areas, from, to).await?;
    let apps: Vec<_> = subjects.iter().filter_map(Subject::as_app).cloned().collect();
    let limit = query.page.limit;
    let at = Fresh {
        local: true,
        at_least: None,
        at: Some(to),
    };
    let seen = app
        .read(at, |after_view| {
            Ok(before.read(|before| {
                for app in &apps {
                    subject::parts(before, app, &mut subjects)?;
                    subject::parts(after_view, app, &mut subjects)?;
                }
                page_of(&subjects, number, limit, before, after_view)
            }))
        })
        .await?;
    let (items, next) = seen.value;
    let next = next.map(|number| Place { to, number }.cursor());
    let (from, to) = (from.0, to.0);
    let value = Diff {
        from,
        to,
        items,
        next,
    };
    Seen {
        value,
        revision: head,
        age_ms: None,
    }
    .answer()
}

/// What the events after `from` up to `to` happened to.
async fn touched(
    app: &App,
    areas: &Areas,
    from: Revision,
    to: Revision,
) -> Result<BTreeSet<Subject>, Problem> {
    let mut subjects = BTreeSet::new();
    let mut position = from;
    while position < to {
        let page = app.services.reader.read(|view| {
            let mut left = (to.0 - position.0).min(SCAN_MAX as u64) as usize;
            journal::read(view, position, usize::MAX, left.max(1), |record| {
                left -= 1;
                record
                    .events
                    .iter()
                    .filter(|event| areas.wants(event))
                    .for_each(|event| {
                        Subject::touched(event, &mut subjects);
                    });
                false
            })
        });
        let page = page.map_err(compacted)?;
        position = page.scanned;
        if subjects.len() > SUBJECTS_MAX {
            return Err(DIFF_TOO_LARGE.because(format!(
                "more than {SUBJECTS_MAX} objects changed between revisions {from} and {to}: choose an area with \
                 `area`, or revisions that are closer"
            )));
        }
        if page.complete {
            break;
        }
        tokio::task::yield_now().await;
    }
    Ok(subjects)
}

/// Where a comparison goes on: a place in the order of what its revisions touched, which is the same whenever they are
/// compared.
#[derive(Clone, Copy)]
struct Place {
    to: Revision,
    number: usize,
}

impl Place {
    fn of(cursor: &str) -> Result<Place, Problem> {
        let position = CHANGES.position(cursor)?;
        let [to, number]: [[u8; 8]; 2] = match position.as_chunks() {
            ([to, number], []) => [*to, *number],
            _ => return Err(CHANGES.foreign()),
        };
        Ok(Place {
            to: Revision(u64::from_be_bytes(to)),
            number: usize::try_from(u64::from_be_bytes(number)).map_err(|_| CHANGES.foreign())?,
        })
    }

    fn cursor(self) -> String {
        let number = self.number as u64;
        CHANGES.cursor(&[self.to.0.to_be_bytes(), number.to_be_bytes()].concat())
    }
}

/// The differences of these subjects from this place on, and the place after them.
fn page_of(
    subjects: &BTreeSet<Subject>,
    place: usize,
    limit: usize,
    before: &dyn View,
    now: &dyn View,
) -> Result<(Vec<Change>, Option<usize>), Fault> {
    let mut items = Vec::new();
    for (number, subject) in subjects.iter().enumerate().skip(place) {
        if items.len() == limit || number - place == COMPARED_MAX {
            return Ok((items, Some(number)));
        }
        items.extend(change(subject, before, now)?);
    }
    Ok((items, None))
}

fn change(subject: &Subject, before: &dyn View, now: &dyn View) -> Result<Option<Change>, Fault> {
    let (before, after) = (subject.value(before)?, subject.value(now)?);
    let mut fields = Vec::new();
    let became = match (&before, &after) {
        (None, None) => return Ok(None),
        (None, Some(_)) => Became::Added,
        (Some(_), None) => Became::Removed,
        (Some(before), Some(after)) if before == after => return Ok(None),
        (Some(before), Some(after)) => {
            compare(String::new(), Some(before), Some(after), &mut fields);
            Became::Changed
        }
    };
    Ok(Some(Change {
        object: subject.to_string(),
        became,
        before,
        after,
        fields,
    }))
}

/// Lets the events of one object through.
struct Story<'a>(&'a Subject);

impl Story<'_> {
    fn entry(&self, revision: Revision, mut record: Record) -> crate::wire::Entry {
        record.events.retain(|event: &Event| self.0.met(event));
        (revision, record).into()
    }
}

async fn why(State(app): State<App>, Params(query): Params<Of>) -> Answer {
    let object = query.object.ok_or_else(|| {
        QUERY_INVALID.because("query parameter `object` is missing, as in `?object=kv/site/name`")
    })?;
    let subject = Subject::parse(&object)?;
    if query.page.cursor.is_some() {
        return Err(QUERY_INVALID.because("query parameter `cursor` is not for this: go on with `before`"));
    }
    let (story, limit, all) = (Story(&subject), query.page.limit, query.all.unwrap_or(false));
    app.read(query.fresh.0, |view| {
        let life = subject.life(view)?;
        let floor = system::gate(view)?.journal_floor;
        let head = system::clock(view)?.revision;
        let first = match life {
            Some((created, _)) if !all => created,
            _ => Revision(0),
        };
        let last = life.and_then(|(_, modified)| modified).unwrap_or(head);
        let before = query
            .before
            .unwrap_or(Revision(u64::MAX))
            .min(Revision(last.0 + 1));
        let page = journal::read_back(view, before, first, limit, WHY_SCAN_MAX, |record| {
            record.events.iter().any(|event| subject.met(event))
        })?;
        let items = page.records.into_iter().rev();
        Ok(Why {
            object: subject.to_string(),
            exists: subject.value(view)?.is_some(),
            items: items
                .map(|(revision, record)| story.entry(revision, record))
                .collect(),
            next_before: (!page.complete).then_some(page.scanned.0),
            compacted: (page.complete && floor > first && floor.0 > 0).then(|| floor.0 - 1),
        })
    })
    .await?
    .answer()
}
