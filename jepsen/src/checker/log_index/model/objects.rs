//! Objects: what each transaction wrote. Tids only grow, and nobody overwrites what it has not read.

use super::{Broken, Verdict, text};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The serial of what does not exist.
const NONE: &str = "0000000000000000";

/// All objects by oid, each with the serial of its last transaction, and whether that left anything.
#[derive(Default)]
pub(super) struct Objects {
    objects: BTreeMap<String, (String, bool)>,
    last: String,
}

impl Objects {
    pub(super) fn apply(&mut self, event: &Value, broken: &mut Vec<Broken>) {
        if text(event, "event") != "committed" {
            return;
        }
        let tid = text(event, "tid").to_owned();
        // They have 16 digits each, so their order as text is that of the numbers.
        if tid <= self.last {
            let what = format!("tid {tid} comes after {}", self.last);
            broken.push(Broken::new("tids-fall", what));
        }
        for write in event["writes"].as_array().into_iter().flatten() {
            let exists = !write["size"].is_null();
            let oid = text(write, "oid").to_owned();
            self.objects.insert(oid, (tid.clone(), exists));
        }
        self.last = tid;
    }

    pub(super) fn get(&self, oid: &str) -> Value {
        match self.objects.get(oid) {
            Some((serial, true)) => json!({"oid": oid, "serial": serial, "next": null}),
            _ => Value::Null,
        }
    }

    /// A transaction that was committed: nothing that it read had changed.
    pub(super) fn commit(&self, body: &Value, tid: &str) -> Verdict {
        let list = |member: &str| body[member].as_array().cloned().unwrap_or_default();
        let mut answer = Ok(());
        for part in list("writes").iter().chain(&list("checks")) {
            let oid = text(part, "oid");
            let read = part["read"].as_str().unwrap_or(NONE);
            let (serial, exists) = match self.objects.get(oid) {
                Some((serial, exists)) => (serial.as_str(), *exists),
                None => (NONE, false),
            };
            // What was deleted and what never was are the same to a reader.
            if read != serial && (exists || read != NONE) {
                answer = Err(format!(
                    "it read object {oid} at {read}, which was at {serial} by then, and was committed"
                ));
            }
        }
        let mut writes = list("writes");
        writes.sort_by(|one, other| text(one, "oid").cmp(text(other, "oid")));
        let writes: Vec<_> = writes.iter().map(|write| json!({"oid": write["oid"]})).collect();
        let committed = json!({"area": "objects", "event": "committed", "tid": tid, "writes": writes});
        Verdict {
            answer,
            events: vec![committed],
        }
    }
}
