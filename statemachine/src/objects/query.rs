use super::tid::Newest;
use super::types::*;
use super::{Oid, Tid};
use crate::store::{Fault, Order, View};
use crate::table::Range;
use std::ops::ControlFlow;

/// Where the object database stands.
pub fn head(view: &dyn View) -> Result<Head, Fault> {
    Ok(HEAD.get(view, &())?.unwrap_or_default())
}

/// What a reader finds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Load {
    /// No transaction ever wrote the object.
    Unknown,
    /// The object came into being only later than the reader looks.
    NotYet,
    /// The object was deleted.
    Deleted {
        /// By which transaction.
        serial: Tid,
        /// Which transaction wrote it again, if one did.
        next: Option<Tid>,
    },
    /// The object is there.
    Found {
        /// Which transaction wrote it so.
        serial: Tid,
        /// Which transaction wrote it next, if one did: the revision is current until then.
        next: Option<Tid>,
        /// Its bytes.
        bytes: Vec<u8>,
    },
}

/// The newest revision of `oid` older than `tid`: what a reader sees whose snapshot ends just before `tid`.
pub fn load_before(view: &dyn View, oid: Oid, tid: Tid) -> Result<Load, Fault> {
    match tid.0.checked_sub(1) {
        Some(last) => load_at(view, oid, Tid(last)),
        None => Ok(match current(view, oid)? {
            Some(_) => Load::NotYet,
            None => Load::Unknown,
        }),
    }
}

/// The newest revision of `oid` that is not newer than `tid`: what a reader sees whose snapshot is `tid`.
pub fn load_at(view: &dyn View, oid: Oid, tid: Tid) -> Result<Load, Fault> {
    let key = (oid, Newest(tid));
    let older = Range::within(&oid).at_least(&key);
    let found = RECORDS.list(view, &older, 1)?.pop();
    let newer = RECORDS.last(view, &Range::within(&oid).below(&key))?;
    let next = newer.map(|((_, Newest(tid)), _)| tid);
    let Some((key, record)) = found else {
        return Ok(if next.is_some() {
            Load::NotYet
        } else {
            Load::Unknown
        });
    };
    let (_, Newest(serial)) = key;
    Ok(match record.size {
        None => Load::Deleted { serial, next },
        Some(_) => Load::Found {
            serial,
            next,
            bytes: BYTES.expect(view, &key)?.0,
        },
    })
}

/// The bytes that transaction `serial` wrote to `oid`; `None` where it did not write it, or deleted it.
pub fn load_serial(view: &dyn View, oid: Oid, serial: Tid) -> Result<Option<Vec<u8>>, Fault> {
    Ok(BYTES.get(view, &(oid, Newest(serial)))?.map(|bytes| bytes.0))
}

/// The serial and the record of the newest revision of `oid`, which may be a deletion.
pub fn current(view: &dyn View, oid: Oid) -> Result<Option<(Tid, Record)>, Fault> {
    let newest = RECORDS.list(view, &Range::within(&oid), 1)?.pop();
    Ok(newest.map(|((_, Newest(tid)), record)| (tid, record)))
}

/// One page, and where the next one begins, if there is more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T, C> {
    /// The rows.
    pub items: Vec<T>,
    /// The cursor to go on with.
    pub next: Option<C>,
}

impl<T, C> Page<T, C> {
    /// The first `limit` of `items`, which were read one beyond the limit.
    fn cut(mut items: Vec<T>, limit: usize, cursor: impl Fn(&T) -> C) -> Self {
        let more = items.len() > limit;
        items.truncate(limit);
        let next = items.last().filter(|_| more).map(cursor);
        Page { items, next }
    }
}

/// A revision of an object with the transaction that wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    /// The transaction's tid, the revision's serial.
    pub tid: Tid,
    /// The revision.
    pub record: Record,
    /// The transaction.
    pub transaction: Transaction,
}

/// The revisions of `oid` older than `before`, newest first, at most `limit`.
pub fn history(
    view: &dyn View,
    oid: Oid,
    before: Option<Tid>,
    limit: usize,
) -> Result<Page<History, Tid>, Fault> {
    let mut range = Range::within(&oid);
    if let Some(before) = before {
        range = range.after(&(oid, Newest(before)));
    }
    let rows = RECORDS.list(view, &range, limit.saturating_add(1))?;
    let rows: Result<Vec<_>, Fault> = rows
        .into_iter()
        .map(|((_, Newest(tid)), record)| {
            let transaction = TRANSACTIONS.expect(view, &tid)?;
            Ok(History {
                tid,
                record,
                transaction,
            })
        })
        .collect();
    Ok(Page::cut(rows?, limit, |row| row.tid))
}

/// The transaction `tid`.
pub fn transaction(view: &dyn View, tid: Tid) -> Result<Option<Transaction>, Fault> {
    TRANSACTIONS.get(view, &tid)
}

/// Transactions with their tids.
pub type TransactionListing = Page<(Tid, Transaction), Tid>;

/// The transactions beyond `from` in `order`, at most `limit`.
pub fn transactions(
    view: &dyn View,
    from: Option<Tid>,
    order: Order,
    limit: usize,
) -> Result<TransactionListing, Fault> {
    let range = match (from, order) {
        (None, _) => Range::all(),
        (Some(from), Order::Ascending) => Range::all().after(&from),
        (Some(from), Order::Descending) => Range::all().below(&from),
    };
    let mut rows = Vec::new();
    TRANSACTIONS.scan(view, &range, order, |tid, transaction| {
        rows.push((tid, transaction));
        Ok(if rows.len() > limit {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        })
    })?;
    Ok(Page::cut(rows, limit, |(tid, _)| *tid))
}

/// What transaction `tid` wrote, in order of oid; `None` where there is no such transaction.
pub fn writes(view: &dyn View, tid: Tid) -> Result<Option<Vec<(Oid, Record)>>, Fault> {
    let Some(oids) = WRITES.get(view, &tid)? else {
        return Ok(None);
    };
    let record = |oid| Ok((oid, RECORDS.expect(view, &(oid, Newest(tid)))?));
    oids.into_iter()
        .map(record)
        .collect::<Result<_, Fault>>()
        .map(Some)
}

/// Objects with their current serials and records.
pub type ObjectListing = Page<(Oid, Tid, Record), Oid>;

/// How many deleted objects a listing passes over, for each row of its limit, before it hands back a short page.
const SKIPS_PER_ROW: usize = 8;

/// The objects that exist now, after `after`, at most `limit`. A page may be short, even empty, and have a next one.
pub fn objects(view: &dyn View, after: Option<Oid>, limit: usize) -> Result<ObjectListing, Fault> {
    let mut page = Page {
        items: Vec::new(),
        next: after,
    };
    let mut steps = limit.saturating_mul(SKIPS_PER_ROW).max(1);
    while page.items.len() < limit && steps > 0 {
        steps -= 1;
        // The newest revision of the first object after the last one seen.
        let range = match page.next {
            Some(Oid(u64::MAX)) => break,
            Some(Oid(oid)) => Range::all().at_least(&Oid(oid + 1)),
            None => Range::all(),
        };
        let Some(((oid, Newest(tid)), record)) = RECORDS.list(view, &range, 1)?.pop() else {
            page.next = None;
            return Ok(page);
        };
        page.next = Some(oid);
        if record.size.is_some() {
            page.items.push((oid, tid, record));
        }
    }
    Ok(page)
}
