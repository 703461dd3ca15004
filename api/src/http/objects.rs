//! `/v1/objects`: object transactions and snapshot reads.

use crate::answer::{Answer, page, raw};
use crate::app::App;
use crate::cursor::List as Cursors;
use crate::params::{List, Page, Read, query};
use crate::problem::{NOT_FOUND, PATH_INVALID, Problem, QUERY_INVALID};
use crate::request::{Call, Fresh, Json, LargeJson, Params, Path, wants_bytes};
use crate::routes::{Routes, op};
use crate::wire::objects::{
    Allocate, Allocated, Commit, Committed, Entry, Head, History, Object, Transaction, TransactionDetail,
};
use axum::extract::State;
use http::{HeaderMap, HeaderValue};
use onward_statemachine::objects::{self, Command, Load, Oid, ParseIdError, Tid};
use onward_statemachine::{Command as Demand, Order, Reply};

const OBJECTS: Cursors = Cursors("objects");
const HISTORY: Cursors = Cursors("revisions of an object");
const TRANSACTIONS: Cursors = Cursors("object transactions");

pub(super) fn routes(routes: Routes) -> Routes {
    routes
        .tag("objects")
        .get(
            "/v1/objects",
            list,
            op("object_list", "Lists the objects that exist")
                .query::<List>()
                .list::<Entry>(),
        )
        .get(
            "/v1/objects/head",
            head,
            op("object_head", "Where the object database stands")
                .query::<Read>()
                .answer::<Head>(),
        )
        .post(
            "/v1/objects/oids",
            allocate,
            op("object_allocate", "Gives out oids that nobody has")
                .writes()
                .body::<Allocate>()
                .answer::<Allocated>(),
        )
        .get(
            "/v1/objects/transactions",
            transactions,
            op("object_transactions", "Lists transactions, newest first")
                .query::<Transactions>()
                .list::<Transaction>(),
        )
        .post(
            "/v1/objects/transactions",
            commit,
            op(
                "object_commit",
                "Commits a transaction; 409 where something that it read has changed",
            )
            .writes()
            .body::<Commit>()
            .answer::<Committed>(),
        )
        .get(
            "/v1/objects/transactions/{tid}",
            transaction,
            op("object_transaction", "Reads a transaction with what it wrote")
                .query::<Read>()
                .answer::<TransactionDetail>(),
        )
        .get(
            "/v1/objects/{oid}",
            get,
            op(
                "object_get",
                "Reads an object as of a snapshot; raw bytes with `Accept: application/octet-stream`",
            )
            .query::<At>()
            .answer::<Object>()
            .answer_bytes(),
        )
        .get(
            "/v1/objects/{oid}/history",
            history,
            op("object_history", "Lists the revisions of an object, newest first")
                .query::<List>()
                .list::<History>(),
        )
}

query! {
    /// Which revision of an object.
    At {
        /// as a snapshot at this tid sees it; as the newest one does without it
        tid: Option<String>,
        /// as a snapshot that ends just before this tid sees it
        before: Option<String>,
        /// as this transaction wrote it
        serial: Option<String>,
        /// How fresh.
        fresh: Fresh,
    }
}
query! {
    /// Which transactions.
    Transactions {
        /// oldest first
        ascending: Option<bool>,
        /// How fresh.
        fresh: Fresh,
        /// Which page.
        page: Page,
    }
}

fn oid(text: &str) -> Result<Oid, Problem> {
    text.parse()
        .map_err(|error: ParseIdError| PATH_INVALID.because(error.to_string()))
}

fn tid(name: &str, text: Option<&str>) -> Result<Option<Tid>, Problem> {
    let parsed = text.map(str::parse).transpose();
    parsed.map_err(|error: ParseIdError| QUERY_INVALID.because(format!("query parameter `{name}`: {error}")))
}

async fn head(State(app): State<App>, Params(read): Params<Read>) -> Answer {
    app.read(read.fresh, objects::head)
        .await?
        .map(Head::from)
        .answer()
}

async fn list(State(app): State<App>, Params(List { fresh, page: which }): Params<List>) -> Answer {
    let after = OBJECTS.number(which.cursor.as_deref())?.map(Oid);
    let listing = app
        .read(fresh, |view| objects::objects(view, after, which.limit))
        .await?;
    listing
        .map(|listing| {
            let next = listing.next.map(|oid| OBJECTS.cursor(&oid.0.to_be_bytes()));
            page(listing.items, next, Entry::from)
        })
        .answer()
}

/// What was found, before it is answered.
enum Found {
    No(String),
    Yes(Tid, Option<Tid>, Vec<u8>),
}

