use super::types::*;
use crate::command::Context;
use crate::ids::Revision;
use crate::mutant;
use crate::store::Fault;
use crate::txn::Txn;
use serde::{Deserialize, Serialize};

/// What happened to instances of services.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// An instance was registered, or registered as something else than before. It passes.
    Registered {
        /// Which.
        id: Id,
        /// What it is now.
        spec: Spec,
    },
    /// A passing instance said that it lives. Nothing that anyone waits for changed.
    Renewed {
        /// Which.
        id: Id,
    },
    /// An instance became passing or critical.
    HealthChanged {
        /// Which.
        id: Id,
        /// What it became.
        health: Health,
        /// Why.
        cause: Cause,
    },
    /// An operator took an instance out of service, or put it back.
    MaintenanceSet {
        /// Which.
        id: Id,
        /// Whether it is out of service now.
        on: bool,
    },
    /// An instance is gone.
    Deregistered {
        /// Which.
        id: Id,
        /// Why.
        cause: Cause,
    },
}

/// Why an instance changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cause {
    /// Somebody demanded it.
    Asked,
    /// It renewed.
    Renewed,
    /// It did not renew in time.
    Expired,
}

impl Event {
    /// The instance that it happened to.
    pub fn id(&self) -> &Id {
        match self {
            Event::Registered { id, .. }
            | Event::Renewed { id }
            | Event::HealthChanged { id, .. }
            | Event::MaintenanceSet { id, .. }
            | Event::Deregistered { id, .. } => id,
        }
    }
}

pub(crate) fn evolve(txn: &mut Txn<'_>, ctx: &Context, event: &Event) -> Result<(), Fault> {
    let id = event.id();
    let before = INSTANCES.get(txn, &id.key())?;
    let mut after = match (event, &before) {
        (Event::Registered { spec, .. }, None) => Instance::new(ctx, spec),
        (_, Some(before)) => before.clone(),
        (_, None) => return Err(Fault::invariant(format!("{event:?}, which is not registered"))),
    };
    match event {
        Event::Registered { spec, .. } => {
            after.spec = spec.clone();
            after.modified = ctx.revision;
            after.set_health(ctx, Health::Passing);
        }
        Event::Renewed { .. } => after.set_health(ctx, Health::Passing),
        Event::HealthChanged { health, .. } => after.set_health(ctx, *health),
        Event::MaintenanceSet { on, .. } => {
            after.maintenance = *on;
            after.modified = ctx.revision;
        }
        Event::Deregistered { .. } => return replace(txn, ctx.revision, id, before.as_ref(), None),
    }
    replace(txn, ctx.revision, id, before.as_ref(), Some(&after))
}

impl Instance {
    fn new(ctx: &Context, spec: &Spec) -> Self {
        Instance {
            spec: spec.clone(),
            health: Health::Passing,
            maintenance: false,
            renewed: ctx.now,
            deadline: None,
            created: ctx.revision,
            modified: ctx.revision,
            health_since: ctx.revision,
        }
    }

    /// Takes note of a sign of health, and sets the deadline that follows from it.
    fn set_health(&mut self, ctx: &Context, health: Health) {
        if health != self.health {
            self.health = health;
            self.health_since = ctx.revision;
        }
        let lasts_ms = match health {
            Health::Passing => {
                self.renewed = ctx.now;
                self.spec.ttl_ms
            }
            Health::Critical => self.spec.deregister_after_ms,
        };
        self.deadline = lasts_ms.map(|ms| mutant::deadline_base(ctx.now).plus(ms));
    }
}

/// The only writer of the three tables: puts `after` where `before` was, and keeps the deadline and the summary true.
fn replace(
    txn: &mut Txn<'_>,
    revision: Revision,
    id: &Id,
    before: Option<&Instance>,
    after: Option<&Instance>,
) -> Result<(), Fault> {
    match after {
        Some(after) => INSTANCES.put(txn, &id.key(), after),
        None => INSTANCES.delete(txn, &id.key()),
    }

    let deadline = |instance: Option<&Instance>| {
        let deadline = instance?.deadline?;
        Some((deadline.0, id.service.clone(), id.instance.clone()))
    };
    let (old, new) = (deadline(before), deadline(after));
    if old != new {
        if let Some(key) = old {
            DEADLINES.delete(txn, &key);
        }
        if let Some(key) = new {
            DEADLINES.put(txn, &key, &());
        }
    }

    let mut service = SERVICES.get(txn, &id.service)?.unwrap_or(Service {
        instances: 0,
        serving: 0,
        created: revision,
        modified: revision,
    });
    let counted = service;
    let serves = |instance: Option<&Instance>| u32::from(instance.is_some_and(Instance::serves));
    service.instances = service.instances + u32::from(after.is_some()) - u32::from(before.is_some());
    service.serving = service.serving + serves(after) - serves(before);
    service.modified = after.map_or(revision, |after| after.changed().max(service.modified));
    if service.instances == 0 {
        SERVICES.delete(txn, &id.service);
    } else if service != counted || before.is_none() {
        SERVICES.put(txn, &id.service, &service);
    }
    Ok(())
}
