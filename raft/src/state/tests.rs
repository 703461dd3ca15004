use super::database::{Batch, RocksState};
use super::hash::Kept;
use super::snapshot::{SnapshotDir, name_of};
use super::*;
use crate::files::Disk;
use crate::testing::copy_as_of_now;
use crate::types::{Entry, EntryPayload, LeaderId, Payload, StoredMembership};
use bytes::Bytes;
use futures::stream;
use onward_statemachine::digest::{FEATURE_LEVEL, StateHash};
use onward_statemachine::hash::state_hash;
use onward_statemachine::services::kv;
use onward_statemachine::{
    Actor, Changes, Command, CommandId, Envelope, MemoryStore, Millis, Order, codec, keys, system,
};
use openraft::RaftSnapshotBuilder;
use openraft::storage::RaftStateMachine;
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::fs;
use std::ops::ControlFlow;
use tempfile::TempDir;
use uuid::Uuid;

fn put(index: u64) -> Entry {
    entry(
        index,
        Command::Kv(kv::Command::Put {
            key: kv::Key(format!("key-{:04}", index % 50).into_bytes()),
            value: vec![index as u8; 3000],
            expect: None,
        }),
    )
}

pub(super) fn entry(index: u64, command: Command) -> Entry {
    let envelope = Envelope {
        command_id: CommandId(Uuid::now_v7()),
        actor: Actor::new("test"),
        proposed_at: Millis(1_700_000_000_000 + index),
        command,
    };
    Entry {
        log_id: LogId::new(LeaderId { term: 1, node_id: 1 }, index),
        payload: EntryPayload::Normal(Payload::from(Bytes::from(codec::encode(&envelope)))),
    }
}

fn open(dir: &Path) -> StateStore {
    let state = State::open(dir, &Host::machine(), Arc::new(Counters::default())).expect("opens");
    StateStore::new(state).expect("opens")
}

async fn apply_entries(store: &mut StateStore, entries: &[Entry]) {
    let items: Vec<_> = entries.iter().map(|entry| Ok((entry.clone(), None))).collect();
    store.apply(stream::iter(items)).await.expect("applies");
}

fn hash(store: &StateStore) -> u64 {
    store.state.read(state_hash)
}

/// An older release that is started again, or is sent the snapshot, after the others left it behind.
#[tokio::test]
async fn a_state_at_a_level_that_this_build_does_not_know_is_left_alone() {
    let [dir, elsewhere] = [(); 2].map(|()| tempfile::tempdir().expect("temp dir"));
    let mut store = open(dir.path());
    apply_entries(&mut store, &[put(1)]).await;
    let gate = system::Gate {
        feature_level: system::FEATURE_LEVEL_MAX + 1,
        journal_floor: Revision(0),
    };
    let row = (vec![keys::SYSTEM, 2], Some(codec::encode(&gate)));
    let disk = store.state.generation();
    disk.disk().put(Changes::from_iter([row])).expect("lands");
    let told = |error: io::Error| {
        let said = error.to_string();
        assert!(
            said.contains("feature level") && said.contains("upgrade"),
            "{said}"
        );
    };

    let built = store.state.build_snapshot().expect("builds");
    let other = open(elsewhere.path());
    let installed = other.state.install(&built.snapshot);
    told(installed.expect_err("is not installed"));
    assert_eq!(other.state.applied(), Revision(0));
    drop((disk, built, other, store));

    let opened = State::open(dir.path(), &Host::machine(), Arc::new(Counters::default()));
    told(opened.err().expect("is not opened"));
    drop(open(elsewhere.path()));
}

