//! `onward apply`, `plan` and `export`: whole sites as files.
//!
//! Reads documents ([`load`]), expands inventories ([`inventory`]), and has the cluster compare and apply them as one
//! batch. An error names the file and document, or the line, that it is about.

pub(crate) mod diff;
pub(crate) mod inventory;
pub(crate) mod load;

use crate::failure::{Failure, Result};
use crate::output::yaml;
use crate::session::{Session, count};
use clap::Args;
use load::Document;
use onward_api::client::Error;
use onward_api::wire::machines::Spec;
use onward_api::wire::manifest::{Declaration, KINDS, Manifest, Plan as Planned};
use onward_api::wire::{Problem, Stamped};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// What `apply --help` says of manifests.
pub(crate) const FORMAT_HELP: &str = "Examples:
  onward apply -f site/
  onward apply -f app.yaml -f settings.yaml --yes
  onward apply -f - < site.yaml

A manifest is YAML of one or many documents, or JSON. Each document is an object with `kind`:
  kind: kv                   key, value (or value_base64)
  kind: app                  name, spec
  kind: service_instance     service, instance, spec
  kind: machine              serial, rack, role; index, labels, macs, bmc
  kind: machine_inventory    file: a CSV file next to the manifest; role, labels, bmc_kind for lines without
  kind: boot_template        name, makes, body; selector, priority
  kind: address_plan         index_offset, machines_per_rack_max, addresses_per_machine, machines, bmcs
`onward export` prints what there is in this form. Objects that no manifest names are left alone.";

/// Which manifests.
#[derive(Debug, Args)]
pub struct Files {
    /// A manifest, or a folder of them; `-` reads standard input; may be given more than once
    #[arg(short, long = "file", value_name = "FILE", required = true)]
    file: Vec<PathBuf>,
}

/// Arguments of `apply`.
#[derive(Debug, Args)]
pub struct Apply {
    #[command(flatten)]
    files: Files,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

/// Arguments of `plan`.
#[derive(Debug, Args)]
pub struct Plan {
    #[command(flatten)]
    files: Files,
}

/// Arguments of `export`.
#[derive(Debug, Args)]
pub struct Export {
    /// Only objects of this kind; may be given more than once
    #[arg(short, long, value_parser = KINDS)]
    kind: Vec<String>,
}

/// An object of a manifest and where it comes from.
#[derive(Debug, Clone, PartialEq)]
struct Object {
    origin: String,
    value: Value,
}

/// A document that stands for the machines of a CSV file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct MachineInventory {
    /// Relative to the folder of the manifest.
    file: PathBuf,
    #[serde(default)]
    role: Option<String>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    bmc_kind: Option<String>,
}

/// Shows what applying manifests would change.
pub(crate) async fn plan(session: &mut Session<'_>, arguments: Plan) -> Result {
    let objects = read(session, &arguments.files)?;
    let planned = ask(session, &objects).await?;
    let color = session.output.color();
    session.output.show(&planned, |planned| {
        format!(
            "{}{}\n",
            diff::steps(&planned.value, color),
            diff::summary(&planned.value)
        )
    })?;
    match planned.value.refused {
        Some(problem) => Err(Failure::Refused(format!(
            "the cluster would refuse it: {}",
            problem.detail
        ))),
        None => Ok(()),
    }
}

/// Applies manifests as one batch, after showing what that changes.
pub(crate) async fn apply(session: &mut Session<'_>, arguments: Apply) -> Result {
    let objects = read(session, &arguments.files)?;
    let planned = ask(session, &objects).await?;
    let (plan, color) = (&planned.value, session.output.color());
    if !session.output.structured() {
        session.output.bytes(diff::steps(plan, color).as_bytes())?;
    }
    if plan.create + plan.update == 0 {
        return session.output.show(&planned, |planned| {
            format!("{}; nothing to do\n", diff::summary(&planned.value))
        });
    }
    if let Some(problem) = &plan.refused {
        return Err(Failure::Refused(problem.detail.clone()));
    }
    // Nothing is deleted by applying, so that only somebody who looks on is asked.
    if session.output.interactive() {
        session
            .output
            .confirm(&format!("{}; apply", diff::summary(plan)), arguments.yes)?;
    }
    // What is applied is what was shown: not if somebody changed one of the objects meanwhile.
    let manifest = Manifest {
        objects: values(&objects),
        expect_revision: Some(planned.revision),
    };
    let done = session
        .client
        .apply(&manifest)
        .await
        .map_err(|error| located(error, &objects))?;
    session.output.show(&done, |done| {
        format!(
            "{}; applied at revision {}\n",
            diff::summary(&done.value),
            done.revision
        )
    })
}

