use super::{Claim, Demand, Keys, Level, Query, Said, check};
use crate::checker::Findings;
use crate::checker::testing::{Rng, cases, simulate};
use crate::checker::wgl::Fate;
use crate::final_state::Entry;
use crate::verdict::Finding;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use uuid::Uuid;

fn command(number: u64) -> Uuid {
    Uuid::from_u128(u128::from(number) + 1)
}

fn entry(revision: u64, events: Vec<Value>) -> Entry {
    Entry {
        revision,
        at: time(revision),
        actor: "client".to_owned(),
        command_id: command(revision),
        events,
    }
}

/// Log time: a second a revision.
fn time(revision: u64) -> String {
    let (minutes, seconds) = (revision / 60, revision % 60);
    format!("2026-01-01T00:{minutes:02}:{seconds:02}Z")
}

fn put(key: &str, value: &str) -> Value {
    json!({"area": "kv", "event": "put", "key": key, "value": value})
}

fn wrote(call: u64, (from, to): (u64, u64), revision: u64, events: Vec<Value>) -> Claim {
    Claim {
        call,
        invoked_ns: from,
        completed_ns: to,
        said: Said::Wrote {
            command: command(revision),
            revision,
            events,
            answer: None,
        },
    }
}

fn read(call: u64, (from, to): (u64, u64), revision: u64, query: Query, answer: Value) -> Claim {
    Claim {
        call,
        invoked_ns: from,
        completed_ns: to,
        said: Said::Read {
            level: Level::Linearizable,
            revision,
            answers: vec![(query, answer)],
        },
    }
}

/// What the checker finds where all three nodes have this journal.
fn judge(claims: &[Claim], journal: &[Entry]) -> Findings {
    check(claims, &[(1, journal), (2, journal), (3, journal)])
}

fn kinds(claims: &[Claim], journal: &[Entry]) -> Vec<&'static str> {
    judge(claims, journal).kinds()
}

/// The rules that a journal breaks by itself.
fn rules(events: &[Value]) -> Vec<&'static str> {
    let entries = events.iter().zip(1..);
    let journal: Vec<_> = entries
        .map(|(event, revision)| entry(revision, vec![event.clone()]))
        .collect();
    kinds(&[], &journal)
}

#[test]
fn what_was_told_is_there() {
    let journal = [entry(3, vec![put("a", "1")]), entry(5, vec![put("a", "2")])];
    let pair = json!({"key": "a", "value": "1", "created": 3, "modified": 3, "version": 1, "revision": 4});
    let good = [
        wrote(0, (0, 10), 3, vec![put("a", "1")]),
        read(1, (20, 30), 4, Query::KvGet("a".to_owned()), pair.clone()),
        wrote(2, (40, 50), 5, vec![put("a", "2")]),
        read(3, (60, 70), 6, Query::KvGet("b".to_owned()), Value::Null),
    ];
    assert_eq!(judge(&good, &journal).finding(), Finding::Pass);
    assert_eq!(judge(&[], &journal).finding(), Finding::Unknown);
    assert_eq!(check(&good, &[]).finding(), Finding::Unknown);
    assert_eq!(kinds(&good, &journal[..1]), ["lost-write"]);
    assert_eq!(
        check(&good, &[(1, &journal), (2, &journal[..1])]).kinds(),
        ["journals-differ", "lost-write"]
    );

    let late = read(1, (60, 70), 4, Query::KvGet("a".to_owned()), pair.clone());
    assert_eq!(
        kinds(&[good[0].clone(), good[2].clone(), late], &journal),
        ["stale-read"]
    );
    let old = read(1, (60, 70), 6, Query::KvGet("a".to_owned()), pair);
    assert_eq!(kinds(&[old], &journal), ["wrong-answer"]);
    let early = wrote(2, (1, 2), 5, vec![]);
    let late = wrote(0, (3, 4), 3, vec![]);
    assert_eq!(kinds(&[early, late], &journal), ["real-time"]);
    let other = wrote(0, (0, 10), 3, vec![put("a", "9")]);
    assert_eq!(kinds(&[other], &journal), ["wrong-effect"]);
}

