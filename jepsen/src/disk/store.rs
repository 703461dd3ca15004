//! The files of a disk, on the backing directory: what is there now, and all that it takes to undo what is not durable.
//!
//! While mounted, every file lies under its number in one flat folder, so that a name that comes back finds its bytes;
//! directories lie there too, empty, for their attributes. At unmount the tree is laid out as plain files again.

use super::faults::{Flip, Loss, Lost};
use super::names::{Ino, Names, ROOT, Slot};
use super::pages::{PAGE, Unsynced};
use anyhow::{Context, bail};
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The folder of numbered files in the backing directory, while the disk is mounted.
const HELD: &str = ".held";

/// A regular file.
struct Regular {
    unsynced: Unsynced,
    /// Bytes that it takes on the disk.
    reserved: u64,
}

/// Something that is open.
#[derive(Clone)]
pub(super) enum Handle {
    File(Ino, Arc<File>),
    Dir(Arc<Vec<(Ino, OsString)>>),
}

pub(super) struct Store {
    backing: PathBuf,
    names: Names,
    files: BTreeMap<Ino, Regular>,
    handles: BTreeMap<u64, Handle>,
    numbers: u64,
    pub(super) space_left: Option<u64>,
    random: ChaCha8Rng,
}

fn fail<T>(errno: Errno) -> io::Result<T> {
    Err(errno.into())
}

impl Store {
    /// Takes over what is in `backing`; all of it is durable.
    pub(super) fn open(backing: &Path, seed: u64) -> anyhow::Result<Self> {
        let held = backing.join(HELD);
        if held.exists() {
            bail!(
                "{} is what a harness left that was killed while its disk was mounted: no file in it has a name any \
                 more; remove {}",
                held.display(),
                backing.display()
            );
        }
        fs::create_dir(&held).with_context(|| format!("cannot create {}", held.display()))?;
        let mut store = Store {
            backing: backing.to_owned(),
            names: Names::new(),
            files: BTreeMap::new(),
            handles: BTreeMap::new(),
            numbers: ROOT.0,
            space_left: None,
            random: ChaCha8Rng::seed_from_u64(seed),
        };
        fs::create_dir(store.held(ROOT))?;
        store
            .take_over(backing, ROOT, &mut BTreeMap::new())
            .with_context(|| format!("cannot take over {}", backing.display()))?;
        Ok(store)
    }

    fn take_over(&mut self, path: &Path, dir: Ino, links: &mut BTreeMap<u64, Ino>) -> io::Result<()> {
        fs::set_permissions(self.held(dir), fs::metadata(path)?.permissions())?;
        for entry in fs::read_dir(path)? {
            let (name, path) = entry.map(|entry| (entry.file_name(), entry.path()))?;
            if name == HELD {
                continue;
            }
            let meta = fs::symlink_metadata(&path)?;
            if let Some(ino) = links.get(&meta.ino()) {
                self.names.add_durable(&Slot::new(dir, &name), *ino);
                fs::remove_file(&path)?;
                continue;
            }
            let ino = self.next_ino();
            if meta.is_dir() {
                fs::create_dir(self.held(ino))?;
                self.names.add_dir(ino);
                self.take_over(&path, ino, links)?;
                fs::remove_dir(&path)?;
            } else {
                fs::rename(&path, self.held(ino))?;
                links.insert(meta.ino(), ino);
                if meta.is_file() {
                    self.add_file(ino, meta.len());
                }
            }
            self.names.add_durable(&Slot::new(dir, &name), ino);
        }
        Ok(())
    }

    /// Lays the tree out in the backing directory as it is now; the store is of no use afterwards.
    pub(super) fn lay_out(&mut self) -> io::Result<()> {
        self.handles.clear();
        for (path, ino) in self.names.walk() {
            let path = self.backing.join(path);
            if self.names.is_dir(ino) {
                fs::create_dir(&path)?;
                fs::set_permissions(&path, fs::metadata(self.held(ino))?.permissions())?;
            } else {
                fs::hard_link(self.held(ino), &path)?;
            }
        }
        fs::remove_dir_all(self.backing.join(HELD))
    }

