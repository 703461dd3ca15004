//! One question to a DNS server, over UDP.

use anyhow::{Context, bail, ensure};
use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;
use tokio::net::UdpSocket;

/// The IPv4 addresses of `name`; none where the name does not exist.
pub(super) async fn resolve(
    server: SocketAddr,
    name: &str,
    deadline: Duration,
) -> anyhow::Result<Vec<IpAddr>> {
    let id = rand::random();
    let mut question = Message::new(id, MessageType::Query, OpCode::Query);
    question.add_query(Query::query(Name::from_str(name)?, RecordType::A));
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
    socket.connect(server).await?;
    socket.send(&question.to_vec()?).await?;
    let mut bytes = [0; 4096];
    let length = tokio::time::timeout(deadline, socket.recv(&mut bytes))
        .await
        .context("no DNS answer in time")??;
    let answer = Message::from_vec(&bytes[..length])?;
    ensure!(answer.metadata.id == id, "a DNS answer to another question");
    match answer.metadata.response_code {
        ResponseCode::NoError | ResponseCode::NXDomain => {}
        code => bail!("the DNS server answers {code}"),
    }
    let addresses = answer.answers.iter().filter_map(|record| match &record.data {
        RData::A(address) => Some(IpAddr::V4(address.0)),
        _ => None,
    });
    let mut addresses: Vec<IpAddr> = addresses.collect();
    addresses.sort_unstable();
    Ok(addresses)
}
