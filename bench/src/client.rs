//! One client: one request at a time, of either system's own protocol, over a connection of its own or a shared one.
//!
//! Both speak through hyper, so that what the load generator costs is the same: for ours HTTP/1.1, or HTTP/2 where
//! clients share a connection; for etcd gRPC over HTTP/2 (its JSON gateway is slower, and would flatter us). The few
//! gRPC messages that are needed are encoded in [`crate::grpc`], so that no protobuf compiler is a dependency of the
//! workspace.

use crate::grpc;
use crate::system::Kind;
use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::header::{CONTENT_TYPE, HOST, TE};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde::Serialize;
use std::net::SocketAddr;
use tokio::net::TcpStream;

/// A connection to one node.
pub struct Client {
    kind: Kind,
    sender: Sender,
    /// Whom it is connected to.
    address: SocketAddr,
}

enum Sender {
    /// One request after the other.
    Http1(http1::SendRequest<Full<Bytes>>),
    /// Several at a time, of all who share the connection.
    Http2(http2::SendRequest<Full<Bytes>>),
}

impl Sender {
    async fn send(&mut self, request: Request<Full<Bytes>>) -> hyper::Result<Response<Incoming>> {
        match self {
            Sender::Http1(sender) => {
                sender.ready().await?;
                sender.send_request(request).await
            }
            Sender::Http2(sender) => {
                sender.ready().await?;
                sender.send_request(request).await
            }
        }
    }
}

/// etcd's answer without a pair is its header, shorter than this; every value that is read is longer.
const LEAST_FOUND: usize = 100;

/// A transaction of ours: `POST /v1/kv/txn`.
#[derive(Serialize)]
struct Txn<'a> {
    then: Vec<Op<'a>>,
}

#[derive(Serialize)]
struct Op<'a> {
    put: Pair<'a>,
}

#[derive(Serialize)]
struct Pair<'a> {
    key: &'a str,
    value: &'a str,
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
        let sender = if kind == Kind::Onward {
            let (sender, connection) = http1::handshake(stream).await?;
            tokio::spawn(connection);
            Sender::Http1(sender)
        } else {
            let (sender, connection) = http2::handshake(TokioExecutor::new(), stream).await?;
            tokio::spawn(connection);
            Sender::Http2(sender)
        };
        Ok(Client {
            kind,
            sender,
            address,
        })
    }

    /// Another client on the same connection, where clients are to share one.
    pub fn share(&self) -> Option<Self> {
        match &self.sender {
            Sender::Http2(sender) if self.kind.shares() => Some(Client {
                sender: Sender::Http2(sender.clone()),
                ..*self
            }),
            _ => None,
        }
    }

    /// Puts a value, and returns once it is durable on a majority.
    pub async fn put(&mut self, key: &str, value: &Bytes) -> Result<()> {
        if self.kind.is_ours() {
            let (path, kind) = (format!("/v1/kv/{key}"), "application/octet-stream");
            self.send(Method::PUT, &path, kind, value.clone()).await?;
        } else {
            self.call("KV/Put", grpc::put(key.as_bytes(), value)).await?;
        }
        Ok(())
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

    /// Reads a value as it is now, linearizably; it must be there.
    pub async fn get(&mut self, key: &str) -> Result<()> {
        if self.kind.is_ours() {
            let path = format!("/v1/kv/{key}");
            self.send(Method::GET, &path, "application/json", Bytes::new())
                .await?;
        } else {
            let answer = self.call("KV/Range", grpc::range(key.as_bytes())).await?;
            ensure!(answer.len() > LEAST_FOUND, "{key} is not there");
        }
        Ok(())
    }

    /// Puts many pairs in one transaction.
    pub async fn put_all(&mut self, pairs: &[(String, Bytes)]) -> Result<()> {
        if self.kind.is_ours() {
            let mut then = Vec::with_capacity(pairs.len());
            for (key, value) in pairs {
                let value = std::str::from_utf8(value)?;
                then.push(Op {
                    put: Pair { key, value },
                });
            }
            let body = serde_json::to_vec(&Txn { then })?;
            self.send(Method::POST, "/v1/kv/txn", "application/json", body.into())
                .await?;
        } else {
            self.call("KV/Txn", grpc::txn(pairs)).await?;
        }
        Ok(())
    }

    /// Whether the node that it is connected to leads.
    pub async fn leads(&mut self) -> Result<bool> {
        if self.kind.is_ours() {
            let body = self
                .send(Method::GET, "/v1/cluster", "application/json", Bytes::new())
                .await?;
            let status: serde_json::Value = serde_json::from_slice(&body)?;
            Ok(status["role"] == "leader")
        } else {
            let answer = self.call("Maintenance/Status", Bytes::new()).await?;
            grpc::leads(&answer)
        }
    }

    /// Calls etcd and returns the message of its answer.
    async fn call(&mut self, method: &str, message: Bytes) -> Result<Bytes> {
        let request = Request::post(format!("http://{}/etcdserverpb.{method}", self.address))
            .header(CONTENT_TYPE, "application/grpc")
            .header(TE, "trailers")
            .body(Full::new(grpc::frame(&message)))?;
        grpc::message(self.sender.send(request).await?).await
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
        let request = Request::builder()
            .method(method)
            .header(CONTENT_TYPE, content_type);
        let request = match self.sender {
            Sender::Http1(_) => request.uri(path).header(HOST, self.address.to_string()),
            Sender::Http2(_) => request.uri(format!("http://{}{path}", self.address)),
        };
        let response = self.sender.send(request.body(Full::new(body))?).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        Ok((status, body))
    }
}
