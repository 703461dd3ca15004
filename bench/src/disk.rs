//! What a sync costs: of files that grow, that are allocated, and that were written before; and of the log of a node.
//!
//! A sync of a file that grew has the file system write down its new length, too, and waits for whatever else is in that
//! transaction. One whose blocks were written before needs none of that, which is why the log recycles its files.

use crate::load::{self, Keys, Load, Summary, Work};
use crate::system::{Kind, Programs, System};
use anyhow::Result;
use nix::fcntl::{FallocateFlags, fallocate};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// How much is written before each sync.
const PAGE_BYTES: usize = 4096;
/// How many syncs of each kind make a turn; the kinds take turns.
const TURN: usize = 250;
/// What another process writes meanwhile, between two syncs of its own.
const OTHERS_BYTES: usize = 256 << 10;

/// The disk, and what a node makes of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Disk {
    /// Syncs of files.
    pub syncs: Vec<Syncs>,
    /// The log of one node of ours under load.
    pub logs: Vec<NodeLog>,
}

impl Disk {
    /// Syncs of files that were written before, each beside those of a file that grows, in the same company.
    pub fn recycled_beside_growing(&self) -> impl Iterator<Item = (&Syncs, &Syncs)> {
        let of = |layout: Layout| self.syncs.iter().filter(move |syncs| syncs.file == layout.name());
        of(Layout::WrittenBefore).filter_map(move |recycled| {
            let growing = of(Layout::Growing).find(|growing| growing.others_write == recycled.others_write);
            Some((recycled, growing?))
        })
    }
}

/// Syncs of one kind of file.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Syncs {
    /// Which file.
    pub file: String,
    /// Whether somebody else wrote to the same disk and synced.
    pub others_write: bool,
    /// Half of them took less, in microseconds.
    pub p50_us: u64,
    /// 99 % took less.
    pub p99_us: u64,
    /// 99.9 % took less.
    pub p999_us: u64,
}

/// The log of a node under a load.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NodeLog {
    /// How many clients put.
    pub clients: usize,
    /// What came of it.
    pub load: Summary,
}

/// A file and the order in which it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layout {
    Growing,
    Allocated,
    WrittenBefore,
}

impl Layout {
    const ALL: [Layout; 3] = [Layout::Growing, Layout::Allocated, Layout::WrittenBefore];

    fn name(self) -> &'static str {
        match self {
            Layout::Growing => "grows with each write",
            Layout::Allocated => "allocated in full, not written yet",
            Layout::WrittenBefore => "written before, and written over",
        }
    }
}

/// Measures so many syncs of each file, alone and beside another writer, and then one node, for so long each.
pub async fn measure(programs: &Programs, dir: &Path, syncs: usize, measured: Duration) -> Result<Disk> {
    std::fs::create_dir_all(dir)?;
    let mut found = Vec::new();
    for others_write in [false, true] {
        let dir = dir.to_owned();
        let rows = tokio::task::spawn_blocking(move || time_syncs(&dir, syncs, others_write));
        found.extend(rows.await??);
    }
    let system = System::start(Kind::Onward, 1, programs, &dir.join("node")).await?;
    let mut logs = Vec::new();
    for clients in [1, 64] {
        let load = Load {
            work: Work::Put,
            clients,
            value_bytes: load::VALUE_BYTES,
            keys: Keys::New(0),
            warm_up: measured / 4,
            measured,
        };
        let load = load::run(&system, load).await?.summary();
        logs.push(NodeLog { clients, load });
    }
    Ok(Disk { syncs: found, logs })
}

fn time_syncs(dir: &Path, syncs: usize, others_write: bool) -> Result<Vec<Syncs>> {
    let page = [7_u8; PAGE_BYTES];
    let mut files = Vec::new();
    for layout in Layout::ALL {
        let file = tempfile::tempfile_in(dir)?;
        let length = syncs * PAGE_BYTES;
        match layout {
            Layout::Growing => {}
            Layout::Allocated => fallocate(&file, FallocateFlags::empty(), 0, i64::try_from(length)?)?,
            Layout::WrittenBefore => file.write_all_at(&vec![1; length], 0)?,
        }
        file.sync_all()?;
        files.push((layout, file, Vec::with_capacity(syncs)));
    }
    let stop = AtomicBool::new(!others_write);
    std::thread::scope(|scope| -> Result<()> {
        let others = scope.spawn(|| write_until(dir, &stop));
        let timed = (|| {
            for first in (0..syncs).step_by(TURN) {
                for (_, file, times) in &mut files {
                    for place in first..syncs.min(first + TURN) {
                        let started = Instant::now();
                        file.write_all_at(&page, (place * PAGE_BYTES) as u64)?;
                        file.sync_data()?;
                        times.push(started.elapsed().as_micros() as u64);
                    }
                }
            }
            Ok(())
        })();
        stop.store(true, Relaxed);
        others.join().expect("it has nothing to panic about")?;
        timed
    })?;
    let rows = files.into_iter().map(|(layout, _, mut times)| {
        times.sort_unstable();
        let under = |thousandths: usize| times.get(times.len() * thousandths / 1000).copied().unwrap_or(0);
        Syncs {
            file: layout.name().to_owned(),
            others_write,
            p50_us: under(500),
            p99_us: under(990),
            p999_us: under(999),
        }
    });
    Ok(rows.collect())
}

/// Writes to a file that grows, and syncs it, over and over.
fn write_until(dir: &Path, stop: &AtomicBool) -> Result<()> {
    let file: File = tempfile::tempfile_in(dir)?;
    let bytes = vec![9; OTHERS_BYTES];
    let mut place = 0;
    while !stop.load(Relaxed) {
        file.write_all_at(&bytes, place)?;
        file.sync_data()?;
        place += OTHERS_BYTES as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_file_is_timed_alone_and_beside_others() {
        let dir = tempfile::tempdir().expect("a directory");
        for others_write in [false, true] {
            let rows = time_syncs(dir.path(), 20, others_write).expect("it syncs");
            assert_eq!(rows.len(), Layout::ALL.len());
            for row in rows {
                assert_eq!(row.others_write, others_write);
                assert!(
                    row.p50_us > 0 && row.p50_us <= row.p99_us && row.p99_us <= row.p999_us,
                    "{row:?}"
                );
            }
        }
    }
}
