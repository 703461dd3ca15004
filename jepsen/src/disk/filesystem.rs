//! What the kernel asks, answered from the [`Store`], with the faults in between.
//!
//! Files are opened for direct I/O and nothing is cached by the kernel: every read and write comes here, so that a fault
//! strikes at once and a power cut leaves nothing behind in memory. Locks are the kernel's own; extended attributes are
//! not supported.

use super::faults::{Counts, Faults};
use super::names::{Ino, Slot};
use super::store::Store;
use fuser::{
    Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, InitFlags,
    KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};
use nix::fcntl::OFlag;
use std::ffi::OsStr;
use std::fs::{self, File, FileTimes};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, lchown};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

/// Nothing is remembered by the kernel: a power cut changes it all.
const FOREVER_NEW: Duration = Duration::ZERO;
const GENERATION: Generation = Generation(0);
const BLOCK: u32 = 4096;
const NAME_BYTES_MAX: u32 = 255;

/// All that the disk is; shared by the kernel's requests and the harness.
pub(super) struct State {
    pub(super) store: Store,
    pub(super) faults: Faults,
    pub(super) counts: Counts,
}

/// The disk as the kernel sees it.
#[derive(Clone)]
pub(super) struct Disk(Arc<Mutex<State>>);

/// What a request did to be held up.
enum Kind {
    Read,
    Write,
    Sync,
}

impl Disk {
    pub(super) fn new(store: Store) -> Self {
        Disk(Arc::new(Mutex::new(State {
            store,
            faults: Faults::default(),
            counts: Counts::default(),
        })))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Locks after the delay that is set for this kind of request.
    fn lock_after_delay(&self, kind: &Kind) -> MutexGuard<'_, State> {
        let mut state = self.lock();
        let delay = match kind {
            Kind::Read => state.faults.read_delay,
            Kind::Write => state.faults.write_delay,
            Kind::Sync => state.faults.sync_delay,
        };
        if delay.is_zero() {
            return state;
        }
        state.counts.delayed += 1;
        drop(state);
        std::thread::sleep(delay);
        self.lock()
    }

    fn read_bytes(&self, handle: u64, offset: u64, size: u32) -> io::Result<Vec<u8>> {
        let mut state = self.lock_after_delay(&Kind::Read);
        if state.faults.read_errors.strike() {
            state.counts.failed_reads += 1;
            return Err(nix::errno::Errno::EIO.into());
        }
        state.counts.reads += 1;
        let (_, file) = state.store.file(handle)?;
        drop(state);
        let mut bytes = vec![0; size as usize];
        let mut filled = 0;
        while filled < bytes.len() {
            match file.read_at(&mut bytes[filled..], offset + filled as u64)? {
                0 => break,
                count => filled += count,
            }
        }
        bytes.truncate(filled);
        Ok(bytes)
    }

    fn write_bytes(&self, handle: u64, offset: u64, bytes: &[u8], flags: OpenFlags) -> io::Result<usize> {
        let mut state = self.lock_after_delay(&Kind::Write);
        if state.faults.write_errors.strike() {
            state.counts.failed_writes += 1;
            return Err(nix::errno::Errno::EIO.into());
        }
        // O_SYNC contains the bit of O_DSYNC.
        let durable = flags.0 & OFlag::O_DSYNC.bits() != 0;
        let lies = state.faults.lying_sync;
        state.counts.writes += 1;
        if durable && lies {
            state.counts.lying_syncs += 1;
        }
        state.store.write(handle, offset, bytes, durable && !lies)
    }

    /// The sync of a file, or of the directory `dir`.
    fn sync(&self, handle: u64, dir: Option<Ino>) -> io::Result<()> {
        let mut state = self.lock_after_delay(&Kind::Sync);
        if state.faults.sync_errors.strike() {
            state.counts.failed_syncs += 1;
            state.store.fail_sync(handle);
            return Err(nix::errno::Errno::EIO.into());
        }
        if state.faults.lying_sync {
            state.counts.lying_syncs += 1;
            return Ok(());
        }
        state.counts.syncs += 1;
        match dir {
            Some(dir) => {
                state.store.sync_dir(dir);
                Ok(())
            }
            None => state.store.sync_file(handle),
        }
    }

    /// Acts on the store, and counts where the disk was found full.
    fn act<T>(&self, act: impl FnOnce(&mut Store) -> io::Result<T>) -> Result<T, Errno> {
        let mut state = self.lock();
        let done = act(&mut state.store);
        count_full(state, done)
    }

