//! Deployments: which application runs where, and how it came to.

pub mod apps;
pub mod builds;
pub mod instances;
pub mod releases;
