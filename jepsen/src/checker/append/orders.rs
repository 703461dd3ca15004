//! The order of the versions of each list, and what is wrong with the reads that tell it.

use super::{Findings, Txn, violation, words};
use crate::history::Outcome;
use std::collections::{BTreeMap, HashMap, HashSet};

/// All lists by key.
pub(super) struct Orders<'a> {
    txns: &'a [Txn],
    lists: BTreeMap<&'a str, List<'a>>,
}

/// What is known of one list.
#[derive(Default)]
pub(super) struct List<'a> {
    /// The elements in order, as far as any read shows them; each once, and only those that somebody appended.
    pub order: Vec<u64>,
    /// The place of each element in `order`.
    pub place: HashMap<u64, usize>,
    /// Who appended what.
    pub writers: HashMap<u64, Append>,
    /// Whose reads agree with `order`, with the number of elements that they saw.
    pub reads: Vec<(usize, usize)>,
    /// The longest read, and whose it is.
    longest: Option<(usize, &'a [u64])>,
    /// Elements that two transactions append: the workload's fault.
    ambiguous: Vec<u64>,
}

impl List<'_> {
    /// Whose appends reads show, by place.
    pub(super) fn shown(&self) -> impl Iterator<Item = usize> {
        self.order.iter().map(|value| self.writers[value].txn)
    }
}

/// An append.
#[derive(Debug, Clone, Copy)]
pub(super) struct Append {
    /// Whose, by place.
    pub txn: usize,
    /// What the same transaction appended to the list next, if it did.
    pub then: Option<u64>,
}

impl<'a> Orders<'a> {
    pub(super) fn new(txns: &'a [Txn]) -> Self {
        let mut lists: BTreeMap<&str, List<'_>> = BTreeMap::new();
        for (place, txn) in txns.iter().enumerate() {
            let mut last: HashMap<&str, u64> = HashMap::new();
            for (key, value) in txn.appends() {
                let list = lists.entry(key).or_default();
                let append = Append {
                    txn: place,
                    then: None,
                };
                if list.writers.insert(value, append).is_some() {
                    list.ambiguous.push(value);
                }
                if let Some(before) = last.insert(key, value)
                    && let Some(append) = list.writers.get_mut(&before)
                {
                    append.then = Some(value);
                }
            }
            for (key, values) in txn.reads() {
                let list = lists.entry(key).or_default();
                if list
                    .longest
                    .is_none_or(|(_, longest)| longest.len() < values.len())
                {
                    list.longest = Some((place, values));
                }
            }
        }
        for list in lists.values_mut() {
            list.settle();
        }
        for (place, txn) in txns.iter().enumerate() {
            for (key, values) in txn.reads() {
                let list = lists.get_mut(key).expect("made above");
                if list.agrees(values) {
                    let seen = values.iter().rev().find_map(|value| list.place.get(value));
                    list.reads.push((place, seen.map_or(0, |place| place + 1)));
                }
            }
        }
        Orders { txns, lists }
    }

    /// How many lists there are.
    pub(super) fn len(&self) -> usize {
        self.lists.len()
    }

    pub(super) fn lists(&self) -> impl Iterator<Item = (&'a str, &List<'a>)> {
        self.lists.iter().map(|(key, list)| (*key, list))
    }

