//! Streams that come back after a broken connection where they left off.

use super::send::{Call, innermost};
use super::{Client, Error};
use crate::wire::Problem;
use serde::de::DeserializeOwned;
use std::marker::PhantomData;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

/// A server says how far it has come every few seconds; one that is silent for so long is given up.
const SILENCE_MAX: Duration = Duration::from_secs(20);
const RETRY_AFTER: Duration = Duration::from_millis(250);

/// Messages of the journal, from a position on.
#[derive(Debug)]
pub struct Stream<T> {
    client: Client,
    path: &'static str,
    query: Vec<(&'static str, String)>,
    position: Option<u64>,
    response: Option<reqwest::Response>,
    buffer: Vec<u8>,
    message: PhantomData<fn() -> T>,
}

/// One server-sent event.
#[derive(Debug, Default, PartialEq, Eq)]
struct Message {
    name: String,
    id: Option<u64>,
    data: String,
}

impl<T: DeserializeOwned> Stream<T> {
    pub(super) async fn open(
        client: &Client,
        path: &'static str,
        query: Vec<(&'static str, String)>,
        after: Option<u64>,
    ) -> Result<Self, Error> {
        client.only_now()?;
        let mut stream = Stream {
            client: client.clone(),
            path,
            query,
            position: after,
            response: None,
            buffer: Vec::new(),
            message: PhantomData,
        };
        stream.connect().await?;
        Ok(stream)
    }

    /// The revision up to which everything was seen: the `after` of a stream that goes on.
    pub fn position(&self) -> Option<u64> {
        self.position
    }

    /// The next message. Waits for as long as it takes; ends with an error when no server can be reached within the
    /// client's deadline, or when the journal no longer reaches back to the position. `None` is for streams that end,
    /// which none does yet.
    pub async fn next(&mut self) -> Result<Option<T>, Error> {
        loop {
            while let Some(message) = take_message(&mut self.buffer) {
                let id = message.id;
                let found = self.read(&message)?;
                self.position = id.or(self.position);
                if let Some(value) = found {
                    return Ok(Some(value));
                }
            }
            let Some(response) = &mut self.response else {
                self.connect().await?;
                continue;
            };
            match tokio::time::timeout(SILENCE_MAX, response.chunk()).await {
                Ok(Ok(Some(chunk))) => self.buffer.extend_from_slice(&chunk),
                Ok(Ok(None) | Err(_)) | Err(_) => {
                    self.response = None;
                    self.buffer.clear();
                }
            }
        }
    }

    /// The value of a message; none in those that only tell how far the server has come.
    fn read(&self, message: &Message) -> Result<Option<T>, Error> {
        let server = || self.client.servers[self.client.preferred.load(Relaxed)].to_string();
        let unreadable = |error: serde_json::Error| Error::Unreadable {
            server: server(),
            reason: error.to_string(),
        };
        match message.name.as_str() {
            "progress" => Ok(None),
            "compacted" => {
                let problem: Problem = serde_json::from_str(&message.data).map_err(unreadable)?;
                Err(Error::Refused(Box::new(problem)))
            }
            _ => serde_json::from_str(&message.data).map(Some).map_err(unreadable),
        }
    }

    async fn connect(&mut self) -> Result<(), Error> {
        let deadline = Instant::now() + self.client.deadline;
        let mut pause = Duration::ZERO;
        loop {
            tokio::time::sleep(pause).await;
            let mut why = String::new();
            let first = self.client.preferred.load(Relaxed);
            for place in 0..self.client.servers.len() {
                let index = (first + place) % self.client.servers.len();
                match self.try_connect(index).await? {
                    None => {
                        self.client.preferred.store(index, Relaxed);
                        return Ok(());
                    }
                    Some(reason) => why = reason,
                }
            }
            if Instant::now() >= deadline {
                return Err(Error::Unreachable(why));
            }
            pause = RETRY_AFTER;
        }
    }

    /// Connects to one server; the reason, where that is worth another try.
    async fn try_connect(&mut self, index: usize) -> Result<Option<String>, Error> {
        let server = self.client.servers[index].to_string();
        let mut call = Call::get(self.path)
            .accept("text/event-stream")
            .maybe("after", self.position);
        for (name, value) in &self.query {
            call = call.query(name, value.clone());
        }
        let response = match self.client.request(&call, index).send().await {
            Ok(response) => response,
            Err(error) => return Ok(Some(format!("{server}: {}", innermost(&error)))),
        };
        let status = response.status();
        if status.is_success() {
            let header = response.headers().get("onward-revision");
            let revision = header.and_then(|value| value.to_str().ok()?.parse().ok());
            self.position = self.position.or(revision);
            self.response = Some(response);
            return Ok(None);
        }
        let body = response.bytes().await.unwrap_or_default();
        match serde_json::from_slice::<Problem>(&body) {
            Ok(problem) if matches!(status.as_u16(), 429 | 503 | 504) => {
                Ok(Some(format!("{server}: {}", problem.detail)))
            }
            Ok(problem) => Err(Error::Refused(Box::new(problem))),
            Err(_) => Err(Error::Unreadable {
                server,
                reason: format!("{status} without a problem document"),
            }),
        }
    }
}

/// Takes the first whole message off the front of `buffer` (the HTML standard, 9.2.6, as far as our servers use it).
fn take_message(buffer: &mut Vec<u8>) -> Option<Message> {
    let end = buffer.windows(2).position(|pair| pair == b"\n\n")?;
    let text = String::from_utf8_lossy(&buffer[..end]).into_owned();
    buffer.drain(..end + 2);
    let mut message = Message::default();
    for line in text.lines() {
        match line.split_once(':') {
            Some(("event", value)) => message.name = value.trim_start().to_owned(),
            Some(("id", value)) => message.id = value.trim().parse().ok(),
            Some(("data", value)) => message.data.push_str(value.trim_start()),
            _ => {}
        }
    }
    Some(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_taken_whole() {
        let mut buffer = b"event: change\nid: 7\ndata: {\"a\":1}\n\nevent: progress\nid: 9\nda".to_vec();
        let message = take_message(&mut buffer).expect("one is whole");
        assert_eq!(
            (message.name.as_str(), message.id, message.data.as_str()),
            ("change", Some(7), "{\"a\":1}")
        );
        assert_eq!(take_message(&mut buffer), None);
        buffer.extend_from_slice(b"ta: {}\n\n");
        assert_eq!(take_message(&mut buffer).map(|message| message.id), Some(Some(9)));
    }
}