    fn held(&self, ino: Ino) -> PathBuf {
        self.backing.join(HELD).join(ino.0.to_string())
    }

    fn next_ino(&mut self) -> Ino {
        self.numbers += 1;
        Ino(self.numbers)
    }

    fn add_file(&mut self, ino: Ino, durable_bytes: u64) {
        let file = Regular {
            unsynced: Unsynced::durable(durable_bytes),
            reserved: durable_bytes.next_multiple_of(PAGE),
        };
        self.files.insert(ino, file);
    }

    // Names.

    pub(super) fn lookup(&self, slot: &Slot) -> io::Result<Ino> {
        self.names.get(slot).ok_or_else(|| Errno::ENOENT.into())
    }

    /// Its attributes and how many names it has.
    pub(super) fn attributes(&self, ino: Ino) -> io::Result<(Metadata, u32)> {
        let links = if self.names.is_dir(ino) {
            2
        } else {
            self.names.links(ino)
        };
        Ok((fs::symlink_metadata(self.held(ino))?, links))
    }

    fn free_slot(&self, slot: &Slot) -> io::Result<()> {
        if !self.names.is_dir(slot.dir) {
            return fail(Errno::ENOENT);
        }
        if self.names.get(slot).is_some() {
            return fail(Errno::EEXIST);
        }
        match self.space_left {
            Some(left) if left < PAGE => fail(Errno::ENOSPC),
            _ => Ok(()),
        }
    }

    pub(super) fn create(&mut self, slot: Slot, mode: u32) -> io::Result<Ino> {
        self.free_slot(&slot)?;
        let ino = self.next_ino();
        let mut options = File::options();
        options.write(true).create_new(true).mode(mode);
        options.open(self.held(ino))?;
        self.add_file(ino, 0);
        self.names.change(vec![(slot, Some(ino))]);
        Ok(ino)
    }

    pub(super) fn make_dir(&mut self, slot: Slot, mode: u32) -> io::Result<Ino> {
        self.free_slot(&slot)?;
        let ino = self.next_ino();
        fs::create_dir(self.held(ino))?;
        fs::set_permissions(self.held(ino), fs::Permissions::from_mode(mode))?;
        self.names.add_dir(ino);
        self.names.change(vec![(slot, Some(ino))]);
        Ok(ino)
    }

    pub(super) fn make_symlink(&mut self, slot: Slot, target: &Path) -> io::Result<Ino> {
        self.free_slot(&slot)?;
        let ino = self.next_ino();
        symlink(target, self.held(ino))?;
        self.names.change(vec![(slot, Some(ino))]);
        Ok(ino)
    }

    pub(super) fn read_link(&self, ino: Ino) -> io::Result<PathBuf> {
        fs::read_link(self.held(ino))
    }

    pub(super) fn link(&mut self, ino: Ino, slot: Slot) -> io::Result<()> {
        self.free_slot(&slot)?;
        if self.names.is_dir(ino) {
            return fail(Errno::EPERM);
        }
        if self.names.links(ino) == 0 {
            return fail(Errno::ENOENT);
        }
        self.names.change(vec![(slot, Some(ino))]);
        Ok(())
    }

    pub(super) fn unlink(&mut self, slot: Slot) -> io::Result<()> {
        let ino = self.lookup(&slot)?;
        if self.names.is_dir(ino) {
            return fail(Errno::EISDIR);
        }
        self.names.change(vec![(slot, None)]);
        self.unnamed(ino);
        Ok(())
    }

    pub(super) fn remove_dir(&mut self, slot: Slot) -> io::Result<()> {
        let ino = self.lookup(&slot)?;
        if !self.names.is_dir(ino) {
            return fail(Errno::ENOTDIR);
        }
        if self.names.entries(ino).next().is_some() {
            return fail(Errno::ENOTEMPTY);
        }
        self.names.change(vec![(slot, None)]);
        Ok(())
    }

