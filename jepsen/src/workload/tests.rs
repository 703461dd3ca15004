//! What holds for every workload.

use super::*;

/// What nobody asks for before something was answered.
const WAIT_FOR_ANSWERS: [&str; 6] = ["read-again", "read-past", "renew", "write", "release", "compact"];

fn seat(seed: u64, client: u64) -> Seat {
    Seat {
        seed,
        client,
        clients: 12,
    }
}

/// The first demands of a client that nobody answers.
fn demands(workload: &dyn Workload, seat: Seat) -> Vec<Demand> {
    let mut script = workload.script(seat);
    let demands = (0..300).map(|_| {
        let demand = script.next();
        script.learn(&demand, &Answer::none("not asked", demand.writes));
        demand
    });
    demands.collect()
}

#[test]
fn demands_come_from_the_seed() {
    let dir = tempfile::tempdir().expect("a directory");
    for (name, _) in NAMES {
        let workload = named(name, dir.path()).expect("a workload");
        assert_eq!(workload.name(), *name);
        let once = demands(&*workload, seat(7, 3));
        assert_eq!(
            once,
            demands(&*workload, seat(7, 3)),
            "{name} draws from elsewhere"
        );
        assert_ne!(once, demands(&*workload, seat(8, 3)), "{name} ignores the seed");
        let kinds: std::collections::BTreeSet<_> = once.iter().map(|demand| demand.f).collect();
        for kind in workload.kinds() {
            let waits = WAIT_FOR_ANSWERS.contains(kind);
            assert!(waits || kinds.contains(kind), "{name} never asks for {kind}");
        }
    }
}
