//! The client library against a real socket.

use super::Site;
use crate::client::{Client, Consistency, Error, JournalRange, Paging, Url};
use crate::wire::kv::Event;
use onward_statemachine::CommandId;
use onward_statemachine::ports::ProposeError;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use uuid::Uuid;

fn url(address: SocketAddr) -> Url {
    format!("http://{address}").parse().expect("a URL")
}

impl Site {
    /// Serves until the task is aborted.
    async fn serve(&self) -> (Url, JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let router = self
            .router
            .clone()
            .into_make_service_with_connect_info::<SocketAddr>();
        let task = tokio::spawn(async move { axum::serve(listener, router).await.expect("serves") });
        (url(address), task)
    }
}

/// An address where nobody listens.
async fn nobody() -> Url {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    url(listener.local_addr().expect("an address"))
}

/// A server that reads a request and hangs up.
async fn rude() -> (Url, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    let task = tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut bytes = [0; 1024];
            let _ = socket.read(&mut bytes).await;
            let _ = socket.shutdown().await;
        }
    });
    (url(address), task)
}

fn client(servers: Vec<Url>) -> Client {
    Client::new(servers)
        .expect("a client")
        .with_deadline(Duration::from_secs(20))
}

#[tokio::test]
async fn pairs_are_put_read_listed_and_watched() {
    let site = Site::new();
    let (server, task) = site.serve().await;
    let client = client(vec![nobody().await, server]).with_actor("cli:test");
    let mut watch = client.kv_watch("", Some(0)).await.expect("a watch");
    for key in ["a/../b", "watch", "txn", "/x//y"] {
        let done = client.kv_put(key, b"1".to_vec(), Some(0)).await.expect("puts");
        let pair = client.kv_get(key).await.expect("reads");
        assert_eq!(
            (pair.value.key.as_deref(), pair.value.modified),
            (Some(key), done.revision)
        );
        let change = watch.next().await.expect("streams").expect("a change");
        assert!(matches!(&change.events[0], Event::Put { key: Some(found), .. } if found == key));
    }
    let page = client
        .kv_list(
            "",
            Paging {
                limit: Some(3),
                cursor: None,
            },
        )
        .await
        .expect("lists");
    assert_eq!(page.value.items.len(), 3);
    let rest = client
        .kv_list(
            "",
            Paging {
                limit: None,
                cursor: page.value.next,
            },
        )
        .await
        .expect("lists");
    assert_eq!(rest.value.items.len(), 1);
    let local = client.clone().with_consistency(Consistency::Local);
    assert_eq!(local.kv_get("watch").await.expect("reads").age_ms, Some(0));
    let status = client.cluster().await.expect("answers");
    assert_eq!((status.value.leader, status.age_ms), (Some(1), Some(0)));
    let journal = client.journal(&JournalRange::default(), 10).await.expect("reads");
    assert_eq!(journal.value.items[0].actor, "cli:test");
    assert!(
        client
            .kv_get("none")
            .await
            .expect_err("there is none")
            .is_not_found()
    );
    let refused = client
        .kv_put("watch", Vec::new(), Some(9))
        .await
        .expect_err("a stale revision");
    assert_eq!(
        refused.problem().map(|problem| problem.code.as_str()),
        Some("kv_revision_mismatch")
    );
    assert_eq!(
        client.kv_delete_prefix("").await.expect("deletes").value.deleted,
        4
    );
    task.abort();
}

#[tokio::test]
async fn a_lost_answer_is_asked_for_again_and_done_once() {
    let site = Site::new();
    let (server, task) = site.serve().await;
    let client = client(vec![server]);
    site.node
        .fail_next(ProposeError::Unknown(CommandId(Uuid::now_v7())));
    let done = client
        .kv_put("a", b"1".to_vec(), None)
        .await
        .expect("learns the outcome");
    assert_eq!(done.revision, 1);
    site.node.fail_next(ProposeError::NoLeader);
    client
        .kv_put("a", b"2".to_vec(), None)
        .await
        .expect("tries again");
    assert_eq!(client.kv_get("a").await.expect("reads").value.version, 2);
    task.abort();
}

#[tokio::test]
async fn the_error_tells_nothing_done_from_outcome_unknown() {
    let deadline = Duration::from_millis(300);
    let away = client(vec![nobody().await]).with_deadline(deadline);
    let error = away
        .kv_put("a", Vec::new(), None)
        .await
        .expect_err("nobody is there");
    assert!(matches!(error, Error::Unreachable(_)), "{error:?}");

    let (server, task) = rude().await;
    let cut = client(vec![server]).with_deadline(deadline);
    let error = cut.kv_put("a", Vec::new(), None).await.expect_err("no answer");
    assert!(matches!(error, Error::OutcomeUnknown { .. }), "{error:?}");
    let error = cut.kv_get("a").await.expect_err("no answer");
    assert!(matches!(error, Error::Unreachable(_)), "{error:?}");
    task.abort();

    assert!(matches!(Client::new(Vec::new()), Err(Error::Usage(_))));
    let https = "https://127.0.0.1:1".parse().expect("a URL");
    assert!(matches!(Client::new(vec![https]), Err(Error::Usage(_))));
}

#[tokio::test]
async fn a_stream_comes_back_where_it_was() {
    let site = Site::new();
    let (first, first_task) = site.serve().await;
    let (second, second_task) = site.serve().await;
    let client = client(vec![first, second]);
    let mut events = client.events(None, &[]).await.expect("a stream");
    site.put("a", "1").await;
    assert_eq!(
        events.next().await.expect("streams").map(|entry| entry.revision),
        Some(1)
    );
    // The streams of a node end when it goes down; the other one knows the same journal.
    first_task.abort();
    site.put("a", "2").await;
    assert_eq!(
        events
            .next()
            .await
            .expect("comes back")
            .map(|entry| entry.revision),
        Some(2)
    );
    assert_eq!(events.position(), Some(2));
    second_task.abort();
}
