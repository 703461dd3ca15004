//! The id that a node reserves before it asks to be let in.
//!
//! A request to be let in may arrive late: when the process that sent it is dead and its successor has asked as well, when
//! it was sent twice because a leader fell silent, when the directory of the node was wiped meanwhile. So it names an id
//! that the directory holds durably, and the membership as of which it was given. Whatever order such requests arrive in,
//! each id is let in at most once, for letting it in changes the membership.

use crate::files::Files;
use crate::note;
use onward_statemachine::{NodeId, Revision};
use serde::{Deserialize, Serialize};
use std::io;
use std::path::Path;
use uuid::Uuid;

/// An id for a node that is no member yet. Its directory keeps it until the node votes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Reservation {
    pub(crate) id: NodeId,
    pub(crate) cluster: Uuid,
    /// The last change of the membership when it was given. It is worth nothing after another one.
    pub(crate) as_of: Revision,
}

impl Reservation {
    const NOTE: &str = "reserved";

    pub(super) fn read(files: &dyn Files, dir: &Path) -> io::Result<Option<Self>> {
        let Some(text) = files.read_text(&dir.join(Self::NOTE))? else {
            return Ok(None);
        };
        let field = |name: &str| note::field(&text, name);
        let read = || {
            Some(Reservation {
                id: NodeId(field("node_id")?.parse().ok()?),
                cluster: field("cluster_id")?.parse().ok()?,
                as_of: Revision(field("as_of")?.parse().ok()?),
            })
        };
        let damaged = || io::Error::new(io::ErrorKind::InvalidData, format!("`{}` is damaged", Self::NOTE));
        read().map(Some).ok_or_else(damaged)
    }

    pub(super) fn write(&self, files: &dyn Files, dir: &Path) -> io::Result<()> {
        let Reservation { id, cluster, as_of } = self;
        let text = format!("node_id = {id}\ncluster_id = {cluster}\nas_of = {as_of}\n");
        files.replace(&dir.join(Self::NOTE), text.as_bytes())
    }

    pub(super) fn forget(files: &dyn Files, dir: &Path) -> io::Result<()> {
        match files.remove_file(&dir.join(Self::NOTE)) {
            // An earlier release reserved nothing.
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => files.sync_dir(dir),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::Disk;

    #[test]
    fn a_directory_keeps_the_id_that_it_reserved() {
        let dir = tempfile::tempdir().expect("temp dir");
        let read = || Reservation::read(&Disk, dir.path());
        assert_eq!(read().expect("reads"), None);
        let reserved = Reservation {
            id: NodeId(4),
            cluster: Uuid::from_u128(7),
            as_of: Revision(17),
        };
        reserved.write(&Disk, dir.path()).expect("writes");
        assert_eq!(read().expect("reads"), Some(reserved));
        Reservation::forget(&Disk, dir.path()).expect("deletes");
        Reservation::forget(&Disk, dir.path()).expect("is no more");
        assert_eq!(read().expect("reads"), None);
        std::fs::write(dir.path().join(Reservation::NOTE), "node_id = 4\n").expect("writes");
        assert!(read().is_err());
    }
}
