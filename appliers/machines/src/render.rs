//! Templates: the language is that of Jinja (minijinja), with every use of something undefined an error.

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment, Error, ErrorKind, UndefinedBehavior};
use onward_statemachine::machines::netboot::Kind;
use onward_statemachine::machines::registry::Machine;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr};

/// The most steps of the template engine for one document.
pub const FUEL: u64 = 200_000;

/// The largest document, in bytes.
pub const OUTPUT_BYTES_MAX: usize = 4 << 20;

/// What a template can name.
///
/// `serial`, `rack`, `index`, `role`, `state`; `labels` by name; `macs` as text; `addresses`, each with `ip`, `mask_bits`,
/// `netmask` and `gateway`; `bmc` with `kind` and `address` (`none` where there is no BMC, or no address); and `base_url`,
/// under which the machine reached this node, without a slash at the end.
pub const VARIABLES: [&str; 10] = [
    "addresses",
    "base_url",
    "bmc",
    "index",
    "labels",
    "macs",
    "rack",
    "role",
    "serial",
    "state",
];

/// A template to render.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// Its name, for messages.
    pub name: &'a str,
    /// What it makes.
    pub kind: Kind,
    /// Its text.
    pub body: &'a str,
}

/// Why a template makes no document. Lines count from 1.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// It is no template.
    #[error("boot template `{name}`, line {line}: {reason}")]
    Syntax {
        /// Which template.
        name: String,
        /// Where.
        line: usize,
        /// What is wrong.
        reason: String,
    },
    /// It names what no machine has.
    #[error("boot template `{name}`, line {line}: there is no variable `{variable}`; there are {}", VARIABLES.join(", "))]
    UnknownVariable {
        /// Which template.
        name: String,
        /// Where it is first named.
        line: usize,
        /// What it names.
        variable: String,
    },
    /// It fails for this machine.
    #[error("boot template `{name}`, line {line}, for machine `{serial}`: {reason}")]
    Failed {
        /// Which template.
        name: String,
        /// Where.
        line: usize,
        /// For whom.
        serial: String,
        /// What is wrong.
        reason: String,
    },
    /// Its document is too large.
    #[error("boot template `{name}` makes more than {OUTPUT_BYTES_MAX} bytes for machine `{serial}`")]
    TooLarge {
        /// Which template.
        name: String,
        /// For whom.
        serial: String,
    },
    /// It should make JSON.
    #[error("boot template `{name}` makes no JSON: line {line} of the document, column {column}: {reason}")]
    NotJson {
        /// Which template.
        name: String,
        /// Where, in what it made.
        line: usize,
        /// Where in that line.
        column: usize,
        /// What is wrong.
        reason: String,
    },
}

/// Whether `body` can be a template of this kind: its syntax, the variables that it names, and, where it is the same for
/// every machine, its document.
pub fn check_template(source: Source<'_>) -> Result<(), TemplateError> {
    let Source { name, kind, body } = source;
    let environment = environment();
    let template = environment
        .template_from_named_str(name, body)
        .map_err(|error| syntax(name, &error))?;
    let globals: BTreeSet<&str> = environment.globals().map(|(name, _)| name).collect();
    let mut named: Vec<String> = template.undeclared_variables(false).into_iter().collect();
    named.sort();
    let known = |variable: &str| VARIABLES.contains(&variable) || globals.contains(variable);
    if let Some(variable) = named.into_iter().find(|variable| !known(variable)) {
        let line = body
            .lines()
            .position(|line| line.contains(&variable))
            .map_or(1, |at| at + 1);
        let name = name.to_owned();
        return Err(TemplateError::UnknownVariable { name, line, variable });
    }
    let constant = !["{{", "{%", "{#"].iter().any(|tag| body.contains(tag));
    if constant {
        check_document(name, kind, body)?;
    }
    Ok(())
}

/// The document that `source` makes for `machine`, which reached this node under `base_url`.
pub fn render(source: Source<'_>, machine: &Machine, base_url: &str) -> Result<String, TemplateError> {
    let Source { name, kind, body } = source;
    let environment = environment();
    let template = environment
        .template_from_named_str(name, body)
        .map_err(|error| syntax(name, &error))?;
    let mut output = Bounded(Vec::new());
    template
        .render_captured_to(Serde(Variables::of(machine, base_url)), &mut output)
        .map_err(|error| failed(name, machine, &error))?;
    let document = String::from_utf8_lossy(&output.0).into_owned();
    check_document(name, kind, &document)?;
    Ok(document)
}

