//! Reading manifests: files, folders and standard input, in YAML or JSON, one or many documents each.
//!
//! Never guesses: a key that is there twice, a tag or a key that is no text is an error that names its place.

use crate::failure::{Failure, Result};
use serde::Deserialize;
use serde_json::Value;
use std::fmt;
use std::path::{Path, PathBuf};

/// The largest manifest file, in bytes.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// Where a document comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// The file; `-` is standard input.
    pub(crate) file: PathBuf,
    /// Which document of the file, from 1.
    pub(crate) document: usize,
}

impl Place {
    /// Where paths inside the document start from.
    pub(crate) fn folder(&self) -> &Path {
        match self.file.parent() {
            Some(folder) if self.file != Path::new("-") => folder,
            _ => Path::new(""),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = name(&self.file);
        write!(f, "{name}, document {}", self.document)
    }
}

/// A file as messages call it.
fn name(file: &Path) -> String {
    if file == Path::new("-") {
        "standard input".to_owned()
    } else {
        file.display().to_string()
    }
}

/// One document of a manifest.
#[derive(Debug, Clone)]
pub(crate) struct Document {
    pub(crate) place: Place,
    pub(crate) value: Value,
}

/// Reads all documents of `paths`, in their order; a folder stands for its manifest files in order of name.
/// `stdin` is asked for the text of `-`.
pub(crate) fn load(paths: &[PathBuf], mut stdin: impl FnMut() -> Result<Vec<u8>>) -> Result<Vec<Document>> {
    let mut documents = Vec::new();
    for path in paths {
        if path == Path::new("-") {
            documents.extend(parse(path, &text(path, stdin()?)?)?);
            continue;
        }
        for file in files(path)? {
            let bytes = read(&file)?;
            documents.extend(parse(&file, &text(&file, bytes)?)?);
        }
    }
    if documents.is_empty() {
        let names: Vec<String> = paths.iter().map(|path| name(path)).collect();
        return Err(Failure::usage(format!("{}: no document in it", names.join(", "))));
    }
    Ok(documents)
}

fn files(path: &Path) -> Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let wrong = |error| Failure::usage(format!("{}: {error}", path.display()));
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).map_err(wrong)? {
        let file = entry.map_err(wrong)?.path();
        let manifest = file
            .extension()
            .is_some_and(|end| end == "yaml" || end == "yml" || end == "json");
        if manifest && file.is_file() {
            files.push(file);
        }
    }
    if files.is_empty() {
        return Err(Failure::usage(format!(
            "{}: no .yaml, .yml or .json file in it",
            path.display()
        )));
    }
    files.sort();
    Ok(files)
}

/// Reads a file of at most [`FILE_BYTES_MAX`].
pub(crate) fn read(file: &Path) -> Result<Vec<u8>> {
    let wrong = |error| Failure::usage(format!("{}: {error}", file.display()));
    let bytes = std::fs::metadata(file).map_err(wrong)?.len();
    if bytes > FILE_BYTES_MAX {
        let rule = format!("{}: {bytes} bytes; the most is {FILE_BYTES_MAX}", file.display());
        return Err(Failure::usage(rule));
    }
    std::fs::read(file).map_err(wrong)
}

fn text(file: &Path, bytes: Vec<u8>) -> Result<String> {
    let mut text = String::from_utf8(bytes).map_err(|error| {
        let byte = error.utf8_error().valid_up_to();
        Failure::usage(format!("{}: not UTF-8 from byte {byte} on", name(file)))
    })?;
    if text.starts_with('\u{feff}') {
        text.remove(0);
    }
    Ok(text)
}

