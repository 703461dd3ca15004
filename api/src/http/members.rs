//! `/v1/cluster/members` and `/v1/cluster/transfer`: who belongs to the cluster, and who leads it.
//!
//! Nothing here goes through the log of commands: the engine has entries of its own for it, and repeating a request is
//! harmless without a key.

use crate::answer::{Answer, Done};
use crate::app::App;
use crate::problem::{self, FIELD_INVALID, PATH_INVALID, Problem};
use crate::request::{Call, Json, MaybeJson, Path};
use crate::routes::{Routes, op};
use crate::wire::members::{AdmittedMember, Leader, NewMember, Transfer};
use axum::extract::State;
use onward_statemachine::membership::{Change, ChangeError, Changed};
use onward_statemachine::{NodeId, Reply};

/// The longest address that is taken: a DNS name and a port.
const ADDRESS_BYTES_MAX: usize = 260;

pub(super) fn routes(routes: Routes) -> Routes {
    routes
        .post(
            "/v1/cluster/members",
            add,
            op(
                "cluster_add",
                "Lets a node in that will run at an address: as a learner, which votes once it has caught up",
            )
            .logs_who()
            .body::<NewMember>()
            .answer::<AdmittedMember>(),
        )
        .post(
            "/v1/cluster/members/{node}/replace",
            replace,
            op(
                "cluster_replace",
                "Lets a node in, in whose favour a member leaves in the step in which it gets its vote",
            )
            .logs_who()
            .body::<NewMember>()
            .answer::<AdmittedMember>(),
        )
        .delete(
            "/v1/cluster/members/{node}",
            remove,
            op("cluster_remove", "Lets go of a member, for good")
                .logs_who()
                .done(),
        )
        .post(
            "/v1/cluster/transfer",
            transfer,
            op("cluster_transfer", "Makes another voter the leader")
                .logs_who()
                .body::<Transfer>()
                .answer::<Leader>(),
        )
}

async fn add(State(app): State<App>, call: Call, Json(body): Json<NewMember>) -> Answer {
    admit(&app, &call, body, None).await
}

async fn replace(
    State(app): State<App>,
    Path(node): Path<String>,
    call: Call,
    Json(body): Json<NewMember>,
) -> Answer {
    let gone = node_id(&node)?;
    admit(&app, &call, body, Some(gone)).await
}

async fn admit(app: &App, call: &Call, body: NewMember, replaces: Option<NodeId>) -> Answer {
    let peer_address = address(body.peer_address)?;
    let change = Change::Add {
        peer_address: peer_address.clone(),
        replaces,
    };
    let changed = make(app, call, change).await?;
    let admitted = AdmittedMember::of(changed, peer_address, replaces.map(|gone| gone.0));
    done(app, &admitted.expect("an addition is answered with an admission"))
}

async fn remove(State(app): State<App>, Path(node): Path<String>, call: Call) -> Answer {
    let id = node_id(&node)?;
    make(&app, &call, Change::Remove { id }).await?;
    done(&app, &())
}

async fn transfer(State(app): State<App>, call: Call, MaybeJson(body): MaybeJson<Transfer>) -> Answer {
    let change = Change::Transfer {
        to: body.to.map(NodeId),
    };
    let Changed::Leads { id } = make(&app, &call, change).await? else {
        unreachable!("a transfer is answered with who leads");
    };
    done(&app, &Leader { leader: id.0 })
}

async fn make(app: &App, call: &Call, change: Change) -> Result<Changed, Problem> {
    // Neither the engine's entries nor what members ask each other carry who it was: this line alone says it.
    tracing::info!(actor = %call.actor, ?change, "a change of the cluster is asked for");
    let deadline_ms = app.services.limits.deadline_ms;
    let changed = app.services.cluster.change(change, deadline_ms).await;
    changed.map_err(|error: ChangeError| problem::not_changed(&error))
}

fn done<T: serde::Serialize>(app: &App, value: &T) -> Answer {
    let done = Done {
        revision: app.services.reader.stamp().applied,
        reply: Reply::None,
    };
    done.answer_with(value)
}

fn node_id(text: &str) -> Result<NodeId, Problem> {
    let id = text.parse().ok().filter(|id| *id > 0).map(NodeId);
    id.ok_or_else(|| PATH_INVALID.because(format!("`{text}` is not the id of a node: a whole number from 1")))
}

/// An address that other machines can be told.
fn address(text: String) -> Result<String, Problem> {
    let invalid = |rule: &str| {
        Err(FIELD_INVALID.because(format!(
            "peer_address: `{text}` {rule}; it takes HOST:PORT, where the other members will reach the node: 10.0.0.4:7401"
        )))
    };
    let Some((host, port)) = text.rsplit_once(':') else {
        return invalid("has no port");
    };
    if port.parse::<u16>().ok().is_none_or(|port| port == 0) {
        return invalid("has no port between 1 and 65535");
    }
    let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let plain = |host: &str| {
        !host.is_empty()
            && host
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'))
    };
    let v6 = |host: &str| host.parse::<std::net::Ipv6Addr>();
    match bracketed {
        Some(host) if v6(host).is_err() => return invalid("has no IPv6 address in its brackets"),
        Some(host) if v6(host).is_ok_and(|host| host.is_unspecified()) => {
            return invalid("stands for all addresses of a machine");
        }
        None if !plain(host) || text.len() > ADDRESS_BYTES_MAX => {
            return invalid("has no host name or address");
        }
        None if host == "0.0.0.0" => return invalid("stands for all addresses of a machine"),
        _ => {}
    }
    Ok(text)
}