#[tokio::test]
async fn what_is_lost_in_a_crash_is_applied_again_to_the_same_state() {
    let dir = tempfile::tempdir().expect("temp dir");
    let entries: Vec<Entry> = (1..=200).map(put).collect();
    let mut store = open(dir.path());
    apply_entries(&mut store, &entries[..120]).await;
    store.state.flush().expect("flushes");
    apply_entries(&mut store, &entries[120..]).await;
    let whole = hash(&store);
    assert_eq!(store.state.applied(), Revision(200));
    // What a crash leaves: the files as they are now. An orderly close would flush.
    let left = tempfile::tempdir().expect("temp dir");
    copy_as_of_now(dir.path(), left.path());
    let mut store = open(left.path());
    let (applied, _) = store.applied_state().await.expect("reads");
    let from = applied.map_or(0, |id| id.index) as usize;
    assert_eq!(from, 120, "the flush is there and nothing behind it");
    apply_entries(&mut store, &entries[from..]).await;
    assert_eq!(hash(&store), whole);
}

/// Puts, with marks at every seventh entry once they are in force.
fn marked(count: u64) -> Vec<Entry> {
    let raise = system::Command::RaiseFeatureLevel { level: FEATURE_LEVEL };
    let mark = || Command::System(system::Command::MarkState { agreed: None });
    let command = |index: u64| match index {
        1 => entry(1, Command::System(raise.clone())),
        index if index % 7 == 0 => entry(index, mark()),
        index => put(index),
    };
    (1..=count).map(command).collect()
}

fn kept(store: &StateStore) -> Kept {
    store
        .standing
        .kept
        .clone()
        .expect("a store that is open keeps a hash")
}

/// Whether what is kept is what the rows come to.
fn is_sound(store: &StateStore) -> bool {
    let scanned = store.state.read(StateHash::scan);
    kept(store).hash.has_rows_of(&scanned)
}

#[tokio::test]
async fn the_hash_is_the_same_however_entries_come() {
    let entries = marked(100);
    let dirs: Vec<TempDir> = (0..3).map(|_| tempfile::tempdir().expect("temp dir")).collect();
    let mut whole = open(dirs[0].path());
    apply_entries(&mut whole, &entries).await;
    assert!(is_sound(&whole));
    let last = whole.state.last_mark().expect("marks are in force");
    assert_eq!(last.at, Revision(98));

    // One by one, with a crash and a flush in between.
    let mut single = open(dirs[1].path());
    for entry in &entries[..60] {
        apply_entries(&mut single, std::slice::from_ref(entry)).await;
    }
    single.state.flush().expect("flushes");
    apply_entries(&mut single, &entries[60..]).await;
    let left = tempfile::tempdir().expect("temp dir");
    copy_as_of_now(dirs[1].path(), left.path());
    let mut single = open(left.path());
    assert_eq!(single.state.last_mark().map(|mark| mark.at), Some(Revision(56)));
    apply_entries(&mut single, &entries[60..]).await;
    assert_eq!(kept(&single), kept(&whole));

    // Over a snapshot.
    let mut third = open(dirs[2].path());
    let snapshot = single
        .get_snapshot_builder()
        .await
        .build_snapshot()
        .await
        .expect("builds");
    third
        .install_snapshot(&snapshot.meta, snapshot.snapshot)
        .await
        .expect("installs");
    assert_eq!(kept(&third), kept(&whole));
    assert_eq!(third.state.last_mark(), Some(last));
}

/// Consensus has snapshots built beside what it does, and one of a leader's may be installed meanwhile.
#[tokio::test]
async fn a_snapshot_that_was_overtaken_does_not_take_the_place_of_the_later_one() {
    let entries = marked(100);
    let dirs: Vec<TempDir> = (0..2).map(|_| tempfile::tempdir().expect("temp dir")).collect();
    let mut ahead = open(dirs[0].path());
    apply_entries(&mut ahead, &entries).await;
    let mut builder = ahead.get_snapshot_builder().await;
    let later = builder.build_snapshot().await.expect("builds");
    let mut store = open(dirs[1].path());
    apply_entries(&mut store, &entries[..50]).await;
    let slow = store.state.build_snapshot().expect("builds");
    store
        .install_snapshot(&later.meta, later.snapshot)
        .await
        .expect("installs");
    store.state.keep_snapshot(&slow.snapshot).expect("keeps");
    let current = store.get_current_snapshot().await.expect("reads");
    assert_eq!(current.map(|current| current.meta), Some(later.meta));
}

