use super::types::*;
use crate::command::Context;
use crate::store::Fault;
use crate::txn::Txn;
use serde::{Deserialize, Serialize};

/// What happened to key-value pairs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// A key was put.
    Put {
        /// Where.
        key: Key,
        /// What.
        #[serde(with = "crate::bytes_field")]
        value: Vec<u8>,
    },
    /// A key was deleted.
    Deleted {
        /// Which.
        key: Key,
    },
}

impl Event {
    /// The key that changed.
    pub fn key(&self) -> &Key {
        match self {
            Event::Put { key, .. } | Event::Deleted { key } => key,
        }
    }
}

pub(crate) fn evolve(txn: &mut Txn<'_>, ctx: &Context, event: &Event) -> Result<(), Fault> {
    match event {
        Event::Put { key, value } => {
            let before = PAIRS.get(txn, &key.0)?;
            let created = before.as_ref().map_or(ctx.revision, |pair| pair.created);
            let version = before.map_or(0, |pair| pair.version) + 1;
            let pair = Pair {
                value: value.clone(),
                created,
                modified: ctx.revision,
                version,
            };
            PAIRS.put(txn, &key.0, &pair);
        }
        Event::Deleted { key } => PAIRS.delete(txn, &key.0),
    }
    Ok(())
}
