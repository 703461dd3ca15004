//! One request: find its instance, send it there, bring back what comes, and count it until its last byte.

use super::respond::problem;
use super::table::{Found, Table};
use super::upstream::{Body, InFlight, Upstream};
use super::{Ingress, REQUESTS_MAX};
use bytes::Bytes;
use http::header::{self, HeaderName};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version};
use http_body_util::{BodyExt, Empty};
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::Instant;

/// How long an instance that cannot be connected to is tried for, with a look at the table each time.
const CONNECT_RETRY: Duration = Duration::from_secs(5);
/// The time between two such tries, unless the table changes earlier.
const CONNECT_PAUSE: Duration = Duration::from_millis(50);
/// How long an instance may take until the head of its answer is there.
const RESPONSE: Duration = Duration::from_secs(120);

/// Headers that are about one connection and not about the request (RFC 9110 section 7.6.1).
const HOP_BY_HOP: [HeaderName; 7] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHENTICATE,
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// How an attempt to send a request ended.
enum Sent {
    Answered(Response<Incoming>),
    /// No byte left; here it is again.
    Unsent(Request<Body>),
    Broken(hyper::Error),
    TimedOut,
}

impl Ingress {
    /// Answers one request.
    pub(super) async fn handle(&self, peer: SocketAddr, mut request: Request<Incoming>) -> Response<Body> {
        let accepts = request.headers().clone();
        let Ok(slot) = Arc::clone(&self.shared.slots).try_acquire_owned() else {
            let detail = format!("{REQUESTS_MAX} requests are under way, which is the limit of this ingress");
            return problem(StatusCode::SERVICE_UNAVAILABLE, &accepts, &detail);
        };
        let Some(host) = host_of(&request) else {
            return problem(StatusCode::BAD_REQUEST, &accepts, "the request names no host");
        };
        let client_upgrade = wants_upgrade(&request).then(|| hyper::upgrade::on(&mut request));
        let (mut parts, body) = request.into_parts();
        prepare(&mut parts, peer, &host, client_upgrade.is_some());
        let request = Request::from_parts(parts, body.boxed());
        match self.send(&host, request).await {
            Ok((response, counted)) => answer(response, client_upgrade, counted, slot),
            Err((status, detail)) => problem(status, &accepts, &detail),
        }
    }

    /// What the table has for a request; where that is no instance, what the replica has, which may be a moment ahead.
    fn find(&self, table: &mut watch::Receiver<Arc<Table>>, host: &str, path: &str) -> Found {
        let found = table.borrow_and_update().find(host, path);
        if let Found::Upstream(_) = found {
            return found;
        }
        self.refresh();
        table.borrow_and_update().find(host, path)
    }

    /// Sends a request to the instance that the table has for it.
    async fn send(
        &self,
        host: &str,
        mut request: Request<Body>,
    ) -> Result<(Response<Incoming>, InFlight), (StatusCode, String)> {
        let path = request.uri().path().to_owned();
        let mut table = self.shared.table.subscribe();
        let give_up = Instant::now() + CONNECT_RETRY;
        loop {
            let upstream = match self.find(&mut table, host, &path) {
                Found::Upstream(upstream) => upstream,
                Found::Unavailable { app, why } => {
                    return Err((StatusCode::SERVICE_UNAVAILABLE, format!("app `{app}`: {why}")));
                }
                Found::Nothing => {
                    let detail = format!("no app has a route for host `{host}` and path `{path}`");
                    return Err((StatusCode::NOT_FOUND, detail));
                }
            };
            let counted = upstream.enter();
            match attempt(&upstream, request).await {
                Ok(response) => return Ok((response, counted)),
                Err(Attempt::Failed(status, detail)) => return Err((status, detail)),
                Err(Attempt::NotConnected(unsent, error)) => {
                    if Instant::now() >= give_up {
                        let detail = format!(
                            "app `{}`: its instance cannot be reached: {error}",
                            upstream.app()
                        );
                        return Err((StatusCode::BAD_GATEWAY, detail));
                    }
                    request = *unsent;
                }
            }
            drop(counted);
            let _ = tokio::time::timeout(CONNECT_PAUSE, table.changed()).await;
        }
    }
}

enum Attempt {
    NotConnected(Box<Request<Body>>, std::io::Error),
    Failed(StatusCode, String),
}