/// Prints everything as a manifest.
pub(crate) async fn export(session: &mut Session<'_>, arguments: Export) -> Result {
    let exported = session.client.export(&arguments.kind).await?;
    let objects = &exported.value.objects;
    if session.output.json() {
        return session.output.show(objects, |_| String::new());
    }
    let number = count(objects.len() as u64, "object");
    let mut text = format!("# {number} at revision {}\n", exported.revision);
    for object in objects {
        text.push_str("---\n");
        // In the order in which people write it, `kind` first; what a newer cluster adds is printed as it comes.
        text.push_str(&match serde_json::from_value::<Declaration>(object.clone()) {
            Ok(declaration) => yaml(&declaration)?,
            Err(_) => yaml(object)?,
        });
    }
    session.output.bytes(text.as_bytes())
}

async fn ask(session: &mut Session<'_>, objects: &[Object]) -> Result<Stamped<Planned>> {
    let manifest = Manifest {
        objects: values(objects),
        expect_revision: None,
    };
    session
        .client
        .plan(&manifest)
        .await
        .map_err(|error| located(error, objects))
}

fn values(objects: &[Object]) -> Vec<Value> {
    objects.iter().map(|object| object.value.clone()).collect()
}

/// Reads manifests, expands what stands for many objects, and checks what can be checked without the cluster.
fn read(session: &mut Session<'_>, files: &Files) -> Result<Vec<Object>> {
    let documents = load::load(&files.file, || session.output.read_input())?;
    let mut objects = Vec::new();
    for document in documents {
        expand(document, &mut objects)?;
    }
    check(&objects)?;
    Ok(objects)
}

fn expand(document: Document, objects: &mut Vec<Object>) -> Result {
    let Document { place, value } = document;
    let Value::Object(mut fields) = value else {
        return Err(Failure::usage(format!(
            "{place}: it is not a map with `kind` and the fields of its kind"
        )));
    };
    if fields.get("kind").and_then(Value::as_str) != Some("machine_inventory") {
        objects.push(Object {
            origin: place.to_string(),
            value: Value::Object(fields),
        });
        return Ok(());
    }
    fields.remove("kind");
    let inventory: MachineInventory = serde_json::from_value(Value::Object(fields))
        .map_err(|error| Failure::usage(format!("{place}: machine_inventory: {error}")))?;
    let file = place.folder().join(&inventory.file);
    let defaults = inventory::Defaults {
        role: inventory.role,
        labels: inventory.labels,
        bmc_kind: inventory.bmc_kind,
    };
    for machine in inventory::read(&file, &defaults)? {
        let origin = format!("{} line {}", file.display(), machine.line);
        let declaration = Declaration::Machine(Spec::from(machine));
        let value = serde_json::to_value(declaration).map_err(std::io::Error::from)?;
        objects.push(Object { origin, value });
    }
    Ok(())
}

fn check(objects: &[Object]) -> Result {
    let mut seen = BTreeMap::new();
    for Object { origin, value } in objects {
        let wrong = |why: String| Failure::usage(format!("{origin}: {why}"));
        let kind = match value.get("kind") {
            Some(Value::String(kind)) => kind.clone(),
            Some(_) => return Err(wrong("field `kind`: it is not a text".to_owned())),
            None => {
                return Err(wrong(format!(
                    "field `kind` is missing; it is one of {}",
                    KINDS.join(", ")
                )));
            }
        };
        let declaration: Declaration =
            serde_json::from_value(value.clone()).map_err(|error| wrong(format!("{kind}: {error}")))?;
        let (kind, name) = declaration
            .id()
            .map_err(|invalid| wrong(format!("{kind}: {invalid}")))?;
        if let Some(before) = seen.insert((kind, name.clone()), origin) {
            return Err(wrong(format!("{kind} `{name}` is declared by {before} already")));
        }
    }
    Ok(())
}

/// An error of the cluster, with the object that it is about called by where it comes from.
fn located(error: Error, objects: &[Object]) -> Failure {
    let place = error
        .problem()
        .and_then(object_place)
        .and_then(|(place, rest)| Some((objects.get(place)?, rest)));
    match place {
        Some((object, rest)) => Failure::usage(format!("{}: {rest}", object.origin)),
        None => Failure::from(error),
    }
}

