use super::types::*;
use crate::command::Context;
use crate::deployments::apps::Name;
use crate::ids::NodeId;
use crate::store::Fault;
use crate::table::Range;
use crate::txn::Txn;
use serde::{Deserialize, Serialize};

/// What happened to builds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// A build is to be made.
    Queued {
        /// Of which app.
        app: Name,
        /// Which.
        number: Number,
        /// What it depends on.
        inputs: Inputs,
    },
    /// A node works on it.
    Started {
        /// Of which app.
        app: Name,
        /// Which.
        number: Number,
        /// The node.
        node: NodeId,
    },
    /// Its files are there.
    Succeeded {
        /// Of which app.
        app: Name,
        /// Which.
        number: Number,
        /// Where.
        node: NodeId,
    },
    /// An attempt failed.
    Failed {
        /// Of which app.
        app: Name,
        /// Which.
        number: Number,
        /// Where.
        node: NodeId,
        /// Why, for people.
        reason: String,
    },
    /// All builds of an app were forgotten.
    Forgotten {
        /// Which app.
        app: Name,
    },
}

impl Event {
    /// The app whose builds changed.
    pub fn app(&self) -> &Name {
        match self {
            Event::Queued { app, .. }
            | Event::Started { app, .. }
            | Event::Succeeded { app, .. }
            | Event::Failed { app, .. }
            | Event::Forgotten { app } => app,
        }
    }
}

pub(crate) fn evolve(txn: &mut Txn<'_>, ctx: &Context, event: &Event) -> Result<(), Fault> {
    crate::deployments::touch(txn, ctx);
    match event {
        Event::Queued { app, number, inputs } => {
            let build = Build {
                inputs: inputs.clone(),
                state: State::Queued,
                attempt: 0,
                queued_at: ctx.now,
                started_at: None,
                finished_at: None,
                created: ctx.revision,
                modified: ctx.revision,
            };
            BUILDS.put(txn, &(app.clone(), *number), &build);
            if let Some(old) = number.0.checked_sub(KEPT_MAX) {
                BUILDS.delete(txn, &(app.clone(), Number(old)));
            }
            Ok(())
        }
        Event::Started { app, number, node } => change(txn, ctx, app, *number, |build| {
            build.state = State::Running { node: *node };
            build.attempt = build.attempt.saturating_add(1);
            build.started_at = Some(ctx.now);
            build.finished_at = None;
        }),
        Event::Succeeded { app, number, node } => change(txn, ctx, app, *number, |build| {
            build.state = State::Succeeded { node: *node };
            build.finished_at = Some(ctx.now);
        }),
        Event::Failed {
            app,
            number,
            node,
            reason,
        } => change(txn, ctx, app, *number, |build| {
            let (node, reason) = (*node, reason.clone());
            build.state = State::Failed { node, reason };
            build.finished_at = Some(ctx.now);
        }),
        Event::Forgotten { app } => {
            for (key, _) in BUILDS.list(txn, &Range::within(app), usize::MAX)? {
                BUILDS.delete(txn, &key);
            }
            Ok(())
        }
    }
}

fn change(
    txn: &mut Txn<'_>,
    ctx: &Context,
    app: &Name,
    number: Number,
    with: impl FnOnce(&mut Build),
) -> Result<(), Fault> {
    let key = (app.clone(), number);
    let mut build = BUILDS.expect(txn, &key)?;
    with(&mut build);
    build.modified = ctx.revision;
    BUILDS.put(txn, &key, &build);
    Ok(())
}
