//! Where scheduled backups go, and what they are called there.
//!
//! A backup has its name once it is whole; what breaks off leaves nothing under a name that [`Name::parse`] knows.

use super::config;
use super::directory::{self, Directory};
use super::s3::{self, Bucket};
use anyhow::Result;
use uuid::Uuid;

/// The name of a backup: whose it is, when it was taken, and of which revision.
///
/// Revisions of one cluster only grow, and a cluster that was restored is another one; so of two backups of one cluster
/// the revision tells which is the newer, whatever the clocks were.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    /// The clock of the cluster when it was taken, as far as the node that took it knew, in ms since 1970 UTC.
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

/// Those of `cluster`, the newest last: by revision, which no clock has a part in. Of two of one revision, which have the
/// same in them, that with the later time is the newer; but one from beyond `horizon_ms` has a time that tells nothing.
pub fn of_cluster(mut names: Vec<Name>, cluster: Uuid, horizon_ms: u64) -> Vec<Name> {
    names.retain(|name| name.cluster == cluster);
    names.sort_by_key(|name| (name.revision, name.taken_at_ms <= horizon_ms, name.taken_at_ms));
    names
}

/// What is more than is to be kept of `names`, which has the newest last; never `own`, which was just written.
pub fn surplus<'a>(names: &'a [Name], keep: usize, own: &Name) -> impl Iterator<Item = &'a Name> {
    let count = names.len().saturating_sub(keep);
    names[..count].iter().filter(move |name| *name != own)
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

    /// All whole backups there, of whichever cluster, in no order.
    pub async fn list(&self) -> Result<Vec<Name>> {
        match self {
            Destination::Directory(directory) => directory.list().await,
            Destination::S3(bucket) => bucket.list().await,
        }
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

    fn name(cluster: u128, revision: u64, taken_at_ms: u64) -> Name {
        Name {
            taken_at_ms,
            revision,
            cluster: Uuid::from_u128(cluster),
        }
    }

    #[test]
    fn names_return() {
        let one = name(7, 12, 1_700_000_000_000);
        assert_eq!(
            one.to_string(),
            "onward-00000000-0000-0000-0000-000000000007-1700000000000-r12.backup"
        );
        assert_eq!(Name::parse(&one.to_string()), Some(one.clone()));
        for other in [
            "onward.backup",
            "x.backup",
            "onward-1-2-r3.backup",
            &format!("{one}.1.part"),
        ] {
            assert_eq!(Name::parse(other), None, "{other}");
        }
    }

    /// Those of cluster 7 in order, as revision and time.
    fn ordered(names: &[Name], horizon_ms: u64) -> Vec<(u64, u64)> {
        let names = of_cluster(names.to_vec(), Uuid::from_u128(7), horizon_ms);
        names
            .iter()
            .map(|name| (name.revision, name.taken_at_ms))
            .collect()
    }

    #[test]
    fn the_newest_is_that_of_the_highest_revision_whatever_its_time() {
        let planted = [name(7, 30, 1_000), name(7, 10, 9_000_000), name(7, 20, 5)];
        let expected = [(10, 9_000_000), (20, 5), (30, 1_000)];
        assert_eq!(ordered(&planted, 2_000), expected);
        assert_eq!(ordered(&planted, u64::MAX), expected);
        // Numbers, not digits; and within one revision by time, save one from the future.
        let same = [
            name(7, 9, 1),
            name(7, 10, 9_000_000),
            name(7, 10, 20),
            name(7, 10, 3),
        ];
        assert_eq!(
            ordered(&same, 2_000),
            [(9, 1), (10, 9_000_000), (10, 3), (10, 20)]
        );
    }

    #[test]
    fn surplus_goes_by_revision_and_never_takes_what_was_just_written_or_is_another_clusters() {
        let future = name(7, 10, 9_000_000);
        let (older, own) = (name(7, 20, 1_000), name(7, 30, 5));
        let others = [name(8, 1, 1), name(8, 40, 9_000_000)];
        let all = [others.to_vec(), vec![future.clone(), own.clone(), older.clone()]].concat();
        let names = of_cluster(all, Uuid::from_u128(7), 2_000);
        let gone = |keep, own| surplus(&names, keep, own).cloned().collect::<Vec<_>>();
        assert_eq!(gone(3, &own), []);
        assert_eq!(gone(2, &own), std::slice::from_ref(&future));
        assert_eq!(gone(1, &own), [future.clone(), older.clone()]);
        // One that sorts as the oldest stays all the same, and nothing newer goes in its place.
        assert_eq!(gone(2, &future), []);
        assert_eq!(gone(1, &future), [older]);
    }
}
