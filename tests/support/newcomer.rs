//! Nodes beside those that `onward dev` started: with a configuration, and not started yet.

use super::{Cluster, Node};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};

/// Below the ports of outgoing connections.
const FREE_PORTS: std::ops::Range<u16> = 20_000..32_000;

impl Cluster {
    /// A place for one more node, in the cluster's directory. Its id is given by the cluster: `id` is only a name here.
    pub fn newcomer(&self, id: u64) -> Node {
        let mut taken = Vec::new();
        let mut port = || free_port(&mut taken).to_string();
        let dir = self.dir.path().join(format!("newcomer{id}"));
        let node = Node {
            id,
            pid: 0,
            http: format!("http://{}", port()),
            peer: port(),
            dns: port(),
            ingress: port(),
            dir,
        };
        std::fs::create_dir_all(&node.dir).expect("a directory");
        let config = format!(
            "cluster = \"dev\"\ndata_dir = {:?}\n[http]\nlisten = {:?}\n[peer]\nlisten = {:?}\n[dns]\nlisten = {:?}\n\
             [ingress]\nlisten = {:?}\n",
            node.dir.join("data"),
            node.http.trim_start_matches("http://"),
            node.peer,
            node.dns,
            node.ingress,
        );
        std::fs::write(node.dir.join("onward.toml"), config).expect("a configuration");
        node
    }
}

fn free_port(taken: &mut Vec<(TcpListener, UdpSocket)>) -> SocketAddr {
    (0..1000)
        .find_map(|_| {
            let drawn = (uuid::Uuid::new_v4().as_u128() % FREE_PORTS.len() as u128) as u16;
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, FREE_PORTS.start + drawn));
            let (tcp, udp) = (TcpListener::bind(address).ok()?, UdpSocket::bind(address).ok()?);
            taken.push((tcp, udp));
            Some(address)
        })
        .expect("a port that is free for both TCP and UDP")
}
