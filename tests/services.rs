//! Names: the catalog through the API, resolved by a peer's client on every node.

use crate::support::{Cluster, Node, eventually};
use std::process::Command;

/// What `dig` says, short form, one line an answer.
fn dig(node: &Node, arguments: &[&str]) -> Vec<String> {
    let (host, port) = node.dns.rsplit_once(':').expect("host:port");
    let output = Command::new("dig")
        .arg(format!("@{host}"))
        .args(["-p", port, "+time=5", "+tries=1"])
        .args(arguments)
        .output()
        .expect("dig is installed by `make test`");
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(str::to_owned)
        .collect()
}

#[test]
fn a_registered_service_resolves_on_every_node() {
    let cluster = Cluster::start(3);
    cluster.ok(&[
        "service",
        "register",
        "web",
        "web-1",
        "--address",
        "192.0.2.10",
        "--port",
        "8080",
    ]);
    cluster.ok(&[
        "service",
        "register",
        "web",
        "web-2",
        "--address",
        "192.0.2.11",
        "--port",
        "8080",
    ]);
    for node in &cluster.nodes {
        eventually("both addresses are answered", || {
            let mut found = dig(node, &["+short", "web.svc.onward.internal", "A"]);
            found.sort();
            found == ["192.0.2.10", "192.0.2.11"]
        });
        let tcp = dig(
            node,
            &["+short", "+tcp", "_8080._tcp.web.svc.onward.internal", "SRV"],
        );
        assert_eq!(tcp.len(), 2, "{tcp:?}");
        assert!(tcp.iter().all(|line| line.contains(" 8080 web-")), "{tcp:?}");
        let missing = dig(node, &["nothing.svc.onward.internal", "A"]);
        assert!(
            missing.iter().any(|line| line.contains("status: NXDOMAIN")),
            "{missing:?}"
        );
        assert!(missing.iter().any(|line| line.contains("SOA")), "{missing:?}");
        let no_data = dig(node, &["web.svc.onward.internal", "AAAA"]);
        assert!(
            no_data.iter().any(|line| line.contains("status: NOERROR")),
            "{no_data:?}"
        );
        assert!(
            no_data.iter().any(|line| line.contains("ANSWER: 0")),
            "{no_data:?}"
        );
    }
    cluster.ok(&["service", "deregister", "web", "web-1"]);
    for node in &cluster.nodes {
        eventually("the removed address is gone", || {
            dig(node, &["+short", "web.svc.onward.internal", "A"]) == ["192.0.2.11"]
        });
    }
}

#[test]
fn what_does_not_renew_is_no_longer_answered() {
    let cluster = Cluster::start(1);
    cluster.ok(&[
        "service",
        "register",
        "job",
        "j",
        "--address",
        "192.0.2.20",
        "--port",
        "1",
        "--ttl",
        "2s",
    ]);
    let node = &cluster.nodes[0];
    eventually("it resolves while it lives", || {
        !dig(node, &["+short", "job.svc.onward.internal", "A"]).is_empty()
    });
    eventually("it does not once its time has passed", || {
        dig(node, &["+short", "job.svc.onward.internal", "A"]).is_empty()
    });
    cluster.ok(&["service", "renew", "job", "j"]);
    eventually("it does again when it renews", || {
        !dig(node, &["+short", "job.svc.onward.internal", "A"]).is_empty()
    });
}