#[tokio::test]
async fn a_state_without_a_hash_is_read_once() {
    let dir = tempfile::tempdir().expect("temp dir");
    let entries = marked(60);
    let mut store = open(dir.path());
    apply_entries(&mut store, &entries[..50]).await;
    let known = kept(&store);
    // A release that keeps no hash went on from there: what is stored is of an earlier entry.
    let stale = known.encode(&entries[40].log_id);
    assert_eq!(
        Kept::decode(&stale, Some(entries[49].log_id)).expect("decodes"),
        None
    );
    let scanned = Kept::of(store.state.read(StateHash::scan));
    assert!(known.hash.has_rows_of(&scanned.hash));
    store.standing.kept = Some(scanned);
    apply_entries(&mut store, &entries[50..]).await;
    assert!(is_sound(&store));
}

#[tokio::test]
async fn a_snapshot_carries_the_state_as_of_its_entry() {
    let dir = tempfile::tempdir().expect("temp dir");
    let mut store = open(dir.path());
    let entries: Vec<Entry> = (1..=90).map(put).collect();
    apply_entries(&mut store, &entries[..60]).await;
    let at_sixty = hash(&store);
    let mut builder = store.get_snapshot_builder().await;
    let built = builder.build_snapshot().await.expect("builds");
    assert_eq!(built.meta.last_log_id, Some(entries[59].log_id));
    apply_entries(&mut store, &entries[60..]).await;
    assert_ne!(hash(&store), at_sixty);

    // Installed elsewhere, over something else.
    let elsewhere = tempfile::tempdir().expect("temp dir");
    let mut other = open(elsewhere.path());
    apply_entries(&mut other, &entries[..10]).await;
    let held = other.state.generation();
    let root = other.state.snapshot_root();
    let incoming = root.join("incoming-x");
    fs::create_dir_all(&incoming).expect("creates");
    for file in &built.snapshot.manifest.files {
        fs::copy(built.snapshot.path.join(&file.name), incoming.join(&file.name)).expect("copies");
    }
    let sealed = snapshot::seal(
        &(Arc::new(Disk) as Arc<dyn Files>),
        &incoming,
        &root,
        &built.snapshot.manifest,
    )
    .expect("seals");
    other
        .install_snapshot(&built.meta, Arc::new(sealed))
        .await
        .expect("installs");
    assert_eq!(hash(&other), at_sixty);
    assert_eq!(other.state.applied(), Revision(60));
    // Who reads the old state may finish.
    assert!(held.path.exists());
    let old = held.path.clone();
    drop(held);
    assert!(!old.exists());
    apply_entries(&mut other, &entries[60..]).await;
    assert_eq!(hash(&other), hash(&store));
    other.state.flush().expect("flushes");
    drop(other);
    let mut other = open(elsewhere.path());
    assert_eq!(hash(&other), hash(&store));
    let current = other
        .get_current_snapshot()
        .await
        .expect("reads")
        .expect("is there");
    assert_eq!(current.meta, built.meta);
}

#[tokio::test]
async fn a_crash_at_any_step_leaves_a_directory_that_opens() {
    let dir = tempfile::tempdir().expect("temp dir");
    let mut store = open(dir.path());
    let entries: Vec<Entry> = (1..=30).map(put).collect();
    apply_entries(&mut store, &entries[..20]).await;
    let mut builder = store.get_snapshot_builder().await;
    let older = builder.build_snapshot().await.expect("builds");
    apply_entries(&mut store, &entries[20..]).await;
    let newer = builder.build_snapshot().await.expect("builds");
    let (older_name, newer_name) = (name_of(&older.meta), name_of(&newer.meta));
    let whole = hash(&store);
    // The newer one replaces the older, which stays to read the past from.
    drop(older);
    let snap = dir.path().join("snap");
    assert!(snap.join(&older_name).exists() && snap.join(&newer_name).exists());
    drop((store, builder, newer));

    // Broken off while building, receiving and installing.
    for name in ["building-1", "incoming-1"] {
        fs::create_dir(snap.join(name)).expect("creates");
        fs::write(snap.join(name).join("000001.sst"), "half").expect("writes");
    }
    fs::create_dir(dir.path().join("state/2")).expect("creates");
    fs::write(dir.path().join("state/2/000001.sst"), "half").expect("writes");
    fs::write(dir.path().join("state/CURRENT.new"), "2").expect("writes");
    let mut store = open(dir.path());
    assert_eq!(hash(&store), whole);
    let left: Vec<_> = fs::read_dir(&snap).expect("lists").collect();
    assert_eq!(left.len(), 2, "{left:?}");
    assert!(!dir.path().join("state/2").exists());
    let current = store
        .get_current_snapshot()
        .await
        .expect("reads")
        .expect("is there");
    assert_eq!(current.meta.last_log_id, Some(entries[29].log_id));
    drop(current);

    // A snapshot whose manifest is damaged is not taken for one.
    let manifest = snap.join(&newer_name).join("snapshot.manifest");
    let mut bytes = fs::read(&manifest).expect("reads");
    *bytes.last_mut().expect("not empty") ^= 1;
    fs::write(&manifest, bytes).expect("writes");
    assert!(SnapshotDir::open(Arc::new(Disk), snap.join(&newer_name)).is_err());
}

