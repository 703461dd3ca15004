//! What the checkers say of each workload's calls, beside what the workload itself judges.
//!
//! A workload writes down what clients asked and were told in words of its own; here those are put into the words of
//! the checkers that apply, as `docs/jepsen.md` lists them. What all workloads have in common, that calls are true to
//! the journals, is in [`crate::claims`].

use crate::checker::append::{self, Mop, Txn};
use crate::checker::bank::{self, Account, Snapshot};
use crate::checker::idempotency::{self, Attempt};
use crate::checker::lease::{self, Grant, Guarded};
use crate::checker::set::{self, Add, Look};
use crate::checker::watch::{self, Leg, Watch};
use crate::checker::wgl::register::{Input, Output, Register, Stamped, Versioned};
use crate::checker::wgl::{self, Fate, Op};
use crate::final_state::{Entry, Finals};
use crate::history::{Call, Outcome};
use crate::verdict::Verdict;
use serde_json::Value;

/// The verdicts of the checkers that apply to this workload.
pub fn of(workload: &str, calls: &[Call], finals: &Finals) -> Vec<Verdict> {
    let journal = finals.journal();
    match workload {
        "append" => vec![append(calls)],
        "bank" => vec![bank(calls)],
        "idempotency" => vec![idempotency(calls, journal)],
        "lock" => vec![fencing(calls, journal)],
        "register" => vec![registers(calls)],
        "services" => vec![services(calls)],
        "set" => vec![sets(calls)],
        "watch" => vec![watches(calls, journal)],
        _ => Vec::new(),
    }
}

fn f(call: &Call) -> &str {
    &call.invoke.f
}

fn asked(call: &Call) -> &Value {
    &call.invoke.value
}

/// What was answered, of a call that took place.
fn told(call: &Call) -> Option<&Value> {
    let complete = call.complete.as_ref()?;
    (complete.outcome == Outcome::Ok).then_some(&complete.value)
}

/// Whether the call was refused with this problem: an answer, too.
fn refused(call: &Call, code: &str) -> bool {
    let error = call
        .complete
        .as_ref()
        .and_then(|complete| complete.error.as_deref());
    call.outcome() == Outcome::Fail && error == Some(code)
}

/// An operation on one key, of which `output` is the answer, if there is one.
fn op<I, O>(call: &Call, key: String, input: I, output: Option<O>) -> Op<String, I, O> {
    let fate = match (call.outcome(), call.ended_ns(), output) {
        (_, Some(completed_ns), Some(output)) => Fate::Done { completed_ns, output },
        // What took place without an answer that says so is not known well enough to be held to it.
        (Outcome::Fail, ..) => Fate::Failed,
        _ => Fate::Unknown,
    };
    Op {
        call: call.id,
        process: call.invoke.process,
        key,
        input,
        invoked_ns: call.invoke.time_ns,
        fate,
    }
}

/// Registers by key, with their revisions. Reads that promise less than linearizability have no part in it.
fn registers(calls: &[Call]) -> Verdict {
    let ops = calls.iter().filter_map(|call| {
        let (asked, at) = (asked(call), call.revision());
        let key = asked["key"].as_str()?.to_owned();
        let put = asked["put"].as_u64();
        let ok = call.outcome() == Outcome::Ok;
        Some(match f(call) {
            "read" => {
                let output = told(call).zip(at).map(|(told, at)| Stamped::Read {
                    at,
                    found: told["modified"].as_u64().zip(told["value"].as_u64()),
                });
                op(call, key, Input::Read, output)
            }
            "write" => {
                let output = at.filter(|_| ok).map(|at| Stamped::Written { at });
                op(call, key, Input::Write(put), output)
            }
            "cas" => {
                let done = ok || !refused(call, "kv_revision_mismatch");
                let output = at
                    .filter(|_| ok || !done)
                    .map(|at| Stamped::Compared { at, done });
                let modified = asked["expect"]["modified"].as_u64().unwrap_or(0);
                op(call, key, Input::CompareRevision { modified, to: put }, output)
            }
            _ => return None,
        })
    });
    let ops: Vec<_> = ops.collect();
    wgl::check(&Versioned::default(), &ops, wgl::BUDGET).verdict("linearizable")
}

