use super::{Mop, Txn, check};
use crate::checker::testing::{Rng, cases, simulate};
use crate::checker::wgl::Fate;
use crate::history::Outcome;
use crate::verdict::Finding;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Operations written as `a x 1, r y 2 3, r z`.
fn ops(text: &str) -> Vec<Mop> {
    let op = |text: &str| {
        let mut words = text.split_whitespace();
        let (f, key) = (words.next().expect("what"), words.next().expect("which"));
        let key = key.to_owned();
        let values: Vec<u64> = words.map(|word| word.parse().expect("a number")).collect();
        match f {
            "a" => Mop::Append {
                key,
                value: values[0],
            },
            _ => Mop::Read {
                key,
                values: Some(values),
            },
        }
    };
    text.split(',').map(op).collect()
}

/// A transaction of a process of its own, so that only time orders it.
fn txn(call: u64, from: u64, to: u64, text: &str) -> Txn {
    Txn {
        call,
        process: call,
        invoked_ns: from,
        completed_ns: Some(to),
        outcome: Outcome::Ok,
        ops: ops(text),
    }
}

/// Transactions that were all under way at the same time.
fn at_once(texts: &[&str]) -> Vec<Txn> {
    let txn = |(call, text): (usize, &&str)| txn(call as u64, 0, 100, text);
    texts.iter().enumerate().map(txn).collect()
}

fn kinds(txns: &[Txn]) -> Vec<&'static str> {
    let findings = check(txns);
    assert!(findings.undecided.is_empty(), "{findings:?}");
    findings.kinds()
}

#[test]
fn what_is_in_order_passes() {
    let txns = [
        txn(0, 0, 10, "a x 1, a y 1"),
        txn(1, 20, 30, "r x 1, a x 2"),
        txn(2, 25, 35, "r x 1 2, r y 1"),
        txn(3, 40, 50, "r z, r x 1 2"),
    ];
    assert_eq!(kinds(&txns), [""; 0]);
    assert_eq!(check(&txns).finding(), Finding::Pass);
    assert_eq!(check(&[]).finding(), Finding::Unknown);
    assert_eq!(check(&txns[..1]).finding(), Finding::Unknown, "nothing was read");
}

#[test]
fn cycles_of_writes() {
    // Adya's G0: two transactions write two lists in opposite orders.
    let txns = at_once(&["a x 1, a y 1", "a x 2, a y 2", "r x 1 2, r y 2 1"]);
    let findings = check(&txns);
    assert_eq!(findings.kinds(), ["G0"]);
    let violation = &findings.violations[0];
    assert_eq!(violation.calls.len(), 2);
    assert!(
        violation
            .lines
            .iter()
            .any(|line| line == "T0 before T1: T0 appended 1 to x, and T1 appended 2 right after it"),
        "{violation:?}"
    );
}

#[test]
fn reads_of_what_never_was() {
    let mut txns = at_once(&["a x 1", "r x 1"]);
    txns[0].outcome = Outcome::Fail;
    assert_eq!(kinds(&txns), ["G1a"]);
    txns[0].outcome = Outcome::Info;
    assert_eq!(kinds(&txns), [""; 0]);
    assert_eq!(
        kinds(&at_once(&["a x 1, a x 2", "r x 1", "r x 1 2"])),
        ["G-single", "G1b"]
    );
    assert_eq!(kinds(&at_once(&["r x 7"])), ["phantom-element"]);
    assert_eq!(kinds(&at_once(&["a x 1", "r x 1 1"])), ["duplicate-element"]);
    let orders = at_once(&["a x 1", "a x 2", "r x 1 2", "r x 2 1"]);
    assert_eq!(kinds(&orders), ["incompatible-order"]);
}

#[test]
fn circular_information() {
    // G1c: each reads what the other wrote.
    assert_eq!(kinds(&at_once(&["a x 1, r y 1", "a y 1, r x 1"])), ["G1c"]);
}

#[test]
fn read_skew() {
    // The example of Elle's section 2 (G-single): T1 sees T2's write of one list and not of the other.
    let txns = at_once(&["r x, r y 1", "a x 1, a y 1", "r x 1"]);
    assert_eq!(kinds(&txns), ["G-single"]);
}

