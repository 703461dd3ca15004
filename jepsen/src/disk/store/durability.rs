//! What becomes durable, what is lost, and what rots.

use super::layout::open_held;
use super::{Handle, Store};
use crate::disk::faults::{Flip, Loss, Lost};
use crate::disk::names::Ino;
use crate::disk::pages::PAGE;
use rand::RngExt;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

impl Store {
    pub(in crate::disk) fn sync_file(&mut self, handle: u64) -> io::Result<()> {
        let (ino, file) = self.file(handle)?;
        if let Some(regular) = self.files.get_mut(&ino) {
            regular.unsynced.synced(file.metadata()?.len());
        }
        Ok(())
    }

    pub(in crate::disk) fn fail_sync(&mut self, handle: u64) {
        if let Some(Handle::File(ino, _)) = self.handles.get(&handle)
            && let Some(regular) = self.files.get_mut(ino)
        {
            regular.unsynced.sync_failed();
        }
    }

    pub(in crate::disk) fn sync_dir(&mut self, ino: Ino) {
        self.names.sync(ino);
        self.collect();
    }

    /// Deletes what has no name, can get none back and is not open.
    pub(super) fn collect(&mut self) {
        let mut live = self.names.collect();
        live.extend(self.handles.values().filter_map(|handle| match handle {
            Handle::File(ino, _) => Some(*ino),
            Handle::Dir(_) => None,
        }));
        let gone: Vec<Ino> = self
            .files
            .keys()
            .filter(|ino| !live.contains(ino))
            .copied()
            .collect();
        for ino in gone {
            self.files.remove(&ino);
            // It may be gone from the backing directory only with the directory itself.
            let _ = fs::remove_file(self.held(ino));
        }
    }

    /// What failed syncs dropped is gone from the page cache too. Returns the bytes that read differently now.
    pub(in crate::disk) fn evict_dropped(&mut self) -> io::Result<u64> {
        let mut lost = 0;
        for (ino, regular) in &mut self.files {
            if regular.unsynced.has_dropped() {
                let file = open_held(&self.backing, *ino)?;
                lost += regular.unsynced.evict_dropped(&file)?;
            }
        }
        Ok(lost)
    }

    /// The power is cut. What was open is closed, as the processes that had it open are gone.
    pub(in crate::disk) fn power_cut(&mut self, loss: Loss) -> io::Result<Lost> {
        self.handles.clear();
        let chance = self.random.random_range(0.1..0.9);
        let random = &mut self.random;
        let names = self
            .names
            .power_cut(|| loss != Loss::All && random.random_bool(chance));
        let mut bytes = BTreeMap::new();
        for (ino, regular) in &mut self.files {
            let file = open_held(&self.backing, *ino)?;
            bytes.insert(*ino, regular.unsynced.power_cut(&file, loss, &mut self.random)?);
            regular.reserved = file.metadata()?.len().next_multiple_of(PAGE);
        }
        self.collect();
        let files = self.names.walk().into_iter();
        let files = files.filter_map(|(path, ino)| Some((path, *bytes.get(&ino)?)));
        Ok(Lost {
            files: files.filter(|(_, bytes)| *bytes > 0).collect(),
            bytes: bytes.values().sum(),
            names,
        })
    }

    /// Flips `count` bits of the files that `pick` names by their path, each byte as likely as another.
    pub(in crate::disk) fn flip_bits(
        &mut self,
        pick: &dyn Fn(&Path) -> bool,
        count: usize,
    ) -> io::Result<Vec<Flip>> {
        let mut picked = Vec::new();
        for (path, ino) in self.names.walk() {
            if self.files.contains_key(&ino) && pick(&path) {
                let bytes = fs::metadata(self.held(ino))?.len();
                picked.push((path, ino, bytes));
            }
        }
        let total: u64 = picked.iter().map(|(_, _, bytes)| bytes).sum();
        let mut flips = Vec::new();
        for _ in 0..if total == 0 { 0 } else { count } {
            let mut offset = self.random.random_range(0..total);
            let bit = self.random.random_range(0..8);
            let at = picked.iter().find(|(_, _, bytes)| {
                let here = offset < *bytes;
                offset -= if here { 0 } else { *bytes };
                here
            });
            let Some((path, ino, _)) = at else { continue };
            self.flip(*ino, offset, 1 << bit)?;
            let file = path.clone();
            flips.push(Flip { file, offset, bit });
        }
        Ok(flips)
    }

    fn flip(&mut self, ino: Ino, offset: u64, mask: u8) -> io::Result<()> {
        let file = open_held(&self.backing, ino)?;
        let mut byte = [0];
        file.read_exact_at(&mut byte, offset)?;
        file.write_all_at(&[byte[0] ^ mask], offset)?;
        if let Some(regular) = self.files.get_mut(&ino) {
            regular.unsynced.flip(offset, mask);
        }
        Ok(())
    }
}