    pub(super) fn rename(&mut self, from: Slot, to: Slot, replace: bool) -> io::Result<()> {
        let ino = self.lookup(&from)?;
        if !self.names.is_dir(to.dir) {
            return fail(Errno::ENOENT);
        }
        let replaced = self.names.get(&to);
        match replaced {
            Some(other) if other == ino => return Ok(()),
            Some(_) if !replace => return fail(Errno::EEXIST),
            Some(other) => match (self.names.is_dir(ino), self.names.is_dir(other)) {
                (true, false) => return fail(Errno::ENOTDIR),
                (false, true) => return fail(Errno::EISDIR),
                (true, true) if self.names.entries(other).next().is_some() => return fail(Errno::ENOTEMPTY),
                _ => {}
            },
            None => {}
        }
        self.names.change(vec![(from, None), (to, Some(ino))]);
        if let Some(other) = replaced {
            self.unnamed(other);
        }
        Ok(())
    }

    /// A name of it is gone; with the last one goes its space.
    fn unnamed(&mut self, ino: Ino) {
        if self.names.links(ino) == 0
            && let Some(file) = self.files.get_mut(&ino)
        {
            let freed = std::mem::take(&mut file.reserved);
            if let Some(left) = &mut self.space_left {
                *left += freed;
            }
        }
    }

    // What is open.

    pub(super) fn open_file(&mut self, ino: Ino) -> io::Result<u64> {
        let file = File::options().read(true).write(true).open(self.held(ino))?;
        Ok(self.add_handle(Handle::File(ino, Arc::new(file))))
    }

    pub(super) fn open_dir(&mut self, ino: Ino) -> u64 {
        let entries = self.names.entries(ino);
        let entries = entries.map(|(name, ino)| (ino, name.to_owned())).collect();
        self.add_handle(Handle::Dir(Arc::new(entries)))
    }

    fn add_handle(&mut self, handle: Handle) -> u64 {
        self.numbers += 1;
        self.handles.insert(self.numbers, handle);
        self.numbers
    }

    pub(super) fn file(&self, handle: u64) -> io::Result<(Ino, Arc<File>)> {
        match self.handles.get(&handle) {
            Some(Handle::File(ino, file)) => Ok((*ino, file.clone())),
            _ => fail(Errno::EBADF),
        }
    }

    pub(super) fn dir(&self, handle: u64) -> io::Result<Arc<Vec<(Ino, OsString)>>> {
        match self.handles.get(&handle) {
            Some(Handle::Dir(entries)) => Ok(entries.clone()),
            _ => fail(Errno::EBADF),
        }
    }

    pub(super) fn close(&mut self, handle: u64) {
        if let Some(Handle::File(ino, _)) = self.handles.remove(&handle)
            && self.names.links(ino) == 0
        {
            self.collect();
        }
    }

    pub(super) fn path_of(&self, ino: Ino) -> PathBuf {
        self.held(ino)
    }

    pub(super) fn is_dir(&self, ino: Ino) -> bool {
        self.names.is_dir(ino)
    }

    // Bytes.

    /// Writes as much of `bytes` as there is space for; with `durable`, at once to the disk.
    pub(super) fn write(
        &mut self,
        handle: u64,
        offset: u64,
        bytes: &[u8],
        durable: bool,
    ) -> io::Result<usize> {
        let (ino, file) = self.file(handle)?;
        let end = self.room(ino, offset + bytes.len() as u64);
        if end <= offset && !bytes.is_empty() {
            return fail(Errno::ENOSPC);
        }
        let bytes = &bytes[..(end - offset) as usize];
        self.take(ino, end);
        let Some(regular) = self.files.get_mut(&ino) else {
            return fail(Errno::ESTALE);
        };
        regular.unsynced.before_write(&file, offset..end)?;
        file.write_all_at(bytes, offset)?;
        if durable {
            regular.unsynced.synced_range(offset..end, file.metadata()?.len());
        }
        Ok(bytes.len())
    }

