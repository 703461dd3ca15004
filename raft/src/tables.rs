//! The tables of the state, files that never change: given their checksums for snapshots as they come.
//!
//! All nodes take a snapshot at the same revision. If each then read all that is new, writes, which share the disk, would
//! be held up everywhere at once.

use crate::engine::Engine;
use crate::runtime::blocking;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// How often they are looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Between two pieces of one that is read.
const REST: Duration = Duration::from_millis(4);

impl Engine {
    /// Lists them with their checksums as they come, and then keeps the journal's out of the page cache; until the engine
    /// stops.
    pub(crate) async fn keep_tables_listed(self: Arc<Self>) {
        let work = async {
            let mut seen = None;
            loop {
                tokio::time::sleep(LOOK_INTERVAL).await;
                let engine = self.clone();
                let version = blocking(move || engine.state.tables_version()).await.ok();
                if seen != version {
                    seen = version;
                    // One that a compaction took away meanwhile ends it: there is another version then.
                    if let Err(error) = self.list_tables().await {
                        tracing::debug!(%error, "some tables are not listed with their checksums yet");
                    }
                }
            }
        };
        self.closing.run_until_cancelled(work).await;
    }

    /// All that are not listed yet, at a pace.
    async fn list_tables(self: &Arc<Self>) -> io::Result<()> {
        loop {
            let engine = self.clone();
            let Some((generation, mut listing)) = blocking(move || engine.state.unlisted()).await?? else {
                break;
            };
            let mut more = true;
            while more {
                tokio::time::sleep(REST).await;
                let piece = move || listing.read_on().map(|more| (more, listing));
                (more, listing) = blocking(piece).await??;
            }
            let engine = self.clone();
            blocking(move || engine.state.list(generation, listing)).await??;
        }
        let engine = self.clone();
        blocking(move || engine.state.uncache_journal()).await?
    }
}
