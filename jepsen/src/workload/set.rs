//! A set that only grows: every element is a key of its own, put where it does not exist yet.

use super::{Demand, Evidence, Script, Seat, Workload, asked, no_setup};
use crate::client::{Answer, Client, Level};
use crate::verdict::Verdict;
use futures::future::BoxFuture;
use rand::RngExt;
use rand::rngs::ChaCha8Rng;
use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

/// See the module.
pub(super) struct Set;

/// How many elements each client adds to a set before all go on to the next, so that reads stay short.
const ADDS_PER_CLIENT: u64 = 50;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Asked {
    set: u64,
    /// What to add; a read has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    add: Option<u64>,
}

impl Workload for Set {
    fn name(&self) -> &'static str {
        "set"
    }

    fn kinds(&self) -> &'static [&'static str] {
        &["add", "read"]
    }

    fn setup<'a>(&'a self, _client: &'a mut Client) -> BoxFuture<'a, anyhow::Result<()>> {
        no_setup()
    }

    fn script(&self, seat: Seat) -> Box<dyn Script> {
        Box::new(Adding {
            rng: seat.rng(),
            client: seat.client,
            added: 0,
        })
    }

    fn judge(&self, _evidence: &Evidence<'_>) -> anyhow::Result<Vec<Verdict>> {
        Ok(Vec::new())
    }
}

struct Adding {
    rng: ChaCha8Rng,
    client: u64,
    added: u64,
}

impl Script for Adding {
    fn next(&mut self) -> Demand {
        let set = self.added / ADDS_PER_CLIENT;
        if self.rng.random_bool(0.15) {
            return Demand::read("read", json!(Asked { set, add: None }));
        }
        self.added += 1;
        let add = Some(self.client * 1_000_000 + self.added);
        Demand::write("add", json!(Asked { set, add }))
    }

    fn invoke<'a>(
        &'a self,
        client: &'a mut Client,
        demand: &'a Demand,
        command: Uuid,
    ) -> BoxFuture<'a, Answer> {
        Box::pin(async move {
            let Asked { set, add } = asked(demand);
            let Some(element) = add else {
                let request = client.get("/v1/kv", Level::Linearizable);
                let request = request.query("prefix", &format!("set/{set}/"));
                return request.query("limit", &5000).send().await.map(elements);
            };
            let request = client.write(Method::PUT, &format!("/v1/kv/set/{set}/{element}"), command);
            let request = request.json(&json!({"value": element.to_string()})).if_match(0);
            request.send().await.map(|_| Value::Null)
        })
    }

    fn learn(&mut self, _demand: &Demand, _answer: &Answer) {}
}

/// The elements of a page, in order.
fn elements(page: &Value) -> Value {
    let items = page["items"].as_array().map_or(&[][..], Vec::as_slice);
    let elements = items
        .iter()
        .filter_map(|pair| pair["value"].as_str()?.parse::<u64>().ok());
    let mut elements: Vec<u64> = elements.collect();
    elements.sort_unstable();
    json!(elements)
}
