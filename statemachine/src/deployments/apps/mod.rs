//! Apps.

use crate::command::{Context, Decision};
use crate::store::{Fault, View};
use crate::txn::Txn;
use serde::{Deserialize, Serialize};

/// Demands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {}
/// Facts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {}
/// Why not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {}
/// Answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {}

/// Decides.
pub fn decide(_view: &dyn View, _ctx: &Context, command: &Command) -> Decision<Event, Refusal> {
    match *command {}
}

pub(crate) fn evolve(_txn: &mut Txn<'_>, _ctx: &Context, event: &Event) -> Result<(), Fault> {
    match *event {}
}
