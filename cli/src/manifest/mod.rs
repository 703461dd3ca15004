//! `onward apply`, `plan`, `export`: a site as a text.

mod diff;
pub(crate) mod inventory;
pub(crate) mod load;

use crate::failure::{Failure, Result};
use crate::output::yaml;
use crate::session::{Session, count};
use crate::table::{Tone, printable};
use clap::Args;
use load::Document;
use onward_api::wire::machines::Spec as Machine;
use onward_api::wire::manifest::{Action, Manifest, Plan as Planned, Step};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Arguments of `plan`.
#[derive(Debug, Args)]
pub struct Plan {
    #[command(flatten)]
    files: Files,
}

/// Arguments of `apply`.
#[derive(Debug, Args)]
pub struct Apply {
    #[command(flatten)]
    files: Files,
    /// Do not ask on a terminal whether to go on
    #[arg(long, short)]
    yes: bool,
}

/// Arguments of `export`.
#[derive(Debug, Args)]
pub struct Export {
    /// Only these kinds: address_plan, machine, boot_template, service_instance, kv, app
    #[arg(long = "kind", value_name = "KIND", value_delimiter = ',')]
    kinds: Vec<String>,
}

#[derive(Debug, Args)]
struct Files {
    /// A manifest file, a folder of them, or `-` for standard input (repeat for more)
    #[arg(short = 'f', long = "file", value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
}

/// A document that stands for the machines of a CSV file beside the manifest.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Inventory {
    /// The CSV file, relative to the manifest's folder.
    file: PathBuf,
    /// For lines without one.
    role: Option<String>,
    /// For every line; those of the line win.
    #[serde(default)]
    labels: BTreeMap<String, String>,
    /// For lines without one.
    bmc_kind: Option<String>,
}

const INVENTORY_KIND: &str = "machine_inventory";

/// Shows what applying would change.
pub(crate) async fn plan(session: &mut Session<'_>, arguments: Plan) -> Result {
    let manifest = read(session, &arguments.files)?;
    let plan = session.client.plan(&manifest).await?;
    let color = session.output.color();
    session.output.show(&plan, |plan| {
        format!("{}{}\n", steps(&plan.value, color), summary(&plan.value))
    })?;
    match &plan.value.refused {
        Some(problem) => Err(Failure::Refused(format!(
            "the cluster would refuse it: {}",
            problem.detail
        ))),
        None => Ok(()),
    }
}

/// Shows what changes, and makes it so in one revision.
pub(crate) async fn apply(session: &mut Session<'_>, arguments: Apply) -> Result {
    let mut manifest = read(session, &arguments.files)?;
    let plan = session.client.plan(&manifest).await?;
    // What is applied is what is shown: not if somebody changed one of the objects meanwhile.
    manifest.expect_revision = Some(plan.revision);
    let color = session.output.color();
    if !session.output.structured() {
        session.output.bytes(steps(&plan.value, color).as_bytes())?;
    }
    if plan.value.create + plan.value.update > 0 && session.output.interactive() {
        session
            .output
            .confirm(&format!("{}; apply", summary(&plan.value)), arguments.yes)?;
    }
    let applied = session.client.apply(&manifest).await?;
    session.output.show(&applied, |applied| {
        match applied.value.create + applied.value.update {
            0 => format!("{}; nothing to do\n", summary(&applied.value)),
            _ => format!(
                "{}; applied at revision {}\n",
                summary(&applied.value),
                applied.revision
            ),
        }
    })
}

/// Prints everything declared, as a manifest that `apply` reads back.
pub(crate) async fn export(session: &mut Session<'_>, arguments: Export) -> Result {
    let exported = session.client.export(&arguments.kinds).await?;
    if session.output.structured() {
        return session.output.show(&exported.value.objects, |_| String::new());
    }
    let mut text = format!(
        "# {} at revision {}\n",
        count(exported.value.objects.len() as u64, "object"),
        exported.revision
    );
    for object in &exported.value.objects {
        text.push_str("---\n");
        text.push_str(&yaml(object)?);
    }
    session.output.bytes(text.as_bytes())
}

fn read(session: &mut Session<'_>, files: &Files) -> Result<Manifest> {
    let documents = load::load(&files.files, || session.output.read_input())?;
    let mut manifest = Manifest::default();
    for document in documents {
        expand(document, &mut manifest.objects)?;
    }
    Ok(manifest)
}

/// Adds the objects of a document: itself, or the machines that it stands for.
fn expand(document: Document, objects: &mut Vec<Value>) -> Result {
    let Document { place, value } = document;
    let Value::Object(mut fields) = value else {
        return Err(Failure::usage(format!(
            "{place}: an object is a map with `kind` and its fields"
        )));
    };
    match fields.get("kind") {
        Some(Value::String(kind)) if kind == INVENTORY_KIND => {}
        Some(Value::String(_)) => {
            objects.push(Value::Object(fields));
            return Ok(());
        }
        _ => {
            return Err(Failure::usage(format!(
                "{place}: field kind: missing, or no text"
            )));
        }
    }
    fields.remove("kind");
    let inventory: Inventory = serde_json::from_value(Value::Object(fields))
        .map_err(|error| Failure::usage(format!("{place}: {INVENTORY_KIND}: {error}")))?;
    let Inventory {
        file,
        role,
        labels,
        bmc_kind,
    } = inventory;
    let defaults = inventory::Defaults {
        role,
        labels,
        bmc_kind,
    };
    for machine in inventory::read(&place.folder().join(file), &defaults)? {
        let machine = serde_json::to_value(Machine::from(machine))
            .map_err(|error| Failure::usage(format!("{place}: {error}")))?;
        let Value::Object(mut fields) = machine else {
            continue;
        };
        fields.insert("kind".to_owned(), Value::from("machine"));
        objects.push(Value::Object(fields));
    }
    Ok(())
}

/// One line for each object that comes into being or changes, with the fields that change.
fn steps(plan: &Planned, color: bool) -> String {
    let mut text = String::new();
    for step in &plan.steps {
        let (sign, tone) = match step.action {
            Action::Create => ("+", Tone::Good),
            Action::Update => ("~", Tone::Fair),
            Action::Unchanged => continue,
        };
        let name = if step.name.is_empty() {
            String::new()
        } else {
            format!(" {}", printable(&step.name))
        };
        text.push_str(&format!("{} {}{name}\n", tone.paint(sign, color), step.kind));
        text.push_str(&fields(step, color));
    }
    text
}

fn fields(step: &Step, color: bool) -> String {
    let (Action::Update, Some(before), Some(after)) = (step.action, &step.before, &step.after) else {
        return String::new();
    };
    diff::changes(before, after)
        .iter()
        .map(|change| format!("    {}\n", change.line(color)))
        .collect()
}

fn summary(plan: &Planned) -> String {
    format!(
        "{} to create, {} to update, {} unchanged",
        plan.create, plan.update, plan.unchanged
    )
}
