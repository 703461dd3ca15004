//! What machines are told over HTTP, from registration to retirement.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use axum::body::{Body, to_bytes};
use axum::http::{Request, Response, StatusCode, header};
use onward_appliers_machines::{REVISION_HEADER, router};
use onward_statemachine::machines::ipam::{self, AddressPlan, Pool};
use onward_statemachine::machines::netboot::{self, Kind};
use onward_statemachine::machines::registry::{self, BmcSpec, Selector, Serial, Spec, State};
use onward_statemachine::ports::{Proposal, Proposer, ReadError, Reader};
use onward_statemachine::testing::SingleNode;
use onward_statemachine::{Actor, Command, Outcome};
use std::sync::Arc;
use tower::ServiceExt;

/// A node with a plan, and a machine `SN 1` at index 2 of rack 1.
struct Site(Arc<SingleNode>);

impl Site {
    async fn new() -> Site {
        let site = Site(Arc::new(SingleNode::new()));
        site.accept(Command::Ipam(ipam::Command::SetPlan {
            plan: AddressPlan {
                index_offset: 1,
                machines_per_rack_max: 20,
                addresses_per_machine: 1,
                machines: Pool {
                    cidr: "10.69.0.0/16".parse().unwrap(),
                    offset: 0,
                    range_bits: 6,
                    mask_bits: 26,
                    gateway_offset: 62,
                },
                bmcs: None,
            },
            expect: None,
        }))
        .await;
        let machine = Spec {
            serial: Serial::new("SN 1"),
            rack: 1,
            index: None,
            role: "worker".to_owned(),
            labels: [("zone".to_owned(), "a".to_owned())].into(),
            macs: vec!["52:54:00:00:00:01".parse().unwrap()],
            bmc: Some(BmcSpec {
                kind: "redfish".to_owned(),
                address: None,
            }),
        };
        let machines = vec![machine];
        site.accept(Command::Registry(registry::Command::Register { machines }))
            .await;
        site
    }

    async fn accept(&self, command: Command) {
        let proposal = Proposal::new(Actor::new("test"), command);
        let outcome = self.0.propose(proposal, 1000).await.unwrap();
        assert!(matches!(outcome, Outcome::Accepted { .. }), "{outcome:?}");
    }

    async fn template(&self, name: &str, kind: Kind, selector: &str, body: &str) {
        self.accept(Command::Netboot(netboot::Command::SetTemplate {
            name: name.to_owned(),
            kind,
            selector: Selector::parse(selector).unwrap(),
            priority: 0,
            body: body.to_owned(),
            expect: None,
        }))
        .await;
    }

    async fn state(&self, state: State) {
        self.accept(Command::Registry(registry::Command::SetState {
            serial: Serial::new("SN 1"),
            state,
            reason: "disks are wiped".to_owned(),
            expect: None,
        }))
        .await;
    }

    async fn response(&self, uri: &str) -> Response<Body> {
        let reader: Arc<dyn Reader> = self.0.clone();
        let request = Request::get(uri).header(header::HOST, "boot.test:7400");
        router(reader)
            .oneshot(request.body(Body::empty()).unwrap())
            .await
            .unwrap()
    }

    async fn get(&self, uri: &str) -> (StatusCode, String) {
        let response = self.response(uri).await;
        let status = response.status();
        let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }
}

fn ok(body: &str) -> (StatusCode, String) {
    (StatusCode::OK, body.to_owned())
}

fn refused(status: u16, message: &str) -> (StatusCode, String) {
    (StatusCode::from_u16(status).unwrap(), format!("{message}\n"))
}

#[tokio::test]
async fn a_machine_is_found_by_serial_and_by_hardware_address() {
    let site = Site::new().await;
    site.template("default", Kind::Ipxe, "", "#!ipxe\necho {{ serial }}\n")
        .await;
    let script = ok("#!ipxe\necho SN 1\n");
    for uri in [
        "/boot/v1/ipxe/SN%201",
        "/boot/v1/ipxe?serial=SN%201",
        "/boot/v1/ipxe?serial=SN+1&mac=",
        "/boot/v1/ipxe?mac=52:54:00:00:00:01",
        "/boot/v1/ipxe?mac=52-54-00-00-00-01",
        "/boot/v1/ipxe?mac=5254.0000.0001",
        "/boot/v1/ipxe?serial=&mac=525400000001",
        "/boot/v1/ipxe?serial=To+Be+Filled+By+O.E.M.&mac=52%3A54%3A00%3A00%3A00%3A01",
    ] {
        assert_eq!(site.get(uri).await, script, "{uri}");
    }
}

#[tokio::test]
async fn a_machine_without_a_name_is_sent_back_with_one() {
    let site = Site::new().await;
    let chain = "#!ipxe\nchain --replace http://boot.test:7400/boot/v1/ipxe?serial=${serial:uristring}&mac=${net0/mac}\n";
    assert_eq!(site.get("/boot/v1/ipxe").await, ok(chain));
}

