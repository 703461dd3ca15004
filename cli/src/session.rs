//! What a command works with: the cluster and the streams.

use crate::failure::{Failure, Result};
use crate::global::{Consistency, Global};
use crate::manifest::load;
use crate::output::Output;
use chrono::Utc;
use onward_api::client::{self, Client, Paging};
use onward_api::wire::{Invalid, Page, Stamped, Time};
use serde::de::DeserializeOwned;
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
    /// A session with the cluster that `global` names.
    pub(crate) fn open(global: &Global, output: &'a mut Output) -> Result<Self> {
        let servers = global.server.iter().map(|server| {
            let url = server.trim();
            url.parse().map_err(|error| {
                Failure::usage(format!("--server `{url}`: {error}; it takes http://HOST:PORT"))
            })
        });
        let consistency = match global.consistency {
            Consistency::Linearizable => client::Consistency::Linearizable,
            Consistency::Local => client::Consistency::Local,
            Consistency::AtLeast(revision) => client::Consistency::AtLeast(revision),
        };
        let user = std::env::var("USER").or_else(|_| std::env::var("LOGNAME"));
        let client = Client::new(servers.collect::<Result<_>>()?)?
            .with_deadline(global.timeout)
            .with_consistency(consistency)
            .with_actor(format!("cli:{}", user.as_deref().unwrap_or("unknown")));
        Ok(Session {
            client,
            output,
            now: Time(Utc::now()),
        })
    }

    /// Reads a list page by page, up to `limit` items.
    pub(crate) async fn list<T>(
        &self,
        limit: Option<usize>,
        fetch: impl AsyncFn(&Client, Paging) -> std::result::Result<Stamped<Page<T>>, client::Error>,
    ) -> Result<Listed<T>> {
        let mut listed = Listed {
            items: Vec::new(),
            revision: 0,
        };
        let mut cursor = None;
        loop {
            let wanted = limit
                .map_or(PAGE_ITEMS, |limit| limit - listed.items.len())
                .min(PAGE_ITEMS);
            let page = fetch(
                &self.client,
                Paging {
                    limit: Some(wanted),
                    cursor,
                },
            )
            .await?;
            if listed.revision == 0 {
                listed.revision = page.revision;
            }
            listed.items.extend(page.value.items);
            cursor = page.value.next;
            if cursor.is_none() || limit.is_some_and(|limit| listed.items.len() >= limit) {
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

/// `1 key`, `2 keys`.
pub(crate) fn count(number: u64, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// An answer whose parts mean nothing.
pub(crate) fn unreadable(invalid: Invalid) -> Failure {
    Failure::Refused(format!("the answer of the cluster is not understood: {invalid}"))
}
