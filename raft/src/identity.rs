//! Who a data directory belongs to: the `identity` file and the lock.
//!
//! A node id belongs to one log for ever. The file ties the directory to its cluster and id before anything else is
//! written, and the lock keeps a second process out.

use crate::StartError;
use crate::config::InitialMember;
use crate::files::{Disk, Files, Lock};
use crate::note;
use onward_statemachine::NodeId;
use sha2::{Digest, Sha256};
use std::path::Path;
use uuid::Uuid;

/// The format of data directories that this build writes and reads.
const FORMAT: u32 = 1;

/// What keeps a node from starting where a restore has not come to its end.
pub(crate) const RESTORING: &str = "restoring";

/// Whose directory it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) cluster_id: Uuid,
    pub(crate) cluster_name: String,
    pub(crate) node: NodeId,
}

/// Takes the directory for this process; it is given back when the file is dropped.
pub(crate) fn lock(files: &dyn Files, dir: &Path) -> Result<Lock, StartError> {
    let unwritable = |error| StartError::Unwritable {
        path: dir.to_owned(),
        error,
    };
    files.create_dir(dir).map_err(unwritable)?;
    let lock = files.lock(&dir.join("LOCK")).map_err(unwritable)?;
    lock.ok_or_else(|| StartError::Locked { path: dir.to_owned() })
}

/// Reads the identity of `dir`, if it has one.
pub(crate) fn read(files: &dyn Files, dir: &Path) -> Result<Option<Identity>, StartError> {
    if files.exists(&dir.join(RESTORING)) {
        return Err(StartError::HalfRestored { path: dir.to_owned() });
    }
    let path = dir.join("identity");
    let text = match files.read_text(&path) {
        Ok(Some(text)) => text,
        Ok(None) => return Ok(None),
        Err(error) => return Err(StartError::Io { path, error }),
    };
    let damaged = || StartError::Damaged { path: path.clone() };
    let field = |name: &str| note::field(&text, name).ok_or_else(damaged);
    let format: u32 = field("format")?.parse().map_err(|_| damaged())?;
    if format > FORMAT {
        return Err(StartError::NewerFormat {
            path: dir.to_owned(),
            found: format,
            known: FORMAT,
        });
    }
    Ok(Some(Identity {
        cluster_id: field("cluster_id")?.parse().map_err(|_| damaged())?,
        cluster_name: field("cluster_name")?.to_owned(),
        node: NodeId(field("node_id")?.parse().map_err(|_| damaged())?),
    }))
}

/// Which node the data directory `dir` belongs to, if it belongs to one.
///
/// # Errors
/// As [`crate::Node::start`] of a directory that is damaged or of a newer format.
pub fn node_of(dir: &Path) -> Result<Option<NodeId>, StartError> {
    Ok(read(&Disk, dir)?.map(|identity| identity.node))
}

/// Writes the identity of `dir`, durably and whole.
pub(crate) fn write(files: &dyn Files, dir: &Path, identity: &Identity) -> Result<(), StartError> {
    let text = format!(
        "format = {FORMAT}\ncluster_id = {}\ncluster_name = {}\nnode_id = {}\n",
        identity.cluster_id, identity.cluster_name, identity.node
    );
    let written = files.replace(&dir.join("identity"), text.as_bytes());
    written.map_err(|error| StartError::Unwritable {
        path: dir.to_owned(),
        error,
    })
}

/// The id of a cluster that forms: a UUID version 8 over its name and initial members, so that all of them agree on it
/// without a word.
pub(crate) fn cluster_id(name: &str, members: &[InitialMember]) -> Uuid {
    let mut members: Vec<_> = members.iter().collect();
    members.sort_by_key(|member| member.id);
    let mut hasher = Sha256::new();
    hasher.update(name.as_bytes());
    for member in members {
        hasher.update([0]);
        hasher.update(member.id.0.to_be_bytes());
        hasher.update(member.peer_address.as_bytes());
    }
    let digest = hasher.finalize();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn member(id: u64) -> InitialMember {
        InitialMember {
            id: NodeId(id),
            peer_address: format!("127.0.0.1:{id}"),
            http_url: String::new(),
        }
    }

    #[test]
    fn all_members_agree_on_the_cluster() {
        let id = cluster_id("a", &[member(1), member(2)]);
        assert_eq!(id, cluster_id("a", &[member(2), member(1)]));
        assert_ne!(id, cluster_id("b", &[member(1), member(2)]));
        assert_ne!(id, cluster_id("a", &[member(1), member(3)]));
        assert_eq!(id.get_version_num(), 8);
    }

    #[test]
    fn identity_returns_and_refusals_are_told_apart() {
        let dir = tempfile::tempdir().expect("temp dir");
        assert_eq!(read(&Disk, dir.path()).expect("reads"), None);
        let identity = Identity {
            cluster_id: cluster_id("a", &[]),
            cluster_name: "a".to_owned(),
            node: NodeId(3),
        };
        write(&Disk, dir.path(), &identity).expect("writes");
        assert_eq!(read(&Disk, dir.path()).expect("reads"), Some(identity));
        let path = dir.path().join("identity");
        let newer = fs::read_to_string(&path)
            .expect("reads")
            .replace("format = 1", "format = 2");
        fs::write(&path, newer).expect("writes");
        assert!(matches!(
            read(&Disk, dir.path()),
            Err(StartError::NewerFormat { found: 2, .. })
        ));
        fs::write(&path, "x").expect("writes");
        assert!(matches!(read(&Disk, dir.path()), Err(StartError::Damaged { .. })));
        let _held = lock(&Disk, dir.path()).expect("locks");
        assert!(matches!(lock(&Disk, dir.path()), Err(StartError::Locked { .. })));
    }
}
