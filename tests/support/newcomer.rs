//! Nodes beside those that `onward dev` started: with a configuration, and not started yet.

use super::{Cluster, Node, free_ports};

impl Cluster {
    /// A place for one more node, in the cluster's directory. Its id is given by the cluster: `id` is only a name here.
    pub fn newcomer(&self, id: u64) -> Node {
        let [http, peer, dns, ingress] = free_ports();
        let dir = self.dir.path().join(format!("newcomer{id}"));
        let node = Node {
            id,
            pid: 0,
            http: format!("http://{http}"),
            peer: peer.to_string(),
            dns: dns.to_string(),
            ingress: ingress.to_string(),
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
