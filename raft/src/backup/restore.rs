//! Restoring: the data directory of the first member of a new cluster, out of a backup file.
//!
//! The new cluster has an id of its own, and its member an id that no node of the old one ever had. So nothing that the
//! two have in common can be taken for the other's: peers refuse each other, a process that the old cluster runs has
//! another mark, and what the backup says to run on its nodes runs on none of this one's. Revisions go on where the backup
//! ends. The other members join the first ([`crate::Join`]); none is ever restored beside it, for two members that
//! start from one file would each believe that the cluster is theirs.
//!
//! What the rows say of the old cluster's life is settled before the first start, by commands of the ordinary kind that
//! go through [`apply`](onward_statemachine::apply) and stand in the journal under the actor `restore:NAME@REVISION`:
//! - instances of apps have ended, since nothing of this cluster runs them; its leader starts apps that are to run anew;
//! - services with a TTL that passed when the backup was taken have their whole TTL once more to renew;
//! - the new member's id is given out.
//!
//! A directory is not one before the last step: a file `restoring` keeps a node from starting in it, and when
//! anything fails all of it is deleted.

use super::settle::Settling;
use super::{LoadError, load};
use crate::counters::Counters;
use crate::host::Host;
use crate::identity::{self, Identity, RESTORING};
use crate::log::disk::{LogDisk, Write};
use crate::log::watermark::Watermark;
use crate::node::StartError;
use crate::state::database::StateDisk;
use crate::state::{State, point_at};
use onward_statemachine::backup::{Header, Summary};
use onward_statemachine::{Fault, NodeId, Refusal, Revision, check, hash, system};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use uuid::Uuid;

/// What a file system puts into a fresh one.
const LOST_FOUND: &str = "lost+found";

/// What to restore, and to where.
#[derive(Debug, Clone)]
pub struct Restore {
    /// The backup.
    pub file: PathBuf,
    /// The data directory: empty, or not there yet.
    pub data_dir: PathBuf,
    /// The name of the new cluster; that of the old one without.
    pub cluster_name: Option<String>,
    /// Where peers will reach the member, `host:port`.
    pub peer_address: String,
    /// Where its API will be reached, `http://host:port`.
    pub http_url: String,
    /// Whether apps are to be stopped, and not started anew here.
    pub stop_apps: bool,
}

/// A data directory that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// What the backup was.
    pub backup: Summary,
    /// The new cluster.
    pub cluster_id: Uuid,
    /// Its name.
    pub cluster_name: String,
    /// Its first member.
    pub node: NodeId,
    /// Where it stands, after what the restore itself had to say.
    pub revision: Revision,
    /// Instances of apps that ended.
    pub instances_ended: usize,
    /// Services' instances whose TTL began anew.
    pub services_renewed: usize,
    /// Apps that were stopped.
    pub apps_stopped: usize,
}

