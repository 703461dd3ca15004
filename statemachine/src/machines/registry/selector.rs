//! Choosing machines by their fields and labels.

use super::types::*;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;

/// The fields of a machine that a selector can name. No label has one of these names.
pub const FIELDS: [&str; 5] = ["index", "rack", "role", "serial", "state"];

/// The longest selector, in bytes.
pub const SELECTOR_BYTES_MAX: usize = 4096;

/// Requirements that all must hold. The empty selector chooses every machine.
///
/// Written `role=worker,disk!=hdd,zone in (a, b),env notin (test),gpu,!broken`: each name is a field of [`FIELDS`] or a
/// label; `!=` and `notin` also hold where the label is absent, as in Kubernetes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Selector {
    requirements: Vec<Requirement>,
}

/// One requirement of a selector.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requirement {
    /// A field or a label.
    pub name: String,
    /// What must hold of it.
    pub operator: Operator,
}

/// What a requirement asks of a field or label.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Operator {
    /// It is one of these.
    In(BTreeSet<String>),
    /// It is absent or none of these.
    NotIn(BTreeSet<String>),
    /// It is there.
    Exists,
    /// It is not there.
    Absent,
}

/// Why a text is not a selector.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum SelectorError {
    /// Too long.
    #[error("a selector has {length} bytes; the most is {SELECTOR_BYTES_MAX}")]
    Length {
        /// Its length in bytes.
        length: usize,
    },
    /// Nothing between two commas, or after the last.
    #[error("a requirement of the selector is empty: remove the comma too many")]
    Empty,
    /// A requirement that no form fits.
    #[error(
        "`{text}` is not a requirement: write name=value, name!=value, name in (a, b), name notin (a, b), name or !name"
    )]
    Form {
        /// The requirement.
        text: String,
    },
    /// A name that no label can have.
    #[error("`{name}` is not the name of a label: {reason}")]
    Name {
        /// What was given.
        name: String,
        /// The rule.
        reason: String,
    },
    /// A label where only fields are asked for.
    #[error("`{name}` is not a field of a machine: the fields are index, rack, role, serial and state")]
    Field {
        /// What was given.
        name: String,
    },
    /// A value that its field or label never has.
    #[error("`{value}` is not a value of `{name}`: {reason}")]
    Value {
        /// Whose.
        name: String,
        /// What was given.
        value: String,
        /// The rule.
        reason: String,
    },
    /// A field that every machine has.
    #[error("every machine has a {name}: compare it with a value")]
    AlwaysThere {
        /// The field.
        name: String,
    },
}

impl Selector {
    /// Reads a selector over fields and labels. Blank text chooses every machine.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        if text.len() > SELECTOR_BYTES_MAX {
            return Err(SelectorError::Length { length: text.len() });
        }
        let mut selector = Selector::default();
        if text.trim().is_empty() {
            return Ok(selector);
        }
        for part in split_outside_parentheses(text) {
            selector.requirements.push(parse_requirement(part.trim())?);
        }
        selector.check()?;
        Ok(selector)
    }

    /// Reads a selector over fields alone.
    pub fn parse_fields(text: &str) -> Result<Self, SelectorError> {
        let selector = Selector::parse(text)?;
        match selector.requirements.iter().find(|it| !is_field(&it.name)) {
            Some(Requirement { name, .. }) => Err(SelectorError::Field { name: name.clone() }),
            None => Ok(selector),
        }
    }

    /// Both selectors at once.
    #[must_use]
    pub fn and(mut self, other: Selector) -> Self {
        self.requirements.extend(other.requirements);
        self
    }

    /// The requirements.
    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }

    /// Whether all requirements hold for `machine`.
    pub fn matches(&self, machine: &Machine) -> bool {
        self.requirements.iter().all(|requirement| {
            let field = field(machine, &requirement.name);
            let value = field
                .as_deref()
                .or_else(|| machine.labels.get(&requirement.name).map(String::as_str));
            match (&requirement.operator, value) {
                (Operator::In(values), Some(value)) => values.contains(value),
                (Operator::NotIn(values), Some(value)) => !values.contains(value),
                (Operator::Exists, value) => value.is_some(),
                (Operator::Absent, value) => value.is_none(),
                (Operator::In(_), None) => false,
                (Operator::NotIn(_), None) => true,
            }
        })
    }

    /// The one serial that it can match, if it names one.
    pub(super) fn serial(&self) -> Option<Serial> {
        self.requirements.iter().find_map(|it| match &it.operator {
            Operator::In(values) if it.name == "serial" && values.len() == 1 => {
                values.first().map(|serial| Serial(serial.clone()))
            }
            _ => None,
        })
    }

    /// Whether every name and value is one that machines can have: what [`Selector::parse`] promises, for selectors
    /// that come in a command.
    pub(in crate::machines) fn check(&self) -> Result<(), SelectorError> {
        let length = self.to_string().len();
        if length > SELECTOR_BYTES_MAX {
            return Err(SelectorError::Length { length });
        }
        self.requirements.iter().try_for_each(check_requirement)
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, requirement) in self.requirements.iter().enumerate() {
            if place > 0 {
                f.write_str(",")?;
            }
            write!(f, "{requirement}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = &self.name;
        let (one, many, values) = match &self.operator {
            Operator::Exists => return f.write_str(name),
            Operator::Absent => return write!(f, "!{name}"),
            Operator::In(values) => ("=", "in", values),
            Operator::NotIn(values) => ("!=", "notin", values),
        };
        let mut written = values.iter().map(String::as_str);
        match (written.next(), values.len()) {
            (Some(value), 1) => write!(f, "{name}{one}{value}"),
            (first, _) => {
                let all: Vec<&str> = first.into_iter().chain(written).collect();
                write!(f, "{name} {many} ({})", all.join(", "))
            }
        }
    }
}

