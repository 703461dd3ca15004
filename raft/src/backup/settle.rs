//! What a restore changes in the state, by commands of the ordinary kind: the member gets its id, and what the rows say of
//! the old cluster's life ends.

use super::applied_of;
use super::restore::{Restore, RestoreError, Restored, unwritable};
use crate::state::database::{Batch, StateDisk};
use crate::types::{LeaderId, LogId, Membership, PeerNode, StoredMembership, Vote};
use onward_statemachine::backup::{Header, Summary};
use onward_statemachine::deployments::instances::{self, Ending};
use onward_statemachine::deployments::{apps, releases};
use onward_statemachine::services::catalog;
use onward_statemachine::{
    Actor, Changes, Command, CommandId, Envelope, Fault, Millis, NodeId, Outcome, Reply, Revision, Txn,
    apply, system,
};
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

/// The most commands in one entry.
const COMMANDS_MAX: usize = 1000;
/// The rows that are read at once.
const PAGE_ROWS: usize = 1000;

/// What a restore changes in the state: entries behind the last one of the backup, in a term of their own.
pub(super) struct Settling<'a> {
    options: &'a Restore,
    disk: &'a dyn StateDisk,
    actor: Actor,
    now: Millis,
    /// One above that of the backup, so that no entry of the new cluster equals one of the old.
    term: u64,
    /// The new member, once its id was given out.
    node: NodeId,
    pub(super) last: LogId,
}

impl<'a> Settling<'a> {
    pub(super) fn new(
        options: &'a Restore,
        disk: &'a dyn StateDisk,
        now: Millis,
        header: &Header,
    ) -> Result<Self, RestoreError> {
        let clock = disk.read(system::clock)?;
        let mut settling = Settling {
            options,
            disk,
            actor: Actor::new(&format!("restore:{}@{}", header.cluster_name, header.revision)),
            now: now.max(clock.now),
            term: header.term + 1,
            node: NodeId(header.node_max),
            last: applied_of(header),
        };
        let above = NodeId(header.node_max);
        let reply = settling.land(Command::System(system::Command::AllocateNodeId { above }))?;
        let Reply::System(system::Reply::NodeId(node)) = reply else {
            return Err(Fault::invariant("an allocation answers with a node id").into());
        };
        settling.node = node;
        Ok(settling)
    }

    pub(super) fn vote(&self) -> Vote {
        Vote::new(self.term, self.node.0)
    }

    pub(super) fn run(&mut self, backup: Summary) -> Result<Restored, RestoreError> {
        let services_renewed = self.renew_services()?;
        let instances_ended = self.end_instances()?;
        let apps_stopped = match self.options.stop_apps {
            true => self.stop_apps()?,
            false => 0,
        };
        self.become_member()?;
        let options = self.options;
        Ok(Restored {
            cluster_id: Uuid::new_v4(),
            cluster_name: options
                .cluster_name
                .clone()
                .unwrap_or_else(|| backup.header.cluster_name.clone()),
            backup,
            node: self.node,
            revision: Revision(self.last.index),
            instances_ended,
            services_renewed,
            apps_stopped,
        })
    }

    fn next(&self) -> LogId {
        let (term, node_id) = (self.term, self.node.0);
        LogId::new(LeaderId { term, node_id }, self.last.index + 1)
    }

    /// Applies one command as the next entry.
    fn land(&mut self, command: Command) -> Result<Reply, RestoreError> {
        let log_id = self.next();
        let random = Uuid::new_v4().into_bytes();
        let random = random.first_chunk().expect("a UUID has 16 bytes");
        let envelope = Envelope {
            // Made at log time, which may be ahead of this machine's clock.
            command_id: CommandId(uuid::Builder::from_unix_timestamp_millis(self.now.0, random).into_uuid()),
            actor: self.actor.clone(),
            proposed_at: self.now,
            command,
        };
        let (outcome, changes) = self.disk.read(|view| {
            let mut txn = Txn::new(view);
            let outcome = apply::apply_envelope(&mut txn, Revision(log_id.index), envelope)?;
            Ok((outcome, txn.into_changes()))
        })?;
        match outcome {
            Outcome::Accepted { reply, .. } => {
                self.write(changes, log_id, None)?;
                Ok(reply)
            }
            Outcome::Refused { refusal, .. } => Err(RestoreError::Refused(Box::new(refusal))),
        }
    }

