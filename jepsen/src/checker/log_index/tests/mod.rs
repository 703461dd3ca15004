mod domains;
mod system;

use crate::checker::Findings;
use crate::checker::log_index::{Claim, Demand, Keys, Level, Query, Said, check};
use crate::final_state::Entry;
use crate::verdict::Finding;
use serde_json::{Value, json};
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
    let key = Query::KvGet("a".to_owned());
    let claims = [
        wrote(0, (0, 1), 3, vec![put("a", "1")]),
        wrote(1, (2, 3), 5, vec![put("a", "2")]),
        read(2, (4, 5), 5, key, json!({"value": "2"})),
    ];
    let kept = [entry(5, vec![put("a", "2")]), entry(6, vec![compacted])];
    assert_eq!(judge(&claims, &kept).finding(), Finding::Unknown);
    let (writes, _) = claims.split_at(2);
    assert_eq!(
        judge(writes, &kept).finding(),
        Finding::Pass,
        "no answer is left to judge"
    );
    // Somebody had read it before.
    let whole = [vec![entry(3, vec![put("a", "1")])], kept.to_vec()].concat();
    assert_eq!(judge(&claims, &whole).finding(), Finding::Pass);
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
