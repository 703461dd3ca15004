//! The life of a node: start, join, shut down.

use crate::agreement;
use crate::backup::take::NodeBackups;
use crate::clock::ClusterClock;
use crate::config::{Config, raft_config};
use crate::counters::Counters;
use crate::engine::{Engine, Parts, Raft};
use crate::fault::hint;
use crate::files::{Files, Lock};
use crate::host::Host;
use crate::identity;
use crate::log::{LogStore, OpenError};
use crate::member::{Removal, Standing, establish, form_or_join};
use crate::peer::Peers;
use crate::peer::net::Listen;
use crate::peer::network::Factory;
use crate::peer::server;
use crate::promise::Promise;
use crate::propose::NodeProposer;
use crate::read::NodeReader;
use crate::runtime::{Tasks, blocking};
use crate::state::{State, StateStore};
use crate::status::NodeCluster;
use crate::thread::Thread;
use crate::trust::Trust;
use crate::types::PeerNode;
use onward_statemachine::NodeId;
use onward_statemachine::ports::{Backups, Cluster, Proposer, Reader};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// How long tasks may take to end.
const STOP_DEADLINE: Duration = Duration::from_secs(5);

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The directory cannot be created or written.
    #[error("data directory {path} cannot be written: {error}{hint}", path = .path.display(), hint = hint(.error))]
    Unwritable {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Another process has it.
    #[error("data directory {path} is in use by a running process", path = .path.display())]
    Locked {
        /// Which.
        path: PathBuf,
    },
    /// Its state was not the others'.
    #[error("{path} says: {note}", path = .path.display())]
    Diverged {
        /// The file that says so.
        path: PathBuf,
        /// What it says.
        note: String,
    },
    /// It was written by a later release.
    #[error("data directory {path} has format {found}; this release reads up to {known}: upgrade it", path = .path.display())]
    NewerFormat {
        /// Which.
        path: PathBuf,
        /// The format that was found.
        found: u32,
        /// The newest that this release knows.
        known: u32,
    },
    /// A file in it means nothing.
    #[error("{path} is damaged", path = .path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
    },
    /// A restore into it did not come to its end.
    #[error("a restore into {path} was broken off: delete what is in it, and restore again", path = .path.display())]
    HalfRestored {
        /// Which.
        path: PathBuf,
    },
    /// It belongs to another node.
    #[error("data directory {path} belongs to node {found}, not to node {wanted}", path = .path.display())]
    OtherNode {
        /// Which.
        path: PathBuf,
        /// Whose it is.
        found: NodeId,
        /// Who wants it.
        wanted: NodeId,
    },
    /// It belongs to another cluster.
    #[error("data directory {path} belongs to cluster `{found}`, not to `{wanted}`", path = .path.display())]
    OtherCluster {
        /// Which.
        path: PathBuf,
        /// The cluster that it belongs to.
        found: String,
        /// The cluster of the configuration.
        wanted: String,
    },
    /// Nothing says who this node is.
    #[error("nothing says which node this is: give it an id among the initial members, or a member to join")]
    NoIdentity,
    /// The id is not among the initial members.
    #[error("node {0} is not among the initial members")]
    NotInitial(NodeId),
    /// The timings contradict each other.
    #[error("the timings do not work: {0}")]
    Timings(String),
    /// Somebody listens there already.
    #[error("peer address {address} is in use")]
    PortInUse {
        /// Which.
        address: String,
    },
    /// It cannot be listened on.
    #[error("cannot listen for peers on {address}: {error}")]
    Listen {
        /// Where.
        address: String,
        /// Why.
        error: io::Error,
    },
    /// Entries or a vote that this node acknowledged are gone: it may never vote again.
    #[error("{0}")]
    Forgot(String),
    /// The cluster let go of this node.
    #[error(
        "node {node} was removed from cluster `{cluster}`, and its id is never used again. To take this machine in again, \
         start it with an empty data directory and `--join` a member; {path} may be deleted", path = .path.display()
    )]
    Removed {
        /// Its directory.
        path: PathBuf,
        /// Which node it was.
        node: NodeId,
        /// Of which cluster.
        cluster: String,
    },
    /// The cluster could not be joined.
    #[error("cannot join through {address}: {reason}")]
    Join {
        /// The member that was asked.
        address: String,
        /// What it said.
        reason: String,
    },
    /// Others could not reach it.
    #[error("{address} is not an address that other members can reach: say where they reach this node")]
    NotReachable {
        /// What it would tell them.
        address: String,
    },
    /// A file could not be read or written.
    #[error("{path}: {error}{hint}", path = .path.display(), hint = hint(.error))]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The engine did not start.
    #[error("the engine did not start: {0}")]
    Engine(String),
}

/// A running node.
pub struct Node {
    engine: Arc<Engine>,
    peer_address: SocketAddr,
    /// `None` in simulation, where it runs on whatever started it.
    thread: Option<Thread>,
    _lock: Lock,
}