    pub(super) fn resize(&mut self, ino: Ino, to: u64) -> io::Result<()> {
        let file = File::options().read(true).write(true).open(self.held(ino))?;
        let Some(regular) = self.files.get_mut(&ino) else {
            return fail(Errno::EISDIR);
        };
        let size = file.metadata()?.len();
        regular.unsynced.before_resize(&file, size, to)?;
        file.set_len(to)?;
        let needed = to.next_multiple_of(PAGE);
        // Growing a file makes a hole; cutting it gives its space back.
        if let Some(freed) = regular.reserved.checked_sub(needed) {
            regular.reserved = needed;
            if let Some(left) = &mut self.space_left {
                *left += freed;
            }
        }
        Ok(())
    }

    pub(super) fn allocate(&mut self, handle: u64, offset: u64, bytes: u64, mode: i32) -> io::Result<()> {
        let (ino, file) = self.file(handle)?;
        let flags = FallocateFlags::from_bits(mode).ok_or(Errno::EOPNOTSUPP)?;
        let in_place = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_ZERO_RANGE;
        if !(flags - in_place - FallocateFlags::FALLOC_FL_KEEP_SIZE).is_empty() {
            return fail(Errno::EOPNOTSUPP);
        }
        let end = offset + bytes;
        if !flags.contains(FallocateFlags::FALLOC_FL_PUNCH_HOLE) {
            if self.room(ino, end) < end {
                return fail(Errno::ENOSPC);
            }
            self.take(ino, end);
        }
        if flags.intersects(in_place)
            && let Some(regular) = self.files.get_mut(&ino)
        {
            let end = end.min(file.metadata()?.len());
            regular.unsynced.before_write(&file, offset..end)?;
        }
        let limit = |number| i64::try_from(number).map_err(|_| Errno::EFBIG);
        Ok(fallocate(&*file, flags, limit(offset)?, limit(bytes)?)?)
    }

    /// How far up to `end` the file can reach on this disk.
    fn room(&self, ino: Ino, end: u64) -> u64 {
        match (self.space_left, self.files.get(&ino)) {
            (Some(left), Some(file)) => end.min(file.reserved + left / PAGE * PAGE),
            _ => end,
        }
    }

    fn take(&mut self, ino: Ino, end: u64) {
        let Some(file) = self.files.get_mut(&ino) else {
            return;
        };
        let more = end.next_multiple_of(PAGE).saturating_sub(file.reserved);
        file.reserved += more;
        if let Some(left) = &mut self.space_left {
            *left = left.saturating_sub(more);
        }
    }

    // Durability.

    pub(super) fn sync_file(&mut self, handle: u64) -> io::Result<()> {
        let (ino, file) = self.file(handle)?;
        if let Some(regular) = self.files.get_mut(&ino) {
            regular.unsynced.synced(file.metadata()?.len());
        }
        Ok(())
    }

    pub(super) fn fail_sync(&mut self, handle: u64) {
        if let Some(Handle::File(ino, _)) = self.handles.get(&handle)
            && let Some(regular) = self.files.get_mut(ino)
        {
            regular.unsynced.sync_failed();
        }
    }

    pub(super) fn sync_dir(&mut self, ino: Ino) {
        self.names.sync(ino);
        self.collect();
    }

    /// Deletes what has no name, can get none back and is not open.
    fn collect(&mut self) {
        let mut live = self.names.collect();
        live.extend(self.handles.values().filter_map(|handle| match handle {
            Handle::File(ino, _) => Some(*ino),
            Handle::Dir(_) => None,
        }));
        let gone: Vec<Ino> = self
            .files
            .keys()
            .filter(|ino| !live.contains(ino))
            .copied()
            .collect();
        for ino in gone {
            self.files.remove(&ino);
            // It may be gone from the backing directory only with the directory itself.
            let _ = fs::remove_file(self.held(ino));
        }
    }

