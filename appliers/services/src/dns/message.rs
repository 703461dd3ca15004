//! From the bytes of a query to the bytes of its answer.

use super::UDP_BYTES_MAX;
use super::zone::{Answer, Zone};
use hickory_proto::op::{Edns, Header, Message, MessageType, Metadata, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, RecordType};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder, BinEncodable, BinEncoder};
use onward_statemachine::ports::Reader;
use std::hash::{BuildHasher, RandomState};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The largest answer over UDP to whoever does not say more (RFC 1035 section 4.2.1).
const PLAIN_BYTES_MAX: u16 = 512;

/// What a query came over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transport {
    Udp,
    Tcp,
}

/// Answers queries.
pub(super) struct Responder {
    zone: Zone,
    reader: Arc<dyn Reader>,
    /// Makes each lottery another one.
    turn: AtomicU64,
}

impl Responder {
    pub(super) fn new(zone: Zone, reader: Arc<dyn Reader>) -> Self {
        Responder {
            zone,
            reader,
            turn: AtomicU64::new(RandomState::new().hash_one(0)),
        }
    }

    /// The answer to `query`; `None` where there is nobody to answer: to less than a header, and to an answer.
    ///
    /// The codec asserts what it believes. Should a query prove it wrong, that one query goes unanswered, and not all
    /// that come after.
    pub(super) fn respond(&self, query: &[u8], transport: Transport) -> Option<Vec<u8>> {
        catch_unwind(AssertUnwindSafe(|| self.process(query, transport))).unwrap_or_else(|_| {
            tracing::error!(
                bytes = query.len(),
                ?transport,
                "a DNS query was given up in a panic"
            );
            None
        })
    }

    fn process(&self, query: &[u8], transport: Transport) -> Option<Vec<u8>> {
        let header = Header::read(&mut BinDecoder::new(query)).ok()?;
        if header.metadata.message_type == MessageType::Response {
            return None;
        }
        let mut response = response_to(&header.metadata);
        let mut limit = PLAIN_BYTES_MAX;
        if header.metadata.op_code != OpCode::Query {
            response.metadata.response_code = ResponseCode::NotImp;
        } else if let Ok(request) = Message::from_vec(query) {
            if let Some(asked) = &request.edns {
                limit = asked.max_payload().clamp(PLAIN_BYTES_MAX, UDP_BYTES_MAX);
            }
            self.answer(&request, &mut response);
        } else {
            response.metadata.response_code = ResponseCode::FormErr;
        }
        let limit = match transport {
            Transport::Udp => limit,
            Transport::Tcp => u16::MAX,
        };
        encode(response, limit, transport)
    }

    fn answer(&self, request: &Message, response: &mut Message) {
        if let Some(asked) = &request.edns {
            let mut edns = Edns::new();
            edns.set_max_payload(UDP_BYTES_MAX);
            edns.set_dnssec_ok(asked.flags().dnssec_ok);
            response.set_edns(edns);
        }
        let [query] = &request.queries[..] else {
            response.metadata.response_code = ResponseCode::FormErr;
            return;
        };
        response.add_query(query.clone());
        // RFC 6891 section 6.1.3.
        if request.edns.as_ref().is_some_and(|edns| edns.version() > 0) {
            response.metadata.response_code = ResponseCode::BADVERS;
            return;
        }
        if !self.serves(query) {
            response.metadata.response_code = ResponseCode::Refused;
            return;
        }
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let (answer, soa) = self.reader.read(|view| {
            let answer = self.zone.lookup(view, query.name(), query.query_type(), turn)?;
            Ok((answer, self.zone.soa(view)?))
        });
        response.metadata.authoritative = true;
        match answer {
            Answer::Found { answers, additionals } => {
                response.add_answers(answers);
                response.add_additionals(additionals);
            }
            Answer::NoData => {
                response.add_authority(soa);
            }
            Answer::NoName => {
                response.metadata.response_code = ResponseCode::NXDomain;
                response.add_authority(soa);
            }
        }
    }

    /// Whether the question is one for this zone. Transfers are not given.
    fn serves(&self, query: &Query) -> bool {
        let transfer = matches!(query.query_type(), RecordType::AXFR | RecordType::IXFR);
        query.query_class() == DNSClass::IN && !transfer && self.zone.contains(query.name())
    }
}

/// An empty response. It copies only what RFC 6895 section 2 and RFC 4035 section 3.1.6 have an authority copy.
fn response_to(request: &Metadata) -> Message {
    let mut response = Message::response(request.id, request.op_code);
    response.metadata.recursion_desired = request.recursion_desired;
    response
}

/// Encodes into at most `limit` bytes. What does not fit loses first its additional records, which nobody asked for
/// (RFC 2181 section 9), and then its answers: all of them over UDP, where the client asks again over TCP; and over
/// TCP half at a time, for a part of the instances is worth more than none.
fn encode(mut response: Message, limit: u16, transport: Transport) -> Option<Vec<u8>> {
    loop {
        let (bytes, whole) = encode_once(&response, limit)?;
        if whole {
            return Some(bytes);
        }
        if !response.additionals.is_empty() {
            response.additionals.clear();
            continue;
        }
        if response.answers.is_empty() || transport == Transport::Udp {
            response.answers.clear();
            response.authorities.clear();
            response.metadata.truncation = true;
            return Some(encode_once(&response, limit)?.0);
        }
        let half = response.answers.len() / 2;
        response.answers.truncate(half);
    }
}

/// The encoding, as far as it goes into `limit` bytes, and whether that is all of it.
fn encode_once(response: &Message, limit: u16) -> Option<(Vec<u8>, bool)> {
    let mut bytes = Vec::with_capacity(512);
    let mut encoder = BinEncoder::new(&mut bytes);
    encoder.set_max_size(limit);
    if let Err(error) = response.emit(&mut encoder) {
        tracing::warn!(%error, "a DNS answer does not encode");
        return None;
    }
    let truncated = Header::read(&mut BinDecoder::new(&bytes))
        .ok()?
        .metadata
        .truncation;
    Some((bytes, !truncated))
}
