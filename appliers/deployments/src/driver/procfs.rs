//! What `/proc` says of processes: who lives since when, which carries which mark, which port has connections.

use std::fs;
use std::path::Path;

/// The identity of a process: its id, and when it started in clock ticks since boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pid {
    pub(crate) pid: u32,
    pub(crate) start_ticks: u64,
}

/// The process group and start of a process that lives; a zombie does not.
fn stat(pid: u32) -> Option<(u32, u64)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything, so fields are counted from its end: state is the first.
    let fields: Vec<&str> = stat[stat.rfind(')')? + 1..].split_ascii_whitespace().collect();
    if matches!(*fields.first()?, "Z" | "X" | "x") {
        return None;
    }
    Some((fields.get(2)?.parse().ok()?, fields.get(19)?.parse().ok()?))
}

/// The identity of a living process.
pub(crate) fn identify(pid: u32) -> Option<Pid> {
    stat(pid).map(|(_, start_ticks)| Pid { pid, start_ticks })
}

/// Whether this very process lives.
pub(crate) fn lives(process: Pid) -> bool {
    identify(process.pid) == Some(process)
}

/// An identity of this boot of the machine, since process ids and ticks begin again with each.
pub(crate) fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|id| id.trim().to_owned())
        .unwrap_or_default()
}

/// A living process whose environment has a variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Marked {
    pub(crate) process: Pid,
    /// Its process group.
    pub(crate) group: u32,
    /// What follows the prefix that was looked for.
    pub(crate) value: String,
}

impl Marked {
    /// Whether it leads its process group.
    pub(crate) fn leads(&self) -> bool {
        self.group == self.process.pid
    }
}

/// The living processes that have an environment variable beginning with `prefix` (`NAME=...`). Those of other users
/// are not seen.
pub(crate) fn marked(prefix: &str) -> Vec<Marked> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    pids.filter_map(|pid| {
        let environ = fs::read(Path::new("/proc").join(pid.to_string()).join("environ")).ok()?;
        let value = environ
            .split(|byte| *byte == 0)
            .find_map(|entry| entry.strip_prefix(prefix.as_bytes()))?;
        let (group, start_ticks) = stat(pid)?;
        Some(Marked {
            process: Pid { pid, start_ticks },
            group,
            value: String::from_utf8_lossy(value).into_owned(),
        })
    })
    .collect()
}

/// How many established TCP connections a local port has.
pub(crate) fn connections(port: u16) -> usize {
    const ESTABLISHED: &str = "01";
    let suffix = format!(":{port:04X}");
    let count = |table: &str| {
        let text = fs::read_to_string(table).unwrap_or_default();
        text.lines()
            .skip(1)
            .filter(|line| {
                let mut fields = line.split_ascii_whitespace().skip(1);
                let local = fields.next().is_some_and(|local| local.ends_with(&suffix));
                local && fields.nth(1) == Some(ESTABLISHED)
            })
            .count()
    };
    count("/proc/net/tcp") + count("/proc/net/tcp6")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sees_itself() {
        let me = identify(std::process::id()).expect("this process lives");
        assert!(lives(me));
        assert!(!lives(Pid {
            start_ticks: me.start_ticks + 1,
            ..me
        }));
        assert!(!boot_id().is_empty());
    }

    #[test]
    fn counts_connections() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("binds");
        let port = listener.local_addr().expect("has an address").port();
        assert_eq!(connections(port), 0);
        let client = std::net::TcpStream::connect(("127.0.0.1", port)).expect("connects");
        assert_eq!(connections(port), 1);
        drop(client);
    }
}
