//! Instances of services. An instance that did not renew in time becomes critical, and never before its time.

use super::{Broken, Moment, text};
use chrono::DateTime;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// All instances by service and name.
#[derive(Default)]
pub(super) struct Instances(BTreeMap<(String, String), Instance>);

struct Instance {
    spec: Value,
    passing: bool,
    maintenance: bool,
    /// When its health last began to last: when it renewed, or became critical.
    since: String,
    renewed: String,
    created: u64,
    modified: u64,
    health_since: u64,
}

impl Instance {
    fn set_health(&mut self, moment: Moment<'_>, passing: bool) {
        if self.passing != passing {
            self.passing = passing;
            self.health_since = moment.revision;
        }
        moment.at.clone_into(&mut self.since);
        if passing {
            moment.at.clone_into(&mut self.renewed);
        }
    }

    /// Whether what lasts as long as the member of its spec says was over.
    fn is_over(&self, member: &str, at: &str) -> bool {
        let time = |text: &str| DateTime::parse_from_rfc3339(text).ok();
        let (Some(since), Some(at), Some(lasts)) = (time(&self.since), time(at), self.spec[member].as_i64())
        else {
            return false;
        };
        at.signed_duration_since(since).num_milliseconds() >= lasts
    }

    fn json(&self, (service, instance): &(String, String)) -> Value {
        json!({
            "service": service,
            "instance": instance,
            "spec": self.spec,
            "health": if self.passing { "passing" } else { "critical" },
            "maintenance": self.maintenance,
            "serving": self.passing && !self.maintenance,
            "renewed": self.renewed,
            "created": self.created,
            "modified": self.modified,
            "health_since": self.health_since,
        })
    }
}

impl Instances {
    pub(super) fn apply(&mut self, moment: Moment<'_>, event: &Value, broken: &mut Vec<Broken>) {
        let id = (
            text(event, "service").to_owned(),
            text(event, "instance").to_owned(),
        );
        let kind = text(event, "event");
        let expired = event["cause"] == "expired";
        if kind == "registered" {
            let instance = self.0.entry(id).or_insert_with(|| Instance {
                spec: Value::Null,
                passing: true,
                maintenance: false,
                since: String::new(),
                renewed: String::new(),
                created: moment.revision,
                modified: 0,
                health_since: moment.revision,
            });
            instance.spec = event["spec"].clone();
            instance.modified = moment.revision;
            instance.set_health(moment, true);
            return;
        }
        let Some(instance) = self.0.get_mut(&id) else {
            let what = format!("{kind} happened to instance {id:?}, which is not registered");
            broken.push(Broken::new("instance-not-there", what));
            return;
        };
        let lasts = if instance.passing {
            "ttl_ms"
        } else {
            "deregister_after_ms"
        };
        if expired && !instance.is_over(lasts, moment.at) {
            let since = &instance.since;
            let what = format!(
                "instance {id:?} expired at {}, before the {lasts} of {} from {since} was over",
                moment.at, instance.spec
            );
            broken.push(Broken::new("expired-early", what));
        }
        match kind {
            "renewed" => instance.set_health(moment, true),
            "health_changed" => instance.set_health(moment, event["health"] == "passing"),
            "maintenance_set" => {
                instance.maintenance = event["on"] == true;
                instance.modified = moment.revision;
            }
            "deregistered" => {
                self.0.remove(&id);
            }
            _ => {}
        }
    }

    pub(super) fn get(&self, service: &str, instance: &str) -> Value {
        let id = (service.to_owned(), instance.to_owned());
        self.0.get(&id).map_or(Value::Null, |found| found.json(&id))
    }

    pub(super) fn list(&self, service: &str) -> Value {
        let of_service = self.0.iter().filter(|((name, _), _)| name == service);
        of_service.map(|(id, instance)| instance.json(id)).collect()
    }
}
