//! The rules of the domains, and what the models answer.

use super::{entry, judge, kinds, read, rules, time, wrote};
use crate::checker::log_index::{Demand, Query, Said};
use crate::verdict::Finding;
use serde_json::{Value, json};

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