fn is_field(name: &str) -> bool {
    FIELDS.contains(&name)
}

fn field(machine: &Machine, name: &str) -> Option<String> {
    Some(match name {
        "index" => machine.index.to_string(),
        "rack" => machine.rack.to_string(),
        "role" => machine.role.clone(),
        "serial" => machine.serial.0.clone(),
        "state" => machine.status.state.to_string(),
        _ => return None,
    })
}

fn split_outside_parentheses(text: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0_usize;
    text.split(move |c| {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == ',' && depth == 0
    })
}

fn parse_requirement(text: &str) -> Result<Requirement, SelectorError> {
    if text.is_empty() {
        return Err(SelectorError::Empty);
    }
    let form = || SelectorError::Form {
        text: text.to_owned(),
    };
    let one = |value: &str| BTreeSet::from([value.trim().to_owned()]);
    let (name, operator) = if let Some((name, value)) = text.split_once("!=") {
        (name, Operator::NotIn(one(value)))
    } else if let Some((name, value)) = text.split_once("==").or_else(|| text.split_once('=')) {
        (name, Operator::In(one(value)))
    } else if let Some(name) = text.strip_prefix('!') {
        (name, Operator::Absent)
    } else if let Some((head, list)) = text.split_once('(') {
        let list = list.strip_suffix(')').ok_or_else(form)?;
        let values = list.split(',').map(|value| value.trim().to_owned()).collect();
        match head.split_whitespace().collect::<Vec<_>>()[..] {
            [name, "in"] => (name, Operator::In(values)),
            [name, "notin"] => (name, Operator::NotIn(values)),
            _ => return Err(form()),
        }
    } else {
        (text, Operator::Exists)
    };
    let name = name.trim();
    if name.is_empty() || name.contains(char::is_whitespace) {
        return Err(form());
    }
    Ok(Requirement {
        name: name.to_owned(),
        operator,
    })
}

fn check_requirement(requirement: &Requirement) -> Result<(), SelectorError> {
    let Requirement { name, operator } = requirement;
    if !is_field(name) {
        crate::check_label_key("name", name).map_err(|error| SelectorError::Name {
            name: name.clone(),
            reason: error.to_string(),
        })?;
    }
    let values = match operator {
        Operator::Exists | Operator::Absent if is_field(name) => {
            return Err(SelectorError::AlwaysThere { name: name.clone() });
        }
        Operator::Exists | Operator::Absent => return Ok(()),
        Operator::In(values) | Operator::NotIn(values) => values,
    };
    values.iter().try_for_each(|value| {
        let reason = match name.as_str() {
            "index" | "rack" => match value.parse::<u32>() {
                Ok(number) if number.to_string() == *value => return Ok(()),
                _ => "it is a whole number".to_owned(),
            },
            "state" => match value.parse::<State>() {
                Ok(_) => return Ok(()),
                Err(error) => error.to_string(),
            },
            "serial" => match super::command::check_serial_text(value) {
                Ok(()) => return Ok(()),
                Err(error) => error.to_string(),
            },
            _ => match crate::check_label_value("value", value) {
                Ok(()) => return Ok(()),
                Err(error) => error.to_string(),
            },
        };
        Err(SelectorError::Value {
            name: name.clone(),
            value: value.clone(),
            reason,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        Selector::parse(text).expect_err(text).to_string()
    }

    #[test]
    fn selectors_are_written_as_they_are_read() {
        for text in [
            "",
            "role=worker",
            "role!=worker,rack=3",
            "zone in (a, b),env notin (dev, test),gpu,!broken",
            "empty=",
        ] {
            assert_eq!(Selector::parse(text).expect(text).to_string(), text);
        }
        assert_eq!(
            Selector::parse(" role == worker , zone in (b,a) "),
            Selector::parse("role=worker,zone in (a, b)")
        );
    }

    #[test]
    fn errors_name_what_is_wrong() {
        assert!(error("a=1,,b=2").contains("comma too many"));
        assert!(error("a=1,").contains("comma too many"));
        assert!(error("a b").contains("`a b` is not a requirement"));
        assert!(error("=x").contains("`=x` is not a requirement"));
        assert!(error("zone in (a").contains("`zone in (a` is not a requirement"));
        assert!(error("-a=1").contains("`-a` is not the name of a label"));
        assert!(error("a=b c").contains("`b c` is not a value of `a`"));
        assert!(error("state=broken").contains("is not a state of a machine"));
        assert!(error("rack=one").contains("it is a whole number"));
        assert!(error("rack=01").contains("it is a whole number"));
        assert!(error("!role").contains("every machine has a role"));
        assert!(error(&"a".repeat(5000)).contains("the most is 4096"));
        let error = Selector::parse_fields("zone=a").expect_err("a label");
        assert!(error.to_string().contains("`zone` is not a field"));
    }
}