#[test]
fn lost_updates() {
    // TiDB's, in Elle's section 7.1: both read [2 1] of 34, and both appended to it.
    let txns = at_once(&[
        "a 34 2",
        "a 34 1",
        "r 34 2 1, a 36 5, a 34 4",
        "r 34 2 1, a 34 5",
        "r 34 2 1 5 4",
    ]);
    assert_eq!(kinds(&txns), ["G-single", "lost-update"]);
}

#[test]
fn write_skew() {
    // Fauna's G2, in Elle's section 7.3, is of this form: each misses the other's write.
    let txns = at_once(&["r x, a y 1", "r y, a x 1", "r x 1, r y 1"]);
    assert_eq!(kinds(&txns), ["G2-item"]);
    // And where no read shows the writes at all.
    assert_eq!(kinds(&at_once(&["r x, a y 1", "r y, a x 1"])), ["G2-item"]);
}

#[test]
fn transactions_that_contradict_themselves() {
    // Dgraph's, in Elle's section 7.4.
    assert_eq!(kinds(&at_once(&["a x 1, r x"])), ["internal"]);
    assert_eq!(
        kinds(&at_once(&["a x 1", "r x 1, r x"])),
        ["G-single", "internal"]
    );
    assert_eq!(kinds(&at_once(&["a x 1", "r x, a x 2, r x 1 2"]))[0], "G-single");
    assert_eq!(kinds(&at_once(&["a x 1", "r x 1, a x 2, r x 1 2"])), [""; 0]);
    assert_eq!(kinds(&at_once(&["a x 1", "a x 2, r x 1 2"])), [""; 0]);
}

#[test]
fn stale_reads_in_real_time() {
    // Serializable, but the read began after the write was acknowledged.
    let stale = [
        txn(0, 0, 10, "a x 1"),
        txn(1, 20, 30, "r x"),
        txn(2, 40, 50, "r x 1"),
    ];
    let findings = check(&stale);
    assert_eq!(findings.kinds(), ["G-single-realtime"]);
    assert!(
        findings.violations[0]
            .lines
            .contains(&"T1 before T0: T1 read x without 1, which T0 appended".to_owned()),
        "{findings:?}"
    );
    // The same where no read ever shows the write: it is lost.
    assert_eq!(kinds(&stale[..2]), ["G-single-realtime"]);
    // And where the transactions are of one process, that alone forbids it.
    let mut process = stale.clone();
    process.iter_mut().for_each(|txn| txn.process = 0);
    assert_eq!(kinds(&process), ["G-single-process"]);
    // A read from the future.
    let future = [txn(0, 0, 10, "r x 1"), txn(1, 20, 30, "a x 1")];
    assert_eq!(kinds(&future), ["G1c-realtime"]);
    let writes = [
        txn(0, 0, 10, "a x 1"),
        txn(1, 20, 30, "a x 2"),
        txn(2, 40, 50, "r x 2 1"),
    ];
    assert_eq!(kinds(&writes), ["G0-realtime"]);
}

#[test]
fn an_element_that_two_appended_is_the_workloads_fault() {
    let findings = check(&at_once(&["a x 1", "a x 1", "r x 1"]));
    assert_eq!(findings.finding(), Finding::Unknown);
}

