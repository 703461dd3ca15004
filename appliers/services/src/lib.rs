//! Rolls services onto names: [`dns`] answers them from the local replica on every node, and [`expiry`] lets the
//! instances go that stopped renewing.
//!
//! Nothing here holds state that matters: kill it anywhere, and it goes on from the replica.

pub mod dns;
pub mod expiry;
#[cfg(test)]
mod fixture;