    /// What failed syncs dropped is gone from the page cache too. Returns the bytes that read differently now.
    pub(super) fn evict_dropped(&mut self) -> io::Result<u64> {
        let mut lost = 0;
        let held = self.backing.join(HELD);
        for (ino, regular) in &mut self.files {
            if regular.unsynced.has_dropped() {
                let path = held.join(ino.0.to_string());
                let file = File::options().read(true).write(true).open(path)?;
                lost += regular.unsynced.evict_dropped(&file)?;
            }
        }
        Ok(lost)
    }

    /// The power is cut. What was open is closed, as the processes that had it open are gone.
    pub(super) fn power_cut(&mut self, loss: Loss) -> io::Result<Lost> {
        self.handles.clear();
        let chance = self.random.random_range(0.1..0.9);
        let random = &mut self.random;
        let names = self
            .names
            .power_cut(|| loss != Loss::All && random.random_bool(chance));
        let mut bytes = BTreeMap::new();
        let held = self.backing.join(HELD);
        for (ino, regular) in &mut self.files {
            let path = held.join(ino.0.to_string());
            let file = File::options().read(true).write(true).open(path)?;
            bytes.insert(*ino, regular.unsynced.power_cut(&file, loss, &mut self.random)?);
            regular.reserved = file.metadata()?.len().next_multiple_of(PAGE);
        }
        self.collect();
        let files = self.names.walk().into_iter();
        let files = files.filter_map(|(path, ino)| Some((path, *bytes.get(&ino)?)));
        Ok(Lost {
            files: files.filter(|(_, bytes)| *bytes > 0).collect(),
            bytes: bytes.values().sum(),
            names,
        })
    }

    /// Flips `count` bits of the files that `pick` names by their path, each byte as likely as another.
    pub(super) fn flip_bits(&mut self, pick: &dyn Fn(&Path) -> bool, count: usize) -> io::Result<Vec<Flip>> {
        let mut picked = Vec::new();
        for (path, ino) in self.names.walk() {
            if self.files.contains_key(&ino) && pick(&path) {
                let bytes = fs::metadata(self.held(ino))?.len();
                picked.push((path, ino, bytes));
            }
        }
        let total: u64 = picked.iter().map(|(_, _, bytes)| bytes).sum();
        let mut flips = Vec::new();
        for _ in 0..if total == 0 { 0 } else { count } {
            let mut offset = self.random.random_range(0..total);
            let bit = self.random.random_range(0..8);
            let at = picked.iter().find(|(_, _, bytes)| {
                let here = offset < *bytes;
                offset -= if here { 0 } else { *bytes };
                here
            });
            let Some((path, ino, _)) = at else { continue };
            self.flip(*ino, offset, 1 << bit)?;
            let file = path.clone();
            flips.push(Flip { file, offset, bit });
        }
        Ok(flips)
    }

    fn flip(&mut self, ino: Ino, offset: u64, mask: u8) -> io::Result<()> {
        let file = File::options().read(true).write(true).open(self.held(ino))?;
        let mut byte = [0];
        file.read_exact_at(&mut byte, offset)?;
        file.write_all_at(&[byte[0] ^ mask], offset)?;
        if let Some(regular) = self.files.get_mut(&ino) {
            regular.unsynced.flip(offset, mask);
        }
        Ok(())
    }

    /// How many bytes the backing directory's disk has: all, and free.
    pub(super) fn space(&self) -> io::Result<(u64, u64)> {
        let disk = nix::sys::statvfs::statvfs(&self.backing)?;
        let block = disk.fragment_size();
        let free = disk.blocks_available() * block;
        let free = self.space_left.map_or(free, |left| left.min(free));
        Ok((disk.blocks() * block, free))
    }
}
