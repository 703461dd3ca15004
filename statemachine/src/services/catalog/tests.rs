//! Reads, page by page.

use super::*;
use crate::command::Context;
use crate::ids::{Actor, Millis, Revision};
use crate::store::MemoryStore;
use crate::txn::Txn;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

fn registration(service: &str, instance: &str, tags: &[&str], ttl_ms: Option<u64>) -> Registration {
    Registration {
        id: Id::new(service, instance),
        spec: Spec {
            address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            port: 80,
            port_name: None,
            tags: tags.iter().map(|tag| (*tag).to_owned()).collect::<BTreeSet<_>>(),
            weight: 1,
            priority: 0,
            metadata: BTreeMap::new(),
            ttl_ms,
            deregister_after_ms: None,
        },
        expect: None,
    }
}

fn run(store: &mut MemoryStore, revision: u64, now: u64, command: &Command) {
    let ctx = Context {
        revision: Revision(revision),
        now: Millis(now),
        actor: Actor::new("test"),
    };
    let accepted = decide(store, &ctx, command).expect("it is right");
    let mut txn = Txn::new(store);
    for event in &accepted.events {
        evolve(&mut txn, &ctx, event).expect("what was decided evolves");
    }
    let changes = txn.into_changes();
    store.write(changes);
}

/// `web` has `a`, `b` and `c`, of which `b` is critical; `web-2` has `a`, and so has `api`.
fn store() -> MemoryStore {
    let mut store = MemoryStore::default();
    let registrations = vec![
        registration("web", "a", &["blue", "v1"], Some(5000)),
        registration("web", "b", &["blue"], Some(2000)),
        registration("web", "c", &["green", "v1"], None),
        registration("web-2", "a", &[], Some(5000)),
        registration("api", "a", &[], None),
    ];
    run(&mut store, 1, 1000, &Command::Register { registrations });
    let critical = Command::SetHealth {
        id: Id::new("web", "b"),
        health: Health::Critical,
    };
    run(&mut store, 2, 1000, &critical);
    store
}

fn names(store: &MemoryStore, filter: &Filter, limit: usize) -> Vec<String> {
    let (mut names, mut after) = (Vec::new(), None::<Id>);
    loop {
        let after_instance = after.as_ref().map(|id| id.instance.as_str());
        let page = instances(store, "web", filter, after_instance, limit).expect("sound");
        assert!(page.instances.len() <= limit);
        names.extend(page.instances.into_iter().map(|(id, _)| id.instance));
        after = page.next;
        if after.is_none() {
            return names;
        }
    }
}

#[test]
fn instances_are_filtered_and_paged() {
    let store = store();
    let filter = |serving, tags: &[&str]| Filter {
        serving,
        tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
    };
    for limit in 1..5 {
        assert_eq!(names(&store, &filter(false, &[]), limit), ["a", "b", "c"]);
        assert_eq!(names(&store, &filter(true, &[]), limit), ["a", "c"]);
        assert_eq!(names(&store, &filter(false, &["blue"]), limit), ["a", "b"]);
        assert_eq!(names(&store, &filter(true, &["blue", "v1"]), limit), ["a"]);
        assert_eq!(names(&store, &filter(false, &["red"]), limit), [""; 0]);
    }
}

#[test]
fn services_are_summed_up_and_paged() {
    let store = store();
    let page = services(&store, None, 2).expect("sound");
    assert_eq!(
        page.services
            .iter()
            .map(|(name, _)| name.as_str())
            .collect::<Vec<_>>(),
        ["api", "web"]
    );
    let web = page.services[1].1;
    let wanted = Service {
        instances: 3,
        serving: 2,
        created: Revision(1),
        modified: Revision(2),
    };
    assert_eq!(web, wanted);
    let page = services(&store, page.next.as_deref(), 2).expect("sound");
    assert_eq!((page.services.len(), page.next), (1, None));
}

#[test]
fn all_instances_are_paged_across_services() {
    let store = store();
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let page = all(&store, after.as_ref(), 2).expect("sound");
        seen.extend(page.instances.iter().map(|(id, _)| id.to_string()));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(seen, ["api/a", "web/a", "web/b", "web/c", "web-2/a"]);
}

#[test]
fn deadlines_are_due_in_order() {
    let store = store();
    let due_at = |ms| due(&store, Millis(ms), None, 10).expect("sound");
    let shown = |due: Vec<Due>| due.iter().map(|due| due.id.to_string()).collect::<Vec<_>>();
    assert_eq!(shown(due_at(5999)), [""; 0], "the critical one has none");
    assert_eq!(shown(due_at(6000)), ["web/a", "web-2/a"]);
    let first = due(&store, Millis(u64::MAX), None, 1).expect("sound");
    assert_eq!(
        shown(due(&store, Millis(u64::MAX), first.first(), 10).expect("sound")),
        ["web-2/a"]
    );
}