impl Node {
    /// Starts a node: takes its directory, recovers what is there, listens for peers, and forms or joins the cluster.
    ///
    /// Returns as soon as the node takes part; a leader may not be known yet, and a node that joins may still be
    /// catching up.
    ///
    /// # Errors
    /// See [`StartError`]. A node that forgot what it acknowledged refuses to start, and says what to do.
    pub async fn start(config: Config) -> Result<Node, StartError> {
        let thread = Thread::start().map_err(|error| StartError::Engine(error.to_string()))?;
        let host = Host {
            pool: Some(Handle::current()),
            ..Host::machine()
        };
        match thread.run(Node::start_in(config, host)).await {
            Ok(Ok(node)) => Ok(Node {
                thread: Some(thread),
                ..node
            }),
            Ok(Err(error)) => {
                // What it had open is closed once this returns.
                thread.end().await;
                Err(error)
            }
            Err(error) => Err(StartError::Engine(error.to_string())),
        }
    }

    /// As [`Node::start`], on another host.
    pub(crate) async fn start_in(mut config: Config, host: Host) -> Result<Node, StartError> {
        let timings = |error: openraft::ConfigError| StartError::Timings(error.to_string());
        raft_config(&config, true).map_err(timings)?;
        let lock = identity::lock(&*host.files, &config.data_dir)?;
        agreed_so_far(&*host.files, &config.data_dir)?;
        let listener = listen(&mut config, &host).await?;
        let peer_address = listener.local_address().map_err(|error| StartError::Listen {
            address: config.peer_listen.clone(),
            error,
        })?;
        if config.join.is_some() && config.peer_advertise.is_none() && peer_address.ip().is_unspecified() {
            let address = peer_address.to_string();
            return Err(StartError::NotReachable { address });
        }
        let node = PeerNode {
            peer: config
                .peer_advertise
                .clone()
                .unwrap_or_else(|| peer_address.to_string()),
            http: config.http_url.clone(),
        };
        let identity = establish(&config, &host, &node).await?;
        let unreadable = |error| StartError::Io {
            path: config.data_dir.clone(),
            error,
        };
        let trust = Trust::of(host.files.clone(), &config.data_dir).map_err(unreadable)?;
        let standing = Standing::of(host.files.clone(), &config.data_dir).map_err(unreadable)?;
        let counters = Arc::new(Counters::default());
        let (log, state) = open_stores(&config, &host, counters.clone()).await?;
        let began = Instant::now();
        let promise = Promise::of(&log, identity.node.0, config.timings.lease(), began);
        let peers = Peers::new(
            host.net.clone(),
            (identity.node.0, identity.cluster_id),
            config.timings.rpc_deadline(),
            counters.clone(),
            CancellationToken::new(),
            Tasks::new(host.pool.clone()),
        );
        let engine_error = |error: String| StartError::Engine(error);
        let store = StateStore::new(state.clone()).map_err(|error| engine_error(error.to_string()))?;
        let raft = Raft::new(
            identity.node.0,
            raft_config(&config, trust.settled() && !promise.holds(began)).map_err(timings)?,
            Factory {
                peers: peers.clone(),
                bytes_per_second: config.snapshots.bytes_per_second,
                lease: config.timings.lease(),
                catching_up: log.catching_up(),
            },
            log.clone(),
            store,
        )
        .await
        .map_err(|error| engine_error(error.to_string()))?;
        let engine = Engine::new(Parts {
            identity,
            raft,
            state,
            log,
            peers,
            counters,
            clock: ClusterClock::new(host.clock.clone()),
            timings: config.timings,
            snapshots: config.snapshots,
            limits: config.limits,
            trust,
            standing,
            founders: config.initial_members.clone(),
            promise,
        });
        tracing::info!(
            node = engine.id(), cluster = %engine.cluster_id(), peer = %node.peer,
            applied = %engine.state.applied(), "node started"
        );
        let tasks = engine.tasks().clone();
        tasks.spawn(server::serve(engine.clone(), listener));
        tasks.spawn(engine.clone().follow_leadership());
        tasks.spawn(engine.clone().watch_log());
        tasks.spawn(engine.clone().keep_reporting());
        tasks.spawn(engine.clone().keep_agreement());
        tasks.spawn(engine.clone().keep_room(config.limits));
        tasks.spawn(engine.clone().keep_clock());
        tasks.spawn(engine.clone().keep_promise());
        tasks.spawn(engine.clone().settle_voters());
        tasks.spawn(engine.clone().watch_standing());
        tasks.spawn(engine.clone().keep_history());
        tasks.spawn(engine.clone().keep_retention());
        tasks.spawn(engine.clone().keep_tables_listed());
        form_or_join(&engine).await?;
        Ok(Node {
            engine,
            peer_address,
            thread: None,
            _lock: lock,
        })
    }

    /// Proposes commands.
    pub fn proposer(&self) -> Arc<dyn Proposer> {
        Arc::new(NodeProposer(self.engine.clone()))
    }

    /// Reads this node's replica.
    pub fn reader(&self) -> Arc<dyn Reader> {
        Arc::new(NodeReader(self.engine.clone()))
    }

