//! What clients of each workload claim, in the words of the log-index checker.
//!
//! Every call that writes is held against the journals, whichever the workload; what it must have done, and what reads
//! were told, is known for those workloads that write it down in a form that the checker's models answer in, too.

use crate::checker::log_index::{Claim, Demand, Level, Query, Said};
use crate::history::{Call, Outcome};
use serde_json::{Value, json};

/// What a call of this workload claims; nothing where it reads and does not say at which revision.
pub fn of(workload: &str, call: &Call) -> Option<Claim> {
    let complete = call.complete.as_ref();
    let said = match (call.invoke.command, call.outcome(), call.revision()) {
        // What the log refused took place as a refusal, and must not have changed anything.
        (Some(command), Outcome::Ok, _)
            if (workload, call.invoke.f.as_str()) == ("idempotency", "refuse") =>
        {
            Said::Failed { command }
        }
        (Some(command), Outcome::Ok, Some(revision)) => {
            let (events, answer) = done(workload, call).unwrap_or_default();
            Said::Wrote {
                command,
                revision,
                events,
                answer,
            }
        }
        // It was done, and no revision says where: that much is known of one whose outcome is not.
        (Some(command), Outcome::Ok | Outcome::Info, _) => Said::Unknown { command },
        (Some(command), Outcome::Fail, _) => Said::Failed { command },
        (None, Outcome::Ok, Some(revision)) => Said::Read {
            level: level(&call.invoke.f, &call.invoke.value),
            revision,
            answers: read(workload, call).unwrap_or_default(),
        },
        (None, ..) => return None,
    };
    Some(Claim {
        call: call.id,
        invoked_ns: call.invoke.time_ns,
        completed_ns: complete.map_or(u64::MAX, |complete| complete.time_ns),
        said,
    })
}

/// What was promised of a read.
fn level(f: &str, asked: &Value) -> Level {
    match (f, asked["at_least"].as_u64()) {
        (_, Some(revision)) => Level::AtLeast(revision),
        ("read" | "get" | "list" | "backup", None) => Level::Linearizable,
        _ => Level::Local,
    }
}

/// What a call must have done: the events, and what it must have been answered.
fn done(workload: &str, call: &Call) -> Option<(Vec<Value>, Option<Demand>)> {
    let asked = &call.invoke.value;
    let answer = &call.complete.as_ref()?.value;
    let instance = |event: &str, service: String, instance: String| json!({"area": "catalog", "event": event, "service": service, "instance": instance});
    let event = match (workload, call.invoke.f.as_str()) {
        // Whatever is accepted changes something.
        ("audit", _) => json!({}),
        ("register", _) => put(asked["key"].as_str()?, &asked["put"]),
        ("set", _) => put(&format!("set/{}/{}", asked["set"], asked["add"]), &asked["add"]),
        ("watch", "write") => put(&format!("watch/{}", asked["put"][0]), &asked["put"][1]),
        ("backup", "put") => {
            json!({"area": "kv", "event": "put", "key": format!("backup/{}", asked["key"])})
        }
        ("watch", "compact") => {
            let below = asked["compact"].as_u64()? + 1;
            json!({"area": "system", "event": "journal_compacted", "below": below})
        }
        ("bank", "transfer") => return transfer(answer),
        ("idempotency", "count") => put(&format!("count/{}", asked["key"]), &asked["key"]),
        ("idempotency", "allocate") => {
            let sent = answer.as_array()?.iter().find(|sent| sent["outcome"] == "ok")?;
            json!({"area": "objects", "event": "oids_allocated", "first": sent["said"], "count": 1})
        }
        ("services", "register") => {
            let (service, name) = (
                format!("service-{}", asked["service"]),
                format!("i{}", asked["instance"]),
            );
            let mut event = instance("registered", service, name);
            event["spec"] = json!({"address": asked["address"]});
            event
        }
        ("services", "deregister") => {
            let (service, name) = (
                format!("service-{}", asked["service"]),
                format!("i{}", asked["instance"]),
            );
            instance("deregistered", service, name)
        }
        ("lock", "acquire") => instance(
            "registered",
            format!("lock-{}", asked["lock"]),
            "holder".to_owned(),
        ),
        ("lock", "release") => instance(
            "deregistered",
            format!("lock-{}", asked["lock"]),
            "holder".to_owned(),
        ),
        ("machines", "state") => {
            let text = |member: &str| Some(asked[member].as_str()?.to_owned());
            return Some((
                vec![],
                Some(Demand::MachineState(text("serial")?, text("state")?)),
            ));
        }
        ("machines", f) => machine(f, asked, answer)?,
        _ => return None,
    };
    Some((vec![event], None))
}

fn put(key: &str, value: &Value) -> Value {
    json!({"area": "kv", "event": "put", "key": key, "value": value.to_string()})
}

/// A transfer wrote both accounts, and nobody had changed them since they were read.
fn transfer(saw: &Value) -> Option<(Vec<Value>, Option<Demand>)> {
    let tid = saw["tid"].as_str()?.to_owned();
    let write = |account: &Value| {
        let oid = account[0].as_u64()?;
        Some(json!({"oid": format!("{oid:016x}"), "read": account[2]}))
    };
    let writes: Option<Vec<Value>> = saw["accounts"].as_array()?.iter().map(write).collect();
    Some((
        vec![],
        Some(Demand::ObjectsCommit(json!({"writes": writes?}), tid)),
    ))
}

fn machine(f: &str, asked: &Value, answer: &Value) -> Option<Value> {
    let mut event = json!({"area": "machines", "serial": asked["serial"]});
    match f {
        "register" => {
            event["event"] = "registered".into();
            for member in ["rack", "index", "addresses"] {
                event[member] = answer[member].clone();
            }
        }
        "delete" => event["event"] = "deleted".into(),
        "claim" => {
            event["event"] = "relabelled".into();
            event["labels"] = json!({"owner": format!("client-{}", asked["owner"])});
        }
        "release" => event["event"] = "relabelled".into(),
        _ => return None,
    }
    Some(event)
}

