//! Whatever is read of an earlier revision is what was there then: from snapshots, from the base, through compaction,
//! crashes and installed snapshots.

use super::past::Made;
use super::tests::entry;
use super::*;
use crate::testing::copy_as_of_now;
use crate::types::Entry;
use futures::stream;
use onward_statemachine::hash::state_hash;
use onward_statemachine::objects::{self, Oid, Tid};
use onward_statemachine::ports::Past;
use onward_statemachine::services::kv;
use onward_statemachine::{Command, View, history, journal, system};
use openraft::RaftSnapshotBuilder;
use openraft::storage::RaftStateMachine;
use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

/// What a revision holds: the pairs, and the newest bytes of the object.
type Then = (BTreeMap<Vec<u8>, Vec<u8>>, Option<Vec<u8>>);

/// Puts, deletions, objects that are large, and entries that do nothing.
fn command(index: u64) -> Command {
    let key = kv::Key(format!("key-{:03}", index * 7 % 40).into_bytes());
    match index % 10 {
        3 => Command::Kv(kv::Command::Delete {
            keys: kv::Selection::Key(key),
            expect: None,
        }),
        5 => Command::Objects(objects::Command::Commit {
            metadata: objects::Metadata::default(),
            writes: vec![objects::Write {
                oid: Oid(index % 3),
                read: Tid::NONE,
                content: objects::Content::Bytes(vec![index as u8; 6000]),
            }],
            checks: Vec::new(),
        }),
        7 => Command::System(system::Command::RaiseFeatureLevel { level: 1 }),
        _ => Command::Kv(kv::Command::Put {
            key,
            value: vec![index as u8; 500],
            expect: None,
        }),
    }
}

fn then(view: &dyn View) -> Result<Then, Fault> {
    let listing = kv::range(view, b"", None, 1000, usize::MAX)?;
    let pairs = listing.pairs.into_iter().map(|(key, pair)| (key.0, pair.value));
    let object = match objects::load_at(view, Oid(1), Tid::MAX)? {
        objects::Load::Found { bytes, .. } => Some(bytes),
        _ => None,
    };
    Ok((pairs.collect(), object))
}

fn open(dir: &Path) -> StateStore {
    let state = State::open(dir, &Host::machine(), Arc::new(Counters::default())).expect("opens");
    StateStore::new(state).expect("opens")
}

/// Applies entries up to `to` one by one, and takes note of what each leaves.
async fn apply_up_to(store: &mut StateStore, to: u64, were: &mut Vec<Then>) {
    for index in were.len() as u64..=to {
        apply_one(store, entry(index, command(index)), were).await;
    }
}

async fn apply_one(store: &mut StateStore, entry: Entry, were: &mut Vec<Then>) {
    store
        .apply(stream::iter([Ok((entry, None))]))
        .await
        .expect("applies");
    were.push(store.state.read(then));
}

fn past(store: &StateStore, at: u64) -> Arc<dyn Past> {
    match store.state.make_past(Revision(at), || true).expect("is made") {
        Made::Whole(past) => past,
        Made::Stopped => panic!("nobody stopped it"),
    }
}

#[track_caller]
fn assert_as_it_was(store: &StateStore, were: &[Then], revisions: impl IntoIterator<Item = u64>) {
    for at in revisions {
        let past = past(store, at);
        assert_eq!(past.read(then), were[at as usize], "as of {at}");
        let clock = past.read(system::clock);
        assert_eq!(clock.revision, Revision(at));
    }
}

fn compact(index: u64, below: u64) -> Entry {
    let below = Revision(below);
    entry(index, Command::System(system::Command::CompactJournal { below }))
}

fn advance(store: &StateStore) {
    while store.state.advance_base().expect("moves on") {}
}

#[tokio::test]
async fn every_revision_reads_as_it_was() {
    let dir = tempfile::tempdir().expect("temp dir");
    let mut store = open(dir.path());
    let mut were = vec![Then::default()];
    let mut builder = store.get_snapshot_builder().await;
    for at in [90, 140, 190, 240, 290, 340, 390] {
        apply_up_to(&mut store, at, &mut were).await;
        builder.build_snapshot().await.expect("builds");
    }
    apply_up_to(&mut store, 420, &mut were).await;
    let order = [
        420, 7, 341, 300, 0, 399, 390, 391, 140, 139, 141, 1, 250, 251, 252, 253,
    ];
    assert_as_it_was(&store, &were, order);

    // Bounds: so many copies, so many snapshots, and nothing once they are let go of.
    let count = |name: &str| fs::read_dir(dir.path().join(name)).expect("lists").count();
    assert!((1..=4).contains(&count("history")), "{}", count("history"));
    assert_eq!(count("snap"), 5);
    let held = past(&store, 253);
    store.state.pasts.let_go(Duration::ZERO);
    assert_eq!(count("history"), 1);
    assert_eq!(held.read(then), were[253], "who reads it may finish");
    drop(held);
    assert_eq!(count("history"), 0);

    // The snapshots serve again after a restart.
    store.state.flush().expect("flushes");
    drop((store, builder));
    let mut store = open(dir.path());
    assert_eq!(count("snap"), 5);
    assert_as_it_was(&store, &were, [300, 420, 5]);

    // A disk that is short keeps the newest one, and everything is read as before.
    store.state.pasts.spare(true);
    assert_eq!((count("snap"), count("history")), (1, 0));
    assert_as_it_was(&store, &were, [300, 420, 5]);
    assert_eq!(count("history"), 0, "no copy waits for its next reader");
    let mut builder = store.get_snapshot_builder().await;
    builder.build_snapshot().await.expect("builds");
    assert_eq!(count("snap"), 1);
}

