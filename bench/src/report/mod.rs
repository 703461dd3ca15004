//! What was measured, kept as JSON beside the page that is made of it: a run renews the parts that it measured, and the
//! page is made of all of them.

mod bars;
mod page;
mod plots;

use crate::disk::Disk;
use crate::growth::Point;
use crate::handover::Handover;
use crate::load::{Summary, Work};
use crate::machine;
use crate::overload::Overload;
use crate::rejoin::Rejoin;
use crate::standing::{Idle, Restart};
use crate::system::Kind;
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::Path;

/// The name of the data, in the folder that has the name of the page.
const DATA: &str = "report.json";

/// One row of the tables of load.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Cell {
    /// Who was measured.
    pub kind: Kind,
    /// What its clients asked for.
    pub work: Work,
    /// How many nodes it had.
    pub nodes: usize,
    /// How many clients there were.
    pub clients: usize,
    /// What came of it, over all rounds.
    pub load: Summary,
}

/// What a part was measured on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// When it began.
    pub date: String,
    /// Cores, memory, kernel.
    pub machine: String,
    /// How busy it was before.
    pub load_before: String,
    /// The file system of the data.
    pub file_system: String,
    /// Version and commit of ours.
    pub onward: String,
    /// Version of the peer, where it was there.
    pub etcd: Option<String>,
    /// Whether it was shortened, so that its numbers say little.
    pub quick: bool,
}

/// A part of the report.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Part<T> {
    /// On what.
    pub run: Run,
    /// What came of it.
    pub found: T,
}

/// All that was measured.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Report {
    /// Writes and reads under load.
    pub load: Option<Part<Vec<Cell>>>,
    /// Cost as work grows.
    pub growth: Option<Part<Vec<Point>>>,
    /// What a sync costs.
    pub disk: Option<Part<Disk>>,
    /// Restarts of one node of ours with many keys.
    pub restart: Option<Part<Vec<Restart>>>,
    /// A node that lost its disk comes back.
    pub rejoin: Option<Part<Rejoin>>,
    /// Nodes at rest.
    pub rest: Option<Part<Vec<Idle>>>,
    /// Changes of who leads.
    pub handover: Option<Part<Vec<Handover>>>,
    /// More than it can take.
    pub overload: Option<Part<Overload>>,
}

impl Report {
    /// The data beside the page at `path`; nothing, where there is none yet.
    pub fn read(path: &Path) -> Result<Report> {
        let data = path.with_extension("").join(DATA);
        match fs::read(&data) {
            Ok(bytes) => {
                serde_json::from_slice(&bytes).with_context(|| format!("what is in {}", data.display()))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Report::default()),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", data.display())),
        }
    }

    /// Takes over the parts that `newer` has.
    pub fn renew(&mut self, newer: Report) {
        fn take<T>(part: &mut Option<T>, newer: Option<T>) {
            if newer.is_some() {
                *part = newer;
            }
        }
        take(&mut self.load, newer.load);
        take(&mut self.growth, newer.growth);
        take(&mut self.disk, newer.disk);
        take(&mut self.restart, newer.restart);
        take(&mut self.rejoin, newer.rejoin);
        take(&mut self.rest, newer.rest);
        take(&mut self.handover, newer.handover);
        take(&mut self.overload, newer.overload);
    }

    /// Puts the report between the markers of the page at `path`, and the data and the plots into the folder beside it.
    pub fn write(&self, path: &Path) -> Result<()> {
        let folder = path.with_extension("");
        fs::create_dir_all(&folder)?;
        let mut data = serde_json::to_vec_pretty(self)?;
        data.push(b'\n');
        fs::write(folder.join(DATA), data)?;
        for (name, svg) in plots::svgs(self) {
            fs::write(folder.join(name), svg)?;
        }
        let stem = path.file_stem().context("the page has no name")?;
        machine::write_between_markers(path, &self.markdown(&stem.to_string_lossy()))
    }

    /// The report as Markdown; its plots are in `folder`.
    pub fn markdown(&self, folder: &str) -> String {
        page::markdown(self, folder)
    }

    /// What the newest part was measured on.
    fn newest(&self) -> Option<&Run> {
        self.runs().max_by(|one, other| one.date.cmp(&other.date))
    }

    fn runs(&self) -> impl Iterator<Item = &Run> {
        fn run<T>(part: Option<&Part<T>>) -> Option<&Run> {
            part.map(|part| &part.run)
        }
        [
            run(self.load.as_ref()),
            run(self.growth.as_ref()),
            run(self.disk.as_ref()),
            run(self.restart.as_ref()),
            run(self.rejoin.as_ref()),
            run(self.rest.as_ref()),
            run(self.handover.as_ref()),
            run(self.overload.as_ref()),
        ]
        .into_iter()
        .flatten()
    }
}

#[cfg(test)]
mod tests;
