//! The configuration file of a node.

use crate::net::{Addresses, Network};
use std::fmt::Write;
use std::path::Path;

/// The name of every cluster under test.
const CLUSTER: &str = "jepsen";
/// So small that a pause of seconds makes a snapshot necessary; fewer are not taken.
const SNAPSHOT_ENTRIES: u64 = 100;
const SNAPSHOT_KEEP_ENTRIES: u64 = 10;

/// How a node comes to be a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Membership {
    /// It forms the cluster together with the others.
    Initial,
    /// It joins through this peer address.
    Joins {
        /// Any member.
        through: String,
        /// The id in the cluster of the member whose place it takes, if it takes one.
        replaces: Option<u64>,
    },
}

/// The text of `onward.toml`. `snapshots`: the log is compacted all the time.
pub(super) fn text(
    network: &Network,
    nodes: u64,
    node: u64,
    data: &Path,
    membership: &Membership,
    snapshots: bool,
) -> String {
    let Addresses {
        http,
        peer,
        front,
        dns,
        ingress,
    } = network.addresses(node);
    let mut text = String::new();
    let mut line = |line: std::fmt::Arguments<'_>| {
        writeln!(text, "{line}").expect("a string takes all");
    };
    line(format_args!("cluster = {CLUSTER:?}"));
    line(format_args!("data_dir = {:?}", data.display().to_string()));
    match membership {
        Membership::Initial => line(format_args!("node_id = {node}")),
        Membership::Joins { through, replaces } => {
            line(format_args!("join = {through:?}"));
            if let Some(gone) = replaces {
                line(format_args!("replaces = {gone}"));
            }
        }
    }
    line(format_args!("[http]\nlisten = \"{http}\""));
    line(format_args!(
        "[peer]\nlisten = \"{peer}\"\nadvertise = \"{front}\""
    ));
    if snapshots {
        line(format_args!("snapshot_entries = {SNAPSHOT_ENTRIES}"));
        line(format_args!("snapshot_keep_entries = {SNAPSHOT_KEEP_ENTRIES}"));
    }
    line(format_args!("[dns]\nlisten = \"{dns}\""));
    line(format_args!("[ingress]\nlisten = \"{ingress}\""));
    if *membership == Membership::Initial {
        for member in 1..=nodes {
            let Addresses { front, http, .. } = network.addresses(member);
            line(format_args!(
                "[[members]]\nid = {member}\npeer = \"{front}\"\nhttp = \"http://{http}\""
            ));
        }
    }
    text
}
