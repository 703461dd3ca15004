//! How scripts write commands, and how they show what came of them.
//!
//! `Kv.Put {key: color, value: blue}` is area, variant, and the fields as YAML flow text; a field that is an `Option` may
//! be left out, and byte strings are text. `Batch` is followed by one command a line, each after `- `, or after
//! `- N x ` for N of them.
//!
//! To write what is too long to write: `${x*2049}` inside a text is `x` 2049 times; `{repeat: N, of: ITEM}` inside a
//! list is N items. Inside repeated items and commands, `#` is the number of the copy, from 1.

use onward_statemachine::{Command, dump};
use serde::Serialize;
use serde_json::{Map, Value, json};

/// The lines of a script that are input, with their numbers. A line that begins with `>` comes with those below it that
/// go on.
pub fn lines(script: &str) -> Vec<(usize, String)> {
    let mut lines: Vec<(usize, String)> = Vec::new();
    for (number, line) in (1..).zip(script.lines()) {
        match lines.last_mut() {
            _ if line.starts_with("  ") => {}
            Some((_, command)) if line.starts_with(">  ") => {
                command.push('\n');
                command.push_str(line);
            }
            _ => lines.push((number, line.to_owned())),
        }
    }
    lines
}

/// Reads a command, each of whose lines begins with `>`.
pub fn command(text: &str) -> Result<Command, String> {
    let bare: Vec<&str> = text.lines().map(|line| line.trim_start_matches('>')).collect();
    let text = bare.join("\n");
    let text = text.as_str();
    let value = expand(command_value(text.trim())?, None)?;
    // By way of text, because there a byte string may be written as a string.
    let command = serde_json::from_str(&value.to_string()).map_err(|error| format!("`{text}`: {error}"))?;
    let read = serde_json::to_value(&command).map_err(|error| error.to_string())?;
    match unread(&value, &read) {
        Some(name) => Err(format!("`{text}`: there is no field `{name}`")),
        None => Ok(command),
    }
}

/// A field that was written but not read.
fn unread<'a>(written: &'a Value, read: &Value) -> Option<&'a str> {
    match (written, read) {
        (Value::Object(written), Value::Object(read)) => {
            written.iter().find_map(|(name, field)| match read.get(name) {
                Some(read) => unread(field, read),
                None => Some(name.as_str()),
            })
        }
        (Value::Array(written), Value::Array(read)) => written
            .iter()
            .zip(read)
            .find_map(|(written, read)| unread(written, read)),
        _ => None,
    }
}

fn command_value(text: &str) -> Result<Value, String> {
    let (head, body) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    if head == "Batch" {
        let mut commands = Vec::new();
        for item in items(body)? {
            let (count, item) = repetition(&item);
            commands.push(json!({"repeat": count, "of": command_value(item)?}));
        }
        return Ok(json!({ "Batch": commands }));
    }
    let (area, variant) = head
        .split_once('.')
        .ok_or_else(|| format!("`{head}` is not AREA.COMMAND"))?;
    if body.trim().is_empty() {
        return Ok(json!({ area: variant }));
    }
    let fields: Value = serde_norway::from_str(body).map_err(|error| format!("`{body}`: {error}"))?;
    Ok(json!({ area: { variant: fields } }))
}

/// The commands of a batch: each from a line that begins with `- ` up to the next that is indented as far.
fn items(body: &str) -> Result<Vec<String>, String> {
    let mut items: Vec<String> = Vec::new();
    let mut lines = body.lines().filter(|line| !line.trim().is_empty()).peekable();
    let indent = |line: &str| line.len() - line.trim_start().len();
    let first = lines.peek().map_or(0, |line| indent(line));
    for line in lines {
        let item = line
            .trim_start()
            .strip_prefix("- ")
            .filter(|_| indent(line) == first);
        match (item, items.last_mut()) {
            (Some(item), _) => items.push(item.to_owned()),
            (None, Some(item)) => {
                item.push('\n');
                item.push_str(line);
            }
            (None, None) => return Err(format!("`{line}`: a command of a batch begins with `- `")),
        }
    }
    Ok(items)
}

fn repetition(item: &str) -> (u64, &str) {
    let counted = item
        .split_once(" x ")
        .and_then(|(count, rest)| Some((count.parse().ok()?, rest)));
    counted.unwrap_or((1, item))
}

/// Carries out repetitions; `copy` is the number of the copy that this is in.
fn expand(value: Value, copy: Option<u64>) -> Result<Value, String> {
    Ok(match value {
        Value::String(text) => Value::String(expand_text(&text, copy)?),
        Value::Array(items) => {
            let mut expanded = Vec::new();
            for item in items {
                match repeated(&item) {
                    Some((1, of)) => expanded.push(expand(of.clone(), copy)?),
                    Some((count, of)) => {
                        for number in 1..=count {
                            expanded.push(expand(of.clone(), Some(number))?);
                        }
                    }
                    None => expanded.push(expand(item, copy)?),
                }
            }
            Value::Array(expanded)
        }
        Value::Object(fields) => {
            let mut expanded = Map::new();
            for (name, field) in fields {
                expanded.insert(expand_text(&name, copy)?, expand(field, copy)?);
            }
            Value::Object(expanded)
        }
        other => other,
    })
}

fn repeated(item: &Value) -> Option<(u64, &Value)> {
    let fields = item.as_object().filter(|fields| fields.len() == 2)?;
    Some((fields.get("repeat")?.as_u64()?, fields.get("of")?))
}

fn expand_text(text: &str, copy: Option<u64>) -> Result<String, String> {
    let text = match copy {
        Some(copy) => text.replace('#', &copy.to_string()),
        None => text.to_owned(),
    };
    let Some((before, rest)) = text.split_once("${") else {
        return Ok(text);
    };
    let (inside, after) = rest
        .split_once('}')
        .ok_or_else(|| format!("`{text}` lacks a }}"))?;
    let repetition = inside
        .rsplit_once('*')
        .and_then(|(part, count)| Some(part.repeat(count.parse().ok()?)));
    let repeated = repetition.ok_or_else(|| format!("`${{{inside}}}` is not ${{TEXT*COUNT}}"))?;
    Ok(format!("{before}{repeated}{}", expand_text(after, None)?))
}

/// A value of nested enums as scripts show it: `Kv.Put {key: "color", value: "blue"}`.
pub fn show<T: Serialize>(value: &T) -> String {
    let mut path = Vec::new();
    let mut rest = dump::text(value);
    while path.len() < 2 {
        let Some((tag, inner)) = tagged(&rest) else { break };
        path.push(tag.to_owned());
        rest = inner.to_owned();
    }
    if rest.starts_with('"') {
        path.push(rest.trim_matches('"').to_owned());
        rest.clear();
    }
    format!("{} {rest}", path.join(".")).trim().to_owned()
}

/// The tag and the content of `{Tag: content}`.
fn tagged(text: &str) -> Option<(&str, &str)> {
    let (tag, content) = text.strip_prefix('{')?.strip_suffix('}')?.split_once(": ")?;
    let is_tag = tag.starts_with(|c: char| c.is_ascii_uppercase()) && tag.chars().all(char::is_alphanumeric);
    is_tag.then_some((tag, content))
}
