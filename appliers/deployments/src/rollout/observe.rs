//! What the log desires and what is there.

use super::act::Worker;
use super::plan::{App, Desired, Known, Observed};
use crate::driver::{InstanceId, Status};
use onward_statemachine::deployments::instances::{self, State};
use onward_statemachine::deployments::{apps, builds};
use onward_statemachine::ports::{ClusterStatus, Freshness, Role};
use onward_statemachine::{Fault, NodeId, Revision, View};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// How often the machine is searched for instances that the log does not have.
const SEARCH: Duration = Duration::from_secs(10);
/// How long to wait for the latest state to be confirmed before such a search counts.
const CONFIRM: Duration = Duration::from_secs(5);
const PAGE: usize = 512;

/// What earlier looks found.
#[derive(Debug, Default)]
pub(super) struct Observer {
    desired: Desired,
    seen: Option<Revision>,
    leads_since: Option<Instant>,
    searched: Option<Instant>,
}

impl Observer {
    /// The last change to deployments that was seen.
    pub(super) fn seen(&self) -> Option<Revision> {
        self.seen
    }

    /// Looks at the log, where it changed, and at this node.
    pub(super) async fn observe(&mut self, worker: &Worker) -> (&Desired, Observed) {
        let found = self.search(worker).await;
        self.read(worker);
        let status = worker.cluster.status();
        let leads = status.role == Role::Leader;
        let since = leads.then(|| self.leads_since.unwrap_or_else(Instant::now));
        self.leads_since = since;
        let live = self.desired.apps.values().flat_map(|app| &app.live);
        let mine =
            live.filter(|(_, instance)| instance.node == worker.node && instance.state == State::Active);
        let observed = Observed {
            node: worker.node,
            now: worker.proposer.now(),
            leads,
            contacts: contacts(
                &status,
                since.map_or(0, |since| since.elapsed().as_millis() as u64),
            ),
            statuses: mine
                .map(|(id, _)| (id.clone(), worker.driver.status(id)))
                .collect(),
            found,
        };
        (&self.desired, observed)
    }

    fn read(&mut self, worker: &Worker) {
        let seen = self.seen;
        let fresh = worker.reader.read(|view| {
            let changed = onward_statemachine::deployments::changed(view)?;
            match seen == Some(changed) {
                true => Ok(None),
                false => desired(view).map(|desired| Some((changed, desired))),
            }
        });
        if let Some((changed, desired)) = fresh {
            self.seen = Some(changed);
            self.desired = desired;
        }
    }

    /// Searches the machine. What is found counts only against the latest state: this node may have been away, and not
    /// yet know of instances that it started itself.
    async fn search(&mut self, worker: &Worker) -> Vec<(InstanceId, Known, Status)> {
        if self.searched.is_some_and(|at| at.elapsed() < SEARCH) {
            return Vec::new();
        }
        let ids = worker.driver.known();
        if !ids.is_empty() {
            let confirming = worker.reader.barrier(Freshness::Linearizable);
            match tokio::time::timeout(CONFIRM, confirming).await {
                Ok(Ok(_)) => {}
                Ok(Err(_)) | Err(_) => return Vec::new(),
            }
        }
        self.searched = Some(Instant::now());
        let node = worker.node;
        let known = worker
            .reader
            .read(|view| ids.iter().map(|id| known(view, node, id)).collect());
        let known: Vec<Known> = known;
        let found = ids.into_iter().zip(known);
        found
            .map(|(id, known)| {
                let status = worker.driver.status(&id);
                (id, known, status)
            })
            .collect()
    }
}

fn known(view: &dyn View, node: NodeId, id: &InstanceId) -> Result<Known, Fault> {
    let row = instances::instance(view, &id.app, id.release, id.ordinal)?;
    Ok(
        match row.filter(|row| row.created == id.created && row.node == node) {
            Some(row) if row.state.is_end() => Known::Ended,
            Some(_) => Known::Live,
            None => Known::Unknown,
        },
    )
}

/// Reads everything that deployments desire.
fn desired(view: &dyn View) -> Result<Desired, Fault> {
    let mut desired = Desired::default();
    let mut after = None;
    loop {
        let page = apps::list(view, after.as_ref(), PAGE)?;
        for (name, row) in page.apps {
            let serving = instances::serving(view, &name)?.unwrap_or_default();
            let mut app = App {
                running: row.running && !row.deleting,
                deleting: row.deleting,
                ..App::default()
            };
            for (release, ordinal) in &serving.live {
                if let Some(instance) = instances::instance(view, &name, *release, *ordinal)? {
                    let id = InstanceId {
                        app: name.clone(),
                        release: *release,
                        ordinal: *ordinal,
                        created: instance.created,
                    };
                    app.live.push((id, instance));
                }
            }
            if let Some(number) = serving.rollout
                && let Some(rollout) = instances::rollout(view, &name, number)?
            {
                app.built_on = match rollout.build {
                    Some(build) => builds::get(view, &name, build)?.and_then(|build| match build.state {
                        builds::State::Succeeded { node } => Some(node),
                        _ => None,
                    }),
                    None => None,
                };
                app.rollout = Some((number, rollout));
            }
            app.serving = serving;
            desired.apps.insert(name, app);
        }
        match page.next {
            Some(next) => after = Some(next),
            None => return Ok(desired),
        }
    }
}

/// How long each member has been silent. A leader has not heard from anyone before it led.
fn contacts(status: &ClusterStatus, leads_ms: u64) -> BTreeMap<NodeId, u64> {
    let members = status.members.iter().map(|member| {
        let silent_ms = match member.last_contact_ms {
            _ if member.id == status.node => 0,
            Some(ms) => ms.min(leads_ms),
            None => leads_ms,
        };
        (member.id, silent_ms)
    });
    members.collect()
}
