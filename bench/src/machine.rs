//! What the numbers were measured on, and what a process costs: read from `/proc`, Linux only.

use anyhow::{Context, Result};
use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

/// Linux counts CPU time for `/proc` in hundredths of a second on every platform that this builds for.
const TICKS_PER_SECOND: u64 = 100;

/// Whether a process goes on; one that has ended and was not waited for yet does not.
pub fn is_running(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name of the program, which may hold anything, ends with the last bracket.
    let state = stat.rsplit_once(") ").map(|(_, rest)| rest);
    // The first thread of a killed process may be gone while another waits for the disk, and keeps its files and ports open.
    let threads = fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
    state.is_some_and(|state| !state.starts_with('Z')) || threads > 1
}

/// A line for the report: cores, CPU, memory, kernel.
pub fn describe() -> Result<String> {
    let cpus = fs::read_to_string("/proc/cpuinfo")?;
    let model = field(&cpus, "model name").unwrap_or("unknown CPU");
    let memory = fs::read_to_string("/proc/meminfo")?;
    let kib: u64 = field(&memory, "MemTotal")
        .and_then(|total| total.split(' ').next()?.parse().ok())
        .unwrap_or(0);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    Ok(format!(
        "{} cores of {model}, {} GiB, Linux {}",
        std::thread::available_parallelism()?,
        kib >> 20,
        kernel.trim(),
    ))
}

/// How many processes wanted a core, over the last minute.
pub fn load_average() -> Result<String> {
    let load = fs::read_to_string("/proc/loadavg")?;
    Ok(load.split(' ').next().unwrap_or("unknown").to_owned())
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim())
}

/// The type of the file system that holds `dir`: the mount with the longest matching path.
pub fn file_system(dir: &Path) -> Result<String> {
    let dir = dir.canonicalize()?;
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let holder = mounts
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(' ').skip(1);
            Some((fields.next()?, fields.next()?))
        })
        .filter(|(path, _)| dir.starts_with(path))
        .max_by_key(|(path, _)| path.len());
    Ok(holder.map_or("unknown file system", |(_, kind)| kind).to_owned())
}

/// CPU time that the processes have used so far, in user space and in the kernel.
pub fn cpu_time(pids: &[u32]) -> Result<Duration> {
    let mut ticks = 0;
    for pid in pids {
        let path = format!("/proc/{pid}/stat");
        let stat = fs::read_to_string(&path).with_context(|| format!("process {pid} is gone"))?;
        // The name of the program is in parentheses and may hold anything; fields 14 and 15 are counted from after it.
        let after_name = stat.rsplit_once(')').context("malformed stat")?.1;
        let fields: Vec<&str> = after_name.split_whitespace().collect();
        for index in [11, 12] {
            let field = fields.get(index).context("malformed stat")?;
            ticks += field.parse::<u64>()?;
        }
    }
    Ok(Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND))
}

/// The memory that each process holds, in MiB.
pub fn resident_mib(pids: &[u32]) -> Result<Vec<u64>> {
    let resident = |pid: &u32| -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let kib = field(&status, "VmRSS").and_then(|size| size.split(' ').next()?.parse::<u64>().ok());
        Ok(kib.context("no VmRSS")? >> 10)
    };
    pids.iter().map(resident).collect()
}

/// What the files below a directory take on the disk, each counted once however many names it has.
pub fn disk_bytes(dir: &Path) -> Result<u64> {
    let mut seen = BTreeSet::new();
    let mut folders = vec![dir.to_owned()];
    let mut bytes = 0;
    while let Some(folder) = folders.pop() {
        // What is deleted meanwhile takes nothing.
        let Ok(entries) = fs::read_dir(&folder) else {
            continue;
        };
        for entry in entries {
            let entry = entry?;
            let Ok(meta) = entry.metadata() else { continue };
            if meta.is_dir() {
                folders.push(entry.path());
            } else if seen.insert(meta.ino()) {
                bytes += meta.blocks() * 512;
            }
        }
    }
    Ok(bytes)
}

/// Replaces what stands between the markers of the file at `path`.
pub fn write_between_markers(path: &Path, text: &str) -> Result<()> {
    const BEGIN: &str = "<!-- bench: begin -->\n";
    const END: &str = "<!-- bench: end -->\n";
    let page = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let marked = |marker: &str| {
        page.find(marker)
            .with_context(|| format!("{} has no line `{}`", path.display(), marker.trim()))
    };
    let (begin, end) = (marked(BEGIN)? + BEGIN.len(), marked(END)?);
    let mut file = fs::File::create(path)?;
    write!(file, "{}{text}{}", &page[..begin], &page[end..])?;
    Ok(())
}
