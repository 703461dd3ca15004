//! Where scheduled backups go, and what they are called there.
//!
//! A backup has its name once it is whole; what breaks off leaves nothing under a name that [`Name::parse`] knows.

use super::config;
use super::directory::{self, Directory};
use super::s3::{self, Bucket};
use anyhow::Result;
use uuid::Uuid;

/// The name of a backup: whose it is, when it was taken, and of which revision.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name {
    /// The clock of the node that took it, in ms since 1970 UTC.
    pub taken_at_ms: u64,
    /// The revision.
    pub revision: u64,
    /// The cluster.
    pub cluster: Uuid,
}

impl Name {
    /// The name of this text, if it is one.
    pub fn parse(text: &str) -> Option<Name> {
        let rest = text.strip_prefix("onward-")?.strip_suffix(".backup")?;
        let (rest, revision) = rest.rsplit_once("-r")?;
        let (cluster, taken_at) = rest.rsplit_once('-')?;
        Some(Name {
            taken_at_ms: taken_at.parse().ok()?,
            revision: revision.parse().ok()?,
            cluster: cluster.parse().ok()?,
        })
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Name {
            taken_at_ms,
            revision,
            cluster,
        } = self;
        write!(f, "onward-{cluster}-{taken_at_ms:013}-r{revision}.backup")
    }
}

/// Where backups go.
pub enum Destination {
    /// A directory.
    Directory(Directory),
    /// A bucket.
    S3(Bucket),
}

/// A backup on its way there.
pub enum Upload {
    /// To a directory.
    File(directory::Upload),
    /// To a bucket.
    Object(s3::Upload),
}

impl Destination {
    /// The one that the configuration names; `None` where nothing is scheduled.
    pub fn of(config: &config::Backup) -> Result<Option<Destination>> {
        if config.interval_s == 0 {
            return Ok(None);
        }
        Ok(match (&config.directory, &config.s3) {
            (Some(path), _) => Some(Destination::Directory(Directory::new(path))),
            (None, Some(s3)) => Some(Destination::S3(Bucket::new(s3)?)),
            (None, None) => None,
        })
    }

    /// All whole backups there, of whichever cluster, oldest first.
    pub async fn list(&self) -> Result<Vec<Name>> {
        let mut names = match self {
            Destination::Directory(directory) => directory.list().await?,
            Destination::S3(bucket) => bucket.list().await?,
        };
        names.sort();
        Ok(names)
    }

    /// Begins to store one.
    pub async fn begin(&self, name: &Name, node: u64) -> Result<Upload> {
        Ok(match self {
            Destination::Directory(directory) => Upload::File(directory.begin(name, node).await?),
            Destination::S3(bucket) => Upload::Object(bucket.begin(name).await?),
        })
    }

    /// Deletes one.
    pub async fn delete(&self, name: &Name) -> Result<()> {
        match self {
            Destination::Directory(directory) => directory.delete(name).await,
            Destination::S3(bucket) => bucket.delete(name).await,
        }
    }
}

impl std::fmt::Display for Destination {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Destination::Directory(directory) => directory.fmt(f),
            Destination::S3(bucket) => bucket.fmt(f),
        }
    }
}

impl Upload {
    /// Stores the next bytes.
    pub async fn write(&mut self, piece: Vec<u8>) -> Result<()> {
        match self {
            Upload::File(upload) => upload.write(&piece).await,
            Upload::Object(upload) => upload.write(piece).await,
        }
    }

    /// Gives it its name, durably.
    pub async fn finish(self) -> Result<()> {
        match self {
            Upload::File(upload) => upload.finish().await,
            Upload::Object(upload) => upload.finish().await,
        }
    }

    /// Leaves nothing of it.
    pub async fn abort(self) {
        match self {
            Upload::File(upload) => upload.abort().await,
            Upload::Object(upload) => upload.abort().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_return_and_sort_by_time() {
        let name = |taken_at_ms, revision| Name {
            taken_at_ms,
            revision,
            cluster: Uuid::from_u128(7),
        };
        let one = name(1_700_000_000_000, 12);
        assert_eq!(
            one.to_string(),
            "onward-00000000-0000-0000-0000-000000000007-1700000000000-r12.backup"
        );
        assert_eq!(Name::parse(&one.to_string()), Some(one.clone()));
        assert!(one < name(1_700_000_000_001, 3));
        for other in [
            "onward.backup",
            "x.backup",
            "onward-1-2-r3.backup",
            &format!("{one}.1.part"),
        ] {
            assert_eq!(Name::parse(other), None, "{other}");
        }
    }
}
