//! What came of a campaign, as a run keeps it and a judgement reads it.

use crate::verdict::{Finding, Kind, Verdict};
use anyhow::Context;
use serde::{Deserialize, Serialize};
use std::path::Path;

const FILE: &str = "campaign.json";

/// What came of a campaign, besides the faults in the history.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// Faults that could not be made or taken back: the harness failed.
    pub failures: Vec<String>,
    /// Strikes that found nothing to strike, or had no effect: they did not happen, and nobody is to blame.
    pub missed: Vec<String>,
    /// Processes that ended without a fault that explains it, with their last words: the system failed.
    pub fallen: Vec<String>,
    /// Nodes that were let go of and did not stop, though nothing kept them from noticing: the system failed.
    #[serde(default)]
    pub stayed: Vec<String>,
    /// What did not come back once everything was taken back: the system failed.
    pub unhealed: Option<String>,
}

impl Outcome {
    /// Writes it into the directory of a run.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub fn save(&self, dir: &Path) -> anyhow::Result<()> {
        let path = dir.join(FILE);
        let text = serde_json::to_string_pretty(self)?;
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Reads that of a run; `None` where nothing was done to the cluster.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub fn load(dir: &Path) -> anyhow::Result<Option<Outcome>> {
        match std::fs::read(dir.join(FILE)) {
            Ok(text) => serde_json::from_slice(&text).context(FILE),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).context(FILE),
        }
    }

    /// What it shows.
    pub fn verdicts(&self) -> Vec<Verdict> {
        let made = match self.failures.len() {
            0 => format!(
                "all faults were made and taken back; {} found nothing to strike",
                self.missed.len()
            ),
            failures => format!("{failures} faults could not be made or taken back"),
        };
        let fallen = match self.fallen.len() {
            0 => "no process ended by itself".to_owned(),
            fallen => format!("{fallen} times a process ended by itself"),
        };
        let stayed = match self.stayed.len() {
            0 => "whoever was let go of stopped, where nothing kept it from noticing".to_owned(),
            stayed => format!("{stayed} times a node that was let go of did not stop"),
        };
        let healed = self.unhealed.as_deref().unwrap_or("every process came back");
        vec![
            verdict(
                Kind::Harness,
                "nemeses",
                self.failures.is_empty(),
                &made,
                &self.failures,
            ),
            verdict(
                Kind::Property,
                "processes",
                self.fallen.is_empty(),
                &fallen,
                &self.fallen,
            ),
            verdict(
                Kind::Property,
                "removal",
                self.stayed.is_empty(),
                &stayed,
                &self.stayed,
            ),
            verdict(Kind::Liveness, "healing", self.unhealed.is_none(), healed, &[]),
        ]
    }
}

fn verdict(kind: Kind, check: &str, holds: bool, summary: &str, details: &[String]) -> Verdict {
    let finding = if holds { Finding::Pass } else { Finding::Fail };
    Verdict {
        details: details.to_vec(),
        ..Verdict::new(kind, check, finding, summary)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdict::overall;

    #[test]
    fn each_kind_of_breakage_is_a_failure_and_a_miss_is_none() {
        let dir = tempfile::tempdir().expect("temp dir");
        assert_eq!(Outcome::load(dir.path()).expect("reads"), None);
        let well = Outcome {
            missed: vec!["kill: nobody runs".to_owned()],
            ..Outcome::default()
        };
        well.save(dir.path()).expect("writes");
        assert_eq!(Outcome::load(dir.path()).expect("reads"), Some(well.clone()));
        assert_eq!(overall(&well.verdicts()), Finding::Pass);
        let word = || "x".to_owned();
        let broken = [
            Outcome {
                failures: vec![word()],
                ..well.clone()
            },
            Outcome {
                fallen: vec![word()],
                ..well.clone()
            },
            Outcome {
                stayed: vec![word()],
                ..well.clone()
            },
            Outcome {
                unhealed: Some(word()),
                ..well
            },
        ];
        for outcome in broken {
            assert_eq!(overall(&outcome.verdicts()), Finding::Fail, "{outcome:?}");
        }
    }
}
