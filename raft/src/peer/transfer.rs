//! Snapshots over the wire: the manifest, then file by file in frames, on a connection of its own.
//!
//! The receiver writes to a directory with a temporary name, checks size and checksum of every file, syncs, and renames:
//! only a whole snapshot ever has a final name. It syncs as it goes, and the sender keeps to a pace, so that writes, which
//! share the disks, are not held up by one burst. A transfer that breaks leaves nothing. A sender whose own files are not
//! what they were stops: its disk damaged them.

use super::frame::{self, FrameReader};
use super::net::{ReadHalf, WriteHalf};
use super::wire::{self, SnapshotBegin, kind};
use crate::config::SNAPSHOT_DEADLINE;
use crate::fault::die;
use crate::files::{File, Files, Open};
use crate::runtime::{blocking, new_uuid};
use crate::state::snapshot::{Manifest, SnapshotDir, SnapshotFile, SnapshotHandle, seal};
use crate::types::{TypeConfig, Vote};
use bytes::Bytes;
use onward_statemachine::codec;
use openraft::raft::SnapshotResponse;
use std::io;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::time::Instant;

const CHUNK_BYTES: usize = 256 << 10;
/// What is written of a file between two syncs.
const SYNC_BYTES: u64 = 1 << 20;
/// How long one frame may take in either direction.
pub(super) const FRAME_DEADLINE: Duration = Duration::from_secs(30);

fn invalid(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}

async fn in_time<T>(step: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(FRAME_DEADLINE, step)
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// How far behind its pace a transfer may catch up: timers are coarse.
const CATCH_UP: Duration = Duration::from_millis(20);

/// When the next bytes are due at a given rate.
pub(super) struct Pace {
    bytes_per_second: Option<NonZeroU64>,
    due: Instant,
}

impl Pace {
    pub(super) fn new(bytes_per_second: Option<NonZeroU64>) -> Self {
        Pace {
            bytes_per_second,
            due: Instant::now(),
        }
    }

    /// When more may follow what was sent just now.
    fn next(&mut self, bytes: usize, now: Instant) -> Option<Instant> {
        let takes = (bytes as u64).saturating_mul(1_000_000_000) / self.bytes_per_second?;
        self.due = self.due.max(now.checked_sub(CATCH_UP).unwrap_or(now)) + Duration::from_nanos(takes);
        Some(self.due)
    }
}

/// Sends a snapshot and waits until it is installed or refused; counts the bytes of its files that are sent.
pub(super) async fn send(
    read: ReadHalf,
    mut write: WriteHalf,
    vote: Vote,
    snapshot: &SnapshotDir,
    mut pace: Pace,
    sent_bytes: &AtomicU64,
) -> io::Result<SnapshotResponse<TypeConfig>> {
    let begin = SnapshotBegin {
        vote,
        manifest: snapshot.manifest.clone(),
    };
    let head = frame::encode(kind::SNAPSHOT_BEGIN, 0, &codec::encode(&begin));
    in_time(write.write_all(&head)).await?;
    for (place, file) in snapshot.manifest.files.iter().enumerate() {
        let (files, path) = (snapshot.files.clone(), snapshot.path.join(&file.name));
        let source: Arc<dyn File> = blocking(move || files.open(&path, Open::Read)).await??.into();
        let mut offset = 0;
        let mut crc = crc32fast::Hasher::new();
        loop {
            let source = source.clone();
            let chunk = blocking(move || {
                let mut chunk = vec![0; CHUNK_BYTES];
                let count = source.read_at(&mut chunk, offset)?;
                chunk.truncate(count);
                io::Result::Ok(chunk)
            });
            let chunk = chunk.await??;
            if chunk.is_empty() {
                break;
            }
            offset += chunk.len() as u64;
            crc.update(&chunk);
            let bytes = frame::encode(kind::SNAPSHOT_BYTES, place as u64, &chunk);
            in_time(write.write_all(&bytes)).await?;
            sent_bytes.fetch_add(chunk.len() as u64, Relaxed);
            if let Some(due) = pace.next(chunk.len(), Instant::now()) {
                tokio::time::sleep_until(due).await;
            }
        }
        // The other one will not take it, from a leader that would offer it for ever.
        if offset != file.bytes || crc.finalize() != file.crc {
            let path = snapshot.path.join(&file.name);
            let error = format!("{} does not match its checksum", path.display());
            die("sending a snapshot", error);
        }
    }
    in_time(write.write_all(&frame::encode(kind::SNAPSHOT_END, 0, &[]))).await?;
    let mut reader = FrameReader::new(read);
    let answer = tokio::time::timeout(SNAPSHOT_DEADLINE, reader.next())
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??
        .ok_or(io::ErrorKind::UnexpectedEof)?;
    match answer.kind {
        kind::ANSWER => wire::decode(&answer.body),
        _ => Err(invalid(String::from_utf8_lossy(&answer.body))),
    }
}

/// A directory that is deleted unless its snapshot becomes whole.
struct Incoming {
    files: Arc<dyn Files>,
    path: PathBuf,
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if self.files.exists(&self.path)
            && let Err(error) = self.files.remove_dir(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "a broken snapshot transfer could not be deleted");
        }
    }
}