/// Instances of services as registers of their addresses.
fn services(calls: &[Call]) -> Verdict {
    let ops = calls.iter().filter_map(|call| {
        let asked = asked(call);
        let key = format!("{}/{}", asked["service"], asked["instance"].as_u64()?);
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let written = (call.outcome() == Outcome::Ok).then_some(Output::Written);
        Some(match f(call) {
            "register" => op(call, key, Input::Write(text(&asked["address"])), written),
            "deregister" if refused(call, "catalog_not_found") => {
                op(call, key, Input::Read, Some(Output::Read(None)))
            }
            "deregister" => op(call, key, Input::Write(None), written),
            "get" => {
                let output = told(call).map(|told| Output::Read(text(told)));
                op(call, key, Input::Read, output)
            }
            _ => return None,
        })
    });
    let ops: Vec<_> = ops.collect();
    wgl::check(&Register::default(), &ops, wgl::BUDGET).verdict("linearizable")
}

/// Transactions; of one that did not take place, what it was to do.
fn append(calls: &[Call]) -> Verdict {
    let txn = |call: &Call| {
        let steps = told(call).unwrap_or(&asked(call)["steps"]).as_array()?;
        let ops = steps.iter().map(|step| {
            let key = step[1].to_string();
            match step[0].as_str() {
                Some("append") => Some(Mop::Append {
                    key,
                    value: step[2].as_u64()?,
                }),
                _ => Some(Mop::Read {
                    key,
                    values: serde_json::from_value(step[2].clone()).ok()?,
                }),
            }
        });
        Some(Txn {
            call: call.id,
            process: call.invoke.process,
            invoked_ns: call.invoke.time_ns,
            completed_ns: call.ended_ns(),
            outcome: call.outcome(),
            ops: ops.collect::<Option<_>>()?,
        })
    };
    let txns: Vec<_> = calls.iter().filter_map(txn).collect();
    append::check(&txns).verdict("append")
}

/// Snapshots of accounts: of all in reads, of two in transfers. What the first one holds, all hold.
fn bank(calls: &[Call]) -> Verdict {
    let snapshot = |call: &Call| {
        let saw = told(call)?;
        let account = |account: &Value| {
            Some(Account {
                account: account[0].as_u64()?,
                balance: account[1].as_u64()?,
                serial: account[2].as_str()?.to_owned(),
            })
        };
        Some(Snapshot {
            call: call.id,
            at: saw["at"].as_str()?.to_owned(),
            accounts: saw["accounts"]
                .as_array()?
                .iter()
                .map(account)
                .collect::<Option<_>>()?,
        })
    };
    let reads = calls
        .iter()
        .filter(|call| f(call).starts_with("read"))
        .filter_map(snapshot);
    let first = reads.max_by_key(|snapshot| (snapshot.accounts.len(), std::cmp::Reverse(snapshot.call)));
    let (accounts, total) = match &first {
        Some(first) => {
            let balances = first.accounts.iter().map(|account| account.balance);
            (first.accounts.len(), balances.sum())
        }
        // Nobody saw the whole bank, so nothing is said of its sum.
        None => (usize::MAX, 0),
    };
    let snapshots: Vec<_> = calls.iter().filter_map(snapshot).collect();
    bank::check(&snapshots, accounts, total).verdict("bank")
}

/// Every time that a command was sent.
fn idempotency(calls: &[Call], journal: &[Entry]) -> Verdict {
    let mut attempts = Vec::new();
    for call in calls {
        let complete = call.complete.as_ref();
        let sent = complete.and_then(|complete| complete.value.as_array());
        for (sent, command) in sent
            .into_iter()
            .flatten()
            .zip(std::iter::repeat(call.invoke.command))
        {
            let Some(command) = command else { continue };
            attempts.push(Attempt {
                call: call.id,
                command,
                outcome: serde_json::from_value(sent["outcome"].clone()).unwrap_or(Outcome::Info),
                revision: sent["revision"].as_u64(),
                said: sent["said"].to_string(),
                changes: f(call) != "refuse",
            });
        }
    }
    let journal: Vec<_> = journal.iter().map(|entry| entry.command_id).collect();
    idempotency::check(&attempts, &journal).verdict("once")
}

/// Tokens of locks, and the writes that they guarded, in the order of the journal.
fn fencing(calls: &[Call], journal: &[Entry]) -> Verdict {
    let grant = |call: &Call| {
        let asked = asked(call);
        Some(Grant {
            call: call.id,
            lock: asked["lock"].to_string(),
            holder: asked["holder"].as_u64()?,
            token: call.revision().filter(|_| told(call).is_some())?,
            invoked_ns: call.invoke.time_ns,
            completed_ns: call.ended_ns()?,
        })
    };
    let grants = calls.iter().filter(|call| f(call) == "acquire").filter_map(grant);
    let write = |event: &Value| {
        let lock = event["key"].as_str()?.strip_prefix("guarded/")?.to_owned();
        let token = event["value"].as_str()?.split(' ').next()?.parse().ok()?;
        Some(Guarded { lock, token })
    };
    let writes = journal.iter().flat_map(|entry| &entry.events).filter_map(write);
    lease::fencing(&grants.collect::<Vec<_>>(), &writes.collect::<Vec<_>>()).verdict("fencing")
}

