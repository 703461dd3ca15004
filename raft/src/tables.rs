//! The tables of the state, files that never change: given their checksums for snapshots before one is taken.
//!
//! All nodes take a snapshot at the same revision. If each then read all that is new, writes, which share the disk, would
//! be held up everywhere at once.

use crate::engine::Engine;
use crate::runtime::blocking;
use std::collections::BTreeSet;
use std::io;
use std::mem;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How often they are looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// What is there for so long is read. A compaction takes many away before.
const SETTLING: Duration = Duration::from_secs(10);
/// Between two pieces of one that is read.
const REST: Duration = Duration::from_millis(4);

impl Engine {
    /// Lists them with their checksums, those of the journal as they come, and keeps the journal's out of the page cache;
    /// until the engine stops.
    pub(crate) async fn keep_tables_listed(self: Arc<Self>) {
        let work = async {
            let mut seen = None;
            let (mut settled, mut young) = (Arc::default(), BTreeSet::new());
            let mut since = Instant::now();
            loop {
                tokio::time::sleep(LOOK_INTERVAL).await;
                let engine = self.clone();
                let version = blocking(move || engine.state.tables_version()).await.ok();
                let mut changed = mem::replace(&mut seen, version) != seen;
                if since.elapsed() >= SETTLING {
                    since = Instant::now();
                    let engine = self.clone();
                    if let Ok(Ok(tables)) = blocking(move || engine.state.tables()).await {
                        let now = Arc::new(mem::replace(&mut young, tables));
                        changed |= mem::replace(&mut settled, now) != settled;
                    }
                }
                if changed && let Err(error) = self.list_tables(&settled).await {
                    // One that a compaction took away meanwhile: there is another version then.
                    tracing::debug!(%error, "some tables are not listed with their checksums yet");
                }
            }
        };
        self.closing.run_until_cancelled(work).await;
    }

    /// All that are due and not listed yet, at a pace.
    async fn list_tables(self: &Arc<Self>, settled: &Arc<BTreeSet<String>>) -> io::Result<()> {
        loop {
            let (engine, settled) = (self.clone(), settled.clone());
            let Some((generation, mut listing)) = blocking(move || engine.state.unlisted(&settled)).await??
            else {
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
