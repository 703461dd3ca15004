//! `onward service`: instances of services.

use crate::age::exact;
use crate::examples::examples;
use crate::failure::Result;
use crate::global::duration;
use crate::pairs::{joined, pair, unique};
use crate::session::Session;
use crate::table::{Cell, Table, Tone};
use clap::{Args, Subcommand, ValueEnum};
use onward_api::wire::catalog::{self as wire, Health, Service, Spec};
use std::net::IpAddr;
use std::time::Duration;

/// Commands on services.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List services
    #[command(visible_alias = "ls", after_help = examples!["service list", "service list -o json"])]
    List,
    /// List the instances of a service
    #[command(after_help = examples!["service get web", "service get web --healthy -o wide"])]
    Get(Get),
    /// Register an instance, or change it
    #[command(after_help = examples![
        "service register web web-1 --address 10.0.0.7 --port 8080",
        "service register web web-1 --address 10.0.0.7 --port 8080 --port-name http --tag canary --ttl 30s",
    ])]
    Register(Register),
    /// Say that an instance is alive, before its TTL runs out
    #[command(after_help = examples!["service renew web web-1"])]
    Renew(Instance),
    /// Say whether an instance is well
    #[command(after_help = examples!["service health web web-1 critical", "service health web web-1 passing"])]
    Health(SetHealth),
    /// Take an instance out of service, or put it back
    #[command(after_help = examples!["service maintenance web web-1 on", "service maintenance web web-1 off"])]
    Maintenance(SetMaintenance),
    /// Deregister an instance
    #[command(visible_alias = "rm", after_help = examples!["service deregister web web-1"])]
    Deregister(Deregister),
}

/// Arguments of `service get`.
#[derive(Debug, Args)]
pub struct Get {
    /// The name of the service
    service: String,
    /// Only instances that clients are sent to
    #[arg(long)]
    healthy: bool,
}

/// Which instance.
#[derive(Debug, Args)]
pub struct Instance {
    /// The name of the service
    service: String,
    /// The name of the instance
    instance: String,
}

/// Arguments of `service register`.
#[derive(Debug, Args)]
pub struct Register {
    #[command(flatten)]
    id: Instance,
    /// Where it is reached
    #[arg(long)]
    address: IpAddr,
    /// On which port
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    port: u16,
    /// What the port is called in SRV names: http
    #[arg(long, value_name = "NAME")]
    port_name: Option<String>,
    /// A tag
    #[arg(long)]
    tag: Vec<String>,
    /// Its share of the load
    #[arg(long, default_value_t = 1)]
    weight: u16,
    /// Lower ones are tried first
    #[arg(long, default_value_t = 0)]
    priority: u16,
    /// Anything else worth knowing
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    meta: Vec<(String, String)>,
    /// How long it passes without renewing: 30s
    #[arg(long, value_name = "TIME", value_parser = duration)]
    ttl: Option<Duration>,
    /// How long it may be critical before it is deregistered: 10m
    #[arg(long, value_name = "TIME", value_parser = duration, requires = "ttl")]
    deregister_after: Option<Duration>,
    /// Only if it was last modified at this revision; 0 for "does not exist"
    #[arg(long, value_name = "REVISION")]
    expect: Option<u64>,
}

/// Arguments of `service health`.
#[derive(Debug, Args)]
pub struct SetHealth {
    #[command(flatten)]
    id: Instance,
    /// Whether it is well
    health: Wellness,
}

/// Whether an instance is well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Wellness {
    /// It is
    Passing,
    /// It is not
    Critical,
}

/// Arguments of `service maintenance`.
#[derive(Debug, Args)]
pub struct SetMaintenance {
    #[command(flatten)]
    id: Instance,
    /// Out of service (on), or back in it (off)
    state: Switch,
}

/// On or off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    /// Out of service
    On,
    /// In service
    Off,
}

/// Arguments of `service deregister`.
#[derive(Debug, Args)]
pub struct Deregister {
    #[command(flatten)]
    id: Instance,
    /// Only if it was last modified at this revision
    #[arg(long, value_name = "REVISION")]
    expect: Option<u64>,
}

