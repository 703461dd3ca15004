//! What a command works with: the cluster and the streams.

use crate::failure::{Failure, Result};
use crate::global::{Consistency, Global};
use crate::manifest::load;
use crate::output::Output;
use chrono::Utc;
use onward_api::client::{self, Client, Error, Paging, Url};
use onward_api::wire::{Invalid, Page, Stamped, Time};
use serde::de::DeserializeOwned;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What a command works with.
pub(crate) struct Session<'a> {
    pub(crate) client: Client,
    pub(crate) output: &'a mut Output,
    /// The moment at which the command began, for ages.
    pub(crate) now: Time,
}

/// A whole list, or as much of it as was asked for.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Listed<T> {
    pub(crate) items: Vec<T>,
    /// Of the first page.
    pub(crate) revision: u64,
}

/// The most items of one page.
const PAGE_ITEMS: usize = 1000;

impl<'a> Session<'a> {
    /// A session with the cluster that `global` names. Nothing is sent yet.
    pub(crate) fn open(global: &Global, output: &'a mut Output) -> Result<Self> {
        let servers = global
            .server
            .iter()
            .map(|server| url(server))
            .collect::<Result<Vec<_>>>()?;
        let consistency = match global.consistency {
            Consistency::Linearizable => client::Consistency::Linearizable,
            Consistency::AtLeast(revision) => client::Consistency::AtLeast(revision),
            Consistency::Local => client::Consistency::Local,
        };
        let client = Client::new(servers)?
            .with_deadline(global.timeout)
            .with_consistency(consistency)
            .as_of(global.at)
            .with_actor(actor());
        Ok(Session {
            client,
            output,
            now: Time(Utc::now()),
        })
    }

    /// A list from its first page on, as far as `limit`; `read` reads one page.
    pub(crate) async fn list<T>(
        &self,
        limit: Option<usize>,
        read: impl AsyncFn(&Client, Paging) -> std::result::Result<Stamped<Page<T>>, Error>,
    ) -> Result<Listed<T>> {
        let mut listed = Listed {
            items: Vec::new(),
            revision: 0,
        };
        let mut cursor = None;
        loop {
            let wanted = limit.map_or(PAGE_ITEMS, |limit| (limit - listed.items.len()).min(PAGE_ITEMS));
            let page = read(
                &self.client,
                Paging {
                    limit: Some(wanted.max(1)),
                    cursor,
                },
            )
            .await?;
            if listed.revision == 0 {
                listed.revision = page.revision;
            }
            listed.items.extend(page.value.items);
            cursor = page.value.next;
            let full = limit.is_some_and(|limit| listed.items.len() >= limit);
            if full || cursor.is_none() {
                listed.items.truncate(limit.unwrap_or(usize::MAX));
                return Ok(listed);
            }
        }
    }

    /// Reads the only document of a file as a `T`; `-` is standard input.
    pub(crate) fn read_one<T: DeserializeOwned>(&mut self, file: &Path) -> Result<T> {
        let documents = load::load(&[file.to_owned()], || self.output.read_input())?;
        let [document] = documents.as_slice() else {
            let rule = format!(
                "{}: {} documents in it; one is taken",
                file.display(),
                documents.len()
            );
            return Err(Failure::usage(rule));
        };
        let place = &document.place;
        serde_json::from_value(document.value.clone())
            .map_err(|error| Failure::usage(format!("{place}: {error}")))
    }

    /// Reads a text file; `-` is standard input.
    pub(crate) fn read_text(&mut self, file: &Path) -> Result<String> {
        let bytes = if file == Path::new("-") {
            self.output.read_input()?
        } else {
            load::read(file)?
        };
        String::from_utf8(bytes).map_err(|_| Failure::usage(format!("{}: not UTF-8", file.display())))
    }
}

/// The URL of a server; `http://` may be left out.
fn url(text: &str) -> Result<Url> {
    let text = text.trim();
    let full = if text.contains("://") {
        text.to_owned()
    } else {
        format!("http://{text}")
    };
    full.parse()
        .map_err(|error| Failure::usage(format!("server `{text}` is not a URL: {error}")))
}

/// Who runs this, for the journal: `cli:alice@rack-1`.
fn actor() -> String {
    let user = ["USER", "LOGNAME"]
        .iter()
        .find_map(|name| std::env::var(name).ok());
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let user = user.filter(|user| !user.is_empty()).unwrap_or_else(|| {
        let own = std::fs::metadata("/proc/self").map(|process| process.uid().to_string());
        own.unwrap_or_else(|_| "unknown".to_owned())
    });
    let name = match host.trim() {
        "" => format!("cli:{user}"),
        host => format!("cli:{user}@{host}"),
    };
    // It travels in a header.
    name.chars()
        .map(|c| if c.is_ascii_graphic() { c } else { '?' })
        .collect()
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        match error {
            Error::Refused(problem) if MISUSE.contains(&problem.code.as_str()) => Failure::Usage(message),
            Error::Refused(_) => Failure::Refused(message),
            Error::Usage(_) => Failure::Usage(message),
            Error::Unreachable(_) | Error::Unreadable { .. } => Failure::Unreachable(message),
            Error::OutcomeUnknown { .. } => Failure::Unknown(message),
        }
    }
}

/// The problems that are about how something was asked for, not about what is there.
const MISUSE: [&str; 5] = [
    "body_invalid",
    "field_invalid",
    "query_invalid",
    "path_invalid",
    "header_invalid",
];

/// `1 key`, `2 keys`.
pub(crate) fn count(number: u64, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// An answer whose parts mean nothing.
pub(crate) fn unreadable(invalid: &Invalid) -> Failure {
    Failure::Refused(format!("the answer of the cluster is not understood: {invalid}"))
}
