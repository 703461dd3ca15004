//! A disk in RAM, which knows what is durable and what a loss of power may take.
//!
//! Writes to a file are durable once the file is synced, names once their directory is. When the power goes, each file
//! keeps some of its unsynced writes, in order, and perhaps a part of the next; of the unsynced changes of names some of
//! the first are kept, in the order in which they were made, as a journaling file system does it.

use super::process::Process;
use super::world::World;
use crate::files::{File, Files, Listed, Lock, Open};
use crate::room::Space;
use rand::RngExt;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How a disk behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DiskFaults {
    /// The shortest time that a sync takes, in µs.
    pub sync_us_min: u64,
    /// The longest.
    pub sync_us_max: u64,
    /// How many of a million syncs fail.
    pub failed_syncs_ppm: u32,
    /// How many bytes files may still grow by in all; `None` where there is no end to it. What is deleted makes no room:
    /// somebody else takes it.
    pub room_bytes: Option<u64>,
}

/// The number of Linux for a disk without room.
const ENOSPC: i32 = 28;

#[derive(Clone)]
enum Entry {
    Directory,
    File(Arc<Mutex<Content>>),
}

#[derive(Default)]
struct Content {
    bytes: Vec<u8>,
    /// What each write since the last sync took the place of, oldest first.
    unsynced: Vec<Overwritten>,
}

struct Overwritten {
    offset: usize,
    written: usize,
    bytes: Vec<u8>,
    length: usize,
}

impl Content {
    fn undo(&mut self, write: &Overwritten, kept: usize) {
        let new: Vec<u8> = self.bytes[write.offset..write.offset + kept].to_vec();
        let end = (write.offset + write.bytes.len()).min(self.bytes.len());
        self.bytes[write.offset..end].copy_from_slice(&write.bytes[..end - write.offset]);
        self.bytes.truncate(write.length.max(write.offset + kept));
        self.bytes[write.offset..write.offset + kept].copy_from_slice(&new);
    }

    /// Undoes what was not synced, all but some of the first writes and perhaps a part of the next.
    fn lose_power(&mut self, world: &World) -> usize {
        let unsynced = std::mem::take(&mut self.unsynced);
        let kept = world.random(|rng| rng.random_range(0..=unsynced.len()));
        for (place, write) in unsynced.iter().enumerate().skip(kept).rev() {
            let torn = world.random(|rng| {
                if place == kept && rng.random_bool(0.5) {
                    rng.random_range(0..=write.written)
                } else {
                    0
                }
            });
            self.undo(write, torn);
        }
        unsynced.len() - kept
    }
}

/// A change of names that is not durable yet: the directories that it touched, and what the names meant before.
struct Renamed {
    directories: Vec<PathBuf>,
    before: Vec<(PathBuf, Option<Entry>)>,
}

#[derive(Default)]
struct Tree {
    entries: BTreeMap<PathBuf, Entry>,
    unsynced: Vec<Renamed>,
    faults: DiskFaults,
}

/// The disk of a machine.
#[derive(Default)]
pub(crate) struct SimulatedDisk(Mutex<Tree>);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn missing(path: &Path) -> io::Error {
    io::Error::new(
        io::ErrorKind::NotFound,
        format!("{} is not there", path.display()),
    )
}

impl Tree {
    /// Changes what names mean, and remembers what they meant.
    fn change(&mut self, changes: Vec<(PathBuf, Option<Entry>)>) {
        let mut renamed = Renamed {
            directories: Vec::new(),
            before: Vec::new(),
        };
        for (path, entry) in changes {
            let before = match entry {
                Some(entry) => self.entries.insert(path.clone(), entry),
                None => self.entries.remove(&path),
            };
            renamed.directories.extend(path.parent().map(Path::to_owned));
            renamed.before.push((path, before));
        }
        self.unsynced.push(renamed);
    }

    fn below(&self, dir: &Path) -> Vec<(PathBuf, Entry)> {
        self.entries
            .range(dir.to_owned()..)
            .take_while(|(path, _)| path.starts_with(dir))
            .map(|(path, entry)| (path.clone(), entry.clone()))
            .collect()
    }

    fn file(&self, path: &Path) -> Option<Arc<Mutex<Content>>> {
        match self.entries.get(path) {
            Some(Entry::File(content)) => Some(content.clone()),
            _ => None,
        }
    }
}

