use super::tid::Newest;
use super::types::*;
use super::{Oid, Tid, query};
use crate::command::Context;
use crate::store::Fault;
use crate::txn::Txn;
use serde::{Deserialize, Serialize};

/// What happened to objects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// A transaction was committed.
    Committed {
        /// Its tid, the serial of all that it wrote.
        tid: Tid,
        /// What it says about itself.
        metadata: Metadata,
        /// What it wrote, in order of oid.
        writes: Vec<Written>,
    },
    /// Oids were given out.
    OidsAllocated {
        /// The first.
        first: Oid,
        /// How many.
        count: u32,
    },
}

pub(crate) fn evolve(txn: &mut Txn<'_>, ctx: &Context, event: &Event) -> Result<(), Fault> {
    let mut head = query::head(txn)?;
    match event {
        Event::OidsAllocated { first, count } => head.oid = Oid(first.0 + u64::from(*count) - 1),
        Event::Committed {
            tid,
            metadata,
            writes,
        } => {
            for Written { oid, content } in writes {
                let existed = query::current(txn, *oid)?.is_some_and(|(_, record)| record.size.is_some());
                head.objects = head.objects + u64::from(content.size().is_some()) - u64::from(existed);
                head.oid = head.oid.max(*oid);
                let key = (*oid, Newest(*tid));
                let record = Record {
                    size: content.size().map(|size| size as u64),
                    created: ctx.revision,
                };
                RECORDS.put(txn, &key, &record);
                if let Content::Bytes(bytes) = content {
                    BYTES.put(txn, &key, &Bytes(bytes.clone()));
                }
            }
            let transaction = Transaction {
                metadata: metadata.clone(),
                writes: writes.len() as u32,
                at: ctx.now,
                created: ctx.revision,
            };
            TRANSACTIONS.put(txn, tid, &transaction);
            let oids = writes.iter().map(|write| write.oid).collect();
            WRITES.put(txn, tid, &oids);
            head.tid = *tid;
        }
    }
    HEAD.put(txn, &(), &head);
    Ok(())
}