    fn land_all(&mut self, commands: &[Command]) -> Result<usize, RestoreError> {
        for some in commands.chunks(COMMANDS_MAX) {
            self.land(Command::Batch(some.to_vec()))?;
        }
        Ok(commands.len())
    }

    fn write(
        &mut self,
        changes: Changes,
        applied: LogId,
        membership: Option<StoredMembership>,
    ) -> Result<(), RestoreError> {
        let batch = Batch {
            changes,
            applied,
            membership,
            kept: None,
        };
        let written = self.disk.write(batch);
        written.map_err(unwritable(&self.options.data_dir))?;
        self.last = applied;
        Ok(())
    }

    fn renew_services(&mut self) -> Result<usize, RestoreError> {
        let mut commands = Vec::new();
        let mut after = None;
        loop {
            let page = self
                .disk
                .read(|view| catalog::all(view, after.as_ref(), PAGE_ROWS))?;
            let alive = page.instances.into_iter().filter(|(_, instance)| {
                instance.deadline.is_some() && instance.health == catalog::Health::Passing
            });
            commands.extend(alive.map(|(id, _)| Command::Catalog(catalog::Command::Renew { id })));
            after = page.next;
            if after.is_none() {
                return self.land_all(&commands);
            }
        }
    }

    fn end_instances(&mut self) -> Result<usize, RestoreError> {
        let mut commands = Vec::new();
        let mut after = None;
        loop {
            let (some, next) = self.disk.read(|view| {
                let page = instances::serving_page(view, after.as_ref(), PAGE_ROWS)?;
                let mut some = Vec::new();
                for (app, serving) in page.apps {
                    for (release, ordinal) in serving.live {
                        if let Some(instance) = instances::instance(view, &app, release, ordinal)? {
                            let app = app.clone();
                            some.push(ended(app, release, ordinal, &instance, &self.actor));
                        }
                    }
                }
                Ok((some, page.next))
            })?;
            commands.extend(some);
            after = next;
            if after.is_none() {
                return self.land_all(&commands);
            }
        }
    }

    fn stop_apps(&mut self) -> Result<usize, RestoreError> {
        let mut commands = Vec::new();
        let mut after = None;
        loop {
            let page = self
                .disk
                .read(|view| apps::list(view, after.as_ref(), PAGE_ROWS))?;
            let running = page
                .apps
                .into_iter()
                .filter(|(_, app)| app.running && !app.deleting);
            commands
                .extend(running.map(|(name, _)| Command::Apps(apps::Command::Stop { name, expect: None })));
            after = page.next;
            if after.is_none() {
                return self.land_all(&commands);
            }
        }
    }

    /// The new member, alone.
    fn become_member(&mut self) -> Result<(), RestoreError> {
        let log_id = self.next();
        let options = self.options;
        let node = PeerNode {
            peer: options.peer_address.clone(),
            http: options.http_url.clone(),
        };
        let voters = vec![BTreeSet::from([self.node.0])];
        let membership = Membership::new(voters, BTreeMap::from([(self.node.0, node)]))
            .map_err(|error| Fault::invariant(error.to_string()))?;
        let stored = StoredMembership::new(Some(log_id), membership);
        self.write(Changes::new(), log_id, Some(stored))
    }
}

/// Nothing of the new cluster runs what the old one did.
fn ended(
    app: apps::Name,
    release: releases::Number,
    ordinal: instances::Ordinal,
    instance: &instances::Instance,
    actor: &Actor,
) -> Command {
    Command::Instances(instances::Command::ReportEnded {
        app,
        release,
        ordinal,
        node: instance.node,
        // What serves cannot be given up as lost, since nothing has taken its place.
        ending: match instance.state {
            instances::State::Active => Ending::Exited,
            _ => Ending::Lost,
        },
        reason: format!("it ran in the cluster of the backup ({actor})"),
    })
}