    pub(super) fn list(&self, key: &str) -> &List<'a> {
        &self.lists[key]
    }

    /// Reports all that is wrong without looking at more than one list or one transaction.
    pub(super) fn anomalies(&self, findings: &mut Findings) {
        for (key, list) in &self.lists {
            for value in &list.ambiguous {
                let why = format!("{value} is appended to {key} twice, so nobody can tell who wrote it");
                findings.undecided.push(why);
            }
        }
        let mut seen = HashSet::new();
        for txn in self.txns {
            self.internal(txn, findings);
            for (key, values) in txn.reads() {
                self.read(txn, key, values, &mut seen, findings);
            }
        }
        self.lost_updates(findings);
    }

    /// What a read shows that no list can hold. Each broken element is told once, however many read it.
    fn read(
        &self,
        txn: &'a Txn,
        key: &'a str,
        values: &[u64],
        seen: &mut HashSet<(&'static str, &'a str, u64)>,
        findings: &mut Findings,
    ) {
        let list = &self.lists[key];
        let mut report = |kind, value, summary: String, others: &[&Txn]| {
            if seen.insert((kind, key, value)) {
                findings.violations.push(violation(kind, summary, others));
            }
        };
        let name = words::name(txn);
        let mut met = HashSet::new();
        for value in values {
            if !met.insert(value) {
                let summary = format!("{name} read {value} twice in {key}");
                report("duplicate-element", *value, summary, &[txn]);
            }
            match list.writers.get(value).map(|append| &self.txns[append.txn]) {
                None => {
                    let summary = format!("{name} read {value} in {key}, which nobody appended");
                    report("phantom-element", *value, summary, &[txn]);
                }
                Some(writer) if writer.outcome == Outcome::Fail => {
                    let failed = words::name(writer);
                    let summary = format!("{name} read {value} in {key}, which {failed} appended and failed");
                    report("G1a", *value, summary, &[writer, txn]);
                }
                Some(_) => {}
            }
        }
        if let Some(last) = values.last()
            && let Some(append) = list.writers.get(last)
            && let Some(then) = append.then
            && self.txns[append.txn].call != txn.call
        {
            let writer = &self.txns[append.txn];
            let summary = format!(
                "{name} read {key} up to {last}, between that and the {then} that {} appended as well",
                words::name(writer)
            );
            report("G1b", *last, summary, &[writer, txn]);
        }
        if let Some((longest, order)) = list.longest
            && !order.starts_with(values)
        {
            let other = &self.txns[longest];
            let parted = order
                .iter()
                .zip(values)
                .take_while(|(one, other)| one == other)
                .count();
            let summary = format!(
                "{name} read {key} as {}, and {} as {}",
                words::values_around(values, parted),
                words::name(other),
                words::values_around(order, parted)
            );
            report("incompatible-order", values[parted], summary, &[txn, other]);
        }
    }

    /// What a transaction reads after its own reads and appends follows from them.
    fn internal(&self, txn: &Txn, findings: &mut Findings) {
        /// What is known of a list within a transaction: all of it, or how it ends.
        struct Known {
            whole: bool,
            values: Vec<u64>,
        }
        if txn.outcome != Outcome::Ok {
            return;
        }
        let mut known: HashMap<&str, Known> = HashMap::new();
        for op in &txn.ops {
            match op {
                super::Mop::Append { key, value } => {
                    let list = known.entry(key).or_insert(Known {
                        whole: false,
                        values: Vec::new(),
                    });
                    list.values.push(*value);
                }
                super::Mop::Read {
                    key,
                    values: Some(values),
                } => {
                    let now = Known {
                        whole: true,
                        values: values.clone(),
                    };
                    let Some(before) = known.insert(key, now) else {
                        continue;
                    };
                    let follows = if before.whole {
                        before.values == *values
                    } else {
                        values.ends_with(&before.values)
                    };
                    if !follows {
                        let summary = format!(
                            "{} read {key} as {}, and knew it as {}{}",
                            words::name(txn),
                            words::values(values),
                            if before.whole { "" } else { "ending in " },
                            words::values(&before.values)
                        );
                        findings.violations.push(violation("internal", summary, &[txn]));
                    }
                }
                super::Mop::Read { values: None, .. } => {}
            }
        }
    }

    /// Transactions that append to what they read, when others did so with the same version.
    fn lost_updates(&self, findings: &mut Findings) {
        let mut updates: BTreeMap<(&str, &[u64]), Vec<&Txn>> = BTreeMap::new();
        for txn in self.txns.iter().filter(|txn| txn.outcome == Outcome::Ok) {
            let mut first: HashMap<&str, Option<&[u64]>> = HashMap::new();
            for op in &txn.ops {
                match op {
                    super::Mop::Read {
                        key,
                        values: Some(values),
                    } => {
                        first.entry(key).or_insert(Some(values));
                    }
                    super::Mop::Read { values: None, .. } => {}
                    super::Mop::Append { key, .. } => {
                        // After its own append, what it reads is no version of the others' any more.
                        if let Some(version) = first.insert(key, None).flatten() {
                            updates.entry((key, version)).or_default().push(txn);
                        }
                    }
                }
            }
        }
        for ((key, version), txns) in updates.iter().filter(|(_, txns)| txns.len() > 1) {
            let names: Vec<_> = txns.iter().map(|txn| words::name(txn)).collect();
            let summary = format!(
                "{} all read {key} as {} and appended to it",
                names.join(", "),
                words::values(version)
            );
            findings.violations.push(violation("lost-update", summary, txns));
        }
    }
}

impl List<'_> {
    /// Takes the order from the longest read.
    fn settle(&mut self) {
        for value in self.longest.map_or(&[][..], |(_, values)| values) {
            if self.writers.contains_key(value) && !self.place.contains_key(value) {
                self.place.insert(*value, self.order.len());
                self.order.push(*value);
            }
        }
    }

    fn agrees(&self, values: &[u64]) -> bool {
        self.longest
            .is_some_and(|(_, longest)| longest.starts_with(values))
    }
}
