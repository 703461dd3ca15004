//! Boot templates.

use super::Invalid;
use onward_statemachine::Revision;
use onward_statemachine::machines::netboot;
use onward_statemachine::machines::registry::Selector;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What is declared of a boot template.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = BootTemplateSpec)]
pub struct Spec {
    /// A DNS label.
    pub name: String,
    /// What it makes: `ipxe`, `ignition`, `user-data`, `meta-data` or `network-config`.
    pub makes: String,
    /// For which machines, as `role=worker,rack in (1, 2)`; all of them where it is empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub selector: String,
    /// The highest wins where several choose a machine.
    #[serde(default)]
    pub priority: i32,
    /// The text of the template.
    pub body: String,
}

pub(crate) fn set(spec: Spec, expect: Option<Revision>) -> Result<netboot::Command, Invalid> {
    let kind = spec.makes.parse();
    Ok(netboot::Command::SetTemplate {
        name: spec.name,
        kind: kind.map_err(|error: netboot::KindError| Invalid::new("makes", error.to_string()))?,
        selector: Selector::parse(&spec.selector)
            .map_err(|error| Invalid::new("selector", error.to_string()))?,
        priority: spec.priority,
        body: spec.body,
        expect,
    })
}

/// A boot template.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = BootTemplate)]
pub struct Template {
    /// Its name.
    pub name: String,
    /// What it makes.
    pub makes: String,
    /// For which machines.
    pub selector: String,
    /// The highest wins where several choose a machine.
    pub priority: i32,
    /// The size of its body.
    pub body_bytes: u64,
    /// Its body; lists leave it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// How often it was changed, from 1.
    pub generation: u64,
    /// The revision at which it came into being.
    pub created: u64,
    /// The revision at which it was last changed: what `If-Match` compares with.
    pub modified: u64,
}

impl From<(netboot::Template, Option<String>)> for Template {
    fn from((template, body): (netboot::Template, Option<String>)) -> Self {
        Template {
            name: template.name,
            makes: template.kind.to_string(),
            selector: template.selector.to_string(),
            priority: template.priority,
            body_bytes: template.body_bytes,
            body,
            generation: template.generation.0,
            created: template.created.0,
            modified: template.modified.0,
        }
    }
}

/// Has a boot template, new or in place of the one with the name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = SetBootTemplate)]
pub struct Set {
    /// The whole of it.
    pub template: Spec,
    /// Only if the template's `modified` is this; 0 for "does not exist".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expect_revision: Option<u64>,
}

impl TryFrom<Set> for netboot::Command {
    type Error = Invalid;
    fn try_from(command: Set) -> Result<Self, Invalid> {
        set(command.template, command.expect_revision.map(Revision))
    }
}

/// Deletes a boot template.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = DeleteBootTemplate)]
pub struct Delete {
    /// Which.
    pub name: String,
    /// Only if the template's `modified` is this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expect_revision: Option<u64>,
}

impl From<Delete> for netboot::Command {
    fn from(delete: Delete) -> Self {
        netboot::Command::DeleteTemplate {
            name: delete.name,
            expect: delete.expect_revision.map(Revision),
        }
    }
}

/// What happened to a boot template.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
#[schema(as = BootTemplateEvent)]
pub enum Event {
    /// A template came into being or changed.
    TemplateSet {
        /// Which.
        name: String,
        /// What it makes.
        makes: String,
        /// For which machines.
        selector: String,
        /// The highest wins.
        priority: i32,
        /// The text.
        body: String,
    },
    /// A template was deleted.
    TemplateDeleted {
        /// Which.
        name: String,
    },
}

impl From<netboot::Event> for Event {
    fn from(event: netboot::Event) -> Self {
        match event {
            netboot::Event::TemplateSet {
                name,
                kind,
                selector,
                priority,
                body,
            } => Event::TemplateSet {
                name,
                makes: kind.to_string(),
                selector: selector.to_string(),
                priority,
                body,
            },
            netboot::Event::TemplateDeleted { name } => Event::TemplateDeleted { name },
        }
    }
}
