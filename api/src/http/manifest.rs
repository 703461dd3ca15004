//! `/v1/plan`, `/v1/apply`, `/v1/export`: whole sites at once.

use crate::answer::{Answer, Seen};
use crate::app::App;
use crate::manifest::{Draft, EXPORT_BYTES_MAX, Manifest, TooMuch, draft, export};
use crate::params::{Many, Read, query};
use crate::problem::{self, EXPORT_TOO_LARGE, PLAN_STALE, QUERY_INVALID};
use crate::request::{Call, Fresh, LargeJson, Params};
use crate::routes::{Routes, op};
use crate::wire::manifest as wire;
use axum::extract::State;
use onward_statemachine::Outcome;
use std::collections::BTreeSet;

pub(super) fn routes(routes: Routes) -> Routes {
    routes
        .tag("manifests")
        .post(
            "/v1/plan",
            plan,
            op("plan", "What applying a manifest would do")
                .query::<Read>()
                .body::<wire::Manifest>()
                .answer::<wire::Plan>(),
        )
        .post(
            "/v1/apply",
            apply,
            op(
                "apply",
                "Makes everything as a manifest declares it, in one revision or not at all",
            )
            .writes()
            .body::<wire::Manifest>()
            .answer::<wire::Plan>(),
        )
        .get(
            "/v1/export",
            write,
            op("export", "Everything as a manifest declares it")
                .query::<What>()
                .answer::<wire::Exported>(),
        )
}

query! {
    /// What to export.
    What {
        /// only this kind; may be there several times
        kind: Many<String>,
        /// of key-value pairs, those whose keys begin so
        prefix: Option<Vec<u8>>,
        /// How fresh.
        fresh: Fresh,
    }
}

async fn plan(
    State(app): State<App>,
    Params(read): Params<Read>,
    LargeJson(manifest): LargeJson<wire::Manifest>,
) -> Answer {
    let objects = Manifest::read(manifest.objects)?;
    let seen = app
        .read(read.fresh, |view| {
            let draft = draft(view, &objects)?;
            let outcome = draft.rehearse(view)?;
            Ok((draft, outcome))
        })
        .await?;
    let revision = seen.revision;
    check_stale(&seen.value.0, manifest.expect_revision)?;
    if let Some(command) = seen.value.0.command() {
        app.check(&command)?;
    }
    seen.map(|(draft, outcome)| {
        let refused = match outcome {
            Some(Outcome::Refused { refusal, .. }) => Some(*problem::refused(revision, &refusal).0),
            Some(Outcome::Accepted { .. }) | None => None,
        };
        wire::Plan {
            refused,
            ..draft.plan
        }
    })
    .answer()
}

async fn apply(State(app): State<App>, call: Call, LargeJson(manifest): LargeJson<wire::Manifest>) -> Answer {
    let objects = Manifest::read(manifest.objects)?;
    let seen = app.read(Fresh::default(), |view| draft(view, &objects)).await?;
    let Some(command) = seen.value.command() else {
        return seen.map(|draft| draft.plan).answer();
    };
    check_stale(&seen.value, manifest.expect_revision)?;
    let done = app.propose(call, command).await?;
    done.answer_with(&seen.value.plan)
}

/// Whether any of the objects changed since the plan that the caller looked at.
fn check_stale(draft: &Draft, expect_revision: Option<u64>) -> Result<(), problem::Problem> {
    match expect_revision {
        Some(expected) if draft.modified.0 > expected => Err(PLAN_STALE
            .because(format!(
                "objects of the manifest were modified at revision {}, after {expected}, which the plan was made at: \
                 plan again",
                draft.modified
            ))
            .at(draft.modified)),
        _ => Ok(()),
    }
}

async fn write(State(app): State<App>, Params(what): Params<What>) -> Answer {
    let mut kinds = BTreeSet::new();
    for kind in &what.kind.0 {
        let known = wire::KINDS.iter().find(|known| *known == kind);
        kinds.insert(*known.ok_or_else(|| {
            QUERY_INVALID.because(format!(
                "query parameter `kind` is `{kind}`; it takes one of {}",
                wire::KINDS.join(", ")
            ))
        })?);
    }
    if kinds.is_empty() {
        kinds.extend(wire::KINDS);
    }
    let prefix = what.prefix.unwrap_or_default();
    let seen = app.read(what.fresh, |view| export(view, &kinds, &prefix)).await?;
    let Seen {
        value,
        revision,
        age_ms,
    } = seen;
    let objects = value.map_err(|TooMuch| {
        EXPORT_TOO_LARGE
            .because(format!(
                "there are more than {EXPORT_BYTES_MAX} bytes of key-value pairs: choose kinds with `kind`, or pairs \
                 with `prefix`"
            ))
            .at(revision)
    })?;
    Seen {
        value: wire::Exported { objects },
        revision,
        age_ms,
    }
    .answer()
}
