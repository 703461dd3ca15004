//! The configuration of one server: a TOML file, flags on top of it, defaults under it.

use crate::backups::config::Backup;
use anyhow::{Context, bail, ensure};
use clap::Args;
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

/// Flags of `onward serve`. Each stands above the same setting of the file.
#[derive(Debug, Default, Args)]
pub struct Flags {
    /// A TOML file with any of the settings below
    #[arg(long, short, env = "ONWARD_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Where this node keeps its log, its state and its snapshots
    #[arg(long, env = "ONWARD_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// This node's id among the initial members; ids are never reused
    #[arg(long, value_name = "ID")]
    node_id: Option<u64>,
    /// The name of the cluster; nodes of another name are refused
    #[arg(long, value_name = "NAME")]
    cluster: Option<String>,
    /// Where the HTTP API listens
    #[arg(long, value_name = "ADDR")]
    http_listen: Option<SocketAddr>,
    /// The URL under which others reach the HTTP API
    #[arg(long, value_name = "URL")]
    http_advertise: Option<String>,
    /// Where peers connect
    #[arg(long, value_name = "ADDR")]
    peer_listen: Option<SocketAddr>,
    /// The address under which peers reach this node
    #[arg(long, value_name = "HOST:PORT")]
    peer_advertise: Option<String>,
    /// Where the DNS server listens, UDP and TCP
    #[arg(long, value_name = "ADDR")]
    dns_listen: Option<SocketAddr>,
    /// The zone that the DNS server is the authority of
    #[arg(long, value_name = "ZONE")]
    dns_zone: Option<String>,
    /// Where the ingress listens
    #[arg(long, value_name = "ADDR")]
    ingress_listen: Option<SocketAddr>,
    /// An initial member, the same list on each: ID=PEER_HOST:PORT,HTTP_URL (repeat for each)
    #[arg(long = "member", value_name = "ID=PEER,URL")]
    members: Vec<Member>,
    /// Join a running cluster through the peer address of any of its members
    #[arg(long, value_name = "HOST:PORT", conflicts_with_all = ["node_id", "members"])]
    join: Option<String>,
    /// With --join: the member whose place this node takes, which is then removed
    #[arg(long, value_name = "ID", requires = "join")]
    replaces: Option<u64>,
    /// Stop when the process that started this one is gone
    #[arg(long, hide = true)]
    pub exit_with_parent: bool,
}

impl Flags {
    /// Nothing but this configuration file.
    pub fn file(path: PathBuf) -> Flags {
        Flags {
            config: Some(path),
            ..Flags::default()
        }
    }
}

/// An initial member of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// Its id.
    pub id: u64,
    /// Where peers reach it, `host:port`.
    pub peer: String,
    /// Where its HTTP API is.
    pub http: String,
}

impl std::str::FromStr for Member {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text
            .split_once('=')
            .and_then(|(id, rest)| Some((id, rest.split_once(',')?)));
        let (id, (peer, http)) = parts.ok_or("a member is ID=PEER_HOST:PORT,HTTP_URL")?;
        let id = id
            .parse()
            .map_err(|_| format!("`{id}` is not a node id, a number from 1"))?;
        Ok(Member {
            id,
            peer: peer.to_owned(),
            http: http.to_owned(),
        })
    }
}

/// The configuration of one server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The name of the cluster.
    pub cluster: String,
    /// This node's id; not with `join`.
    pub node_id: Option<u64>,
    /// Where everything is kept.
    pub data_dir: PathBuf,
    /// Join through this peer address instead of being an initial member.
    pub join: Option<String>,
    /// The member that a joining node replaces.
    pub replaces: Option<u64>,
    /// The HTTP API.
    pub http: Http,
    /// The peer transport.
    pub peer: Peer,
    /// The DNS server.
    pub dns: Dns,
    /// The ingress.
    pub ingress: Ingress,
    /// The disk below `data_dir`.
    pub disk: Disk,
    /// Scheduled backups.
    pub backup: Backup,
    /// The initial members, the same on each.
    pub members: Vec<Member>,
}

/// The HTTP API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Http {
    /// Where it listens.
    pub listen: SocketAddr,
    /// The URL under which others reach it; `http://LISTEN` by default.
    pub advertise: Option<String>,
}

