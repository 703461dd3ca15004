//! The names of a file system: which file each entry of each directory is, and which changes a power cut may take back.
//!
//! A change to a directory is durable once that directory is synced; syncing the file does nothing for its name. What
//! hangs together stays together, as a file system's journal sees to: a rename is never half done, a name that changed
//! twice does not lose the first change alone, and no file that was moved goes missing, be it with the directory that
//! it came from or with the one that it went to.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

/// A file, directory or symbolic link; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ino(pub u64);

/// The root directory, as the kernel numbers it.
pub(super) const ROOT: Ino = Ino(1);

/// One place for a name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Slot {
    pub(super) dir: Ino,
    pub(super) name: OsString,
}

impl Slot {
    pub(super) fn new(dir: Ino, name: &OsStr) -> Self {
        let name = name.to_owned();
        Slot { dir, name }
    }
}

/// What a slot held and holds.
#[derive(Debug, Clone)]
struct Change {
    slot: Slot,
    before: Option<Ino>,
    after: Option<Ino>,
}

/// Changes that are made, and taken back, together.
#[derive(Debug)]
struct Step {
    changes: Vec<Change>,
    /// The steps that must be durable before this one may be.
    waits_for: BTreeSet<u64>,
}

impl Step {
    fn touches(&self, dir: Ino) -> bool {
        self.changes.iter().any(|change| change.slot.dir == dir)
    }

    /// Whether it took the last name that a directory can have.
    fn removes(&self, dir: Ino) -> bool {
        self.changes.iter().any(|change| change.before == Some(dir)) && !self.places(dir)
    }

    fn places(&self, ino: Ino) -> bool {
        self.changes.iter().any(|change| change.after == Some(ino))
    }

    fn inodes(&self) -> impl Iterator<Item = Ino> {
        self.changes
            .iter()
            .flat_map(|change| [Some(change.slot.dir), change.before, change.after])
            .flatten()
    }
}

/// All directories, as they are now, with the steps that are not durable.
#[derive(Debug, Default)]
pub(super) struct Names {
    dirs: BTreeMap<Ino, BTreeMap<OsString, Ino>>,
    links: BTreeMap<Ino, u32>,
    pending: BTreeMap<u64, Step>,
    steps: u64,
}

impl Names {
    pub(super) fn new() -> Self {
        let mut names = Names::default();
        names.add_dir(ROOT);
        names
    }

    /// A new directory, without entries and not named yet.
    pub(super) fn add_dir(&mut self, ino: Ino) {
        self.dirs.insert(ino, BTreeMap::new());
    }

    pub(super) fn is_dir(&self, ino: Ino) -> bool {
        self.dirs.contains_key(&ino)
    }

    pub(super) fn get(&self, slot: &Slot) -> Option<Ino> {
        self.dirs.get(&slot.dir)?.get(&slot.name).copied()
    }

    pub(super) fn entries(&self, dir: Ino) -> impl Iterator<Item = (&OsStr, Ino)> {
        let entries = self.dirs.get(&dir).into_iter().flatten();
        entries.map(|(name, ino)| (name.as_os_str(), *ino))
    }

    /// How many names it has.
    pub(super) fn links(&self, ino: Ino) -> u32 {
        self.links.get(&ino).copied().unwrap_or(0)
    }

    /// Adds an entry that is durable.
    pub(super) fn add_durable(&mut self, slot: &Slot, ino: Ino) {
        self.set(slot, Some(ino));
    }

    /// Gives each slot its new content, all at once; not durable yet.
    pub(super) fn change(&mut self, changes: Vec<(Slot, Option<Ino>)>) {
        let changes: Vec<Change> = changes
            .into_iter()
            .map(|(slot, after)| Change {
                before: self.get(&slot),
                slot,
                after,
            })
            .collect();
        let mut step = Step {
            changes,
            waits_for: BTreeSet::new(),
        };
        step.waits_for = self.needed_before(&step);
        for change in &step.changes {
            self.set(&change.slot, change.after);
        }
        self.steps += 1;
        self.pending.insert(self.steps, step);
    }

    /// Makes the entries of `dir` durable, with what they hang on.
    pub(super) fn sync(&mut self, dir: Ino) {
        let touching = self.pending.iter().filter(|(_, step)| step.touches(dir));
        let mut due: Vec<u64> = touching.map(|(id, _)| *id).collect();
        while let Some(id) = due.pop() {
            if let Some(step) = self.pending.remove(&id) {
                due.extend(step.waits_for);
            }
        }
    }