fn environment() -> Environment<'static> {
    let mut syntax = SyntaxConfig::builder();
    syntax.keep_trailing_newline(true);
    let syntax = syntax.build().expect("the default delimiters are sound");
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_fuel(Some(FUEL));
    environment.set_syntax(syntax);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment
}

/// What [`VARIABLES`] says, for one machine.
#[derive(Serialize)]
struct Variables<'a> {
    serial: &'a str,
    rack: u32,
    index: u32,
    role: &'a str,
    state: &'static str,
    labels: &'a BTreeMap<String, String>,
    macs: Vec<String>,
    addresses: Vec<Address>,
    bmc: Option<Bmc<'a>>,
    base_url: &'a str,
}

#[derive(Serialize)]
struct Address {
    ip: Ipv4Addr,
    mask_bits: u8,
    netmask: Ipv4Addr,
    gateway: Ipv4Addr,
}

#[derive(Serialize)]
struct Bmc<'a> {
    kind: &'a str,
    address: Option<IpAddr>,
}

impl<'a> Variables<'a> {
    fn of(machine: &'a Machine, base_url: &'a str) -> Self {
        let addresses = machine.addresses.iter().map(|address| Address {
            ip: address.ip,
            mask_bits: address.mask_bits,
            netmask: address.netmask(),
            gateway: address.gateway,
        });
        Variables {
            serial: &machine.serial.0,
            rack: machine.rack,
            index: machine.index,
            role: &machine.role,
            state: machine.status.state.name(),
            labels: &machine.labels,
            macs: machine.macs.iter().map(ToString::to_string).collect(),
            addresses: addresses.collect(),
            bmc: machine.bmc.as_ref().map(|bmc| Bmc {
                kind: &bmc.kind,
                address: bmc.address,
            }),
            base_url,
        }
    }
}

fn check_document(name: &str, kind: Kind, document: &str) -> Result<(), TemplateError> {
    if kind != Kind::Ignition {
        return Ok(());
    }
    match serde_json::from_str::<serde::de::IgnoredAny>(document) {
        Ok(_) => Ok(()),
        Err(error) => Err(TemplateError::NotJson {
            name: name.to_owned(),
            line: error.line(),
            column: error.column(),
            reason: error.to_string(),
        }),
    }
}

fn syntax(name: &str, error: &Error) -> TemplateError {
    TemplateError::Syntax {
        name: name.to_owned(),
        line: error.line().unwrap_or(1),
        reason: reason(error),
    }
}

fn failed(name: &str, machine: &Machine, error: &Error) -> TemplateError {
    let (name, serial) = (name.to_owned(), machine.serial.to_string());
    match error.kind() {
        ErrorKind::WriteFailure => TemplateError::TooLarge { name, serial },
        _ => TemplateError::Failed {
            name,
            serial,
            line: error.line().unwrap_or(1),
            reason: reason(error),
        },
    }
}

fn reason(error: &Error) -> String {
    match error.detail() {
        Some(detail) => format!("{}: {detail}", error.kind()),
        None => error.kind().to_string(),
    }
}

/// Takes no more than [`OUTPUT_BYTES_MAX`].
struct Bounded(Vec<u8>);

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > OUTPUT_BYTES_MAX {
            return Err(io::Error::other("the document is too large"));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(kind: Kind, body: &str) -> Result<(), String> {
        let name = "test";
        check_template(Source { name, kind, body }).map_err(|error| error.to_string())
    }

    #[test]
    fn broken_templates_are_found_before_they_are_stored() {
        assert_eq!(
            check(Kind::Ipxe, "#!ipxe\nset x {{ serial }} ${net0/mac}\n"),
            Ok(())
        );
        assert_eq!(
            check(Kind::UserData, "{% for mac in macs %}{{ mac }}{% endfor %}"),
            Ok(())
        );
        assert_eq!(
            check(Kind::UserData, "{% for i in range(3) %}{{ i }}{% endfor %}"),
            Ok(())
        );
        assert_eq!(
            check(Kind::Ignition, r#"{"ignition": {"version": "3.4.0"}}"#),
            Ok(())
        );

        let error = check(Kind::Ipxe, "#!ipxe\n{% if serial %}\n").expect_err("no end");
        assert!(
            error.starts_with("boot template `test`, line 2: syntax error"),
            "{error}"
        );
        let error = check(Kind::Ipxe, "#!ipxe\n{{ serail }}").expect_err("a typing error");
        assert!(
            error.starts_with("boot template `test`, line 2: there is no variable `serail`"),
            "{error}"
        );
        let error = check(Kind::Ignition, "{\n  version\n}").expect_err("no JSON");
        assert!(error.contains("line 2 of the document"), "{error}");
    }
}
