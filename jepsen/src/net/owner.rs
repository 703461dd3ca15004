//! Which node a connection comes from: by its address where each node has its own, and on loopback by the process
//! that has the other end.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// How long a process that was just started may take to be known.
const PATIENCE: Duration = Duration::from_secs(1);
const POLL: Duration = Duration::from_millis(25);

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
            Senders::Processes(processes) => processes.owner_of(socket).await,
        }
    }
}

/// The process of each node that runs, and a thread that looks for the sockets of each. There is one: the kernel's
/// tables are long, and whoever connects in vain connects again.
#[derive(Clone)]
pub(super) struct Processes {
    nodes: Nodes,
    wanted: mpsc::Sender<Wanted>,
}

type Nodes = Arc<Mutex<BTreeMap<u64, u32>>>;

struct Wanted {
    socket: SocketAddr,
    until: Instant,
    answer: oneshot::Sender<Option<u64>>,
}

impl Processes {
    /// None yet.
    pub(super) fn new() -> std::io::Result<Processes> {
        let nodes = Nodes::default();
        let (wanted, waiting) = mpsc::channel();
        let known = nodes.clone();
        let name = "jepsen-owners".to_owned();
        std::thread::Builder::new()
            .name(name)
            .spawn(move || look(&waiting, &known))?;
        Ok(Processes { nodes, wanted })
    }

    /// `node` runs as `pid` from now on, or not at all.
    pub(super) fn set(&self, node: u64, pid: Option<u32>) {
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        match pid {
            Some(pid) => nodes.insert(node, pid),
            None => nodes.remove(&node),
        };
    }

    async fn owner_of(&self, socket: SocketAddr) -> Option<u64> {
        let (answer, owner) = oneshot::channel();
        let until = Instant::now() + PATIENCE;
        let wanted = Wanted {
            socket,
            until,
            answer,
        };
        self.wanted.send(wanted).ok()?;
        owner.await.ok()?
    }
}

/// Looks for owners as long as anybody may ask.
fn look(waiting: &mpsc::Receiver<Wanted>, nodes: &Mutex<BTreeMap<u64, u32>>) {
    let mut open: Vec<Wanted> = Vec::new();
    loop {
        if open.is_empty() {
            match waiting.recv() {
                Ok(wanted) => open.push(wanted),
                Err(mpsc::RecvError) => return,
            }
        }
        open.extend(waiting.try_iter());
        let pids = nodes.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let inodes = inodes(&open.iter().map(|wanted| wanted.socket).collect::<Vec<_>>());
        let owners = owners(&pids);
        let owner = |socket| owners.get(inodes.get(&socket)?).copied();
        let now = Instant::now();
        let (found, rest): (Vec<_>, Vec<_>) = open
            .into_iter()
            .partition(|wanted| owner(wanted.socket).is_some() || wanted.until < now);
        for Wanted { socket, answer, .. } in found {
            // Whoever asked may have given up.
            let _ = answer.send(owner(socket));
        }
        open = rest;
        if !open.is_empty() {
            std::thread::sleep(POLL);
        }
    }
}

/// The node of each socket that any of these processes has open, by inode.
fn owners(pids: &BTreeMap<u64, u32>) -> BTreeMap<u64, u64> {
    let mut owners = BTreeMap::new();
    for (node, pid) in pids {
        // One that is gone has none.
        let files = std::fs::read_dir(format!("/proc/{pid}/fd"))
            .into_iter()
            .flatten()
            .flatten();
        let inodes = files.filter_map(|file| {
            let target = std::fs::read_link(file.path()).ok()?;
            let inode = target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?;
            inode.parse().ok()
        });
        owners.extend(inodes.map(|inode: u64| (inode, *node)));
    }
    owners
}

/// The inodes of the sockets that are bound to these addresses, from the kernel's table: proc_pid_net(5).
fn inodes(wanted: &[SocketAddr]) -> BTreeMap<SocketAddr, u64> {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap_or_default();
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let mut fields = line.split_ascii_whitespace();
            let (address, port) = fields.nth(1)?.split_once(':')?;
            let address = u32::from_str_radix(address, 16).ok()?;
            let port = u16::from_str_radix(port, 16).ok()?;
            let socket = SocketAddr::from((Ipv4Addr::from(address.to_ne_bytes()), port));
            // A connection that is closing has no inode any more.
            let inode: u64 = fields.nth(7)?.parse().ok()?;
            (inode != 0 && wanted.contains(&socket)).then_some((socket, inode))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[tokio::test]
    async fn the_process_at_the_other_end_is_found() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let near = TcpStream::connect(listener.local_addr().expect("bound")).expect("connects");
        let (_far, from) = listener.accept().expect("accepts");
        assert_eq!(from, near.local_addr().expect("connected"));
        let processes = Processes::new().expect("a thread");
        assert_eq!(processes.owner_of(from).await, None);
        processes.set(2, Some(std::process::id()));
        assert_eq!(processes.owner_of(from).await, Some(2));
        processes.set(2, None);
        assert_eq!(processes.owner_of(from).await, None);
    }
}
