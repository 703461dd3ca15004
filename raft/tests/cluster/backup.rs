//! A backup whose reader is slow.

use super::site::*;
use onward_raft::Node;
use onward_statemachine::backup::{Damage, Reader, Summary};
use std::time::Duration;

/// Takes a backup with so much patience, and does not ask for anything for a while after the first piece.
async fn hesitate(node: &Node, patience_ms: u64) -> Result<Summary, Damage> {
    let mut backup = node.backups().take(patience_ms).await.expect("begins");
    let mut reader = Reader::new();
    let mut hesitated = false;
    while let Some(piece) = backup.pieces.next().await {
        reader.feed(&piece.expect("is read"));
        while reader.next_part()?.is_some() {}
        if !std::mem::replace(&mut hesitated, true) {
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }
    reader.finish()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_reader_is_waited_for_as_long_as_it_says() {
    let mut site = Site::new(1);
    let node = site.start(0).await;
    for number in 0..12 {
        write(&node, &number.to_string(), &"x".repeat(256 << 10)).await;
    }
    let streamed = || count(&node, "onward_raft_backups_streamed_total");
    assert_eq!(streamed(), Some(0));
    let cut = hesitate(&node, 50).await;
    assert!(cut.is_err(), "{cut:?}");
    assert_eq!(streamed(), Some(0), "it was given up");
    let whole = hesitate(&node, 60_000).await.expect("a whole one");
    assert!(whole.bytes > 3 << 20, "{whole:?}");
    assert_eq!(streamed(), Some(1));
    node.shutdown().await;
}
