//! The network of the cluster under test, and all that can be done to it.
//!
//! With root, each node has a network namespace on one bridge, with an address of its own: packets are dropped by rules
//! at the entrance of a node ([`firewall`]). Without, all nodes share loopback. In both cases streams between peers can
//! pass through the harness ([`proxy`]), which delays, holds and breaks them; on loopback that is also how links are
//! cut. Packets cannot be lost on loopback, and nothing pretends that they are.
//!
//! Clients of the harness reach every node whatever is done between nodes.

mod firewall;
mod ground;
mod owner;
mod place;
mod proxy;

pub use place::Place;
pub use proxy::{Passage, Shape};

use anyhow::{Context, ensure};
use firewall::{Firewall, Rule};
use ground::Ground;
use owner::{Processes, Senders};
use proxy::Links;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use tokio::sync::Mutex;

/// Where free ports of loopback are looked for.
const FREE_PORTS: std::ops::Range<u16> = 16_000..20_000;

/// How nodes are kept apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Isolation {
    /// Each in its own network namespace.
    Namespaces,
    /// All on loopback.
    Loopback,
}

impl Isolation {
    /// The best that this machine allows; with what is in the way where that is not the best there is.
    pub fn best() -> (Isolation, Option<String>) {
        let missing = ["ip", "nft"].into_iter().find(|program| {
            let asked = std::process::Command::new(program).arg("-V").output();
            !asked.is_ok_and(|output| output.status.success())
        });
        let obstacle = match missing {
            Some(program) => Some(format!(
                "the program `{program}` is missing: see scripts/install-deps"
            )),
            None => Place::apart("jepsen-probe")
                .err()
                .map(|error| format!("{error:#}")),
        };
        match obstacle {
            None => (Isolation::Namespaces, None),
            Some(obstacle) => (Isolation::Loopback, Some(obstacle)),
        }
    }
}

/// Where a node listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    /// Its HTTP API.
    pub http: SocketAddr,
    /// Where it listens for peers.
    pub peer: SocketAddr,
    /// Where its peers find it.
    pub front: SocketAddr,
    /// Its DNS server.
    pub dns: SocketAddr,
    /// Its ingress.
    pub ingress: SocketAddr,
}

/// The network of one cluster. It is gone once this is dropped, and also when the harness is killed.
pub struct Network {
    isolation: Isolation,
    seats: BTreeMap<u64, Seat>,
    links: Links,
    proxied: bool,
    processes: Processes,
    /// Last, so that nodes leave before the bridge does.
    ground: Option<Ground>,
}

struct Seat {
    place: Place,
    addresses: Addresses,
    firewall: Mutex<Firewall>,
}

impl Network {
    /// Lays the network of `nodes` nodes, numbered from 1. `proxied`: peers reach each other through proxies, which
    /// streams can be shaped by; without, packets go straight.
    ///
    /// # Errors
    /// Where the machine does not allow it.
    pub async fn lay(isolation: Isolation, nodes: u64, proxied: bool) -> anyhow::Result<Network> {
        ensure!((1..=7).contains(&nodes), "a cluster has 1 to 7 nodes");
        let ground = match isolation {
            Isolation::Namespaces => Some(Ground::lay(&Place::here("jepsen-harness")?).await?),
            Isolation::Loopback => None,
        };
        let mut network = Network {
            isolation,
            seats: BTreeMap::new(),
            links: proxy::links(nodes),
            proxied: proxied || isolation == Isolation::Loopback,
            processes: Processes::new()?,
            ground,
        };
        let mut taken = Vec::new();
        for node in 1..=nodes {
            let seat = network.seat(node, &mut taken).await?;
            network.seats.insert(node, seat);
        }
        network.open_fronts().await?;
        Ok(network)
    }

    async fn seat(&self, node: u64, taken: &mut Vec<(TcpListener, UdpSocket)>) -> anyhow::Result<Seat> {
        let name = format!("jepsen-node{node}");
        let (place, addresses) = match &self.ground {
            Some(ground) => {
                let place = Place::apart(&name)?;
                ground.connect(node, &place).await?;
                let at = |port| SocketAddr::from((ground.address(node), port));
                let front = at(if self.proxied { 7402 } else { 7401 });
                let addresses = Addresses {
                    http: at(7400),
                    peer: at(7401),
                    front,
                    dns: at(7453),
                    ingress: at(7480),
                };
                (place, addresses)
            }
            None => {
                let mut free = || free_port(taken);
                let addresses = Addresses {
                    http: free()?,
                    peer: free()?,
                    // Chosen as the front opens.
                    front: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
                    dns: free()?,
                    ingress: free()?,
                };
                (Place::here(&name)?, addresses)
            }
        };
        Ok(Seat {
            place,
            addresses,
            firewall: Mutex::default(),
        })
    }

