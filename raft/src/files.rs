//! The file system below a node, behind a trait: the machine's in production, a model that loses and tears what was
//! not synced in simulation.
//!
//! What a node keeps outside its database goes through here: its log and the watermark, its identity and notes, snapshots.

use crate::room::Space;
use nix::sys::statvfs::statvfs;
use std::any::Any;
use std::fs::{self, TryLockError};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Open {
    /// For reading; it must be there.
    Read,
    /// For reading and writing; created empty where it is not there.
    Write,
    /// For writing; it must not be there.
    New,
}

/// An entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) name: String,
    pub(crate) is_dir: bool,
}

/// An open file.
pub(crate) trait File: Send + Sync {
    /// Its length in bytes.
    fn length(&self) -> io::Result<u64>;
    /// Reads what there is from `offset` on, up to the length of `buffer`; 0 at the end.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes all of `bytes`.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Makes everything written to it durable.
    fn sync(&self) -> io::Result<()>;
}

/// What keeps others out of a directory for as long as it lives.
pub(crate) type Lock = Box<dyn Any + Send + Sync>;

/// A file system. Names of files become durable with [`Files::sync_dir`], and not before.
pub(crate) trait Files: Send + Sync + 'static {
    /// Opens a file.
    fn open(&self, path: &Path, how: Open) -> io::Result<Box<dyn File>>;
    /// Whether something has this name.
    fn exists(&self, path: &Path) -> bool;
    /// The entries of a directory in the order of their names.
    fn list(&self, dir: &Path) -> io::Result<Vec<Listed>>;
    /// Creates a directory and those above it, where they are not there.
    fn create_dir(&self, path: &Path) -> io::Result<()>;
    /// Deletes a file.
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    /// Deletes a directory with all that is in it.
    fn remove_dir(&self, path: &Path) -> io::Result<()>;
    /// Gives a file or directory another name, replacing a file that has it.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Gives a file a second name.
    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Makes the names in a directory durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// Takes a lock file for this process; `None` where another has it.
    fn lock(&self, path: &Path) -> io::Result<Option<Lock>>;
    /// How much room there is where `path` is; `None` where nobody can tell.
    fn space(&self, path: &Path) -> io::Result<Option<Space>>;
}

const COPY_BYTES: usize = 1 << 20;

impl dyn Files {
    /// The whole of a file.
    pub(crate) fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let file = self.open(path, Open::Read)?;
        let mut bytes = vec![0; file.length()? as usize];
        let mut filled = 0;
        while filled < bytes.len() {
            match file.read_at(&mut bytes[filled..], filled as u64)? {
                0 => break,
                count => filled += count,
            }
        }
        bytes.truncate(filled);
        Ok(bytes)
    }

    /// The whole of a text file; `None` where it is not there.
    pub(crate) fn read_text(&self, path: &Path) -> io::Result<Option<String>> {
        match self.read(path) {
            Ok(bytes) => String::from_utf8(bytes)
                .map(Some)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes a new file and syncs it, though not its name.
    pub(crate) fn create(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        if self.exists(path) {
            self.remove_file(path)?;
        }
        let file = self.open(path, Open::New)?;
        file.write_at(bytes, 0)?;
        file.sync()
    }

    /// Puts a file of this content in the place of `path`, durably, all or nothing.
    pub(crate) fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let temporary = path.with_added_extension("new");
        self.create(&temporary, bytes)?;
        self.rename(&temporary, path)?;
        self.sync_dir(path.parent().unwrap_or(path))
    }

    /// Copies a file and syncs the copy, though not its name.
    pub(crate) fn copy(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (from, to) = (self.open(from, Open::Read)?, self.open(to, Open::New)?);
        let mut buffer = vec![0; COPY_BYTES];
        let mut offset = 0;
        loop {
            let count = from.read_at(&mut buffer, offset)?;
            if count == 0 {
                return to.sync();
            }
            to.write_at(&buffer[..count], offset)?;
            offset += count as u64;
        }
    }
}

/// The machine's file system.
pub(crate) struct Disk;

impl File for fs::File {
    fn length(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(self, buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        FileExt::write_all_at(self, bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}

impl Files for Disk {
    fn open(&self, path: &Path, how: Open) -> io::Result<Box<dyn File>> {
        let mut options = fs::File::options();
        match how {
            Open::Read => options.read(true),
            Open::Write => options.read(true).write(true).create(true).truncate(false),
            Open::New => options.write(true).create_new(true),
        };
        Ok(Box::new(options.open(path)?))
    }

    fn exists(&self, path: &Path) -> bool {
        path.exists()
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Listed>> {
        let mut listed = fs::read_dir(dir)?
            .map(|entry| {
                let entry = entry?;
                let name = entry.file_name().to_string_lossy().into_owned();
                let is_dir = entry.file_type()?.is_dir();
                Ok(Listed { name, is_dir })
            })
            .collect::<io::Result<Vec<_>>>()?;
        listed.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(listed)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir_all(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::hard_link(from, to)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        fs::File::open(path)?.sync_all()
    }

    fn space(&self, path: &Path) -> io::Result<Option<Space>> {
        let found = statvfs(path)?;
        let space = Space {
            free_bytes: found.blocks_available() * found.fragment_size(),
            total_bytes: found.blocks() * found.fragment_size(),
        };
        // File systems in user space may not say.
        Ok((space.total_bytes > 0).then_some(space))
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Lock>> {
        let file = fs::File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Box::new(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}