/// A history of lists that are some: each transaction happens at one instant.
fn simulated(seed: u64, clients: usize, calls: usize, keys_open: u64) -> Vec<Txn> {
    type Lists = BTreeMap<String, Vec<u64>>;
    let mut next = 0;
    let mut rng = Rng::new(seed);
    let history = simulate(
        &mut rng,
        clients,
        calls,
        &mut Lists::new(),
        |rng, _| {
            let length = 1 + rng.below(4);
            let mut ops = Vec::new();
            for _ in 0..length {
                next += 1;
                // Lists come and go, so that none grows for ever.
                let key = format!("k{}", next / 200 + rng.below(keys_open));
                ops.push(if rng.percent(50) {
                    Mop::Append { key, value: next }
                } else {
                    Mop::Read { key, values: None }
                });
            }
            ops
        },
        |lists, ops| {
            let answer = |op: &Mop| match op {
                Mop::Append { key, value } => {
                    lists.entry(key.clone()).or_default().push(*value);
                    op.clone()
                }
                Mop::Read { key, .. } => Mop::Read {
                    key: key.clone(),
                    values: Some(lists.get(key).cloned().unwrap_or_default()),
                },
            };
            ops.iter().map(answer).collect::<Vec<_>>()
        },
    );
    let txn = |call: crate::checker::testing::Simulated<Vec<Mop>, Vec<Mop>>| {
        let (outcome, completed_ns, ops) = match call.fate {
            Fate::Done { completed_ns, output } => (Outcome::Ok, Some(completed_ns), output),
            Fate::Failed => (Outcome::Fail, None, call.input),
            Fate::Unknown => (Outcome::Info, None, call.input),
        };
        Txn {
            call: call.id,
            process: call.process,
            invoked_ns: call.invoked_ns,
            completed_ns,
            outcome,
            ops,
        }
    };
    history.into_iter().map(txn).collect()
}

#[test]
fn twenty_thousand_transactions_take_seconds() {
    let mut txns = simulated(1, 10, 20_000, 5);
    let began = Instant::now();
    let findings = check(&txns);
    assert_eq!(findings.finding(), Finding::Pass, "{:?}", findings.violations);
    // And no more where everything is one tangle: reads from long ago, all over.
    txns.truncate(5_000);
    for place in (0..txns.len()).step_by(50) {
        for op in &mut txns[place].ops {
            if let Mop::Read {
                values: Some(values), ..
            } = op
            {
                values.truncate(values.len() / 2);
            }
        }
    }
    assert_eq!(check(&txns).finding(), Finding::Fail);
    // What would be quadratic takes minutes, so a slow machine does not matter here.
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
}

/// Every read of an answered transaction, as places of it and of the operation.
fn reads(txns: &[Txn]) -> Vec<(usize, usize, Vec<u64>)> {
    let mut found = Vec::new();
    for (place, txn) in txns.iter().enumerate() {
        for (op, mop) in txn.ops.iter().enumerate() {
            if let Mop::Read {
                values: Some(values), ..
            } = mop
            {
                found.push((place, op, values.clone()));
            }
        }
    }
    found
}

fn set(txns: &mut [Txn], place: usize, op: usize, to: Vec<u64>) {
    if let Mop::Read { values, .. } = &mut txns[place].ops[op] {
        *values = Some(to);
    }
}

fn writer(txns: &[Txn], value: u64) -> &Txn {
    let wrote = |txn: &&Txn| txn.appends().any(|(_, appended)| appended == value);
    txns.iter().find(wrote).expect("somebody appended it")
}

/// Whether some order of the transactions explains all of them, by trying every one.
fn brute_force(txns: &[Txn]) -> bool {
    fn go(txns: &[&Txn], taken: u32, lists: &BTreeMap<&str, Vec<u64>>) -> bool {
        let open: Vec<_> = (0..txns.len()).filter(|place| taken & 1 << place == 0).collect();
        let ends = open.iter().filter_map(|place| txns[*place].ended_ns());
        let Some(barrier) = ends.min() else { return true };
        open.iter()
            .filter(|place| txns[**place].invoked_ns <= barrier)
            .any(|place| {
                let mut lists = lists.clone();
                let fits = txns[*place].ops.iter().all(|op| match op {
                    Mop::Append { key, value } => {
                        lists.entry(key).or_default().push(*value);
                        true
                    }
                    Mop::Read { key, values } => values
                        .as_ref()
                        .is_none_or(|values| *values == *lists.entry(key).or_default()),
                });
                fits && go(txns, taken | 1 << place, &lists)
            })
    }
    let txns: Vec<_> = txns.iter().filter(|txn| txn.outcome != Outcome::Fail).collect();
    go(&txns, 0, &BTreeMap::new())
}