    async fn open_fronts(&mut self) -> anyhow::Result<()> {
        if !self.proxied {
            return Ok(());
        }
        let senders = match self.isolation {
            Isolation::Namespaces => {
                let by_address = |(node, seat): (&u64, &Seat)| (seat.addresses.peer.ip(), *node);
                Senders::Addresses(Arc::new(self.seats.iter().map(by_address).collect()))
            }
            Isolation::Loopback => Senders::Processes(self.processes.clone()),
        };
        for (&node, seat) in &mut self.seats {
            let Addresses { front, peer, .. } = seat.addresses;
            let bound = seat.place.runtime().spawn(tokio::net::TcpListener::bind(front));
            let listener = bound.await?.with_context(|| format!("no front of node {node}"))?;
            seat.addresses.front = listener.local_addr()?;
            let front = proxy::front(listener, node, peer, self.links.clone(), senders.clone());
            seat.place.runtime().spawn(front);
        }
        Ok(())
    }

    /// How nodes are kept apart.
    pub fn isolation(&self) -> Isolation {
        self.isolation
    }

    /// Where a node listens.
    pub fn addresses(&self, node: u64) -> Addresses {
        self.seats[&node].addresses
    }

    /// Where a node's process belongs.
    pub fn place(&self, node: u64) -> &Place {
        &self.seats[&node].place
    }

    /// `node` runs as `pid` from now on, or not at all.
    pub fn set_process(&self, node: u64, pid: Option<u32>) {
        self.processes.set(node, pid);
    }

    /// Nothing that `from` sends reaches `to` any more. The other direction stays as it is. What is cut twice has to be
    /// mended twice.
    ///
    /// # Errors
    /// Where the rules could not be set.
    pub async fn cut(&self, from: u64, to: u64) -> anyhow::Result<()> {
        self.set_cut(from, to, true).await
    }

    /// Takes back what [`Network::cut`] did.
    ///
    /// # Errors
    /// Where the rules could not be taken back.
    pub async fn mend(&self, from: u64, to: u64) -> anyhow::Result<()> {
        self.set_cut(from, to, false).await
    }

    async fn set_cut(&self, from: u64, to: u64, cut: bool) -> anyhow::Result<()> {
        match self.isolation {
            Isolation::Namespaces => {
                let change = |rule: &mut Rule| rule.cuts = proxy::counted(rule.cuts, cut);
                self.set_rule(from, to, change).await
            }
            Isolation::Loopback => {
                self.links[&(from, to)].cut(cut);
                Ok(())
            }
        }
    }

    /// `percent` of the packets that `from` sends to `to` are lost; 0 takes it back.
    ///
    /// # Errors
    /// On loopback, where no packet can be lost; where the rules could not be set.
    pub async fn lose(&self, from: u64, to: u64, percent: u8) -> anyhow::Result<()> {
        ensure!(
            self.isolation == Isolation::Namespaces,
            "packets can be lost in network namespaces only"
        );
        self.set_rule(from, to, |rule| rule.loss = percent.min(100)).await
    }

    async fn set_rule(&self, from: u64, to: u64, change: impl FnOnce(&mut Rule)) -> anyhow::Result<()> {
        let seat = &self.seats[&to];
        let mut firewall = seat.firewall.lock().await;
        firewall.set(&seat.place, &self.ips(), from, change).await
    }

    fn ips(&self) -> BTreeMap<u64, Ipv4Addr> {
        let ip = |(node, seat): (&u64, &Seat)| match seat.addresses.peer.ip() {
            IpAddr::V4(ip) => Some((*node, ip)),
            IpAddr::V6(_) => None,
        };
        self.seats.iter().filter_map(ip).collect()
    }

    /// Gives the stream from `from` to `to` this shape.
    ///
    /// # Errors
    /// Where peers do not go through proxies.
    pub fn shape(&self, from: u64, to: u64, shape: Shape) -> anyhow::Result<()> {
        ensure!(self.proxied, "the network was laid without proxies");
        self.links[&(from, to)].set(shape);
        Ok(())
    }

    /// How much of what `from` sent to `to` was dropped or held up so far: packets, and pieces of streams.
    ///
    /// # Errors
    /// Where the counters cannot be read.
    pub async fn touched(&self, from: u64, to: u64) -> anyhow::Result<u64> {
        let shaped = self.links[&(from, to)].touched();
        if self.isolation == Isolation::Loopback {
            return Ok(shaped);
        }
        let seat = &self.seats[&to];
        let dropped = seat.firewall.lock().await.dropped(&seat.place, from).await?;
        Ok(shaped + dropped)
    }

    /// Takes everything back.
    ///
    /// # Errors
    /// Where rules could not be taken back.
    pub async fn heal(&self) -> anyhow::Result<()> {
        for link in self.links.values() {
            link.heal();
        }
        if self.isolation == Isolation::Namespaces {
            for seat in self.seats.values() {
                seat.firewall.lock().await.clear(&seat.place).await?;
            }
        }
        Ok(())
    }
}

/// A port of loopback that is free for TCP and UDP now, drawn from below those that Linux gives to outgoing connections,
/// one of which might take it while its node is down. The sockets stay open until all are chosen, so that no two are alike.
fn free_port(taken: &mut Vec<(TcpListener, UdpSocket)>) -> anyhow::Result<SocketAddr> {
    for _ in 0..1000 {
        let port = rand::random_range(FREE_PORTS);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if let (Ok(tcp), Ok(udp)) = (TcpListener::bind(address), UdpSocket::bind(address)) {
            taken.push((tcp, udp));
            return Ok(address);
        }
    }
    anyhow::bail!("no port on loopback from {FREE_PORTS:?} is free for both TCP and UDP")
}

#[cfg(test)]
mod tests;
