use super::*;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use onward_statemachine::NodeId;
use onward_statemachine::deployments::apps::{Protocol, Route};
use onward_statemachine::deployments::instances::{Active, Routing, Target};
use onward_statemachine::deployments::releases;
use onward_statemachine::testing::SingleNode;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// An ingress that serves on a port of its own until it is dropped.
struct Bed {
    ingress: Ingress,
    address: SocketAddr,
    token: CancellationToken,
}

impl Bed {
    async fn new() -> Self {
        let ingress = Ingress::new(None, Arc::new(SingleNode::new()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let token = CancellationToken::new();
        tokio::spawn(ingress.clone().serve(listener, token.clone()));
        Bed {
            ingress,
            address,
            token,
        }
    }

    /// Leads host `h` to an instance on this port.
    fn route(&self, revision: u64, port: u16) {
        self.swap(routing(revision, port));
    }

    fn swap(&self, routing: Routing) {
        self.ingress.swap(&mut self.ingress.known(), routing);
    }

    async fn get(&self, path: &str) -> (StatusCode, String) {
        let request = Request::get(path)
            .header("host", "h")
            .body(Full::<Bytes>::default())
            .unwrap();
        self.send(request).await
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> (StatusCode, String) {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .unwrap();
        tokio::spawn(connection);
        let response = sender.send_request(request).await.unwrap();
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8_lossy(&body).into_owned())
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        self.token.cancel();
    }
}

fn routing(revision: u64, port: u16) -> Routing {
    let route = Route {
        host: "h".into(),
        path: "/".into(),
    };
    let app = Name("web".into());
    let active = Active {
        release: releases::Number(revision),
        ordinal: Ordinal(revision),
        node: NodeId(1),
        address: "127.0.0.1".into(),
        port,
        protocol: Protocol::Http,
        routes: vec![route.clone()],
        since: Revision(revision),
    };
    let target = Target {
        app: app.clone(),
        released: true,
    };
    Routing {
        revision: Revision(revision),
        routes: [(route, target)].into(),
        active: [(app, active)].into(),
    }
}

/// An HTTP server on a port of its own; `answer` makes its answers.
async fn server<F, A>(answer: F) -> u16
where
    F: Fn(Request<Incoming>) -> A + Clone + Send + Sync + 'static,
    A: Future<Output = String> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let answer = answer.clone();
            let service = service_fn(move |request| {
                let answer = answer.clone();
                async move {
                    let text = answer(request).await;
                    Ok::<_, std::convert::Infallible>(Response::new(Full::new(Bytes::from(text))))
                }
            });
            tokio::spawn(
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service),
            );
        }
    });
    port
}

#[tokio::test]
async fn bodies_and_headers_go_through() {
    let bed = Bed::new().await;
    let port = server(|request: Request<Incoming>| async move {
        let line = format!(
            "{} {} {:?}",
            request.method(),
            request.uri(),
            request.headers()["x-forwarded-for"]
        );
        let host = request.headers()["host"].to_str().unwrap().to_owned();
        let body = request.into_body().collect().await.unwrap().to_bytes();
        format!("{line} {host} {}", body.len())
    })
    .await;
    bed.route(1, port);
    let request = Request::post("/a/b?c=d")
        .header("host", "h:80")
        .body(Full::new(Bytes::from(vec![7; 300_000])));
    let (status, text) = bed.send(request.unwrap()).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(text, "POST /a/b?c=d \"127.0.0.1\" h:80 300000");
}

#[tokio::test]
async fn says_what_is_wrong() {
    let bed = Bed::new().await;
    let (status, text) = bed.get("/x").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert!(text.contains("host `h` and path `/x`"), "{text}");
    let mut idle = routing(1, 1);
    idle.active.clear();
    bed.swap(idle);
    let (status, text) = bed.get("/").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(text.contains("app `web`"), "{text}");
    let request = Request::get("/")
        .header("host", "h")
        .header("accept", "application/json");
    let (_, text) = bed.send(request.body(Full::default()).unwrap()).await;
    let document: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(document["status"], 503);
}

#[tokio::test]
async fn an_instance_that_cannot_be_reached_gets_another_look_at_the_table() {
    let bed = Bed::new().await;
    // A port on which nobody listens.
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let dead = gone.local_addr().unwrap().port();
    drop(gone);
    bed.route(1, dead);
    let port = server(|request: Request<Incoming>| async move {
        let body = request.into_body().collect().await.unwrap().to_bytes();
        String::from_utf8_lossy(&body).into_owned()
    })
    .await;
    let request = Request::post("/")
        .header("host", "h")
        .body(Full::from("kept"))
        .unwrap();
    let (answer, ()) = tokio::join!(bed.send(request), async {
        while bed.ingress.in_flight(&Name("web".into()), Ordinal(1)) == 0 {
            tokio::task::yield_now().await;
        }
        bed.route(2, port);
    });
    assert_eq!(answer, (StatusCode::OK, "kept".to_owned()));
}