/// The peer transport.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Peer {
    /// Where it listens.
    pub listen: SocketAddr,
    /// The address under which peers reach it; the listening one by default.
    pub advertise: Option<String>,
    /// How often the leader is heard of, in ms.
    pub heartbeat_ms: u64,
    /// How long a follower waits for the leader before it may ask for votes, in ms (up to twice that, at random).
    pub election_ms: u64,
    /// How many log entries lie between two snapshots.
    pub snapshot_entries: u64,
    /// How many log entries stay behind a snapshot, for members that lag; one that lacks more is sent the snapshot.
    pub snapshot_keep_entries: u64,
    /// How fast a snapshot is sent to a member, in MiB a second, so that writes are served meanwhile; 0 is as fast as it
    /// goes.
    pub snapshot_mib_per_second: u64,
    /// How many proposals may be under way at once.
    pub proposals_max: usize,
}

/// The DNS server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Dns {
    /// Where it listens, UDP and TCP.
    pub listen: SocketAddr,
    /// The zone that it is the authority of.
    pub zone: String,
}

/// The ingress, and the processes that it leads to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Ingress {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Every app is reachable as `NAME.DOMAIN`, whatever routes it has; `apps.ZONE` by default.
    pub domain: Option<String>,
    /// The address that instances listen on and other nodes reach them at; the peer address by default.
    pub instance_address: Option<IpAddr>,
}

/// The disk below `data_dir`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Disk {
    /// How much of it is kept free, in MiB: with less, writes that add are refused. A twentieth of the disk by default, at
    /// least 1280, at most 2048 and a quarter of the disk; 0 refuses nothing.
    pub reserve_mib: Option<u64>,
}

