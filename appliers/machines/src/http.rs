//! The routes that firmware and first-boot agents ask.

use crate::render::{Source, TemplateError, render};
use axum::Router;
use axum::extract::{Path, RawQuery, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use onward_statemachine::machines::netboot::{self, Kind};
use onward_statemachine::machines::registry::{
    self, MacAddress, MacAddressError, Machine, Serial, State as Life,
};
use onward_statemachine::ports::{Freshness, PastError, ReadError, Reader};
use onward_statemachine::{Fault, Revision, View, history, system};
use std::sync::Arc;

/// The header that carries the revision of the state that an answer was made from.
pub const REVISION_HEADER: HeaderName = HeaderName::from_static("onward-revision");

type Node = Arc<dyn Reader>;

/// The boot routes, answered from this node's replica:
///
/// | `GET` (and `HEAD`) | answers |
/// |---|---|
/// | `/boot/v1/ipxe` | an iPXE script that comes back with the machine's serial and hardware address |
/// | `/boot/v1/ipxe?serial=S`, `?mac=M`, both, or `/boot/v1/ipxe/S` | the machine's iPXE script |
/// | `/boot/v1/ignition/S` | its Ignition configuration |
/// | `/boot/v1/cloud-init/S/user-data`, `meta-data`, `network-config` | its NoCloud documents: `ds=nocloud;s=URL/boot/v1/cloud-init/S/` |
///
/// With both parameters the serial is looked for first. Machines boot without a majority, so nothing is waited for. Who
/// looks at what they would get may ask for more, as of any other read: `?consistency=linearizable`, `?at_least=REVISION`,
/// and `?at=REVISION` for what a machine would have got then.
///
/// Refusals are plain text that a boot console can show: 400 for a parameter that means nothing, 403 for a machine that
/// leaves service, 404 for a machine or template that is not there, 410 for a revision that is not kept, 422 for a
/// template that fails for the machine, 429 and 503 for what may be there when asked again.
pub fn router(reader: Node) -> Router {
    Router::new()
        .route("/boot/v1/ipxe", get(ipxe))
        .route("/boot/v1/ipxe/{serial}", get(ipxe_of))
        .route("/boot/v1/ignition/{serial}", get(ignition_of))
        .route("/boot/v1/cloud-init/{serial}/{document}", get(cloud_init_of))
        .layer(middleware::from_fn(uncached))
        .with_state(reader)
}

/// A document that changes with the state must not be kept by a proxy on the way.
async fn uncached(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

async fn ipxe(
    State(node): State<Node>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let base_url = base_url(&headers)?;
    match Asked::parse(query.as_deref().unwrap_or_default(), None)? {
        Some(asked) => answer(&node, &asked, Kind::Ipxe, &base_url).await,
        None => Ok(text(StatusCode::OK, chain_script(&base_url))),
    }
}

async fn ipxe_of(
    State(node): State<Node>,
    Path(serial): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    of_machine(&node, serial, Kind::Ipxe, query, &headers).await
}

async fn ignition_of(
    State(node): State<Node>,
    Path(serial): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    of_machine(&node, serial, Kind::Ignition, query, &headers).await
}

async fn cloud_init_of(
    State(node): State<Node>,
    Path((serial, document)): Path<(String, String)>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let kind = match document.parse() {
        Ok(kind @ (Kind::UserData | Kind::MetaData | Kind::NetworkConfig)) => kind,
        _ => return Err(Refusal::UnknownDocument { document }),
    };
    of_machine(&node, serial, kind, query, &headers).await
}

/// The document of the machine that the path names.
async fn of_machine(
    node: &Node,
    serial: String,
    kind: Kind,
    query: Option<String>,
    headers: &HeaderMap,
) -> Result<Response, Refusal> {
    let base_url = base_url(headers)?;
    let asked = Asked::parse(query.as_deref().unwrap_or_default(), Some(serial))?.ok_or(Refusal::Nobody)?;
    answer(node, &asked, kind, &base_url).await
}

/// Which machine asks: by serial, by hardware address, or by whichever of both is known.
struct Wanted {
    serial: Option<Serial>,
    mac: Option<MacAddress>,
}

/// What a request asks for: of which machine, how fresh and as of when.
struct Asked {
    wanted: Wanted,
    freshness: Freshness,
    /// As of when, if not now.
    at: Option<Revision>,
}

impl Asked {
    /// Of the machine that the path names, or that the parameters name; `None` where nothing says which. A blank
    /// parameter is one that the firmware did not know.
    fn parse(query: &str, path: Option<String>) -> Result<Option<Self>, Refusal> {
        let by_path = path.is_some();
        let mut wanted = Wanted {
            serial: path.map(Serial),
            mac: None,
        };
        let (mut given, mut freshness, mut at) = (by_path, None, None);
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let parameter = name.to_owned();
            let Some(value) = percent_decoded(value) else {
                return Err(Refusal::Encoding { parameter });
            };
            given = true;
            match name {
                "at" => at = Some(revision(name, &value)?),
                "at_least" | "consistency" if freshness.is_some() => return Err(Refusal::Freshness),
                "at_least" => freshness = Some(Freshness::AtLeast(revision(name, &value)?)),
                "consistency" => freshness = Some(consistency(value)?),
                _ if by_path => return Err(Refusal::UnknownParameterOfPath { parameter }),
                "serial" | "mac" if value.is_empty() => {}
                "serial" => wanted.serial = Some(Serial(value)),
                "mac" => wanted.mac = Some(value.parse().map_err(Refusal::Mac)?),
                _ => return Err(Refusal::UnknownParameter { parameter }),
            }
        }
        if given && wanted.serial.is_none() && wanted.mac.is_none() {
            return Err(Refusal::Nobody);
        }
        // Whoever boots gets what there is: a machine must not wait for a majority.
        let freshness = freshness.unwrap_or(Freshness::Local);
        Ok(given.then_some(Asked {
            wanted,
            freshness,
            at,
        }))
    }
}

fn revision(parameter: &str, value: &str) -> Result<Revision, Refusal> {
    let number = value.parse().map(Revision);
    number.map_err(|_| Refusal::Revision {
        parameter: parameter.to_owned(),
        value: value.to_owned(),
    })
}

fn consistency(value: String) -> Result<Freshness, Refusal> {
    match value.as_str() {
        "linearizable" => Ok(Freshness::Linearizable),
        "local" => Ok(Freshness::Local),
        _ => Err(Refusal::Consistency { value }),
    }
}

impl Wanted {
    fn find(&self, view: &dyn View) -> Result<Option<Machine>, Fault> {
        if let Some(serial) = &self.serial
            && let Some(machine) = registry::get(view, serial)?
        {
            return Ok(Some(machine));
        }
        self.mac.map_or(Ok(None), |mac| registry::by_mac(view, mac))
    }
}

impl std::fmt::Display for Wanted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.serial, self.mac) {
            (Some(serial), Some(mac)) => write!(f, "serial `{serial}` or hardware address {mac}"),
            (Some(serial), None) => write!(f, "serial `{serial}`"),
            (None, Some(mac)) => write!(f, "hardware address {mac}"),
            (None, None) => f.write_str("no name"),
        }
    }
}

