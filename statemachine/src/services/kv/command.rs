use super::types::*;
use super::{Event, query};
use crate::command::{self, Accepted, Context, Decision, Stop};
use crate::ids::Revision;
use crate::store::{Fault, View};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Demands on key-value pairs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Put one key.
    Put {
        /// Where.
        key: Key,
        /// What.
        #[serde(with = "crate::bytes_field")]
        value: Vec<u8>,
        /// Only if the key's modified revision is this; 0 for "does not exist".
        expect: Option<Revision>,
    },
    /// Delete keys.
    Delete {
        /// Which.
        keys: Selection,
        /// Only if the modified revision of the one key is this.
        expect: Option<Revision>,
    },
    /// Compare, then do one thing or the other.
    Txn {
        /// All of these must hold for `then`.
        compares: Vec<Compare>,
        /// Done when they hold.
        then: Vec<Op>,
        /// Done when they do not.
        otherwise: Vec<Op>,
    },
}

/// Why a demand on key-value pairs is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// A key that is empty or too long.
    #[error("key has {length} bytes; it takes 1 to {KEY_BYTES_MAX}")]
    KeyLength {
        /// Its length in bytes.
        length: usize,
    },
    /// A value that is too large.
    #[error("value of key `{key}` has {length} bytes; the most is {VALUE_BYTES_MAX}")]
    ValueLength {
        /// Whose.
        key: Key,
        /// Its length in bytes.
        length: usize,
    },
    /// A compare-and-set lost.
    #[error("key `{key}` was last modified at revision {actual}, not at {expected}")]
    RevisionMismatch {
        /// Whose.
        key: Key,
        /// What the caller had read.
        expected: Revision,
        /// What is there; 0 where nothing is.
        actual: Revision,
    },
    /// A precondition on a prefix.
    #[error("an expected revision goes with one key, not with a prefix")]
    ExpectWithPrefix,
    /// A transaction that is too long.
    #[error("a transaction has {count} {what}; the most is {TXN_OPS_MAX}")]
    TxnLength {
        /// Conditions or operations.
        what: TxnPart,
        /// How many there were.
        count: usize,
    },
    /// Two puts of one key.
    #[error("key `{key}` is put twice in one transaction")]
    DuplicateKey {
        /// Which.
        key: Key,
    },
    /// A deletion of more keys than one revision takes.
    #[error("the deletion covers more than {max} keys; delete a longer prefix at a time")]
    DeleteTooWide {
        /// The most that one command deletes.
        max: usize,
    },
}

/// The countable parts of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum TxnPart {
    /// Conditions.
    Compares,
    /// Operations of a branch.
    Operations,
}

impl std::fmt::Display for TxnPart {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            TxnPart::Compares => "compares",
            TxnPart::Operations => "operations",
        })
    }
}

/// The most keys that one command deletes.
pub(super) const DELETE_KEYS_MAX: usize = 10_000;

fn refuse<T>(refusal: Refusal) -> Result<T, Stop<Refusal>> {
    Err(Stop::Refuse(refusal))
}

/// Decides a demand on key-value pairs.
pub fn decide(view: &dyn View, _ctx: &Context, command: &Command) -> Decision<Event, Refusal> {
    match command {
        Command::Put { key, value, expect } => {
            check_put(key, value)?;
            check_expected(view, key, *expect)?;
            Ok(Accepted::event(Event::Put {
                key: key.clone(),
                value: value.clone(),
            }))
        }
        Command::Delete { keys, expect } => {
            match (keys, expect) {
                (Selection::Key(key), expect) => check_expected(view, key, *expect)?,
                (Selection::Prefix(_), Some(_)) => return refuse(Refusal::ExpectWithPrefix),
                (Selection::Prefix(_), None) => {}
            }
            let mut branch = Branch::new(view);
            let count = branch.delete(keys)?;
            let reply = command::Reply::Kv(Reply::Deleted { count });
            Ok(Accepted {
                events: branch.events,
                reply,
            })
        }
        Command::Txn {
            compares,
            then,
            otherwise,
        } => decide_txn(view, compares, then, otherwise),
    }
}

fn decide_txn(
    view: &dyn View,
    compares: &[Compare],
    then: &[Op],
    otherwise: &[Op],
) -> Decision<Event, Refusal> {
    let counts = [
        (TxnPart::Compares, compares.len()),
        (TxnPart::Operations, then.len()),
        (TxnPart::Operations, otherwise.len()),
    ];
    for (what, count) in counts {
        if count > TXN_OPS_MAX {
            return refuse(Refusal::TxnLength { what, count });
        }
    }
    let mut succeeded = true;
    for compare in compares {
        check_key(&compare.key)?;
        succeeded = succeeded && holds(compare, query::get(view, &compare.key)?.as_ref());
    }
    // Both branches are checked, so that a malformed one is found the first time it is sent and not the first time it
    // runs.
    for branch in [then, otherwise] {
        check_branch(branch)?;
    }
    let mut branch = Branch::new(view);
    let mut results = Vec::new();
    for op in if succeeded { then } else { otherwise } {
        results.push(match op {
            Op::Get(key) => OpResult::Got(branch.get(key)?),
            Op::Put { key, value } => {
                branch.events.push(Event::Put {
                    key: key.clone(),
                    value: value.clone(),
                });
                branch.pending.insert(key.0.clone(), Some(value.clone()));
                OpResult::Put
            }
            Op::Delete(keys) => OpResult::Deleted(branch.delete(keys)?),
        });
    }
    let reply = command::Reply::Kv(Reply::Txn { succeeded, results });
    Ok(Accepted {
        events: branch.events,
        reply,
    })
}