const fn loopback(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

impl Default for Config {
    fn default() -> Self {
        Config {
            cluster: "onward".to_owned(),
            node_id: None,
            data_dir: PathBuf::from("onward-data"),
            join: None,
            replaces: None,
            http: Http::default(),
            peer: Peer::default(),
            dns: Dns::default(),
            ingress: Ingress::default(),
            disk: Disk::default(),
            backup: Backup::default(),
            members: Vec::new(),
        }
    }
}

impl Default for Http {
    fn default() -> Self {
        Http {
            listen: loopback(7400),
            advertise: None,
        }
    }
}

impl Default for Peer {
    fn default() -> Self {
        Peer {
            listen: loopback(7401),
            advertise: None,
            heartbeat_ms: 150,
            election_ms: 250,
            snapshot_entries: 200_000,
            snapshot_keep_entries: 250_000,
            snapshot_mib_per_second: 128,
            proposals_max: 8192,
        }
    }
}

impl Default for Dns {
    fn default() -> Self {
        Dns {
            listen: loopback(7453),
            zone: "onward.internal".to_owned(),
        }
    }
}

impl Default for Ingress {
    fn default() -> Self {
        Ingress {
            listen: loopback(7480),
            domain: None,
            instance_address: None,
        }
    }
}

impl Config {
    /// The settings of the file that `flags` names, with the flags on top, checked as a whole.
    pub fn load(flags: &Flags) -> anyhow::Result<Config> {
        let mut config = match &flags.config {
            Some(path) => Config::read(path)?,
            None => Config::default(),
        };
        set(&mut config.data_dir, flags.data_dir.as_ref());
        set(&mut config.cluster, flags.cluster.as_ref());
        set(&mut config.http.listen, flags.http_listen.as_ref());
        set(&mut config.peer.listen, flags.peer_listen.as_ref());
        set(&mut config.dns.listen, flags.dns_listen.as_ref());
        set(&mut config.dns.zone, flags.dns_zone.as_ref());
        set(&mut config.ingress.listen, flags.ingress_listen.as_ref());
        config.node_id = flags.node_id.or(config.node_id);
        config.http.advertise = flags.http_advertise.clone().or(config.http.advertise);
        config.peer.advertise = flags.peer_advertise.clone().or(config.peer.advertise);
        if !flags.members.is_empty() {
            config.members.clone_from(&flags.members);
        }
        if let Some(join) = &flags.join {
            config.join = Some(join.clone());
            config.replaces = flags.replaces;
            config.node_id = None;
            config.members.clear();
        }
        config.check()?;
        Ok(config)
    }

    fn read(path: &Path) -> anyhow::Result<Config> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        toml::from_str(&text).with_context(|| format!("in the configuration file {}", path.display()))
    }

    /// The rules between settings; fills in a cluster of one where no members are named.
    fn check(&mut self) -> anyhow::Result<()> {
        ensure!(
            !self.cluster.is_empty() && self.cluster.len() <= 63,
            "cluster: a name of 1 to 63 bytes is needed"
        );
        if self.join.is_some() {
            ensure!(
                self.members.is_empty(),
                "members: a node that joins learns its members from the cluster; leave them out"
            );
            ensure!(
                self.node_id.is_none(),
                "node_id: a node that joins is given its id; leave it out"
            );
        } else {
            // A directory that belongs to a node says which; a fresh one is the first of its cluster.
            let id = match self.node_id {
                Some(id) => id,
                None => onward_raft::node_of(&self.data_dir)?.map_or(1, |id| id.0),
            };
            self.node_id = Some(id);
            ensure!(id > 0, "node_id: ids begin at 1");
            if self.members.is_empty() {
                self.members.push(Member {
                    id,
                    peer: self.peer_advertise(),
                    http: self.http_advertise(),
                });
            }
            if !self.members.iter().any(|member| member.id == id) {
                bail!(
                    "node_id: {id} is not among the members {:?}",
                    self.members.iter().map(|m| m.id).collect::<Vec<_>>()
                );
            }
            let mut ids: Vec<u64> = self.members.iter().map(|member| member.id).collect();
            ids.sort_unstable();
            ids.dedup();
            ensure!(
                ids.len() == self.members.len(),
                "members: two of them have the same id"
            );
            ensure!(
                ids.len() <= 7,
                "members: {} are too many, a cluster takes 1, 3, 5 or 7",
                ids.len()
            );
        }
        ensure!(
            self.replaces.is_none() || self.join.is_some(),
            "replaces: goes with join"
        );
        ensure!(
            (10..=10_000).contains(&self.peer.heartbeat_ms),
            "peer.heartbeat_ms: takes 10 to 10000"
        );
        ensure!(
            5 * self.peer.election_ms >= 8 * self.peer.heartbeat_ms,
            "peer.election_ms: must be at least 1.6 times peer.heartbeat_ms, {} ms",
            (8 * self.peer.heartbeat_ms).div_ceil(5)
        );
        ensure!(
            self.peer.snapshot_entries >= 100,
            "peer.snapshot_entries: takes at least 100"
        );
        ensure!(
            self.peer.proposals_max >= 1,
            "peer.proposals_max: takes at least 1"
        );
        ensure!(
            !self.instance_address().is_unspecified(),
            "ingress.instance_address: name the address of this node, since peers listen on all of them"
        );
        for (field, listen, advertised) in [
            ("peer.advertise", self.peer.listen, self.peer.advertise.is_some()),
            ("http.advertise", self.http.listen, self.http.advertise.is_some()),
        ] {
            ensure!(
                !listen.ip().is_unspecified() || advertised,
                "{field}: name the address under which others reach this node, since it listens on all of them"
            );
        }
        self.backup.check()
    }

    /// Where peers reach this node.
    pub fn peer_advertise(&self) -> String {
        self.peer
            .advertise
            .clone()
            .unwrap_or_else(|| self.peer.listen.to_string())
    }

    /// Where deployments keep everything.
    pub fn deployments_dir(&self) -> PathBuf {
        self.data_dir.join("apps")
    }

    /// The domain below which every app is reachable.
    pub fn ingress_domain(&self) -> String {
        self.ingress
            .domain
            .clone()
            .unwrap_or_else(|| format!("apps.{}", self.dns.zone))
    }

    /// Where instances of apps listen.
    pub fn instance_address(&self) -> IpAddr {
        self.ingress.instance_address.unwrap_or(self.peer.listen.ip())
    }

    /// Where the HTTP API is reached.
    pub fn http_advertise(&self) -> String {
        self.http
            .advertise
            .clone()
            .unwrap_or_else(|| format!("http://{}", self.http.listen))
    }
}

fn set<T: Clone>(setting: &mut T, flag: Option<&T>) {
    if let Some(value) = flag {
        setting.clone_from(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_key_is_named() {
        let error = toml::from_str::<Config>("[http]\nlissten = '127.0.0.1:1'").expect_err("unknown key");
        assert!(error.to_string().contains("lissten"), "{error}");
    }

    #[test]
    fn no_settings_make_a_cluster_of_one() {
        let config = Config::load(&Flags::default()).expect("defaults are valid");
        assert_eq!(config.members.len(), 1);
        assert_eq!(config.members[0].http, "http://127.0.0.1:7400");
    }

    #[test]
    fn members_must_include_the_node() {
        let member = "2=127.0.0.1:1,http://127.0.0.1:2".parse().expect("parses");
        let flags = Flags {
            node_id: Some(1),
            members: vec![member],
            ..Flags::default()
        };
        let error = Config::load(&flags).expect_err("1 is not a member");
        assert!(error.to_string().contains("node_id: 1 is not among"), "{error}");
    }
}
