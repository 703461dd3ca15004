//! What a good run told, broken in one place: the checks that must see it do.

use super::super::{client, play, swarm::Plan};
use super::*;
use crate::checker::append::Mop;
use crate::history;
use onward_raft::sim::World;
use onward_statemachine::services::kv;
use onward_statemachine::{Command, Event, Reply};

/// A run whose clients did some of everything.
fn good() -> (Told, Vec<Final>) {
    let plans = (1..).map(Plan::of).filter(|plan| {
        let clients = plan.clients > 3 && plan.think_max.as_millis() < 100 && plan.keys < 4;
        let asked = (20..50).contains(&plan.reads) && (20..50).contains(&plan.any_area);
        clients && asked && plan.transactions > 20 && plan.watchers > 1 && plan.compacts
    });
    for plan in plans.take(20) {
        let played = World::run(plan.seed, false, async |world| play(&world, plan).await);
        let mut legs = played.told.watches.iter().flat_map(|watch| &watch.legs);
        let compacted = legs.any(|leg| leg.compacted.is_some());
        if compacted && overwritten(&played.told).is_some() {
            assert_eq!(failing(&played.told, &played.finals), [""; 0]);
            return (played.told, played.finals);
        }
    }
    panic!("of twenty runs, none had some of everything")
}

/// The checks that find something wrong.
fn failing(told: &Told, finals: &[Final]) -> Vec<String> {
    let verdicts = judge(told, finals).into_iter();
    let wrong = verdicts.filter(|verdict| verdict.finding == Finding::Fail);
    wrong.map(|verdict| verdict.check).collect()
}

