use crate::dump::Describe;
use crate::ids::{Generation, Revision};
use crate::keys;
use crate::machines::registry::Selector;
use crate::table::Table;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// The largest body, in bytes.
pub const BODY_BYTES_MAX: usize = 256 << 10;
/// The most templates.
pub const TEMPLATES_MAX: usize = 1024;

/// The document that a template makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// An iPXE script.
    Ipxe,
    /// An Ignition configuration: JSON.
    Ignition,
    /// The user-data of cloud-init's NoCloud source.
    UserData,
    /// The meta-data of cloud-init's NoCloud source.
    MetaData,
    /// The network-config of cloud-init's NoCloud source.
    NetworkConfig,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 5] = [
        Kind::Ipxe,
        Kind::Ignition,
        Kind::UserData,
        Kind::MetaData,
        Kind::NetworkConfig,
    ];

    /// The name that people write.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Ipxe => "ipxe",
            Kind::Ignition => "ignition",
            Kind::UserData => "user-data",
            Kind::MetaData => "meta-data",
            Kind::NetworkConfig => "network-config",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a text is not a kind of template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is not a kind of boot template: it is one of ipxe, ignition, user-data, meta-data, network-config"
)]
pub struct KindError {
    /// What was given, cut where it is long.
    pub text: String,
}

impl FromStr for Kind {
    type Err = KindError;
    fn from_str(text: &str) -> Result<Self, KindError> {
        let found = Kind::ALL.into_iter().find(|kind| kind.name() == text);
        found.ok_or_else(|| KindError {
            text: text.chars().take(32).collect(),
        })
    }
}

/// A boot template without its body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Template {
    /// A DNS label.
    pub name: String,
    /// What it makes.
    pub kind: Kind,
    /// For which machines.
    pub selector: Selector,
    /// The highest wins where several choose a machine.
    pub priority: i32,
    /// The size of its body, in bytes.
    pub body_bytes: u64,
    /// How often it was changed, from 1.
    pub generation: Generation,
    /// When it came into being.
    pub created: Revision,
    /// When it was last changed.
    pub modified: Revision,
}

pub(super) const TEMPLATES: Table<String, Template> = Table::new(keys::BOOT_TEMPLATES, "boot_templates");
pub(super) const BODIES: Table<String, String> =
    Table::new(keys::BOOT_TEMPLATE_BODIES, "boot_template_bodies");

/// This area's tables.
pub(crate) const TABLES: &[&dyn Describe] = &[&TEMPLATES, &BODIES];