#[tokio::test]
async fn a_connection_that_the_instance_closed_costs_no_request() {
    let bed = Bed::new().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    bed.route(1, listener.local_addr().unwrap().port());
    // Answers one request a connection, offers to keep it, and closes it when the next request has arrived.
    let server = tokio::spawn(async move {
        let mut served = 0;
        while served < 5 {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = [0; 4096];
            assert!(stream.read(&mut head).await.unwrap() > 0);
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
            stream.write_all(answer).await.unwrap();
            served += 1;
            tokio::spawn(async move {
                let _ = stream.read(&mut [0; 1]).await;
            });
        }
    });
    for _ in 0..5 {
        assert_eq!(bed.get("/").await, (StatusCode::OK, "ok".to_owned()));
    }
    server.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn switching_under_load_loses_no_request() {
    let bed = Arc::new(Bed::new().await);
    let mut ports = Vec::new();
    for name in ["one", "two"] {
        ports.push(
            server(move |_| async move {
                tokio::time::sleep(Duration::from_millis(2)).await;
                name.to_owned()
            })
            .await,
        );
    }
    bed.route(1, ports[0]);
    let served = Arc::new(AtomicUsize::new(0));
    let stop = CancellationToken::new();
    let clients: Vec<_> = (0..16)
        .map(|_| {
            let (bed, served, stop) = (Arc::clone(&bed), Arc::clone(&served), stop.clone());
            tokio::spawn(async move {
                while !stop.is_cancelled() {
                    let (status, text) = bed.get("/").await;
                    assert_eq!(status, StatusCode::OK, "{text}");
                    served.fetch_add(1, Ordering::SeqCst);
                }
            })
        })
        .collect();
    for switch in 2..40 {
        let before = served.load(Ordering::SeqCst);
        while served.load(Ordering::SeqCst) < before + 20 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        bed.route(switch, ports[switch as usize % 2]);
        let (_, text) = bed.get("/").await;
        assert_eq!(text, ["one", "two"][switch as usize % 2]);
    }
    stop.cancel();
    for client in clients {
        client.await.unwrap();
    }
    // What was switched away from is let go of when its last request is through.
    bed.route(99, ports[0]);
    assert_eq!(bed.ingress.shared.known.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_drained_instance_finishes_what_it_was_sent() {
    let bed = Bed::new().await;
    let release = CancellationToken::new();
    let waits = release.clone();
    let port = server(move |_| {
        let waits = waits.clone();
        async move {
            waits.cancelled().await;
            "slow".to_owned()
        }
    })
    .await;
    bed.route(1, port);
    let (app, old) = (Name("web".into()), Ordinal(1));
    let (answer, ()) = tokio::join!(bed.get("/"), async {
        while bed.ingress.in_flight(&app, old) == 0 {
            tokio::task::yield_now().await;
        }
        bed.swap(Routing::default());
        assert_eq!(bed.ingress.in_flight(&app, old), 1);
        release.cancel();
    });
    assert_eq!(answer, (StatusCode::OK, "slow".to_owned()));
    while bed.ingress.in_flight(&app, old) > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn upgraded_connections_are_tunnels() {
    let bed = Bed::new().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    bed.route(1, listener.local_addr().unwrap().port());
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = vec![0; 4096];
        let count = stream.read(&mut head).await.unwrap();
        let head = String::from_utf8_lossy(&head[..count]).to_ascii_lowercase();
        assert!(
            head.contains("upgrade: echo") && head.contains("connection: upgrade"),
            "{head}"
        );
        let answer = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: echo\r\nconnection: upgrade\r\n\r\n";
        stream.write_all(answer).await.unwrap();
        let (mut reader, mut writer) = stream.split();
        tokio::io::copy(&mut reader, &mut writer).await.unwrap();
    });
    let mut client = TcpStream::connect(bed.address).await.unwrap();
    let request = b"GET / HTTP/1.1\r\nhost: h\r\nconnection: Upgrade\r\nupgrade: echo\r\n\r\n";
    client.write_all(request).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await.unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.1 101"));
    client.write_all(b"hello").await.unwrap();
    let mut echo = [0; 5];
    client.read_exact(&mut echo).await.unwrap();
    assert_eq!(&echo, b"hello");
    drop(client);
    server.await.unwrap();
}
