//! All domains at once, by revision: what clients were told, against the journals of all nodes.

mod claim;

pub use claim::{Claim, Demand, Keys, Level, Query, Said};
