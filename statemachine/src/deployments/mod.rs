//! Deployments: which application runs where, and how it came to.
//!
//! An [app](apps) is declared; a [rollout](instances) fetches its source, has a [build](builds) made, cuts an immutable
//! [release](releases) from it and replaces the running [instance](instances). Appliers do the work and report each
//! step; nothing here touches a process.
//!
//! Owns one row of its own: the revision of the last change in the domain, by which appliers and the ingress on every
//! node tell cheaply whether there is anything to look at.

pub mod apps;
pub mod builds;
pub mod instances;
pub mod releases;

use crate::command::Context;
use crate::dump::Describe;
use crate::ids::Revision;
use crate::keys;
use crate::store::{Fault, View};
use crate::table::Table;
use crate::txn::Txn;

const CHANGED: Table<(), Revision> = Table::new(keys::DEPLOYMENTS_CHANGED, "deployments changed");
pub(crate) const TABLES: &[&dyn Describe] = &[&CHANGED];

/// The revision of the last change to anything in this domain; 0 before the first.
pub fn changed(view: &dyn View) -> Result<Revision, Fault> {
    Ok(CHANGED.get(view, &())?.unwrap_or_default())
}

/// Notes that something in this domain changes at this revision.
fn touch(txn: &mut Txn<'_>, ctx: &Context) {
    CHANGED.put(txn, &(), &ctx.revision);
}

/// A counting number of some kind of row of an app, from 1.
macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
        )]
        pub struct $name(pub u64);

        impl $name {
            /// The one after this.
            pub fn next(self) -> Self {
                $name(self.0 + 1)
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }

        impl crate::keys::Key for $name {
            fn encode(&self, out: &mut Vec<u8>) {
                self.0.encode(out);
            }
            fn decode(bytes: &mut &[u8]) -> Result<Self, crate::store::Fault> {
                Ok($name(u64::decode(bytes)?))
            }
            fn text(&self) -> String {
                self.to_string()
            }
        }
    };
}
use number;