/// Why nothing was restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The file is not a whole backup.
    #[error("{file}: {reason}", file = .file.display())]
    File {
        /// Which.
        file: PathBuf,
        /// Why.
        reason: String,
    },
    /// It takes a later release.
    #[error(
        "{file}: the backup has feature level {found}; this release knows {known}: restore with the release that wrote \
         it, {release}, or a later one", file = .file.display()
    )]
    Newer {
        /// Which.
        file: PathBuf,
        /// Its level.
        found: u32,
        /// Ours.
        known: u32,
        /// Who wrote it.
        release: String,
    },
    /// Something is there.
    #[error(
        "{path} has `{found}` in it: restore into a directory that is empty or not there yet", path = .path.display()
    )]
    NotEmpty {
        /// Which directory.
        path: PathBuf,
        /// What was found.
        found: String,
    },
    /// The rows contradict each other.
    #[error("{file}: the rows of the backup break {count} rules of the state, first {first}", file = .file.display())]
    Unsound {
        /// Which.
        file: PathBuf,
        /// How many.
        count: usize,
        /// One of them.
        first: String,
    },
    /// A command of the restore itself was refused.
    #[error("the restored state refuses what a restore must change: {0}")]
    Refused(Box<Refusal>),
    /// The state broke down.
    #[error("the restored state is unsound: {0}")]
    Fault(#[from] Fault),
    /// The directory cannot be used.
    #[error(transparent)]
    Start(#[from] StartError),
    /// It could not be written.
    #[error("{path} cannot be written: {error}; nothing was restored", path = .path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

/// Makes a data directory out of a backup; `progress` hears how many rows are restored.
///
/// # Errors
/// See [`RestoreError`]. The directory is then as it was before.
pub fn restore(options: &Restore, progress: &mut dyn FnMut(u64)) -> Result<Restored, RestoreError> {
    restore_on(&Host::machine(), options, progress)
}

fn restore_on(
    host: &Host,
    options: &Restore,
    progress: &mut dyn FnMut(u64),
) -> Result<Restored, RestoreError> {
    let dir = &options.data_dir;
    let was_there = host.files.exists(dir);
    check_empty(host, dir)?;
    let lock = identity::lock(&*host.files, dir)?;
    let restored = Restoring { host, options }.run(progress);
    if restored.is_err() {
        let cleared = match was_there {
            false => host.files.remove_dir(dir),
            true => clear(host, dir),
        };
        cleared.map_err(unwritable(dir))?;
    }
    drop(lock);
    restored.map_err(|error| error.of(options))
}

fn check_empty(host: &Host, dir: &Path) -> Result<(), RestoreError> {
    if !host.files.exists(dir) {
        return Ok(());
    }
    let listed = host.files.list(dir).map_err(unwritable(dir))?;
    match listed.into_iter().find(|entry| entry.name != LOST_FOUND) {
        Some(entry) => Err(RestoreError::NotEmpty {
            path: dir.to_owned(),
            found: entry.name,
        }),
        None => Ok(()),
    }
}

fn clear(host: &Host, dir: &Path) -> io::Result<()> {
    for entry in host.files.list(dir)? {
        let path = dir.join(&entry.name);
        match entry.is_dir {
            _ if entry.name == LOST_FOUND => {}
            true => host.files.remove_dir(&path)?,
            false => host.files.remove_file(&path)?,
        }
    }
    Ok(())
}

impl From<LoadError> for RestoreError {
    fn from(error: LoadError) -> Self {
        match error {
            LoadError::Write(error) => unwritable(Path::new(""))(error),
            LoadError::Read(_) | LoadError::Damage(_) => RestoreError::File {
                file: PathBuf::new(),
                reason: error.to_string(),
            },
        }
    }
}

impl RestoreError {
    /// The same with the paths that it is about.
    fn of(mut self, options: &Restore) -> Self {
        match &mut self {
            RestoreError::File { file, .. } => file.clone_from(&options.file),
            RestoreError::Io { path, .. } if path.as_os_str().is_empty() => {
                path.clone_from(&options.data_dir);
            }
            _ => {}
        }
        self
    }
}

/// What went wrong with writing there.
pub(super) fn unwritable(path: &Path) -> impl Fn(io::Error) -> RestoreError {
    let path = path.to_owned();
    move |error| RestoreError::Io {
        path: path.clone(),
        error,
    }
}

/// A restore under way.
struct Restoring<'a> {
    host: &'a Host,
    options: &'a Restore,
}

impl Restoring<'_> {
    fn run(&self, progress: &mut dyn FnMut(u64)) -> Result<Restored, RestoreError> {
        let (files, dir) = (&*self.host.files, &self.options.data_dir);
        let at_dir = unwritable(dir);
        let note = dir.join(RESTORING);
        files.create(&note, b"").map_err(&at_dir)?;
        files.sync_dir(dir).map_err(&at_dir)?;

        let states = dir.join("state");
        files.create_dir(&states).map_err(&at_dir)?;
        point_at(files, &states, 1).map_err(&at_dir)?;
        let disk = self.host.stores.open_state(&states.join("1")).map_err(&at_dir)?;
        let summary = load(
            &self.options.file,
            &*disk,
            &mut |header| self.check_header(header),
            progress,
        )?;
        self.check(&*disk, &summary)?;
        let now = self.host.clock.now();
        let mut settling = Settling::new(self.options, &*disk, now, &summary.header)?;
        let restored = settling.run(summary)?;
        disk.flush().map_err(&at_dir)?;
        let (last, vote) = (settling.last, settling.vote());
        drop(disk);

        let log = LogDisk::open(&self.host.files, &dir.join("log"), self.host.log).map_err(&at_dir)?;
        let begin = [
            Write::Purge(last),
            Write::Committed(Some(last)),
            Write::Vote(vote),
        ];
        log.write(&begin, true).map_err(&at_dir)?;
        drop(log);
        Watermark::open(files, &dir.join("watermark")).map_err(&at_dir)?;
        // The log begins behind the state, so whoever joins is sent a snapshot.
        let state = State::open(dir, self.host, Arc::new(Counters::default())).map_err(&at_dir)?;
        state.cover(None).map_err(&at_dir)?;
        drop(state);
        let identity = Identity {
            cluster_id: restored.cluster_id,
            cluster_name: restored.cluster_name.clone(),
            node: restored.node,
        };
        identity::write(files, dir, &identity)?;
        files.remove_file(&note).map_err(&at_dir)?;
        files.sync_dir(dir).map_err(&at_dir)?;
        Ok(restored)
    }

    fn check_header(&self, header: &Header) -> Result<(), RestoreError> {
        if header.feature_level > system::FEATURE_LEVEL_MAX {
            return Err(RestoreError::Newer {
                file: self.options.file.clone(),
                found: header.feature_level,
                known: system::FEATURE_LEVEL_MAX,
                release: header.release.clone(),
            });
        }
        Ok(())
    }

    /// Whether what was written is what was read, and makes sense.
    fn check(&self, disk: &dyn StateDisk, summary: &Summary) -> Result<(), RestoreError> {
        let file = || self.options.file.clone();
        let (found, violations) = disk.read(|view| Ok((hash::state_hash(view)?, check::check(view)?)))?;
        let said = &summary.trailer.state_hash;
        if format!("{found:016x}") != *said {
            return Err(RestoreError::File {
                file: file(),
                reason: format!("what was restored has state hash {found:016x}, and the backup {said}"),
            });
        }
        match violations.first() {
            Some(first) => Err(RestoreError::Unsound {
                file: file(),
                count: violations.len(),
                first: format!("{}: {}", first.area, first.what),
            }),
            None => Ok(()),
        }
    }
}