#[test]
fn commands_are_done_once_or_not_at_all() {
    let mut again = entry(5, vec![put("a", "1")]);
    again.command_id = command(3);
    let journal = [entry(3, vec![put("a", "1")]), again];
    assert_eq!(kinds(&[], &journal), ["applied-twice"]);
    let claim = |call, said| Claim {
        call,
        invoked_ns: 0,
        completed_ns: 1,
        said,
    };
    let failed = claim(0, Said::Failed { command: command(3) });
    let unknown = claim(1, Said::Unknown { command: command(3) });
    let absent = claim(2, Said::Unknown { command: command(8) });
    let journal = &journal[..1];
    assert_eq!(kinds(std::slice::from_ref(&failed), journal), ["failed-write"]);
    assert_eq!(kinds(&[failed, unknown, absent], journal), [""; 0]);
    let moved = Claim {
        said: Said::Wrote {
            command: command(3),
            revision: 4,
            events: vec![],
            answer: None,
        },
        ..claim(3, Said::Failed { command: command(3) })
    };
    assert_eq!(kinds(&[moved], journal), ["wrong-command"]);
}

#[test]
fn a_command_that_is_sent_again_keeps_its_revision() {
    let journal = [entry(3, vec![put("a", "1")]), entry(5, vec![put("a", "2")])];
    let claims = [
        wrote(0, (0, 10), 3, vec![put("a", "1")]),
        wrote(1, (20, 30), 5, vec![put("a", "2")]),
        wrote(2, (40, 50), 3, vec![put("a", "1")]),
    ];
    assert_eq!(kinds(&claims, &journal), [""; 0]);
}

#[test]
fn journals_are_whole_and_in_order() {
    let mut journal = vec![entry(3, vec![]), entry(5, vec![])];
    journal[1].at = time(2);
    assert_eq!(kinds(&[], &journal), ["log-time"]);
    journal[1].at = time(5);
    journal[1].actor.clear();
    assert_eq!(kinds(&[], &journal), ["no-actor"]);
    assert_eq!(
        kinds(&[], &[entry(5, vec![]), entry(3, vec![])])[0],
        "journal-order"
    );
    let compacted = json!({"area": "system", "event": "journal_compacted", "below": 4});
    let findings = judge(
        &[
            wrote(0, (0, 1), 3, vec![put("a", "1")]),
            wrote(1, (2, 3), 5, vec![put("a", "2")]),
        ],
        &[entry(5, vec![put("a", "2")]), entry(6, vec![compacted])],
    );
    assert_eq!(findings.finding(), Finding::Unknown);
}

#[test]
fn transactions_and_deletions_answer_what_the_model_does() {
    let deleted = |key: &str| json!({"area": "kv", "event": "deleted", "key": key});
    let journal = [
        entry(1, vec![put("a/1", "x"), put("a/2", "y")]),
        entry(2, vec![deleted("a/1"), put("b", "z")]),
        entry(3, vec![deleted("a/2")]),
    ];
    let txn = json!({
        "compare": [{"key": "a/1", "modified": 1}, {"key": "c", "version": 1, "is": "less"}],
        "then": [
            {"get": {"key": "a/1"}},
            {"delete": {"key": "a/1"}},
            {"get": {"key": "a/1"}},
            {"put": {"key": "b", "value": "z"}},
            {"get": {"key": "b"}},
        ],
    });
    let answer = |first: &str| {
        json!({"succeeded": true, "revision": 2, "results": [
            {"got": {"value": first, "created": 1, "modified": 1, "version": 1}},
            {"deleted": 1},
            {"got": null},
            "put",
            {"got": {"value": "z", "created": 0, "modified": 0, "version": 1}},
        ]})
    };
    let demand = |revision, demand| {
        let mut claim = wrote(revision, (revision * 10, revision * 10 + 1), revision, vec![]);
        if let Said::Wrote { answer, .. } = &mut claim.said {
            *answer = Some(demand);
        }
        claim
    };
    let delete = |count| demand(3, Demand::KvDelete(Keys::Prefix("a/".to_owned()), count));
    let good = [demand(2, Demand::KvTxn(txn.clone(), answer("x"))), delete(1)];
    assert_eq!(judge(&good, &journal).finding(), Finding::Pass);
    let bad = [demand(2, Demand::KvTxn(txn.clone(), answer("w")))];
    assert_eq!(kinds(&bad, &journal), ["wrong-answer"]);
    assert_eq!(kinds(&[delete(2)], &journal), ["wrong-answer"]);
    // Its condition did not hold any more, and it was done all the same.
    let late = [entry(1, vec![put("a/1", "x"), put("c", "y")]), journal[1].clone()];
    assert_eq!(
        kinds(&[demand(2, Demand::KvTxn(txn, answer("x")))], &late),
        ["wrong-answer"]
    );
}

