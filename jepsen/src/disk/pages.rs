//! What of one file a power cut may take back: its size and its pages as they were when they were last durable.

use super::faults::Loss;
use rand::RngExt;
use rand::rngs::ChaCha8Rng;
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

/// Bytes in a page: the unit in which writes are held back and written.
pub(super) const PAGE: u64 = 4096;
/// Bytes in a sector: the unit that a disk writes whole.
pub(super) const SECTOR: u64 = 512;

/// A page that was changed since it was durable.
#[derive(Debug)]
struct Page {
    /// Its durable bytes; shorter than a page where the durable file ended in it or before it.
    old: Vec<u8>,
    /// A sync of it failed: it counts as clean, and no later sync writes it.
    dropped: bool,
}

/// The undo journal of one file.
#[derive(Debug, Default)]
pub(super) struct Unsynced {
    durable_bytes: u64,
    /// The shortest that the file was cut to since it was durable, if that is shorter.
    cut_to: Option<u64>,
    pages: BTreeMap<u64, Page>,
}

/// Which of the units of a file that may be lost are on the disk after all.
enum Survival {
    None,
    /// Those that begin before this offset.
    Prefix(u64),
    /// Each with this probability.
    Each(f64),
}

impl Unsynced {
    /// A file all of whose bytes are durable.
    pub(super) fn durable(bytes: u64) -> Self {
        Unsynced {
            durable_bytes: bytes,
            ..Unsynced::default()
        }
    }

    /// To be called before `range` of `file` is written: keeps what is durable there.
    pub(super) fn before_write(&mut self, file: &File, range: Range<u64>) -> io::Result<()> {
        for number in pages_of(range) {
            if let Some(page) = self.pages.get_mut(&number) {
                page.dropped = false;
                continue;
            }
            let start = number * PAGE;
            let mut old = vec![0; PAGE.min(self.durable_bytes.saturating_sub(start)) as usize];
            file.read_exact_at(&mut old, start)?;
            self.pages.insert(number, Page { old, dropped: false });
        }
        Ok(())
    }

    /// To be called before `file`, now of `size` bytes, is cut or grown to `to`.
    pub(super) fn before_resize(&mut self, file: &File, size: u64, to: u64) -> io::Result<()> {
        if to < size {
            self.before_write(file, to..size.max(self.durable_bytes))?;
        }
        if to < self.durable_bytes {
            self.cut_to = Some(self.cut_to.map_or(to, |cut| cut.min(to)));
        }
        Ok(())
    }

    /// The whole file is on the disk, save what a failed sync has dropped.
    pub(super) fn synced(&mut self, size: u64) {
        self.keep_cut();
        self.durable_bytes = size;
        self.pages.retain(|_, page| page.dropped);
    }

    /// A write to a file, now of `size` bytes, that is durable by itself (`O_DSYNC`) has reached the disk: its pages, and
    /// the size that it takes to read them.
    pub(super) fn synced_range(&mut self, range: Range<u64>, size: u64) {
        // Metadata goes with it: a cut that was not durable yet is now.
        self.keep_cut();
        self.durable_bytes = self.durable_bytes.max(size.min(range.end.next_multiple_of(PAGE)));
        for number in pages_of(range) {
            self.pages.remove(&number);
        }
    }

    /// A sync failed: what it should have written counts as clean, and never reaches the disk unless written again.
    pub(super) fn sync_failed(&mut self) {
        for page in self.pages.values_mut() {
            page.dropped = true;
        }
    }

    /// Whether a failed sync left pages that are not on the disk.
    pub(super) fn has_dropped(&self) -> bool {
        self.pages.values().any(|page| page.dropped)
    }

