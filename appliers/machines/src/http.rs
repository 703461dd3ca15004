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
use onward_statemachine::ports::Reader;
use onward_statemachine::{Fault, Revision, View, system};
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
/// With both parameters the serial is looked for first. Refusals are plain text that a boot console can show: 400 for a
/// parameter that means nothing, 403 for a machine that leaves service, 404 for a machine or template that is not
/// there, 422 for a template that fails for the machine.
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
    match Wanted::parse(query.as_deref().unwrap_or_default())? {
        Some(wanted) => answer(&node, &wanted, Kind::Ipxe, &base_url),
        None => Ok(text(StatusCode::OK, chain_script(&base_url))),
    }
}

async fn ipxe_of(
    State(node): State<Node>,
    Path(serial): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    answer(&node, &Wanted::serial(serial), Kind::Ipxe, &base_url(&headers)?)
}

async fn ignition_of(
    State(node): State<Node>,
    Path(serial): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    answer(
        &node,
        &Wanted::serial(serial),
        Kind::Ignition,
        &base_url(&headers)?,
    )
}

async fn cloud_init_of(
    State(node): State<Node>,
    Path((serial, document)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let kind = match document.parse() {
        Ok(kind @ (Kind::UserData | Kind::MetaData | Kind::NetworkConfig)) => kind,
        _ => return Err(Refusal::UnknownDocument { document }),
    };
    answer(&node, &Wanted::serial(serial), kind, &base_url(&headers)?)
}

/// Which machine asks: by serial, by hardware address, or by whichever of both is known.
struct Wanted {
    serial: Option<Serial>,
    mac: Option<MacAddress>,
}

impl Wanted {
    fn serial(serial: String) -> Self {
        Wanted {
            serial: Some(Serial(serial)),
            mac: None,
        }
    }

    /// `None` where no parameter is given. A blank one is one that the firmware did not know.
    fn parse(query: &str) -> Result<Option<Self>, Refusal> {
        let mut wanted = Wanted {
            serial: None,
            mac: None,
        };
        let mut given = false;
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = percent_decoded(value).ok_or_else(|| Refusal::Encoding {
                parameter: name.to_owned(),
            })?;
            given = true;
            match name {
                "serial" if value.is_empty() => {}
                "mac" if value.is_empty() => {}
                "serial" => wanted.serial = Some(Serial(value)),
                "mac" => wanted.mac = Some(value.parse().map_err(Refusal::Mac)?),
                _ => {
                    let parameter = name.to_owned();
                    return Err(Refusal::UnknownParameter { parameter });
                }
            }
        }
        if given && wanted.serial.is_none() && wanted.mac.is_none() {
            return Err(Refusal::Nobody);
        }
        Ok(given.then_some(wanted))
    }

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

fn answer(node: &Node, wanted: &Wanted, kind: Kind, base_url: &str) -> Result<Response, Refusal> {
    let Material {
        revision,
        machine,
        template,
    } = node.read(|view| gather(view, wanted, kind));
    let mut response = match document(wanted, machine, template, kind, base_url) {
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
    #[error("serial and mac are both empty: say who boots by serial=SERIAL or mac=ADDRESS")]
    Nobody,
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
            | Refusal::Nobody
            | Refusal::Mac(_) => StatusCode::BAD_REQUEST,
            Refusal::OutOfService { .. } => StatusCode::FORBIDDEN,
            Refusal::UnknownDocument { .. } | Refusal::UnknownMachine { .. } | Refusal::NoTemplate { .. } => {
                StatusCode::NOT_FOUND
            }
            Refusal::Template(_) => StatusCode::UNPROCESSABLE_ENTITY,
        };
        tracing::warn!(status = status.as_u16(), reason = %self, "boot document refused");
        text(status, format!("{self}\n"))
    }
}

fn text(status: StatusCode, body: String) -> Response {
    let plain = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];
    (status, plain, body).into_response()
}
