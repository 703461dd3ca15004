//! Machines. No two have an address, a slot or a hardware address in common, and each goes through its life in order.

use super::{Broken, Moment, Verdict, number, text};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// All machines by serial, and who has what.
#[derive(Default)]
pub(super) struct Machines {
    machines: BTreeMap<String, Value>,
    /// What only one machine can have, as `address 10.0.0.1`.
    owners: BTreeMap<String, String>,
}

/// What may come after each state of a machine's life.
fn may_become(from: &str) -> &'static [&'static str] {
    match from {
        "uninitialized" => &["healthy", "retiring"],
        "healthy" => &["unhealthy", "unreachable", "updating", "retiring"],
        "unhealthy" => &["healthy", "unreachable", "updating", "retiring"],
        "unreachable" => &["healthy", "unhealthy", "updating", "retiring"],
        "updating" | "retired" => &["uninitialized"],
        "retiring" => &["retired"],
        _ => &[],
    }
}

/// What of a machine nobody else can have.
fn exclusive(machine: &Value) -> Vec<String> {
    let items = |member: &str| machine[member].as_array().cloned().unwrap_or_default();
    let mut all = vec![format!("slot {}/{}", machine["rack"], machine["index"])];
    all.extend(items("macs").iter().map(|mac| format!("hardware address {mac}")));
    all.extend(
        items("addresses")
            .iter()
            .map(|address| format!("address {}", address["ip"])),
    );
    if machine["bmc"]["address"].is_string() {
        all.push(format!("address {}", machine["bmc"]["address"]));
    }
    all
}

impl Machines {
    pub(super) fn apply(&mut self, moment: Moment<'_>, event: &Value, broken: &mut Vec<Broken>) {
        let serial = text(event, "serial").to_owned();
        let kind = text(event, "event");
        let before = self.machines.remove(&serial);
        for what in before.iter().flat_map(exclusive) {
            self.owners.remove(&what);
        }
        let mut machine = match (kind, before) {
            ("registered", before) => {
                if before.is_some() {
                    let what = format!("{serial} was registered, and is there");
                    broken.push(Broken::new("machine-twice", what));
                }
                registered(moment, event)
            }
            (_, Some(before)) => before,
            (_, None) => {
                let what = format!("{kind} happened to {serial}, which is not registered");
                broken.push(Broken::new("machine-not-there", what));
                return;
            }
        };
        match kind {
            "deleted" => {
                if machine["state"] != "retired" {
                    let what = format!("{serial} was deleted, and is {}", machine["state"]);
                    broken.push(Broken::new("machine-life", what));
                }
                return;
            }
            "redeclared" | "relabelled" => {
                for member in ["role", "labels", "macs", "bmc"] {
                    if let Some(value) = event.get(member) {
                        machine[member] = value.clone();
                    }
                }
                machine["generation"] = (number(&machine, "generation") + 1).into();
            }
            "state_changed" => change_state(&mut machine, moment, event, broken),
            _ => {}
        }
        machine["modified"] = moment.revision.into();
        for what in exclusive(&machine) {
            if let Some(owner) = self.owners.insert(what.clone(), serial.clone()) {
                let what = format!("{what} is given to {serial}, and {owner} has it");
                broken.push(Broken::new("given-twice", what));
            }
        }
        self.machines.insert(serial, machine);
    }

    /// A machine that is to be in a state: where it is there already, nothing happens.
    pub(super) fn take_to(&self, serial: &str, to: &str) -> Verdict {
        let from = self.get(serial)["state"].clone();
        let (mut answer, mut events) = (Ok(()), Vec::new());
        if from != to {
            if !may_become(from.as_str().unwrap_or_default()).contains(&to) {
                answer = Err(format!("{serial} was taken from {from} to {to}"));
            }
            let changed = json!({
                "area": "machines", "event": "state_changed", "serial": serial, "from": from, "to": to,
            });
            events.push(changed);
        }
        Verdict { answer, events }
    }

    pub(super) fn get(&self, serial: &str) -> Value {
        self.machines.get(serial).cloned().unwrap_or_default()
    }

    pub(super) fn list(&self) -> Value {
        self.machines.values().cloned().collect()
    }
}

fn registered(moment: Moment<'_>, event: &Value) -> Value {
    let mut machine = json!({
        "state": "uninitialized",
        "status": {"since": moment.at, "from": null, "reason": "registered", "by": moment.actor},
        "registered_at": moment.at,
        "generation": 1,
        "created": moment.revision,
    });
    for member in [
        "serial",
        "rack",
        "index",
        "role",
        "labels",
        "macs",
        "bmc",
        "addresses",
    ] {
        machine[member] = event[member].clone();
    }
    machine
}

fn change_state(machine: &mut Value, moment: Moment<'_>, event: &Value, broken: &mut Vec<Broken>) {
    let (from, to) = (text(event, "from"), text(event, "to"));
    if machine["state"] != from || !may_become(from).contains(&to) {
        let what = format!(
            "{} went from {from} to {to}, and was {}",
            machine["serial"], machine["state"]
        );
        broken.push(Broken::new("machine-life", what));
    }
    machine["state"] = to.into();
    machine["status"] = json!({
        "since": moment.at,
        "from": from,
        "reason": event["reason"],
        "by": moment.actor,
    });
}
