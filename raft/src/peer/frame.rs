//! Frames on a peer stream, and the handshake before the first.
//!
//! ```text
//! length u32 | crc32 u32 | kind u8 | id u64 | body        (little endian; length of all behind itself)
//! ```
//! The checksum covers everything behind it. A frame larger than [`FRAME_BYTES_MAX`] is refused before it is read.

use bytes::{Buf, Bytes, BytesMut};
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use uuid::Uuid;

/// The largest frame: far above the largest batch of entries, which the log store bounds.
pub(crate) const FRAME_BYTES_MAX: usize = 32 << 20;
const HEADER_BYTES: usize = 4 + 4 + 1 + 8;
const READ_BYTES: usize = 64 << 10;

/// The version of the protocol; peers of different versions refuse each other.
pub(crate) const PROTOCOL: u16 = 1;
const MAGIC: &[u8; 4] = b"ONWD";

/// What a connection is for. Each has its own, so that none waits behind another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Lane {
    /// Heartbeats, votes, leader transfer.
    Control,
    /// Log entries, pipelined and in order.
    Log,
    /// Proposals, read barriers and membership requests on their way to the leader.
    Forward,
    /// One snapshot.
    Snapshot,
    /// A node without an identity asks to join.
    Join,
}

impl Lane {
    const ALL: [Lane; 5] = [
        Lane::Control,
        Lane::Log,
        Lane::Forward,
        Lane::Snapshot,
        Lane::Join,
    ];

    fn code(self) -> u8 {
        match self {
            Lane::Control => 1,
            Lane::Log => 2,
            Lane::Forward => 3,
            Lane::Snapshot => 4,
            Lane::Join => 5,
        }
    }
}

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) id: u64,
    pub(crate) body: Bytes,
}

/// A frame of `body`.
pub(crate) fn encode(kind: u8, id: u64, body: &[u8]) -> Vec<u8> {
    let mut frame = begin(kind, id, body.len());
    frame.extend_from_slice(body);
    finish(&mut frame);
    frame
}

/// The head of a frame whose body is appended by the caller, who then calls [`finish`].
pub(crate) fn begin(kind: u8, id: u64, capacity: usize) -> Vec<u8> {
    let mut frame = Vec::with_capacity(HEADER_BYTES + capacity);
    frame.extend_from_slice(&[0; 8]);
    frame.push(kind);
    frame.extend_from_slice(&id.to_le_bytes());
    frame
}

/// Fills in the length and the checksum.
pub(crate) fn finish(frame: &mut [u8]) {
    let length = (frame.len() - 4) as u32;
    let checksum = crc32fast::hash(&frame[8..]);
    frame[..4].copy_from_slice(&length.to_le_bytes());
    frame[4..8].copy_from_slice(&checksum.to_le_bytes());
}

fn invalid(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}

/// Reads frames off a stream.
pub(crate) struct FrameReader<R> {
    stream: R,
    buffer: BytesMut,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    pub(crate) fn new(stream: R) -> Self {
        FrameReader {
            stream,
            buffer: BytesMut::new(),
        }
    }

    /// The next frame; `None` at an orderly end of the stream. Dropping the future loses nothing.
    pub(crate) async fn next(&mut self) -> io::Result<Option<Frame>> {
        loop {
            if let Some(frame) = self.buffered()? {
                return Ok(Some(frame));
            }
            self.buffer.reserve(READ_BYTES);
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return if self.buffer.is_empty() {
                    Ok(None)
                } else {
                    Err(io::ErrorKind::UnexpectedEof.into())
                };
            }
        }
    }

    fn buffered(&mut self) -> io::Result<Option<Frame>> {
        let Some(length) = self.buffer.first_chunk::<4>() else {
            return Ok(None);
        };
        let length = u32::from_le_bytes(*length) as usize;
        if !(HEADER_BYTES - 4..=FRAME_BYTES_MAX).contains(&length) {
            return Err(invalid(format!(
                "a frame of {length} bytes; the most is {FRAME_BYTES_MAX}"
            )));
        }
        if self.buffer.len() < 4 + length {
            self.buffer.reserve(4 + length - self.buffer.len());
            return Ok(None);
        }
        self.buffer.advance(4);
        let mut frame = self.buffer.split_to(length).freeze();
        let checksum = frame.get_u32_le();
        if crc32fast::hash(&frame) != checksum {
            return Err(invalid("a frame does not match its checksum"));
        }
        Ok(Some(Frame {
            kind: frame.get_u8(),
            id: frame.get_u64_le(),
            body: frame,
        }))
    }
}

/// What the one who connects says first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hello {
    pub(crate) lane: Lane,
    /// Nil on the join lane.
    pub(crate) cluster: Uuid,
    pub(crate) from: u64,
    /// The node that it means to reach; 0 on the join lane.
    pub(crate) to: u64,
}

/// What the other one answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Welcome,
    WrongCluster,
    WrongNode,
    WrongProtocol,
}

/// A refused handshake.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandshakeError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("it is node {node} of cluster {cluster}: {verdict:?}")]
    Refused {
        verdict: Verdict,
        cluster: Uuid,
        node: u64,
    },
}