/// What a read asked, and what it was told.
fn read(workload: &str, call: &Call) -> Option<Vec<(Query, Value)>> {
    let asked = &call.invoke.value;
    let answer = &call.complete.as_ref()?.value;
    let one = match (workload, call.invoke.f.as_str()) {
        ("append", "read") => return lists(&asked["round"], answer),
        ("register", _) => {
            let pair = match &answer["value"] {
                Value::Null => Value::Null,
                value => json!({"value": value.to_string(), "modified": answer["modified"]}),
            };
            (Query::KvGet(asked["key"].as_str()?.to_owned()), pair)
        }
        ("set", _) => {
            let prefix = format!("set/{}/", asked["set"]);
            let keys = answer
                .as_array()?
                .iter()
                .map(|element| format!("{prefix}{element}"));
            let mut keys: Vec<_> = keys.collect();
            keys.sort();
            let pairs = keys.into_iter().map(|key| json!({"key": key}));
            (Query::KvList(prefix), pairs.collect())
        }
        ("services", "get") => {
            let (service, name) = (
                format!("service-{}", asked["service"]),
                format!("i{}", asked["instance"]),
            );
            (Query::Instance(service, name), with_address(answer))
        }
        ("services", "list") => {
            let item = |item: &Value| {
                let mut instance = with_address(&item[1]);
                instance["instance"] = format!("i{}", item[0]).into();
                instance
            };
            let items = answer.as_array()?.iter().map(item).collect();
            (Query::Instances(format!("service-{}", asked["service"])), items)
        }
        ("lock", "read") => {
            let holder = match &answer["token"] {
                Value::Null => Value::Null,
                token => json!({
                    "created": token,
                    "health": answer["health"],
                    "spec": {"metadata": {"holder": answer["holder"]}},
                }),
            };
            let lock = format!("lock-{}", asked["lock"]);
            (Query::Instance(lock, "holder".to_owned()), holder)
        }
        ("machines", "read") => {
            let machine = match &answer["created"] {
                Value::Null => Value::Null,
                created => json!({
                    "created": created,
                    "state": answer["state"],
                    "addresses": answer["addresses"],
                    "labels": {"owner": answer["owner"]},
                }),
            };
            (Query::Machine(asked["serial"].as_str()?.to_owned()), machine)
        }
        _ => return None,
    };
    Some(vec![one])
}

/// The lists that a transaction read, each as it is stored: as text, and not at all while it is empty.
fn lists(round: &Value, steps: &Value) -> Option<Vec<(Query, Value)>> {
    let steps = steps.as_array()?.iter();
    let read = steps.map(|step| {
        let pair = match step[2].as_array()?.as_slice() {
            [] => Value::Null,
            list => json!({"value": json!(list).to_string()}),
        };
        Some((Query::KvGet(format!("append/{round}/{}", step[1])), pair))
    });
    read.collect()
}

/// An instance of which the address alone was kept.
fn with_address(address: &Value) -> Value {
    match address {
        Value::Null => Value::Null,
        address => json!({"spec": {"address": address}}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Complete, Invoke};
    use uuid::Uuid;

    fn call(f: &str, asked: Value, outcome: Outcome, answer: Value, writes: bool) -> Call {
        Call {
            id: 4,
            invoke: Invoke {
                time_ns: 1,
                process: 0,
                node: 1,
                f: f.to_owned(),
                value: asked,
                command: writes.then_some(Uuid::nil()),
            },
            complete: Some(Complete {
                time_ns: 2,
                process: 0,
                outcome,
                value: answer,
                revision: (outcome == Outcome::Ok).then_some(9),
                error: None,
            }),
        }
    }

    fn said(workload: &str, call: &Call) -> Option<Said> {
        of(workload, call).map(|claim| claim.said)
    }

    #[test]
    fn writes_claim_what_they_did_and_reads_what_they_saw() {
        let key = json!({"key": "register/1", "put": 5});
        let write = call("write", key.clone(), Outcome::Ok, Value::Null, true);
        let wrote = Said::Wrote {
            command: Uuid::nil(),
            revision: 9,
            events: vec![json!({"area": "kv", "event": "put", "key": "register/1", "value": "5"})],
            answer: None,
        };
        assert_eq!(said("register", &write), Some(wrote));
        for (outcome, expected) in [
            (Outcome::Info, Said::Unknown { command: Uuid::nil() }),
            (Outcome::Fail, Said::Failed { command: Uuid::nil() }),
        ] {
            let call = call("write", key.clone(), outcome, Value::Null, true);
            assert_eq!(said("register", &call), Some(expected));
        }
        let seen = json!({"value": 5, "modified": 9});
        let read = call("read", json!({"key": "register/1"}), Outcome::Ok, seen, false);
        let saw = Said::Read {
            level: Level::Linearizable,
            revision: 9,
            answers: vec![(
                Query::KvGet("register/1".to_owned()),
                json!({"value": "5", "modified": 9}),
            )],
        };
        assert_eq!(said("register", &read), Some(saw));
        let lost = call("read", json!({}), Outcome::Info, Value::Null, false);
        assert_eq!(said("register", &lost), None);
    }

    #[test]
    fn reads_promise_what_they_are_called() {
        for (f, asked, expected) in [
            ("read", json!({}), Level::Linearizable),
            ("read-local", json!({}), Level::Local),
            ("read-at-least", json!({"at_least": 7}), Level::AtLeast(7)),
        ] {
            assert_eq!(level(f, &asked), expected);
        }
    }
}
