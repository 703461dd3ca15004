//! A disk that fails as disks do: a file system in user space between a node's data directory and a backing one.
//!
//! The node runs on the mount point and sees an ordinary file system. The harness, while it runs, makes syncs fail,
//! fills the disk, slows it down ([`FaultyDisk::set`]), flips bits, and, once the process is killed, cuts the power:
//! what was not durable is gone.
//!
//! # What is durable
//! The rules are those of POSIX as Linux's file systems keep them, read as harshly as a program must expect:
//! - The bytes and the size of a file: once the file is synced (`fsync` and `fdatasync` alike), or written with
//!   `O_DSYNC`. `sync_file_range`, `close` and the passing of time make nothing durable.
//! - A name (created, linked, renamed, removed): once its directory is synced. Syncing the file does not do.
//! - A rename is never half done. A moved file is at its old place or at its new one, even where only one of two
//!   directories was synced. Beyond that, changes are not in order: of two new files, the later alone may survive.
//! - A cut of a file is never half done either; what it cut away comes back whole or not at all.
//! - Modes, owners and times are durable at once.
//!
//! A power cut takes all that is not durable ([`Loss::All`]), or leaves a part that the seed decides: any pages, or all
//! up to a point, in a file of the old or new size or one in between, with zeros where a page is missing
//! ([`Loss::Pages`]), the same by sectors, so that a write is torn ([`Loss::Sectors`]), and any changes of directories
//! that may survive by themselves.
//!
//! # How
//! Writes go through to the backing directory; an undo journal in memory keeps what they changed since the last sync.
//! A power cut applies it. Nothing is ever synced for real: only the loss is played, and the harness's own machine must
//! stay up. If the harness is killed, the disk's content is lost ([`unmount_stale`] clears the mount).
//!
//! It is no slower than the disk beneath: a node by itself took 5,000 to 6,400 small puts a second from eight clients on
//! it, and 3,700 to 4,800 on the ext4 beneath, whose syncs are real (two shared cores, a debug build).
//!
//! # Limits
//! Linux only, as root, with `/dev/fuse`. One mount sees one machine: no locks across machines, no extended attributes.
//! Mapped files can be written, but what is in memory only when the power is cut is lost as a whole.

mod faults;
mod filesystem;
mod mounts;
mod names;
mod pages;
mod store;

#[cfg(test)]
mod property;
#[cfg(test)]
mod tests;

pub use faults::{Counts, Errors, Faults, Flip, Loss, Lost};
pub use mounts::{unmount_stale, usable};

use anyhow::Context;
use filesystem::Disk;
use fuser::BackgroundSession;
use std::path::{Path, PathBuf};
use store::Store;

/// Threads that answer the kernel: one can be delayed while others go on.
const THREADS: usize = 4;

/// A mounted disk; unmounted when dropped.
pub struct FaultyDisk {
    disk: Disk,
    mount_point: PathBuf,
    session: Option<BackgroundSession>,
}

impl FaultyDisk {
    /// Mounts a disk with the content of `backing` on `mount_point`; all of that content is durable. `seed` decides
    /// whatever a fault leaves open. Both directories are created where they are missing, and must not overlap.
    ///
    /// # Errors
    /// Where [`usable`] says no, or `backing` was left mounted by a harness that was killed.
    pub fn mount(backing: &Path, mount_point: &Path, seed: u64) -> anyhow::Result<FaultyDisk> {
        if let Err(reason) = usable() {
            anyhow::bail!("no disk that fails can be mounted: {reason}");
        }
        for dir in [backing, mount_point] {
            std::fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
        }
        let (backing, mount_point) = (backing.canonicalize()?, mount_point.canonicalize()?);
        if backing.starts_with(&mount_point) || mount_point.starts_with(&backing) {
            anyhow::bail!("{} and {} overlap", backing.display(), mount_point.display());
        }
        let disk = Disk::new(Store::open(&backing, seed)?);
        let mut config = fuser::Config::default();
        config.mount_options = vec![fuser::MountOption::FSName(mounts::SOURCE.to_owned())];
        config.n_threads = Some(THREADS);
        let session = match fuser::spawn_mount(disk.clone(), &mount_point, &config) {
            Ok(session) => session,
            Err(error) => {
                disk.lock().store.lay_out()?;
                return Err(error).with_context(|| format!("cannot mount on {}", mount_point.display()));
            }
        };
        Ok(FaultyDisk {
            disk,
            mount_point,
            session: Some(session),
        })
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.mount_point
    }

    /// Sets what the disk does wrong from now on, and takes everything else back; `Faults::default()` heals.
    pub fn set(&self, faults: Faults) {
        let mut state = self.disk.lock();
        state.store.space_left = faults.space_left;
        state.faults = faults;
    }

    /// What the disk does wrong, with what is left of counted errors and of space.
    pub fn faults(&self) -> Faults {
        let state = self.disk.lock();
        let mut faults = state.faults.clone();
        faults.space_left = state.store.space_left;
        faults
    }

    /// Cuts the power: what was not durable is lost as `loss` says, and what is left is durable. To be called between
    /// the death of the node's process and its next start; whatever is still open fails with EBADF from then on.
    ///
    /// # Errors
    /// Where the backing directory cannot be written: the run is void.
    pub fn power_cut(&self, loss: Loss) -> anyhow::Result<Lost> {
        let mut state = self.disk.lock();
        let lost = state.store.power_cut(loss).context("the power cut failed")?;
        state.counts.power_cuts += 1;
        state.counts.lost_bytes += lost.bytes;
        state.counts.lost_names += lost.names.len() as u64;
        Ok(lost)
    }

    /// What failed syncs dropped leaves the page cache, so that readers see what is really on the disk. Returns how
    /// many bytes that concerns. Linux may do so at any time after such an error; call it to restart a node without a cut.
    ///
    /// # Errors
    /// Where the backing directory cannot be written: the run is void.
    pub fn evict_dropped(&self) -> anyhow::Result<u64> {
        let mut state = self.disk.lock();
        state.store.evict_dropped().context("the eviction failed")
    }

    /// Flips `count` bits at rest, in bytes of the files that `pick` says yes to (paths are relative to the root), each
    /// byte as likely as another. Returns which; fewer only where no such file has a byte.
    ///
    /// # Errors
    /// Where the backing directory cannot be written: the run is void.
    pub fn flip_bits(&self, pick: impl Fn(&Path) -> bool, count: usize) -> anyhow::Result<Vec<Flip>> {
        let mut state = self.disk.lock();
        let flips = state
            .store
            .flip_bits(&pick, count)
            .context("no bits were flipped")?;
        state.counts.flips += flips.len() as u64;
        Ok(flips)
    }

    /// What happened so far.
    pub fn counts(&self) -> Counts {
        self.disk.lock().counts
    }

    /// Unmounts, lazily where something is still open, and lays the content out in the backing directory as plain
    /// files.
    ///
    /// # Errors
    /// Where it could not be unmounted or laid out.
    pub fn unmount(mut self) -> anyhow::Result<()> {
        self.end()
    }

    fn end(&mut self) -> anyhow::Result<()> {
        let Some(session) = self.session.take() else {
            return Ok(());
        };
        mounts::force_unmount(&self.mount_point)?;
        match session.join() {
            Err(error) if !mounts::was_forced(&error) => return Err(error).context("the disk's threads"),
            _ => {}
        }
        let laid_out = self.disk.lock().store.lay_out();
        laid_out.context("cannot lay the disk's content out")
    }
}

impl Drop for FaultyDisk {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("{}: {error:#}", self.mount_point.display());
        }
    }
}