/// The branch of a transaction as it runs: what its operations so far would have written.
struct Branch<'a> {
    view: &'a dyn View,
    pending: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    events: Vec<Event>,
}

impl<'a> Branch<'a> {
    fn new(view: &'a dyn View) -> Self {
        Branch {
            view,
            pending: BTreeMap::new(),
            events: Vec::new(),
        }
    }

    fn get(&self, key: &Key) -> Result<Option<Pair>, Fault> {
        let stored = query::get(self.view, key)?;
        Ok(match self.pending.get(&key.0) {
            None => stored,
            Some(None) => None,
            // The revision is the one being made; the caller learns it from the outcome and sees 0 here.
            Some(Some(value)) => Some(Pair {
                value: value.clone(),
                created: stored.as_ref().map_or(Revision(0), |pair| pair.created),
                modified: Revision(0),
                version: stored.map_or(0, |pair| pair.version) + 1,
            }),
        })
    }

    fn delete(&mut self, keys: &Selection) -> Result<u64, Stop<Refusal>> {
        let mut doomed = match keys {
            Selection::Key(key) => {
                check_key(key)?;
                self.get(key)?.map(|_| key.clone()).into_iter().collect()
            }
            Selection::Prefix(prefix) => {
                let mut doomed = query::keys_with_prefix(self.view, prefix, DELETE_KEYS_MAX + 1)?;
                doomed.retain(|key| self.pending.get(&key.0).is_none_or(Option::is_some));
                let put = self
                    .pending
                    .iter()
                    .filter(|(key, value)| key.starts_with(prefix) && value.is_some());
                doomed.extend(put.map(|(key, _)| Key(key.clone())));
                doomed
            }
        };
        doomed.sort();
        doomed.dedup();
        if doomed.len() > DELETE_KEYS_MAX {
            return refuse(Refusal::DeleteTooWide { max: DELETE_KEYS_MAX });
        }
        for key in &doomed {
            self.pending.insert(key.0.clone(), None);
            self.events.push(Event::Deleted { key: key.clone() });
        }
        Ok(doomed.len() as u64)
    }
}

fn check_branch(ops: &[Op]) -> Result<(), Stop<Refusal>> {
    let mut put = std::collections::BTreeSet::new();
    for op in ops {
        match op {
            Op::Get(key) | Op::Delete(Selection::Key(key)) => check_key(key)?,
            Op::Delete(Selection::Prefix(_)) => {}
            Op::Put { key, value } => {
                check_put(key, value)?;
                if !put.insert(key) {
                    return refuse(Refusal::DuplicateKey { key: key.clone() });
                }
            }
        }
    }
    Ok(())
}

fn check_key(key: &Key) -> Result<(), Stop<Refusal>> {
    let length = key.0.len();
    if (1..=KEY_BYTES_MAX).contains(&length) {
        Ok(())
    } else {
        refuse(Refusal::KeyLength { length })
    }
}

fn check_put(key: &Key, value: &[u8]) -> Result<(), Stop<Refusal>> {
    check_key(key)?;
    if value.len() > VALUE_BYTES_MAX {
        return refuse(Refusal::ValueLength {
            key: key.clone(),
            length: value.len(),
        });
    }
    Ok(())
}

fn check_expected(view: &dyn View, key: &Key, expect: Option<Revision>) -> Result<(), Stop<Refusal>> {
    let Some(expected) = expect else { return Ok(()) };
    let actual = query::get(view, key)?.map_or(Revision(0), |pair| pair.modified);
    if actual == expected {
        return Ok(());
    }
    refuse(Refusal::RevisionMismatch {
        key: key.clone(),
        expected,
        actual,
    })
}

fn holds(compare: &Compare, pair: Option<&Pair>) -> bool {
    let ordering = match &compare.target {
        Target::Modified(revision) => pair.map_or(Revision(0), |pair| pair.modified).cmp(revision),
        Target::Created(revision) => pair.map_or(Revision(0), |pair| pair.created).cmp(revision),
        Target::Version(version) => pair.map_or(0, |pair| pair.version).cmp(version),
        Target::Value(value) => pair.map(|pair| &pair.value).cmp(&Some(value)),
    };
    match compare.relation {
        Relation::Equal => ordering.is_eq(),
        Relation::NotEqual => ordering.is_ne(),
        Relation::Greater => ordering.is_gt(),
        Relation::Less => ordering.is_lt(),
    }
}
