//! Authoritative DNS for one zone, answered from the local replica.
//!
//! | name under the zone | answers |
//! |---|---|
//! | the zone itself | `SOA` (its serial is the revision), `NS` |
//! | `ns` | `A`, `AAAA` of this server |
//! | `SERVICE.svc` | `A`, `AAAA`, `SRV` of the instances that serve, `TXT` of all |
//! | `_PORT._tcp.SERVICE.svc` | `SRV` of those that serve on the port, by its name or number |
//! | `INSTANCE.SERVICE.svc` | `A`, `AAAA` while it serves; `TXT` |
//! | `SERIAL.node` | `A`, `AAAA` of the machine |
//!
//! A name exists while something is registered under it, and has addresses while that serves: what is registered but
//! does not serve is answered "no data", not "no such name" (RFC 2308), and what lies between names and the zone is
//! always there (RFC 8020). `ANY` gets one `HINFO` (RFC 8482). A `TXT` record is an instance's tags and its
//! `key=value` metadata, as strings of RFC 6763 section 6; pairs over 255 bytes are left out.
//!
//! Answers are as fresh as this node's replica and are given without asking any other node: names resolve while there
//! is no leader. Several instances come in the order of a lottery by weight, within their priority.
//!
//! Of hickory, only the codec is used: its zone store scans the zone for each negative answer, and its server takes any
//! number of TCP connections.
//!
//! Limits: [`UDP_BYTES_MAX`], [`TCP_CONNECTIONS_MAX`], [`TCP_IDLE`], [`ANSWERS_MAX`], [`ZONE_BYTES_MAX`].

mod message;
#[cfg(test)]
mod tests;
mod transport;
mod zone;

use message::Responder;
use onward_statemachine::ports::Reader;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use zone::Zone;

/// The largest answer over UDP, in bytes: what fits into one IPv6 packet on any link, so that nothing is fragmented.
pub const UDP_BYTES_MAX: u16 = 1232;
/// The most TCP connections at a time; further ones are closed at once.
pub const TCP_CONNECTIONS_MAX: usize = 256;
/// How long a TCP connection may take for its next message.
pub const TCP_IDLE: Duration = Duration::from_secs(10);
/// The most records in one answer. Of more instances, the lottery draws as many.
pub const ANSWERS_MAX: usize = 200;
/// The longest zone, in bytes on the wire: with it, the longest name under the zone still is one.
pub const ZONE_BYTES_MAX: usize = 120;

/// How to serve.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where to listen, over UDP and TCP. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// The zone, as `onward.internal`.
    pub zone: String,
    /// How long others may keep an answer, positive or negative, in seconds.
    pub ttl_seconds: u32,
    /// The addresses of `ns` in the zone. Empty for the one listened on, where it is one.
    pub addresses: Vec<IpAddr>,
}

impl Config {
    /// Serving `zone` at `listen`, with answers that live for 5 seconds.
    pub fn new(listen: SocketAddr, zone: impl Into<String>) -> Self {
        Config {
            listen,
            zone: zone.into(),
            ttl_seconds: 5,
            addresses: Vec::new(),
        }
    }
}

/// Why DNS is not served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The zone is no domain name.
    #[error("DNS zone `{zone}` is not served: {reason}")]
    Zone {
        /// What was given.
        zone: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The address cannot be listened on.
    #[error("DNS cannot listen on {listen} over {transport}: {source}")]
    Bind {
        /// Where.
        listen: SocketAddr,
        /// UDP or TCP.
        transport: &'static str,
        /// The system's words.
        source: io::Error,
    },
}

/// A running server.
#[derive(Debug)]
pub struct Server {
    /// Where it listens, over UDP and TCP.
    pub address: SocketAddr,
    /// Ends once the token is cancelled.
    pub task: JoinHandle<()>,
}

/// Starts to answer, until `token` is cancelled.
pub async fn serve(
    config: Config,
    reader: Arc<dyn Reader>,
    token: CancellationToken,
) -> Result<Server, ServeError> {
    // The zone is checked before a port is taken.
    let mut zone = Zone::new(&config)?;
    let (udp, tcp, address) = bind(config.listen).await?;
    if config.addresses.is_empty() && !address.ip().is_unspecified() {
        zone.set_addresses(vec![address.ip()]);
    }
    tracing::info!(%address, zone = config.zone, "DNS is served");
    let responder = Arc::new(Responder::new(zone, reader));
    let task = tokio::spawn(transport::run(udp, tcp, responder, token));
    Ok(Server { address, task })
}

/// Binds both sockets to one port.
async fn bind(listen: SocketAddr) -> Result<(UdpSocket, TcpListener, SocketAddr), ServeError> {
    // A port that is free over UDP may be taken over TCP; where any port will do, another one is tried.
    const TRIES: usize = 16;
    let error = |transport| {
        move |source| ServeError::Bind {
            listen,
            transport,
            source,
        }
    };
    let mut tries = if listen.port() == 0 { TRIES } else { 1 };
    loop {
        tries -= 1;
        let udp = UdpSocket::bind(listen).await.map_err(error("UDP"))?;
        let address = udp.local_addr().map_err(error("UDP"))?;
        match TcpListener::bind(address).await {
            Ok(tcp) => return Ok((udp, tcp, address)),
            Err(source) if source.kind() == io::ErrorKind::AddrInUse && tries > 0 => {}
            Err(source) => return Err(error("TCP")(source)),
        }
    }
}