/// What a document is made from, read in one consistent view.
struct Material {
    revision: Revision,
    machine: Option<Machine>,
    template: Option<(String, String)>,
}

fn gather(view: &dyn View, wanted: &Wanted, kind: Kind) -> Result<Material, Fault> {
    let machine = wanted.find(view)?;
    let chosen = match &machine {
        Some(machine) => netboot::choose(view, kind, machine)?,
        None => None,
    };
    let template = match chosen {
        Some(template) => netboot::body(view, &template.name)?.map(|body| (template.name, body)),
        None => None,
    };
    Ok(Material {
        revision: system::clock(view)?.revision,
        machine,
        template,
    })
}

/// Reads what a document is made from, as fresh and as of when it is asked for.
async fn read(node: &Node, asked: &Asked, kind: Kind) -> Result<Material, Refusal> {
    node.barrier(asked.freshness).await.map_err(Refusal::Read)?;
    let gather = |view: &dyn View| gather(view, &asked.wanted, kind);
    let Some(at) = asked.at else {
        return Ok(node.read(gather));
    };
    let head = node.stamp().applied;
    // Where nothing happened since, nothing has to be put together.
    let present = node.read(|view| {
        let is_present = history::check(view, at, head)?.is_ok() && history::is_present(view, at)?;
        is_present.then(|| gather(view)).transpose()
    });
    let material = match present {
        Some(material) => material,
        None => node.past(at).await.map_err(Refusal::Past)?.read(gather),
    };
    let revision = at;
    Ok(Material { revision, ..material })
}

async fn answer(node: &Node, asked: &Asked, kind: Kind, base_url: &str) -> Result<Response, Refusal> {
    let (revision, made) = match read(node, asked, kind).await {
        Ok(read) => {
            let made = document(&asked.wanted, read.machine, read.template, kind, base_url);
            (read.revision, made)
        }
        Err(refusal) => (node.stamp().applied, Err(refusal)),
    };
    let mut response = match made {
        Ok((machine, template, document)) => {
            tracing::info!(serial = %machine.serial, %kind, template, revision = revision.0, "boot document served");
            let mut response = text(StatusCode::OK, document);
            if kind == Kind::Ignition {
                let json = HeaderValue::from_static("application/json");
                response.headers_mut().insert(header::CONTENT_TYPE, json);
            }
            response
        }
        Err(refusal) => refusal.into_response(),
    };
    response
        .headers_mut()
        .insert(REVISION_HEADER, HeaderValue::from(revision.0));
    Ok(response)
}

