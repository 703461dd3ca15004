//! Reads against a model that keeps every revision in a list.

use super::*;
use crate::command::{Context, Stop};
use crate::ids::{Actor, Millis, Revision};
use crate::store::{MemoryStore, Order};
use crate::txn::Txn;
use proptest::prelude::*;
use std::collections::BTreeMap;

/// The revisions of each object, oldest first.
type Model = BTreeMap<Oid, Vec<(Tid, Content)>>;

/// What a step writes: the oid, the content, and which serial it says that it read.
type Step = Vec<(u64, Option<Vec<u8>>, Read)>;

#[derive(Debug, Clone, Copy)]
enum Read {
    Current,
    Nothing,
    Stale,
}

fn steps() -> impl Strategy<Value = Vec<(u64, Step)>> {
    let bytes = prop::collection::vec(any::<u8>(), 0..4);
    let read = prop_oneof![9 => Just(Read::Current), 1 => Just(Read::Nothing), 1 => Just(Read::Stale)];
    let write = (0u64..5, prop::option::weighted(0.7, bytes), read);
    let pause_ms = prop_oneof![Just(0u64), Just(1), Just(70_000)];
    prop::collection::vec((pause_ms, prop::collection::vec(write, 1..4)), 1..20)
}

fn serial(model: &Model, oid: Oid) -> Tid {
    model
        .get(&oid)
        .and_then(|revisions| revisions.last())
        .map_or(Tid::NONE, |(tid, _)| *tid)
}

fn exists(model: &Model, oid: Oid) -> bool {
    let newest = model.get(&oid).and_then(|revisions| revisions.last());
    newest.is_some_and(|(_, content)| *content != Content::Deleted)
}

/// The command of a step, and whether it is right.
fn command(model: &Model, step: &Step) -> (Command, bool) {
    let mut writes: BTreeMap<Oid, Write> = BTreeMap::new();
    let mut right = true;
    for (oid, bytes, read) in step {
        let oid = Oid(*oid);
        let content = bytes.clone().map_or(Content::Deleted, Content::Bytes);
        let read = match read {
            Read::Current => serial(model, oid),
            Read::Nothing => Tid::NONE,
            Read::Stale => Tid(1),
        };
        writes.insert(oid, Write { oid, read, content });
    }
    for write in writes.values() {
        let there = exists(model, write.oid);
        right &= write.read == serial(model, write.oid) || (write.read == Tid::NONE && !there);
        right &= there || write.content != Content::Deleted;
    }
    let command = Command::Commit {
        metadata: Metadata::default(),
        writes: writes.into_values().collect(),
        checks: Vec::new(),
    };
    (command, right)
}

/// Plays `steps` on the state machine and on the model.
fn play(steps: &[(u64, Step)]) -> Result<(MemoryStore, Model, Vec<Tid>), TestCaseError> {
    let mut store = MemoryStore::default();
    let mut model = Model::new();
    let mut tids = Vec::new();
    let mut now = Millis(1_767_323_045_500);
    for (place, (pause_ms, step)) in steps.iter().enumerate() {
        now = now.plus(*pause_ms);
        let ctx = Context {
            revision: Revision(place as u64 + 1),
            now,
            actor: Actor::new("test"),
        };
        let (command, right) = command(&model, step);
        let accepted = match decide(&store, &ctx, &command) {
            Ok(accepted) => accepted,
            Err(Stop::Fault(fault)) => panic!("{fault}"),
            Err(Stop::Refuse(refusal)) => {
                prop_assert!(!right, "{refusal}");
                continue;
            }
        };
        prop_assert!(right, "{command:?} was accepted");
        let mut txn = Txn::new(&store);
        for event in &accepted.events {
            evolve(&mut txn, &ctx, event).expect("what was decided evolves");
            let Event::Committed { tid, writes, .. } = event else {
                continue;
            };
            tids.push(*tid);
            for Written { oid, content } in writes {
                model.entry(*oid).or_default().push((*tid, content.clone()));
            }
        }
        let changes = txn.into_changes();
        store.write(changes);
    }
    Ok((store, model, tids))
}

/// What the model has for a reader whose snapshot is `tid`.
fn expected(model: &Model, oid: Oid, tid: Tid) -> Load {
    let Some(revisions) = model.get(&oid) else {
        return Load::Unknown;
    };
    let seen = revisions.partition_point(|(serial, _)| *serial <= tid);
    let next = revisions.get(seen).map(|(tid, _)| *tid);
    match seen.checked_sub(1).map(|newest| revisions[newest].clone()) {
        None => Load::NotYet,
        Some((serial, Content::Deleted)) => Load::Deleted { serial, next },
        Some((serial, Content::Bytes(bytes))) => Load::Found { serial, next, bytes },
    }
}

