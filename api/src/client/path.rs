//! Paths of requests.

use super::Error;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};

const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');
const REST: &AsciiSet = &SEGMENT.remove(b'/');

/// One segment of a path.
pub(super) fn segment(what: &str, value: &str) -> Result<String, Error> {
    match value {
        // A URL has its own meaning for these.
        "" | "." | ".." => Err(Error::Usage(format!("`{value}` is not {what}"))),
        value => Ok(percent_encode(value.as_bytes(), SEGMENT).to_string()),
    }
}

/// The path of a key.
pub(super) fn key(key: &[u8]) -> Result<String, Error> {
    let encoded = match key {
        b"" => return Err(Error::Usage("a key has at least one byte".to_owned())),
        // A URL would lose these, and no encoding helps: a transaction names its keys in the body.
        b"." | b".." => {
            let key = key.escape_ascii();
            return Err(Error::Usage(format!(
                "key `{key}` cannot be part of a URL; use a transaction"
            )));
        }
        // The path of an operation, unless it is written otherwise.
        b"watch" => "%77atch".to_owned(),
        // A segment of dots, or an empty one, would be taken out of the path: so there are no segments.
        key if key
            .split(|byte| *byte == b'/')
            .any(|part| matches!(part, b"" | b"." | b"..")) =>
        {
            percent_encode(key, SEGMENT).to_string()
        }
        key => percent_encode(key, REST).to_string(),
    };
    Ok(format!("/v1/kv/{encoded}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_survives_its_url() {
        for bytes in [
            &b"site/name"[..],
            b"watch",
            b"txn",
            b"a/../b",
            b"a//b",
            b"/a",
            b"a b?c=d#e%2f",
            b"\xff\x00/x",
            b"...",
        ] {
            let path = key(bytes).expect("a path");
            let url: super::super::Url = format!("http://127.0.0.1:1{path}").parse().expect("a URL");
            let rest = url.path().strip_prefix("/v1/kv/").expect("the path stays");
            let decoded: Vec<u8> = percent_encoding::percent_decode_str(rest).collect();
            assert_eq!(decoded, bytes, "{path}");
        }
        assert!(key(b"..").is_err());
    }
}
