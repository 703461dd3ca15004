//! What requests carry: bodies, the caller, preconditions, freshness. Every no here is a problem that names the part
//! of the request and what is taken instead.

use crate::app::App;
use crate::params::{Pairs, Query};
use crate::problem::{
    BODY_INVALID, BODY_TOO_LARGE, HEADER_INVALID, MEDIA_TYPE_UNSUPPORTED, PATH_INVALID, Problem,
};
use axum::body::Body;
use axum::extract::{ConnectInfo, FromRequest, FromRequestParts, Request};
use bytes::{Bytes, BytesMut};
use http::request::Parts;
use http::{HeaderMap, HeaderName, header};
use http_body_util::BodyExt;
use onward_statemachine::ports::Freshness;
use onward_statemachine::{Actor, CommandId, Revision};
use serde::de::DeserializeOwned;
use std::net::SocketAddr;
use std::str::FromStr;
use uuid::Uuid;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const ACTOR: HeaderName = HeaderName::from_static("onward-actor");

/// A whole JSON body.
pub(crate) struct Json<T>(pub T);

/// A whole JSON body where much may come at once.
pub(crate) struct LargeJson<T>(pub T);

/// A whole JSON body that may as well be empty.
pub(crate) struct MaybeJson<T>(pub T);

impl<T: DeserializeOwned + Default> FromRequest<App> for MaybeJson<T> {
    type Rejection = Problem;
    async fn from_request(request: Request, app: &App) -> Result<Self, Problem> {
        if axum::body::HttpBody::is_end_stream(request.body()) {
            return Ok(MaybeJson(T::default()));
        }
        json(request, app, app.services.limits.body_bytes)
            .await
            .map(MaybeJson)
    }
}

impl<T: DeserializeOwned> FromRequest<App> for Json<T> {
    type Rejection = Problem;
    async fn from_request(request: Request, app: &App) -> Result<Self, Problem> {
        json(request, app, app.services.limits.body_bytes).await.map(Json)
    }
}

impl<T: DeserializeOwned> FromRequest<App> for LargeJson<T> {
    type Rejection = Problem;
    async fn from_request(request: Request, app: &App) -> Result<Self, Problem> {
        json(request, app, app.services.limits.large_body_bytes)
            .await
            .map(LargeJson)
    }
}

async fn json<T: DeserializeOwned>(request: Request, app: &App, max: usize) -> Result<T, Problem> {
    let (parts, body) = request.into_parts();
    let kind = content_type(&parts.headers);
    if !is_json(kind) {
        return Err(MEDIA_TYPE_UNSUPPORTED.because(format!(
            "the body has Content-Type `{kind}`; this route takes `application/json`"
        )));
    }
    let bytes = read_body(&parts.headers, body, app, max).await?;
    parse_json(&bytes)
}

pub(crate) fn parse_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(bytes)
        .map_err(|error| BODY_INVALID.because(format!("the body is refused: {error}")))
}

/// Bytes as they are, or JSON: the two forms in which a value is put.
pub(crate) enum BytesOr<T> {
    Bytes(Bytes),
    Json(T),
}

impl<T: DeserializeOwned> FromRequest<App> for BytesOr<T> {
    type Rejection = Problem;
    async fn from_request(request: Request, app: &App) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        let kind = content_type(&parts.headers);
        let raw = kind.eq_ignore_ascii_case("application/octet-stream");
        if !raw && !is_json(kind) {
            return Err(MEDIA_TYPE_UNSUPPORTED.because(format!(
                "the body has Content-Type `{kind}`; this route takes `application/octet-stream` or \
                 `application/json`"
            )));
        }
        let bytes = read_body(&parts.headers, body, app, app.services.limits.body_bytes).await?;
        Ok(if raw {
            BytesOr::Bytes(bytes)
        } else {
            BytesOr::Json(parse_json(&bytes)?)
        })
    }
}

/// The media type without its parameters.
fn content_type(headers: &HeaderMap) -> &str {
    let value = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let value = value.unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim()
}

fn is_json(kind: &str) -> bool {
    kind.eq_ignore_ascii_case("application/json")
}

/// Whether the caller wants bytes as they are.
pub(crate) fn wants_bytes(headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    accept.is_some_and(|accept| accept.contains("application/octet-stream"))
}

/// The most bytes of a refused body that are read, so that its sender gets to see the answer.
const DISCARD_BYTES_MAX: usize = 32 << 20;

/// Reads on and keeps nothing: a client that is cut off while it sends sees a broken pipe and not the reason.
async fn discard(mut body: Body) {
    let mut seen = 0;
    while let Some(Ok(frame)) = body.frame().await {
        seen += frame.data_ref().map_or(0, Bytes::len);
        if seen > DISCARD_BYTES_MAX {
            break;
        }
    }
}