    fn set_attributes(&self, ino: Ino, set: &SetAttributes) -> io::Result<()> {
        let mut state = self.lock();
        if let Some(size) = set.size {
            state.store.resize(ino, size)?;
        }
        let path = state.store.path_of(ino);
        if let Some(mode) = set.mode {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode & 0o7777))?;
        }
        if set.uid.is_some() || set.gid.is_some() {
            lchown(&path, set.uid, set.gid)?;
        }
        let time = |time: TimeOrNow| match time {
            TimeOrNow::SpecificTime(time) => time,
            TimeOrNow::Now => SystemTime::now(),
        };
        let mut times = FileTimes::new();
        if let Some(accessed) = set.accessed {
            times = times.set_accessed(time(accessed));
        }
        if let Some(modified) = set.modified {
            times = times.set_modified(time(modified));
        }
        if set.accessed.is_some() || set.modified.is_some() {
            File::open(&path)?.set_times(times)?;
        }
        Ok(())
    }
}

/// What `setattr` asks for.
struct SetAttributes {
    size: Option<u64>,
    mode: Option<u32>,
    uid: Option<u32>,
    gid: Option<u32>,
    accessed: Option<TimeOrNow>,
    modified: Option<TimeOrNow>,
}

fn count_full<T>(mut state: MutexGuard<'_, State>, done: io::Result<T>) -> Result<T, Errno> {
    done.map_err(|error| {
        let errno = Errno::from(error);
        state.counts.full += u64::from(errno.code() == Errno::ENOSPC.code());
        errno
    })
}

fn attributes(store: &Store, ino: Ino) -> io::Result<FileAttr> {
    let (meta, links) = store.attributes(ino)?;
    let changed = SystemTime::UNIX_EPOCH
        + Duration::new(
            meta.ctime().try_into().unwrap_or_default(),
            meta.ctime_nsec().try_into().unwrap_or_default(),
        );
    Ok(FileAttr {
        ino: INodeNo(ino.0),
        size: meta.len(),
        blocks: meta.blocks(),
        atime: meta.accessed()?,
        mtime: meta.modified()?,
        ctime: changed,
        crtime: changed,
        kind: FileType::from_std(meta.file_type()).unwrap_or(FileType::RegularFile),
        perm: (meta.mode() & 0o7777) as u16,
        nlink: links,
        uid: meta.uid(),
        gid: meta.gid(),
        rdev: 0,
        blksize: BLOCK,
        flags: 0,
    })
}

fn made(store: &Store, ino: io::Result<Ino>) -> io::Result<FileAttr> {
    attributes(store, ino?)
}

fn reply_entry(reply: ReplyEntry, made: Result<FileAttr, Errno>) {
    match made {
        Ok(attributes) => reply.entry(&FOREVER_NEW, &attributes, GENERATION),
        Err(errno) => reply.error(errno),
    }
}

fn reply_empty(reply: ReplyEmpty, done: Result<(), Errno>) {
    match done {
        Ok(()) => reply.ok(),
        Err(errno) => reply.error(errno),
    }
}

fn slot(dir: INodeNo, name: &OsStr) -> Slot {
    Slot::new(Ino(dir.0), name)
}

impl Filesystem for Disk {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // Without it, files opened for direct I/O cannot be mapped for sharing; kernels before 6.6 have it not.
        let _ = config.add_capabilities(InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP);
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let found = self.act(|store| made(store, store.lookup(&slot(parent, name))));
        reply_entry(reply, found);
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.act(|store| attributes(store, Ino(ino.0))) {
            Ok(attributes) => reply.attr(&FOREVER_NEW, &attributes),
            Err(errno) => reply.error(errno),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        accessed: Option<TimeOrNow>,
        modified: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<fuser::BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let set = SetAttributes {
            size,
            mode,
            uid,
            gid,
            accessed,
            modified,
        };
        let done = self.set_attributes(Ino(ino.0), &set);
        match done.and_then(|()| attributes(&self.lock().store, Ino(ino.0))) {
            Ok(attributes) => reply.attr(&FOREVER_NEW, &attributes),
            Err(error) => reply.error(error.into()),
        }
    }

    fn readlink(&self, _: &Request, ino: INodeNo, reply: ReplyData) {
        match self.act(|store| store.read_link(Ino(ino.0))) {
            Ok(target) => reply.data(target.as_os_str().as_bytes()),
            Err(errno) => reply.error(errno),
        }
    }

