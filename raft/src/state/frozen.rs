//! A copy of the state as of one revision, for those who read all of it at their own pace.

use super::State;
use super::database::{Standing, StateDisk};
use crate::files::Files;
use crate::runtime::new_uuid;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// A checkpoint that is read and then deleted. What a crash leaves of it is deleted at start, as every directory in
/// `snap/` without a final name is.
pub(crate) struct Frozen {
    disk: Option<Arc<dyn StateDisk>>,
    standing: Standing,
    files: Arc<dyn Files>,
    path: PathBuf,
}

impl Frozen {
    pub(crate) fn disk(&self) -> &dyn StateDisk {
        self.disk.as_deref().expect("taken only when dropped")
    }

    /// Where it stands.
    pub(crate) fn standing(&self) -> &Standing {
        &self.standing
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        drop(self.disk.take());
        if let Err(error) = self.files.remove_dir(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "a checkpoint could not be deleted");
        }
    }
}

impl State {
    /// Copies what is applied now. The copy shares the files of the database, so it costs a flush and the disk space of
    /// what is rewritten while it lasts.
    pub(crate) fn freeze(&self) -> io::Result<Frozen> {
        let generation = self.generation();
        let path = self.snapshot_root().join(format!("frozen-{}", new_uuid()));
        let standing = generation.disk().checkpoint(&path)?;
        // From here on it is deleted whatever happens.
        let mut frozen = Frozen {
            disk: None,
            standing,
            files: self.files.clone(),
            path,
        };
        frozen.disk = Some(self.stores.open_frozen(&frozen.path)?);
        Ok(frozen)
    }
}