/// What a disk flips in a file between two snapshots shows against the checksum of the first: it is not handed on to
/// others as sound.
#[test]
fn damage_is_not_passed_on_as_a_snapshot() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("000007.sst");
    fs::write(&path, b"rows").expect("writes");
    let list = |known: &[SnapshotFile]| snapshot::list_files(&Disk, dir.path(), known).expect("lists");
    let sound = list(&[]);
    fs::write(&path, b"rowS").expect("writes");
    assert_eq!(list(&sound), sound);
    assert_ne!(
        list(&[]),
        sound,
        "without the first checksum the damage looks sound"
    );
}

#[tokio::test]
async fn checksums_of_the_last_snapshot_are_known_after_a_restart() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut store = open(dir.path());
    let entries: Vec<Entry> = (1..=60).map(put).collect();
    apply_entries(&mut store, &entries).await;
    let built = store.get_snapshot_builder().await.build_snapshot().await;
    let files = built.expect("builds").snapshot.manifest.files.clone();
    drop(store);
    let store = open(dir.path());
    assert_eq!(*store.state.checked(), (1, files));
}

#[tokio::test]
async fn tables_that_are_listed_are_not_read_for_a_snapshot() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut store = open(dir.path());
    let entries: Vec<Entry> = (1..=30).map(put).collect();
    apply_entries(&mut store, &entries).await;
    store.state.flush().expect("flushes");
    let list = |settled: &BTreeSet<String>| {
        while let Some((generation, listing)) = store.state.unlisted(settled).expect("looks") {
            store.state.list(generation, listing).expect("lists");
        }
        store.state.checked().1.clone()
    };
    let tables = store.state.tables().expect("looks");
    let of_journal = list(&BTreeSet::new());
    assert!(!of_journal.is_empty() && of_journal.len() < tables.len());
    let listed = list(&tables);
    assert_eq!(listed.len(), tables.len());
    assert!(listed.iter().all(|file| tables.contains(&file.name)));
    let built = store.get_snapshot_builder().await.build_snapshot().await;
    let files = built.expect("builds").snapshot.manifest.files.clone();
    assert!(listed.iter().all(|file| files.contains(file)));
}

#[tokio::test]
async fn a_state_ahead_of_its_log_is_covered_by_a_snapshot() {
    let dir = tempfile::tempdir().expect("temp dir");
    let mut store = open(dir.path());
    let entries: Vec<Entry> = (1..=30).map(put).collect();
    apply_entries(&mut store, &entries[..20]).await;
    let newest = |store: &StateStore| {
        let snapshot = store.state.current_snapshot().clone();
        snapshot.and_then(|snapshot| snapshot.manifest.meta().expect("is whole").last_log_id)
    };
    store.state.cover(Some(entries[19].log_id)).expect("looks");
    assert_eq!(newest(&store), None, "the log has all that the state has");
    store.state.cover(Some(entries[14].log_id)).expect("builds");
    assert_eq!(newest(&store), Some(entries[19].log_id));
    apply_entries(&mut store, &entries[20..]).await;
    store.state.cover(Some(entries[24].log_id)).expect("builds");
    assert_eq!(newest(&store), Some(entries[29].log_id));
}

