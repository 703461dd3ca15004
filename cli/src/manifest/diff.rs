//! What differs between two JSON values, field by field, as people read it.

use crate::table::{Tone, printable};
use serde_json::Value;

/// The longest value that is shown whole, in characters.
const VALUE_CHARS_MAX: usize = 72;

/// A field that is not the same on both sides.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Change<'a> {
    /// Where: `labels.zone`, `routes[0].host`.
    path: String,
    from: Option<&'a Value>,
    to: Option<&'a Value>,
}

/// The fields that differ, in order of their names; what is null counts as absent.
pub(crate) fn changes<'a>(from: &'a Value, to: &'a Value) -> Vec<Change<'a>> {
    let mut found = Vec::new();
    compare(String::new(), Some(from), Some(to), &mut found);
    found
}

fn compare<'a>(path: String, from: Option<&'a Value>, to: Option<&'a Value>, found: &mut Vec<Change<'a>>) {
    let from = from.filter(|value| !value.is_null());
    let to = to.filter(|value| !value.is_null());
    match (from, to) {
        (Some(Value::Object(before)), Some(Value::Object(after))) => {
            let names: std::collections::BTreeSet<&String> = before.keys().chain(after.keys()).collect();
            for name in names {
                let inner = if path.is_empty() {
                    name.clone()
                } else {
                    format!("{path}.{name}")
                };
                compare(inner, before.get(name), after.get(name), found);
            }
        }
        (Some(Value::Array(before)), Some(Value::Array(after))) if before.len() == after.len() => {
            for (index, (before, after)) in before.iter().zip(after).enumerate() {
                compare(format!("{path}[{index}]"), Some(before), Some(after), found);
            }
        }
        (from, to) if from != to => found.push(Change { path, from, to }),
        _ => {}
    }
}

impl Change<'_> {
    /// One line: `path: old -> new`.
    pub(crate) fn line(&self, color: bool) -> String {
        let old = self.from.map(|value| Tone::Bad.paint(&short(value), color));
        let new = self.to.map(|value| Tone::Good.paint(&short(value), color));
        let what = match (old, new) {
            (Some(old), Some(new)) => format!("{old} -> {new}"),
            (None, Some(new)) => format!("(none) -> {new}"),
            (Some(old), None) => format!("{old} -> (none)"),
            (None, None) => String::new(),
        };
        format!("{}: {what}", printable(&self.path))
    }
}

fn short(value: &Value) -> String {
    let text = value.to_string();
    if text.chars().count() <= VALUE_CHARS_MAX {
        return printable(&text);
    }
    let head: String = text.chars().take(VALUE_CHARS_MAX).collect();
    format!("{}... ({} bytes)", printable(&head), text.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn lines(from: &Value, to: &Value) -> Vec<String> {
        changes(from, to)
            .iter()
            .map(|change| change.line(false))
            .collect()
    }

    #[test]
    fn only_what_differs_is_shown() {
        let from =
            json!({"same": 1, "labels": {"a": "x", "b": "y"}, "ports": [1, 2], "old": true, "null": null});
        let to = json!({"same": 1, "labels": {"a": "z", "b": "y", "c": ""}, "ports": [1, 3]});
        assert_eq!(
            lines(&from, &to),
            [
                r#"labels.a: "x" -> "z""#,
                r#"labels.c: (none) -> """#,
                "old: true -> (none)",
                "ports[1]: 2 -> 3"
            ]
        );
        assert!(lines(&from, &from).is_empty());
    }

    #[test]
    fn lists_of_other_lengths_are_shown_whole() {
        assert_eq!(
            lines(&json!({"a": [1]}), &json!({"a": [1, 2]})),
            ["a: [1] -> [1,2]"]
        );
    }

    #[test]
    fn long_values_are_cut() {
        let line = &lines(&json!({"a": "x"}), &json!({"a": "y".repeat(500)}))[0];
        assert!(line.ends_with("... (502 bytes)") && line.len() < 110, "{line}");
    }
}
