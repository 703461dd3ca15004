//! What rollouts must keep to, by the journal, by what clients were told, and by the ledger of starts.

use super::{Asked, app};
use crate::checker::ledger::{self, Effect};
use crate::history::{Call, Outcome};
use crate::verdict::Verdict;
use crate::workload::{Complaints, Evidence};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

/// An event of a rollout, as the journal has it.
#[derive(Debug)]
struct Event {
    event: String,
    app: String,
    /// These are 0 where the event has none.
    rollout: u64,
    release: u64,
    instance: u64,
    node: u64,
    /// Whether what failed is tried again.
    again: bool,
}

impl From<&Value> for Event {
    fn from(event: &Value) -> Self {
        let text = |field: &str| event[field].as_str().unwrap_or_default().to_owned();
        let number = |field: &str| event[field].as_u64().unwrap_or_default();
        Event {
            event: text("event"),
            app: text("app"),
            rollout: number("rollout"),
            release: number("release"),
            instance: number("instance"),
            node: number("node"),
            again: !event["next_attempt_at"].is_null(),
        }
    }
}

/// An app as its events leave it.
#[derive(Debug, Clone, Default, PartialEq)]
struct App {
    /// The rollout that is not finished.
    rollout: Option<u64>,
    /// The last that was asked for.
    newest: u64,
    /// The instance of each rollout.
    placed: BTreeMap<u64, u64>,
    /// The instances that were started, and those that answered their health check.
    started: BTreeSet<u64>,
    healthy: BTreeSet<u64>,
    /// The instance that serves.
    active: Option<u64>,
}

impl App {
    /// Takes note of an event; what is wrong with it. `switches`: another instance takes over in the same revision.
    fn take(&mut self, event: &Event, switches: bool) -> Option<&'static str> {
        let instance = self.placed.get(&event.rollout).copied();
        match event.event.as_str() {
            "queued" => {
                let under_way = self.rollout.replace(event.rollout).is_some();
                let newer = event.rollout > self.newest;
                self.newest = event.rollout;
                match (under_way, newer) {
                    (true, _) => Some("two rollouts are under way"),
                    (false, false) => Some("a rollout has the number of another"),
                    (false, true) => None,
                }
            }
            "placed" => {
                let again = self.placed.values().any(|placed| *placed == event.instance);
                self.placed.insert(event.rollout, event.instance);
                again.then_some("an instance is placed twice")
            }
            "started" => match instance {
                Some(instance) => (!self.started.insert(instance)).then_some("an instance is started twice"),
                None => Some("what was not placed is started"),
            },
            "checked" => {
                self.healthy.extend(instance);
                None
            }
            "switched" => {
                self.active = instance;
                let healthy = instance.is_some_and(|instance| self.healthy.contains(&instance));
                (!healthy).then_some("an instance serves that was never healthy")
            }
            "draining" if self.active == Some(event.instance) => {
                self.active = None;
                (!switches).then_some("what serves is stopped, and nothing takes over")
            }
            "ended" => {
                self.active.take_if(|active| *active == event.instance);
                None
            }
            "finished" | "superseded" => self.end(event),
            "failed" if !event.again => self.end(event),
            _ => None,
        }
    }

    fn end(&mut self, event: &Event) -> Option<&'static str> {
        let ended = self.rollout.take();
        (ended != Some(event.rollout)).then_some("a rollout ends that is not under way")
    }
}

/// All apps after each revision that changed one.
struct Walk {
    apps: BTreeMap<String, Vec<(u64, App)>>,
    /// Instances that are in the journal, by app, release and number, with their node.
    placed: BTreeMap<Instance, u64>,
    /// Which command queued which rollout of which app, at which revision.
    queued: BTreeMap<Uuid, (String, u64, u64)>,
}

impl Walk {
    fn new(evidence: &Evidence<'_>, wrong: &mut Complaints) -> Walk {
        let mut walk = Walk {
            apps: BTreeMap::new(),
            placed: BTreeMap::new(),
            queued: BTreeMap::new(),
        };
        for entry in evidence.finals.journal() {
            let of_rollouts = entry.events.iter().filter(|event| event["area"] == "rollouts");
            let events: Vec<Event> = of_rollouts.map(Event::from).collect();
            for event in &events {
                let switches = events
                    .iter()
                    .any(|other| other.event == "switched" && other.app == event.app);
                let history = walk.apps.entry(event.app.clone()).or_default();
                let mut app = history.last().map(|(_, app)| app.clone()).unwrap_or_default();
                if let Some(what) = app.take(event, switches) {
                    let revision = entry.revision;
                    wrong.add(
                        [],
                        format!("{} at revision {revision}: {what}: {event:?}", event.app),
                    );
                }
                history.push((entry.revision, app));
                if event.event == "placed" {
                    let key = (event.app.clone(), event.release, event.instance);
                    walk.placed.insert(key, event.node);
                }
                if event.event == "queued" {
                    let queued = (event.app.clone(), event.rollout, entry.revision);
                    walk.queued.insert(entry.command_id, queued);
                }
            }
        }
        walk
    }

