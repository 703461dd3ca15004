//! Answers as `dig` sees them over real sockets; raw messages are in [`raw`].

mod raw;

use super::*;
use crate::fixture::{instance, propose, propose_any};
use hickory_proto::op::Message;
use hickory_proto::rr::RecordType;
use onward_statemachine::Command;
use onward_statemachine::machines::ipam;
use onward_statemachine::machines::registry::{self, Serial};
use onward_statemachine::services::catalog::{self, Health, Id};
use onward_statemachine::testing::SingleNode;
use raw::query;
use std::collections::{BTreeMap, BTreeSet};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command as Process;

const ZONE: &str = "onward.internal";

fn register(node: &SingleNode, registrations: Vec<catalog::Registration>) {
    propose(node, catalog::Command::Register { registrations });
}

/// Service `web`: `a` and `six` serve HTTP, `admin` another port, `down` is critical. Service `gone` is all critical.
/// Machine `SN-0001` in rack 0.
fn site() -> Arc<SingleNode> {
    let node = Arc::new(SingleNode::new());
    let mut a = instance("web", "a");
    a.spec.port_name = Some("http".to_owned());
    a.spec.weight = 7;
    a.spec.priority = 3;
    a.spec.tags = BTreeSet::from(["blue".to_owned(), "v2".to_owned()]);
    a.spec.metadata = BTreeMap::from([
        ("build".to_owned(), "17".to_owned()),
        ("long".to_owned(), "x".repeat(300)),
    ]);
    let mut six = instance("web", "six");
    six.spec.address = "2001:db8::6".parse().expect("an address");
    six.spec.port_name = Some("http".to_owned());
    let mut admin = instance("web", "admin");
    admin.spec.address = "10.0.0.9".parse().expect("an address");
    admin.spec.port = 9000;
    let mut down = instance("web", "down");
    down.spec.address = "10.0.0.66".parse().expect("an address");
    down.spec.port = 6666;
    register(&node, vec![a, six, admin, down, instance("gone", "one")]);
    for id in [Id::new("web", "down"), Id::new("gone", "one")] {
        let health = Health::Critical;
        propose(&node, catalog::Command::SetHealth { id, health });
    }
    let plan = ipam::AddressPlan {
        index_offset: 3,
        machines_per_rack_max: 28,
        addresses_per_machine: 1,
        machines: ipam::Pool {
            cidr: "10.69.0.0/20".parse().expect("a network"),
            offset: 0,
            range_bits: 6,
            mask_bits: 26,
            gateway_offset: 1,
        },
        bmcs: None,
    };
    propose_any(
        &node,
        Command::Ipam(ipam::Command::SetPlan { plan, expect: None }),
    );
    let machine = registry::Spec {
        serial: Serial::new("SN-0001"),
        rack: 0,
        index: None,
        role: "worker".to_owned(),
        labels: BTreeMap::new(),
        macs: Vec::new(),
        bmc: None,
    };
    propose_any(
        &node,
        Command::Registry(registry::Command::Register {
            machines: vec![machine],
        }),
    );
    node
}

/// A running server over [`site`], with `dig` to ask it.
struct Running {
    node: Arc<SingleNode>,
    server: Server,
    token: CancellationToken,
}

impl Running {
    async fn start() -> Self {
        let node = site();
        let token = CancellationToken::new();
        let listen = "127.0.0.1:0".parse().expect("an address");
        let server = serve(Config::new(listen, ZONE), node.clone(), token.clone()).await;
        let server = server.expect("any port will do");
        Running { node, server, token }
    }

