//! Watchers: each follows the whole journal through the stream of the API, at one node and then at another, and goes on
//! where it was. A stream ends with its node, or because the watcher has had enough of it.

use super::super::site::{Seat, Site, lock};
use super::super::swarm::chance;
use super::Ledger;
use crate::checker::watch::{Leg, Watch};
use crate::client::Message;
use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use futures::StreamExt;
use rand::RngExt;
use rand::rngs::ChaCha8Rng;
use rand::seq::IndexedRandom;
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;
use tower::ServiceExt;

/// The longest that a watcher stays with a node.
const LEG_MAX: Duration = Duration::from_secs(2);

/// A watcher.
pub(in super::super) struct Watcher {
    site: Arc<Site>,
    ledger: Arc<Ledger>,
    rng: ChaCha8Rng,
    watch: Watch,
}

impl Watcher {
    pub(in super::super) fn new(site: Arc<Site>, ledger: Arc<Ledger>, number: u64) -> Self {
        Watcher {
            rng: chance(site.plan.seed, 1_000 + number),
            site,
            ledger,
            watch: Watch {
                watcher: format!("watcher {number}"),
                legs: Vec::new(),
            },
        }
    }

    /// The position that it has come to.
    fn position(&self) -> u64 {
        self.watch.legs.last().map_or(0, |leg| leg.to)
    }

    /// Follows the journal, and past what is its end once all clients are done.
    pub(in super::super) async fn run(mut self) {
        while self.ledger.end().is_none_or(|end| self.position() < end) {
            let running = self.site.running();
            match running.choose(&mut self.rng).map(|(seat, _)| seat.clone()) {
                Some(seat) => self.leg(&seat).await,
                None => tokio::time::sleep(Duration::from_millis(20)).await,
            }
            match self.rng.random_range(0..6) {
                // Another watcher, which begins where the journal does.
                0 if self.ledger.end().is_none() => self.finish(),
                // Long enough for others to have the journal compacted past it.
                1 => tokio::time::sleep(LEG_MAX / 4).await,
                _ => {}
            }
        }
        self.finish();
    }

    fn finish(&mut self) {
        let watch = Watch {
            watcher: self.watch.watcher.clone(),
            legs: std::mem::take(&mut self.watch.legs),
        };
        lock(&self.ledger.told).watches.push(watch);
    }

    async fn leg(&mut self, seat: &Arc<Seat>) {
        let Some(ports) = seat.ports() else { return };
        let patience = self.rng.random_range(Duration::from_millis(10)..=LEG_MAX);
        let position = self.position();
        let mut leg = Leg {
            call: self.watch.legs.len() as u64,
            after: position,
            to: position,
            seen: Vec::new(),
            compacted: None,
        };
        let following = seat.machine.run(follow(ports.api(), &mut leg));
        if let Ok(Some(Err(error))) = tokio::time::timeout(patience, following).await {
            self.site
                .complain(format!("a stream of n{}: {error:#}", ports.id));
        }
        self.site.world.note(|| {
            let Leg {
                after,
                to,
                seen,
                compacted,
                ..
            } = &leg;
            let (watcher, seen) = (&self.watch.watcher, seen.len());
            format!(
                "{watcher} at n{}: {seen} from {after} to {to}, compacted {compacted:?}",
                ports.id
            )
        });
        self.watch.legs.push(leg);
    }
}

/// Follows one stream to its end.
async fn follow(api: Router, leg: &mut Leg) -> anyhow::Result<()> {
    let request = Request::get(format!("/v1/events?after={}", leg.after)).body(Body::empty())?;
    let Ok(response) = api.oneshot(request).await;
    if response.status() == StatusCode::GONE {
        let body = axum::body::to_bytes(response.into_body(), usize::MAX).await?;
        leg.compact(&serde_json::from_slice(&body)?);
        return Ok(());
    }
    anyhow::ensure!(response.status().is_success(), "{}", response.status());
    let mut stream = response.into_body().into_data_stream();
    let mut pending = Vec::new();
    while let Some(chunk) = stream.next().await {
        pending.extend_from_slice(&chunk?);
        while let Some(message) = Message::take(&mut pending)? {
            match message.event.as_str() {
                "revision" => leg.seen.push((message.id.unwrap_or(0), message.data.to_string())),
                // What it missed it is told when it comes again.
                "compacted" if leg.to == leg.after => leg.compact(&message.data),
                _ => {}
            }
            leg.to = message.id.unwrap_or(leg.to);
        }
    }
    Ok(())
}

impl Leg {
    /// The node said in this problem that history does not reach back.
    fn compact(&mut self, problem: &Value) {
        let floor = problem["floor"].as_u64().unwrap_or(0);
        self.compacted = Some(floor);
        self.to = self.to.max(floor.saturating_sub(1));
    }
}
