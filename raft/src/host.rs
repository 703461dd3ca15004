//! What a node stands on: a file system, a database, a network, a clock. The machine's in production; in simulation
//! models of them, so that the same code runs on either.

use crate::clock::{Clock, SystemClock};
use crate::files::{Disk, Files};
use crate::log::disk::Sizes;
use crate::peer::net::{Net, Tcp};
use crate::state::database::{RocksState, StateDisk};
use std::io;
use std::path::Path;
use std::sync::Arc;
use tokio::runtime::Handle;

/// Opens the database of a node.
pub(crate) trait Stores: Send + Sync + 'static {
    /// Opens or creates the state in the directory `path`.
    fn open_state(&self, path: &Path) -> io::Result<Arc<dyn StateDisk>>;
    /// Opens the state in the directory `path` for reading, and leaves what is there as it is.
    fn open_frozen(&self, path: &Path) -> io::Result<Arc<dyn StateDisk>>;
    /// Opens a copy of a state that is read for a while and thrown away.
    fn open_past(&self, path: &Path) -> io::Result<Arc<dyn StateDisk>> {
        self.open_state(path)
    }
}

/// What a node stands on.
#[derive(Clone)]
pub(crate) struct Host {
    pub(crate) files: Arc<dyn Files>,
    pub(crate) stores: Arc<dyn Stores>,
    pub(crate) net: Arc<dyn Net>,
    pub(crate) clock: Arc<dyn Clock>,
    /// The sizes of the log's files.
    pub(crate) log: Sizes,
    /// The threads for work in bulk, where consensus has one to itself.
    pub(crate) pool: Option<Handle>,
}

impl Host {
    /// The machine that this process runs on.
    pub(crate) fn machine() -> Host {
        Host {
            files: Arc::new(Disk),
            stores: Arc::new(Rocks),
            net: Arc::new(Tcp),
            clock: Arc::new(SystemClock),
            log: Sizes::default(),
            pool: None,
        }
    }
}

/// RocksDB.
pub(crate) struct Rocks;

impl Stores for Rocks {
    fn open_state(&self, path: &Path) -> io::Result<Arc<dyn StateDisk>> {
        Ok(Arc::new(RocksState::open(path)?))
    }

    fn open_frozen(&self, path: &Path) -> io::Result<Arc<dyn StateDisk>> {
        Ok(Arc::new(RocksState::open_frozen(path)?))
    }

    fn open_past(&self, path: &Path) -> io::Result<Arc<dyn StateDisk>> {
        Ok(Arc::new(RocksState::open_past(path)?))
    }
}