async fn read_body(headers: &HeaderMap, mut body: Body, app: &App, max: usize) -> Result<Bytes, Problem> {
    let too_large = || {
        BODY_TOO_LARGE.because(format!(
            "the body is larger than the {max} bytes that this route takes"
        ))
    };
    let announced = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|length| length > max) {
        // Whoever waits for a go-ahead has sent nothing yet.
        if !headers.contains_key(header::EXPECT) {
            discard(body).await;
        }
        return Err(too_large());
    }
    let mut held = app.receiving.none();
    let mut whole: Option<Bytes> = None;
    let mut parts = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| BODY_INVALID.because(format!("the body broke off: {error}")))?;
        let Ok(bytes) = frame.into_data() else { continue };
        if parts.len() + whole.as_ref().map_or(0, Bytes::len) + bytes.len() > max {
            discard(body).await;
            return Err(too_large());
        }
        if let Err(problem) = held.add(bytes.len()) {
            drop((bytes, whole, parts));
            discard(body).await;
            return Err(problem);
        }
        // Most bodies come in one piece, which needs no copy.
        match (whole.take(), parts.is_empty()) {
            (None, true) => whole = Some(bytes),
            (first, _) => {
                parts.extend_from_slice(&first.unwrap_or_default());
                parts.extend_from_slice(&bytes);
            }
        }
    }
    Ok(whole.unwrap_or_else(|| parts.freeze()))
}

/// Who writes, and which demand it is. Refuses `If-Match`, which must not be overlooked.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub command_id: Option<CommandId>,
    pub actor: Actor,
}

/// A call that may be conditional on the revision at which the object was last modified (0: it does not exist).
#[derive(Debug, Clone)]
pub(crate) struct Conditional {
    pub call: Call,
    pub expect: Option<Revision>,
}

impl FromRequestParts<App> for Call {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, _app: &App) -> Result<Self, Problem> {
        if parts.headers.contains_key(header::IF_MATCH) {
            return Err(
                HEADER_INVALID.because("this route takes no `If-Match`: nothing here has one revision")
            );
        }
        Call::of(parts)
    }
}

impl FromRequestParts<App> for Conditional {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, _app: &App) -> Result<Self, Problem> {
        let expect = text(&parts.headers, &header::IF_MATCH)?.map(|value| {
            let digits = value.trim().trim_matches('"');
            digits.parse().map(Revision).map_err(|_| {
                HEADER_INVALID.because(format!(
                    "`If-Match: {value}` is not a revision: a whole number, the object's `modified`; 0 for \"does not \
                     exist\""
                ))
            })
        });
        Ok(Conditional {
            expect: expect.transpose()?,
            call: Call::of(parts)?,
        })
    }
}

impl Call {
    fn of(parts: &Parts) -> Result<Self, Problem> {
        let command_id = text(&parts.headers, &IDEMPOTENCY_KEY)?
            .map(command_id)
            .transpose()?;
        let actor = match text(&parts.headers, &ACTOR)? {
            Some(claimed) if !claimed.is_empty() => Actor::new(claimed),
            _ => match parts.extensions.get::<ConnectInfo<SocketAddr>>() {
                Some(ConnectInfo(peer)) => Actor::new(&format!("http:{}", peer.ip())),
                None => Actor::new("http"),
            },
        };
        Ok(Call { command_id, actor })
    }
}

fn command_id(value: &str) -> Result<CommandId, Problem> {
    let id = Uuid::from_str(value).ok().map(CommandId);
    id.filter(|id| id.time().is_some()).ok_or_else(|| {
        HEADER_INVALID.because(format!(
            "`Idempotency-Key: {value}` is not a UUID version 7; make a fresh one for each demand and send it again \
             with each retry, or leave the header out"
        ))
    })
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Problem> {
    let Some(value) = headers.get(name) else {
        return Ok(None);
    };
    let text = value.to_str();
    text.map(Some).map_err(|_| {
        HEADER_INVALID.because(format!(
            "header `{name}` holds other than visible ASCII characters"
        ))
    })
}

/// How fresh a read must be: `consistency`, `at_least` and `at`.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Fresh {
    pub(crate) local: bool,
    pub(crate) at_least: Option<Revision>,
    /// As of when, if not now.
    pub(crate) at: Option<Revision>,
}

/// How fresh a read must be that has no past: as [`Fresh`], without `at`.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Present(pub Fresh);

impl Fresh {
    pub(crate) fn freshness(self) -> Freshness {
        match (self.at_least, self.local) {
            (Some(revision), _) => Freshness::AtLeast(revision),
            (None, true) => Freshness::Local,
            (None, false) => Freshness::Linearizable,
        }
    }
}

impl<Q: Query> FromRequestParts<App> for Params<Q> {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, _app: &App) -> Result<Self, Problem> {
        let mut pairs = Pairs::parse(parts.uri.query().unwrap_or_default())?;
        let query = Q::take(&mut pairs)?;
        pairs.finish::<Q>()?;
        Ok(Params(query))
    }
}

/// The query parameters of a route, all of them known.
pub(crate) struct Params<Q>(pub Q);

/// The parts of the path that the route names, in order.
pub(crate) struct Path<T>(pub T);

impl<T> FromRequestParts<App> for Path<T>
where
    T: DeserializeOwned + Send,
{
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let path = axum::extract::Path::<T>::from_request_parts(parts, app).await;
        path.map(|axum::extract::Path(value)| Path(value))
            .map_err(|rejection| PATH_INVALID.because(rejection.body_text()))
    }
}