/// What was added, and every look at a whole set.
fn sets(calls: &[Call]) -> Verdict {
    let (mut adds, mut looks) = (Vec::new(), Vec::new());
    for call in calls {
        let Some(set) = asked(call)["set"].as_u64() else {
            continue;
        };
        if let Some(element) = asked(call)["add"].as_u64() {
            adds.push(Add {
                call: call.id,
                set,
                element,
                invoked_ns: call.invoke.time_ns,
                completed_ns: call.ended_ns(),
                outcome: call.outcome(),
            });
        } else if let (Some(elements), Some(completed_ns)) = (told(call), call.ended_ns()) {
            looks.push(Look {
                call: Some(call.id),
                set,
                invoked_ns: call.invoke.time_ns,
                completed_ns,
                elements: serde_json::from_value(elements.clone()).unwrap_or_default(),
            });
        }
    }
    set::check(&adds, &looks).verdict("set")
}

/// Every stream, against all that happened to pairs: each is judged for itself from where it was asked to go on.
fn watches(calls: &[Call], journal: &[Entry]) -> Verdict {
    let mut findings: Option<crate::checker::Findings> = None;
    for (name, prefix) in [("watch-events", ""), ("watch-kv", "watch/")] {
        let truth: Vec<_> = journal
            .iter()
            .filter_map(|entry| happened(entry, prefix))
            .collect();
        let streams = calls.iter().filter(|call| f(call) == name);
        let watches: Vec<_> = streams.filter_map(stream).collect();
        let found = watch::check(&watches, &truth);
        findings = Some(match findings {
            None => found,
            Some(mut all) => {
                all.looked_at = format!("{}; {}", all.looked_at, found.looked_at);
                all.judged = all.judged.min(found.judged);
                all.violations.extend(found.violations);
                all.undecided.extend(found.undecided);
                all
            }
        });
    }
    findings.expect("there are two kinds of streams").verdict("watch")
}

fn stream(call: &Call) -> Option<Watch> {
    let watched = told(call)?;
    let leg = Leg {
        call: call.id,
        after: asked(call)["after"].as_u64()?,
        to: watched["to"].as_u64()?,
        seen: serde_json::from_value(watched["seen"].clone()).ok()?,
        compacted: watched["compacted"].as_u64(),
    };
    Some(Watch {
        watcher: format!("process {} on node {}", call.invoke.process, call.invoke.node),
        legs: vec![leg],
    })
}