#[test]
fn rules_of_services() {
    let id = |event: &str| json!({"area": "catalog", "event": event, "service": "s", "instance": "i"});
    let mut registered = id("registered");
    registered["spec"] = json!({"address": "10.0.0.1", "port": 80, "ttl_ms": 2000});
    let mut expired = id("health_changed");
    expired["health"] = "critical".into();
    expired["cause"] = "expired".into();
    let renewed = id("renewed");
    let journal = [
        registered.clone(),
        renewed.clone(),
        renewed.clone(),
        expired.clone(),
    ];
    assert_eq!(rules(&journal), ["expired-early"]);
    let quiet = json!({"area": "kv", "event": "put", "key": "a", "value": "1"});
    let journal = [registered.clone(), renewed.clone(), quiet, expired];
    assert_eq!(rules(&journal), [""; 0]);
    assert_eq!(rules(&[renewed]), ["instance-not-there"]);
    let journal = [entry(1, vec![registered.clone()])];
    let answer = |serving: bool| {
        let instance = json!({
            "service": "s", "instance": "i", "spec": registered["spec"], "health": "passing", "maintenance": false,
            "serving": serving, "renewed": time(1), "deadline": time(3), "created": 1, "modified": 1, "health_since": 1,
        });
        [read(
            0,
            (0, 1),
            1,
            Query::Instances("s".to_owned()),
            json!([instance]),
        )]
    };
    assert_eq!(judge(&answer(true), &journal).finding(), Finding::Pass);
    assert_eq!(kinds(&answer(false), &journal), ["wrong-answer"]);
    // A part of the answer is judged as far as it goes.
    let part = |part: Value| {
        [read(
            0,
            (0, 1),
            1,
            Query::Instance("s".to_owned(), "i".to_owned()),
            part,
        )]
    };
    assert_eq!(
        judge(&part(json!({"spec": {"port": 80}})), &journal).finding(),
        Finding::Pass
    );
    for wrong in [
        json!({"spec": {"port": 81}}),
        json!({"spec": {"tag": "a"}}),
        Value::Null,
    ] {
        assert_eq!(kinds(&part(wrong), &journal), ["wrong-answer"]);
    }
}

#[test]
fn rules_of_machines() {
    let registered = |serial: &str, index: u64, ip: &str| {
        json!({
            "area": "machines", "event": "registered", "serial": serial, "rack": 1, "index": index, "role": "worker",
            "labels": {}, "macs": [], "bmc": null, "addresses": [{"ip": ip, "mask_bits": 24}],
        })
    };
    let changed = |serial: &str, from: &str, to: &str| {
        json!({
            "area": "machines", "event": "state_changed", "serial": serial, "from": from, "to": to, "reason": "",
        })
    };
    let one = registered("A", 1, "10.0.0.1");
    assert_eq!(rules(&[one.clone(), registered("B", 2, "10.0.0.2")]), [""; 0]);
    assert_eq!(
        rules(&[one.clone(), registered("B", 2, "10.0.0.1")]),
        ["given-twice"]
    );
    assert_eq!(
        rules(&[one.clone(), registered("B", 1, "10.0.0.2")]),
        ["given-twice"]
    );
    assert_eq!(rules(&[one.clone(), one.clone()]), ["machine-twice"]);
    assert_eq!(
        rules(&[one.clone(), changed("A", "uninitialized", "healthy")]),
        [""; 0]
    );
    assert_eq!(
        rules(&[one.clone(), changed("A", "healthy", "unhealthy")]),
        ["machine-life"]
    );
    assert_eq!(
        rules(&[one.clone(), changed("A", "uninitialized", "retired")]),
        ["machine-life"]
    );
    let deleted = json!({"area": "machines", "event": "deleted", "serial": "A"});
    let life = [
        one.clone(),
        changed("A", "uninitialized", "retiring"),
        changed("A", "retiring", "retired"),
        deleted.clone(),
        registered("B", 1, "10.0.0.1"),
    ];
    assert_eq!(rules(&life), [""; 0]);
    assert_eq!(rules(&[one.clone(), deleted]), ["machine-life"]);

    let journal = [
        entry(1, vec![one]),
        entry(2, vec![changed("A", "uninitialized", "healthy")]),
    ];
    let taken = |revision, to: &str| {
        let mut claim = wrote(0, (0, 1), revision, vec![]);
        if let Said::Wrote { answer, .. } = &mut claim.said {
            *answer = Some(Demand::MachineState("A".to_owned(), to.to_owned()));
        }
        [claim]
    };
    assert_eq!(judge(&taken(2, "healthy"), &journal).finding(), Finding::Pass);
    assert_eq!(judge(&taken(3, "healthy"), &journal).finding(), Finding::Pass);
    assert_eq!(kinds(&taken(3, "unhealthy"), &journal), ["wrong-answer"]);
    assert_eq!(kinds(&taken(3, "retired"), &journal), ["wrong-answer"]);
}