#[tokio::test]
async fn documents_are_rendered_with_the_machines_record() {
    let site = Site::new().await;
    let ignition = r#"{"serial": {{ serial | tojson }}, "at": {{ [rack, index] | tojson }}, "zone": "{{ labels.zone }}",
 "ip": "{{ addresses[0].ip }}/{{ addresses[0].mask_bits }}", "mask": "{{ addresses[0].netmask }}", "gw": "{{ addresses[0].gateway }}",
 "bmc": "{{ bmc.kind }}", "bmc_address": {{ bmc.address | tojson }}, "state": "{{ state }}", "role": "{{ role }}"}"#;
    site.template("ignition", Kind::Ignition, "role=worker", ignition)
        .await;
    site.template(
        "network",
        Kind::NetworkConfig,
        "",
        "mac: {{ macs[0] }}\nfrom: {{ base_url }}\n",
    )
    .await;
    let response = site.response("/boot/v1/ignition/SN%201").await;
    assert_eq!(response.headers()[header::CONTENT_TYPE], "application/json");
    assert_eq!(response.headers()[header::CACHE_CONTROL], "no-store");
    assert_eq!(response.headers()[REVISION_HEADER], "4");
    let expected = "{\"serial\": \"SN 1\", \"at\": [1, 2], \"zone\": \"a\",\n \"ip\": \"10.69.0.66/26\", \
                    \"mask\": \"255.255.255.192\", \"gw\": \"10.69.0.126\",\n \"bmc\": \"redfish\", \"bmc_address\": null, \
                    \"state\": \"uninitialized\", \"role\": \"worker\"}";
    assert_eq!(site.get("/boot/v1/ignition/SN%201").await, ok(expected));
    let network = "mac: 52:54:00:00:00:01\nfrom: http://boot.test:7400\n";
    assert_eq!(
        site.get("/boot/v1/cloud-init/SN%201/network-config").await,
        ok(network)
    );
}

#[tokio::test]
async fn the_template_that_says_most_is_chosen() {
    let site = Site::new().await;
    let chosen = || async { site.get("/boot/v1/cloud-init/SN%201/user-data").await };
    let missing = "no boot template of kind user-data chooses machine `SN 1`";
    site.template("meta", Kind::MetaData, "", "meta").await;
    assert_eq!(chosen().await, refused(404, missing));
    site.template("other", Kind::UserData, "role!=worker", "other")
        .await;
    assert_eq!(chosen().await, refused(404, missing));
    site.template("b-any", Kind::UserData, "", "b").await;
    assert_eq!(chosen().await, ok("b"));
    site.template("a-any", Kind::UserData, "", "a").await;
    assert_eq!(chosen().await, ok("a"));
    site.template("worker", Kind::UserData, "role=worker", "worker")
        .await;
    assert_eq!(chosen().await, ok("worker"));
    site.accept(Command::Netboot(netboot::Command::SetTemplate {
        name: "b-any".to_owned(),
        kind: Kind::UserData,
        selector: Selector::default(),
        priority: 1,
        body: "first".to_owned(),
        expect: None,
    }))
    .await;
    assert_eq!(chosen().await, ok("first"));
}

#[tokio::test]
async fn a_document_is_shown_as_of_when_and_as_fresh_as_it_is_asked_for() {
    let site = Site::new().await;
    site.template("t", Kind::Ipxe, "", "#!ipxe\necho one\n").await;
    let reader: Arc<dyn Reader> = site.0.clone();
    let then = reader.stamp().applied;
    site.template("t", Kind::Ipxe, "", "#!ipxe\necho two\n").await;
    let now = reader.stamp().applied;
    for (query, script) in [
        (format!("?at={then}"), "#!ipxe\necho one\n"),
        (format!("?at={now}"), "#!ipxe\necho two\n"),
        (format!("?at_least={now}"), "#!ipxe\necho two\n"),
        (String::new(), "#!ipxe\necho two\n"),
    ] {
        let uri = format!("/boot/v1/ipxe/SN%201{query}");
        assert_eq!(site.get(&uri).await, ok(script), "{uri}");
    }
    let uri = format!("/boot/v1/ipxe?mac=525400000001&at={then}");
    let response = site.response(&uri).await;
    assert_eq!(response.headers()[REVISION_HEADER], then.to_string());
    let (status, message) = site.get(&format!("/boot/v1/ipxe/SN%201?at={}", now.0 + 1)).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert!(message.contains("is not there yet"), "{message}");

    // A machine boots without a majority; who wants to see what is acknowledged is told that nobody knows.
    site.0.fail_barriers(Some(ReadError::NoLeader));
    assert_eq!(site.get("/boot/v1/ipxe/SN%201").await, ok("#!ipxe\necho two\n"));
    let response = site
        .response("/boot/v1/ipxe/SN%201?consistency=linearizable")
        .await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(response.headers().contains_key(header::RETRY_AFTER));
    assert_eq!(response.headers()[REVISION_HEADER], now.to_string());
}