    async fn stop(self) {
        self.token.cancel();
        self.server.task.await.expect("it ends when cancelled");
        // Its port is free again, unless another test took it meanwhile; on the real clock, for some tests pause theirs.
        let deadline = std::time::Instant::now() + Duration::from_secs(60);
        while UdpSocket::bind(self.server.address).await.is_err() {
            assert!(std::time::Instant::now() < deadline, "its port stays taken");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Asks with `arguments`, in which a name that ends in `@` is one of the zone.
    async fn dig(&self, arguments: &str) -> Dug {
        let port = self.server.address.port().to_string();
        let fixed = [
            "@127.0.0.1",
            "-p",
            &port,
            "+tries=2",
            "+timeout=10",
            "+noall",
            "+comments",
        ];
        let sections = ["+question", "+answer", "+authority", "+additional"];
        let arguments = arguments.replace('@', &format!(".{ZONE}"));
        let output = Process::new("dig")
            .args(fixed)
            .args(sections)
            .args(arguments.split_whitespace())
            .output()
            .await
            .expect("dig is installed (Debian: bind9-dnsutils)");
        Dug::read(&String::from_utf8_lossy(&output.stdout))
    }
}

/// What `dig` printed.
#[derive(Debug, Default, PartialEq, Eq)]
struct Dug {
    text: String,
    status: String,
    flags: String,
    sections: BTreeMap<String, Vec<String>>,
}

impl Dug {
    fn read(text: &str) -> Self {
        let mut dug = Dug {
            text: text.to_owned(),
            ..Dug::default()
        };
        let mut section = String::new();
        for line in text.lines() {
            if let Some((_, rest)) = line.split_once("status: ") {
                dug.status = rest.split(',').next().unwrap_or_default().to_owned();
            } else if let Some(rest) = line.strip_prefix(";; flags: ") {
                dug.flags = rest.split(';').next().unwrap_or_default().to_owned();
            } else if let Some(name) = line.strip_suffix(" SECTION:") {
                section = name.trim_start_matches(";; ").to_owned();
            } else if !line.starts_with(";;") && !line.trim().is_empty() {
                let words: Vec<_> = line.split_whitespace().collect();
                dug.sections
                    .entry(section.clone())
                    .or_default()
                    .push(words.join(" "));
            }
        }
        // The order of a set of records is not theirs.
        dug.sections.values_mut().for_each(|records| records.sort());
        dug
    }

    fn section(&self, name: &str) -> Vec<&str> {
        self.sections
            .get(name)
            .into_iter()
            .flatten()
            .map(String::as_str)
            .collect()
    }

    /// Checks for an authoritative answer of exactly these records, in which `@` stands for the zone.
    #[track_caller]
    fn holds(&self, records: &[&str]) {
        let mut expected: Vec<_> = records.iter().map(|record| at(record)).collect();
        expected.sort();
        assert_eq!(
            (self.status.as_str(), self.flags.contains("aa")),
            ("NOERROR", true),
            "{self:?}"
        );
        assert_eq!(self.section("ANSWER"), expected, "{}", self.text);
    }

    /// Checks for an authoritative answer without records, and with the start of authority.
    #[track_caller]
    fn lacks(&self, status: &str) {
        assert_eq!(
            (self.status.as_str(), self.flags.contains("aa")),
            (status, true),
            "{self:?}"
        );
        assert_eq!(self.section("ANSWER"), [""; 0]);
        let authority = self.section("AUTHORITY");
        let start = at("@. 5 IN SOA ns.@. hostmaster.@. ");
        assert!(
            authority.len() == 1 && authority[0].starts_with(&start),
            "{}",
            self.text
        );
    }
}

fn at(text: &str) -> String {
    text.replace('@', ZONE)
}

#[tokio::test]
async fn answers_addresses() {
    let site = Running::start().await;
    let web = ["web.svc.@. 5 IN A 10.0.0.1", "web.svc.@. 5 IN A 10.0.0.9"];
    site.dig("web.svc@ A").await.holds(&web);
    site.dig("web.svc@ A +tcp").await.holds(&web);
    site.dig("web.svc@ A +noedns").await.holds(&web);
    site.dig("web.svc@ AAAA")
        .await
        .holds(&["web.svc.@. 5 IN AAAA 2001:db8::6"]);
    site.dig("a.web.svc@ A")
        .await
        .holds(&["a.web.svc.@. 5 IN A 10.0.0.1"]);
    site.dig("six.web.svc@ AAAA")
        .await
        .holds(&["six.web.svc.@. 5 IN AAAA 2001:db8::6"]);
    site.dig("sn-0001.node@ A")
        .await
        .holds(&["sn-0001.node.@. 5 IN A 10.69.0.4"]);
    site.dig("ns@ A").await.holds(&["ns.@. 5 IN A 127.0.0.1"]);
    site.stop().await;
}

#[tokio::test]
async fn answers_servers_with_their_addresses() {
    let site = Running::start().await;
    let a = "3 7 80 a.web.svc.@.";
    let six = "0 1 80 six.web.svc.@.";
    for name in ["_http._tcp.web.svc", "_80._tcp.web.svc"] {
        let dug = site.dig(&format!("{name}@ SRV")).await;
        dug.holds(&[
            &format!("{name}.@. 5 IN SRV {a}"),
            &format!("{name}.@. 5 IN SRV {six}"),
        ]);
        let targets = [
            at("a.web.svc.@. 5 IN A 10.0.0.1"),
            at("six.web.svc.@. 5 IN AAAA 2001:db8::6"),
        ];
        assert_eq!(dug.section("ADDITIONAL"), targets);
    }
    site.dig("_9000._tcp.web.svc@ SRV")
        .await
        .holds(&["_9000._tcp.web.svc.@. 5 IN SRV 0 1 9000 admin.web.svc.@."]);
    let all = site.dig("web.svc@ SRV").await;
    assert_eq!(all.section("ANSWER").len(), 3, "{all:?}");
    site.stop().await;
}

#[tokio::test]
async fn answers_texts() {
    let site = Running::start().await;
    // The pair of more than 255 bytes is left out.
    let a = r#"5 IN TXT "blue" "v2" "build=17""#;
    let none = r#"5 IN TXT """#;
    site.dig("a.web.svc@ TXT")
        .await
        .holds(&[&format!("a.web.svc.@. {a}")]);
    site.dig("down.web.svc@ TXT")
        .await
        .holds(&[&format!("down.web.svc.@. {none}")]);
    site.dig("web.svc@ TXT")
        .await
        .holds(&[&format!("web.svc.@. {a}"), &format!("web.svc.@. {none}")]);
    site.stop().await;
}

#[tokio::test]
async fn answers_for_the_zone() {
    let site = Running::start().await;
    let revision = (&*site.node as &dyn Reader).stamp().applied;
    let times = "86400 7200 3600000 5";
    let soa = format!("@. 5 IN SOA ns.@. hostmaster.@. {revision} {times}");
    site.dig(&format!("{ZONE} SOA")).await.holds(&[&soa]);
    let ns = site.dig(&format!("{ZONE} NS")).await;
    ns.holds(&["@. 5 IN NS ns.@."]);
    assert_eq!(ns.section("ADDITIONAL"), [at("ns.@. 5 IN A 127.0.0.1")]);
    site.dig("web.svc@ ANY")
        .await
        .holds(&[r#"web.svc.@. 5 IN HINFO "RFC8482" """#]);
    site.stop().await;
}

#[tokio::test]
async fn tells_no_data_from_no_name() {
    let site = Running::start().await;
    let no_data = [
        "svc@ A",
        "node@ A",
        "_tcp.web.svc@ SRV",
        "_6666._tcp.web.svc@ SRV",
        "_http._tcp.web.svc@ A",
        "web.svc@ MX",
        "web.svc@ TYPE1000",
        "a.web.svc@ AAAA",
        "a.web.svc@ SRV",
        "down.web.svc@ A",
        "gone.svc@ A",
        "gone.svc@ SRV",
        "sn-0001.node@ AAAA",
        "ns@ AAAA",
    ];
    for question in no_data {
        site.dig(question).await.lacks("NOERROR");
    }
    site.dig(&format!("{ZONE} A")).await.lacks("NOERROR");
    let no_name = [
        "nope@ A",
        "nope.svc@ A",
        "nope.svc@ ANY",
        "nope.web.svc@ A",
        "x.a.web.svc@ A",
        "_tcp.nope.svc@ SRV",
        "_nope._tcp.web.svc@ SRV",
        "http._tcp.web.svc@ SRV",
        "_http._udp.web.svc@ SRV",
        "sn-0002.node@ A",
        "a.svc.svc@ A",
    ];
    for question in no_name {
        site.dig(question).await.lacks("NXDOMAIN");
    }
    site.stop().await;
}

#[tokio::test]
async fn follows_the_state() {
    let site = Running::start().await;
    let id = Id::new("web", "a");
    let on = true;
    propose(
        &site.node,
        catalog::Command::SetMaintenance {
            id: id.clone(),
            on,
            expect: None,
        },
    );
    site.dig("web.svc@ A")
        .await
        .holds(&["web.svc.@. 5 IN A 10.0.0.9"]);
    site.dig("a.web.svc@ A").await.lacks("NOERROR");
    propose(&site.node, catalog::Command::Deregister { id, expect: None });
    site.dig("a.web.svc@ A").await.lacks("NXDOMAIN");
    site.stop().await;
}

#[tokio::test]
async fn refuses_what_is_not_its_own() {
    let site = Running::start().await;
    let reverse = format!("{ZONE}.example.org A");
    let transfer = format!("{ZONE} IXFR=1 +notcp");
    for question in [
        "example.org A",
        ". NS",
        "internal SOA",
        &reverse,
        &transfer,
        "web.svc@ A -c CH",
    ] {
        let dug = site.dig(question).await;
        assert_eq!(
            (dug.status.as_str(), dug.flags.contains("aa")),
            ("REFUSED", false),
            "{question}"
        );
    }
    site.stop().await;
}

#[tokio::test]
async fn keeps_the_case_of_the_question() {
    let site = Running::start().await;
    site.dig("Web.SVC.OnWard.Internal AAAA")
        .await
        .holds(&["Web.SVC.OnWard.Internal. 5 IN AAAA 2001:db8::6"]);
    site.dig("SN-0001.Node@ A")
        .await
        .holds(&["SN-0001.Node.@. 5 IN A 10.69.0.4"]);
    site.stop().await;
}

#[tokio::test]
async fn large_answers_go_over_tcp() {
    let site = Running::start().await;
    let many = (0..300).map(|n| {
        let mut one = instance("many", &format!("i{n}"));
        one.spec.address = std::net::Ipv4Addr::from(0x0a01_0000 + n).into();
        one
    });
    register(&site.node, many.collect());
    let cut = site.dig("many.svc@ A +ignore").await;
    assert!(
        cut.flags.contains("tc") && cut.section("ANSWER").is_empty(),
        "{cut:?}"
    );
    assert!(cut.text.contains("EDNS: version: 0"), "{cut:?}");
    let retried = site.dig("many.svc@ A").await;
    assert_eq!(retried.section("ANSWER").len(), ANSWERS_MAX);
    assert!(!retried.flags.contains("tc"), "{retried:?}");
    let servers = site.dig("many.svc@ SRV +tcp").await;
    assert_eq!(servers.section("ANSWER").len(), ANSWERS_MAX);
    site.stop().await;
}

#[tokio::test]
async fn additional_records_give_way_to_the_answer() {
    let site = Running::start().await;
    // 512 bytes hold the servers of 9 instances, but not their addresses too.
    register(
        &site.node,
        (0..9).map(|n| instance("few", &format!("i{n}"))).collect(),
    );
    let few = site.dig("few.svc@ SRV +noedns +ignore").await;
    assert_eq!(few.section("ANSWER").len(), 9, "{few:?}");
    assert_eq!(few.section("ADDITIONAL").len(), 0);
    assert!(!few.flags.contains("tc"), "{few:?}");
    site.stop().await;
}

#[tokio::test]
async fn speaks_edns() {
    let site = Running::start().await;
    let plain = site.dig("web.svc@ A +noedns").await;
    assert!(!plain.text.contains("EDNS"), "{plain:?}");
    let odd = site
        .dig("web.svc@ A +ednsopt=100 +ednsflags=0x4000 +dnssec")
        .await;
    odd.holds(&["web.svc.@. 5 IN A 10.0.0.1", "web.svc.@. 5 IN A 10.0.0.9"]);
    assert!(
        odd.text.contains("EDNS: version: 0, flags: do; udp: 1232"),
        "{odd:?}"
    );
    let future = site.dig("web.svc@ A +edns=100 +noednsnegotiation").await;
    assert_eq!(future.status, "BADVERS");
    assert!(
        future.text.contains("EDNS: version: 0") && future.section("ANSWER").is_empty(),
        "{future:?}"
    );
    let other = site.dig("web.svc@ A +opcode=4").await;
    assert_eq!(other.status, "NOTIMP");
    site.stop().await;
}

#[tokio::test]
async fn a_connection_carries_many_messages_and_survives_no_garbage() {
    let site = Running::start().await;
    let query = query("web.svc.onward.internal.", RecordType::AAAA);
    let bytes = query.to_vec().expect("it encodes");
    let framed = [&(bytes.len() as u16).to_be_bytes()[..], &bytes].concat();
    let mut stream = TcpStream::connect(site.server.address).await.expect("it listens");
    stream.write_all(&framed.repeat(3)).await.expect("it reads");
    for _ in 0..3 {
        let length = stream.read_u16().await.expect("a length");
        let mut answer = vec![0; length.into()];
        stream.read_exact(&mut answer).await.expect("an answer");
        let answer = Message::from_vec(&answer).expect("it decodes");
        assert_eq!((answer.metadata.id, answer.answers.len()), (query.metadata.id, 1));
    }
    // Less than a header is no message, and ends the connection.
    stream.write_all(&[0, 3, 1, 2, 3]).await.expect("it reads");
    assert_eq!(stream.read(&mut [0]).await.ok(), Some(0));
    site.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_closed() {
    let site = Running::start().await;
    let mut stream = TcpStream::connect(site.server.address).await.expect("it listens");
    // A length, and then nothing of the message: the clock of the test jumps ahead as soon as all wait.
    stream.write_all(&[0, 30]).await.expect("it reads");
    assert_eq!(stream.read(&mut [0]).await.ok(), Some(0));
    site.stop().await;
}

#[tokio::test]
async fn connections_are_bounded() {
    let site = Running::start().await;
    let mut open = Vec::new();
    for _ in 0..TCP_CONNECTIONS_MAX {
        open.push(TcpStream::connect(site.server.address).await.expect("it listens"));
    }
    let mut further = TcpStream::connect(site.server.address).await.expect("it listens");
    assert_eq!(further.read(&mut [0]).await.ok(), Some(0), "one too many");
    open.clear();
    // It answers again as soon as it has seen one close; until then `dig` is turned away.
    while site.dig("web.svc@ AAAA +tcp").await.status != "NOERROR" {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    site.stop().await;
}

#[tokio::test]
async fn garbage_over_udp_does_no_harm() {
    let site = Running::start().await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("any port will do");
    for length in [0, 1, 11, 12, 500, 4096, 9000] {
        socket
            .send_to(&vec![0xff; length], site.server.address)
            .await
            .expect("it is sent");
    }
    site.dig("web.svc@ AAAA")
        .await
        .holds(&["web.svc.@. 5 IN AAAA 2001:db8::6"]);
    site.stop().await;
}

#[tokio::test]
async fn says_why_it_does_not_serve() {
    let node = Arc::new(SingleNode::new());
    let token = CancellationToken::new();
    let taken = UdpSocket::bind("127.0.0.1:0").await.expect("any port will do");
    let listen = taken.local_addr().expect("it is bound");
    let cases = [
        (".".to_owned(), "at least one label"),
        ("a..b".to_owned(), "DNS zone `a..b` is not served"),
        (format!("{0}.{0}", "x".repeat(60)), "123 bytes; the most is 120"),
        (ZONE.to_owned(), "cannot listen on 127.0.0.1"),
    ];
    for (zone, reason) in cases {
        let error = serve(Config::new(listen, zone), node.clone(), token.clone()).await;
        let error = error.expect_err(reason).to_string();
        assert!(error.contains(reason), "{error}");
    }
}