impl SimulatedDisk {
    pub(crate) fn set_faults(&self, faults: DiskFaults) {
        lock(&self.0).faults = faults;
    }

    pub(crate) fn wipe(&self) {
        let mut tree = lock(&self.0);
        let faults = tree.faults;
        *tree = Tree {
            faults,
            ..Tree::default()
        };
    }

    /// How long the next sync takes.
    pub(crate) fn pause(&self, world: &World) -> Duration {
        let faults = lock(&self.0).faults;
        let (shortest, longest) = (faults.sync_us_min, faults.sync_us_max.max(faults.sync_us_min));
        Duration::from_micros(world.random(|rng| rng.random_range(shortest..=longest)))
    }

    pub(crate) fn lose_power(&self, world: &World, machine: u64) {
        let mut tree = lock(&self.0);
        let unsynced = std::mem::take(&mut tree.unsynced);
        let kept = world.random(|rng| rng.random_range(0..=unsynced.len()));
        let names = unsynced.len() - kept;
        for renamed in unsynced.into_iter().skip(kept).rev() {
            for (path, before) in renamed.before.into_iter().rev() {
                match before {
                    Some(entry) => tree.entries.insert(path, entry),
                    None => tree.entries.remove(&path),
                };
            }
        }
        let mut writes = 0;
        for entry in tree.entries.values() {
            if let Entry::File(content) = entry {
                writes += lock(content).lose_power(world);
            }
        }
        world.note(|| format!("n{machine} loses {writes} writes and {names} changes of names"));
    }
}

/// The disk as a process sees it: once the process has ended it reaches nothing any more.
pub(crate) struct MachineFiles(Arc<Process>);

impl MachineFiles {
    pub(crate) fn new(process: Arc<Process>) -> Self {
        MachineFiles(process)
    }

    fn tree(&self) -> io::Result<MutexGuard<'_, Tree>> {
        if self.0.has_ended() {
            return Err(io::Error::other("the process has ended"));
        }
        Ok(lock(&self.0.machine.disk.0))
    }
}

/// Fails where the disk fails this sync.
fn sync_fault(process: &Process, tree: &Tree, what: &dyn std::fmt::Display) -> io::Result<()> {
    let ppm = tree.faults.failed_syncs_ppm;
    let machine = &process.machine;
    if ppm == 0 || machine.world.random(|rng| rng.random_range(0..1_000_000)) >= ppm {
        return Ok(());
    }
    machine
        .world
        .note(|| format!("n{} a sync of {what} fails", machine.id));
    Err(io::Error::other("input/output error"))
}

/// What a write says on a full disk.
fn no_room(process: &Process, what: &dyn std::fmt::Display) -> io::Error {
    let machine = &process.machine;
    machine
        .world
        .note(|| format!("n{} has no room for {what}", machine.id));
    io::Error::from_raw_os_error(ENOSPC)
}

struct OpenFile {
    process: Arc<Process>,
    path: PathBuf,
    content: Arc<Mutex<Content>>,
}

impl OpenFile {
    fn content(&self) -> io::Result<MutexGuard<'_, Content>> {
        if self.process.has_ended() {
            return Err(io::Error::other("the process has ended"));
        }
        Ok(lock(&self.content))
    }

    /// Takes so much of the room that the disk has, or as much as there is.
    fn take_room(&self, growth: usize) -> usize {
        let mut tree = lock(&self.process.machine.disk.0);
        let Some(room) = &mut tree.faults.room_bytes else {
            return growth;
        };
        let taken = growth.min(usize::try_from(*room).unwrap_or(usize::MAX));
        *room -= taken as u64;
        taken
    }
}

