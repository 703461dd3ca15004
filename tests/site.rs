//! A whole site as a text: applied at once, exported, and found unchanged.

use crate::support::Cluster;
use std::path::Path;

fn example() -> String {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("examples/site")
        .to_str()
        .expect("UTF-8")
        .to_owned()
}

#[test]
fn what_is_exported_applies_unchanged() {
    let cluster = Cluster::start(3);
    let site = example();
    let planned = cluster.ok(&["plan", "-f", &site]);
    assert!(planned.contains(" 0 to update, 0 unchanged"), "{planned}");
    assert!(
        cluster.ok(&["export"]).starts_with("# 0 objects"),
        "a plan changes nothing"
    );
    let applied = cluster.ok(&["apply", "-f", &site]);
    assert!(applied.contains("applied at revision"), "{applied}");
    let again = cluster.ok(&["apply", "-f", &site]);
    assert!(again.contains("nothing to do"), "{again}");

    let exported = cluster.ok(&["export"]);
    let file = cluster.dir.path().join("exported.yaml");
    std::fs::write(&file, &exported).expect("writable");
    let unchanged = cluster.ok(&["plan", "-f", file.to_str().expect("UTF-8")]);
    assert!(unchanged.starts_with("0 to create, 0 to update, "), "{unchanged}");

    // The same text makes the same site elsewhere.
    let other = Cluster::start(1);
    other.ok(&["apply", "-f", file.to_str().expect("UTF-8")]);
    let without_revision = |text: &str| text.split_once('\n').expect("a heading").1.to_owned();
    assert_eq!(
        without_revision(&other.ok(&["export"])),
        without_revision(&exported)
    );
}

#[test]
fn a_manifest_with_one_wrong_object_changes_nothing() {
    let cluster = Cluster::start(1);
    let file = cluster.dir.path().join("site.yaml");
    let text = "kind: kv\nkey: a\nvalue: '1'\n---\nkind: machine\nserial: S1\nrack: 0\nrole: 'no role!'\n";
    std::fs::write(&file, text).expect("writable");
    let output = cluster.cli(&["apply", "-f", file.to_str().expect("UTF-8")]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("no role!"),
        "{output:?}"
    );
    assert_eq!(cluster.cli(&["kv", "get", "a"]).status.code(), Some(1));
}

#[test]
fn every_node_streams_the_same_events() {
    let cluster = Cluster::start(3);
    for number in 0..5 {
        cluster.ok(&["kv", "put", &format!("watched/{number}"), "v"]);
    }
    let journals: Vec<serde_json::Value> = cluster
        .nodes
        .iter()
        .map(|node| {
            let url = format!("{}/v1/journal?after=0", node.http);
            let page: serde_json::Value = cluster
                .http
                .get(url)
                .send()
                .expect("an answer")
                .json()
                .expect("JSON");
            // Whatever else the machinery notes, such as the feature level that it found.
            let of_the_pairs = |item: &&serde_json::Value| item["events"][0]["area"] == "kv";
            let items = page["items"].as_array().expect("items").iter();
            items.filter(of_the_pairs).cloned().collect()
        })
        .collect();
    assert_eq!(journals[0].as_array().expect("items").len(), 5);
    assert!(
        journals.iter().all(|journal| *journal == journals[0]),
        "{journals:?}"
    );
}
