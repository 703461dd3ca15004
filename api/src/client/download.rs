//! A backup on its way from a server, checked as it comes.

use super::send::{Call, Tried, innermost, judge};
use super::{Client, Error};
use onward_statemachine::backup::{Reader, Summary};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// How long a server may take for the next bytes.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// A backup that is being received.
pub struct Download {
    server: String,
    response: reqwest::Response,
    reader: Reader,
    bytes: u64,
}

impl Client {
    /// Begins a backup on the first server that takes one.
    pub async fn backup(&self) -> Result<Download, Error> {
        self.only_now()?;
        let call = self.fresh(Call::get("/v1/cluster/backup"));
        let mut why = String::new();
        let first = self.preferred.load(Relaxed);
        for place in 0..self.servers.len() {
            let index = (first + place) % self.servers.len();
            let server = self.servers[index].to_string();
            let sent = tokio::time::timeout(self.deadline, self.request(&call, index).send()).await;
            let response = match sent {
                Ok(Ok(response)) => response,
                Ok(Err(error)) => {
                    why = format!("{server}: {}", innermost(&error));
                    continue;
                }
                Err(_) => {
                    why = format!("{server}: no answer in {:?}", self.deadline);
                    continue;
                }
            };
            if response.status().is_success() {
                self.preferred.store(index, Relaxed);
                return Ok(Download {
                    server,
                    response,
                    reader: Reader::new(),
                    bytes: 0,
                });
            }
            let (status, body) = (response.status(), response.bytes().await.unwrap_or_default());
            match judge(&server, status, false, &body) {
                Tried::Refused(problem) => return Err(Error::Refused(problem)),
                Tried::NotDone { reason, .. } | Tried::Lost { reason } | Tried::Unreadable { reason } => {
                    why = reason;
                }
                Tried::Answered(_) => {}
            }
        }
        Err(Error::Unreachable(why))
    }
}

impl Download {
    /// The revision that it is of, once that was received.
    pub fn revision(&self) -> Option<u64> {
        self.reader.header().map(|header| header.revision)
    }

    /// How many bytes were received.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How many rows were received.
    pub fn rows(&self) -> u64 {
        self.reader.rows()
    }

    /// The next bytes, checked as far as they go; `None` at the end, where [`Download::finish`] tells whether all is
    /// there.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, Error> {
        let piece = tokio::time::timeout(SILENCE_MAX, self.response.chunk()).await;
        let broken =
            |reason: String| Error::Unreachable(format!("{}: the backup broke off: {reason}", self.server));
        let piece = match piece {
            Ok(Ok(Some(piece))) => piece,
            Ok(Ok(None)) => return Ok(None),
            Ok(Err(error)) => return Err(broken(innermost(&error))),
            Err(_) => return Err(broken(format!("nothing came for {SILENCE_MAX:?}"))),
        };
        self.bytes += piece.len() as u64;
        self.reader.feed(&piece);
        while self
            .reader
            .next_part()
            .map_err(|damage| self.unreadable(&damage))?
            .is_some()
        {}
        Ok(Some(piece.to_vec()))
    }

    /// What was received, if it was whole.
    pub fn finish(self) -> Result<Summary, Error> {
        let server = self.server;
        self.reader.finish().map_err(|damage| Error::Unreadable {
            server,
            reason: damage.to_string(),
        })
    }

    fn unreadable(&self, reason: &dyn std::fmt::Display) -> Error {
        Error::Unreadable {
            server: self.server.clone(),
            reason: reason.to_string(),
        }
    }
}
