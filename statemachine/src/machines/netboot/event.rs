use super::types::*;
use crate::command::Context;
use crate::ids::Generation;
use crate::machines::registry::Selector;
use crate::store::Fault;
use crate::txn::Txn;
use serde::{Deserialize, Serialize};

/// What happened to boot templates.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// A template came into being or changed.
    TemplateSet {
        /// Which.
        name: String,
        /// What it makes.
        kind: Kind,
        /// For which machines.
        selector: Selector,
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

pub(crate) fn evolve(txn: &mut Txn<'_>, ctx: &Context, event: &Event) -> Result<(), Fault> {
    match event {
        Event::TemplateSet {
            name,
            kind,
            selector,
            priority,
            body,
        } => {
            let before = TEMPLATES.get(txn, name)?;
            let (created, generation) = before.map_or((ctx.revision, Generation(1)), |template| {
                (template.created, template.generation.next())
            });
            let template = Template {
                name: name.clone(),
                kind: *kind,
                selector: selector.clone(),
                priority: *priority,
                body_bytes: body.len() as u64,
                generation,
                created,
                modified: ctx.revision,
            };
            TEMPLATES.put(txn, name, &template);
            BODIES.put(txn, name, body);
        }
        Event::TemplateDeleted { name } => {
            TEMPLATES.delete(txn, name);
            BODIES.delete(txn, name);
        }
    }
    Ok(())
}
