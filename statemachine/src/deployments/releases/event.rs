use super::types::*;
use crate::command::Context;
use crate::deployments::apps::{Commit, Name, Spec};
use crate::deployments::{builds, instances};
use crate::ids::Generation;
use crate::store::Fault;
use crate::table::Range;
use crate::txn::Txn;
use serde::{Deserialize, Serialize};

/// What happened to releases.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// A release was made.
    Created {
        /// Of which app.
        app: Name,
        /// Which.
        number: Number,
        /// The build whose files it runs.
        build: builds::Number,
        /// The commit that was built.
        commit: Commit,
        /// The ref that was asked for.
        reference: String,
        /// Everything else.
        spec: Box<Spec>,
        /// The generation of the app that declared it.
        generation: Generation,
        /// The rollout that made it.
        rollout: instances::RolloutNumber,
    },
    /// All releases of an app were forgotten.
    Forgotten {
        /// Which app.
        app: Name,
    },
}

impl Event {
    /// The app whose releases changed.
    pub fn app(&self) -> &Name {
        match self {
            Event::Created { app, .. } | Event::Forgotten { app } => app,
        }
    }
}

pub(crate) fn evolve(txn: &mut Txn<'_>, ctx: &Context, event: &Event) -> Result<(), Fault> {
    crate::deployments::touch(txn, ctx);
    match event {
        Event::Created {
            app,
            number,
            build,
            commit,
            reference,
            spec,
            generation,
            rollout,
        } => {
            let release = Release {
                build: *build,
                commit: commit.clone(),
                reference: reference.clone(),
                spec: Spec::clone(spec),
                generation: *generation,
                rollout: *rollout,
                created: ctx.revision,
                created_at: ctx.now,
            };
            RELEASES.put(txn, &(app.clone(), *number), &release);
            forget_old(txn, app, *number)
        }
        Event::Forgotten { app } => {
            for (key, _) in RELEASES.list(txn, &Range::within(app), usize::MAX)? {
                RELEASES.delete(txn, &key);
            }
            Ok(())
        }
    }
}

/// Lets go of what is more than [`KEPT_MAX`] releases old, save what the app runs or would run again.
fn forget_old(txn: &mut Txn<'_>, app: &Name, newest: Number) -> Result<(), Fault> {
    let Some(first_kept) = newest.0.checked_sub(KEPT_MAX - 1) else {
        return Ok(());
    };
    let serving = instances::serving(txn, app)?.unwrap_or_default();
    let old = Range::within(app).below(&(app.clone(), Number(first_kept)));
    for (key, _) in RELEASES.list(txn, &old, usize::MAX)? {
        if serving.release != Some(key.1) && serving.live.iter().all(|(release, _)| *release != key.1) {
            RELEASES.delete(txn, &key);
        }
    }
    Ok(())
}
