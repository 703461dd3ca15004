//! Key-value pairs.

use super::super::Keys;
use super::super::answers::agrees;
use super::{Moment, Verdict, text};
use serde_json::{Value, json};
use std::cmp::Ordering;
use std::collections::BTreeMap;

/// All pairs by key. A key that is not text is called by its base64.
#[derive(Default)]
pub(super) struct Pairs(BTreeMap<String, Pair>);

#[derive(Clone)]
struct Pair {
    /// The members that hold the value: `value` or `value_base64`.
    value: Value,
    created: u64,
    modified: u64,
    version: u64,
}

impl Pair {
    fn json(&self, key: Option<&str>) -> Value {
        let mut json = self.value.clone();
        json["created"] = self.created.into();
        json["modified"] = self.modified.into();
        json["version"] = self.version.into();
        if let Some(key) = key {
            json["key"] = key.into();
        }
        json
    }
}

/// The name of the key that an event or a demand is about.
fn key(of: &Value) -> String {
    match of["key_base64"].as_str() {
        Some(base64) => format!("base64:{base64}"),
        None => text(of, "key").to_owned(),
    }
}

/// The members that hold a value.
fn value(of: &Value) -> Value {
    match of["value_base64"].as_str() {
        Some(base64) => json!({"value_base64": base64}),
        None => json!({"value": of["value"]}),
    }
}

impl Pairs {
    pub(super) fn apply(&mut self, moment: Moment<'_>, event: &Value) {
        let key = key(event);
        match text(event, "event") {
            "put" => {
                let before = self.0.get(&key);
                let pair = Pair {
                    value: value(event),
                    created: before.map_or(moment.revision, |pair| pair.created),
                    modified: moment.revision,
                    version: before.map_or(0, |pair| pair.version) + 1,
                };
                self.0.insert(key, pair);
            }
            "deleted" => {
                self.0.remove(&key);
            }
            _ => {}
        }
    }

    pub(super) fn get(&self, key: &str) -> Value {
        self.0.get(key).map_or(Value::Null, |pair| pair.json(Some(key)))
    }

    pub(super) fn list(&self, prefix: &str) -> Value {
        let pairs = self.0.range(prefix.to_owned()..);
        let pairs = pairs.take_while(|(key, _)| key.starts_with(prefix));
        pairs.map(|(key, pair)| pair.json(Some(key))).collect()
    }

    pub(super) fn delete(&self, keys: &Keys, count: u64) -> Verdict {
        let doomed: Vec<&String> = match keys {
            Keys::One(key) => self
                .0
                .get_key_value(key)
                .map(|(key, _)| key)
                .into_iter()
                .collect(),
            Keys::Prefix(prefix) => self.0.keys().filter(|key| key.starts_with(prefix)).collect(),
        };
        let events: Vec<_> = doomed.into_iter().map(|key| deleted(key)).collect();
        let answer = if events.len() as u64 == count {
            Ok(())
        } else {
            Err(format!("there were {} keys to delete, not {count}", events.len()))
        };
        Verdict { answer, events }
    }

    /// A transaction: compares, then one branch, whose operations see those before them.
    pub(super) fn txn(&self, body: &Value, answer: &Value) -> Verdict {
        let list = |member: &str| body[member].as_array().cloned().unwrap_or_default();
        let succeeded = list("compare").iter().all(|compare| self.holds(compare));
        let mut own: BTreeMap<String, Option<Value>> = BTreeMap::new();
        let (mut events, mut results) = (Vec::new(), Vec::new());
        for op in list(if succeeded { "then" } else { "else" }) {
            if let Some(get) = op.get("get") {
                results.push(json!({"got": self.seen(&own, &key(get))}));
            } else if let Some(put) = op.get("put") {
                let (key, value) = (key(put), value(put));
                let mut event = json!({"area": "kv", "event": "put", "key": key});
                for (name, member) in value.as_object().into_iter().flatten() {
                    event[name] = member.clone();
                }
                events.push(event);
                own.insert(key, Some(value));
                results.push(json!("put"));
            } else if let Some(delete) = op.get("delete") {
                let doomed = self.doomed(&own, delete);
                results.push(json!({"deleted": doomed.len()}));
                for key in doomed {
                    events.push(deleted(&key));
                    own.insert(key, None);
                }
            }
        }
        let expected = json!({"succeeded": succeeded, "results": results});
        let answer = if agrees(answer, &expected) {
            Ok(())
        } else {
            Err(format!("it was answered {answer}, not {expected}"))
        };
        Verdict { answer, events }
    }

    /// A pair as an operation sees it, after what its own transaction did.
    fn seen(&self, own: &BTreeMap<String, Option<Value>>, key: &str) -> Value {
        match own.get(key) {
            None => self.0.get(key).map_or(Value::Null, |pair| pair.json(None)),
            Some(None) => Value::Null,
            Some(Some(value)) => {
                let stored = self.0.get(key);
                let pair = Pair {
                    value: value.clone(),
                    created: stored.map_or(0, |pair| pair.created),
                    // Its revision is only being made.
                    modified: 0,
                    version: stored.map_or(0, |pair| pair.version) + 1,
                };
                pair.json(None)
            }
        }
    }

    fn doomed(&self, own: &BTreeMap<String, Option<Value>>, delete: &Value) -> Vec<String> {
        let mut keys: BTreeMap<&String, bool> = self.0.keys().map(|key| (key, true)).collect();
        keys.extend(own.iter().map(|(key, value)| (key, value.is_some())));
        let wanted = |name: &str| match delete["prefix"].as_str() {
            Some(prefix) => name.starts_with(prefix),
            None => name == key(delete),
        };
        let there = keys.into_iter().filter(|(name, there)| *there && wanted(name));
        there.map(|(name, _)| name.clone()).collect()
    }

    fn holds(&self, compare: &Value) -> bool {
        let pair = self.0.get(&key(compare));
        let revision = |member: &str, of: fn(&Pair) -> u64| {
            let given = compare[member].as_u64()?;
            Some(pair.map_or(0, of).cmp(&given))
        };
        let ordering = revision("modified", |pair| pair.modified)
            .or_else(|| revision("created", |pair| pair.created))
            .or_else(|| revision("version", |pair| pair.version))
            .unwrap_or_else(|| {
                let stored = pair.and_then(|pair| pair.value["value"].as_str());
                stored.cmp(&compare["value"].as_str())
            });
        match compare["is"].as_str().unwrap_or("equal") {
            "not_equal" => ordering != Ordering::Equal,
            "greater" => ordering == Ordering::Greater,
            "less" => ordering == Ordering::Less,
            _ => ordering == Ordering::Equal,
        }
    }
}

fn deleted(key: &str) -> Value {
    json!({"area": "kv", "event": "deleted", "key": key})
}