#[test]
fn rules_of_objects() {
    let committed = |tid: &str, oid: &str| {
        json!({
            "area": "objects", "event": "committed", "tid": tid, "user": "", "description": "",
            "writes": [{"oid": oid, "size": 3}],
        })
    };
    let (one, two) = ("0400000000000001", "0400000000000002");
    assert_eq!(rules(&[committed(one, "a"), committed(two, "a")]), [""; 0]);
    assert_eq!(rules(&[committed(two, "a"), committed(one, "a")]), ["tids-fall"]);
    let journal = [
        entry(1, vec![committed(one, "a")]),
        entry(2, vec![committed(two, "a")]),
    ];
    let commit = |read: Option<&str>| {
        let body = json!({"writes": [{"oid": "a", "read": read, "text": "abc"}]});
        let mut claim = wrote(0, (0, 1), 2, vec![]);
        if let Said::Wrote { answer, .. } = &mut claim.said {
            *answer = Some(Demand::ObjectsCommit(body, two.to_owned()));
        }
        [claim]
    };
    assert_eq!(judge(&commit(Some(one)), &journal).finding(), Finding::Pass);
    assert_eq!(kinds(&commit(None), &journal), ["wrong-answer"]);
    let object = |serial: &str| {
        let answer = json!({"oid": "a", "serial": serial, "next": null, "bytes_base64": "YWJj"});
        [read(0, (0, 1), 2, Query::Object("a".to_owned()), answer)]
    };
    assert_eq!(judge(&object(two), &journal).finding(), Finding::Pass);
    assert_eq!(kinds(&object(one), &journal), ["wrong-answer"]);
}

#[test]
fn rules_of_rollouts() {
    let event = |event: &str, rollout: u64| json!({"area": "rollouts", "event": event, "app": "a", "rollout": rollout, "release": rollout, "instance": rollout});
    let steps = |rollout| {
        [
            "queued", "assigned", "fetched", "placed", "started", "checked", "switched", "finished",
        ]
        .map(|step| event(step, rollout))
    };
    let of_instance = |kind: &str, instance: u64| json!({"area": "rollouts", "event": kind, "app": "a", "release": instance, "instance": instance});
    let mut two: Vec<_> = steps(1).into_iter().chain(steps(2)).collect();
    assert_eq!(rules(&two), ["two-active"]);
    two.insert(14, of_instance("draining", 1));
    two.push(of_instance("ended", 1));
    assert_eq!(rules(&two), [""; 0]);
    two.push(of_instance("ended", 1));
    assert_eq!(rules(&two), ["instance-not-there"]);

    let began: Vec<_> = steps(1)[..5].to_vec();
    let with = |more: Value| [began.clone(), vec![more]].concat();
    assert_eq!(rules(&with(event("queued", 2))), ["two-rollouts"]);
    assert_eq!(rules(&with(event("switched", 1))), ["rollout-steps"]);
    assert_eq!(rules(&with(event("started", 1))), ["rollout-steps"], "twice");
    assert_eq!(rules(&with(event("checked", 2))), ["rollout-over"]);
    let mut failed = event("failed", 1);
    failed["next_attempt_at"] = time(9).into();
    let again = [
        with(failed.clone()),
        vec![event("placed", 1), event("started", 1)],
    ]
    .concat();
    assert_eq!(rules(&again), [""; 0]);
    failed["next_attempt_at"] = Value::Null;
    let over = [with(failed), vec![event("queued", 2)]].concat();
    assert_eq!(rules(&over), [""; 0]);
    assert_eq!(
        rules(&[event("queued", 2), event("finished", 2)]),
        ["rollout-steps"]
    );
}