/// The object that a problem names, and the rest of what it says: "field `objects[3].macs`: ..." is (3, "field
/// `macs`: ...").
fn object_place(problem: &Problem) -> Option<(usize, String)> {
    let named = problem.detail.strip_prefix("field `objects[")?;
    let (place, rest) = named.split_once(']')?;
    let (field, rule) = rest.split_once("`: ")?;
    let rest = match field.strip_prefix('.') {
        Some(field) => format!("field `{field}`: {rule}"),
        None => rule.to_owned(),
    };
    Some((place.parse().ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::path::Path;

    fn objects(file: &Path, text: &str) -> Result<Vec<Object>> {
        let mut objects = Vec::new();
        for document in load::parse(file, text)? {
            expand(document, &mut objects)?;
        }
        check(&objects)?;
        Ok(objects)
    }

    fn wrong(text: &str) -> String {
        objects(Path::new("a.yaml"), text).unwrap_err().to_string()
    }

    #[test]
    fn an_inventory_is_expanded_beside_its_manifest() {
        let folder = std::env::temp_dir().join(format!("onward-inventory-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(
            folder.join("rack.csv"),
            "serial,rack,label.zone\nS1,3,\n\nS2,3,b\n",
        )
        .unwrap();
        let text = "kind: machine_inventory\nfile: rack.csv\nrole: worker\nlabels: {zone: a}\n";
        let expanded = objects(&folder.join("site.yaml"), text);
        let missing = objects(&folder.join("site.yaml"), &text.replace("rack.csv", "none.csv"));
        std::fs::remove_dir_all(&folder).unwrap();
        let expanded = expanded.unwrap();
        let machine = |serial, zone| json!({"kind": "machine", "serial": serial, "rack": 3, "role": "worker", "labels": {"zone": zone}});
        assert_eq!(
            [&expanded[0].value, &expanded[1].value],
            [&machine("S1", "a"), &machine("S2", "b")]
        );
        assert!(
            expanded[1].origin.ends_with("rack.csv line 4"),
            "{}",
            expanded[1].origin
        );
        assert!(missing.unwrap_err().to_string().contains("none.csv: "));
    }

    #[test]
    fn errors_name_the_document_the_field_and_the_rule() {
        assert_eq!(
            wrong("a: 1"),
            format!(
                "a.yaml, document 1: field `kind` is missing; it is one of {}",
                KINDS.join(", ")
            )
        );
        assert!(
            wrong("kind: kv\nkey: a\nvalue: b\n---\nkind: apps")
                .starts_with("a.yaml, document 2: apps: unknown variant")
        );
        assert!(
            wrong("kind: kv\nkey: a\nvalu: b").starts_with("a.yaml, document 1: kv: unknown field `valu`")
        );
        assert!(
            wrong("kind: machine\nserial: S1\nrack: x\nrole: w")
                .contains("document 1: machine: invalid type: string")
        );
        assert!(wrong("just text").contains("not a map"));
        assert_eq!(
            wrong("kind: kv\nkey: a\nvalue: b\n---\nkind: kv\nkey: a\nvalue: c"),
            "a.yaml, document 2: kv `a` is declared by a.yaml, document 1 already"
        );
        assert!(
            wrong("kind: machine_inventory\nfiles: x")
                .starts_with("a.yaml, document 1: machine_inventory: unknown field")
        );
    }

    #[test]
    fn what_the_cluster_says_of_an_object_is_said_of_its_document() {
        let problem = |detail: &str| Problem {
            kind: String::new(),
            title: String::new(),
            status: 400,
            code: "field_invalid".to_owned(),
            detail: detail.to_owned(),
            revision: None,
            command_id: None,
            command_index: None,
            retry_after_ms: None,
            floor: None,
        };
        let objects = objects(
            Path::new("a.yaml"),
            "kind: kv\nkey: a\nvalue: b\n---\nkind: kv\nkey: b\nvalue: c",
        )
        .unwrap();
        let told = |detail| located(Error::Refused(Box::new(problem(detail))), &objects).to_string();
        assert_eq!(
            told("field `objects[1].macs`: no"),
            "a.yaml, document 2: field `macs`: no"
        );
        assert_eq!(told("field `objects[0]`: no"), "a.yaml, document 1: no");
        assert_eq!(told("field `objects[7]`: no"), "field `objects[7]`: no");
        assert_eq!(told("something else"), "something else");
    }

    #[test]
    fn what_is_written_is_read_back_unchanged() {
        let texts = [
            "",
            " ",
            "no",
            "1e3",
            "0x1f",
            "~",
            "- a",
            "a: b",
            "#x",
            "two\nlines\n",
            "tab\t",
            "é😀",
            "'\"\\",
            "---",
            "\u{7f}\u{85}",
        ];
        let written: Vec<Value> = texts
            .iter()
            .map(|text| json!({"kind": "kv", "key": format!("k{text}"), "value": text}))
            .collect();
        let text = written
            .iter()
            .map(|value| yaml(value).unwrap())
            .collect::<Vec<_>>()
            .join("---\n");
        let read: Vec<Value> = objects(Path::new("-"), &text)
            .unwrap()
            .into_iter()
            .map(|object| object.value)
            .collect();
        assert_eq!(read, written);
        let text = serde_json::to_string_pretty(&written).unwrap();
        let read: Vec<Value> = objects(Path::new("-"), &text)
            .unwrap()
            .into_iter()
            .map(|object| object.value)
            .collect();
        assert_eq!(read, written);
    }
}
