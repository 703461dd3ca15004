//! The undo journals against models that know nothing of undoing: random changes, syncs and power cuts.

use super::faults::Loss;
use super::names::{Ino, Names, ROOT, Slot};
use super::pages::{PAGE, SECTOR};
use super::store::Store;
use proptest::prelude::*;
use proptest::sample::select;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::ops::Range;

const LOSSES: [Loss; 3] = [Loss::All, Loss::Pages, Loss::Sectors];
/// `FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE`.
const PUNCH: i32 = 3;

/// What is done to one file.
#[derive(Debug, Clone)]
enum FileOp {
    Write { range: Range<u64>, durable: bool },
    Punch(Range<u64>),
    Resize(u64),
    Sync,
    FailedSync,
    PowerCut(Loss),
}

fn file_op() -> impl Strategy<Value = FileOp> {
    let range = || (0..40_000_u64, 1..20_000_u64).prop_map(|(start, bytes)| start..start + bytes);
    prop_oneof![
        8 => (range(), prop::bool::weighted(0.1)).prop_map(|(range, durable)| FileOp::Write { range, durable }),
        1 => range().prop_map(FileOp::Punch),
        2 => (0..50_000_u64).prop_map(FileOp::Resize),
        2 => Just(FileOp::Sync),
        1 => Just(FileOp::FailedSync),
        2 => select(&LOSSES[..]).prop_map(FileOp::PowerCut),
    ]
}

/// A file as a page cache over a disk: dirty pages are copied to the disk by a sync.
#[derive(Default)]
struct FileModel {
    now: Vec<u8>,
    disk: Vec<u8>,
    dirty: BTreeSet<u64>,
    /// Pages that a failed sync left different from the disk.
    dropped: BTreeSet<u64>,
    /// The shortest that the file was since it was synced.
    lowest: usize,
}

fn page_range(page: u64, bytes: usize) -> Range<usize> {
    let at = |page: u64| bytes.min((page * PAGE) as usize);
    at(page)..at(page + 1)
}

impl FileModel {
    fn touch(&mut self, range: Range<usize>) {
        for page in range.start as u64 / PAGE..(range.end as u64).div_ceil(PAGE) {
            self.dirty.insert(page);
            self.dropped.remove(&page);
        }
    }

    fn write(&mut self, range: Range<usize>, byte: u8) {
        self.now.resize(self.now.len().max(range.end), 0);
        self.now[range.clone()].fill(byte);
        self.touch(range);
    }

    fn resize(&mut self, to: usize) {
        if to < self.now.len() {
            self.touch(to..self.now.len().max(self.disk.len()));
        }
        self.lowest = self.lowest.min(to);
        self.now.resize(to, 0);
    }

    /// Writes pages to the disk, with the metadata: the file has `bytes` there from then on.
    fn write_back(&mut self, pages: &BTreeSet<u64>, bytes: usize) {
        self.disk.truncate(self.lowest);
        self.disk.resize(bytes, 0);
        for page in pages {
            let range = page_range(*page, bytes.min(self.now.len()));
            self.disk[range.clone()].copy_from_slice(&self.now[range]);
            self.dirty.remove(page);
        }
        self.lowest = bytes.min(self.now.len());
    }

    fn sync(&mut self) {
        let dirty = self.dirty.clone();
        self.write_back(&dirty, self.now.len());
    }

    fn sync_range(&mut self, range: &Range<usize>) {
        let pages = range.start as u64 / PAGE..(range.end as u64).div_ceil(PAGE);
        let reached = self.now.len().min(range.end.next_multiple_of(PAGE as usize));
        let bytes = self.disk.len().min(self.lowest).max(reached);
        self.write_back(&pages.collect(), bytes);
    }

    /// Whether `found` is what a power cut may leave.
    fn may_leave(&self, found: &[u8], loss: Loss) -> bool {
        let unit = if loss == Loss::Sectors { SECTOR } else { PAGE } as usize;
        let cut = self.lowest < self.disk.len();
        // Either the cut is lost, with all behind it, or it is there.
        let uncut =
            found.len() == self.disk.len() && self.units_match(found, &self.disk, unit, loss, self.lowest);
        let base = &self.disk[..self.lowest.min(self.disk.len())];
        let sizes = base.len()..=self.now.len();
        let kept = loss != Loss::All
            && sizes.contains(&found.len())
            && self.units_match(found, base, unit, loss, usize::MAX);
        if cut {
            uncut || kept
        } else {
            uncut || (loss != Loss::All && kept)
        }
    }

