//! The one place that knows bincode: how log, journal and row values become bytes.
//!
//! A value is one version byte followed by its bincode encoding (standard configuration: little endian,
//! variable-length integers). Decoding is bounded by [`DECODE_BYTES_MAX`] and rejects trailing bytes, so hostile
//! or damaged input costs neither memory nor a silent misreading. Fields and variants are append-only; the tests
//! pin the bytes of every stored type.

use bincode::config::{Configuration, Limit, LittleEndian, Varint};
use serde::{Serialize, de::DeserializeOwned};
use std::cell::Cell;

/// The version that [`encode`] writes. Bump it when the encoding itself changes, never when a type grows.
pub const VERSION: u8 = 1;

/// The most that one decode may allocate, in bytes.
pub const DECODE_BYTES_MAX: usize = 64 << 20;

/// What a thread keeps of what its largest value took.
const SCRATCH_BYTES_MAX: usize = 64 << 10;

const CONFIG: Configuration<LittleEndian, Varint, Limit<DECODE_BYTES_MAX>> =
    bincode::config::standard().with_limit::<DECODE_BYTES_MAX>();

/// Why bytes could not be decoded. Always a [`Fault`](crate::Fault) when the bytes were stored by this node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// There was not even a version byte.
    #[error("the value is empty, so it has no version byte")]
    Empty,
    /// The version byte names an encoding that this build does not know.
    #[error("the value has encoding version {found}; this build reads version {VERSION}")]
    Version {
        /// The byte that was found.
        found: u8,
    },
    /// bincode refused the bytes.
    #[error("the value does not decode: {reason}")]
    Malformed {
        /// bincode's own words.
        reason: String,
    },
    /// The value ended before the bytes did.
    #[error("{count} bytes follow the end of the value")]
    Trailing {
        /// How many bytes were left over.
        count: usize,
    },
}

/// Encodes `value` behind the version byte.
///
/// # Panics
/// Never for the types of this crate: they hold nothing that serde refuses, and no limit applies to writing.
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    // Grown once and kept: a value takes one allocation of its size, not one for each doubling on the way there.
    thread_local!(static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) });
    let mut scratch = SCRATCH.take();
    scratch.push(VERSION);
    bincode::serde::encode_into_std_write(value, &mut scratch, bincode::config::standard())
        .expect("writing a plain value into a Vec cannot fail");
    let bytes = scratch.as_slice().to_vec();
    scratch.clear();
    scratch.shrink_to(SCRATCH_BYTES_MAX);
    SCRATCH.set(scratch);
    bytes
}

/// Decodes what [`encode`] wrote.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    let (&version, body) = bytes.split_first().ok_or(DecodeError::Empty)?;
    if version != VERSION {
        return Err(DecodeError::Version { found: version });
    }
    let (value, read) =
        bincode::serde::decode_from_slice(body, CONFIG).map_err(|error| DecodeError::Malformed {
            reason: error.to_string(),
        })?;
    if read != body.len() {
        return Err(DecodeError::Trailing {
            count: body.len() - read,
        });
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_pinned() {
        assert_eq!(
            encode(&(1u64, "ab", Some(300u32))),
            [1, 1, 2, b'a', b'b', 1, 251, 44, 1]
        );
    }

    #[test]
    fn rejects_what_it_did_not_write() {
        assert_eq!(decode::<u64>(&[]), Err(DecodeError::Empty));
        assert_eq!(decode::<u64>(&[9, 1]), Err(DecodeError::Version { found: 9 }));
        assert_eq!(
            decode::<u64>(&[VERSION, 1, 1]),
            Err(DecodeError::Trailing { count: 1 })
        );
        // A length prefix of 2^60 bytes must be refused before anything is allocated.
        let mut huge = vec![VERSION, 253];
        huge.extend_from_slice(&(1u64 << 60).to_le_bytes());
        assert!(matches!(
            decode::<Vec<u8>>(&huge),
            Err(DecodeError::Malformed { .. })
        ));
    }
}