#[tokio::test]
async fn refusals_say_why() {
    let site = Site::new().await;
    let cases = [
        (
            "/boot/v1/ipxe/SN2",
            404,
            "no machine is registered under serial `SN2`",
        ),
        (
            "/boot/v1/ipxe?serial=SN2&mac=52:54:00:00:00:02",
            404,
            "no machine is registered under serial `SN2` or hardware address 52:54:00:00:00:02",
        ),
        (
            "/boot/v1/ipxe?mac=52:54",
            400,
            "parameter mac: `52:54` is not a hardware address: write six bytes in hexadecimal, as 52:54:00:12:34:56, \
             52-54-00-12-34-56, 5254.0012.3456 or 525400123456",
        ),
        (
            "/boot/v1/ipxe?serail=SN1",
            400,
            "there is no parameter `serail`: say who boots by serial=SERIAL or mac=ADDRESS",
        ),
        (
            "/boot/v1/ipxe?serial=&mac=",
            400,
            "serial and mac are both empty: say who boots by serial=SERIAL or mac=ADDRESS",
        ),
        (
            "/boot/v1/ipxe?serial=%ff",
            400,
            "parameter `serial` is not percent-encoded UTF-8",
        ),
        (
            "/boot/v1/ipxe/SN%201?serial=SN1",
            400,
            "there is no parameter `serial` where the path names the machine: there are at, at_least and consistency",
        ),
        (
            "/boot/v1/ignition/SN%201?at=now",
            400,
            "parameter at: `now` is not a revision, which is a whole number",
        ),
        (
            "/boot/v1/ipxe/SN%201?consistency=strong",
            400,
            "parameter consistency: `strong` is neither `linearizable` nor `local`",
        ),
        (
            "/boot/v1/ipxe/SN%201?consistency=local&at_least=1",
            400,
            "at_least and consistency exclude each other, and each is taken once",
        ),
        (
            "/boot/v1/cloud-init/SN%201/vendor-data",
            404,
            "there is no document `vendor-data`: there are user-data, meta-data and network-config",
        ),
    ];
    for (uri, status, message) in cases {
        assert_eq!(site.get(uri).await, refused(status, message), "{uri}");
    }
    let reader: Arc<dyn Reader> = site.0.clone();
    let request = Request::get("/boot/v1/ipxe").body(Body::empty()).unwrap();
    assert_eq!(
        router(reader).oneshot(request).await.unwrap().status(),
        StatusCode::BAD_REQUEST
    );
}

#[tokio::test]
async fn a_template_that_fails_says_where() {
    let site = Site::new().await;
    let get = || async {
        let (status, message) = site.get("/boot/v1/ignition/SN%201").await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
        message
    };
    site.template("t", Kind::Ignition, "", "{\n\"a\": \"{{ labels.missing }}\"}")
        .await;
    let message = get().await;
    assert!(
        message.starts_with("boot template `t`, line 2, for machine `SN 1`: undefined value"),
        "{message}"
    );
    site.template("t", Kind::Ignition, "", "{\"a\": {{ serial }}}")
        .await;
    assert!(
        get()
            .await
            .starts_with("boot template `t` makes no JSON: line 1 of the document, column 7")
    );
    site.template(
        "t",
        Kind::Ignition,
        "",
        "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}",
    )
    .await;
    let message = get().await;
    assert!(message.contains("engine ran out of fuel"), "{message}");
    site.template(
        "t",
        Kind::Ignition,
        "",
        "{% for a in range(9999) %}{{ 'xxxxxxxx' * 99 }}{% endfor %}",
    )
    .await;
    let message = get().await;
    assert!(message.contains("makes more than 4194304 bytes"), "{message}");
    site.template("t", Kind::Ignition, "", "{% include 'other' %}")
        .await;
    let message = get().await;
    assert!(message.contains("template not found"), "{message}");
}

#[tokio::test]
async fn a_machine_that_leaves_service_is_not_booted() {
    let site = Site::new().await;
    site.template("default", Kind::Ipxe, "", "#!ipxe\n").await;
    site.state(State::Retiring).await;
    let message = "machine `SN 1` is retiring and is not booted: disks are wiped";
    assert_eq!(site.get("/boot/v1/ipxe/SN%201").await, refused(403, message));
    site.state(State::Retired).await;
    let message = "machine `SN 1` is retired and is not booted: disks are wiped";
    assert_eq!(
        site.get("/boot/v1/ipxe?mac=525400000001").await,
        refused(403, message)
    );
    site.state(State::Uninitialized).await;
    assert_eq!(site.get("/boot/v1/ipxe/SN%201").await, ok("#!ipxe\n"));
}

#[tokio::test]
async fn firmware_may_ask_for_the_size_first() {
    let site = Site::new().await;
    site.template("default", Kind::Ipxe, "", "#!ipxe\n").await;
    let reader: Arc<dyn Reader> = site.0.clone();
    let request = Request::head("/boot/v1/ipxe/SN%201").header(header::HOST, "h");
    let response = router(reader)
        .oneshot(request.body(Body::empty()).unwrap())
        .await
        .unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()[header::CONTENT_LENGTH], "7");
}