async fn get(
    State(app): State<App>,
    Path(text): Path<String>,
    Params(which): Params<At>,
    headers: HeaderMap,
) -> Answer {
    let oid = oid(&text)?;
    let at = tid("tid", which.tid.as_deref())?;
    let before = tid("before", which.before.as_deref())?;
    let serial = tid("serial", which.serial.as_deref())?;
    if [at, before, serial].iter().flatten().count() > 1 {
        return Err(QUERY_INVALID.because("query parameters `tid`, `before` and `serial` exclude each other"));
    }
    let seen = app
        .read(which.fresh, |view| {
            if let Some(serial) = serial {
                return Ok(match objects::load_serial(view, oid, serial)? {
                    Some(bytes) => Found::Yes(serial, None, bytes),
                    None => Found::No(format!("transaction {serial} left no object {oid}")),
                });
            }
            let load = match before {
                Some(before) => objects::load_before(view, oid, before)?,
                None => objects::load_at(view, oid, at.unwrap_or(Tid::MAX))?,
            };
            Ok(match load {
                Load::Found { serial, next, bytes } => Found::Yes(serial, next, bytes),
                Load::Unknown => Found::No(format!("there is no object {oid}, and never was")),
                Load::NotYet => Found::No(format!("there was no object {oid} yet")),
                Load::Deleted { serial, .. } => {
                    Found::No(format!("object {oid} was deleted by transaction {serial}"))
                }
            })
        })
        .await?;
    let (revision, age_ms) = (seen.revision, seen.age_ms);
    let (serial, next, bytes) = match seen.value {
        Found::Yes(serial, next, bytes) => (serial, next, bytes),
        Found::No(why) => return Err(NOT_FOUND.because(why).at(revision)),
    };
    if wants_bytes(&headers) {
        let mut response = raw(bytes, revision, age_ms);
        let serial = HeaderValue::from_str(&serial.to_string()).expect("a tid is hexadecimal digits");
        response.headers_mut().insert("onward-serial", serial);
        return Ok(response);
    }
    crate::answer::Seen {
        value: Object::new(oid, serial, next, &bytes),
        revision,
        age_ms,
    }
    .answer()
}

async fn history(
    State(app): State<App>,
    Path(text): Path<String>,
    Params(List { fresh, page: which }): Params<List>,
) -> Answer {
    let oid = oid(&text)?;
    let before = HISTORY.number(which.cursor.as_deref())?.map(Tid);
    let listing = app
        .read(fresh, |view| {
            let listing = objects::history(view, oid, before, which.limit)?;
            let exists = objects::current(view, oid)?.is_some();
            Ok(exists.then_some(listing))
        })
        .await?;
    let listing =
        listing.or_else(|| NOT_FOUND.because(format!("there is no object {oid}, and never was")))?;
    listing
        .map(|listing| {
            let next = listing.next.map(|tid| HISTORY.cursor(&tid.0.to_be_bytes()));
            page(listing.items, next, History::from)
        })
        .answer()
}

async fn transactions(State(app): State<App>, Params(which): Params<Transactions>) -> Answer {
    let from = TRANSACTIONS.number(which.page.cursor.as_deref())?.map(Tid);
    let order = match which.ascending {
        Some(true) => Order::Ascending,
        Some(false) | None => Order::Descending,
    };
    let limit = which.page.limit;
    let listing = app
        .read(which.fresh, |view| {
            objects::transactions(view, from, order, limit)
        })
        .await?;
    listing
        .map(|listing| {
            let next = listing.next.map(|tid| TRANSACTIONS.cursor(&tid.0.to_be_bytes()));
            page(listing.items, next, Transaction::from)
        })
        .answer()
}

async fn transaction(State(app): State<App>, Path(text): Path<String>, Params(read): Params<Read>) -> Answer {
    let tid: Tid = text
        .parse()
        .map_err(|error: ParseIdError| PATH_INVALID.because(error.to_string()))?;
    let found = app
        .read(read.fresh, |view| {
            let transaction = objects::transaction(view, tid)?;
            Ok(transaction.zip(objects::writes(view, tid)?))
        })
        .await?;
    let found = found.or_else(|| NOT_FOUND.because(format!("there is no object transaction {tid}")))?;
    found
        .map(|(row, writes)| TransactionDetail {
            transaction: (tid, row).into(),
            objects: writes
                .into_iter()
                .map(|(oid, record)| (oid, tid, record).into())
                .collect(),
        })
        .answer()
}

async fn commit(State(app): State<App>, call: Call, LargeJson(commit): LargeJson<Commit>) -> Answer {
    let done = app.propose(call, Demand::Objects(commit.try_into()?)).await?;
    match &done.reply {
        Reply::Objects(objects::Reply::Committed { tid }) => {
            done.answer_with(&Committed { tid: tid.to_string() })
        }
        _ => done.answer(),
    }
}

async fn allocate(State(app): State<App>, call: Call, Json(Allocate { count }): Json<Allocate>) -> Answer {
    let done = app
        .propose(call, Demand::Objects(Command::AllocateOids { count }))
        .await?;
    match &done.reply {
        Reply::Objects(objects::Reply::Allocated { first, count }) => done.answer_with(&Allocated {
            first: first.to_string(),
            count: *count,
        }),
        _ => done.answer(),
    }
}
