//! Which keys clients meet on, and for how long: a few at a time, so that they contend, and each only for so many
//! operations, so that its history stays short enough to be judged.

/// How many operations one key sees, about.
const OPERATIONS_PER_KEY: u64 = 200;
/// How many clients meet on one key.
const CLIENTS_PER_KEY: u64 = 4;

/// The keys of one client.
#[derive(Debug, Clone)]
pub(super) struct Rounds {
    group: u64,
    groups: u64,
    per_client: u64,
    done: u64,
}

impl Rounds {
    pub(super) fn new(seat: super::Seat) -> Self {
        let groups = (seat.clients / CLIENTS_PER_KEY).max(1);
        let members = seat.clients.div_ceil(groups);
        Rounds {
            group: seat.client % groups,
            groups,
            per_client: (OPERATIONS_PER_KEY / members).max(1),
            done: 0,
        }
    }

    /// The number of the key for the next operation.
    pub(super) fn next(&mut self) -> u64 {
        let round = self.done / self.per_client;
        self.done += 1;
        round * self.groups + self.group
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::Seat;
    use std::collections::BTreeMap;

    #[test]
    fn every_key_sees_about_so_many_operations_of_several_clients() {
        let mut seen: BTreeMap<u64, u64> = BTreeMap::new();
        for client in 0..12 {
            let seat = Seat {
                seed: 1,
                client,
                clients: 12,
            };
            let mut rounds = Rounds::new(seat);
            for _ in 0..500 {
                *seen.entry(rounds.next()).or_default() += 1;
            }
        }
        assert_eq!(seen.len(), 30);
        assert!(
            seen.values().all(|count| *count == OPERATIONS_PER_KEY),
            "{seen:?}"
        );
    }
}
