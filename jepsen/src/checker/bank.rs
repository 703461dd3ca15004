//! Money in accounts: it is moved, never made or lost. Every snapshot of all accounts has the same sum, the same
//! snapshot is the same whenever and wherever it is read, and a transaction wrote one balance.

use super::{Findings, Violation};
use std::collections::BTreeMap;

/// Balances that were read as of one transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Which call it is, by [`crate::history::Call::id`].
    pub call: u64,
    /// The tid of the snapshot.
    pub at: String,
    /// Each account that was read.
    pub accounts: Vec<Account>,
}

/// An account as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Which.
    pub account: u64,
    /// What it holds.
    pub balance: u64,
    /// The tid of the transaction that wrote it so.
    pub serial: String,
}

/// Whether `snapshots` are of a bank whose `accounts` accounts hold `total` together. Some may be of a part only.
pub fn check(snapshots: &[Snapshot], accounts: usize, total: u64) -> Findings {
    let whole = |snapshot: &&Snapshot| snapshot.accounts.len() == accounts;
    let judged = snapshots.iter().filter(whole).count();
    let looked_at = format!("{judged} snapshots of {accounts} accounts");
    let mut findings = Findings::new(looked_at, judged);
    let mut report = |kind, summary, calls: &[u64]| {
        findings.violations.push(Violation::new(kind, summary, calls));
    };
    // What was read at a snapshot, and what a transaction wrote, with the call that says so.
    let mut at: BTreeMap<(&str, u64), (&Account, u64)> = BTreeMap::new();
    let mut wrote: BTreeMap<(&str, u64), (u64, u64)> = BTreeMap::new();
    for snapshot in snapshots {
        let Snapshot { call, at: tid, .. } = snapshot;
        let sum: u64 = snapshot.accounts.iter().map(|account| account.balance).sum();
        if whole(&snapshot) && sum != total {
            let summary = format!("call {call} read {sum} in all at {tid}, not {total}");
            report("sum", summary, &[*call]);
        }
        for account in &snapshot.accounts {
            let Account {
                account: number,
                balance,
                serial,
            } = account;
            if serial > tid {
                let summary = format!("call {call} read account {number} of {serial} at the earlier {tid}");
                report("future", summary, &[*call]);
            }
            let (before, by) = *at.entry((tid, *number)).or_insert((account, *call));
            if before != account {
                let summary = format!(
                    "at {tid}, call {by} read {} of {} in account {number}, and call {call} {balance} of {serial}",
                    before.balance, before.serial
                );
                report("unrepeatable", summary, &[by, *call]);
            }
            let (before, by) = *wrote.entry((serial, *number)).or_insert((*balance, *call));
            if before != *balance {
                let summary = format!(
                    "of transaction {serial}, call {by} read {before} in account {number}, and call {call} {balance}"
                );
                report("torn", summary, &[by, *call]);
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::testing::{Rng, cases};
    use crate::verdict::Finding;
    use proptest::prelude::*;

    /// Snapshots of a bank of four accounts of 100 each, between transfers.
    fn simulated(seed: u64) -> Vec<Snapshot> {
        let mut rng = Rng::new(seed);
        let account = |account| Account {
            account,
            balance: 100,
            serial: format!("{:016x}", 1),
        };
        let mut accounts: Vec<_> = (0..4).map(account).collect();
        let mut snapshots = Vec::new();
        for tid in 2..60 {
            let at = format!("{tid:016x}");
            let (from, to) = (rng.below(4) as usize, rng.below(4) as usize);
            let amount = rng.below(30);
            if from != to && accounts[from].balance >= amount {
                accounts[from].balance -= amount;
                accounts[to].balance += amount;
                for moved in [from, to] {
                    accounts[moved].serial.clone_from(&at);
                }
            }
            for _ in 0..=rng.below(2) {
                snapshots.push(Snapshot {
                    call: snapshots.len() as u64,
                    at: at.clone(),
                    accounts: accounts.clone(),
                });
            }
        }
        snapshots
    }

    #[test]
    fn parts_say_nothing_of_the_sum() {
        let mut snapshots = simulated(1);
        snapshots
            .iter_mut()
            .for_each(|snapshot| snapshot.accounts.truncate(2));
        assert_eq!(check(&snapshots, 4, 400).finding(), Finding::Unknown);
        assert_eq!(check(&simulated(1), 4, 400).finding(), Finding::Pass);
        assert_eq!(check(&simulated(1), 4, 300).kinds(), ["sum"]);
    }

    proptest! {
        #![proptest_config(cases(100))]

        #[test]
        fn money_that_is_made_and_snapshots_that_change_are_found(seed: u64, pick: prop::sample::Index, what in 0..3) {
            let mut snapshots = simulated(seed);
            prop_assert!(check(&snapshots, 4, 400).violations.is_empty());
            let place = pick.index(snapshots.len());
            let again = snapshots[place].clone();
            let one = &mut snapshots[place].accounts;
            let kind = match what {
                0 => { one[0].balance += 1; "sum" }
                1 => { one[1].serial = "ffff".to_owned(); "future" }
                _ => {
                    // Of another time, in all accounts but one: the sum may even be right.
                    one[0].balance += 1;
                    let richer = (1..4).find(|place| one[*place].balance > 0).expect("there is money");
                    one[richer].balance -= 1;
                    snapshots.push(again);
                    "unrepeatable"
                }
            };
            let kinds = check(&snapshots, 4, 400).kinds();
            prop_assert!(kinds.contains(&kind), "{:?}", kinds);
        }
    }
}