    /// An app as it was at a revision.
    fn at(&self, app: &str, revision: u64) -> App {
        let history = self.apps.get(app).map_or(&[][..], Vec::as_slice);
        let after = history.partition_point(|(at, _)| *at <= revision);
        after
            .checked_sub(1)
            .map(|last| history[last].1.clone())
            .unwrap_or_default()
    }
}

/// Judges a run by its evidence and the ledger.
pub(super) fn judge(evidence: &Evidence<'_>, ledger: &str) -> anyhow::Result<Vec<Verdict>> {
    let mut wrong = Complaints::default();
    let walk = Walk::new(evidence, &mut wrong);
    for call in evidence.calls {
        hold_against(&walk, call, &mut wrong)?;
    }
    let rollouts = walk.queued.len();
    let verdict = wrong.verdict(
        "deploy",
        format!("{rollouts} rollouts, one at a time for each app"),
    );
    // The nodes may be at a later one: each journal was read up to a mark, and the appliers went on.
    let journals = evidence.finals.nodes.iter().map(|node| &node.journal);
    let end = journals
        .filter_map(|journal| Some(journal.last()?.revision))
        .max();
    Ok(vec![verdict, effects(&walk, ledger, end.unwrap_or_default())])
}

/// Holds an answer against the journal.
fn hold_against(walk: &Walk, call: &Call, wrong: &mut Complaints) -> anyhow::Result<()> {
    let asked: Asked = call.demand()?;
    let app = app(asked.key);
    let (Outcome::Ok, Some(revision)) = (call.outcome(), call.revision()) else {
        return Ok(());
    };
    if call.invoke.f == "read" {
        let said: Value = call.answer()?.unwrap_or_default();
        let then = walk.at(&app, revision);
        let was = json!({"rollout": then.rollout, "active": then.active});
        if said != was {
            wrong.add(
                [call.id],
                format!("{app} was {was} at revision {revision}, and read as {said}"),
            );
        }
        return Ok(());
    }
    let number: Option<u64> = call.answer()?;
    let queued = call.invoke.command.and_then(|command| walk.queued.get(&command));
    let right =
        queued.is_some_and(|(of, rollout, at)| *of == app && Some(*rollout) == number && *at == revision);
    if !right {
        let what =
            format!("rollout {number:?} of {app} at {revision} was acknowledged; the journal has {queued:?}");
        wrong.add([call.id], what);
    }
    Ok(())
}

/// Whether each instance was started once, where it was to be, and what is said to be healthy was started at all.
/// The ledger is read after the journal: what was placed later than `end`, where the journal ends, is not judged.
fn effects(walk: &Walk, marks: &str, end: u64) -> Verdict {
    let start = |(app, release, instance): &Instance, node: u64| {
        format!("the start of instance {instance} of {app}, release {release}, on node {node}")
    };
    let is_healthy = |(app, _, instance): &Instance| {
        let last = walk.apps.get(app).and_then(|history| history.last());
        last.is_some_and(|(_, app)| app.healthy.contains(instance))
    };
    let placed = || walk.placed.iter();
    let may = placed().map(|(instance, node)| start(instance, *node)).collect();
    let must = placed().filter(|(instance, _)| is_healthy(instance));
    let must = must.map(|(instance, node)| start(instance, *node)).collect();
    let effect = |mark: &str| {
        let key = match instance_of(mark) {
            Some((_, _, revision)) if revision > end => return None,
            Some((node, instance, _)) => start(&instance, node),
            None => "what is no instance".to_owned(),
        };
        let note = format!("`{mark}`");
        Some(Effect { key, note })
    };
    let effects: Vec<Effect> = marks.lines().filter_map(effect).collect();
    ledger::check(&effects, &must, &may).verdict("effects")
}

/// App, release and number of an instance.
type Instance = (String, u64, u64);

