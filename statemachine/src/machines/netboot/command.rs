use super::types::*;
use super::{Event, query};
use crate::command::{Accepted, Context, Decision, Stop};
use crate::ids::{NameError, Revision, check_label};
use crate::machines::registry::{Selector, SelectorError};
use crate::store::View;
use serde::{Deserialize, Serialize};

/// Demands on boot templates.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Have this template, new or in place of the one with the name.
    SetTemplate {
        /// A DNS label.
        name: String,
        /// What it makes.
        kind: Kind,
        /// For which machines.
        selector: Selector,
        /// The highest wins where several choose a machine.
        priority: i32,
        /// The text of the template, 1 to [`BODY_BYTES_MAX`] bytes.
        body: String,
        /// Only if the template's modified revision is this; 0 for "does not exist".
        expect: Option<Revision>,
    },
    /// Delete a template.
    DeleteTemplate {
        /// Which.
        name: String,
        /// Only if its modified revision is this.
        expect: Option<Revision>,
    },
}

/// Why a demand on boot templates is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// A name that is none.
    #[error(transparent)]
    Name(NameError),
    /// A selector that chooses by what machines cannot have.
    #[error("the selector of boot template `{name}`: {error}")]
    Selector {
        /// Whose.
        name: String,
        /// Why.
        error: SelectorError,
    },
    /// A body that is empty or too large.
    #[error("the body of boot template `{name}` has {length} bytes; it takes 1 to {BODY_BYTES_MAX}")]
    BodyLength {
        /// Whose.
        name: String,
        /// Its size in bytes.
        length: usize,
    },
    /// As many as there can be.
    #[error("there are {TEMPLATES_MAX} boot templates already, which is the most; delete one first")]
    TooMany,
    /// None of that name.
    #[error("there is no boot template `{name}`")]
    NotFound {
        /// The name.
        name: String,
    },
    /// A compare-and-set lost.
    #[error("boot template `{name}` was last modified at revision {actual}, not at {expected}")]
    RevisionMismatch {
        /// Whose.
        name: String,
        /// What the caller had read.
        expected: Revision,
        /// What is there; 0 where nothing is.
        actual: Revision,
    },
}

fn refuse<T>(refusal: Refusal) -> Result<T, Stop<Refusal>> {
    Err(Stop::Refuse(refusal))
}

/// Decides a demand on boot templates.
pub fn decide(view: &dyn View, _ctx: &Context, command: &Command) -> Decision<Event, Refusal> {
    let (Command::SetTemplate { name, expect, .. } | Command::DeleteTemplate { name, expect }) = command;
    check_label("the name of a boot template", name).map_err(|error| Stop::Refuse(Refusal::Name(error)))?;
    let current = query::get(view, name)?;
    let actual = current.as_ref().map_or(Revision(0), |template| template.modified);
    if let Some(expected) = expect.filter(|expected| *expected != actual) {
        let name = name.clone();
        return refuse(Refusal::RevisionMismatch {
            name,
            expected,
            actual,
        });
    }
    match command {
        Command::SetTemplate {
            kind,
            selector,
            priority,
            body,
            ..
        } => {
            check_content(name, selector, body)?;
            let same = match &current {
                None if query::full(view)? => return refuse(Refusal::TooMany),
                None => false,
                Some(template) => {
                    (template.kind, &template.selector, template.priority) == (*kind, selector, *priority)
                        && query::body(view, name)?.as_ref() == Some(body)
                }
            };
            if same {
                return Ok(Accepted::unchanged());
            }
            Ok(Accepted::event(Event::TemplateSet {
                name: name.clone(),
                kind: *kind,
                selector: selector.clone(),
                priority: *priority,
                body: body.clone(),
            }))
        }
        Command::DeleteTemplate { .. } => match current {
            None => refuse(Refusal::NotFound { name: name.clone() }),
            Some(Template { name, .. }) => Ok(Accepted::event(Event::TemplateDeleted { name })),
        },
    }
}

fn check_content(name: &str, selector: &Selector, body: &str) -> Result<(), Stop<Refusal>> {
    selector.check().map_err(|error| {
        Stop::Refuse(Refusal::Selector {
            name: name.to_owned(),
            error,
        })
    })?;
    if (1..=BODY_BYTES_MAX).contains(&body.len()) {
        return Ok(());
    }
    refuse(Refusal::BodyLength {
        name: name.to_owned(),
        length: body.len(),
    })
}
