use super::Command;
use super::types::*;
use crate::check::Violation;
use crate::store::{Fault, Order, View};
use crate::system;
use crate::table::Range;
use std::ops::ControlFlow;

/// The pair at `key`.
pub fn get(view: &dyn View, key: &Key) -> Result<Option<Pair>, Fault> {
    PAIRS.get(view, &key.0)
}

/// The keys of rows that the operations of `command` read, where they name them one by one and its conditions hold.
pub(crate) fn foresee(command: &Command) -> impl Iterator<Item = Vec<u8>> {
    let (key, ops): (Option<&Key>, &[Op]) = match command {
        Command::Put { key, .. } => (Some(key), &[]),
        Command::Delete { keys, .. } => (named(keys), &[]),
        Command::Txn { then, .. } => (None, then),
    };
    let of_ops = ops.iter().filter_map(|op| match op {
        Op::Get(key) | Op::Put { key, .. } => Some(key),
        Op::Delete(keys) => named(keys),
    });
    key.into_iter().chain(of_ops).map(|key| PAIRS.key(&key.0))
}

fn named(keys: &Selection) -> Option<&Key> {
    match keys {
        Selection::Key(key) => Some(key),
        Selection::Prefix(_) => None,
    }
}

/// Where a listing goes on: after this key.
pub type Cursor = Key;

/// One page of pairs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// In order of key.
    pub pairs: Vec<(Key, Pair)>,
    /// Where to go on, if there is more.
    pub next: Option<Cursor>,
}

/// The pairs whose keys begin with `prefix`, after `after`: at most `limit` of them, and no more than `bytes_max` of
/// values (but always one).
pub fn range(
    view: &dyn View,
    prefix: &[u8],
    after: Option<&Cursor>,
    limit: usize,
    bytes_max: usize,
) -> Result<Listing, Fault> {
    let mut selected = Range::prefix(prefix);
    if let Some(after) = after {
        selected = selected.after(&after.0);
    }
    let mut listing = Listing {
        pairs: Vec::new(),
        next: None,
    };
    let mut bytes = 0;
    PAIRS.scan(view, &selected, Order::Ascending, |key, pair| {
        bytes += key.len() + pair.value.len();
        if listing.pairs.len() == limit || (bytes > bytes_max && !listing.pairs.is_empty()) {
            listing.next = listing.pairs.last().map(|(key, _)| key.clone());
            return Ok(ControlFlow::Break(()));
        }
        listing.pairs.push((Key(key), pair));
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(listing)
}

pub(super) fn keys_with_prefix(view: &dyn View, prefix: &[u8], limit: usize) -> Result<Vec<Key>, Fault> {
    let rows = PAIRS.list(view, &Range::prefix(prefix), limit)?;
    Ok(rows.into_iter().map(|(key, _)| Key(key)).collect())
}

/// Keys and values are within their limits, and no pair is from the future.
pub(crate) fn check(view: &dyn View, violations: &mut Vec<Violation>) -> Result<(), Fault> {
    let now = system::clock(view)?.revision;
    PAIRS.scan(view, &Range::all(), Order::Ascending, |key, pair| {
        let sizes = (1..=KEY_BYTES_MAX).contains(&key.len()) && pair.value.len() <= VALUE_BYTES_MAX;
        if !sizes || pair.version == 0 || pair.created > pair.modified || pair.modified > now {
            let (created, modified, version) = (pair.created, pair.modified, pair.version);
            let bytes = pair.value.len();
            violations.push(Violation::new(
                "kv",
                format!(
                    "{}: {bytes} bytes, created {created}, modified {modified}, version {version}",
                    Key(key)
                ),
            ));
        }
        Ok(ControlFlow::Continue(()))
    })
}
