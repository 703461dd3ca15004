//! The few messages of etcd's gRPC API that the load needs, encoded by hand after etcd's `rpc.proto` and the Protocol
//! Buffers wire format.

use anyhow::{Context, Result, ensure};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::Response;

/// `PutRequest { key = 1, value = 2 }`.
pub fn put(key: &[u8], value: &[u8]) -> Bytes {
    let mut message = BytesMut::with_capacity(key.len() + value.len() + 16);
    field(&mut message, 1, key);
    field(&mut message, 2, value);
    message.freeze()
}

/// `RangeRequest { key = 1 }`: one key, linearizable.
pub fn range(key: &[u8]) -> Bytes {
    let mut message = BytesMut::with_capacity(key.len() + 4);
    field(&mut message, 1, key);
    message.freeze()
}

/// `TxnRequest { success = 2: RequestOp { request_put = 2 } }`, once for each key.
pub fn txn(pairs: &[(String, Bytes)]) -> Bytes {
    let mut message = BytesMut::new();
    for (key, value) in pairs {
        let mut op = BytesMut::new();
        field(&mut op, 2, &put(key.as_bytes(), value));
        field(&mut message, 2, &op);
    }
    message.freeze()
}

/// Whether who sent a `StatusResponse { header = 1 { member_id = 2 }, leader = 4 }` leads.
pub fn leads(status: &[u8]) -> Result<bool> {
    let header = fields(status)?
        .into_iter()
        .find_map(|(number, value)| match value {
            Value::Bytes(bytes) if number == 1 => Some(bytes),
            _ => None,
        });
    let number_of = |message: &[u8], wanted| -> Result<Option<u64>> {
        let found = fields(message)?
            .into_iter()
            .find_map(|(number, value)| match value {
                Value::Number(value) if number == wanted => Some(value),
                _ => None,
            });
        Ok(found)
    };
    let member = number_of(header.context("a status without a header")?, 2)?;
    Ok(member.is_some() && member == number_of(status, 4)?)
}

/// A message in a gRPC frame: not compressed, length, message.
pub fn frame(message: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(message.len() + 5);
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).expect("a message is small"));
    frame.put_slice(message);
    frame.freeze()
}

/// The message of an answer. A call succeeded if `grpc-status` is 0; it is in the trailers, or in the head of an answer
/// without a body.
pub async fn message(response: Response<hyper::body::Incoming>) -> Result<Bytes> {
    let http_status = response.status();
    let in_head = response.headers().get("grpc-status").cloned();
    let collected = response.into_body().collect().await?;
    let in_trailers = collected
        .trailers()
        .and_then(|trailers| trailers.get("grpc-status"))
        .cloned();
    let status = in_trailers.or(in_head).context("an answer without grpc-status")?;
    ensure!(
        http_status.is_success() && status == "0",
        "etcd answered {http_status}, grpc-status {status:?}"
    );
    let mut body = collected.to_bytes();
    ensure!(body.len() >= 5, "an answer without a message");
    body.advance(5);
    Ok(body)
}

fn field(message: &mut BytesMut, number: u8, bytes: &[u8]) {
    message.put_u8(number << 3 | 2);
    put_varint(message, bytes.len());
    message.put_slice(bytes);
}

fn put_varint(buffer: &mut BytesMut, mut number: usize) {
    while number >= 0x80 {
        buffer.put_u8((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    buffer.put_u8(number as u8);
}

enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The fields of a message that are numbers or bytes.
fn fields(mut message: &[u8]) -> Result<Vec<(u64, Value<'_>)>> {
    let mut fields = Vec::new();
    while !message.is_empty() {
        let tag = varint(&mut message)?;
        let value = match tag & 7 {
            0 => Value::Number(varint(&mut message)?),
            2 => {
                let length = usize::try_from(varint(&mut message)?)?;
                let (bytes, rest) = message.split_at_checked(length).context("a cut message")?;
                message = rest;
                Value::Bytes(bytes)
            }
            kind => anyhow::bail!("a field of wire type {kind}"),
        };
        fields.push((tag >> 3, value));
    }
    Ok(fields)
}

fn varint(message: &mut &[u8]) -> Result<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        ensure!(message.has_remaining(), "a cut message");
        let byte = message.get_u8();
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(number);
        }
    }
    anyhow::bail!("a number that does not end")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_put_is_framed_as_grpc_wants_it() {
        let frame = frame(&put(b"k", &[9; 200]));
        assert_eq!(frame[..5], [0, 0, 0, 0, 206]);
        assert_eq!(frame[5..8], [0x0a, 1, b'k']);
        assert_eq!(frame[8..11], [0x12, 0xc8, 0x01]);
        assert_eq!(frame.len(), 5 + 206);
    }

    #[test]
    fn a_transaction_holds_a_put_for_each_key() {
        let pair = |key: &str| (key.to_owned(), Bytes::from_static(b"v"));
        let message = txn(&[pair("a"), pair("b")]);
        let one = [0x12, 8, 0x12, 6, 0x0a, 1, b'a', 0x12, 1, b'v'];
        assert_eq!(message[..10], one);
        assert_eq!(message.len(), 20);
    }

    #[test]
    fn a_member_leads_if_it_is_whom_it_names() {
        let status = |member: u8, leader: u8| [0x0a, 4, 0x08, 99, 0x10, member, 0x12, 1, b'3', 0x20, leader];
        assert!(leads(&status(7, 7)).expect("decodes"));
        assert!(!leads(&status(7, 8)).expect("decodes"));
        assert!(leads(&status(7, 7)[..4]).is_err());
    }
}
