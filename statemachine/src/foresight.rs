//! Which rows a command is going to read, as far as it says so itself: a store reads many rows together in less time
//! than one by one.

use crate::command::{Command, Envelope};
use crate::replies;
use crate::services;

/// Of one command, no more keys than this: what goes beyond is read when it is asked for, if it is not refused.
const KEYS_MAX: usize = 4096;

/// The keys of rows that rehearsing `command` reads. There may be others; it changes nothing where one is not read.
pub fn of_command(command: &Command) -> impl Iterator<Item = Vec<u8>> {
    let commands = match command {
        Command::Batch(commands) => commands,
        command => std::slice::from_ref(command),
    };
    let pairs = commands.iter().filter_map(|command| match command {
        Command::Kv(command) => Some(command),
        _ => None,
    });
    pairs.flat_map(services::kv::foresee).take(KEYS_MAX)
}

/// The keys of rows that applying `envelope` reads: that of its reply, and those of its command.
pub fn of_envelope(envelope: &Envelope) -> impl Iterator<Item = Vec<u8>> {
    let reply = replies::key(envelope.command_id);
    std::iter::once(reply).chain(of_command(&envelope.command))
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
        let foreseen: Vec<_> = of_envelope(&envelope).collect();
        assert_eq!(foreseen.len(), 6);
        let watched = Watched::default();
        apply::apply_envelope(&mut Txn::new(&watched), Revision(1), envelope).expect("applies");
        let read = watched.read.into_inner();
        for key in foreseen {
            assert!(read.contains(&key), "{key:02x?} is not read");
        }
    }
    #[test]
    fn of_more_than_a_command_takes_it_foresees_no_more() {
        let ops = (0..KEYS_MAX * 2).map(|number| Op::Get(Key(number.to_string().into())));
        let command = Command::Kv(kv::Command::Txn {
            compares: Vec::new(),
            then: ops.collect(),
            otherwise: Vec::new(),
        });
        assert_eq!(of_command(&command).count(), KEYS_MAX);
    }
}
