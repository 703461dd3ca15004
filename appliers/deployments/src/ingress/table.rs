//! The routing table of one node: a snapshot of what the log says, never changed once it is made.

use super::upstream::Upstream;
use onward_statemachine::Revision;
use onward_statemachine::deployments::apps::{Name, Protocol};
use onward_statemachine::deployments::instances::{Active, Ordinal, Routing};
use std::collections::HashMap;
use std::sync::Arc;

/// An instance as the ingress tells it from others.
pub(crate) type Key = (Name, Ordinal, Revision);

/// Where requests go, as of one revision.
#[derive(Debug, Default)]
pub(crate) struct Table {
    /// The last change to deployments that it shows.
    pub(crate) revision: Revision,
    /// By host, longest path prefix first.
    hosts: HashMap<String, Vec<(String, Target)>>,
    /// Active HTTP instances by app, for `NAME.DOMAIN`.
    upstreams: HashMap<Name, Arc<Upstream>>,
    /// The domain below which every app has a name.
    domain: Option<String>,
}

#[derive(Debug, Clone)]
struct Target {
    app: Name,
    released: bool,
}

/// What a request finds.
#[derive(Debug)]
pub(crate) enum Found {
    /// An instance to send it to.
    Upstream(Arc<Upstream>),
    /// A route of an app that does not serve it now, and why.
    Unavailable {
        /// Whose route it is.
        app: Name,
        /// Why, for people.
        why: &'static str,
    },
    /// No route.
    Nothing,
}

impl Table {
    /// The table of a routing, taking over from `known` the upstreams that stay.
    pub(crate) fn new(routing: Routing, domain: Option<String>, known: &HashMap<Key, Arc<Upstream>>) -> Self {
        let Routing {
            revision,
            routes,
            active,
        } = routing;
        let upstreams = active
            .into_iter()
            .filter(|(_, active)| active.protocol == Protocol::Http)
            .map(|(app, active)| {
                let upstream = match known.get(&key(&app, &active)) {
                    Some(upstream) => Arc::clone(upstream),
                    None => Arc::new(Upstream::new(&app, &active)),
                };
                (app, upstream)
            })
            .collect();
        let mut hosts: HashMap<String, Vec<(String, Target)>> = HashMap::new();
        for (route, target) in routes {
            let target = Target {
                app: target.app,
                released: target.released,
            };
            hosts.entry(route.host).or_default().push((route.path, target));
        }
        for prefixes in hosts.values_mut() {
            prefixes.sort_by_key(|(path, _)| std::cmp::Reverse(path.len()));
        }
        Table {
            revision,
            hosts,
            upstreams,
            domain,
        }
    }

    /// The upstreams of this table.
    pub(crate) fn upstreams(&self) -> impl Iterator<Item = &Arc<Upstream>> {
        self.upstreams.values()
    }

    /// Where a request for `path` on `host` (lower case, no port) goes.
    pub(crate) fn find(&self, host: &str, path: &str) -> Found {
        let routed = self
            .hosts
            .get(host)
            .and_then(|prefixes| prefixes.iter().find(|(prefix, _)| covers(prefix, path)));
        if let Some((_, target)) = routed {
            if !target.released && self.upstreams.contains_key(&target.app) {
                return Found::Unavailable {
                    app: target.app.clone(),
                    why: "the route was declared after the release that serves; deploy the app to serve it",
                };
            }
            return self.of_app(&target.app);
        }
        let name = self
            .domain
            .as_deref()
            .and_then(|domain| host.strip_suffix(domain)?.strip_suffix('.'));
        match name {
            Some(name) if self.upstreams.contains_key(&Name(name.to_owned())) => {
                self.of_app(&Name(name.to_owned()))
            }
            _ => Found::Nothing,
        }
    }

    fn of_app(&self, app: &Name) -> Found {
        match self.upstreams.get(app) {
            Some(upstream) => Found::Upstream(Arc::clone(upstream)),
            None => Found::Unavailable {
                app: app.clone(),
                why: "no instance of it serves now: it is stopped, not deployed yet, or being restarted",
            },
        }
    }
}

/// The key of an app's active instance.
pub(crate) fn key(app: &Name, active: &Active) -> Key {
    (app.clone(), active.ordinal, active.since)
}

/// Whether a path prefix of whole segments covers a path.
fn covers(prefix: &str, path: &str) -> bool {
    match path.strip_prefix(prefix) {
        Some(rest) => prefix.ends_with('/') || rest.is_empty() || rest.starts_with('/'),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use onward_statemachine::NodeId;
    use onward_statemachine::deployments::apps::Route;
    use onward_statemachine::deployments::{instances, releases};

    fn active(port: u16) -> Active {
        Active {
            release: releases::Number(1),
            ordinal: Ordinal(1),
            node: NodeId(1),
            address: "127.0.0.1".into(),
            port,
            protocol: Protocol::Http,
            routes: Vec::new(),
            since: Revision(5),
        }
    }

    #[test]
    fn longest_prefix_of_whole_segments_wins() {
        let route = |host: &str, path: &str| Route {
            host: host.into(),
            path: path.into(),
        };
        let target = |app: &str, released| instances::Target {
            app: Name(app.into()),
            released,
        };
        let mut routing = Routing::default();
        routing.routes.insert(route("h", "/"), target("a", true));
        routing.routes.insert(route("h", "/api"), target("b", true));
        routing.routes.insert(route("h", "/new"), target("a", false));
        routing.active.insert(Name("a".into()), active(1));
        routing.active.insert(Name("b".into()), active(2));
        let table = Table::new(routing, Some("apps.test".into()), &HashMap::new());
        let port = |host: &str, path: &str| match table.find(host, path) {
            Found::Upstream(upstream) => Some(upstream.port()),
            _ => None,
        };
        assert_eq!(port("h", "/"), Some(1));
        assert_eq!(port("h", "/apis"), Some(1));
        assert_eq!(port("h", "/api"), Some(2));
        assert_eq!(port("h", "/api/x"), Some(2));
        assert_eq!(port("b.apps.test", "/"), Some(2));
        assert_eq!(port("bapps.test", "/"), None);
        assert_eq!(port("c.apps.test", "/"), None);
        assert!(matches!(table.find("h", "/new"), Found::Unavailable { .. }));
        assert!(matches!(table.find("x", "/"), Found::Nothing));
    }
}