    /// Looks at the cluster.
    pub fn cluster(&self) -> Arc<dyn Cluster> {
        Arc::new(NodeCluster(self.engine.clone()))
    }

    /// Takes backups of this node's replica.
    pub fn backups(&self) -> Arc<dyn Backups> {
        Arc::new(NodeBackups::new(self.engine.clone()))
    }

    /// Which node it is.
    pub fn id(&self) -> NodeId {
        self.engine.identity.node
    }

    /// Which cluster it belongs to.
    pub fn cluster_id(&self) -> Uuid {
        self.engine.cluster_id()
    }

    /// Where it listens for peers.
    pub fn peer_address(&self) -> SocketAddr {
        self.peer_address
    }

    /// Returns once the cluster has let go of this node, which should then be shut down; never otherwise.
    pub async fn removed(&self) -> Removal {
        self.engine.removed().await
    }

    /// Takes a snapshot now. It is in place some time after this returns.
    ///
    /// # Errors
    /// Where the node is stopping.
    pub async fn trigger_snapshot(&self) -> io::Result<()> {
        let triggered = self.engine.raft.trigger().snapshot().await;
        triggered.map_err(io::Error::other)
    }

    /// Shuts down in good order: turns new work away, hands leadership over, stops, and makes everything durable, so
    /// that a restart replays nothing.
    pub async fn shutdown(self) {
        self.engine.closing.cancel();
        for heir in self.engine.heirs() {
            match self.engine.transfer_to(heir).await {
                Ok(()) => {
                    self.engine.see_heir_through().await;
                    break;
                }
                Err(reason) => tracing::warn!(heir, %reason, "leadership was not handed over"),
            }
        }
        self.stop().await;
    }

    /// Stops without handing leadership over or flushing the state: what is left to a restart is about what a crash
    /// leaves.
    #[doc(hidden)]
    pub async fn abandon(mut self) {
        self.engine.closing.cancel();
        self.stop_engine().await;
    }

    async fn stop_engine(&mut self) {
        if let Err(error) = self.engine.raft.shutdown().await {
            tracing::warn!(%error, "the engine did not end well");
        }
        self.engine.token().cancel();
        self.engine.tasks().close();
        if tokio::time::timeout(STOP_DEADLINE, self.engine.tasks().wait())
            .await
            .is_err()
        {
            tracing::warn!("some tasks did not end in time");
        }
        if let Some(thread) = self.thread.take() {
            thread.end().await;
        }
    }

    async fn stop(mut self) {
        self.stop_engine().await;
        if let Err(error) = self.engine.log.end().await {
            tracing::error!(%error, "the log could not be closed");
        }
        let engine = self.engine.clone();
        match blocking(move || engine.state.flush()).await {
            Ok(Ok(())) => tracing::info!(node = self.engine.id(), "node stopped"),
            Ok(Err(error)) => {
                tracing::error!(%error, "the state could not be flushed; a restart replays the log");
            }
            Err(error) => tracing::error!(%error, "the stores could not be closed"),
        }
    }
}

/// Refuses a directory whose state was found to be another than the majority's.
fn agreed_so_far(files: &dyn Files, dir: &Path) -> Result<(), StartError> {
    match agreement::note(files, dir) {
        Ok(None) => Ok(()),
        Ok(Some(note)) => Err(StartError::Diverged {
            path: dir.join(agreement::NOTE),
            note: note.trim_end().to_owned(),
        }),
        Err(error) => Err(StartError::Io {
            path: dir.join(agreement::NOTE),
            error,
        }),
    }
}

async fn listen(config: &mut Config, host: &Host) -> Result<Box<dyn Listen>, StartError> {
    let address = config.peer_listen.clone();
    let bound = match config.peer_listener.take() {
        Some(listener) => listener
            .set_nonblocking(true)
            .and_then(|()| TcpListener::from_std(listener))
            .map(|listener| Box::new(listener) as Box<dyn Listen>),
        None => host.net.listen(&address).await,
    };
    bound.map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => StartError::PortInUse { address },
        _ => StartError::Listen { address, error },
    })
}

async fn open_stores(
    config: &Config,
    host: &Host,
    counters: Arc<Counters>,
) -> Result<(LogStore, Arc<State>), StartError> {
    let (dir, host) = (config.data_dir.clone(), host.clone());
    let path = dir.clone();
    let opened = blocking(move || {
        let log = LogStore::open(&dir, &host, counters.clone())?;
        let state = State::open(&dir, &host, counters)?;
        state.cover(log.last())?;
        log.follow(state.applied_id()?)?;
        Ok((log, state))
    });
    match opened.await {
        Ok(Ok(stores)) => Ok(stores),
        Ok(Err(OpenError::Forgot(reason))) => Err(StartError::Forgot(reason)),
        Ok(Err(OpenError::Io(error))) => Err(StartError::Io { path, error }),
        Err(error) => Err(StartError::Engine(error.to_string())),
    }
}
