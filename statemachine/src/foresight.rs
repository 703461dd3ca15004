//! Which rows a command is going to read, as far as it says so itself: a store reads many rows together in less time
//! than one by one.

use crate::command::{Command, Envelope};
use crate::replies;
use crate::services;

/// The keys of rows that rehearsing `command` reads. There may be others; it changes nothing where one is not read.
pub fn of_command(command: &Command) -> Vec<Vec<u8>> {
    let mut keys = Vec::new();
    collect(command, &mut keys);
    keys
}

/// The keys of rows that applying `envelope` reads: those of its command, and that of its reply.
pub fn of_envelope(envelope: &Envelope, keys: &mut Vec<Vec<u8>>) {
    keys.push(replies::key(envelope.command_id));
    collect(&envelope.command, keys);
}

fn collect(command: &Command, keys: &mut Vec<Vec<u8>>) {
    match command {
        Command::Batch(commands) => {
            for command in commands {
                collect(command, keys);
            }
        }
        Command::Kv(command) => services::kv::foresee(command, keys),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apply;
    use crate::ids::{Actor, CommandId, Millis, Revision};
    use crate::services::kv::{self, Key, Op, Selection};
    use crate::store::{Fault, MemoryStore, Order, View, Visit};
    use crate::txn::Txn;
    use std::cell::RefCell;
    use std::collections::BTreeSet;
    use uuid::Uuid;

    /// Remembers which keys were read.
    #[derive(Default)]
    struct Watched {
        store: MemoryStore,
        read: RefCell<BTreeSet<Vec<u8>>>,
    }

    impl View for Watched {
        fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Fault> {
            self.read.borrow_mut().insert(key.to_vec());
            self.store.get(key)
        }

        fn scan(&self, from: &[u8], to: &[u8], order: Order, visit: Visit<'_>) -> Result<(), Fault> {
            self.store.scan(from, to, order, visit)
        }
    }

    #[test]
    fn what_is_foreseen_of_pairs_is_read() {
        let key = |name: &str| Key(name.into());
        let put = |name: &str| Op::Put {
            key: key(name),
            value: vec![1],
        };
        let commands = vec![
            Command::Kv(kv::Command::Put {
                key: key("a"),
                value: vec![1],
                expect: None,
            }),
            Command::Kv(kv::Command::Delete {
                keys: Selection::Key(key("b")),
                expect: None,
            }),
            Command::Kv(kv::Command::Txn {
                compares: Vec::new(),
                then: vec![put("c"), Op::Get(key("d")), Op::Delete(Selection::Key(key("e")))],
                otherwise: Vec::new(),
            }),
        ];
        let envelope = Envelope {
            command_id: CommandId(Uuid::from_u128(7 << 76)),
            actor: Actor::new("test"),
            proposed_at: Millis(0),
            command: Command::Batch(commands),
        };
        let mut foreseen = Vec::new();
        of_envelope(&envelope, &mut foreseen);
        assert_eq!(foreseen.len(), 6);
        let watched = Watched::default();
        apply::apply_envelope(&mut Txn::new(&watched), Revision(1), envelope).expect("applies");
        let read = watched.read.into_inner();
        for key in foreseen {
            assert!(read.contains(&key), "{key:02x?} is not read");
        }
    }
}
