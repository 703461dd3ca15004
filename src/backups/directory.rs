//! Backups in a directory: written as `NAME.NODE.part`, synced, renamed.

use super::destination::Name;
use anyhow::{Context, Result};
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::fs::{self, File};
use tokio::io::AsyncWriteExt;

/// What another node has not finished for so long, it will not finish.
const STALE: Duration = Duration::from_secs(24 * 60 * 60);

/// A directory.
pub struct Directory(PathBuf);

/// A file on its way.
pub struct Upload {
    file: File,
    part: PathBuf,
    path: PathBuf,
}

impl Directory {
    pub fn new(path: &Path) -> Directory {
        Directory(path.to_owned())
    }

    pub async fn list(&self) -> Result<Vec<Name>> {
        let names = self.names().await?;
        Ok(names.iter().filter_map(|name| Name::parse(name)).collect())
    }

    async fn names(&self) -> Result<Vec<String>> {
        let mut entries = fs::read_dir(&self.0).await.with_context(|| self.to_string())?;
        let mut names = Vec::new();
        while let Some(entry) = entries.next_entry().await.with_context(|| self.to_string())? {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
        Ok(names)
    }

    pub async fn begin(&self, name: &Name, node: u64) -> Result<Upload> {
        self.sweep(name, node).await?;
        let path = self.0.join(name.to_string());
        let part = path.with_added_extension(format!("{node}.part"));
        let file = File::create(&part)
            .await
            .with_context(|| part.display().to_string())?;
        Ok(Upload { file, part, path })
    }

    /// Deletes what earlier lives of this node, and other nodes long ago, broke off.
    async fn sweep(&self, name: &Name, node: u64) -> Result<()> {
        let (own, cluster) = (format!(".{node}.part"), format!("onward-{}-", name.cluster));
        for found in self.names().await? {
            if !found.starts_with(&cluster) || !found.ends_with(".part") {
                continue;
            }
            let path = self.0.join(&found);
            let modified = fs::metadata(&path).await.and_then(|metadata| metadata.modified());
            let old = modified.is_ok_and(|modified| modified.elapsed().is_ok_and(|age| age > STALE));
            if old || found.ends_with(&own) {
                fs::remove_file(&path)
                    .await
                    .with_context(|| path.display().to_string())?;
            }
        }
        Ok(())
    }

    pub async fn delete(&self, name: &Name) -> Result<()> {
        let path = self.0.join(name.to_string());
        fs::remove_file(&path)
            .await
            .with_context(|| path.display().to_string())
    }
}

impl fmt::Display for Directory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.display().fmt(f)
    }
}

impl Upload {
    pub async fn write(&mut self, piece: &[u8]) -> Result<()> {
        let written = self.file.write_all(piece).await;
        written.with_context(|| self.part.display().to_string())
    }

    pub async fn finish(mut self) -> Result<()> {
        let named = || self.part.display().to_string();
        self.file.flush().await.with_context(named)?;
        self.file.sync_all().await.with_context(named)?;
        fs::rename(&self.part, &self.path).await.with_context(named)?;
        let dir = self.path.parent().unwrap_or(&self.path);
        let synced = async { File::open(dir).await?.sync_all().await }.await;
        synced.with_context(|| dir.display().to_string())
    }

    pub async fn abort(self) {
        if let Err(error) = fs::remove_file(&self.part).await {
            tracing::warn!(path = %self.part.display(), %error, "a part of a backup could not be deleted");
        }
    }
}