    /// The power is cut: takes back every pending step that does not survive, and calls the rest durable. `survives` is
    /// asked only for steps that may. Returns what was taken back, newest first.
    pub(super) fn power_cut(&mut self, mut survives: impl FnMut() -> bool) -> Vec<String> {
        let mut lost: BTreeMap<u64, Step> = BTreeMap::new();
        for (id, step) in std::mem::take(&mut self.pending) {
            let held = step.waits_for.iter().any(|earlier| lost.contains_key(earlier));
            if held || !survives() {
                lost.insert(id, step);
            }
        }
        let mut told = Vec::new();
        for step in lost.into_values().rev() {
            let words: Vec<String> = step.changes.iter().map(|change| self.tell(change)).collect();
            told.push(words.join(", "));
            for change in step.changes.iter().rev() {
                self.set(&change.slot, change.before);
            }
        }
        told
    }

    /// Everything that has a name, or may get it back; forgets directories that have not.
    pub(super) fn collect(&mut self) -> BTreeSet<Ino> {
        let mut live = BTreeSet::new();
        let mut found: Vec<Ino> = self.pending.values().flat_map(Step::inodes).collect();
        found.push(ROOT);
        while let Some(ino) = found.pop() {
            if live.insert(ino) {
                found.extend(self.entries(ino).map(|(_, child)| child));
            }
        }
        self.dirs.retain(|ino, _| live.contains(ino));
        self.links.retain(|ino, _| live.contains(ino));
        live
    }

    /// Every file, directory and link that a path leads to, parents first.
    pub(super) fn walk(&self) -> Vec<(PathBuf, Ino)> {
        let mut found = vec![(PathBuf::new(), ROOT)];
        let mut at = 0;
        while let Some((path, ino)) = found.get(at).cloned() {
            found.extend(self.entries(ino).map(|(name, child)| (path.join(name), child)));
            at += 1;
        }
        found.remove(0);
        found
    }

    fn set(&mut self, slot: &Slot, ino: Option<Ino>) {
        let entries = self.dirs.entry(slot.dir).or_default();
        let before = match ino {
            Some(ino) => entries.insert(slot.name.clone(), ino),
            None => entries.remove(&slot.name),
        };
        if let Some(ino) = ino {
            *self.links.entry(ino).or_default() += 1;
        }
        if let Some(count) = before.and_then(|ino| self.links.get_mut(&ino)) {
            *count = count.saturating_sub(1);
        }
    }

    /// The pending steps without which `step` would leave what no file system leaves.
    fn needed_before(&self, step: &Step) -> BTreeSet<u64> {
        let mut needed = BTreeSet::new();
        for change in &step.changes {
            for (id, earlier) in &self.pending {
                let same_slot = earlier.changes.iter().any(|other| other.slot == change.slot);
                // An emptied directory is not removed with what was in it.
                let emptied = |dir| step.removes(dir) && earlier.touches(dir);
                // Directories that move in another order than they did could end up inside each other.
                let moved_dir = |dir| self.is_dir(dir) && !step.removes(dir) && self.moves_a_dir(earlier);
                if same_slot || change.before.is_some_and(|ino| emptied(ino) || moved_dir(ino)) {
                    needed.insert(*id);
                }
            }
            let moved = change
                .after
                .is_some_and(|ino| step.changes.iter().any(|other| other.before == Some(ino)));
            if moved {
                self.add_placing(change.slot.dir, &mut needed);
            }
        }
        needed
    }

    fn moves_a_dir(&self, step: &Step) -> bool {
        let mut moved = step.changes.iter().filter_map(|change| change.before);
        moved.any(|ino| self.is_dir(ino) && step.places(ino))
    }

    /// The steps that put `dir`, and the directories above it, where they are.
    fn add_placing(&self, dir: Ino, needed: &mut BTreeSet<u64>) {
        let mut newest_first = self.pending.iter().rev();
        let Some((id, step)) = newest_first.find(|(_, step)| step.places(dir)) else {
            // It has long been there, but a directory above it may not have been.
            if let Some(parent) = self.parent(dir) {
                self.add_placing(parent, needed);
            }
            return;
        };
        needed.insert(*id);
        for change in step.changes.iter().filter(|change| change.after == Some(dir)) {
            self.add_placing(change.slot.dir, needed);
        }
    }

    fn parent(&self, dir: Ino) -> Option<Ino> {
        let mut dirs = self.dirs.iter();
        dirs.find(|(_, entries)| entries.values().any(|ino| *ino == dir))
            .map(|(parent, _)| *parent)
    }

    fn tell(&self, change: &Change) -> String {
        let path = self.path(&change.slot);
        match (change.before, change.after) {
            (None, _) => format!("{path} not created"),
            (_, None) => format!("{path} not removed"),
            _ => format!("{path} not replaced"),
        }
    }

    fn path(&self, slot: &Slot) -> String {
        let name = slot.name.to_string_lossy();
        let at = self.dirs.iter().find_map(|(parent, entries)| {
            let (name, _) = entries.iter().find(|(_, ino)| **ino == slot.dir)?;
            Some(Slot::new(*parent, name))
        });
        match at {
            Some(dir) => format!("{}/{name}", self.path(&dir)),
            None => name.into_owned(),
        }
    }
}
