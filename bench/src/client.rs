//! One client: one connection, one request at a time, of either system's own protocol.
//!
//! Both speak through hyper, so that what the load generator costs is the same: HTTP/1.1 with JSON for ours, gRPC over
//! HTTP/2 for etcd (its JSON gateway is slower, and would flatter us). The one gRPC call that is needed, `KV/Put`, is
//! encoded by hand: two fields, so that no protobuf compiler is a dependency of the workspace.

use crate::system::Kind;
use anyhow::{Context, Result, bail, ensure};
use bytes::{BufMut, Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper::header::{CONTENT_TYPE, HOST, TE};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::net::SocketAddr;
use tokio::net::TcpStream;

/// A connection to one node.
pub enum Client {
    /// To ours.
    Onward {
        /// Sends requests.
        sender: http1::SendRequest<Full<Bytes>>,
        /// Whom it is connected to.
        address: SocketAddr,
    },
    /// To etcd.
    Etcd {
        /// Sends requests.
        sender: http2::SendRequest<Full<Bytes>>,
        /// Whom it is connected to.
        address: SocketAddr,
    },
}

/// What became of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// It is durable on a majority.
    Done,
    /// It was not done: too much is under way.
    TurnedAway,
}

impl Client {
    /// Connects to a node.
    pub async fn connect(kind: Kind, address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address)
            .await
            .with_context(|| format!("cannot reach {address}"))?;
        stream.set_nodelay(true)?;
        let stream = TokioIo::new(stream);
        Ok(match kind {
            Kind::Onward => {
                let (sender, connection) = http1::handshake(stream).await?;
                tokio::spawn(connection);
                Client::Onward { sender, address }
            }
            Kind::Etcd | Kind::EtcdShared => {
                let (sender, connection) = http2::handshake(TokioExecutor::new(), stream).await?;
                tokio::spawn(connection);
                Client::Etcd { sender, address }
            }
        })
    }

    /// Another client on the same connection, where the protocol can do that.
    pub fn share(&self) -> Option<Self> {
        match self {
            Client::Onward { .. } => None,
            Client::Etcd { sender, address } => Some(Client::Etcd {
                sender: sender.clone(),
                address: *address,
            }),
        }
    }

    /// Puts a value, and returns once it is durable on a majority.
    pub async fn put(&mut self, key: &str, value: &Bytes) -> Result<()> {
        match self {
            Client::Onward { .. } => {
                self.send(
                    Method::PUT,
                    &format!("/v1/kv/{key}"),
                    "application/octet-stream",
                    value.clone(),
                )
                .await?;
                Ok(())
            }
            Client::Etcd { sender, address } => {
                let request = Request::post(format!("http://{address}/etcdserverpb.KV/Put"))
                    .header(CONTENT_TYPE, "application/grpc")
                    .header(TE, "trailers")
                    .body(Full::new(put_request(key.as_bytes(), value)))?;
                sender.ready().await?;
                check_grpc(sender.send_request(request).await?).await
            }
        }
    }

    /// As [`Client::put`], to ours, which may turn it away.
    pub async fn try_put(&mut self, key: &str, value: &Bytes) -> Result<Put> {
        let kind = "application/octet-stream";
        let (status, body) = self
            .ask(Method::PUT, &format!("/v1/kv/{key}"), kind, value.clone())
            .await?;
        match status.as_u16() {
            200 => Ok(Put::Done),
            429 | 503 => Ok(Put::TurnedAway),
            _ => bail!("a write was answered with {status}: {}", body.escape_ascii()),
        }
    }

    /// Sends a request to ours and returns the body of the answer, which must be a success.
    pub async fn send(
        &mut self,
        method: Method,
        path: &str,
        content_type: &str,
        body: Bytes,
    ) -> Result<Bytes> {
        let (status, body) = self.ask(method, path, content_type, body).await?;
        ensure!(
            status.is_success(),
            "{path} was answered with {status}: {}",
            body.escape_ascii()
        );
        Ok(body)
    }

    async fn ask(
        &mut self,
        method: Method,
        path: &str,
        content_type: &str,
        body: Bytes,
    ) -> Result<(StatusCode, Bytes)> {
        let Client::Onward { sender, address } = self else {
            bail!("only onward has an HTTP API");
        };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, address.to_string())
            .header(CONTENT_TYPE, content_type)
            .body(Full::new(body))?;
        sender.ready().await?;
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        Ok((status, body))
    }
}

/// A gRPC call succeeded if `grpc-status` is 0; it is in the trailers, or in the head of an answer without a body.
async fn check_grpc(response: Response<hyper::body::Incoming>) -> Result<()> {
    let http_status = response.status();
    let in_head = response.headers().get("grpc-status").cloned();
    let collected = response.into_body().collect().await?;
    let in_trailers = collected
        .trailers()
        .and_then(|trailers| trailers.get("grpc-status"))
        .cloned();
    let status = in_trailers.or(in_head).context("an answer without grpc-status")?;
    ensure!(
        http_status.is_success() && status == "0",
        "etcd answered {http_status}, grpc-status {status:?}"
    );
    Ok(())
}

/// `PutRequest { key = 1, value = 2 }` in a gRPC frame: not compressed, length, message.
fn put_request(key: &[u8], value: &[u8]) -> Bytes {
    let mut message = BytesMut::with_capacity(key.len() + value.len() + 16);
    for (number, field) in [(1, key), (2, value)] {
        message.put_u8(number << 3 | 2);
        put_varint(&mut message, field.len());
        message.put_slice(field);
    }
    let mut frame = BytesMut::with_capacity(message.len() + 5);
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).expect("a put is small"));
    frame.put(message);
    frame.freeze()
}

fn put_varint(buffer: &mut BytesMut, mut number: usize) {
    while number >= 0x80 {
        buffer.put_u8((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    buffer.put_u8(number as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_put_is_framed_as_grpc_wants_it() {
        let frame = put_request(b"k", &[9; 200]);
        assert_eq!(frame[..5], [0, 0, 0, 0, 206]);
        assert_eq!(frame[5..8], [0x0a, 1, b'k']);
        assert_eq!(frame[8..11], [0x12, 0xc8, 0x01]);
        assert_eq!(frame.len(), 5 + 206);
    }
}
