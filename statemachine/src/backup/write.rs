use super::{FRAME_BYTES, FRAME_HEAD_BYTES, Header, MAGIC, ROW_HEAD_BYTES, Trailer, VERSION, checksum, kind};
use crate::hash::StateHasher;
use crate::ids::Revision;

/// Writes a backup into buffers that its caller empties as it likes.
pub struct Writer {
    frames: u64,
    pending: Vec<u8>,
    rows: u64,
    hasher: StateHasher,
}

impl Writer {
    /// Begins a backup.
    pub fn new(header: &Header, out: &mut Vec<u8>) -> Writer {
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        let mut writer = Writer {
            frames: 0,
            pending: Vec::new(),
            rows: 0,
            hasher: StateHasher::new(Revision(header.journal_floor)),
        };
        let body = serde_json::to_vec(header).expect("a header is a map with text keys");
        writer.frame(kind::HEADER, &body, out);
        writer
    }

    /// Takes the next row; they come in the order of their keys.
    pub fn row(&mut self, key: &[u8], value: &[u8], out: &mut Vec<u8>) {
        let bytes = ROW_HEAD_BYTES + key.len() + value.len();
        if !self.pending.is_empty() && self.pending.len() + bytes > FRAME_BYTES {
            self.close(out);
        }
        for length in [key.len(), value.len()] {
            self.pending.extend_from_slice(&(length as u32).to_le_bytes());
        }
        self.pending.extend_from_slice(key);
        self.pending.extend_from_slice(value);
        self.rows += 1;
        self.hasher.row(key, value);
    }

    /// Ends the backup.
    pub fn end(mut self, out: &mut Vec<u8>) -> Trailer {
        self.close(out);
        let trailer = Trailer {
            rows: self.rows,
            state_hash: format!("{:016x}", self.hasher.clone().finish()),
        };
        let body = serde_json::to_vec(&trailer).expect("a trailer is a map with text keys");
        self.frame(kind::TRAILER, &body, out);
        trailer
    }

    fn close(&mut self, out: &mut Vec<u8>) {
        if self.pending.is_empty() {
            return;
        }
        let body = std::mem::take(&mut self.pending);
        self.frame(kind::ROWS, &body, out);
        self.pending = body;
        self.pending.clear();
    }

    fn frame(&mut self, kind: u8, body: &[u8], out: &mut Vec<u8>) {
        out.reserve(FRAME_HEAD_BYTES + body.len());
        out.push(kind);
        out.extend_from_slice(&(body.len() as u32).to_le_bytes());
        out.extend_from_slice(&checksum(self.frames, kind, body).to_le_bytes());
        out.extend_from_slice(body);
        self.frames += 1;
    }
}