/// Sends over connections that wait, as long as they turn out closed, and then over a new one.
async fn attempt(
    upstream: &Arc<Upstream>,
    mut request: Request<Body>,
) -> Result<Response<Incoming>, Attempt> {
    let app = upstream.app();
    while let Some(sender) = upstream.reuse() {
        let spare = repeatable(&request);
        match over(upstream, sender, request).await {
            Sent::Answered(response) => return Ok(response),
            Sent::Unsent(unsent) => request = unsent,
            // The instance closed the connection just as the request went out.
            Sent::Broken(error) if spare.is_some() && lost_race(&error) => {
                request = spare.expect("it was just found to be there");
            }
            Sent::Broken(error) => return Err(broken(app, &error)),
            Sent::TimedOut => return Err(timed_out(app)),
        }
    }
    let sender = match upstream.connect().await {
        Ok(sender) => sender,
        Err(error) => return Err(Attempt::NotConnected(Box::new(request), error)),
    };
    match over(upstream, sender, request).await {
        Sent::Answered(response) => Ok(response),
        Sent::Unsent(unsent) => {
            let error = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
            Err(Attempt::NotConnected(Box::new(unsent), error))
        }
        Sent::Broken(error) => Err(broken(app, &error)),
        Sent::TimedOut => Err(timed_out(app)),
    }
}

fn broken(app: &onward_statemachine::deployments::apps::Name, error: &hyper::Error) -> Attempt {
    let detail = format!("app `{app}`: its instance broke off: {error}");
    Attempt::Failed(StatusCode::BAD_GATEWAY, detail)
}

fn timed_out(app: &onward_statemachine::deployments::apps::Name) -> Attempt {
    let detail = format!(
        "app `{app}`: its instance did not answer within {} s",
        RESPONSE.as_secs()
    );
    Attempt::Failed(StatusCode::GATEWAY_TIMEOUT, detail)
}

async fn over(
    upstream: &Arc<Upstream>,
    mut sender: hyper::client::conn::http1::SendRequest<Body>,
    request: Request<Body>,
) -> Sent {
    match tokio::time::timeout(RESPONSE, sender.try_send_request(request)).await {
        Err(_) => Sent::TimedOut,
        Ok(Ok(response)) => {
            upstream.keep(sender);
            Sent::Answered(response)
        }
        Ok(Err(mut error)) => match error.take_message() {
            Some(request) => Sent::Unsent(request),
            None => Sent::Broken(error.into_error()),
        },
    }
}

/// A copy of a request that may be sent twice: one without effect and without a body.
fn repeatable(request: &Request<Body>) -> Option<Request<Body>> {
    let safe = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    let bare =
        hyper::body::Body::is_end_stream(request.body()) && !request.headers().contains_key(header::UPGRADE);
    if !safe || !bare {
        return None;
    }
    let mut copy = Request::new(Empty::<Bytes>::new().map_err(|never| match never {}).boxed());
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.version_mut() = request.version();
    *copy.headers_mut() = request.headers().clone();
    Some(copy)
}

/// Whether an error is what a connection gives that was closed before the answer began.
fn lost_race(error: &hyper::Error) -> bool {
    use std::error::Error;
    let reset = |cause: &(dyn Error + 'static)| {
        cause.downcast_ref::<std::io::Error>().is_some_and(|error| {
            matches!(
                error.kind(),
                std::io::ErrorKind::ConnectionReset | std::io::ErrorKind::BrokenPipe
            )
        })
    };
    error.is_incomplete_message()
        || error.is_canceled()
        || error.is_closed()
        || error.source().is_some_and(reset)
}

/// The host that a request is for: lower case, without port and final dot.
fn host_of<B>(request: &Request<B>) -> Option<String> {
    let header = || request.headers().get(header::HOST)?.to_str().ok();
    let authority = request.uri().authority().map(|authority| authority.as_str());
    let authority = authority.or_else(header)?;
    let host = match authority.rfind(':') {
        Some(at) if !authority.ends_with(']') => &authority[..at],
        _ => authority,
    };
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    (!host.is_empty()).then_some(host)
}

fn wants_upgrade<B>(request: &Request<B>) -> bool {
    request.version() == Version::HTTP_11
        && request.headers().contains_key(header::UPGRADE)
        && connection_options(request.headers()).any(|option| option.eq_ignore_ascii_case("upgrade"))
}

fn connection_options(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
}

/// Takes off what is about one connection; keeps an upgrade that both sides speak about.
fn strip_hop_by_hop(headers: &mut HeaderMap, upgrade: bool) {
    let kept = headers.get(header::UPGRADE).filter(|_| upgrade).cloned();
    let named: Vec<HeaderName> = connection_options(headers)
        .filter_map(|option| option.parse().ok())
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
    if let Some(protocol) = kept {
        headers.insert(header::UPGRADE, protocol);
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    }
}

