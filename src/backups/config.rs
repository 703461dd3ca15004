//! The section `[backup]` of a server's configuration.

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Scheduled backups.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Backup {
    /// How long after one backup the next is taken, in seconds; 0 for none at all.
    pub interval_s: u64,
    /// How many are kept; older ones of this cluster are deleted once a newer one is whole.
    pub keep: usize,
    /// Where they go: a directory, best one that all members see.
    pub directory: Option<PathBuf>,
    /// Or a store that speaks the protocol of S3.
    pub s3: Option<S3>,
}

/// A store that speaks the protocol of S3.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct S3 {
    /// Where it is: `https://s3.example`, or `http://...` on a network that is trusted.
    pub endpoint: String,
    /// The bucket, which exists.
    pub bucket: String,
    /// What the names of the objects begin with.
    #[serde(default)]
    pub prefix: String,
    /// The region that requests are signed for.
    #[serde(default = "region")]
    pub region: String,
    /// A TOML file with `access_key_id` and `secret_access_key`, which nobody else may read; without one they come from
    /// the environment, `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`.
    pub credentials_file: Option<PathBuf>,
}

fn region() -> String {
    "us-east-1".to_owned()
}

impl Default for Backup {
    fn default() -> Self {
        Backup {
            interval_s: 0,
            keep: 7,
            directory: None,
            s3: None,
        }
    }
}

impl Backup {
    /// The rules between the settings.
    pub fn check(&self) -> Result<()> {
        ensure!(self.keep >= 1, "backup.keep: takes at least 1");
        let destinations = usize::from(self.directory.is_some()) + usize::from(self.s3.is_some());
        ensure!(
            destinations == usize::from(self.interval_s > 0) || (destinations == 1 && self.interval_s == 0),
            "backup: scheduled backups go to one place: name `backup.directory` or `[backup.s3]`, not both"
        );
        if let Some(s3) = &self.s3 {
            let host = ["http://", "https://"]
                .iter()
                .find_map(|scheme| s3.endpoint.strip_prefix(scheme));
            ensure!(
                host.is_some_and(|host| !host.is_empty() && !host.contains('@')),
                "backup.s3.endpoint: takes http://HOST or https://HOST, without credentials"
            );
            ensure!(!s3.bucket.is_empty(), "backup.s3.bucket: a name is needed");
        }
        Ok(())
    }
}

/// What requests are signed with.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Credentials {
    /// Who.
    pub access_key_id: String,
    /// The secret.
    pub secret_access_key: String,
}

impl Credentials {
    /// From the file, or from the environment.
    pub fn load(file: Option<&Path>) -> Result<Credentials> {
        let Some(path) = file else {
            let variable = |name: &str| {
                std::env::var(name)
                    .with_context(|| format!("backup.s3: {name} is not set, and no credentials_file"))
            };
            return Ok(Credentials {
                access_key_id: variable("AWS_ACCESS_KEY_ID")?,
                secret_access_key: variable("AWS_SECRET_ACCESS_KEY")?,
            });
        };
        let named = || format!("backup.s3.credentials_file {}", path.display());
        let mode = std::fs::metadata(path).with_context(named)?.mode();
        ensure!(mode & 0o077 == 0, "{}: others may read it: chmod 600", named());
        let text = std::fs::read_to_string(path).with_context(named)?;
        // The words of the parser would quote the line, and so the secret.
        toml::from_str(&text).map_err(|_| {
            anyhow::anyhow!(
                "{}: it takes `access_key_id = \"...\"` and `secret_access_key = \"...\"`",
                named()
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn one_destination_is_named() {
        let check = |text: &str| toml::from_str::<Backup>(text).expect("TOML").check();
        assert!(check("").is_ok());
        assert!(check("interval_s = 60\ndirectory = '/b'").is_ok());
        assert!(check("interval_s = 60").is_err());
        assert!(check("interval_s = 60\nkeep = 0\ndirectory = '/b'").is_err());
        let s3 = |endpoint: &str| {
            check(&format!(
                "interval_s = 60\n[s3]\nendpoint = '{endpoint}'\nbucket = 'b'"
            ))
        };
        assert!(s3("https://s3.example").is_ok());
        assert!(s3("s3.example").is_err());
        assert!(s3("https://me:secret@s3.example").is_err());
        assert!(
            check("interval_s = 60\ndirectory = '/b'\n[s3]\nendpoint = 'http://h'\nbucket = 'b'").is_err()
        );
    }

    #[test]
    fn credentials_are_for_nobody_else_and_never_shown() {
        let dir = std::env::temp_dir().join(format!("onward-credentials-{}", uuid::Uuid::now_v7()));
        std::fs::create_dir(&dir).expect("a directory");
        let path = dir.join("s3.toml");
        std::fs::write(&path, "access_key_id = 'id'\nsecret_access_key = 'hush'\n").expect("writable");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).expect("a mode");
        let error = Credentials::load(Some(&path)).err().expect("others may read it");
        assert!(error.to_string().contains("chmod 600"), "{error}");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("a mode");
        assert_eq!(
            Credentials::load(Some(&path)).expect("reads").secret_access_key,
            "hush"
        );
        std::fs::write(&path, "secret_access_key = hush\n").expect("writable");
        let error = Credentials::load(Some(&path)).err().expect("no TOML");
        assert!(!format!("{error:#}").contains("hush"), "{error:#}");
        std::fs::remove_dir_all(&dir).expect("there");
    }
}
