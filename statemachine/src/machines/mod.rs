//! Machines: which hardware exists, where its addresses come from, and what it boots.

pub mod ipam;
pub mod netboot;
pub mod registry;
