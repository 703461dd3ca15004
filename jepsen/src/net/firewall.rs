//! What one node no longer hears: rules at the entrance of its namespace, by sender.
//!
//! Rules drop packets that came over the wire, so a connection under way hangs and a new one is never answered, as
//! behind a cable that was cut. A cut is one-way: its other direction is a rule of the other node.

use super::place::Place;
use anyhow::Context;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::Ipv4Addr;

/// The rules of one node, and how much they have dropped.
#[derive(Debug, Default)]
pub(super) struct Firewall {
    /// By sender, what is dropped of what it sends.
    rules: BTreeMap<u64, Rule>,
    /// By sender, what rules that are gone had dropped.
    dropped: BTreeMap<u64, u64>,
}

/// What is dropped. A cut and a loss are taken back one by one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Rule {
    /// Everything, if there is a reason; each is taken back by itself.
    pub(super) cuts: u8,
    /// So many of a hundred packets.
    pub(super) loss: u8,
}

impl Firewall {
    /// Changes what is dropped of what `sender` sends.
    pub(super) async fn set(
        &mut self,
        place: &Place,
        addresses: &BTreeMap<u64, Ipv4Addr>,
        sender: u64,
        change: impl FnOnce(&mut Rule),
    ) -> anyhow::Result<()> {
        let rule = self.rules.entry(sender).or_default();
        let before = *rule;
        change(rule);
        if *rule == before {
            return Ok(());
        }
        self.apply(place, addresses).await
    }

    /// Takes all rules back.
    pub(super) async fn clear(&mut self, place: &Place) -> anyhow::Result<()> {
        self.rules.clear();
        self.apply(place, &BTreeMap::new()).await
    }

    /// How many packets of `sender` were dropped so far.
    pub(super) async fn dropped(&self, place: &Place, sender: u64) -> anyhow::Result<u64> {
        let before = self.dropped.get(&sender).copied().unwrap_or(0);
        let now = counters(place).await?.get(&sender).copied().unwrap_or(0);
        Ok(before + now)
    }

    async fn apply(&mut self, place: &Place, addresses: &BTreeMap<u64, Ipv4Addr>) -> anyhow::Result<()> {
        for (sender, packets) in counters(place).await? {
            *self.dropped.entry(sender).or_default() += packets;
        }
        let script = script(&self.rules, addresses);
        place
            .command("nft", &["-f", "-"], &script)
            .await
            .map(drop)
            .context("the rules of a node could not be set")
    }
}

/// The whole table, replaced in one step.
fn script(rules: &BTreeMap<u64, Rule>, addresses: &BTreeMap<u64, Ipv4Addr>) -> String {
    let mut counters = String::new();
    let mut drops = String::new();
    for (sender, rule) in rules {
        let sample = match rule {
            Rule { cuts: 1.., .. } => String::new(),
            Rule { loss: 0, .. } => continue,
            Rule { loss, .. } => format!("numgen random mod 100 < {loss} "),
        };
        let address = addresses[sender];
        writeln!(counters, "counter from{sender} {{}}").expect("a string takes all");
        writeln!(drops, "ip saddr {address} {sample}counter name from{sender} drop")
            .expect("a string takes all");
    }
    format!(
        "add table inet onward\ndelete table inet onward\ntable inet onward {{\n{counters}chain entrance {{\n\
         type filter hook input priority 0; policy accept;\n{drops}}}\n}}\n"
    )
}

#[derive(Deserialize)]
struct Listing {
    nftables: Vec<Listed>,
}

#[derive(Deserialize)]
struct Listed {
    counter: Option<Counter>,
}

#[derive(Deserialize)]
struct Counter {
    name: String,
    packets: u64,
}

/// What each rule that is in force has dropped, by sender.
async fn counters(place: &Place) -> anyhow::Result<BTreeMap<u64, u64>> {
    let text = place.command("nft", &["-j", "list", "counters"], "").await?;
    let listing: Listing = serde_json::from_str(&text).context("nft lists what is no list")?;
    let counters = listing.nftables.into_iter().filter_map(|listed| listed.counter);
    Ok(counters
        .filter_map(|counter| Some((counter.name.strip_prefix("from")?.parse().ok()?, counter.packets)))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_takes_all_and_a_loss_some() {
        let addresses = BTreeMap::from([
            (1, Ipv4Addr::new(198, 18, 0, 1)),
            (2, Ipv4Addr::new(198, 18, 0, 2)),
        ]);
        let (cut, loss) = (Rule { cuts: 1, loss: 30 }, Rule { cuts: 0, loss: 30 });
        let rules = BTreeMap::from([(1, cut), (2, loss)]);
        let script = script(&rules, &addresses);
        assert!(
            script.contains("ip saddr 198.18.0.1 counter name from1 drop"),
            "{script}"
        );
        assert!(
            script.contains("ip saddr 198.18.0.2 numgen random mod 100 < 30 counter name from2 drop"),
            "{script}"
        );
    }
}