#[tokio::test]
async fn the_membership_and_blank_entries_move_the_state_on() {
    let dir = tempfile::tempdir().expect("temp dir");
    let mut store = open(dir.path());
    let id = |index| LogId::new(LeaderId { term: 1, node_id: 1 }, index);
    let nodes = [(1, crate::types::PeerNode::default())];
    let membership = crate::types::Membership::new(vec![[1].into()], std::collections::BTreeMap::from(nodes))
        .expect("valid");
    let entries = [
        Entry {
            log_id: id(1),
            payload: EntryPayload::Membership(membership.clone()),
        },
        Entry {
            log_id: id(2),
            payload: EntryPayload::Blank,
        },
    ];
    apply_entries(&mut store, &entries).await;
    assert_eq!(store.state.applied(), Revision(2));
    store.state.flush().expect("flushes");
    drop(store);
    let mut store = open(dir.path());
    let (applied, stored) = store.applied_state().await.expect("reads");
    assert_eq!(applied, Some(id(2)));
    assert_eq!(stored, StoredMembership::new(Some(id(1)), membership));
}

fn rows(view: &dyn View, from: &[u8], to: &[u8], order: Order, limit: usize) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut rows = Vec::new();
    view.scan(from, to, order, &mut |key, value| {
        rows.push((key.to_vec(), value.to_vec()));
        if rows.len() == limit {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    })
    .expect("reads");
    rows
}

fn key() -> impl Strategy<Value = Vec<u8>> {
    let prefix = prop::sample::select(vec![
        keys::SYSTEM,
        keys::JOURNAL,
        keys::REPLIES,
        keys::KV,
        keys::OBJECTS,
        keys::OBJECT_BYTES,
        keys::APPS,
        keys::BASE,
        0xff,
    ]);
    (prefix, prop::collection::vec(any::<u8>(), 0..2))
        .prop_map(|(prefix, rest)| [&[prefix][..], &rest].concat())
}

thread_local! {
    static DATABASE: (TempDir, RocksState) = {
        let dir = tempfile::tempdir().expect("temp dir");
        let state = RocksState::open(&dir.path().join("state")).expect("opens");
        (dir, state)
    };
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Column families do not show: the store reads as one ordered map does.
    #[test]
    fn reads_as_one_ordered_map(
        written in prop::collection::btree_map(key(), any::<Option<u8>>(), 0..40),
        from in prop_oneof![Just(Vec::new()), key()], to in prop_oneof![Just(Vec::new()), key()],
        descending in any::<bool>(), limit in 1usize..40,
    ) {
        DATABASE.with(|(_dir, state)| {
            let changes: onward_statemachine::Changes = written
                .iter()
                .map(|(key, value)| (key.clone(), value.map(|value| vec![value])))
                .collect();
            let before = {
                let mut all = Vec::new();
                state.view(&mut |view| all = rows(view, &[], &[], Order::Ascending, usize::MAX));
                all
            };
            let mut model = MemoryStore::default();
            model.write(before.into_iter().map(|(key, value)| (key, Some(value))).collect());
            model.write(changes.clone());
            let applied = LogId::new(LeaderId { term: 1, node_id: 1 }, 1);
            let kept = None;
            let batch = Batch { changes, applied, membership: None, kept };
            state.write(batch).expect("writes");
            let order = if descending { Order::Descending } else { Order::Ascending };
            let mut seen = Vec::new();
            let mut got = Vec::new();
            state.view(&mut |view| {
                seen = rows(view, &from, &to, order, limit);
                got = written.keys().map(|key| view.get(key).expect("reads")).collect();
            });
            prop_assert_eq!(seen, rows(&model, &from, &to, order, limit));
            let expected: Vec<_> = written.keys().map(|key| model.get(key).expect("reads")).collect();
            prop_assert_eq!(got, expected);
            Ok(())
        })?;
    }
}
