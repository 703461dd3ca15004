use super::types::*;
use crate::command::Context;
use crate::ids::Generation;
use crate::store::Fault;
use crate::txn::Txn;
use serde::{Deserialize, Serialize};

/// What happened to apps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// An app was declared.
    Set {
        /// Which.
        name: Name,
        /// All of it.
        spec: Box<Spec>,
    },
    /// An app is to go.
    Deleted {
        /// Which.
        name: Name,
    },
    /// An app is to run.
    Started {
        /// Which.
        name: Name,
    },
    /// An app is not to run.
    Stopped {
        /// Which.
        name: Name,
    },
    /// Nothing of an app is kept.
    Removed {
        /// Which.
        name: Name,
    },
}

impl Event {
    /// The app that changed.
    pub fn app(&self) -> &Name {
        match self {
            Event::Set { name, .. }
            | Event::Deleted { name }
            | Event::Started { name }
            | Event::Stopped { name }
            | Event::Removed { name } => name,
        }
    }
}

pub(crate) fn evolve(txn: &mut Txn<'_>, ctx: &Context, event: &Event) -> Result<(), Fault> {
    crate::deployments::touch(txn, ctx);
    match event {
        Event::Set { name, spec } => set(txn, ctx, name, spec),
        Event::Deleted { name } => {
            release_routes(txn, name)?;
            change(txn, ctx, name, |app| {
                app.deleting = true;
                app.running = false;
                app.spec.routes.clear();
            })
        }
        Event::Started { name } => change(txn, ctx, name, |app| app.running = true),
        Event::Stopped { name } => change(txn, ctx, name, |app| app.running = false),
        Event::Removed { name } => {
            APPS.delete(txn, name);
            Ok(())
        }
    }
}

fn set(txn: &mut Txn<'_>, ctx: &Context, name: &Name, spec: &Spec) -> Result<(), Fault> {
    let before = APPS.get(txn, name)?;
    if before.is_some() {
        release_routes(txn, name)?;
    }
    for route in &spec.routes {
        ROUTES.put(txn, &(route.host.clone(), route.path.clone()), name);
    }
    let app = App {
        spec: Spec::clone(spec),
        running: before.as_ref().is_none_or(|app| app.running),
        deleting: false,
        generation: before.as_ref().map_or(Generation(0), |app| app.generation).next(),
        created: before.map_or(ctx.revision, |app| app.created),
        modified: ctx.revision,
        modified_at: ctx.now,
    };
    APPS.put(txn, name, &app);
    Ok(())
}

fn release_routes(txn: &mut Txn<'_>, name: &Name) -> Result<(), Fault> {
    for route in APPS.expect(txn, name)?.spec.routes {
        ROUTES.delete(txn, &(route.host, route.path));
    }
    Ok(())
}

fn change(txn: &mut Txn<'_>, ctx: &Context, name: &Name, with: impl FnOnce(&mut App)) -> Result<(), Fault> {
    let mut app = APPS.expect(txn, name)?;
    with(&mut app);
    app.generation = app.generation.next();
    app.modified = ctx.revision;
    app.modified_at = ctx.now;
    APPS.put(txn, name, &app);
    Ok(())
}
