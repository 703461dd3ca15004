//! What the tests of this crate have in common.

use futures::executor::block_on;
use onward_statemachine::ports::{Proposal, Proposer};
use onward_statemachine::services::catalog::{self, Id, Registration, Spec};
use onward_statemachine::testing::SingleNode;
use onward_statemachine::{Actor, Command, Outcome};
use std::net::{IpAddr, Ipv4Addr};

/// An instance at 10.0.0.1:80 with nothing else to say.
pub(crate) fn instance(service: &str, instance: &str) -> Registration {
    Registration {
        id: Id::new(service, instance),
        spec: Spec {
            address: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)),
            port: 80,
            port_name: None,
            tags: Default::default(),
            weight: 1,
            priority: 0,
            metadata: Default::default(),
            ttl_ms: None,
            deregister_after_ms: None,
        },
        expect: None,
    }
}

/// Proposes to the catalog what must be accepted.
pub(crate) fn propose(node: &SingleNode, command: catalog::Command) {
    propose_any(node, Command::Catalog(command));
}

/// Proposes what must be accepted.
pub(crate) fn propose_any(node: &SingleNode, command: Command) {
    let proposal = Proposal::new(Actor::new("test"), command);
    let outcome = block_on(node.propose(proposal, 1000)).expect("a single node always has an outcome");
    assert!(matches!(outcome, Outcome::Accepted { .. }), "{outcome:?}");
}
