//! `KEY=VALUE` arguments: labels, environment variables, selectors.

use std::collections::BTreeMap;

/// Reads `KEY=VALUE`; the value may be empty and may hold further `=`.
pub(crate) fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write KEY=VALUE".to_owned()),
    }
}

/// A change of one label: `KEY=VALUE` sets it, `KEY-` removes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LabelChange {
    /// Give the label this value.
    Set(String, String),
    /// Take the label away.
    Remove(String),
}

/// Reads a [`LabelChange`].
pub(crate) fn label_change(text: &str) -> Result<LabelChange, String> {
    if let Some((key, value)) = text.split_once('=').filter(|(key, _)| !key.is_empty()) {
        return Ok(LabelChange::Set(key.to_owned(), value.to_owned()));
    }
    match text.strip_suffix('-') {
        Some(key) if !key.is_empty() && !key.contains('=') => Ok(LabelChange::Remove(key.to_owned())),
        _ => Err("write KEY=VALUE to set a label, KEY- to remove it".to_owned()),
    }
}

/// Pairs as a map; a key that is there twice is an error.
pub(crate) fn unique(
    what: &str,
    pairs: Vec<(String, String)>,
) -> crate::failure::Result<BTreeMap<String, String>> {
    let mut map = BTreeMap::new();
    for (key, value) in pairs {
        if map.insert(key.clone(), value).is_some() {
            return Err(crate::failure::Failure::usage(format!(
                "{what} `{key}` is given twice"
            )));
        }
    }
    Ok(map)
}

/// A map as `a=1,b=2`.
pub(crate) fn joined(map: &BTreeMap<String, String>) -> String {
    let pairs: Vec<String> = map.iter().map(|(key, value)| format!("{key}={value}")).collect();
    pairs.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_read() {
        assert_eq!(pair("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        assert_eq!(pair("a="), Ok(("a".to_owned(), String::new())));
        assert!(pair("a").is_err() && pair("=b").is_err());
    }

    #[test]
    fn label_changes_are_read() {
        assert_eq!(
            label_change("a=b-"),
            Ok(LabelChange::Set("a".to_owned(), "b-".to_owned()))
        );
        assert_eq!(label_change("a-b-"), Ok(LabelChange::Remove("a-b".to_owned())));
        assert!(label_change("a").is_err() && label_change("-").is_err() && label_change("=-").is_err());
    }

    #[test]
    fn twice_is_an_error() {
        let twice = vec![("a".to_owned(), "1".to_owned()), ("a".to_owned(), "2".to_owned())];
        assert!(unique("label", twice).is_err());
    }
}
