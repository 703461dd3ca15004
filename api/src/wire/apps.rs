//! Apps: what is declared of them.

use super::rollouts::Serving;
use super::{Time, time};
use onward_statemachine::Revision;
use onward_statemachine::deployments::{apps, instances};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// What is declared of an app, but its name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = AppSpec)]
pub struct Spec {
    /// Where its source is.
    pub source: Source,
    /// Shell text that builds it in its source tree; without one the tree is run as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build: Option<String>,
    /// The environment of the build, and of nothing else.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub build_env: BTreeMap<String, String>,
    /// Shell text that runs it in the built tree. It listens on the port that `$PORT` says.
    pub run: String,
    /// What it speaks there.
    #[serde(default)]
    pub protocol: Protocol,
    /// The environment of the running app.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// What the ingress sends to it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<Route>,
    /// When an instance counts as healthy.
    #[serde(default)]
    pub health: Health,
    /// How long an instance that was asked to stop may take, in ms.
    #[serde(default = "stop_grace_ms")]
    pub stop_grace_ms: u64,
    /// How long requests under way may take after the route was switched, in ms.
    #[serde(default = "drain_ms")]
    pub drain_ms: u64,
}

fn stop_grace_ms() -> u64 {
    apps::STOP_GRACE_MS_DEFAULT
}

fn drain_ms() -> u64 {
    apps::DRAIN_MS_DEFAULT
}

/// Where source comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// `https://`, `ssh://`, `git://` or `file://` URL, `user@host:path`, or an absolute path; never with a password.
    pub repository: String,
    /// The branch, tag, full ref name or commit that is deployed when none is named.
    #[serde(rename = "ref")]
    pub reference: String,
}

/// What an app speaks on its port.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// HTTP/1.1; the ingress can route to it.
    #[default]
    Http,
    /// Anything over TCP; it has no routes.
    Tcp,
}

/// Requests for this host, and for paths below this prefix, go to one app.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// A DNS name in lower case, without a port.
    pub host: String,
    /// `/`, or `/segment...`; it covers whole segments only.
    #[serde(default = "root")]
    pub path: String,
}

fn root() -> String {
    "/".to_owned()
}

/// When an instance counts as healthy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = AppHealth)]
pub struct Health {
    /// It answers GET of this path with 2xx or 3xx; without it, it takes a connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_path: Option<String>,
    /// The time between two probes, in ms.
    #[serde(default = "interval_ms")]
    pub interval_ms: u64,
    /// How long one probe may take, in ms.
    #[serde(default = "timeout_ms")]
    pub timeout_ms: u64,
    /// How long after its start an instance must have answered, in ms.
    #[serde(default = "deadline_ms")]
    pub deadline_ms: u64,
}

fn interval_ms() -> u64 {
    apps::Health::default().interval_ms
}

fn timeout_ms() -> u64 {
    apps::Health::default().timeout_ms
}

fn deadline_ms() -> u64 {
    apps::Health::default().deadline_ms
}

impl Default for Health {
    fn default() -> Self {
        apps::Health::default().into()
    }
}

impl From<apps::Health> for Health {
    fn from(health: apps::Health) -> Self {
        Health {
            http_path: match health.probe {
                apps::Probe::Tcp => None,
                apps::Probe::Http { path } => Some(path),
            },
            interval_ms: health.interval_ms,
            timeout_ms: health.timeout_ms,
            deadline_ms: health.deadline_ms,
        }
    }
}

impl From<Health> for apps::Health {
    fn from(health: Health) -> Self {
        apps::Health {
            probe: match health.http_path {
                None => apps::Probe::Tcp,
                Some(path) => apps::Probe::Http { path },
            },
            interval_ms: health.interval_ms,
            timeout_ms: health.timeout_ms,
            deadline_ms: health.deadline_ms,
        }
    }
}

impl From<apps::Protocol> for Protocol {
    fn from(protocol: apps::Protocol) -> Self {
        match protocol {
            apps::Protocol::Http => Protocol::Http,
            apps::Protocol::Tcp => Protocol::Tcp,
        }
    }
}

impl From<apps::Route> for Route {
    fn from(route: apps::Route) -> Self {
        Route {
            host: route.host,
            path: route.path,
        }
    }
}

