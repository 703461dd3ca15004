use super::{
    FRAME_BYTES_MAX, FRAME_HEAD_BYTES, Header, MAGIC, PREFIX_BYTES, ROW_HEAD_BYTES, Trailer, VERSION,
    checksum, kind,
};
use crate::hash::StateHasher;
use crate::ids::Revision;

/// Why bytes are not a whole backup.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// It does not begin as one.
    #[error("this is not a backup: it does not begin with `ONWARDBK`")]
    NotABackup,
    /// A later release wrote it.
    #[error("the backup has format version {found}; this release reads up to {VERSION}: upgrade it")]
    Version {
        /// The version that was found.
        found: u32,
    },
    /// It ends too early.
    #[error("the backup is cut off after {bytes} bytes: it has no end")]
    Cut {
        /// How long it is.
        bytes: u64,
    },
    /// It goes on behind its end.
    #[error("the backup ends at byte {offset}, and more bytes follow")]
    Trailing {
        /// Where it ends.
        offset: u64,
    },
    /// A frame is not as it was written.
    #[error("the backup is damaged: the checksum of frame {frame} at byte {offset} does not match")]
    Checksum {
        /// Which frame, from 0.
        frame: u64,
        /// Where it begins.
        offset: u64,
    },
    /// A frame that means nothing.
    #[error("the backup is damaged: frame {frame} at byte {offset} {what}")]
    Frame {
        /// Which frame, from 0.
        frame: u64,
        /// Where it begins.
        offset: u64,
        /// What is wrong with it.
        what: String,
    },
    /// Rows are missing or too many.
    #[error("the backup is damaged: it has {found} rows, and says that it has {said}")]
    Rows {
        /// Counted.
        found: u64,
        /// According to the trailer.
        said: u64,
    },
    /// The rows are not those that were written.
    #[error("the backup is damaged: its rows have state hash {found}, and it says {said}")]
    Hash {
        /// Computed.
        found: String,
        /// According to the trailer.
        said: String,
    },
}

/// A key and its value.
pub type Row = (Vec<u8>, Vec<u8>);

/// A part of a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// The first part.
    Header(Header),
    /// Some rows, in the order of their keys.
    Rows(Vec<Row>),
    /// The last part: the rows were those that were written.
    Trailer(Trailer),
}

/// A whole backup, in few words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// What it is of.
    pub header: Header,
    /// What it came to.
    pub trailer: Trailer,
    /// How long it is.
    pub bytes: u64,
}

/// Reads a backup from pieces of any length, and checks all of it on the way.
#[derive(Default)]
pub struct Reader {
    /// What was fed and not taken yet.
    buffer: Vec<u8>,
    /// Where in `buffer` to go on.
    at: usize,
    /// Where in the file `buffer` begins.
    offset: u64,
    frames: u64,
    header: Option<(Header, StateHasher)>,
    rows: u64,
    last_key: Option<Vec<u8>>,
    trailer: Option<Trailer>,
}

impl Reader {
    /// Before the first byte.
    pub fn new() -> Reader {
        Reader::default()
    }

    /// Takes the next piece.
    pub fn feed(&mut self, piece: &[u8]) {
        self.buffer.drain(..self.at);
        self.offset += self.at as u64;
        self.at = 0;
        self.buffer.extend_from_slice(piece);
    }

    /// What the backup is of, once that was read.
    pub fn header(&self) -> Option<&Header> {
        self.header.as_ref().map(|(header, _)| header)
    }

