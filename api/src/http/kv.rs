//! `/v1/kv`: key-value pairs.
//!
//! A key is the rest of the path, percent-decoded to bytes of any kind. `watch` and `txn` are operations of the same
//! path: to read the key `watch`, encode a letter of it (`GET /v1/kv/%77atch`), as [`crate::client`] does.

use crate::answer::{Answer, page, raw};
use crate::app::{App, LIST_BYTES_MAX};
use crate::cursor::List;
use crate::params::{Page, Read, query};
use crate::problem::{NOT_FOUND, Problem};
use crate::request::{BytesOr, Call, Conditional, Fresh, LargeJson, Params, wants_bytes};
use crate::routes::{Routes, op};
use crate::stream::{Lens, follow};
use crate::wire;
use axum::extract::State;
use http::{HeaderMap, Uri};
use onward_statemachine::journal::Record;
use onward_statemachine::services::kv::{self, Key, Selection};
use onward_statemachine::{Command, Event, Reply, Revision};
use percent_encoding::percent_decode_str;

const ROOT: &str = "/v1/kv/";
const PAIRS: List = List("key-value pairs");

pub(super) fn routes(routes: Routes) -> Routes {
    let get_pair = || {
        op(
            "kv_get",
            "Reads a key; raw bytes with `Accept: application/octet-stream`",
        )
        .query::<Read>()
        .answer::<wire::kv::Pair>()
        .answer_bytes()
    };
    let put_pair = || {
        op("kv_put", "Puts a key")
            .writes_if_match()
            .body::<wire::kv::Value>()
            .body_bytes()
            .done()
    };
    let delete_pair = || {
        op("kv_delete", "Deletes a key; done also where there was none")
            .writes_if_match()
            .answer::<wire::kv::Deleted>()
    };
    routes
        .tag("kv")
        .get("/v1/kv/{*key}", get, get_pair())
        .put("/v1/kv/{*key}", put, put_pair())
        .delete("/v1/kv/{*key}", delete, delete_pair())
        .get(
            "/v1/kv",
            list,
            op("kv_list", "Lists pairs by prefix")
                .query::<Prefix>()
                .list::<wire::kv::Pair>(),
        )
        .delete(
            "/v1/kv",
            delete_prefix,
            op("kv_delete_prefix", "Deletes all keys that begin with `prefix`")
                .query::<Doomed>()
                .writes()
                .answer::<wire::kv::Deleted>(),
        )
        .post(
            "/v1/kv/txn",
            txn,
            op(
                "kv_txn",
                "Compares, then does one thing or the other, in one revision",
            )
            .writes()
            .body::<wire::kv::Txn>()
            .answer::<wire::kv::TxnResult>(),
        )
        .get("/v1/kv/txn", get, at("kv_get_txn", get_pair()))
        .put("/v1/kv/txn", put, at("kv_put_txn", put_pair()))
        .delete("/v1/kv/txn", delete, at("kv_delete_txn", delete_pair()))
        .get(
            "/v1/kv/watch",
            watch,
            op("kv_watch", "Streams the changes of keys that begin with `prefix`")
                .query::<Watch>()
                .stream::<wire::kv::Change>(),
        )
        .put("/v1/kv/watch", put, at("kv_put_watch", put_pair()))
        .delete("/v1/kv/watch", delete, at("kv_delete_watch", delete_pair()))
}

/// The same operation on the key that is called as an operation is.
fn at(id: &'static str, operation: crate::routes::Operation) -> crate::routes::Operation {
    operation.named(id)
}

query! {
    /// Which pairs.
    Prefix {
        /// Keys that begin so; all without it.
        prefix: Option<Vec<u8>>,
        /// How fresh.
        fresh: Fresh,
        /// Which page.
        page: Page,
    }
}
query! {
    /// Which pairs to delete.
    Doomed {
        /// Keys that begin so.
        prefix: Option<Vec<u8>>,
    }
}
query! {
    /// Which changes.
    Watch {
        /// Of keys that begin so; of all without it.
        prefix: Option<Vec<u8>>,
        /// After this revision; from now on without it.
        after: Option<Revision>,
    }
}