/// Node, instance and revision of a mark: `CLUSTER/NODE/APP/RELEASE/ORDINAL@REVISION`.
fn instance_of(mark: &str) -> Option<(u64, Instance, u64)> {
    let mut parts = mark.split('/').skip(1);
    let node = parts.next()?.parse().ok()?;
    let app = parts.next()?.to_owned();
    let release = parts.next()?.parse().ok()?;
    let (ordinal, revision) = parts.next()?.split_once('@')?;
    let instance = (app, release, ordinal.parse().ok()?);
    Some((node, instance, revision.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::final_state::{Entry, Finals, Node};
    use crate::history::{Complete, Invoke};
    use crate::verdict::Finding;
    use std::path::Path;

    fn entry(revision: u64, events: Vec<Value>) -> Entry {
        Entry {
            revision,
            at: String::new(),
            actor: String::new(),
            command_id: Uuid::from_u128(revision.into()),
            events,
        }
    }

    fn event(name: &str, rollout: u64, instance: u64) -> Value {
        json!({"area": "rollouts", "event": name, "app": "deploy-0", "rollout": rollout, "release": 1,
               "instance": instance, "node": 1, "next_attempt_at": null})
    }

    /// Two rollouts, the second of which takes over from the first.
    fn good() -> Vec<Entry> {
        let each = [
            vec![event("queued", 1, 0)],
            vec![event("placed", 1, 1)],
            vec![event("started", 1, 0)],
            vec![event("checked", 1, 0)],
            vec![event("switched", 1, 0)],
            vec![event("finished", 1, 0)],
            vec![event("queued", 2, 0)],
            vec![event("placed", 2, 2)],
            vec![event("started", 2, 0)],
            vec![event("checked", 2, 0)],
            vec![event("draining", 0, 1), event("switched", 2, 0)],
            vec![event("ended", 0, 1)],
            vec![event("finished", 2, 0)],
        ];
        each.into_iter()
            .zip(10..)
            .map(|(events, at)| entry(at, events))
            .collect()
    }

    const LEDGER: &str = "c/1/deploy-0/1/1@11\nc/1/deploy-0/1/2@17\n";

    fn findings(journal: Vec<Entry>, ledger: &str, calls: &[Call]) -> [Finding; 2] {
        let finals = Finals {
            nodes: vec![Node {
                id: 1,
                revision: 100,
                hash: String::new(),
                status: Value::Null,
                reads: BTreeMap::new(),
                journal_begins: 0,
                journal,
            }],
        };
        let evidence = Evidence {
            calls,
            finals: &finals,
            faults: &[],
            dir: Path::new(""),
        };
        let verdicts = judge(&evidence, ledger).expect("judges");
        [verdicts[0].finding, verdicts[1].finding]
    }

    fn call(f: &str, command: Option<u128>, revision: u64, value: Value) -> Call {
        Call {
            id: 0,
            invoke: Invoke {
                time_ns: 0,
                process: 0,
                node: 1,
                f: f.to_owned(),
                value: json!({"key": 0}),
                command: command.map(Uuid::from_u128),
            },
            complete: Some(Complete {
                time_ns: 1,
                process: 0,
                outcome: Outcome::Ok,
                value,
                revision: Some(revision),
                error: None,
            }),
        }
    }

    const FINE: [Finding; 2] = [Finding::Pass, Finding::Pass];

    #[test]
    fn rollouts_one_after_another_are_fine() {
        let calls = [
            call("deploy", Some(10), 10, json!(1)),
            call("restart", Some(16), 16, json!(2)),
            call("read", None, 15, json!({"rollout": null, "active": 1})),
            call("read", None, 30, json!({"rollout": null, "active": 2})),
        ];
        assert_eq!(findings(good(), LEDGER, &calls), FINE);
    }

    #[test]
    fn what_breaks_a_promise_is_found() {
        type Break = fn(&mut Vec<Entry>);
        let breaks: [(&str, Break); 5] = [
            ("two rollouts under way", |journal| drop(journal.remove(5))),
            ("a second start", |journal| {
                journal[3] = entry(13, vec![event("started", 1, 0)]);
            }),
            ("an instance that was never healthy", |journal| {
                drop(journal.remove(9));
            }),
            ("nothing takes over", |journal| drop(journal[10].events.pop())),
            ("an instance of another rollout", |journal| {
                journal[7] = entry(17, vec![event("placed", 2, 1)]);
            }),
        ];
        for (what, spoil) in breaks {
            let mut journal = good();
            spoil(&mut journal);
            assert_eq!(findings(journal, LEDGER, &[])[0], Finding::Fail, "{what}");
        }
        for lie in [
            call("deploy", Some(99), 10, json!(1)),
            call("deploy", Some(10), 10, json!(2)),
            call("deploy", Some(10), 11, json!(1)),
            call("read", None, 15, json!({"rollout": null, "active": 2})),
        ] {
            assert_eq!(
                findings(good(), LEDGER, std::slice::from_ref(&lie))[0],
                Finding::Fail,
                "{lie:?}"
            );
        }
    }

    #[test]
    fn what_was_placed_after_the_journal_was_read_is_not_judged() {
        let after = good().last().expect("a journal").revision + 1;
        let ledger = format!("{LEDGER}c/1/deploy-0/1/3@{after}\n");
        assert_eq!(findings(good(), &ledger, &[]), FINE);
    }

    #[test]
    fn the_ledger_tells_what_took_effect_twice_or_never() {
        for ledger in [
            "c/1/deploy-0/1/1@11\nc/1/deploy-0/1/2@17\nc/1/deploy-0/1/2@17\n",
            "c/1/deploy-0/1/1@11\n",
            "c/2/deploy-0/1/1@11\nc/1/deploy-0/1/2@17\n",
            "c/1/deploy-0/1/1@11\nc/1/deploy-0/1/2@17\nc/1/deploy-0/1/3@20\n",
            "c/1/deploy-0/1/1@11\nc/1/deploy-0/1/2@17\n?\n",
        ] {
            assert_eq!(
                findings(good(), ledger, &[]),
                [Finding::Pass, Finding::Fail],
                "{ledger}"
            );
        }
    }
}
