//! Reads, and the whole table of transitions.

use super::*;
use crate::command::{Context, Stop};
use crate::ids::{Actor, Millis, Revision};
use crate::store::MemoryStore;
use crate::txn::Txn;

fn context() -> Context {
    Context {
        revision: Revision(1),
        now: Millis(1000),
        actor: Actor::new("test"),
    }
}

fn spec(serial: &str, rack: u32, role: &str, labels: &[(&str, &str)]) -> Spec {
    let pair = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    Spec {
        serial: Serial::new(serial),
        rack,
        index: None,
        role: role.to_owned(),
        labels: labels.iter().map(pair).collect(),
        macs: Vec::new(),
        bmc: None,
    }
}

fn run(store: &mut MemoryStore, command: &Command) {
    let accepted = decide(store, &context(), command).expect("it is right");
    let mut txn = Txn::new(store);
    for event in &accepted.events {
        evolve(&mut txn, &context(), event).expect("what was decided evolves");
    }
    let changes = txn.into_changes();
    store.write(changes);
}

fn store() -> MemoryStore {
    let mut store = MemoryStore::default();
    let mut machines = vec![
        spec("a", 0, "boot", &[]),
        spec("b", 0, "worker", &[("zone", "1"), ("gpu", "")]),
        spec("c", 1, "worker", &[("zone", "2")]),
        spec("d", 1, "storage", &[("zone", "3")]),
    ];
    machines[1].macs.push(MacAddress([2, 0, 0, 0, 0, 1]));
    machines[2].bmc = Some(BmcSpec {
        kind: "redfish".to_owned(),
        address: Some([10, 0, 0, 1].into()),
    });
    run(&mut store, &Command::Register { machines });
    run(
        &mut store,
        &Command::SetState {
            serial: Serial::new("b"),
            state: State::Healthy,
            reason: String::new(),
            expect: None,
        },
    );
    store
}

#[test]
fn selectors_choose_by_fields_and_labels() {
    let store = store();
    for (text, expected) in [
        ("", "abcd"),
        ("role=worker", "bc"),
        ("role!=worker", "ad"),
        ("rack=1,role=worker", "c"),
        ("state=healthy", "b"),
        ("state notin (healthy, retired)", "acd"),
        ("serial=d", "d"),
        ("serial=d,rack=0", ""),
        ("serial in (a, d)", "ad"),
        ("index=0", "a"),
        ("zone", "bcd"),
        ("!zone", "a"),
        ("gpu", "b"),
        ("gpu=", "b"),
        ("zone in (1, 3)", "bd"),
        ("zone notin (1, 3)", "ac"),
        ("zone!=2", "abd"),
        ("zone=4", ""),
    ] {
        let selector = Selector::parse(text).expect(text);
        let listing = list(&store, &selector, None, 10).expect("memory never fails");
        let chosen: String = listing
            .machines
            .iter()
            .map(|machine| machine.serial.0.as_str())
            .collect();
        assert_eq!(chosen, expected, "{text}");
        assert_eq!(listing.next, None);
    }
}

#[test]
fn pages_come_one_after_the_other() {
    let store = store();
    let selector = Selector::parse("role!=boot").expect("it is one");
    let mut pages = Vec::new();
    let mut after = None;
    loop {
        let page = list(&store, &selector, after.as_ref(), 1).expect("memory never fails");
        pages.extend(page.machines.into_iter().map(|machine| machine.serial.0));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(pages, ["b", "c", "d"]);
}

#[test]
fn machines_are_found_by_what_is_theirs_alone() {
    let store = store();
    let serial =
        |machine: Result<Option<Machine>, _>| machine.expect("memory never fails").map(|it| it.serial.0);
    assert_eq!(
        serial(by_mac(&store, MacAddress([2, 0, 0, 0, 0, 1]))).as_deref(),
        Some("b")
    );
    assert_eq!(serial(by_mac(&store, MacAddress([2, 0, 0, 0, 0, 2]))), None);
    assert_eq!(
        serial(by_address(&store, [10, 0, 0, 1].into())).as_deref(),
        Some("c")
    );
    assert_eq!(serial(by_address(&store, [10, 0, 0, 2].into())), None);
}

/// Written out once more, apart from the code: what sabakan's documentation draws.
const TRANSITIONS: [(State, &str); 7] = [
    (State::Uninitialized, "healthy retiring"),
    (State::Healthy, "unhealthy unreachable updating retiring"),
    (State::Unhealthy, "healthy unreachable updating retiring"),
    (State::Unreachable, "healthy unhealthy updating retiring"),
    (State::Updating, "uninitialized"),
    (State::Retiring, "retired"),
    (State::Retired, "uninitialized"),
];

#[test]
fn only_the_transitions_of_the_table_are_accepted() {
    for (from, allowed) in TRANSITIONS {
        for to in State::ALL {
            let mut store = store();
            let serial = Serial::new("a");
            let mut machine = get(&store, &serial)
                .expect("memory never fails")
                .expect("it was registered");
            machine.status.state = from;
            let mut txn = Txn::new(&store);
            MACHINES.put(&mut txn, &serial.0, &machine);
            let changes = txn.into_changes();
            store.write(changes);
            let command = Command::SetState {
                serial: serial.clone(),
                state: to,
                reason: String::new(),
                expect: None,
            };
            let expected = if from == to {
                Ok(0)
            } else if allowed.split(' ').any(|name| name == to.name()) {
                Ok(1)
            } else {
                Err(Stop::Refuse(Refusal::Transition { serial, from, to }))
            };
            let decided = decide(&store, &context(), &command).map(|accepted| accepted.events.len());
            assert_eq!(decided, expected, "{from} to {to}");
        }
    }
}
