//! Raw messages, as `dig` would not send them.

use super::super::message::{Responder, Transport};
use super::super::zone::Zone;
use super::super::{Config, UDP_BYTES_MAX};
use super::{ZONE, register, site};
use crate::fixture::instance;
use hickory_proto::op::{Edns, Message, MessageType, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use onward_statemachine::ports::{BoxFuture, Freshness, Past, PastError, ReadError, Reader, Stamp};
use onward_statemachine::testing::SingleNode;
use onward_statemachine::{Fault, Revision, View};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::Arc;

fn responder() -> Responder {
    let listen = "127.0.0.1:53".parse().expect("an address");
    let zone = Zone::new(&Config::new(listen, ZONE)).expect("it is a zone");
    Responder::new(zone, site())
}

pub(super) fn query(name: &str, kind: RecordType) -> Message {
    let mut query = Message::query();
    query.add_query(Query::query(Name::from_str(name).expect("a name"), kind));
    query
}

fn ask(responder: &Responder, query: &Message) -> Option<Message> {
    let bytes = query.to_vec().expect("it encodes");
    let answer = responder.respond(&bytes, Transport::Udp)?;
    Some(Message::from_vec(&answer).expect("what it answers decodes"))
}

#[test]
fn answers_are_not_answered() {
    let mut query = query("web.svc.onward.internal.", RecordType::A);
    query.metadata.message_type = MessageType::Response;
    assert_eq!(ask(&responder(), &query), None);
}

#[test]
fn one_question_at_a_time() {
    let responder = responder();
    let mut two = query("web.svc.onward.internal.", RecordType::A);
    two.add_query(two.queries[0].clone());
    let mut none = two.clone();
    none.queries.clear();
    for query in [two, none] {
        let answer = ask(&responder, &query).expect("an answer");
        assert_eq!(answer.metadata.response_code, ResponseCode::FormErr);
    }
}

#[test]
fn malformed_queries_get_format_errors() {
    let responder = responder();
    let bytes = query("web.svc.onward.internal.", RecordType::A)
        .to_vec()
        .expect("it encodes");
    for length in 12..bytes.len() {
        let answer = responder
            .respond(&bytes[..length], Transport::Udp)
            .expect("an answer");
        let answer = Message::from_vec(&answer).expect("it decodes");
        assert_eq!(
            answer.metadata.response_code,
            ResponseCode::FormErr,
            "cut at {length}"
        );
    }
    assert_eq!(responder.respond(&bytes[..11], Transport::Udp), None);
}

/// A replica that cannot be read.
struct Broken;

impl Reader for Broken {
    fn barrier(&self, _: Freshness) -> BoxFuture<'_, Result<Stamp, ReadError>> {
        unreachable!("DNS answers what is there")
    }
    fn with_view(&self, _: &mut dyn FnMut(&dyn View) -> Result<(), Fault>) {
        panic!("as a test demands");
    }
    fn stamp(&self) -> Stamp {
        unreachable!("DNS goes by the view")
    }
    fn past(&self, _: Revision) -> BoxFuture<'_, Result<Arc<dyn Past>, PastError>> {
        unreachable!("DNS answers what is there now")
    }
    fn changed(&self, _: Revision) -> BoxFuture<'_, Revision> {
        unreachable!("DNS keeps nothing that would change")
    }
}

#[test]
fn a_panic_costs_one_answer() {
    let listen = "127.0.0.1:53".parse().expect("an address");
    let zone = Zone::new(&Config::new(listen, ZONE)).expect("it is a zone");
    let responder = Responder::new(zone, Arc::new(Broken));
    assert_eq!(
        ask(&responder, &query("web.svc.onward.internal.", RecordType::A)),
        None
    );
    let other = ask(&responder, &query("example.org.", RecordType::A)).expect("an answer");
    assert_eq!(other.metadata.response_code, ResponseCode::Refused);
}