const HELLO_BYTES: usize = 4 + 2 + 1 + 16 + 8 + 8;
const ANSWER_BYTES: usize = 4 + 2 + 1 + 16 + 8;

/// Says hello and waits for the answer.
pub(crate) async fn greet(
    read: &mut (impl AsyncRead + Unpin),
    write: &mut (impl AsyncWrite + Unpin),
    hello: &Hello,
) -> Result<(), HandshakeError> {
    let mut bytes = Vec::with_capacity(HELLO_BYTES);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&PROTOCOL.to_le_bytes());
    bytes.push(hello.lane.code());
    bytes.extend_from_slice(hello.cluster.as_bytes());
    bytes.extend_from_slice(&hello.from.to_le_bytes());
    bytes.extend_from_slice(&hello.to.to_le_bytes());
    write.write_all(&bytes).await?;
    let mut answer = [0; ANSWER_BYTES];
    read.read_exact(&mut answer).await?;
    let mut answer = &answer[..];
    if answer.copy_to_bytes(4) != MAGIC[..] {
        return Err(invalid("the other end does not speak the peer protocol").into());
    }
    answer.advance(2);
    let verdict = match answer.get_u8() {
        0 => return Ok(()),
        1 => Verdict::WrongCluster,
        2 => Verdict::WrongNode,
        _ => Verdict::WrongProtocol,
    };
    Err(HandshakeError::Refused {
        verdict,
        cluster: Uuid::from_u128(answer.get_u128()),
        node: answer.get_u64_le(),
    })
}

/// Reads a hello; `Err(None)` inside for one of another protocol version.
pub(crate) async fn read_hello(read: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Hello>> {
    let mut bytes = [0; HELLO_BYTES];
    read.read_exact(&mut bytes).await?;
    let mut bytes = &bytes[..];
    if bytes.copy_to_bytes(4) != MAGIC[..] {
        return Err(invalid("the other end does not speak the peer protocol"));
    }
    let version = bytes.get_u16_le();
    let code = bytes.get_u8();
    let Some(lane) = Lane::ALL.into_iter().find(|lane| lane.code() == code) else {
        return Ok(None);
    };
    let hello = Hello {
        lane,
        cluster: Uuid::from_u128(bytes.get_u128()),
        from: bytes.get_u64_le(),
        to: bytes.get_u64_le(),
    };
    Ok((version == PROTOCOL).then_some(hello))
}

/// Answers a hello.
pub(crate) async fn answer(
    write: &mut (impl AsyncWrite + Unpin),
    verdict: Verdict,
    cluster: Uuid,
    node: u64,
) -> io::Result<()> {
    let mut bytes = Vec::with_capacity(ANSWER_BYTES);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&PROTOCOL.to_le_bytes());
    bytes.push(match verdict {
        Verdict::Welcome => 0,
        Verdict::WrongCluster => 1,
        Verdict::WrongNode => 2,
        Verdict::WrongProtocol => 3,
    });
    bytes.extend_from_slice(cluster.as_bytes());
    bytes.extend_from_slice(&node.to_le_bytes());
    write.write_all(&bytes).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn frames_return_in_pieces_and_damage_is_refused() {
        let bytes = [encode(3, 9, b"hello"), encode(4, 10, b"")].concat();
        let (mut near, far) = tokio::io::duplex(7);
        let sent = bytes.clone();
        let sender = tokio::spawn(async move {
            near.write_all(&sent).await.expect("writes");
        });
        let mut reader = FrameReader::new(far);
        let frame = reader.next().await.expect("reads").expect("a frame");
        assert_eq!((frame.kind, frame.id, &frame.body[..]), (3, 9, &b"hello"[..]));
        let frame = reader.next().await.expect("reads").expect("a frame");
        assert_eq!((frame.kind, frame.id, frame.body.len()), (4, 10, 0));
        assert_eq!(reader.next().await.expect("ends"), None);
        sender.await.expect("sends");
        for at in 4..bytes.len() - HEADER_BYTES {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert!(FrameReader::new(&damaged[..]).next().await.is_err(), "byte {at}");
        }
        let huge = u32::MAX.to_le_bytes();
        assert!(FrameReader::new(&huge[..]).next().await.is_err());
    }

    #[tokio::test]
    async fn a_wrong_cluster_is_told() {
        let (near, far) = tokio::io::duplex(256);
        let ours = Uuid::from_u128(1);
        let answering = tokio::spawn(async move {
            let (mut read, mut write) = tokio::io::split(far);
            let hello = read_hello(&mut read).await.expect("reads").expect("same version");
            assert_eq!((hello.lane, hello.from, hello.to), (Lane::Log, 4, 5));
            answer(&mut write, Verdict::WrongCluster, ours, 5)
                .await
                .expect("writes");
        });
        let hello = Hello {
            lane: Lane::Log,
            cluster: Uuid::from_u128(2),
            from: 4,
            to: 5,
        };
        let (mut read, mut write) = tokio::io::split(near);
        let refused = greet(&mut read, &mut write, &hello).await;
        assert!(matches!(
            refused,
            Err(HandshakeError::Refused { verdict: Verdict::WrongCluster, cluster, node: 5 }) if cluster == ours
        ));
        answering.await.expect("answers");
    }
}