impl From<Spec> for apps::Spec {
    fn from(spec: Spec) -> Self {
        let route = |route: Route| apps::Route {
            host: route.host,
            path: route.path,
        };
        let mut routes: Vec<_> = spec.routes.into_iter().map(route).collect();
        routes.sort();
        routes.dedup();
        apps::Spec {
            source: apps::Source {
                repository: spec.source.repository,
                reference: spec.source.reference,
            },
            build: spec.build,
            build_env: spec.build_env,
            run: spec.run,
            protocol: match spec.protocol {
                Protocol::Http => apps::Protocol::Http,
                Protocol::Tcp => apps::Protocol::Tcp,
            },
            env: spec.env,
            routes,
            health: spec.health.into(),
            stop_grace_ms: spec.stop_grace_ms,
            drain_ms: spec.drain_ms,
        }
    }
}

impl From<apps::Spec> for Spec {
    fn from(spec: apps::Spec) -> Self {
        Spec {
            source: Source {
                repository: spec.source.repository,
                reference: spec.source.reference,
            },
            build: spec.build,
            build_env: spec.build_env,
            run: spec.run,
            protocol: spec.protocol.into(),
            env: spec.env,
            routes: spec.routes.into_iter().map(Route::from).collect(),
            health: spec.health.into(),
            stop_grace_ms: spec.stop_grace_ms,
            drain_ms: spec.drain_ms,
        }
    }
}

/// An app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct App {
    /// Its name.
    pub name: String,
    /// What is declared.
    pub spec: Spec,
    /// Whether it should run.
    pub running: bool,
    /// Whether it was deleted, and goes once nothing of it runs.
    pub deleting: bool,
    /// How often what is desired changed, from 1.
    pub generation: u64,
    /// The revision at which it was first declared.
    pub created: u64,
    /// The revision at which it last changed: what `If-Match` compares with.
    pub modified: u64,
    /// When that was.
    pub modified_at: Time,
    /// What of it is under way and what serves.
    pub serving: Serving,
}

impl From<(apps::Name, apps::App, Option<instances::Serving>)> for App {
    fn from((name, app, serving): (apps::Name, apps::App, Option<instances::Serving>)) -> Self {
        App {
            name: name.0,
            spec: app.spec.into(),
            running: app.running,
            deleting: app.deleting,
            generation: app.generation.0,
            created: app.created.0,
            modified: app.modified.0,
            modified_at: time(app.modified_at),
            serving: serving.unwrap_or_default().into(),
        }
    }
}

/// Declares an app, all of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = SetApp)]
pub struct Set {
    /// Which.
    pub name: String,
    /// All that is declared of it.
    pub spec: Spec,
    /// Only if the app's `modified` is this; 0 for "does not exist".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expect_revision: Option<u64>,
}

impl From<Set> for apps::Command {
    fn from(set: Set) -> Self {
        apps::Command::Set {
            name: apps::Name(set.name),
            spec: Box::new(set.spec.into()),
            expect: set.expect_revision.map(Revision),
        }
    }
}

/// Names an app.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AppName {
    /// Which.
    pub name: String,
    /// Only if the app's `modified` is this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expect_revision: Option<u64>,
}

impl AppName {
    pub(crate) fn parts(self) -> (apps::Name, Option<Revision>) {
        (apps::Name(self.name), self.expect_revision.map(Revision))
    }
}

/// What happened to an app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
#[schema(as = AppEvent)]
pub enum Event {
    /// It was declared.
    Set {
        /// Which.
        app: String,
        /// All of it.
        spec: Box<Spec>,
    },
    /// It is to go.
    Deleted {
        /// Which.
        app: String,
    },
    /// It is to run.
    Started {
        /// Which.
        app: String,
    },
    /// It is not to run.
    Stopped {
        /// Which.
        app: String,
    },
    /// Nothing of it is kept.
    Removed {
        /// Which.
        app: String,
    },
}

impl From<apps::Event> for Event {
    fn from(event: apps::Event) -> Self {
        match event {
            apps::Event::Set { name, spec } => Event::Set {
                app: name.0,
                spec: Box::new((*spec).into()),
            },
            apps::Event::Deleted { name } => Event::Deleted { app: name.0 },
            apps::Event::Started { name } => Event::Started { app: name.0 },
            apps::Event::Stopped { name } => Event::Stopped { app: name.0 },
            apps::Event::Removed { name } => Event::Removed { app: name.0 },
        }
    }
}
