//! Cursors: where a list goes on, in a form that only the list that gave it takes back.

use crate::problem::{CURSOR_INVALID, Problem};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// Which list a cursor belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct List(pub &'static str);

impl List {
    /// The cursor of this list that goes on after `position`.
    pub(crate) fn cursor(self, position: &[u8]) -> String {
        let mut bytes = position.to_vec();
        bytes.extend_from_slice(&self.check(position));
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// The position in `cursor`.
    pub(crate) fn position(self, cursor: &str) -> Result<Vec<u8>, Problem> {
        let bytes = URL_SAFE_NO_PAD.decode(cursor).ok();
        let parts = bytes.as_deref().and_then(|bytes| bytes.split_last_chunk::<4>());
        match parts {
            Some((position, check)) if *check == self.check(position) => Ok(position.to_vec()),
            _ => Err(self.foreign()),
        }
    }

    /// What is said of a cursor that this list did not give.
    pub(crate) fn foreign(self) -> Problem {
        CURSOR_INVALID.because(format!(
            "query parameter `cursor` is not a cursor of the list of {}: send the `next` of its last answer as it is, or \
             leave it out to begin again",
            self.0
        ))
    }

    /// As [`List::position`], where the position is text.
    pub(crate) fn text(self, cursor: Option<&str>) -> Result<Option<String>, Problem> {
        let position = cursor.map(|cursor| self.position(cursor)).transpose()?;
        Ok(position.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    }

    /// As [`List::position`], where the position is a number.
    pub(crate) fn number(self, cursor: Option<&str>) -> Result<Option<u64>, Problem> {
        let position = cursor.map(|cursor| self.position(cursor)).transpose()?;
        Ok(position
            .and_then(|bytes| bytes.try_into().ok())
            .map(u64::from_be_bytes))
    }

    /// Tells truncated, altered and foreign cursors: FNV-1a over the list's name and the position.
    fn check(self, position: &[u8]) -> [u8; 4] {
        let bytes = self.0.bytes().chain([0]).chain(position.iter().copied());
        let hash = bytes.fold(0x811c_9dc5_u32, |hash, byte| {
            (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
        });
        hash.to_be_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_returns_to_its_own_list_only() {
        let cursor = List("pairs").cursor(b"a/b");
        assert_eq!(List("pairs").position(&cursor), Ok(b"a/b".to_vec()));
        assert!(List("machines").position(&cursor).is_err());
        assert!(List("pairs").position(&cursor[1..]).is_err());
        assert!(List("pairs").position("~~~").is_err());
        assert!(List("pairs").position("").is_err());
    }
}