impl File for OpenFile {
    fn length(&self) -> io::Result<u64> {
        Ok(self.content()?.bytes.len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let content = self.content()?;
        let from = (offset as usize).min(content.bytes.len());
        let count = buffer.len().min(content.bytes.len() - from);
        buffer[..count].copy_from_slice(&content.bytes[from..from + count]);
        Ok(count)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let (offset, length) = (offset as usize, self.content()?.bytes.len());
        let growth = (offset + bytes.len()).saturating_sub(length);
        let missing = growth - self.take_room(growth);
        let mut content = self.content()?;
        // As much as there is room for.
        let bytes = &bytes[..bytes.len() - missing.min(bytes.len())];
        let end = offset + bytes.len();
        let overwritten = content.bytes[offset.min(length)..end.min(length)].to_vec();
        if end > length {
            content.bytes.resize(end, 0);
        }
        content.bytes[offset..end].copy_from_slice(bytes);
        content.unsynced.push(Overwritten {
            offset,
            written: bytes.len(),
            bytes: overwritten,
            length,
        });
        if missing > 0 {
            return Err(no_room(&self.process, &self.path.display()));
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let machine = &self.process.machine;
        sync_fault(&self.process, &lock(&machine.disk.0), &self.path.display())?;
        self.content()?.unsynced.clear();
        Ok(())
    }
}

impl Files for MachineFiles {
    fn open(&self, path: &Path, how: Open) -> io::Result<Box<dyn File>> {
        let mut tree = self.tree()?;
        let content = match (tree.file(path), how) {
            (Some(_), Open::New) => return Err(io::ErrorKind::AlreadyExists.into()),
            (Some(content), _) => content,
            (None, Open::Read) => return Err(missing(path)),
            (None, Open::Write | Open::New) => {
                if tree.faults.room_bytes == Some(0) {
                    return Err(no_room(&self.0, &path.display()));
                }
                let parent = path.parent().unwrap_or(path);
                if !matches!(tree.entries.get(parent), Some(Entry::Directory)) {
                    return Err(missing(parent));
                }
                let content = Arc::new(Mutex::new(Content::default()));
                tree.change(vec![(path.to_owned(), Some(Entry::File(content.clone())))]);
                content
            }
        };
        Ok(Box::new(OpenFile {
            process: self.0.clone(),
            path: path.to_owned(),
            content,
        }))
    }

    fn exists(&self, path: &Path) -> bool {
        self.tree().is_ok_and(|tree| tree.entries.contains_key(path))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Listed>> {
        let tree = self.tree()?;
        if !tree.entries.contains_key(dir) {
            return Err(missing(dir));
        }
        let inside = tree.below(dir).into_iter().filter_map(|(path, entry)| {
            let name = path.strip_prefix(dir).ok()?.to_str()?.to_owned();
            let is_dir = matches!(entry, Entry::Directory);
            (!name.is_empty() && !name.contains('/')).then_some(Listed { name, is_dir })
        });
        Ok(inside.collect())
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let mut tree = self.tree()?;
        let mut wanted: Vec<&Path> = path.ancestors().collect();
        wanted.reverse();
        for dir in wanted {
            if !tree.entries.contains_key(dir) {
                tree.change(vec![(dir.to_owned(), Some(Entry::Directory))]);
            }
        }
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut tree = self.tree()?;
        if tree.file(path).is_none() {
            return Err(missing(path));
        }
        tree.change(vec![(path.to_owned(), None)]);
        Ok(())
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        let mut tree = self.tree()?;
        let doomed = tree.below(path);
        if doomed.is_empty() {
            return Err(missing(path));
        }
        // File by file, as a process does it: the power may go in between.
        for (path, _) in doomed.into_iter().rev() {
            tree.change(vec![(path, None)]);
        }
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut tree = self.tree()?;
        let moved = tree.below(from);
        if moved.is_empty() {
            return Err(missing(from));
        }
        let mut changes = Vec::new();
        for (path, entry) in moved {
            let rest = path.strip_prefix(from).map_err(io::Error::other)?;
            let target = if rest.as_os_str().is_empty() {
                to.to_owned()
            } else {
                to.join(rest)
            };
            changes.push((path, None));
            changes.push((target, Some(entry)));
        }
        tree.change(changes);
        Ok(())
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut tree = self.tree()?;
        let content = tree.file(from).ok_or_else(|| missing(from))?;
        tree.change(vec![(to.to_owned(), Some(Entry::File(content)))]);
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut tree = self.tree()?;
        sync_fault(&self.0, &tree, &path.display())?;
        let touches = |renamed: &Renamed| renamed.directories.iter().any(|dir| dir == path);
        if let Some(last) = tree.unsynced.iter().rposition(touches) {
            tree.unsynced.drain(..=last);
        }
        Ok(())
    }

    /// Simulated disks do not fill up.
    fn space(&self, _path: &Path) -> io::Result<Option<Space>> {
        Ok(None)
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Lock>> {
        // One process at a time runs on a machine, and its end gives its locks back.
        self.open(path, Open::Write)?;
        Ok(Some(Box::new(())))
    }
}
