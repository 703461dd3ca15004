//! Snapshots over the wire: the manifest, then file by file in frames, on a connection of its own.
//!
//! The receiver writes to a directory with a temporary name, checks size and checksum of every file, syncs, and renames:
//! only a whole snapshot ever has a final name. A transfer that breaks leaves nothing.

use super::frame::{self, FrameReader};
use super::net::{ReadHalf, WriteHalf};
use super::wire::{self, SnapshotBegin, kind};
use crate::config::SNAPSHOT_DEADLINE;
use crate::state::snapshot::{Manifest, SnapshotDir, SnapshotFile, SnapshotHandle, seal};
use crate::types::{TypeConfig, Vote};
use onward_statemachine::codec;
use openraft::raft::SnapshotResponse;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const CHUNK_BYTES: usize = 256 << 10;
/// How long one frame may take in either direction.
const FRAME_DEADLINE: Duration = Duration::from_secs(30);

fn invalid(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}

async fn in_time<T>(step: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(FRAME_DEADLINE, step)
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// Sends a snapshot and waits until it is installed or refused.
pub(super) async fn send(
    read: ReadHalf,
    mut write: WriteHalf,
    vote: Vote,
    snapshot: &SnapshotDir,
) -> io::Result<SnapshotResponse<TypeConfig>> {
    let begin = SnapshotBegin {
        vote,
        manifest: snapshot.manifest.clone(),
    };
    let head = frame::encode(kind::SNAPSHOT_BEGIN, 0, &codec::encode(&begin));
    in_time(write.write_all(&head)).await?;
    let mut chunk = vec![0; CHUNK_BYTES];
    for (place, file) in snapshot.manifest.files.iter().enumerate() {
        let mut source = tokio::fs::File::open(snapshot.path.join(&file.name)).await?;
        loop {
            let count = source.read(&mut chunk).await?;
            if count == 0 {
                break;
            }
            let bytes = frame::encode(kind::SNAPSHOT_BYTES, place as u64, &chunk[..count]);
            in_time(write.write_all(&bytes)).await?;
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
struct Incoming(PathBuf);

impl Drop for Incoming {
    fn drop(&mut self) {
        if self.0.exists()
            && let Err(error) = std::fs::remove_dir_all(&self.0)
        {
            tracing::warn!(path = %self.0.display(), %error, "a broken snapshot transfer could not be deleted");
        }
    }
}

/// Receives a snapshot into `root`.
pub(super) async fn receive(
    reader: &mut FrameReader<ReadHalf>,
    root: &Path,
) -> io::Result<(Vote, SnapshotHandle)> {
    let head = in_time(reader.next())
        .await?
        .ok_or(io::ErrorKind::UnexpectedEof)?;
    if head.kind != kind::SNAPSHOT_BEGIN {
        return Err(invalid("a snapshot does not begin with its manifest"));
    }
    let SnapshotBegin { vote, manifest } = wire::decode(&head.body)?;
    manifest.check()?;
    let incoming = Incoming(root.join(format!("incoming-{}", uuid::Uuid::now_v7())));
    tokio::fs::create_dir(&incoming.0).await?;
    tracing::info!(
        files = manifest.files.len(),
        bytes = manifest.bytes(),
        "receiving a snapshot"
    );
    receive_files(reader, &incoming.0, &manifest).await?;
    let (temporary, root) = (incoming.0.clone(), root.to_owned());
    let sealed = tokio::task::spawn_blocking(move || seal(&temporary, &root, &manifest));
    let snapshot = sealed.await.map_err(io::Error::other)??;
    Ok((vote, SnapshotHandle::new(snapshot)))
}

async fn receive_files(
    reader: &mut FrameReader<ReadHalf>,
    dir: &Path,
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
                Some((at, file)) => open = Some((at, Sink::create(dir, file).await?)),
                None if place.is_none() => return Ok(()),
                None => return Err(invalid("a snapshot sends a file that its manifest does not have")),
            }
        }
        match &mut open {
            Some((_, sink)) => sink.write(&frame.body).await?,
            None => return Ok(()),
        }
    }
}

struct Sink<'m> {
    file: tokio::fs::File,
    expected: &'m SnapshotFile,
    bytes: u64,
    crc: crc32fast::Hasher,
}

impl<'m> Sink<'m> {
    async fn create(dir: &Path, expected: &'m SnapshotFile) -> io::Result<Self> {
        Ok(Sink {
            file: tokio::fs::File::create_new(dir.join(&expected.name)).await?,
            expected,
            bytes: 0,
            crc: crc32fast::Hasher::new(),
        })
    }

    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.bytes += bytes.len() as u64;
        if self.bytes > self.expected.bytes {
            return Err(invalid(format!(
                "`{}` is longer than its manifest says",
                self.expected.name
            )));
        }
        self.crc.update(bytes);
        self.file.write_all(bytes).await
    }

    async fn finish(mut self) -> io::Result<()> {
        self.file.flush().await?;
        self.file.sync_all().await?;
        if self.bytes != self.expected.bytes || self.crc.finalize() != self.expected.crc {
            return Err(invalid(format!("`{}` arrived damaged", self.expected.name)));
        }
        Ok(())
    }
}