/// Makes a client's request one to an instance: origin form, its host kept, where it came from added.
fn prepare(parts: &mut http::request::Parts, peer: SocketAddr, host: &str, upgrade: bool) {
    let original_host = match parts.uri.authority() {
        Some(authority) => HeaderValue::from_str(authority.as_str()).ok(),
        None => parts.headers.get(header::HOST).cloned(),
    };
    let target = parts.uri.path_and_query().cloned();
    parts.uri = Uri::from(target.unwrap_or(PathAndQuery::from_static("/")));
    parts.version = Version::HTTP_11;
    strip_hop_by_hop(&mut parts.headers, upgrade);
    // A client over HTTP/2 may split its cookies; HTTP/1.1 has them in one line (RFC 9113 section 8.2.3).
    let cookies: Vec<&[u8]> = parts
        .headers
        .get_all(header::COOKIE)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    if cookies.len() > 1
        && let Ok(joined) = HeaderValue::from_bytes(&cookies.join(&b"; "[..]))
    {
        parts.headers.insert(header::COOKIE, joined);
    }
    let forwarded_for = HeaderName::from_static("x-forwarded-for");
    let before = parts
        .headers
        .get_all(&forwarded_for)
        .iter()
        .filter_map(|value| value.to_str().ok());
    let chain: Vec<String> = before.map(str::to_owned).chain([peer.ip().to_string()]).collect();
    if let Ok(chain) = HeaderValue::from_str(&chain.join(", ")) {
        parts.headers.insert(forwarded_for, chain);
    }
    parts.headers.insert(
        HeaderName::from_static("x-forwarded-proto"),
        HeaderValue::from_static("http"),
    );
    let host = original_host.or_else(|| HeaderValue::from_str(host).ok());
    if let Some(host) = host {
        parts
            .headers
            .insert(HeaderName::from_static("x-forwarded-host"), host.clone());
        parts.headers.insert(header::HOST, host);
    }
}

/// Brings back what the instance answered.
fn answer(
    mut response: Response<Incoming>,
    client_upgrade: Option<OnUpgrade>,
    counted: InFlight,
    slot: OwnedSemaphorePermit,
) -> Response<Body> {
    let switching = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    if let (true, Some(client)) = (switching, client_upgrade) {
        let instance = hyper::upgrade::on(&mut response);
        strip_hop_by_hop(response.headers_mut(), true);
        tokio::spawn(tunnel(client, instance, counted, slot));
        return response.map(|body| body.boxed());
    }
    strip_hop_by_hop(response.headers_mut(), false);
    *response.version_mut() = Version::HTTP_11;
    response.map(|body| {
        let counts = Some((counted, slot));
        BodyExt::boxed(Counted { body, counts })
    })
}

/// Copies both ways until one side ends.
async fn tunnel(client: OnUpgrade, instance: OnUpgrade, counted: InFlight, slot: OwnedSemaphorePermit) {
    match tokio::try_join!(client, instance) {
        Ok((client, instance)) => {
            let (mut client, mut instance) = (TokioIo::new(client), TokioIo::new(instance));
            if let Err(error) = tokio::io::copy_bidirectional(&mut client, &mut instance).await {
                tracing::debug!(%error, "tunnel ended");
            }
        }
        Err(error) => tracing::debug!(%error, "upgrade failed"),
    }
    drop((counted, slot));
}

/// A body that counts as a request under way until its end.
struct Counted {
    body: Incoming,
    counts: Option<(InFlight, OwnedSemaphorePermit)>,
}

impl hyper::body::Body for Counted {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(None | Some(Err(_))) = polled {
            self.counts = None;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        let host = |value: &str| host_of(&Request::builder().header("host", value).body(()).expect("builds"));
        assert_eq!(host("A.Example:8080").as_deref(), Some("a.example"));
        assert_eq!(host("a.example.").as_deref(), Some("a.example"));
        assert_eq!(host("[::1]:80").as_deref(), Some("[::1]"));
        assert_eq!(host(""), None);
    }

    #[test]
    fn connection_headers_stay_here() {
        let request = Request::builder()
            .header("connection", "close, x-private")
            .header("x-private", "1")
            .header("upgrade", "h2c")
            .header("x-forwarded-for", "10.0.0.1")
            .header("host", "h")
            .uri("http://h/p?q")
            .body(())
            .expect("builds");
        let (mut parts, ()) = request.into_parts();
        prepare(&mut parts, "192.0.2.1:5".parse().expect("parses"), "h", false);
        assert_eq!(parts.uri, "/p?q");
        assert!(!parts.headers.contains_key("x-private"));
        assert!(!parts.headers.contains_key("upgrade"));
        assert_eq!(parts.headers["x-forwarded-for"], "10.0.0.1, 192.0.2.1");
        assert_eq!(parts.headers["x-forwarded-host"], "h");
    }
}