    /// Whether each unit of `found` is as in `old`, or, before `new_until` and where that may survive, as it is now.
    fn units_match(&self, found: &[u8], old: &[u8], unit: usize, loss: Loss, new_until: usize) -> bool {
        let padded = |bytes: &[u8], range: Range<usize>| -> Vec<u8> {
            range.map(|at| bytes.get(at).copied().unwrap_or(0)).collect()
        };
        (0..found.len()).step_by(unit).all(|start| {
            let range = start..found.len().min(start + unit);
            let page = start as u64 / PAGE;
            let new = loss != Loss::All
                && self.dirty.contains(&page)
                && !self.dropped.contains(&page)
                && start.saturating_add(unit) <= new_until;
            found[range.clone()] == padded(old, range.clone())
                || new && found[range.clone()] == padded(&self.now, range)
        })
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_file_is_left_as_a_page_cache_over_a_disk_would_leave_it(
        ops in prop::collection::vec(file_op(), 1..40), seed: u64,
    ) {
        let dir = tempfile::tempdir().expect("temp dir");
        let mut store = Store::open(dir.path(), seed).expect("opens");
        let slot = Slot::new(ROOT, OsStr::new("file"));
        let ino = store.create(slot, 0o600).expect("creates");
        store.sync_dir(ROOT);
        let mut handle = store.open_file(ino).expect("opens");
        let mut model = FileModel::default();
        for (count, op) in ops.iter().enumerate() {
            let byte = count as u8 + 1;
            let usize_range = |range: &Range<u64>| range.start as usize..range.end as usize;
            match op {
                FileOp::Write { range, durable } => {
                    let bytes = vec![byte; (range.end - range.start) as usize];
                    store.write(handle, range.start, &bytes, *durable).expect("writes");
                    model.write(usize_range(range), byte);
                    if *durable {
                        model.sync_range(&usize_range(range));
                    }
                }
                FileOp::Punch(range) => {
                    store.allocate(handle, range.start, range.end - range.start, PUNCH).expect("punches");
                    let range = usize_range(range);
                    let range = range.start..range.end.min(model.now.len());
                    if !range.is_empty() {
                        model.write(range, 0);
                    }
                }
                FileOp::Resize(to) => {
                    store.resize(ino, *to).expect("resizes");
                    model.resize(*to as usize);
                }
                FileOp::Sync => {
                    store.sync_file(handle).expect("syncs");
                    model.sync();
                }
                FileOp::FailedSync => {
                    store.fail_sync(handle);
                    model.dropped.append(&mut model.dirty);
                }
                FileOp::PowerCut(loss) => {
                    store.power_cut(*loss).expect("cuts");
                    let found = fs::read(store.path_of(ino)).expect("reads");
                    prop_assert!(model.may_leave(&found, *loss), "{loss:?} left {} bytes", found.len());
                    model = FileModel { lowest: found.len(), now: found.clone(), disk: found, ..FileModel::default() };
                    handle = store.open_file(ino).expect("opens");
                }
            }
            let found = fs::read(store.path_of(ino)).expect("reads");
            prop_assert!(found == model.now, "{op:?} went wrong");
        }
        store.power_cut(Loss::All).expect("cuts");
        prop_assert!(model.may_leave(&fs::read(store.path_of(ino)).expect("reads"), Loss::All));
    }
}

const DIRS: [Ino; 3] = [ROOT, Ino(2), Ino(3)];
const NAMES: [&str; 3] = ["x", "y", "z"];

/// What is done to names, each by its place among [`slots`].
#[derive(Debug, Clone)]
enum NameOp {
    Create(usize),
    Remove(usize),
    Link(usize, usize),
    Rename(usize, usize),
    Sync(Ino),
}

fn name_op() -> impl Strategy<Value = NameOp> {
    let slot = || 0..DIRS.len() * NAMES.len();
    prop_oneof![
        4 => slot().prop_map(NameOp::Create),
        2 => slot().prop_map(NameOp::Remove),
        1 => (slot(), slot()).prop_map(|(from, to)| NameOp::Link(from, to)),
        4 => (slot(), slot()).prop_map(|(from, to)| NameOp::Rename(from, to)),
        2 => select(&DIRS[..]).prop_map(NameOp::Sync),
    ]
}

fn slots() -> Vec<Slot> {
    let of = |dir| NAMES.map(|name| Slot::new(dir, OsStr::new(name)));
    DIRS.into_iter().flat_map(of).collect()
}

/// All that is known of one slot without knowing how steps hang together.
#[derive(Default, Clone)]
struct SlotModel {
    synced: Option<Ino>,
    since: BTreeSet<Option<Ino>>,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn names_are_as_they_were_synced_or_became_since(
        ops in prop::collection::vec(name_op(), 1..40), survivors: Vec<bool>,
    ) {
        let slots = slots();
        let mut names = Names::new();
        for dir in &DIRS[1..] {
            names.add_dir(*dir);
            names.add_durable(&Slot::new(ROOT, OsStr::new(&format!("dir{}", dir.0))), *dir);
        }
        let mut models = vec![SlotModel::default(); slots.len()];
        let mut next = 100;
        // Directories that a rename to or from another one has touched since they were synced.
        let mut entangled = BTreeSet::new();
        // Files that had a durable name, and were only renamed since.
        let mut safe: BTreeSet<Ino> = BTreeSet::new();
        let mut linked = BTreeSet::new();
        for op in ops {
            let mut changes: Vec<(usize, Option<Ino>)> = Vec::new();
            match op {
                NameOp::Create(at) if names.get(&slots[at]).is_none() => {
                    next += 1;
                    changes.push((at, Some(Ino(next))));
                }
                NameOp::Remove(at) if names.get(&slots[at]).is_some() => changes.push((at, None)),
                NameOp::Link(from, to) if names.get(&slots[to]).is_none() => {
                    if let Some(ino) = names.get(&slots[from]) {
                        linked.insert(ino);
                        changes.push((to, Some(ino)));
                    }
                }
                NameOp::Rename(from, to) if names.get(&slots[from]) != names.get(&slots[to]) => {
                    if let Some(ino) = names.get(&slots[from]) {
                        changes.extend([(from, None), (to, Some(ino))]);
                        if slots[from].dir != slots[to].dir {
                            entangled.extend([slots[from].dir, slots[to].dir]);
                        }
                    }
                }
                NameOp::Sync(dir) => {
                    names.sync(dir);
                    entangled.remove(&dir);
                    for (slot, model) in slots.iter().zip(&mut models).filter(|(slot, _)| slot.dir == dir) {
                        let synced = names.get(slot);
                        safe.extend(synced);
                        *model = SlotModel { synced, since: BTreeSet::new() };
                    }
                }
                _ => {}
            }
            let moved: Vec<Ino> = changes.iter().filter_map(|(_, ino)| *ino).collect();
            for (at, after) in &changes {
                if let Some(before) = names.get(&slots[*at]).filter(|ino| !moved.contains(ino)) {
                    safe.remove(&before);
                }
                models[*at].since.insert(*after);
            }
            if !changes.is_empty() {
                names.change(changes.into_iter().map(|(at, after)| (slots[at].clone(), after)).collect());
            }
        }
        let now: Vec<Option<Ino>> = slots.iter().map(|slot| names.get(slot)).collect();
        let all = survivors.is_empty();
        let mut survivors = survivors.into_iter();
        names.power_cut(|| survivors.next().unwrap_or(false));

        let mut homes: BTreeMap<Ino, u32> = BTreeMap::new();
        for ((slot, model), now) in slots.iter().zip(&models).zip(now) {
            let found = names.get(slot);
            prop_assert!(found == model.synced || model.since.contains(&found), "{slot:?} became {found:?}");
            if model.since.is_empty() {
                prop_assert_eq!(found, now, "{:?} was synced", slot);
            }
            if all && !entangled.contains(&slot.dir) {
                prop_assert_eq!(found, model.synced, "{:?} was not synced", slot);
            }
            if let Some(ino) = found {
                *homes.entry(ino).or_default() += 1;
            }
        }
        for ino in safe {
            prop_assert!(homes.contains_key(&ino), "{ino:?} was only renamed, and is gone");
        }
        for (ino, count) in homes {
            prop_assert!(count == 1 || linked.contains(&ino), "{ino:?} has {count} names and was never linked");
            prop_assert_eq!(names.links(ino), count);
        }
    }
}

fn at(dir: Ino, name: &str) -> Slot {
    Slot::new(dir, OsStr::new(name))
}

#[test]
fn a_file_moved_into_a_new_directory_is_not_lost_with_it() {
    let mut names = Names::new();
    names.add_durable(&at(ROOT, "file"), Ino(10));
    names.add_dir(Ino(11));
    names.change(vec![(at(ROOT, "new"), Some(Ino(11)))]);
    names.change(vec![
        (at(ROOT, "file"), None),
        (at(Ino(11), "file"), Some(Ino(10))),
    ]);
    names.sync(Ino(11));
    names.power_cut(|| false);
    assert_eq!(names.get(&at(ROOT, "new")), Some(Ino(11)));
    assert_eq!(names.get(&at(Ino(11), "file")), Some(Ino(10)));
}

#[test]
fn a_directory_is_not_removed_without_what_emptied_it() {
    let mut names = Names::new();
    names.add_dir(Ino(11));
    names.add_durable(&at(ROOT, "old"), Ino(11));
    names.add_durable(&at(Ino(11), "file"), Ino(10));
    names.change(vec![
        (at(Ino(11), "file"), None),
        (at(ROOT, "file"), Some(Ino(10))),
    ]);
    names.change(vec![(at(ROOT, "old"), None)]);
    let mut asked = 0;
    names.power_cut(|| {
        asked += 1;
        false
    });
    assert_eq!(asked, 1, "the removal hangs on the move");
    assert_eq!(names.get(&at(Ino(11), "file")), Some(Ino(10)));
    assert_eq!(names.get(&at(ROOT, "old")), Some(Ino(11)));
}

#[test]
fn a_new_directory_is_not_durable_by_its_own_sync() {
    let mut names = Names::new();
    names.add_dir(Ino(11));
    names.change(vec![(at(ROOT, "new"), Some(Ino(11)))]);
    names.change(vec![(at(Ino(11), "file"), Some(Ino(12)))]);
    names.sync(Ino(11));
    let told = names.power_cut(|| false);
    assert_eq!(told, ["new not created"]);
    assert!(!names.collect().contains(&Ino(12)));
}