fn document(
    wanted: &Wanted,
    machine: Option<Machine>,
    template: Option<(String, String)>,
    kind: Kind,
    base_url: &str,
) -> Result<(Machine, String, String), Refusal> {
    let machine = machine.ok_or_else(|| Refusal::UnknownMachine {
        wanted: wanted.to_string(),
    })?;
    let serial = machine.serial.clone();
    let state = machine.status.state;
    if matches!(state, Life::Retiring | Life::Retired) {
        let reason = machine.status.reason;
        return Err(Refusal::OutOfService {
            serial,
            state,
            reason,
        });
    }
    let (name, body) = template.ok_or(Refusal::NoTemplate { serial, kind })?;
    let source = Source {
        name: &name,
        kind,
        body: &body,
    };
    let document = render(source, &machine, base_url).map_err(Refusal::Template)?;
    Ok((machine, name, document))
}

/// The script for a machine that has not said who it is yet: it loads this address again with what iPXE knows.
fn chain_script(base_url: &str) -> String {
    format!(
        "#!ipxe\nchain --replace {base_url}/boot/v1/ipxe?serial=${{serial:uristring}}&mac=${{net0/mac}}\n"
    )
}

/// Where the machine reached this node, as it said itself.
fn base_url(headers: &HeaderMap) -> Result<String, Refusal> {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let sound =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b':' | b'[' | b']' | b'_');
    match host {
        Some(host) if !host.is_empty() && host.bytes().all(sound) => Ok(format!("http://{host}")),
        _ => Err(Refusal::Host),
    }
}

/// `%41` and `+` undone; `None` where that leaves no UTF-8 text.
fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        rest = tail;
        bytes.push(match first {
            b'+' => b' ',
            b'%' => {
                let (digits, tail) = tail.split_at_checked(2)?;
                rest = tail;
                let [high, low] = [digits[0], digits[1]].map(|digit| char::from(digit).to_digit(16));
                (high? << 4 | low?) as u8
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

/// Why there is no document.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("the request has no usable Host header, so links back to this node cannot be made")]
    Host,
    #[error("parameter `{parameter}` is not percent-encoded UTF-8")]
    Encoding { parameter: String },
    #[error("there is no parameter `{parameter}`: say who boots by serial=SERIAL or mac=ADDRESS")]
    UnknownParameter { parameter: String },
    #[error(
        "there is no parameter `{parameter}` where the path names the machine: there are at, at_least and consistency"
    )]
    UnknownParameterOfPath { parameter: String },
    #[error("serial and mac are both empty: say who boots by serial=SERIAL or mac=ADDRESS")]
    Nobody,
    #[error("parameter {parameter}: `{value}` is not a revision, which is a whole number")]
    Revision { parameter: String, value: String },
    #[error("parameter consistency: `{value}` is neither `linearizable` nor `local`")]
    Consistency { value: String },
    #[error("at_least and consistency exclude each other, and each is taken once")]
    Freshness,
    #[error(transparent)]
    Read(ReadError),
    #[error(transparent)]
    Past(PastError),
    #[error("parameter mac: {0}")]
    Mac(MacAddressError),
    #[error("there is no document `{document}`: there are user-data, meta-data and network-config")]
    UnknownDocument { document: String },
    #[error("no machine is registered under {wanted}")]
    UnknownMachine { wanted: String },
    #[error("machine `{serial}` is {state} and is not booted: {reason}")]
    OutOfService {
        serial: Serial,
        state: Life,
        reason: String,
    },
    #[error("no boot template of kind {kind} chooses machine `{serial}`")]
    NoTemplate { serial: Serial, kind: Kind },
    #[error(transparent)]
    Template(TemplateError),
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = match &self {
            Refusal::Host
            | Refusal::Encoding { .. }
            | Refusal::UnknownParameter { .. }
            | Refusal::UnknownParameterOfPath { .. }
            | Refusal::Nobody
            | Refusal::Revision { .. }
            | Refusal::Consistency { .. }
            | Refusal::Freshness
            | Refusal::Mac(_) => StatusCode::BAD_REQUEST,
            Refusal::OutOfService { .. } => StatusCode::FORBIDDEN,
            Refusal::UnknownDocument { .. }
            | Refusal::UnknownMachine { .. }
            | Refusal::NoTemplate { .. }
            | Refusal::Past(PastError::Future { .. }) => StatusCode::NOT_FOUND,
            Refusal::Past(PastError::Compacted { .. }) => StatusCode::GONE,
            Refusal::Read(ReadError::Overloaded { .. }) => StatusCode::TOO_MANY_REQUESTS,
            Refusal::Read(_) | Refusal::Past(_) => StatusCode::SERVICE_UNAVAILABLE,
            Refusal::Template(_) => StatusCode::UNPROCESSABLE_ENTITY,
        };
        tracing::warn!(status = status.as_u16(), reason = %self, "boot document refused");
        let mut response = text(status, format!("{self}\n"));
        if matches!(
            status,
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE
        ) {
            let headers = response.headers_mut();
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

fn text(status: StatusCode, body: String) -> Response {
    let plain = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];
    (status, plain, body).into_response()
}