#[test]
fn heavier_instances_come_first_more_often() {
    let node = Arc::new(SingleNode::new());
    let weighed = [("light", 1), ("heavy", 9), ("spare", 0)].map(|(name, weight)| {
        let mut one = instance("web", name);
        one.spec.weight = weight;
        one
    });
    register(&node, weighed.to_vec());
    let listen = "127.0.0.1:53".parse().expect("an address");
    let zone = Zone::new(&Config::new(listen, ZONE)).expect("it is a zone");
    let responder = Responder::new(zone, node);
    let query = query("web.svc.onward.internal.", RecordType::SRV);
    let mut first: BTreeMap<u16, u32> = BTreeMap::new();
    for _ in 0..1000 {
        let answer = ask(&responder, &query).expect("an answer");
        let RData::SRV(srv) = &answer.answers[0].data else {
            panic!("{answer:?}");
        };
        *first.entry(srv.weight).or_default() += 1;
    }
    // 900 expected, with a standard deviation of 10.
    let heavy = first[&9];
    assert!((850..950).contains(&heavy), "{first:?}");
    assert_eq!(
        heavy + first[&1],
        1000,
        "the one without weight never comes first"
    );
}

proptest! {
    /// Whatever comes in, what goes out is a message, is not too large, and answers that query.
    #[test]
    fn hostile_bytes_do_no_harm(
        noise in prop::collection::vec(any::<u8>(), 0..300), place in 0usize..60, keep in any::<bool>(), edns in any::<bool>(),
    ) {
        let responder = responder();
        let mut base = query("_http._tcp.web.svc.onward.internal.", RecordType::SRV);
        if edns {
            base.set_edns(Edns::new());
        }
        let mut bytes = base.to_vec().expect("it encodes");
        let place = place.min(bytes.len());
        if keep {
            // Damage in the middle of a good query.
            let end = (place + noise.len().min(8)).min(bytes.len());
            bytes.splice(place..end, noise.iter().copied().take(8));
        } else {
            bytes = noise;
        }
        for (transport, max) in [(Transport::Udp, UDP_BYTES_MAX), (Transport::Tcp, u16::MAX)] {
            let Some(answer) = responder.respond(&bytes, transport) else { continue };
            prop_assert!(answer.len() <= max.into());
            let answer = Message::from_vec(&answer).expect("what it answers decodes");
            prop_assert_eq!(&answer.metadata.id.to_be_bytes()[..], &bytes[..2]);
            prop_assert_eq!(answer.metadata.message_type, MessageType::Response);
        }
    }

    /// Names of every shape under the zone resolve to something or nothing, and never to a fault.
    #[test]
    fn any_name_is_answered(
        labels in prop::collection::vec(prop_oneof![
            Just("svc".to_owned()), Just("node".to_owned()), Just("web".to_owned()), Just("_tcp".to_owned()),
            Just("_http".to_owned()), Just("a".to_owned()), "[ -~]{1,20}",
        ], 0..6),
        kind in 0u16..300,
    ) {
        let labels = labels.iter().map(|label| label.as_bytes());
        let name = Name::from_labels(labels.chain(["onward", "internal"].map(str::as_bytes)));
        prop_assume!(name.is_ok());
        let mut asked = query("x.", RecordType::from(kind));
        asked.queries[0].name = name.expect("assumed");
        prop_assume!(asked.to_vec().is_ok_and(|bytes| Message::from_vec(&bytes).is_ok()));
        let answer = ask(&responder(), &asked).expect("an answer");
        let codes = [ResponseCode::NoError, ResponseCode::NXDomain, ResponseCode::Refused];
        prop_assert!(codes.contains(&answer.metadata.response_code), "{answer:?}");
        if answer.metadata.response_code != ResponseCode::Refused {
            prop_assert_eq!(answer.answers.is_empty(), !answer.authorities.is_empty());
        }
    }
}