#[test]
fn apps_are_as_their_events_say() {
    let event = |event: &str| json!({"area": "apps", "event": event, "app": "a", "spec": {}});
    let journal = [
        entry(1, vec![event("set")]),
        entry(2, vec![event("stopped")]),
        entry(3, vec![event("set")]),
    ];
    let app = |running: bool| {
        let answer = json!({
            "name": "a", "spec": {}, "running": running, "deleting": false, "generation": 3, "created": 1,
            "modified": 3, "modified_at": time(3), "serving": {},
        });
        [read(0, (0, 1), 3, Query::App("a".to_owned()), answer)]
    };
    assert_eq!(judge(&app(false), &journal).finding(), Finding::Pass);
    assert_eq!(kinds(&app(true), &journal), ["wrong-answer"]);
    assert_eq!(rules(&[event("started")]), ["app-not-there"]);
}

/// A demand on a system that is correct.
#[derive(Debug, Clone)]
enum Ask {
    Put(String, String),
    Get(String),
    List,
}

/// A system that is correct: pairs, each with its revisions and its version, and a journal.
#[derive(Default)]
struct System {
    revision: u64,
    pairs: BTreeMap<String, Value>,
    journal: Vec<Entry>,
}

impl System {
    fn apply(&mut self, (number, ask): &(u64, Ask)) -> (u64, Value) {
        match ask {
            Ask::Get(key) => (self.revision, self.pairs.get(key).cloned().unwrap_or_default()),
            Ask::List => (self.revision, self.pairs.values().cloned().collect()),
            Ask::Put(key, value) => {
                self.revision += 1 + number % 2;
                let revision = self.revision;
                let before = self.pairs.get(key);
                let (created, version) = before.map_or((revision, 0), |pair| {
                    let number = |member: &str| pair[member].as_u64().expect("it is a number");
                    (number("created"), number("version"))
                });
                let pair = json!({
                    "key": key, "value": value, "created": created, "modified": revision, "version": version + 1,
                });
                self.pairs.insert(key.clone(), pair);
                let mut entry = entry(revision, vec![put(key, value)]);
                entry.command_id = command(*number);
                self.journal.push(entry);
                (revision, Value::Null)
            }
        }
    }
}

/// What clients of a system that is correct say, and its journal.
fn simulated(seed: u64) -> (Vec<Claim>, Vec<Entry>) {
    let mut system = System::default();
    let mut number = 0;
    let mut rng = Rng::new(seed);
    let history = simulate(
        &mut rng,
        5,
        120,
        &mut system,
        |rng, _| {
            number += 1;
            let key = format!("k{}", rng.below(4));
            let ask = match rng.below(5) {
                0..3 => Ask::Put(key, number.to_string()),
                3 => Ask::Get(key),
                _ => Ask::List,
            };
            (number, ask)
        },
        System::apply,
    );
    let mut claims = Vec::new();
    for call in history {
        let (number, ask) = call.input;
        let (completed_ns, said) = match (ask, call.fate) {
            (Ask::Put(key, value), Fate::Done { completed_ns, output }) => {
                let said = Said::Wrote {
                    command: command(number),
                    revision: output.0,
                    events: vec![put(&key, &value)],
                    answer: None,
                };
                (completed_ns, said)
            }
            (ask, Fate::Done { completed_ns, output }) => {
                let query = match ask {
                    Ask::Get(key) => Query::KvGet(key),
                    _ => Query::KvList("k".to_owned()),
                };
                let said = Said::Read {
                    level: Level::Linearizable,
                    revision: output.0,
                    answers: vec![(query, output.1)],
                };
                (completed_ns, said)
            }
            (Ask::Put(..), Fate::Failed) => (
                0,
                Said::Failed {
                    command: command(number),
                },
            ),
            (Ask::Put(..), Fate::Unknown) => (
                0,
                Said::Unknown {
                    command: command(number),
                },
            ),
            _ => continue,
        };
        claims.push(Claim {
            call: call.id,
            invoked_ns: call.invoked_ns,
            completed_ns,
            said,
        });
    }
    (claims, system.journal)
}

/// The claims that a write was done, by place, with its revision.
fn acknowledged(claims: &[Claim]) -> Vec<(usize, u64)> {
    let revision = |(place, claim): (usize, &Claim)| match claim.said {
        Said::Wrote { revision, .. } => Some((place, revision)),
        _ => None,
    };
    claims.iter().enumerate().filter_map(revision).collect()
}

