//! Stores many pairs, in transactions, over a few connections.

use crate::client::Client;
use crate::system::System;
use crate::values::{Values, stored_key};
use anyhow::Result;
use std::ops::Range;
use tokio::task::JoinSet;

/// How many puts a transaction of a bulk load holds; etcd takes 128.
pub const BULK_PUTS: u64 = 100;

/// How a load in bulk goes about it.
#[derive(Debug, Clone, Copy)]
pub struct Bulk {
    /// How many puts each transaction holds.
    pub puts: u64,
    /// How many clients load.
    pub loaders: u64,
}

impl Default for Bulk {
    fn default() -> Self {
        Bulk {
            puts: BULK_PUTS,
            loaders: 16,
        }
    }
}

/// Puts the pairs with these numbers.
pub async fn store(system: &System, numbers: Range<u64>, values: &Values, bulk: Bulk) -> Result<()> {
    let mut loaders = JoinSet::new();
    for loader in 0..bulk.loaders {
        let place = usize::try_from(loader)? % system.endpoints.len();
        let mut client = Client::connect(system.kind, system.endpoints[place]).await?;
        let (values, numbers) = (values.clone(), numbers.clone());
        loaders.spawn(async move {
            let first = numbers.start + loader * bulk.puts;
            let step = usize::try_from(bulk.loaders * bulk.puts)?;
            for begin in (first..numbers.end).step_by(step) {
                let end = numbers.end.min(begin + bulk.puts);
                let pairs: Vec<_> = (begin..end)
                    .map(|number| (stored_key(number), values.of(number)))
                    .collect();
                client.put_all(&pairs).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(done) = loaders.join_next().await {
        done??;
    }
    Ok(())
}
