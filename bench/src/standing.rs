//! Nodes that are not under load: how soon one is back, and what it costs at rest.

use crate::client::Client;
use crate::fill::{self, Bulk};
use crate::load;
use crate::machine;
use crate::system::{Kind, Programs, System};
use crate::values::{Values, stored_key};
use anyhow::Result;
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::time::{Duration, Instant};

/// How long a cluster settles before it counts as at rest.
const SETTLE: Duration = Duration::from_secs(3);

/// A cluster at rest.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Idle {
    /// Who it was.
    pub kind: Kind,
    /// CPU of each node, in thousandths of one core.
    pub permille: Vec<u64>,
    /// Memory of each node.
    pub resident_mib: Vec<u64>,
}

/// One restart.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Restart {
    /// How many keys the node held.
    pub keys: u64,
    /// What stopped it before.
    pub stopped_by: String,
    /// From the start of the process until linearizable reads were answered, in ms.
    pub ready_after_ms: u64,
    /// Its memory then.
    pub resident_mib: u64,
}

/// Watches a cluster that nobody uses.
pub async fn rest(system: &System, time: Duration) -> Result<Idle> {
    tokio::time::sleep(SETTLE).await;
    let cpu_of_each =
        || -> Result<Vec<Duration>> { system.pids.iter().map(|pid| machine::cpu_time(&[*pid])).collect() };
    let before = cpu_of_each()?;
    tokio::time::sleep(time).await;
    let permille = before
        .iter()
        .zip(cpu_of_each()?)
        .map(|(before, after)| ((after - *before).as_micros() * 1000 / time.as_micros()) as u64)
        .collect();
    Ok(Idle {
        kind: system.kind,
        permille,
        resident_mib: machine::resident_mib(&system.pids)?,
    })
}

/// Fills one node with keys, and starts it again after a stop and after a kill.
pub async fn restarts(programs: &Programs, dir: &Path, keys: u64) -> Result<Vec<Restart>> {
    let system = System::start(Kind::Onward, 1, programs, dir).await?;
    crate::progress(format_args!("restart: loading {keys} keys"));
    let values = Values::new(load::VALUE_BYTES);
    fill::store(&system, 0..keys, &values, Bulk::default()).await?;
    drop(system);
    let mut restarts = Vec::new();
    for stopped_by in ["SIGTERM", "SIGKILL"] {
        let started = Instant::now();
        let system = System::start(Kind::Onward, 1, programs, dir).await?;
        let mut client = Client::connect(Kind::Onward, system.endpoints[0]).await?;
        for key in [0, keys / 2, keys - 1] {
            client.get(&stored_key(key)).await?;
        }
        let ready_after = started.elapsed();
        crate::progress(format_args!("restart after {stopped_by}: {ready_after:?}"));
        restarts.push(Restart {
            keys,
            stopped_by: stopped_by.to_owned(),
            ready_after_ms: ready_after.as_millis() as u64,
            resident_mib: machine::resident_mib(&system.pids)?.iter().sum(),
        });
        system.kill()?;
    }
    Ok(restarts)
}
