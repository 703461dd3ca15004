//! Asking an instance whether it is healthy.

use bytes::Bytes;
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use onward_statemachine::deployments::apps::{Health, Probe};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::Instant;

/// Asks until it answers or its deadline has passed; then with what was wrong at last.
pub async fn until_healthy(address: &str, port: u16, health: &Health) -> Result<(), String> {
    let give_up = Instant::now() + Duration::from_millis(health.deadline_ms);
    let timeout = Duration::from_millis(health.timeout_ms);
    loop {
        let wrong = match tokio::time::timeout(timeout, probe(address, port, &health.probe)).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(wrong)) => wrong,
            Err(_) => format!("no answer within {} ms", health.timeout_ms),
        };
        let next = Instant::now() + Duration::from_millis(health.interval_ms);
        if next > give_up {
            return Err(format!("not healthy within {} ms: {wrong}", health.deadline_ms));
        }
        tokio::time::sleep_until(next).await;
    }
}

/// Asks once.
async fn probe(address: &str, port: u16, probe: &Probe) -> Result<(), String> {
    let stream = TcpStream::connect((address, port))
        .await
        .map_err(|error| format!("connecting to port {port}: {error}"))?;
    let Probe::Http { path } = probe else {
        return Ok(());
    };
    let failed = |error: hyper::Error| format!("GET {path}: {error}");
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(failed)?;
    let request = http::Request::get(path)
        .header(http::header::HOST, format!("{address}:{port}"))
        .header(http::header::USER_AGENT, "onward-health")
        .header(http::header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| format!("GET {path}: {error}"))?;
    // It ends with the sender, which lives as long as this call.
    tokio::spawn(connection);
    let response = sender.send_request(request).await.map_err(failed)?;
    let status = response.status();
    match status.is_success() || status.is_redirection() {
        true => Ok(()),
        false => Err(format!("GET {path} answered {status}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    fn health(probe: Probe, deadline_ms: u64) -> Health {
        Health {
            probe,
            interval_ms: 20,
            timeout_ms: 500,
            deadline_ms,
        }
    }

    #[tokio::test]
    async fn waits_for_a_good_answer() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = tokio::spawn(async move {
            for answer in ["503 No", "200 OK"] {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut head = [0; 1024];
                let _ = stream.read(&mut head).await.unwrap();
                let answer = format!("HTTP/1.1 {answer}\r\ncontent-length: 0\r\n\r\n");
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        let probe = Probe::Http { path: "/up".into() };
        until_healthy("127.0.0.1", port, &health(probe, 30_000))
            .await
            .unwrap();
        server.await.unwrap();
        let wrong = until_healthy("127.0.0.1", port, &health(Probe::Tcp, 100)).await;
        assert!(wrong.unwrap_err().contains("connecting"));
    }
}