/// Runs a command on services.
pub(crate) async fn run(session: &mut Session<'_>, command: Command) -> Result {
    match command {
        Command::List => {
            let services = session
                .list(None, async |client, page| client.service_list(page).await)
                .await?;
            session
                .output
                .show(&services, |services| self::services(&services.items))
        }
        Command::Get(Get { service, healthy }) => {
            let instances = session
                .list(None, async |client, page| {
                    client.service_instances(&service, healthy, page).await
                })
                .await?;
            session
                .output
                .show(&instances, |instances| self::instances(&instances.items))
        }
        Command::Register(arguments) => register(session, arguments).await,
        Command::Renew(Instance { service, instance }) => {
            let done = session.client.service_renew(&service, &instance).await?;
            session.output.done(&done, |done| {
                format!("{service}/{instance} renewed at revision {}", done.revision)
            })
        }
        Command::Health(SetHealth {
            id: Instance { service, instance },
            health,
        }) => {
            let (health, word) = match health {
                Wellness::Passing => (Health::Passing, "passing"),
                Wellness::Critical => (Health::Critical, "critical"),
            };
            let done = session
                .client
                .service_set_health(&service, &instance, health)
                .await?;
            session.output.done(&done, |done| {
                format!("{service}/{instance} is {word} at revision {}", done.revision)
            })
        }
        Command::Maintenance(SetMaintenance {
            id: Instance { service, instance },
            state,
        }) => {
            let on = state == Switch::On;
            let done = session
                .client
                .service_set_maintenance(&service, &instance, on)
                .await?;
            let word = if on { "out of service" } else { "back in service" };
            session.output.done(&done, |done| {
                format!("{service}/{instance} is {word} at revision {}", done.revision)
            })
        }
        Command::Deregister(Deregister {
            id: Instance { service, instance },
            expect,
        }) => {
            let done = session
                .client
                .service_deregister(&service, &instance, expect)
                .await?;
            session.output.done(&done, |done| {
                format!("{service}/{instance} deregistered at revision {}", done.revision)
            })
        }
    }
}

async fn register(session: &mut Session<'_>, arguments: Register) -> Result {
    let Instance { service, instance } = arguments.id;
    let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let spec = Spec {
        address: arguments.address,
        port: arguments.port,
        port_name: arguments.port_name,
        tags: arguments.tag.into_iter().collect(),
        weight: arguments.weight,
        priority: arguments.priority,
        metadata: unique("metadata", arguments.meta)?,
        ttl_ms: arguments.ttl.map(ms),
        deregister_after_ms: arguments.deregister_after.map(ms),
    };
    let done = session
        .client
        .service_register(&service, &instance, &spec, arguments.expect)
        .await?;
    session.output.done(&done, |done| {
        format!("{service}/{instance} registered at revision {}", done.revision)
    })
}

fn services(services: &[Service]) -> Table {
    let mut table = Table::new(&["SERVICE", "SERVING", "INSTANCES"], &["CREATED", "MODIFIED"]);
    for service in services {
        let tone = match service.serving {
            0 => Tone::Bad,
            serving if serving < service.instances => Tone::Fair,
            _ => Tone::Good,
        };
        table.push(vec![
            Cell::from(&service.name),
            Cell::toned(service.serving, tone),
            Cell::from(service.instances),
            Cell::from(service.created),
            Cell::from(service.modified),
        ]);
    }
    table
}

fn instances(instances: &[wire::Instance]) -> Table {
    let mut table = Table::new(
        &["INSTANCE", "ADDRESS", "PORT", "HEALTH", "TAGS", "DEADLINE"],
        &["PORTNAME", "PRIORITY", "WEIGHT", "METADATA", "MODIFIED"],
    );
    for instance in instances {
        let spec = &instance.spec;
        let health = match (instance.maintenance, instance.health) {
            (true, _) => Cell::toned("maintenance", Tone::Fair),
            (false, Health::Passing) => Cell::toned("passing", Tone::Good),
            (false, Health::Critical) => Cell::toned("critical", Tone::Bad),
        };
        let tags: Vec<&str> = spec.tags.iter().map(String::as_str).collect();
        table.push(vec![
            Cell::from(&instance.instance),
            Cell::from(spec.address),
            Cell::from(spec.port),
            health,
            Cell::from(tags.join(",")),
            Cell::maybe(instance.deadline.map(exact)),
            Cell::maybe(spec.port_name.as_ref()),
            Cell::from(spec.priority),
            Cell::from(spec.weight),
            Cell::from(joined(&spec.metadata)),
            Cell::from(instance.modified),
        ]);
    }
    table
}
