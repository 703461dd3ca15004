//! A plan as people read it: what comes into being, what changes from what to what, and how much stays.

use crate::table::{Tone, printable};
use onward_api::wire::manifest::{Action, Difference, Plan};
use serde_json::Value;

/// The longest value that is shown whole, in characters.
const VALUE_CHARS_MAX: usize = 72;

/// `+` and a line for what comes into being, `~` for what changes with a line for each field.
pub(crate) fn steps(plan: &Plan, color: bool) -> String {
    let mut text = String::new();
    for step in &plan.steps {
        let (sign, tone) = match step.action {
            Action::Create => ("+", Tone::Good),
            Action::Update => ("~", Tone::Fair),
            Action::Unchanged => continue,
        };
        let object = printable(&format!("{} {}", step.kind, step.name));
        text.push_str(&format!("{} {}\n", tone.paint(sign, color), object.trim_end()));
        if step.action == Action::Update {
            for difference in &step.fields {
                text.push_str(&format!("    {}\n", line(difference, color)));
            }
        }
    }
    text
}

/// The counts: `1 to create, 2 to update, 3 unchanged`.
pub(crate) fn summary(plan: &Plan) -> String {
    format!(
        "{} to create, {} to update, {} unchanged",
        plan.create, plan.update, plan.unchanged
    )
}

/// One field: `path: old -> new`.
pub(crate) fn line(difference: &Difference, color: bool) -> String {
    let side = |value: &Value, tone: Tone| match value {
        Value::Null => "(none)".to_owned(),
        value => tone.paint(&short(value), color),
    };
    let (from, to) = (
        side(&difference.from, Tone::Bad),
        side(&difference.to, Tone::Good),
    );
    format!("{}: {from} -> {to}", printable(&difference.field))
}

fn short(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(VALUE_CHARS_MAX) {
        Some((end, _)) => format!("{}... ({} bytes)", printable(&text[..end]), text.len()),
        None => printable(&text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use onward_api::wire::manifest::Step;
    use serde_json::json;

    fn step(action: Action, kind: &str, name: &str, fields: Vec<Difference>) -> Step {
        Step {
            action,
            kind: kind.to_owned(),
            name: name.to_owned(),
            before: None,
            after: None,
            fields,
        }
    }

    fn field(field: &str, from: Value, to: Value) -> Difference {
        Difference {
            field: field.to_owned(),
            from,
            to,
        }
    }

    #[test]
    fn a_plan_reads_like_a_diff() {
        let fields = vec![
            field("labels.zone", json!("a"), json!("b")),
            field("index", Value::Null, json!(4)),
            field("macs", json!(["x"]), Value::Null),
        ];
        let plan = Plan {
            steps: vec![
                step(Action::Create, "address_plan", "", Vec::new()),
                step(Action::Update, "machine", "S1", fields),
                step(Action::Unchanged, "machine", "S2", Vec::new()),
            ],
            create: 1,
            update: 1,
            unchanged: 1,
            refused: None,
        };
        assert_eq!(
            steps(&plan, false),
            "+ address_plan\n\
             ~ machine S1\n\
             \x20   labels.zone: \"a\" -> \"b\"\n\
             \x20   index: (none) -> 4\n\
             \x20   macs: [\"x\"] -> (none)\n"
        );
        assert_eq!(summary(&plan), "1 to create, 1 to update, 1 unchanged");
    }

    #[test]
    fn long_values_are_cut() {
        let line = line(&field("body", json!("x"), json!("y".repeat(500))), false);
        assert!(line.ends_with("... (502 bytes)") && line.len() < 120, "{line}");
    }
}
