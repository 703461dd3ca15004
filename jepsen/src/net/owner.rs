//! Which node a connection comes from: by its address where each node has its own, and on loopback by the process
//! that has the other end.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How long a process that was just started may take to be known.
const PATIENCE: Duration = Duration::from_millis(50);
const TRIES: usize = 20;

/// How senders are told apart.
#[derive(Clone)]
pub(super) enum Senders {
    /// By address.
    Addresses(Arc<BTreeMap<IpAddr, u64>>),
    /// By process.
    Processes(Processes),
}

impl Senders {
    /// The node that `socket` belongs to; `None` where it is none of the cluster, or gone already.
    pub(super) async fn sender_of(&self, socket: SocketAddr) -> Option<u64> {
        match self {
            Senders::Addresses(nodes) => nodes.get(&socket.ip()).copied(),
            Senders::Processes(processes) => {
                for _ in 0..TRIES {
                    if let Some(node) = processes.owner_of(socket) {
                        return Some(node);
                    }
                    tokio::time::sleep(PATIENCE).await;
                }
                None
            }
        }
    }
}

/// The process of each node that runs.
#[derive(Clone, Default)]
pub(super) struct Processes(Arc<Mutex<BTreeMap<u64, u32>>>);

impl Processes {
    /// `node` runs as `pid` from now on, or not at all.
    pub(super) fn set(&self, node: u64, pid: Option<u32>) {
        let mut nodes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match pid {
            Some(pid) => nodes.insert(node, pid),
            None => nodes.remove(&node),
        };
    }

    fn owner_of(&self, socket: SocketAddr) -> Option<u64> {
        let inode = inode_of(&std::fs::read_to_string("/proc/net/tcp").ok()?, socket)?;
        let wanted = format!("socket:[{inode}]");
        let nodes = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut owners = nodes.into_iter().filter(|(_, pid)| has(*pid, &wanted));
        owners.next().map(|(node, _)| node)
    }
}

/// Whether a process has this file open.
fn has(pid: u32, wanted: &str) -> bool {
    std::fs::read_dir(format!("/proc/{pid}/fd")).is_ok_and(|open| {
        open.flatten()
            .filter_map(|file| std::fs::read_link(file.path()).ok())
            .any(|target| target.as_os_str() == wanted)
    })
}

/// The inode of the socket that is bound to `local`, from the kernel's table: proc_pid_net(5).
fn inode_of(table: &str, local: SocketAddr) -> Option<u64> {
    let IpAddr::V4(ip) = local.ip() else {
        return None;
    };
    table.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (address, port) = fields.get(1)?.split_once(':')?;
        let address = u32::from_str_radix(address, 16).ok()?;
        let found = Ipv4Addr::from(address.to_ne_bytes());
        let port = u16::from_str_radix(port, 16).ok()?;
        // A connection that is closing has none any more.
        let inode: u64 = fields.get(9)?.parse().ok()?;
        (found == ip && port == local.port() && inode != 0).then_some(inode)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn the_process_at_the_other_end_is_found() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let near = TcpStream::connect(listener.local_addr().expect("bound")).expect("connects");
        let (_far, from) = listener.accept().expect("accepts");
        assert_eq!(from, near.local_addr().expect("connected"));
        let processes = Processes::default();
        assert_eq!(processes.owner_of(from), None);
        processes.set(2, Some(std::process::id()));
        assert_eq!(processes.owner_of(from), Some(2));
        processes.set(2, None);
        assert_eq!(processes.owner_of(from), None);
    }
}
