//! The rows of a state, the rules between them, and its hash.

use super::{FINDINGS_MAX, Look};
use crate::state::database::StateDisk;
use crate::types::revision_of;
use onward_statemachine::digest::StateHash;
use onward_statemachine::{Order, check, dump, hash};
use std::ops::ControlFlow;

impl Look<'_> {
    /// The rows of a state, the rules between them and its hash.
    pub(super) fn state(&mut self, part: &str, disk: &dyn StateDisk) -> Option<u64> {
        (self.progress)("the rows of the state");
        let whole = self.rows(part, disk);
        match disk.standing() {
            Ok(standing) => {
                self.verdict.revision = Some(revision_of(standing.applied.as_ref()).0);
                if let Some(kept) = standing.kept.filter(|_| whole) {
                    self.kept(part, disk, &kept.hash);
                }
            }
            Err(error) => self.find(part, &error),
        }
        if !whole {
            return None;
        }
        (self.progress)("the rules between the rows");
        match disk.read(check::check) {
            Ok(violations) => {
                let count = violations.len();
                for violation in violations.into_iter().take(FINDINGS_MAX) {
                    self.find(format!("{part}: {}", violation.area), &violation.what);
                }
                let how = match count {
                    0 => "the rules between rows hold",
                    _ => "rules between rows are broken",
                };
                self.looked(part, count as u64, 0, how);
            }
            Err(fault) => self.find(part, &fault),
        }
        match disk.read(hash::state_hash) {
            Ok(hash) => {
                self.verdict.state_hash = Some(hash);
                Some(hash)
            }
            Err(fault) => {
                self.find(part, &fault);
                None
            }
        }
    }

    /// Whether the rows come to the hash that was kept while they were written.
    fn kept(&mut self, part: &str, disk: &dyn StateDisk, kept: &StateHash) {
        match disk.read(StateHash::scan) {
            Ok(scanned) if kept.has_rows_of(&scanned) => {}
            Ok(_) => self.find(
                part,
                &"its rows do not come to the hash that was kept as they were written",
            ),
            Err(fault) => self.find(part, &fault),
        }
    }

    /// Every row of every table by itself; whether all of them could be read.
    pub(super) fn rows(&mut self, part: &str, disk: &dyn StateDisk) -> bool {
        let (mut count, mut bytes, mut whole) = (0_u64, 0_u64, true);
        let mut bad = Vec::new();
        // Table by table, so that a damaged one does not hide the others.
        for prefix in 0..=u8::MAX {
            let to: &[u8] = if prefix == u8::MAX { &[] } else { &[prefix + 1] };
            let scanned = disk.read(|view| {
                view.scan(&[prefix], to, Order::Ascending, &mut |key, value| {
                    count += 1;
                    bytes += (key.len() + value.len()) as u64;
                    if let Err(fault) = dump::row(key, value)
                        && bad.len() < FINDINGS_MAX
                    {
                        bad.push(format!("row {key:02x?}: {fault}"));
                    }
                    ControlFlow::Continue(())
                })
            });
            if let Err(fault) = scanned {
                whole = false;
                self.find(format!("{part}: table {prefix:#04x}"), &fault);
            }
        }
        for what in bad {
            self.find(part, &what);
        }
        self.looked(part, count, bytes, "checksums of the store, decoded");
        whole
    }
}
