//! What each kind of answer, or the lack of one, means for a demand.

use super::*;
use serde_json::json;
use std::io::{Read, Write};
use std::net::TcpListener;

fn outcome(status: u16, code: Option<&str>, writes: bool) -> Outcome {
    let body = code.map_or(Value::Null, |code| json!({"code": code}));
    let status = StatusCode::from_u16(status).expect("a status");
    Answer::answered(status, body, writes).outcome
}

#[test]
fn only_what_is_known_not_to_be_done_fails() {
    for (status, code, expected) in [
        (200, None, Outcome::Ok),
        (412, Some("kv_revision_mismatch"), Outcome::Fail),
        (400, Some("body_invalid"), Outcome::Fail),
        (429, Some("overloaded"), Outcome::Fail),
        (503, Some("no_leader"), Outcome::Fail),
        (503, Some("shutting_down"), Outcome::Fail),
        (507, Some("disk_nearly_full"), Outcome::Fail),
        (500, Some("command_poisonous"), Outcome::Fail),
        (504, Some("outcome_unknown"), Outcome::Info),
        (503, None, Outcome::Info),
        (404, None, Outcome::Info),
        (502, None, Outcome::Info),
        (500, None, Outcome::Info),
    ] {
        assert_eq!(outcome(status, code, true), expected, "{status} {code:?}");
    }
    assert_eq!(outcome(504, Some("outcome_unknown"), false), Outcome::Fail);
}

#[test]
fn what_does_not_exist_was_read() {
    let missing = Answer::answered(
        StatusCode::NOT_FOUND,
        json!({"code": "not_found", "revision": 7}),
        false,
    );
    let read = missing.or_missing();
    assert_eq!(
        (read.outcome, read.revision, read.body),
        (Outcome::Ok, Some(7), Value::Null)
    );
}

/// A server that takes one request and then does `respond`.
fn server(respond: impl FnOnce(std::net::TcpStream) + Send + 'static) -> Client {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client");
        let mut seen = [0; 4096];
        let _ = stream.read(&mut seen);
        respond(stream);
    });
    client(address)
}

fn client(address: SocketAddr) -> Client {
    let target = Target {
        id: 1,
        http: format!("http://{address}"),
        dns: address,
        ingress: address,
    };
    Client::new(Arc::from([target]), 0, "test").expect("a client")
}

async fn put(client: &Client) -> Answer {
    client
        .write(Method::PUT, "/v1/kv/a", Uuid::now_v7())
        .json(&json!({"value": "1"}))
        .send()
        .await
}

#[tokio::test]
async fn a_connection_that_never_stood_carried_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    drop(listener);
    assert_eq!(put(&client(address)).await.outcome, Outcome::Fail);
}

#[tokio::test]
async fn a_write_that_is_cut_off_is_unknown_and_a_read_is_not() {
    assert_eq!(put(&server(drop)).await.outcome, Outcome::Info);
    let read = server(drop).get("/v1/kv/a", Level::Local).send().await;
    assert_eq!(read.outcome, Outcome::Fail);
    assert!(read.blames_node());
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_unknown() {
    let client = server(|mut stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"rev");
    });
    assert_eq!(put(&client).await.outcome, Outcome::Info);
}

#[tokio::test]
async fn a_write_that_is_not_answered_in_time_is_unknown() {
    let mut client = server(|stream| {
        std::thread::sleep(Duration::from_secs(2));
        drop(stream);
    });
    client.deadline = Duration::from_millis(100);
    assert_eq!(put(&client).await.outcome, Outcome::Info);
}