proptest! {
    #![proptest_config(cases(100))]

    #[test]
    fn what_a_correct_system_said_passes(seed: u64) {
        let (claims, journal) = simulated(seed);
        let findings = judge(&claims, &journal);
        prop_assert_eq!(findings.finding(), Finding::Pass, "{:?}", findings.violations);
    }

    #[test]
    fn what_is_gone_from_a_journal_is_found(seed: u64, pick: prop::sample::Index, node in 0..4usize) {
        let (claims, journal) = simulated(seed);
        let (_, revision) = *pick.get(&acknowledged(&claims));
        let mut cut = journal.clone();
        cut.retain(|entry| entry.revision != revision);
        let of = |which: usize| if node == which || node == 3 { &cut[..] } else { &journal[..] };
        let findings = check(&claims, &[(1, of(0)), (2, of(1)), (3, of(2))]);
        prop_assert!(findings.kinds().contains(&"lost-write"));
    }

    #[test]
    fn entries_that_change_come_twice_or_failed_are_found(seed: u64, pick: prop::sample::Index, what in 0..3) {
        let (mut claims, mut journal) = simulated(seed);
        let whole = journal.clone();
        let (place, revision) = *pick.get(&acknowledged(&claims));
        let kind = match what {
            0 => {
                let entry = journal.iter_mut().find(|entry| entry.revision == revision).expect("it is there");
                entry.events[0]["value"] = "other".into();
                "wrong-effect"
            }
            1 => {
                let mut again = journal.last().expect("there is one").clone();
                again.revision += 1;
                again.command_id = journal.iter().find(|entry| entry.revision == revision).expect("it is there").command_id;
                journal.push(again);
                "applied-twice"
            }
            _ => {
                let Said::Wrote { command, .. } = claims[place].said else { unreachable!("it was a write") };
                claims[place].said = Said::Failed { command };
                "failed-write"
            }
        };
        prop_assert!(judge(&claims, &journal).kinds().contains(&kind));
        if what < 2 {
            prop_assert!(check(&claims, &[(1, &whole), (2, &journal)]).kinds().contains(&"journals-differ"));
        }
    }

    #[test]
    fn acknowledgements_that_change_places_are_found(seed: u64, one: prop::sample::Index, other: prop::sample::Index) {
        let (mut claims, journal) = simulated(seed);
        let acknowledged = acknowledged(&claims);
        let ((one, first), (other, second)) = (*one.get(&acknowledged), *other.get(&acknowledged));
        prop_assume!(first != second);
        for (place, to) in [(one, second), (other, first)] {
            if let Said::Wrote { revision, .. } = &mut claims[place].said {
                *revision = to;
            }
        }
        prop_assert!(judge(&claims, &journal).kinds().contains(&"wrong-command"));
    }

    #[test]
    fn reads_that_are_changed_or_late_are_found(seed: u64, pick: prop::sample::Index, late: bool) {
        let (mut claims, journal) = simulated(seed);
        let newest = claims.iter().map(|claim| claim.completed_ns).max().unwrap_or(0);
        let last = journal.last().map_or(0, |entry| entry.revision);
        let mut reads: Vec<_> = claims.iter_mut().filter_map(|claim| {
            let Said::Read { revision, answers, .. } = &mut claim.said else { return None };
            Some((&mut claim.invoked_ns, &mut claim.completed_ns, *revision, answers))
        }).filter(|(_, _, revision, answers)| !late && !answers[0].1.is_null() && answers[0].1 != json!([]) || late && *revision < last).collect();
        prop_assume!(!reads.is_empty());
        let place = pick.index(reads.len());
        let (invoked, completed, _, answers) = &mut reads[place];
        if late {
            // It says what was so, and by then is so no more.
            **invoked = newest + 1;
            **completed = newest + 2;
        } else {
            let answer = &mut answers[0].1;
            let pair = if answer.is_array() { &mut answer[0] } else { answer };
            pair["value"] = "other".into();
        }
        let kinds = judge(&claims, &journal).kinds();
        // The last entry may be one of unknown outcome, which nobody was told of.
        let told = acknowledged(&claims).iter().any(|(_, revision)| *revision == last);
        prop_assert!(kinds.contains(&if late { "stale-read" } else { "wrong-answer" }) || late && !told, "{:?}", kinds);
    }
}
