//! Server-sent events, as far as Onward sends them: `event`, `id` and `data`, one line each.

use anyhow::{Context, bail};
use serde_json::Value;
use std::time::Duration;

/// One message of a stream.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// What it is: `revision`, `change`, `progress`, `compacted`.
    pub event: String,
    /// The position to go on after.
    pub id: Option<u64>,
    /// What it says.
    pub data: Value,
}

impl Message {
    /// Takes the first message off what has come in, if all of it is there.
    ///
    /// # Errors
    /// Where it is no message.
    pub fn take(pending: &mut Vec<u8>) -> anyhow::Result<Option<Message>> {
        let Some(end) = pending.windows(2).position(|pair| pair == b"\n\n") else {
            return Ok(None);
        };
        let message: Vec<u8> = pending.drain(..end + 2).collect();
        Message::parse(std::str::from_utf8(&message)?).map(Some)
    }

    fn parse(text: &str) -> anyhow::Result<Message> {
        let mut message = Message {
            event: "message".to_owned(),
            id: None,
            data: Value::Null,
        };
        for line in text.lines() {
            match line.split_once(": ") {
                Some(("event", event)) => event.clone_into(&mut message.event),
                Some(("id", id)) => {
                    message.id = Some(id.parse().context("the id of a message is no revision")?);
                }
                Some(("data", data)) => {
                    message.data = serde_json::from_str(data).context("the data of a message is no JSON")?;
                }
                _ if line.is_empty() => {}
                _ => bail!("a message has the line `{line}`"),
            }
        }
        Ok(message)
    }
}

/// A stream under way.
#[derive(Debug)]
pub struct Stream {
    response: reqwest::Response,
    pending: Vec<u8>,
}

impl Stream {
    pub(super) fn new(response: reqwest::Response) -> Self {
        Stream {
            response,
            pending: Vec::new(),
        }
    }

    /// The next message; `None` where the stream ended or said nothing for so long.
    ///
    /// # Errors
    /// Where the stream broke, or what it says is no message.
    pub async fn next(&mut self, patience: Duration) -> anyhow::Result<Option<Message>> {
        loop {
            if let Some(message) = Message::take(&mut self.pending)? {
                return Ok(Some(message));
            }
            match tokio::time::timeout(patience, self.response.chunk()).await {
                Ok(Ok(Some(chunk))) => self.pending.extend_from_slice(&chunk),
                Ok(Ok(None)) | Err(_) => return Ok(None),
                Ok(Err(error)) => bail!("the stream broke: {error}"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_taken_apart() {
        let message = Message::parse("event: progress\nid: 7\ndata: {\"revision\":7}\n\n").expect("parses");
        assert_eq!((message.event.as_str(), message.id), ("progress", Some(7)));
        assert_eq!(message.data["revision"], 7);
        assert!(Message::parse("event: progress\nid: x\n\n").is_err());
        assert!(Message::parse("nonsense\n\n").is_err());
    }
}