/// A way to break a run, and the checks that must see it.
type Way = (&'static str, fn(&mut Told, &mut [Final]), &'static [&'static str]);

/// Breaks what a good run told in each of these ways.
fn all_seen(ways: &[Way]) {
    let (told, finals) = good();
    for (what, breaks, checks) in ways {
        let (mut told, mut finals) = (told.clone(), finals.clone());
        breaks(&mut told, &mut finals);
        let failing = failing(&told, &finals);
        for check in *checks {
            assert!(
                failing.iter().any(|one| one == check),
                "{what}: {check} does not see it; {failing:?} do"
            );
        }
    }
}

/// A put that was acknowledged, by its place in the journals.
fn acknowledged(told: &Told, finals: &[Final]) -> (CommandId, usize) {
    let mut accepted = told.ops.iter().filter_map(|op| match (&op.asked, &op.fate) {
        (
            Asked::Command {
                id,
                command: Command::Kv(kv::Command::Put { .. }),
            },
            Fate::Answered(Outcome::Accepted { .. }),
        ) => Some(*id),
        _ => None,
    });
    let id = accepted.next_back().expect("something was put");
    let place = finals[0]
        .journal
        .iter()
        .position(|(_, record)| record.command_id == id);
    (id, place.expect("it is in the journal"))
}

/// A read of a key that found what was overwritten before it began, in place of what it found.
fn stale_read(told: &mut Told, _: &mut [Final]) {
    let (earlier, later) = overwritten(told).expect("a good run has some");
    told.ops[later].fate = told.ops[earlier].fate.clone();
}

/// Two reads of one key, one after the other, of which the second found something newer.
fn overwritten(told: &Told) -> Option<(usize, usize)> {
    let reads: Vec<(usize, &Op, &kv::Pair)> = told.ops.iter().enumerate().filter_map(single).collect();
    let of_one_key = |one: &Op, other: &Op| match (&one.asked, &other.asked) {
        (Asked::Read { keys: one, .. }, Asked::Read { keys: other, .. }) => one == other,
        _ => false,
    };
    let pairs = reads
        .iter()
        .flat_map(|one| reads.iter().map(move |other| (one, other)));
    let mut pairs = pairs
        .filter(|((_, one, _), (_, other, _))| of_one_key(one, other) && one.ended_ns < other.invoked_ns);
    let found = pairs.find(|((_, _, found), (_, _, then))| found.modified < then.modified);
    found.map(|(earlier, later)| (earlier.0, later.0))
}

fn single((place, op): (usize, &Op)) -> Option<(usize, &Op, &kv::Pair)> {
    match (&op.asked, &op.fate) {
        (Asked::Read { keys, .. }, Fate::Read(_, pairs))
            if strong(op) && keys.len() == 1 && client::is_shared(&keys[0]) =>
        {
            Some((place, op, pairs[0].as_ref()?))
        }
        _ => None,
    }
}

#[test]
fn what_clients_were_told_is_held_against_the_journals() {
    all_seen(&[
        (
            "a stale read",
            stale_read,
            &["linearizable", "real-time", "log-index"],
        ),
        (
            "a write that is nowhere",
            |told, finals| {
                let (_, place) = acknowledged(told, finals);
                finals
                    .iter_mut()
                    .for_each(|node| drop(node.journal.remove(place)));
            },
            &["log-index", "model"],
        ),
        (
            "a write that one node does not have",
            |told, finals| {
                let (_, place) = acknowledged(told, finals);
                finals[1].journal.remove(place);
            },
            &["log-index", "replicas"],
        ),
        (
            "a write of something else",
            |told, finals| {
                let (_, place) = acknowledged(told, finals);
                for node in finals {
                    if let Event::Kv(kv::Event::Put { value, .. }) = &mut node.journal[place].1.events[0] {
                        value.push(b'!');
                    }
                }
            },
            &["log-index", "model"],
        ),
        (
            "a revision that is another's",
            |told, finals| {
                let (wanted, _) = acknowledged(told, finals);
                for op in &mut told.ops {
                    if let (Asked::Command { id, .. }, Fate::Answered(Outcome::Accepted { revision, .. })) =
                        (&op.asked, &mut op.fate)
                        && *id == wanted
                    {
                        revision.0 -= 1;
                    }
                }
            },
            &["log-index", "fates"],
        ),
        (
            "a transaction that did the other thing",
            |told, _| {
                let mut replies = told.ops.iter_mut().filter_map(|op| match &mut op.fate {
                    Fate::Answered(Outcome::Accepted {
                        reply: Reply::Kv(kv::Reply::Txn { succeeded, .. }),
                        ..
                    }) => Some(succeeded),
                    _ => None,
                });
                let succeeded = replies.next_back().expect("there were transactions");
                *succeeded = !*succeeded;
            },
            &["log-index"],
        ),
    ]);
}

#[test]
fn lists_are_held_to_one_order() {
    all_seen(&[
        (
            "an element that was read and is gone",
            |told, _| {
                let long = reads(told).filter(|values| values.len() > 1);
                long.last().expect("some list has elements").remove(0);
            },
            &["append"],
        ),
        (
            "an element that nobody appended",
            |told, _| reads(told).last().expect("lists were read").push(1),
            &["append"],
        ),
        (
            "a transaction that failed and was seen",
            |told, _| {
                let seen: Vec<u64> = reads(told).flat_map(|values| values.clone()).collect();
                let appended = told.txns.iter_mut().find(|txn| {
                    let mut ops = txn.ops.iter();
                    ops.any(|op| matches!(op, Mop::Append { value, .. } if seen.contains(value)))
                });
                appended.expect("what was seen was appended").outcome = history::Outcome::Fail;
            },
            &["append"],
        ),
    ]);
}

/// What transactions that took place read.
fn reads(told: &mut Told) -> impl Iterator<Item = &mut Vec<u64>> {
    let done = told
        .txns
        .iter_mut()
        .filter(|txn| txn.outcome == history::Outcome::Ok);
    let ops = done.flat_map(|txn| &mut txn.ops);
    ops.filter_map(|op| match op {
        Mop::Read { values, .. } => values.as_mut(),
        Mop::Append { .. } => None,
    })
}

#[test]
fn streams_are_held_against_the_journal() {
    all_seen(&[
        (
            "a revision that was not sent",
            |told, _| drop(sent(told).remove(1)),
            &["watch"],
        ),
        (
            "a revision that was sent twice",
            |told, _| {
                let again = sent(told)[1].clone();
                sent(told).insert(1, again);
            },
            &["watch"],
        ),
        (
            "a journal that was compacted and does not say so",
            |told, _| {
                let mut legs = told.watches.iter_mut().flat_map(|watch| &mut watch.legs);
                let compacted = legs.find(|leg| leg.compacted.is_some());
                compacted.expect("a stream was compacted").compacted = None;
            },
            &["watch"],
        ),
    ]);
}

/// What some stream sent.
fn sent(told: &mut Told) -> &mut Vec<(u64, String)> {
    let legs = told.watches.iter_mut().flat_map(|watch| &mut watch.legs);
    let longest = legs.max_by_key(|leg| leg.seen.len());
    &mut longest.expect("somebody followed the journal").seen
}