fn key(uri: &Uri) -> Key {
    let path = uri.path().strip_prefix(ROOT).unwrap_or_default();
    Key(percent_decode_str(path).collect())
}

async fn get(State(app): State<App>, uri: Uri, Params(read): Params<Read>, headers: HeaderMap) -> Answer {
    let key = key(&uri);
    let found = app.read(read.fresh, |view| kv::get(view, &key)).await?;
    let found = found.or_else(|| NOT_FOUND.because(format!("there is no key `{key}`")))?;
    if wants_bytes(&headers) {
        return Ok(raw(found.value.value, found.revision, found.age_ms));
    }
    found.map(|pair| wire::kv::Pair::from((key, pair))).answer()
}

async fn put(
    State(app): State<App>,
    uri: Uri,
    Conditional { call, expect }: Conditional,
    body: BytesOr<wire::kv::Value>,
) -> Answer {
    let value = match body {
        BytesOr::Bytes(bytes) => bytes.into(),
        BytesOr::Json(value) => value.into_bytes()?,
    };
    let key = key(&uri);
    let done = app
        .propose(call, Command::Kv(kv::Command::Put { key, value, expect }))
        .await?;
    done.answer()
}

async fn delete(State(app): State<App>, uri: Uri, Conditional { call, expect }: Conditional) -> Answer {
    let keys = Selection::Key(key(&uri));
    run(&app, call, kv::Command::Delete { keys, expect }).await
}

async fn delete_prefix(State(app): State<App>, call: Call, Params(doomed): Params<Doomed>) -> Answer {
    let prefix = doomed.prefix.ok_or_else(|| {
        crate::problem::QUERY_INVALID
            .because("query parameter `prefix` is missing; `?prefix=` alone means every key")
    })?;
    let keys = Selection::Prefix(prefix);
    run(&app, call, kv::Command::Delete { keys, expect: None }).await
}

async fn txn(State(app): State<App>, call: Call, LargeJson(txn): LargeJson<wire::kv::Txn>) -> Answer {
    run(&app, call, txn.try_into()?).await
}

/// Proposes a command that tells its caller something.
async fn run(app: &App, call: Call, command: kv::Command) -> Answer {
    let done = app.propose(call, Command::Kv(command)).await?;
    match &done.reply {
        Reply::Kv(reply) => done.answer_with(&wire::kv::reply(reply.clone())),
        _ => done.answer(),
    }
}

async fn list(State(app): State<App>, Params(query): Params<Prefix>) -> Answer {
    let cursor = query.page.cursor.as_deref();
    let after = cursor.map(|cursor| PAIRS.position(cursor)).transpose()?.map(Key);
    let prefix = query.prefix.unwrap_or_default();
    let limit = query.page.limit;
    let listing = app
        .read(query.fresh, |view| {
            kv::range(view, &prefix, after.as_ref(), limit, LIST_BYTES_MAX)
        })
        .await?;
    listing
        .map(|listing| {
            let next = listing.next.map(|key| PAIRS.cursor(&key.0));
            page(listing.pairs, next, wire::kv::Pair::from)
        })
        .answer()
}

async fn watch(
    State(app): State<App>,
    Params(watch): Params<Watch>,
    headers: HeaderMap,
) -> Result<axum::response::Response, Problem> {
    let prefix = watch.prefix.unwrap_or_default();
    follow(&app, &headers, watch.after, Prefixed { prefix })
}

/// Lets the events of keys with a prefix through.
struct Prefixed {
    prefix: Vec<u8>,
}

impl Lens for Prefixed {
    const NAME: &'static str = "change";
    type Message = wire::kv::Change;

    fn wants(&self, event: &Event) -> bool {
        matches!(event, Event::Kv(event) if event.key().0.starts_with(&self.prefix))
    }

    fn message(&self, revision: Revision, record: Record) -> wire::kv::Change {
        let events = record.events.into_iter().filter(|event| self.wants(event));
        let events = events.filter_map(|event| match event {
            Event::Kv(event) => Some(event.into()),
            _ => None,
        });
        wire::kv::Change {
            revision: revision.0,
            events: events.collect(),
        }
    }
}