/// Splits `text` into its documents; a list stands for its items.
pub(crate) fn parse(file: &Path, text: &str) -> Result<Vec<Document>> {
    // What begins like JSON and is JSON is read as JSON: YAML is not quite a superset (escaped surrogate pairs).
    let json = text.trim_start().starts_with(['{', '[']).then(|| {
        let stream = serde_json::Deserializer::from_str(text).into_iter::<UniqueKeys>();
        stream
            .map(|value| value.map(|UniqueKeys(value)| value))
            .collect::<serde_json::Result<Vec<_>>>()
    });
    let named_json = file.extension().is_some_and(|end| end == "json");
    let values = match json {
        Some(Ok(values)) => values,
        Some(Err(error)) if named_json || error.is_data() => {
            return Err(Failure::usage(format!("{}: {error}", name(file))));
        }
        _ => yaml(file, text)?,
    };
    let mut documents = Vec::new();
    for (index, value) in values.into_iter().enumerate() {
        let place = Place {
            file: file.to_owned(),
            document: index + 1,
        };
        match value {
            // Between separators, or after the last one, may be nothing.
            Value::Null => {}
            Value::Array(items) => {
                documents.extend(items.into_iter().map(|value| Document {
                    place: place.clone(),
                    value,
                }));
            }
            value => documents.push(Document { place, value }),
        }
    }
    Ok(documents)
}

fn yaml(file: &Path, text: &str) -> Result<Vec<Value>> {
    let mut values = Vec::new();
    for (index, document) in serde_norway::Deserializer::from_str(text).enumerate() {
        let place = Place {
            file: file.to_owned(),
            document: index + 1,
        };
        let wrong = |error: String| Failure::usage(format!("{place}: {error}"));
        let mut value =
            serde_norway::Value::deserialize(document).map_err(|error| wrong(error.to_string()))?;
        value.apply_merge().map_err(|error| wrong(error.to_string()))?;
        values.push(to_json(value, "").map_err(wrong)?);
    }
    Ok(values)
}

/// A YAML value as JSON; `path` is where it is, for messages.
fn to_json(value: serde_norway::Value, path: &str) -> std::result::Result<Value, String> {
    use serde_norway::Value as Yaml;
    let here = if path.is_empty() {
        String::new()
    } else {
        format!("field {path}: ")
    };
    Ok(match value {
        Yaml::Null => Value::Null,
        Yaml::Bool(value) => Value::Bool(value),
        Yaml::Number(number) => match (number.as_u64(), number.as_i64(), number.as_f64()) {
            (Some(value), ..) => Value::from(value),
            (_, Some(value), _) => Value::from(value),
            (.., Some(value)) if value.is_finite() => Value::from(value),
            _ => return Err(format!("{here}{number} is not a number that JSON has")),
        },
        Yaml::String(text) => Value::String(text),
        Yaml::Sequence(items) => {
            let items = items.into_iter().enumerate();
            let items = items.map(|(index, item)| to_json(item, &format!("{path}[{index}]")));
            Value::Array(items.collect::<std::result::Result<_, _>>()?)
        }
        Yaml::Mapping(entries) => {
            let mut object = serde_json::Map::new();
            for (key, value) in entries {
                let key = match key {
                    Yaml::String(key) => key,
                    // `3: x` in labels means the text.
                    Yaml::Number(key) => key.to_string(),
                    Yaml::Bool(key) => key.to_string(),
                    _ => return Err(format!("{here}a key is not a text")),
                };
                let inner = if path.is_empty() {
                    key.clone()
                } else {
                    format!("{path}.{key}")
                };
                let value = to_json(value, &inner)?;
                if object.insert(key, value).is_some() {
                    return Err(format!("field {inner} is there twice"));
                }
            }
            Value::Object(object)
        }
        Yaml::Tagged(tagged) => return Err(format!("{here}the tag {} is not known", tagged.tag)),
    })
}

/// A JSON value in which no object has a key twice; serde_json itself would keep the last one.
struct UniqueKeys(Value);

impl<'de> Deserialize<'de> for UniqueKeys {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_any(UniqueKeysVisitor).map(UniqueKeys)
    }
}

struct UniqueKeysVisitor;