    /// What a failed sync dropped is read again from the disk, as when memory ran short. Returns the bytes lost.
    pub(super) fn evict_dropped(&mut self, file: &File) -> io::Result<u64> {
        let size = file.metadata()?.len();
        let mut lost = 0;
        for (number, page) in self.pages.iter().filter(|(_, page)| page.dropped) {
            lost += restore(
                file,
                size,
                number * PAGE..(number + 1) * PAGE,
                &page.old,
                number * PAGE,
            )?;
        }
        // Behind a cut that is not durable yet lie bytes that only this journal has.
        self.pages
            .retain(|number, page| !page.dropped || number * PAGE + page.old.len() as u64 > size);
        Ok(lost)
    }

    /// Flips the bit in the durable bytes too, where they are kept here.
    pub(super) fn flip(&mut self, offset: u64, mask: u8) {
        let old = self.pages.get_mut(&(offset / PAGE)).map(|page| &mut page.old);
        if let Some(byte) = old.and_then(|old| old.get_mut((offset % PAGE) as usize)) {
            *byte ^= mask;
        }
    }

    /// The power is cut: leaves `file` as the disk has it, all of it durable. Returns how many unsynced bytes are lost.
    pub(super) fn power_cut(&mut self, file: &File, loss: Loss, random: &mut ChaCha8Rng) -> io::Result<u64> {
        let written = file.metadata()?.len();
        let undone = Unsynced::durable(0);
        let mut unsynced = std::mem::replace(self, undone);
        let all = loss == Loss::All;
        let unit = if loss == Loss::Sectors { SECTOR } else { PAGE };
        if !all && random.random_bool(0.5) {
            unsynced.keep_cut();
        }
        // Where a cut is lost, so is all that was written behind it since: the old blocks are still the file's.
        let whole_from = unsynced.cut_to.unwrap_or(u64::MAX);
        let base = unsynced.durable_bytes;
        let survival = match random.random_range(0..3) {
            _ if all => Survival::None,
            0 => Survival::Prefix(random.random_range(0..=written.max(base))),
            _ => Survival::Each(random.random_range(0.1..0.9)),
        };
        let size = match &survival {
            _ if whole_from < u64::MAX => base,
            Survival::None => base,
            Survival::Prefix(at) => base.max(written.min(at.next_multiple_of(unit))),
            Survival::Each(_) => random.random_range(base..=written),
        };
        file.set_len(size)?;
        let mut lost = written.saturating_sub(size);
        for (number, page) in &unsynced.pages {
            let page_start = number * PAGE;
            for start in (page_start..page_start + PAGE).step_by(unit as usize) {
                let survives = !page.dropped
                    && start + unit <= whole_from
                    && match &survival {
                        Survival::None => false,
                        Survival::Prefix(at) => start < *at,
                        Survival::Each(chance) => random.random_bool(*chance),
                    };
                if !survives {
                    lost += restore(file, size, start..start + unit, &page.old, page_start)?;
                }
            }
        }
        *self = Unsynced::durable(size);
        Ok(lost)
    }

    /// A cut has reached the disk: nothing behind it is there to come back.
    fn keep_cut(&mut self) {
        let Some(cut) = self.cut_to.take() else { return };
        self.durable_bytes = cut;
        for (number, page) in &mut self.pages {
            page.old.truncate(cut.saturating_sub(number * PAGE) as usize);
        }
    }
}

fn pages_of(range: Range<u64>) -> Range<u64> {
    if range.is_empty() {
        return 0..0;
    }
    range.start / PAGE..range.end.div_ceil(PAGE)
}

/// Puts the durable bytes back into `range` of a file of `size` bytes, zeros where there were none. Returns their count.
fn restore(file: &File, size: u64, range: Range<u64>, old: &[u8], page_start: u64) -> io::Result<u64> {
    let end = range.end.min(size);
    if end <= range.start {
        return Ok(0);
    }
    let mut bytes = vec![0; (end - range.start) as usize];
    let skipped = (range.start - page_start) as usize;
    for (byte, old) in bytes.iter_mut().zip(old.iter().skip(skipped)) {
        *byte = *old;
    }
    file.write_all_at(&bytes, range.start)?;
    Ok(bytes.len() as u64)
}