    fn mkdir(&self, _: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        let mode = mode & !umask & 0o7777;
        let made = self.act(|store| {
            let ino = store.make_dir(slot(parent, name), mode);
            made(store, ino)
        });
        reply_entry(reply, made);
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        reply_empty(reply, self.act(|store| store.unlink(slot(parent, name))));
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        reply_empty(reply, self.act(|store| store.remove_dir(slot(parent, name))));
    }

    fn symlink(&self, _: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        let made = self.act(|store| {
            let ino = store.make_symlink(slot(parent, name), target);
            made(store, ino)
        });
        reply_entry(reply, made);
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        if !(flags - RenameFlags::RENAME_NOREPLACE).is_empty() {
            return reply.error(Errno::EINVAL);
        }
        let replace = flags.is_empty();
        let done = self.act(|store| store.rename(slot(parent, name), slot(new_parent, new_name), replace));
        reply_empty(reply, done);
    }

    fn link(&self, _: &Request, ino: INodeNo, new_parent: INodeNo, new_name: &OsStr, reply: ReplyEntry) {
        let made = self.act(|store| {
            store.link(Ino(ino.0), slot(new_parent, new_name))?;
            attributes(store, Ino(ino.0))
        });
        reply_entry(reply, made);
    }

    fn open(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        match self.act(|store| store.open_file(Ino(ino.0))) {
            Ok(handle) => reply.opened(FileHandle(handle), FopenFlags::FOPEN_DIRECT_IO),
            Err(errno) => reply.error(errno),
        }
    }

    fn create(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        _: i32,
        reply: ReplyCreate,
    ) {
        let mode = mode & !umask & 0o7777;
        let made = self.act(|store| {
            let ino = store.create(slot(parent, name), mode)?;
            Ok((attributes(store, ino)?, store.open_file(ino)?))
        });
        match made {
            Ok((attributes, handle)) => reply.created(
                &FOREVER_NEW,
                &attributes,
                GENERATION,
                FileHandle(handle),
                FopenFlags::FOPEN_DIRECT_IO,
            ),
            Err(errno) => reply.error(errno),
        }
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.read_bytes(handle.0, offset, size) {
            Ok(bytes) => reply.data(&bytes),
            Err(error) => reply.error(error.into()),
        }
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        bytes: &[u8],
        _: WriteFlags,
        flags: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let done = self.write_bytes(handle.0, offset, bytes, flags);
        match count_full(self.lock(), done) {
            Ok(count) => reply.written(count as u32),
            Err(errno) => reply.error(errno),
        }
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.lock().store.close(handle.0);
        reply.ok();
    }

    fn fsync(&self, _: &Request, _: INodeNo, handle: FileHandle, _: bool, reply: ReplyEmpty) {
        reply_empty(reply, self.sync(handle.0, None).map_err(Errno::from));
    }

    fn fsyncdir(&self, _: &Request, ino: INodeNo, handle: FileHandle, _: bool, reply: ReplyEmpty) {
        reply_empty(reply, self.sync(handle.0, Some(Ino(ino.0))).map_err(Errno::from));
    }

    fn opendir(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let handle = self.lock().store.open_dir(Ino(ino.0));
        reply.opened(FileHandle(handle), FopenFlags::empty());
    }

    fn readdir(&self, _: &Request, ino: INodeNo, handle: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let entries = match self.act(|store| store.dir(handle.0)) {
            Ok(entries) => entries,
            Err(errno) => return reply.error(errno),
        };
        let dots = [".", ".."].map(|name| (Ino(ino.0), OsStr::new(name)));
        let named = entries.iter().map(|(ino, name)| (*ino, name.as_os_str()));
        for (place, (ino, name)) in dots.into_iter().chain(named).enumerate().skip(offset as usize) {
            let kind = if self.lock().store.is_dir(ino) {
                FileType::Directory
            } else {
                FileType::RegularFile
            };
            if reply.add(INodeNo(ino.0), place as u64 + 1, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn releasedir(&self, _: &Request, _: INodeNo, handle: FileHandle, _: OpenFlags, reply: ReplyEmpty) {
        self.lock().store.close(handle.0);
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        match self.act(|store| store.space()) {
            Ok((all, free)) => {
                let blocks = |bytes| bytes / u64::from(BLOCK);
                let free = blocks(free);
                reply.statfs(
                    blocks(all),
                    free,
                    free,
                    1 << 20,
                    1 << 20,
                    BLOCK,
                    NAME_BYTES_MAX,
                    BLOCK,
                );
            }
            Err(errno) => reply.error(errno),
        }
    }

    fn fallocate(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        bytes: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        reply_empty(
            reply,
            self.act(|store| store.allocate(handle.0, offset, bytes, mode)),
        );
    }
}