    /// How many rows were read.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// The next part; `None` where more must be fed first.
    pub fn next_part(&mut self) -> Result<Option<Part>, Damage> {
        if self.frames == 0 && self.offset == 0 && self.at == 0 && !self.prefix()? {
            return Ok(None);
        }
        let unread = &self.buffer[self.at..];
        if self.trailer.is_some() {
            let offset = self.position();
            return match unread.is_empty() {
                true => Ok(None),
                false => Err(Damage::Trailing { offset }),
            };
        }
        let Some((head, rest)) = unread.split_at_checked(FRAME_HEAD_BYTES) else {
            return Ok(None);
        };
        let number = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().expect("4 bytes"));
        let (kind, length, crc) = (head[0], number(1) as usize, number(5));
        if length > FRAME_BYTES_MAX {
            return Err(self.frame_damage(format!(
                "says that it has {length} bytes; the most is {FRAME_BYTES_MAX}"
            )));
        }
        let Some(body) = rest.get(..length) else {
            return Ok(None);
        };
        if checksum(self.frames, kind, body) != crc {
            return Err(Damage::Checksum {
                frame: self.frames,
                offset: self.position(),
            });
        }
        let body = body.to_vec();
        let part = self.take(kind, &body)?;
        self.at += FRAME_HEAD_BYTES + length;
        self.frames += 1;
        Ok(Some(part))
    }

    /// What was read, once all was fed and every part taken.
    pub fn finish(self) -> Result<Summary, Damage> {
        match (self.header, self.trailer) {
            (Some((header, _)), Some(trailer)) => Ok(Summary {
                header,
                trailer,
                bytes: self.offset + self.buffer.len() as u64,
            }),
            _ => {
                let bytes = self.offset + self.buffer.len() as u64;
                let begins_well = self.offset > 0 || MAGIC.starts_with(first(&self.buffer, MAGIC.len()));
                Err(match begins_well && bytes > 0 {
                    true => Damage::Cut { bytes },
                    false => Damage::NotABackup,
                })
            }
        }
    }

    fn position(&self) -> u64 {
        self.offset + self.at as u64
    }

    fn frame_damage(&self, what: impl Into<String>) -> Damage {
        Damage::Frame {
            frame: self.frames,
            offset: self.position(),
            what: what.into(),
        }
    }

    /// Checks what comes before the first frame; `false` where more must be fed first.
    fn prefix(&mut self) -> Result<bool, Damage> {
        if !MAGIC.starts_with(first(&self.buffer, MAGIC.len())) {
            return Err(Damage::NotABackup);
        }
        let Some(version) = self.buffer.get(MAGIC.len()..PREFIX_BYTES) else {
            return Ok(false);
        };
        let found = u32::from_le_bytes(version.try_into().expect("4 bytes"));
        if found != VERSION {
            return Err(Damage::Version { found });
        }
        self.at = PREFIX_BYTES;
        Ok(true)
    }

    fn take(&mut self, kind: u8, body: &[u8]) -> Result<Part, Damage> {
        match (kind, self.frames) {
            (kind::HEADER, 0) => {
                let header: Header = self.json(body)?;
                let hasher = StateHasher::new(Revision(header.journal_floor));
                self.header = Some((header.clone(), hasher));
                Ok(Part::Header(header))
            }
            (kind::ROWS, 1..) => self.take_rows(body).map(Part::Rows),
            (kind::TRAILER, 1..) => self.take_trailer(body).map(Part::Trailer),
            _ => Err(self.frame_damage(format!("has kind {kind}, which has no place there"))),
        }
    }

    fn json<T: serde::de::DeserializeOwned>(&self, body: &[u8]) -> Result<T, Damage> {
        serde_json::from_slice(body).map_err(|error| self.frame_damage(format!("does not decode: {error}")))
    }

    fn take_rows(&mut self, mut body: &[u8]) -> Result<Vec<Row>, Damage> {
        let mut rows = Vec::new();
        while !body.is_empty() {
            let Some((key, value, rest)) = split_row(body) else {
                return Err(self.frame_damage("has a row that reaches beyond it"));
            };
            body = rest;
            if self.last_key.as_deref().is_some_and(|last| last >= key) {
                return Err(self.frame_damage(format!("has the row {key:02x?} out of order")));
            }
            let (_, hasher) = self.header.as_mut().expect("a header comes before rows");
            hasher.row(key, value);
            self.rows += 1;
            self.last_key = Some(key.to_vec());
            rows.push((key.to_vec(), value.to_vec()));
        }
        Ok(rows)
    }

    fn take_trailer(&mut self, body: &[u8]) -> Result<Trailer, Damage> {
        let trailer: Trailer = self.json(body)?;
        let said = trailer.rows;
        if said != self.rows {
            let found = self.rows;
            return Err(Damage::Rows { found, said });
        }
        let (_, hasher) = self.header.as_ref().expect("a header comes before a trailer");
        let found = format!("{:016x}", hasher.clone().finish());
        if found != trailer.state_hash {
            let said = trailer.state_hash;
            return Err(Damage::Hash { found, said });
        }
        self.trailer = Some(trailer.clone());
        Ok(trailer)
    }
}

fn first(bytes: &[u8], count: usize) -> &[u8] {
    &bytes[..bytes.len().min(count)]
}

fn split_row(body: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (head, rest) = body.split_at_checked(ROW_HEAD_BYTES)?;
    let length = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().expect("4 bytes")) as usize;
    let (key, rest) = rest.split_at_checked(length(0))?;
    let (value, rest) = rest.split_at_checked(length(4))?;
    Some((key, value, rest))
}