proptest! {
    #[test]
    fn every_snapshot_reads_as_it_was(steps in steps()) {
        let (store, model, tids) = play(&steps)?;
        prop_assert!(tids.is_sorted_by(|a, b| a < b), "{tids:?}");
        let around = tids.iter().flat_map(|tid| [tid.0 - 1, tid.0, tid.0 + 1]).map(Tid);
        for tid in around.chain([Tid::NONE, Tid::MAX, Tid(u64::MAX)]) {
            for oid in (0..6).map(Oid) {
                let wanted = expected(&model, oid, tid);
                prop_assert_eq!(load_at(&store, oid, tid).expect("sound"), wanted.clone(), "{} at {}", oid, tid);
                if let Some(after) = tid.0.checked_add(1).map(Tid) {
                    prop_assert_eq!(load_before(&store, oid, after).expect("sound"), wanted);
                }
            }
        }
        let mut violations = Vec::new();
        check(&store, &mut violations).expect("sound");
        prop_assert_eq!(violations, []);
    }

    #[test]
    fn pages_join_to_the_whole(steps in steps(), limit in 1usize..4) {
        let (store, model, tids) = play(&steps)?;
        for (oid, revisions) in &model {
            let (mut seen, mut before) = (Vec::new(), None);
            loop {
                let page = history(&store, *oid, before, limit).expect("sound");
                seen.extend(page.items.iter().map(|row| (row.tid, row.record.size)));
                before = page.next;
                if before.is_none() { break; }
            }
            let newest_first = revisions.iter().rev();
            let wanted: Vec<_> = newest_first.map(|(tid, content)| (*tid, content.size().map(|n| n as u64))).collect();
            prop_assert_eq!(seen, wanted);
        }
        for order in [Order::Ascending, Order::Descending] {
            let (mut seen, mut from) = (Vec::new(), None);
            loop {
                let page = transactions(&store, from, order, limit).expect("sound");
                seen.extend(page.items.iter().map(|(tid, _)| *tid));
                from = page.next;
                if from.is_none() { break; }
            }
            if order == Order::Descending { seen.reverse(); }
            prop_assert_eq!(&seen, &tids);
        }
        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let page = objects(&store, after, limit).expect("sound");
            seen.extend(page.items.iter().map(|(oid, serial, _)| (*oid, *serial)));
            after = page.next;
            if after.is_none() { break; }
        }
        let live = model.keys().filter(|oid| exists(&model, **oid));
        let wanted: Vec<_> = live.map(|oid| (*oid, serial(&model, *oid))).collect();
        prop_assert_eq!(&seen, &wanted);
        prop_assert_eq!(head(&store).expect("sound").objects, seen.len() as u64);
    }

    #[test]
    fn a_transaction_knows_what_it_wrote(steps in steps()) {
        let (store, model, tids) = play(&steps)?;
        for tid in tids {
            let wrote = writes(&store, tid).expect("sound").expect("it was committed");
            for (oid, record) in &wrote {
                let content = model[oid].iter().find(|(serial, _)| *serial == tid).map(|(_, content)| content);
                prop_assert_eq!(record.size, content.and_then(Content::size).map(|size| size as u64));
                let bytes = load_serial(&store, *oid, tid).expect("sound");
                let found = bytes.map_or(Content::Deleted, Content::Bytes);
                prop_assert_eq!(Some(&found), content);
            }
            let metadata = transaction(&store, tid).expect("sound").expect("it was committed");
            prop_assert_eq!(metadata.writes as usize, wrote.len());
        }
        prop_assert_eq!(writes(&store, Tid(1)).expect("sound"), None);
    }
}

#[test]
fn a_listing_passes_over_many_deleted_objects_in_short_pages() {
    let many: Vec<(u64, Step)> = vec![
        (
            0,
            (0..40).map(|oid| (oid, Some(vec![1]), Read::Current)).collect(),
        ),
        (1, (0..39).map(|oid| (oid, None, Read::Current)).collect()),
    ];
    let (store, _, _) = play(&many).expect("it is right");
    let page = objects(&store, None, 1).expect("sound");
    assert_eq!((page.items.len(), page.next), (0, Some(Oid(7))));
    let page = objects(&store, Some(Oid(38)), 1).expect("sound");
    assert_eq!(page.items[0].0, Oid(39));
}
