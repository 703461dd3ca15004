//! Nodes that are not under load: how soon one is back, and what it costs at rest.

use crate::client::Client;
use crate::load;
use crate::machine;
use crate::system::{Kind, Programs, System};
use anyhow::{Result, ensure};
use bytes::Bytes;
use hyper::Method;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// How many puts one transaction of the bulk load holds.
const PUTS_PER_TXN: u64 = 500;
/// How many clients load in bulk.
const LOADERS: u64 = 8;
/// How long a cluster settles before it counts as at rest.
const SETTLE: Duration = Duration::from_secs(3);

/// A cluster at rest.
#[derive(Debug)]
pub struct Idle {
    /// Who it was.
    pub kind: Kind,
    /// CPU of each node, in thousandths of one core.
    pub permille: Vec<u64>,
    /// Memory of each node.
    pub resident_mib: Vec<u64>,
}

/// One restart.
#[derive(Debug)]
pub struct Restart {
    /// How many keys the node held.
    pub keys: u64,
    /// What stopped it before.
    pub stopped_by: &'static str,
    /// From the start of the process until linearizable reads were answered.
    pub ready_after: Duration,
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
    fill(system.endpoints[0], keys).await?;
    drop(system);
    let mut restarts = Vec::new();
    for stopped_by in ["SIGTERM", "SIGKILL"] {
        let started = Instant::now();
        let system = System::start(Kind::Onward, 1, programs, dir).await?;
        let mut client = Client::connect(Kind::Onward, system.endpoints[0]).await?;
        for key in [0, keys / 2, keys - 1] {
            let path = format!("/v1/kv/{}", key_name(key));
            client
                .send(Method::GET, &path, "application/json", Bytes::new())
                .await?;
        }
        let ready_after = started.elapsed();
        crate::progress(format_args!("restart after {stopped_by}: {ready_after:?}"));
        restarts.push(Restart {
            keys,
            stopped_by,
            ready_after,
            resident_mib: machine::resident_mib(&system.pids)?.iter().sum(),
        });
        system.kill()?;
    }
    Ok(restarts)
}

fn key_name(key: u64) -> String {
    format!("restart-{key:09}")
}

/// Puts all keys, in transactions, over a few connections.
async fn fill(address: SocketAddr, keys: u64) -> Result<()> {
    ensure!(
        keys.is_multiple_of(PUTS_PER_TXN),
        "the keys fill whole transactions"
    );
    let mut tasks = JoinSet::new();
    for loader in 0..LOADERS {
        tasks.spawn(async move {
            let mut client = Client::connect(Kind::Onward, address).await?;
            let value = load::value();
            for txn in (loader..keys / PUTS_PER_TXN).step_by(usize::try_from(LOADERS)?) {
                let puts = txn * PUTS_PER_TXN..(txn + 1) * PUTS_PER_TXN;
                client
                    .send(
                        Method::POST,
                        "/v1/kv/txn",
                        "application/json",
                        txn_body(puts, &value),
                    )
                    .await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(())
}

fn txn_body(keys: std::ops::Range<u64>, value: &Bytes) -> Bytes {
    let value = String::from_utf8_lossy(value);
    let puts: Vec<serde_json::Value> = keys
        .map(|key| serde_json::json!({ "put": { "key": key_name(key), "value": value } }))
        .collect();
    Bytes::from(serde_json::json!({ "then": puts }).to_string())
}
