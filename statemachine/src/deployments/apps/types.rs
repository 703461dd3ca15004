use crate::dump::Describe;
use crate::ids::{Generation, Millis, Revision};
use crate::keys;
use crate::store::Fault;
use crate::table::Table;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// The most entries of an environment.
pub const ENV_ENTRIES_MAX: usize = 256;
/// The largest environment, names and values together, in bytes.
pub const ENV_BYTES_MAX: usize = 64 * 1024;
/// The most routes of an app.
pub const ROUTES_MAX: usize = 64;
/// The longest build or run command, in bytes.
pub const COMMAND_BYTES_MAX: usize = 8 * 1024;
/// The longest repository URL, in bytes.
pub const URL_BYTES_MAX: usize = 2048;
/// The longest git ref, in bytes.
pub const REFERENCE_BYTES_MAX: usize = 255;
/// The longest path prefix of a route, and the longest path of a health check, in bytes.
pub const PATH_BYTES_MAX: usize = 1024;

/// The name of an app: a DNS label.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Name(pub String);

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl keys::Key for Name {
    fn encode(&self, out: &mut Vec<u8>) {
        self.0.encode(out);
    }
    fn decode(bytes: &mut &[u8]) -> Result<Self, Fault> {
        Ok(Name(String::decode(bytes)?))
    }
    fn text(&self) -> String {
        self.0.clone()
    }
}

/// A declared app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct App {
    /// What is declared.
    pub spec: Spec,
    /// Whether it should run.
    pub running: bool,
    /// Whether it was deleted, and goes once nothing of it runs.
    pub deleting: bool,
    /// How often what is desired changed, from 1.
    pub generation: Generation,
    /// When it was first declared.
    pub created: Revision,
    /// When anything of this row last changed.
    pub modified: Revision,
    /// Log time of that change.
    pub modified_at: Millis,
}

/// What is declared of an app, and what a release keeps of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// Where its source is.
    pub source: Source,
    /// Shell text that builds it in its source tree; without one the tree is run as it is.
    pub build: Option<String>,
    /// The environment of the build, and of nothing else: a change here means a new build.
    pub build_env: BTreeMap<String, String>,
    /// Shell text that runs it in the built tree.
    pub run: String,
    /// What it speaks on the port that it is told to listen on.
    pub protocol: Protocol,
    /// The environment of the running app; a change here needs no new build.
    pub env: BTreeMap<String, String>,
    /// What the ingress sends to it; sorted, none twice.
    pub routes: Vec<Route>,
    /// When an instance counts as healthy.
    pub health: Health,
    /// How long an instance that was asked to stop may take, in ms.
    pub stop_grace_ms: u64,
    /// How long requests under way may take after the route was switched, in ms.
    pub drain_ms: u64,
}

/// Where source comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// `https://`, `ssh://`, `git://` or `file://` URL, `user@host:path`, or an absolute path; never with a password.
    pub repository: String,
    /// The branch, tag, full ref name or commit that is deployed when none is named.
    pub reference: String,
}

/// What an app speaks on its port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Protocol {
    /// HTTP/1.1; the ingress can route to it.
    Http,
    /// Anything over TCP; it has no routes.
    Tcp,
}

/// Requests for this host, and for paths below this prefix, go to one app.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Route {
    /// A DNS name in lower case, without a port.
    pub host: String,
    /// `/`, or `/segment...` without a slash at its end; it covers whole segments only.
    pub path: String,
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.host, self.path)
    }
}

/// When an instance counts as healthy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// How it is asked.
    pub probe: Probe,
    /// The time between two probes, in ms.
    pub interval_ms: u64,
    /// How long one probe may take, in ms.
    pub timeout_ms: u64,
    /// How long after its start an instance must have answered, in ms.
    pub deadline_ms: u64,
}

/// How an instance is asked whether it is healthy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Probe {
    /// It takes a connection.
    Tcp,
    /// It answers GET of this path with 2xx or 3xx.
    Http {
        /// The path, and a query if there is one.
        path: String,
    },
}

impl Default for Health {
    fn default() -> Self {
        Health {
            probe: Probe::Tcp,
            interval_ms: 250,
            timeout_ms: 2_000,
            deadline_ms: 30_000,
        }
    }
}

/// [`Spec::stop_grace_ms`] where the user says nothing.
pub const STOP_GRACE_MS_DEFAULT: u64 = 10_000;
/// [`Spec::drain_ms`] where the user says nothing.
pub const DRAIN_MS_DEFAULT: u64 = 30_000;

/// The full id of a git commit: 40 or 64 lower-case hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Commit(String);

impl Commit {
    /// A commit from its id; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        (matches!(text.len(), 40 | 64) && text.bytes().all(hex)).then(|| Commit(text.to_owned()))
    }

    /// The digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this value obeys the rule, for one that was decoded and not parsed.
    pub fn is_valid(&self) -> bool {
        Commit::parse(&self.0).is_some()
    }
}

impl fmt::Display for Commit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

pub(super) const APPS: Table<Name, App> = Table::new(keys::APPS, "apps");
/// App by (host, path prefix).
pub(super) const ROUTES: Table<(String, String), Name> = Table::new(keys::ROUTES, "routes");
pub(crate) const TABLES: &[&dyn Describe] = &[&APPS, &ROUTES];
