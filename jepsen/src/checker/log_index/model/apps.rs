//! Apps and their rollouts. An app has one rollout under way and one active instance, and a rollout takes its steps in
//! order, each once an attempt.

use super::{Broken, Moment, number, text};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// All apps by name, and what is under way with each.
#[derive(Default)]
pub(super) struct Apps {
    apps: BTreeMap<String, Value>,
    rolling: BTreeMap<String, Rolling>,
}

/// What is under way with an app.
#[derive(Default)]
struct Rolling {
    /// The last rollout that was asked for.
    last: u64,
    /// The one under way, with the event that it last saw.
    rollout: Option<(u64, String)>,
    /// The instance that its rollout placed.
    placed: Option<(u64, u64)>,
    /// The instance that routes lead to.
    active: Option<(u64, u64)>,
    /// Instances that have not ended.
    live: BTreeSet<(u64, u64)>,
}

impl Apps {
    pub(super) fn apply(&mut self, moment: Moment<'_>, event: &Value, broken: &mut Vec<Broken>) {
        let name = text(event, "app").to_owned();
        let kind = text(event, "event");
        if kind == "removed" {
            self.apps.remove(&name);
            return;
        }
        let before = self.apps.get(&name);
        if before.is_none() && kind != "set" {
            let what = format!("{kind} happened to app {name}, which is not there");
            broken.push(Broken::new("app-not-there", what));
            return;
        }
        let mut app = before.cloned().unwrap_or_else(
            || json!({"name": name, "running": true, "generation": 0, "created": moment.revision}),
        );
        match kind {
            "set" => app["deleting"] = false.into(),
            "deleted" => {
                app["deleting"] = true.into();
                app["running"] = false.into();
            }
            "started" => app["running"] = true.into(),
            "stopped" => app["running"] = false.into(),
            _ => {}
        }
        app["generation"] = (number(&app, "generation") + 1).into();
        app["modified"] = moment.revision.into();
        app["modified_at"] = moment.at.into();
        self.apps.insert(name, app);
    }

    pub(super) fn get(&self, name: &str) -> Value {
        self.apps.get(name).cloned().unwrap_or_default()
    }

    /// Takes note of an event of a rollout or an instance.
    pub(super) fn roll(&mut self, event: &Value, broken: &mut Vec<Broken>) {
        let app = text(event, "app").to_owned();
        let kind = text(event, "event");
        if kind == "forgotten" {
            self.rolling.remove(&app);
            return;
        }
        let rolling = self.rolling.entry(app.clone()).or_default();
        if let Err((rule, what)) = rolling.event(kind, event) {
            broken.push(Broken::new(rule, format!("app {app}: {what}")));
        }
    }
}

/// The rule that is broken, and how.
type Fault = (&'static str, String);

impl Rolling {
    fn event(&mut self, kind: &str, event: &Value) -> Result<(), Fault> {
        let instance = (number(event, "release"), number(event, "instance"));
        match kind {
            "draining" => {
                self.active.take_if(|active| *active == instance);
                Ok(())
            }
            "ended" => {
                self.active.take_if(|active| *active == instance);
                if self.live.remove(&instance) {
                    Ok(())
                } else {
                    let what = format!("instance {} ended twice, or was never placed", instance.1);
                    Err(("instance-not-there", what))
                }
            }
            _ => self.step(kind, number(event, "rollout"), instance, event),
        }
    }

    fn step(&mut self, kind: &str, number: u64, instance: (u64, u64), event: &Value) -> Result<(), Fault> {
        if kind == "queued" {
            let under_way = self.rollout.replace((number, kind.to_owned()));
            let before = std::mem::replace(&mut self.last, number);
            return match under_way {
                Some((other, _)) => {
                    let what = format!("rollout {number} began while {other} was under way");
                    Err(("two-rollouts", what))
                }
                None if number <= before => {
                    let what = format!("rollout {number} was asked for after {before}");
                    Err(("rollouts-fall", what))
                }
                None => Ok(()),
            };
        }
        let Some((_, last)) = self.rollout.as_mut().filter(|(current, _)| *current == number) else {
            let what = format!("{kind} happened to rollout {number}, which is not under way");
            return Err(("rollout-over", what));
        };
        let follows = match kind {
            "started" => last == "placed",
            "checked" => last == "started",
            "switched" => last == "checked",
            "finished" => last == "switched",
            "fetched" => matches!(last.as_str(), "assigned" | "failed"),
            "placed" => matches!(last.as_str(), "assigned" | "fetched" | "failed"),
            _ => true,
        };
        let before = std::mem::replace(last, kind.to_owned());
        match kind {
            "placed" => {
                self.placed = Some(instance);
                self.live.insert(instance);
            }
            "switched" => {
                let active = std::mem::replace(&mut self.active, self.placed);
                if let Some((_, other)) = active {
                    let what = format!("rollout {number} switched while instance {other} was active");
                    return Err(("two-active", what));
                }
            }
            "finished" | "superseded" => self.rollout = None,
            "failed" if event["next_attempt_at"].is_null() => self.rollout = None,
            _ => {}
        }
        if follows {
            Ok(())
        } else {
            Err((
                "rollout-steps",
                format!("rollout {number}: {kind} came after {before}"),
            ))
        }
    }
}
