//! Backups: the bytes of the route, and what the client makes of them.

use super::Site;
use http_body_util::BodyExt;
use onward_statemachine::backup::{Part, Reader};
use onward_statemachine::services::kv;
use onward_statemachine::{MemoryStore, hash};
use std::collections::BTreeMap;

#[tokio::test]
async fn a_backup_is_the_state_at_its_revision() {
    let site = Site::new();
    for number in 0..50 {
        site.put(&format!("k{number}"), "v").await;
    }
    let response = site.raw("GET", "/v1/cluster/backup", &[], "").await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "application/octet-stream");
    let revision = response.headers()["onward-revision"].clone();
    let bytes = response.into_body().collect().await.expect("a body").to_bytes();
    let mut reader = Reader::new();
    reader.feed(&bytes);
    let (mut store, mut parts) = (MemoryStore::default(), 0);
    while let Some(part) = reader.next_part().expect("undamaged") {
        parts += 1;
        if let Part::Rows(rows) = part {
            let changes: BTreeMap<_, _> = rows.into_iter().map(|(key, value)| (key, Some(value))).collect();
            store.write(changes);
        }
    }
    assert!(parts >= 3, "a header, rows, a trailer");
    let summary = reader.finish().expect("whole");
    assert_eq!(revision, summary.header.revision.to_string());
    let hash = hash::state_hash(&store).expect("a sound state");
    assert_eq!(summary.trailer.state_hash, format!("{hash:016x}"));
    let pair = kv::get(&store, &kv::Key(b"k7".to_vec())).expect("decodes");
    assert_eq!(pair.expect("it was put").value, b"v");
    let refused = site.get("/v1/cluster/backup?node=2").await;
    refused.problem(400, "query_invalid", &["node"]);
}
