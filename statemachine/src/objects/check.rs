//! What always holds of objects.

use super::query;
use super::tid::Newest;
use super::types::*;
use crate::check::Violation;
use crate::store::{Fault, Order, View};
use crate::table::Range;
use std::ops::ControlFlow;

/// Every revision belongs to one transaction, has its bytes, and is counted.
pub(crate) fn check(view: &dyn View, violations: &mut Vec<Violation>) -> Result<(), Fault> {
    let mut broken = |what: String| violations.push(Violation::new("objects", what));
    let mut actual = Head::default();
    let [mut transactions, mut written, mut records] = [0u64; 3];
    TRANSACTIONS.scan(view, &Range::all(), Order::Ascending, |tid, transaction| {
        let oids = WRITES.expect(view, &tid)?;
        if oids.len() as u64 != u64::from(transaction.writes) || !oids.is_sorted_by(|a, b| a < b) {
            broken(format!("transaction {tid} does not know what it wrote: {oids:?}"));
        }
        for oid in oids {
            let record = RECORDS.get(view, &(oid, Newest(tid)))?;
            if record.is_none_or(|record| record.created != transaction.created) {
                broken(format!(
                    "transaction {tid} did not write object {oid} as it says: {record:?}"
                ));
            }
            written += 1;
        }
        transactions += 1;
        actual.tid = tid;
        Ok(ControlFlow::Continue(()))
    })?;
    let mut last = None;
    RECORDS.scan(view, &Range::all(), Order::Ascending, |(oid, tid), record| {
        let bytes = BYTES.get(view, &(oid, tid))?.map(|bytes| bytes.0.len() as u64);
        if bytes != record.size {
            broken(format!(
                "object {oid} at {} has {bytes:?} bytes, and {record:?}",
                tid.0
            ));
        }
        if last != Some(oid) {
            actual.objects += u64::from(record.size.is_some());
        }
        records += 1;
        last = Some(oid);
        actual.oid = oid;
        Ok(ControlFlow::Continue(()))
    })?;
    let head = query::head(view)?;
    if (head.tid, head.objects) != (actual.tid, actual.objects) || head.oid < actual.oid {
        broken(format!("the head is {head:?}; the rows make it {actual:?}"));
    }
    let listings = WRITES.list(view, &Range::all(), usize::MAX)?.len() as u64;
    if transactions != listings || written != records {
        broken(format!(
            "there are {transactions} transactions, {listings} lists of what they wrote, {written} entries in these, \
             and {records} revisions"
        ));
    }
    Ok(())
}