/// What happened to pairs whose key begins so, in the words in which the workload keeps it.
fn happened(entry: &Entry, prefix: &str) -> Option<(u64, String)> {
    let text = |event: &Value, member: &str| event[member].as_str().map(str::to_owned);
    let each = entry.events.iter().filter_map(|event| {
        let key = text(event, "key").unwrap_or_default();
        if event["area"] != "kv" || !key.starts_with(prefix) {
            return None;
        }
        Some(match text(event, "value") {
            Some(value) => format!("{key}={value}"),
            None => format!("{key} {}", text(event, "event").unwrap_or_default()),
        })
    });
    let each: Vec<_> = each.collect();
    (!each.is_empty()).then(|| (entry.revision, each.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Complete, Invoke};
    use crate::verdict::Finding;
    use serde_json::json;
    use uuid::Uuid;

    /// A call of a process of its own, at the time that its id says, which took place.
    fn call(id: u64, f: &str, asked: Value, answer: Value, revision: u64) -> Call {
        Call {
            id,
            invoke: Invoke {
                time_ns: id * 10,
                process: id,
                node: 1,
                f: f.to_owned(),
                value: asked,
                command: Some(Uuid::from_u128(u128::from(id))),
            },
            complete: Some(Complete {
                time_ns: id * 10 + 5,
                process: id,
                outcome: Outcome::Ok,
                value: answer,
                revision: Some(revision),
                error: None,
            }),
        }
    }

    fn finding(workload: &str, calls: &[Call]) -> Finding {
        let verdicts = of(workload, calls, &Finals::default());
        assert_eq!(verdicts.len(), 1, "{verdicts:?}");
        verdicts[0].finding
    }

    /// Workloads whose last call, if it is answered `wrong`, must not pass, and passes as it is.
    fn turns(workload: &str, calls: &[Call], wrong: Value) {
        assert_eq!(finding(workload, calls), Finding::Pass, "{workload}");
        let mut bad = calls.to_vec();
        let last = bad.last_mut().expect("there is one");
        last.complete.as_mut().expect("it took place").value = wrong;
        assert_eq!(finding(workload, &bad), Finding::Fail, "{workload}");
    }

    #[test]
    fn registers_and_services_are_linearizable() {
        let cas = json!({"key": "x", "put": 2, "expect": {"value": 1, "modified": 3}});
        let read = json!({"key": "x"});
        let calls = [
            call(0, "write", json!({"key": "x", "put": 1}), Value::Null, 3),
            call(1, "read", read.clone(), json!({"value": 1, "modified": 3}), 4),
            call(2, "cas", cas, Value::Null, 5),
            call(3, "read", read, json!({"value": 2, "modified": 5}), 6),
        ];
        turns("register", &calls, json!({"value": 1, "modified": 3}));
        let instance = json!({"service": 1, "instance": 0});
        let registered = json!({"service": 1, "instance": 0, "address": "10.0.0.1"});
        let calls = [
            call(0, "register", registered, Value::Null, 3),
            call(1, "get", instance.clone(), json!("10.0.0.1"), 3),
            call(2, "deregister", instance.clone(), Value::Null, 4),
            call(3, "get", instance, Value::Null, 4),
        ];
        turns("services", &calls, json!("10.0.0.1"));
    }

    #[test]
    fn transactions_sets_and_banks_are_judged() {
        let steps = |value: Value| json!({"round": 0, "steps": value});
        let calls = [
            call(
                0,
                "txn",
                steps(json!([["append", 1, 7]])),
                json!([["append", 1, 7]]),
                2,
            ),
            call(
                1,
                "read",
                steps(json!([["r", 1, null]])),
                json!([["r", 1, [7]]]),
                2,
            ),
        ];
        turns("append", &calls, json!([["r", 1, []]]));
        let calls = [
            call(0, "add", json!({"set": 0, "add": 1}), Value::Null, 2),
            call(1, "read", json!({"set": 0}), json!([1]), 2),
        ];
        turns("set", &calls, json!([]));
        let saw = |balance: u64| json!({"at": "02", "accounts": [[1, balance, "02"], [2, 100, "01"]]});
        let calls = [
            call(0, "read", json!({}), saw(100), 2),
            call(1, "read", json!({}), saw(100), 2),
        ];
        turns("bank", &calls, saw(101));
    }

    #[test]
    fn what_is_sent_again_and_what_is_guarded_are_judged() {
        let sent = |said: &str| {
            let sent = |said: &str| json!({"node": 1, "outcome": "ok", "revision": 2, "said": said});
            json!([sent("kv_revision_mismatch"), sent(said)])
        };
        let calls = [call(
            0,
            "refuse",
            json!({"key": 1}),
            sent("kv_revision_mismatch"),
            2,
        )];
        turns("idempotency", &calls, sent("done"));

        let asked = json!({"lock": 0, "holder": 1, "token": 0});
        let acquired = |id, token| call(id, "acquire", asked.clone(), Value::Null, token);
        assert_eq!(finding("lock", &[acquired(0, 3), acquired(1, 5)]), Finding::Pass);
        assert_eq!(finding("lock", &[acquired(0, 5), acquired(1, 3)]), Finding::Fail);
    }

    #[test]
    fn watches_are_held_against_the_journal() {
        let put = |revision: u64, key: &str| Entry {
            revision,
            at: String::new(),
            actor: "client".to_owned(),
            command_id: Uuid::nil(),
            events: vec![json!({"area": "kv", "event": "put", "key": key, "value": "1"})],
        };
        let journal = [put(2, "watch/1"), put(3, "other"), put(4, "watch/2")];
        let watched =
            |f: &str, seen: Value| call(0, f, json!({"after": 0}), json!({"to": 4, "seen": seen}), 0);
        let kv = watched("watch-kv", json!([[2, "watch/1=1"], [4, "watch/2=1"]]));
        let all = json!([[2, "watch/1=1"], [3, "other=1"], [4, "watch/2=1"]]);
        let verdict = |calls: &[Call]| watches(calls, &journal).finding;
        assert_eq!(
            verdict(&[kv.clone(), watched("watch-events", all)]),
            Finding::Pass
        );
        let gap = watched("watch-events", json!([[2, "watch/1=1"], [4, "watch/2=1"]]));
        assert_eq!(verdict(&[kv.clone(), gap]), Finding::Fail);
        assert_eq!(verdict(&[kv]), Finding::Unknown, "nobody watched all events");
    }
}