/// Receives a snapshot into `root`, if `has_room` for so many bytes: what fills the disk ends the node, and begins anew
/// when it is back.
pub(super) async fn receive(
    mut reader: FrameReader<ReadHalf>,
    files: Arc<dyn Files>,
    root: PathBuf,
    has_room: impl FnOnce(u64) -> bool,
) -> io::Result<(Vote, SnapshotHandle)> {
    let head = in_time(reader.next())
        .await?
        .ok_or(io::ErrorKind::UnexpectedEof)?;
    if head.kind != kind::SNAPSHOT_BEGIN {
        return Err(invalid("a snapshot does not begin with its manifest"));
    }
    let SnapshotBegin { vote, manifest } = wire::decode(&head.body)?;
    manifest.check()?;
    if !has_room(manifest.bytes()) {
        return Err(io::Error::new(
            io::ErrorKind::StorageFull,
            format!(
                "the snapshot has {} bytes, and the disk of this node no room for it: enlarge the disk, or free some of it",
                manifest.bytes()
            ),
        ));
    }
    let incoming = Incoming {
        files: files.clone(),
        path: root.join(format!("incoming-{}", new_uuid())),
    };
    files.create_dir(&incoming.path)?;
    tracing::info!(
        files = manifest.files.len(),
        bytes = manifest.bytes(),
        "receiving a snapshot"
    );
    receive_files(&mut reader, &incoming, &manifest).await?;
    let temporary = incoming.path.clone();
    let snapshot = blocking(move || seal(&files, &temporary, &root, &manifest)).await??;
    Ok((vote, SnapshotHandle::new(snapshot)))
}

async fn receive_files(
    reader: &mut FrameReader<ReadHalf>,
    incoming: &Incoming,
    manifest: &Manifest,
) -> io::Result<()> {
    let mut files = manifest.files.iter().enumerate();
    let mut open: Option<(usize, Sink<'_>)> = None;
    loop {
        let frame = in_time(reader.next())
            .await?
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        let place = match frame.kind {
            kind::SNAPSHOT_BYTES => Some(frame.id as usize),
            kind::SNAPSHOT_END => None,
            _ => return Err(invalid("an unexpected frame within a snapshot")),
        };
        // Files come in the order of the manifest; empty ones send no bytes.
        while open.as_ref().map(|(at, _)| *at) != place {
            if let Some((_, sink)) = open.take() {
                sink.finish().await?;
            }
            match files.next() {
                Some((at, file)) => open = Some((at, Sink::create(incoming, file)?)),
                None if place.is_none() => return Ok(()),
                None => return Err(invalid("a snapshot sends a file that its manifest does not have")),
            }
        }
        match &mut open {
            Some((_, sink)) => sink.write(frame.body).await?,
            None => return Ok(()),
        }
    }
}

struct Sink<'m> {
    file: Arc<dyn File>,
    expected: &'m SnapshotFile,
    bytes: u64,
    crc: crc32fast::Hasher,
}

impl<'m> Sink<'m> {
    fn create(incoming: &Incoming, expected: &'m SnapshotFile) -> io::Result<Self> {
        let path = incoming.path.join(&expected.name);
        Ok(Sink {
            file: incoming.files.open(&path, Open::New)?.into(),
            expected,
            bytes: 0,
            crc: crc32fast::Hasher::new(),
        })
    }

    async fn write(&mut self, bytes: Bytes) -> io::Result<()> {
        let offset = self.bytes;
        self.bytes += bytes.len() as u64;
        if self.bytes > self.expected.bytes {
            return Err(invalid(format!(
                "`{}` is longer than its manifest says",
                self.expected.name
            )));
        }
        self.crc.update(&bytes);
        let sync = offset / SYNC_BYTES != self.bytes / SYNC_BYTES;
        let file = self.file.clone();
        let write = move || {
            file.write_at(&bytes, offset)?;
            if sync { file.sync() } else { Ok(()) }
        };
        blocking(write).await?
    }

    async fn finish(self) -> io::Result<()> {
        let file = self.file.clone();
        blocking(move || file.sync()).await??;
        if self.bytes != self.expected.bytes || self.crc.finalize() != self.expected.crc {
            return Err(invalid(format!("`{}` arrived damaged", self.expected.name)));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::database::Standing;

    #[test]
    fn a_transfer_keeps_to_its_pace() {
        let begun = Instant::now();
        let mut pace = Pace {
            bytes_per_second: NonZeroU64::new(1 << 20),
            due: begun,
        };
        let mut now = begun;
        for _ in 0..64 {
            now = pace.next(CHUNK_BYTES, now).expect("a pace");
        }
        assert_eq!(now - begun, Duration::from_secs(16));
        // An hour in which nothing could be sent is no reason for a burst.
        let resumed = now + Duration::from_secs(3600);
        let next = pace.next(1 << 20, resumed).expect("a pace");
        assert_eq!(next - resumed, Duration::from_secs(1) - CATCH_UP);

        assert_eq!(Pace::new(None).next(usize::MAX, begun), None);
    }

    #[tokio::test]
    async fn a_snapshot_that_the_disk_has_no_room_for_is_not_begun() {
        let dir = tempfile::tempdir().expect("temp dir");
        let file = |name: &str, bytes| SnapshotFile {
            name: name.to_owned(),
            bytes,
            crc: 0,
        };
        let files = vec![file("000001.sst", 70), file("000002.sst", 30)];
        let head = SnapshotBegin {
            vote: Vote::new_committed(1, 1),
            manifest: Manifest::new(&Standing::default(), files),
        };
        let (near, mut far) = tokio::io::duplex(1 << 16);
        let frame = frame::encode(kind::SNAPSHOT_BEGIN, 0, &codec::encode(&head));
        far.write_all(&frame).await.expect("writes");
        let reader = FrameReader::new(Box::new(near) as ReadHalf);
        let disk = Arc::new(crate::files::Disk);
        let received = receive(reader, disk, dir.path().to_owned(), |bytes| bytes < 100).await;
        let refused = received.expect_err("is refused");
        assert_eq!(refused.kind(), io::ErrorKind::StorageFull);
        assert!(refused.to_string().contains("has 100 bytes"), "{refused}");
        let left = std::fs::read_dir(dir.path()).expect("lists").count();
        assert_eq!(left, 0);
    }
}