impl<'de> serde::de::Visitor<'de> for UniqueKeysVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }
    fn visit_unit<E>(self) -> std::result::Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_bool<E>(self, value: bool) -> std::result::Result<Value, E> {
        Ok(Value::Bool(value))
    }
    fn visit_u64<E>(self, value: u64) -> std::result::Result<Value, E> {
        Ok(Value::from(value))
    }
    fn visit_i64<E>(self, value: i64) -> std::result::Result<Value, E> {
        Ok(Value::from(value))
    }
    fn visit_f64<E>(self, value: f64) -> std::result::Result<Value, E> {
        Ok(Value::from(value))
    }
    fn visit_str<E>(self, value: &str) -> std::result::Result<Value, E> {
        Ok(Value::from(value))
    }
    fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut seq: A) -> std::result::Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(UniqueKeys(item)) = seq.next_element()? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }
    fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> std::result::Result<Value, A::Error> {
        let mut object = serde_json::Map::new();
        while let Some(key) = map.next_key::<String>()? {
            let UniqueKeys(value) = map.next_value()?;
            if object.contains_key(&key) {
                return Err(serde::de::Error::custom(format_args!(
                    "field {key} is there twice"
                )));
            }
            object.insert(key, value);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn values(file: &str, text: &str) -> std::result::Result<Vec<Value>, String> {
        let documents = parse(Path::new(file), text).map_err(|failure| failure.to_string())?;
        Ok(documents.into_iter().map(|document| document.value).collect())
    }

    #[test]
    fn documents_are_split_and_empty_ones_dropped() {
        let text = "---\nkind: app\nname: a\n---\n# nothing\n---\n- kind: kv\n- kind: machine\n";
        let documents = parse(Path::new("site.yaml"), text).unwrap();
        let places: Vec<String> = documents
            .iter()
            .map(|document| document.place.to_string())
            .collect();
        assert_eq!(
            places,
            [
                "site.yaml, document 1",
                "site.yaml, document 3",
                "site.yaml, document 3"
            ],
            "numbers are those of the file"
        );
        assert_eq!(documents[0].value, json!({"kind": "app", "name": "a"}));
    }

    #[test]
    fn json_is_read_as_json() {
        let text = r#"[{"kind": "kv", "value": "\ud83d\ude00"}]"#;
        assert_eq!(values("-", text), Ok(vec![json!({"kind": "kv", "value": "😀"})]));
        assert_eq!(values("a.json", "{} {}"), Ok(vec![json!({}), json!({})]));
        let flow = "{kind: kv, key: [a, b]}";
        assert_eq!(
            values("-", flow),
            Ok(vec![json!({"kind": "kv", "key": ["a", "b"]})])
        );
    }

    #[test]
    fn errors_name_their_place() {
        let wrong = |file, text| values(file, text).unwrap_err();
        assert_eq!(
            wrong("a.yaml", "kind: x\n---\na: 1\na: 2\n").split(':').next(),
            Some("a.yaml, document 2")
        );
        assert!(
            wrong("a.yaml", "a: [1\nb: 2").contains("line 2"),
            "{}",
            wrong("a.yaml", "a: [1\nb: 2")
        );
        assert!(wrong("a.json", "{\n\"a\": 1,\n}").contains("line 3"));
        assert!(wrong("a.json", r#"{"a": 1, "a": 2}"#).contains("field a is there twice"));
        assert!(wrong("-", r#"{"a": 1, "a": 2}"#).starts_with("standard input: field a is there twice"));
        assert_eq!(
            wrong("a.yaml", "spec:\n  labels: !secret x"),
            "a.yaml, document 1: field spec.labels: the tag !secret is not known"
        );
        assert_eq!(
            wrong("a.yaml", "a: [.nan]"),
            "a.yaml, document 1: field a[0]: .nan is not a number that JSON has"
        );
        assert_eq!(
            wrong("a.yaml", "1: x\n'1': y"),
            "a.yaml, document 1: field 1 is there twice"
        );
    }

    #[test]
    fn anchors_and_merges_are_resolved() {
        let text = "base: &b {a: 1}\nmore:\n  <<: *b\n  c: 2\n";
        assert_eq!(
            values("a.yaml", text),
            Ok(vec![json!({"base": {"a": 1}, "more": {"a": 1, "c": 2}})])
        );
    }

    #[test]
    fn what_is_not_text_or_not_there_is_named() {
        assert!(
            text(Path::new("x"), vec![b'a', 0xff])
                .unwrap_err()
                .to_string()
                .contains("byte 1")
        );
        let missing = load(&[PathBuf::from("/nonexistent/onward.yaml")], || Ok(Vec::new())).unwrap_err();
        assert_eq!(missing.code(), 2);
        assert!(
            missing.to_string().starts_with("/nonexistent/onward.yaml: "),
            "{missing}"
        );
        let empty = load(&[PathBuf::from("-")], || Ok(b"# nothing\n".to_vec())).unwrap_err();
        assert_eq!(empty.to_string(), "standard input: no document in it");
    }
}