proptest! {
    #![proptest_config(cases(150))]

    #[test]
    fn what_lists_did_passes(seed: u64) {
        let findings = check(&simulated(seed, 5, 150, 3));
        prop_assert!(findings.violations.is_empty(), "{:?}", findings.violations);
    }

    #[test]
    fn whatever_is_rejected_has_no_order(seed: u64, pick: prop::sample::Index, cut: prop::sample::Index) {
        let mut txns = simulated(seed, 3, 7, 2);
        let reads = reads(&txns);
        prop_assume!(!reads.is_empty());
        let (place, op, mut values) = pick.get(&reads).clone();
        values.truncate(cut.index(values.len() + 1));
        set(&mut txns, place, op, values);
        let explained = brute_force(&txns);
        let passes = check(&txns).violations.is_empty();
        prop_assert_eq!(passes, explained, "{:#?}", txns);
    }

    #[test]
    fn a_read_that_misses_what_was_acknowledged_is_found(seed: u64, pick: prop::sample::Index) {
        let mut txns = simulated(seed, 4, 60, 3);
        let mut stale = Vec::new();
        for (place, op, values) in reads(&txns) {
            for (length, value) in values.iter().enumerate() {
                let ended = writer(&txns, *value).ended_ns();
                if ended.is_some_and(|ended| ended < txns[place].invoked_ns) {
                    stale.push((place, op, values[..length].to_vec()));
                }
            }
        }
        prop_assume!(!stale.is_empty());
        let (place, op, values) = pick.get(&stale).clone();
        set(&mut txns, place, op, values);
        prop_assert_eq!(check(&txns).finding(), Finding::Fail);
    }

    #[test]
    fn elements_that_change_places_or_come_twice_are_found(seed: u64, pick: prop::sample::Index, twice: bool) {
        let mut txns = simulated(seed, 4, 60, 3);
        let mut all = reads(&txns);
        all.retain(|(_, _, values)| values.len() > 1);
        // Another read must show the two, or no read shows that they changed places.
        let shown = all.clone();
        all.retain(|(place, _, values)| shown.iter().any(|(other, _, more)| other != place && more.starts_with(values)));
        prop_assume!(!all.is_empty());
        let (place, op, mut values) = pick.get(&all).clone();
        let last = values.len() - 1;
        if twice {
            values.push(values[last]);
        } else {
            values.swap(last, last - 1);
        }
        set(&mut txns, place, op, values);
        prop_assert_eq!(check(&txns).finding(), Finding::Fail);
    }

    #[test]
    fn writes_that_are_gone_or_failed_and_were_read_are_found(seed: u64, pick: prop::sample::Index, gone: bool) {
        let mut txns = simulated(seed, 4, 60, 3);
        let read: Vec<u64> = reads(&txns).into_iter().flat_map(|(_, _, values)| values).collect();
        prop_assume!(!read.is_empty());
        let (value, call) = (*pick.get(&read), writer(&txns, *pick.get(&read)).call);
        if gone {
            for txn in &mut txns {
                txn.ops.retain(|op| !matches!(op, Mop::Append { value: appended, .. } if *appended == value));
            }
        } else {
            txns.iter_mut().filter(|txn| txn.call == call).for_each(|txn| txn.outcome = Outcome::Fail);
        }
        // What the writer itself read of its own is gone with it; only others count.
        prop_assume!(reads(&txns).iter().any(|(place, _, values)| {
            txns[*place].call != call && txns[*place].outcome == Outcome::Ok && values.contains(&value)
        }));
        prop_assert_eq!(check(&txns).finding(), Finding::Fail);
    }

    #[test]
    fn a_read_before_its_write_is_found(seed: u64, pick: prop::sample::Index) {
        let mut txns = simulated(seed, 4, 60, 3);
        let mut early = Vec::new();
        for (place, _, values) in reads(&txns) {
            for value in values {
                let writer = writer(&txns, value);
                if writer.call != txns[place].call && writer.invoked_ns > 2 {
                    early.push((place, writer.invoked_ns));
                }
            }
        }
        prop_assume!(!early.is_empty());
        let (place, before) = *pick.get(&early);
        txns[place].invoked_ns = before - 2;
        txns[place].completed_ns = Some(before - 1);
        prop_assert_eq!(check(&txns).finding(), Finding::Fail);
    }
}
