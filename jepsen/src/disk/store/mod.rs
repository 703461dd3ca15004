//! The files of a disk: what is there now, and all that it takes to undo what is not durable.

mod durability;
mod layout;

use super::names::{Ino, Names, Slot};
use super::pages::{PAGE, Unsynced};
use layout::open_held;
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use rand::rngs::ChaCha8Rng;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;

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
        let file = open_held(&self.backing, ino)?;
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
        let file = open_held(&self.backing, ino)?;
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

    /// How many bytes the backing directory's disk has: all, and free.
    pub(super) fn space(&self) -> io::Result<(u64, u64)> {
        let disk = nix::sys::statvfs::statvfs(&self.backing)?;
        let block = disk.fragment_size();
        let free = disk.blocks_available() * block;
        let free = self.space_left.map_or(free, |left| left.min(free));
        Ok((disk.blocks() * block, free))
    }
}
