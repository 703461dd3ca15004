//! How a disk lies in its backing directory.
//!
//! While it is mounted, every file lies under its number in one flat folder, so that a name that comes back finds its
//! bytes; directories lie there too, empty, for their attributes. At unmount the tree is laid out as plain files again.

use super::Store;
use crate::disk::names::{Ino, Names, ROOT, Slot};
use anyhow::{Context, bail};
use rand::SeedableRng;
use rand::rngs::ChaCha8Rng;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The folder of numbered files in the backing directory, while the disk is mounted.
const HELD: &str = ".held";

fn held(backing: &Path, ino: Ino) -> PathBuf {
    backing.join(HELD).join(ino.0.to_string())
}

/// Opens the file of this number, to read and write it.
pub(super) fn open_held(backing: &Path, ino: Ino) -> io::Result<File> {
    File::options().read(true).write(true).open(held(backing, ino))
}

impl Store {
    /// Takes over what is in `backing`; all of it is durable.
    pub(in crate::disk) fn open(backing: &Path, seed: u64) -> anyhow::Result<Self> {
        let held = backing.join(HELD);
        if held.exists() {
            bail!(
                "{} is what a harness left that was killed while its disk was mounted: no file in it has a name any \
                 more; remove {}",
                held.display(),
                backing.display()
            );
        }
        fs::create_dir(&held).with_context(|| format!("cannot create {}", held.display()))?;
        let mut store = Store {
            backing: backing.to_owned(),
            names: Names::new(),
            files: BTreeMap::new(),
            handles: BTreeMap::new(),
            numbers: ROOT.0,
            space_left: None,
            random: ChaCha8Rng::seed_from_u64(seed),
        };
        fs::create_dir(store.held(ROOT))?;
        store
            .take_over(backing, ROOT, &mut BTreeMap::new())
            .with_context(|| format!("cannot take over {}", backing.display()))?;
        Ok(store)
    }

    fn take_over(&mut self, path: &Path, dir: Ino, links: &mut BTreeMap<u64, Ino>) -> io::Result<()> {
        fs::set_permissions(self.held(dir), fs::metadata(path)?.permissions())?;
        for entry in fs::read_dir(path)? {
            let (name, path) = entry.map(|entry| (entry.file_name(), entry.path()))?;
            if name == HELD {
                continue;
            }
            let meta = fs::symlink_metadata(&path)?;
            if let Some(ino) = links.get(&meta.ino()) {
                self.names.add_durable(&Slot::new(dir, &name), *ino);
                fs::remove_file(&path)?;
                continue;
            }
            let ino = self.next_ino();
            if meta.is_dir() {
                fs::create_dir(self.held(ino))?;
                self.names.add_dir(ino);
                self.take_over(&path, ino, links)?;
                fs::remove_dir(&path)?;
            } else {
                fs::rename(&path, self.held(ino))?;
                links.insert(meta.ino(), ino);
                if meta.is_file() {
                    self.add_file(ino, meta.len());
                }
            }
            self.names.add_durable(&Slot::new(dir, &name), ino);
        }
        Ok(())
    }

    /// Lays the tree out in the backing directory as it is now; the store is of no use afterwards.
    pub(in crate::disk) fn lay_out(&mut self) -> io::Result<()> {
        self.handles.clear();
        for (path, ino) in self.names.walk() {
            let path = self.backing.join(path);
            if self.names.is_dir(ino) {
                fs::create_dir(&path)?;
                fs::set_permissions(&path, fs::metadata(self.held(ino))?.permissions())?;
            } else {
                fs::hard_link(self.held(ino), &path)?;
            }
        }
        fs::remove_dir_all(self.backing.join(HELD))
    }

    pub(super) fn held(&self, ino: Ino) -> PathBuf {
        held(&self.backing, ino)
    }
}