/// Who asked for it waited for others, and the base moved meanwhile.
#[tokio::test]
async fn what_the_base_has_passed_meanwhile_is_not_made() {
    let dir = tempfile::tempdir().expect("temp dir");
    let mut store = open(dir.path());
    let mut were = vec![Then::default()];
    apply_up_to(&mut store, 40, &mut were).await;
    apply_one(&mut store, compact(41, 30), &mut were).await;
    advance(&store);
    let base = store.state.base().0;
    let made = store.state.make_past(Revision(base - 1), || true);
    assert!(matches!(made, Ok(Made::Stopped)));
    assert_as_it_was(&store, &were, base..=40);
}

#[tokio::test]
async fn compaction_keeps_what_lies_behind_it() {
    let dir = tempfile::tempdir().expect("temp dir");
    let mut store = open(dir.path());
    let mut were = vec![Then::default()];
    apply_up_to(&mut store, 300, &mut were).await;
    let mut builder = store.get_snapshot_builder().await;
    builder.build_snapshot().await.expect("builds");
    let copy = past(&store, 150);
    apply_one(&mut store, compact(301, 201), &mut were).await;
    let refused = store
        .state
        .read(|view| history::check(view, Revision(199), Revision(301)));
    assert!(refused.is_err(), "the floor counts at once");
    assert_as_it_was(&store, &were, [200, 201, 301]);

    // A crash in the middle of it: the base is where it was at the last flush, and the journal still there.
    let hash = store.state.read(state_hash);
    store.state.flush().expect("flushes");
    let left = tempfile::tempdir().expect("temp dir");
    copy_as_of_now(dir.path(), left.path());
    advance(&store);
    assert_eq!(store.state.base(), Revision(200));
    assert_eq!(store.state.read(state_hash), hash);
    let first = store.state.read(|view| journal::first_from(view, Revision(0)));
    assert_eq!(first.map(|(revision, _)| revision), Some(Revision(201)));
    assert_as_it_was(&store, &were, [200, 201, 250, 300, 301]);
    assert_eq!(copy.read(then), were[150], "who reads it may finish");

    let crashed = open(left.path());
    assert_eq!(crashed.state.base(), Revision(0));
    assert_as_it_was(&crashed, &were, [200, 260]);
    advance(&crashed);
    assert_as_it_was(&crashed, &were, [200, 201, 299, 301]);

    // Again, further on, over a base; and over a restart.
    apply_up_to(&mut store, 400, &mut were).await;
    apply_one(&mut store, compact(401, 396), &mut were).await;
    advance(&store);
    assert_as_it_was(&store, &were, [395, 396, 401]);
    store.state.flush().expect("flushes");
    let flushed = store.state.read(state_hash);
    drop((store, builder));
    let store = open(dir.path());
    assert_eq!(store.state.base(), Revision(395));
    assert_eq!(store.state.read(state_hash), flushed);
    assert_as_it_was(&store, &were, [395, 397, 400]);
}

/// Moves the base up to the floor; whether the journal let go of anything before all of it was in the base.
async fn cuts_piece_by_piece(short: bool) -> bool {
    const LAST: u64 = 99;
    let dir = tempfile::tempdir().expect("temp dir");
    let mut store = open(dir.path());
    // More than one piece of a short disk, and less than one of others.
    let large = |index: u64| kv::Command::Put {
        key: kv::Key(format!("key-{}", index % 4).into_bytes()),
        value: vec![index as u8; 1 << 20],
        expect: None,
    };
    let puts = (1..=LAST).map(|index| Ok((entry(index, Command::Kv(large(index))), None)));
    store.apply(stream::iter(puts)).await.expect("applies");
    let last = Ok((compact(LAST + 1, LAST), None));
    store.apply(stream::iter([last])).await.expect("applies");
    store.state.pasts.spare(short);
    let mut piece_by_piece = false;
    while store.state.advance_base().expect("moves on") {
        let base = store.state.base();
        let first = store.state.read(|view| journal::first_from(view, Revision(0)));
        let next = first.map(|(revision, _)| revision);
        piece_by_piece |= base < Revision(LAST - 1) && next == Some(Revision(base.0 + 1));
    }
    assert_eq!(store.state.base(), Revision(LAST - 1));
    assert!(!store.state.base_is_behind());
    piece_by_piece
}

#[tokio::test]
async fn on_a_short_disk_the_journal_goes_as_the_base_grows() {
    assert!(cuts_piece_by_piece(true).await);
    assert!(!cuts_piece_by_piece(false).await, "all at once is less work");
}

#[tokio::test]
async fn an_installed_snapshot_brings_the_history_along() {
    let (dir, elsewhere) = (
        tempfile::tempdir().expect("temp dir"),
        tempfile::tempdir().expect("temp dir"),
    );
    let mut store = open(dir.path());
    let mut were = vec![Then::default()];
    apply_up_to(&mut store, 250, &mut were).await;
    apply_one(&mut store, compact(251, 101), &mut were).await;
    advance(&store);
    apply_up_to(&mut store, 300, &mut were).await;
    let built = store
        .get_snapshot_builder()
        .await
        .build_snapshot()
        .await
        .expect("builds");

    let mut other = open(elsewhere.path());
    other
        .install_snapshot(&built.meta, built.snapshot.clone())
        .await
        .expect("installs");
    let hash = |store: &StateStore| store.state.read(state_hash);
    assert_eq!(hash(&other), hash(&store));
    apply_up_to(&mut store, 320, &mut were).await;
    assert_as_it_was(&other, &were, [100, 101, 200, 300]);
    let mut again = Vec::new();
    for index in 301..=320 {
        apply_one(&mut other, entry(index, command(index)), &mut again).await;
    }
    assert_as_it_was(&other, &were, [100, 299, 301, 310, 320]);
}
