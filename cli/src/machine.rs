//! `onward machine`: machines and their address plan.

use crate::age::{age, exact};
use crate::examples::examples;
use crate::failure::{Failure, Result};
use crate::manifest::inventory;
use crate::pairs::{LabelChange, joined, label_change, pair, unique};
use crate::session::{Session, count};
use crate::table::{Cell, Details, Table, Tone};
use clap::{Args, Subcommand};
use onward_api::wire::Time;
use onward_api::wire::ipam::AddressPlan;
use onward_api::wire::machines::{BmcSpec, Labels, Machine, Placement, Reason, Spec, StateChange};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// Commands on machines.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List machines
    #[command(visible_alias = "ls", after_help = examples![
        "machine list",
        "machine list -l role=worker -o json",
        "machine list -l 'zone in (east, west),!broken' --field rack=3",
    ])]
    List(List),
    /// Show a machine
    #[command(after_help = examples!["machine get S1001", "machine get S1001 -o yaml"])]
    Get(Get),
    /// Register a machine
    #[command(after_help = examples![
        "machine register S1001 --rack 3 --role worker",
        "machine register S1002 --rack 3 --role boot -l zone=east --mac 52:54:00:00:00:01 --bmc-kind redfish",
    ])]
    Register(Register),
    /// Register all machines of a CSV inventory, or none
    #[command(
        after_help = examples![
            "machine import rack-3.csv",
            "machine import - --role worker -l zone=east < rack-3.csv",
        ],
        after_long_help = IMPORT_HELP
    )]
    Import(Import),
    /// Set and remove labels
    #[command(after_help = examples!["machine label S1001 zone=east gpu-"])]
    Label(Label),
    /// Move a machine on in its life
    #[command(after_help = examples![
        "machine state S1001 healthy",
        "machine state S1001 unhealthy --reason 'two disks lost'",
    ])]
    State(State),
    /// Take machines out of service
    #[command(after_help = examples!["machine retire S1001 --reason 'lease ended'", "machine retire S1001 S1002 --yes"])]
    Retire(Retire),
    /// Delete machines that are retired
    #[command(visible_alias = "rm", after_help = examples!["machine delete S1001", "machine delete S1001 S1002 --yes"])]
    Delete(Delete),
    /// The address plan: which addresses machines have
    #[command(subcommand, after_help = examples!["machine plan get", "machine plan set -f plan.yaml"])]
    Plan(PlanCommand),
}

const IMPORT_HELP: &str = "Columns, by the names in the first line:
  serial, rack                     must be there
  index, role, bmc_kind            may be there
  bmc_address                      computed from the address plan where it is empty
  macs                             separated by `;` or spaces
  labels                           KEY=VALUE, separated by `;` or spaces
  label.NAME                       the value of the label NAME

Examples:
  onward machine import rack-3.csv
  onward machine import - --role worker -l zone=east < rack-3.csv";

/// Arguments of `machine list`.
#[derive(Debug, Args)]
pub struct List {
    /// Only machines with these labels: role=worker, disk!=hdd, zone in (a, b), env notin (test), gpu, !broken
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    selector: Vec<String>,
    /// Only machines with these fields: serial, rack, index, role, state
    #[arg(long, value_name = "FIELD=VALUE")]
    field: Vec<String>,
    /// At most so many
    #[arg(long, value_name = "COUNT")]
    limit: Option<usize>,
}

/// Arguments of `machine get`.
#[derive(Debug, Args)]
pub struct Get {
    /// Its serial
    serial: String,
}

/// Arguments of `machine register`.
#[derive(Debug, Args)]
pub struct Register {
    /// Its serial
    serial: String,
    /// The number of its rack
    #[arg(long, value_name = "NUMBER")]
    rack: u32,
    /// What it is for
    #[arg(long)]
    role: String,
    /// Its index in the rack; the lowest free one where it is not given
    #[arg(long, value_name = "NUMBER")]
    index: Option<u32>,
    /// A label
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = pair)]
    label: Vec<(String, String)>,
    /// The hardware address of a network interface
    #[arg(long, value_name = "ADDRESS")]
    mac: Vec<String>,
    /// What its management controller speaks: redfish, iDRAC-9
    #[arg(long, value_name = "KIND")]
    bmc_kind: Option<String>,
    /// The address of its management controller; computed from the address plan where it is not given
    #[arg(long, value_name = "ADDRESS", requires = "bmc_kind")]
    bmc_address: Option<IpAddr>,
}

/// Arguments of `machine import`.
#[derive(Debug, Args)]
pub struct Import {
    /// The inventory; `-` reads standard input
    file: PathBuf,
    /// The role of machines whose line has none
    #[arg(long)]
    role: Option<String>,
    /// A label of machines whose line has none of the name
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = pair)]
    label: Vec<(String, String)>,
    /// The kind of the management controller of machines whose line has none
    #[arg(long, value_name = "KIND")]
    bmc_kind: Option<String>,
}

/// Arguments of `machine label`.
#[derive(Debug, Args)]
pub struct Label {
    /// Its serial
    serial: String,
    /// KEY=VALUE to set a label, KEY- to remove it
    #[arg(required = true, value_name = "CHANGE", value_parser = label_change)]
    changes: Vec<LabelChange>,
    /// Only if the machine was last modified at this revision
    #[arg(long, value_name = "REVISION")]
    expect: Option<u64>,
}

/// Arguments of `machine state`.
#[derive(Debug, Args)]
pub struct State {
    /// Its serial
    serial: String,
    /// uninitialized, healthy, unhealthy, unreachable, updating, retiring or retired
    state: String,
    /// Why
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
    /// Only if the machine was last modified at this revision
    #[arg(long, value_name = "REVISION")]
    expect: Option<u64>,
}

/// Arguments of `machine retire`.
#[derive(Debug, Args)]
pub struct Retire {
    /// Their serials
    #[arg(required = true, value_name = "SERIAL")]
    serials: Vec<String>,
    /// Why
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

/// Arguments of `machine delete`.
#[derive(Debug, Args)]
pub struct Delete {
    /// Their serials
    #[arg(required = true, value_name = "SERIAL")]
    serials: Vec<String>,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

/// Commands on the address plan.
#[derive(Debug, Subcommand)]
pub enum PlanCommand {
    /// Show the address plan
    #[command(after_help = examples!["machine plan get", "machine plan get -o yaml > plan.yaml"])]
    Get,
    /// Set the address plan
    #[command(after_help = examples!["machine plan set -f plan.yaml", "machine plan set -f - < plan.yaml"])]
    Set(PlanSet),
}

/// Arguments of `machine plan set`.
#[derive(Debug, Args)]
pub struct PlanSet {
    /// The plan, in YAML or JSON; `-` reads standard input
    #[arg(short, long, value_name = "FILE")]
    file: PathBuf,
    /// Only if the plan was last modified at this revision
    #[arg(long, value_name = "REVISION")]
    expect: Option<u64>,
}

/// Runs a command on machines.
pub(crate) async fn run(session: &mut Session<'_>, command: Command) -> Result {
    match command {
        Command::List(arguments) => list(session, arguments).await,
        Command::Get(arguments) => {
            let machine = session.client.machine_get(&arguments.serial).await?;
            session.output.show(&machine, |machine| details(&machine.value))
        }
        Command::Register(arguments) => register(session, arguments).await,
        Command::Import(arguments) => import(session, arguments).await,
        Command::Label(arguments) => label(session, arguments).await,
        Command::State(State {
            serial,
            state,
            reason,
            expect,
        }) => {
            let change = StateChange { state, reason };
            let done = session.client.machine_set_state(&serial, &change, expect).await?;
            let state = change.state;
            session.output.done(&done, |done| {
                format!("machine {serial} is {state} at revision {}", done.revision)
            })
        }
        Command::Retire(arguments) => retire(session, arguments).await,
        Command::Delete(arguments) => delete(session, arguments).await,
        Command::Plan(PlanCommand::Get) => {
            let plan = session.client.address_plan_get().await?;
            session
                .output
                .show(&plan, |plan| plan_details(&plan.value.plan, plan.value.modified))
        }
        Command::Plan(PlanCommand::Set(arguments)) => {
            let plan: AddressPlan = session.read_one(&arguments.file)?;
            let done = session.client.address_plan_set(&plan, arguments.expect).await?;
            session.output.done(&done, |done| {
                format!("address plan set at revision {}", done.revision)
            })
        }
    }
}

async fn list(session: &mut Session<'_>, arguments: List) -> Result {
    let now = session.now;
    let (selector, fields) = (arguments.selector.join(","), arguments.field.join(","));
    let machines = session
        .list(arguments.limit, async |client, page| {
            client.machine_list(&selector, &fields, page).await
        })
        .await?;
    session
        .output
        .show(&machines, |machines| table(&machines.items, now))
}

async fn register(session: &mut Session<'_>, arguments: Register) -> Result {
    let address = arguments.bmc_address;
    let spec = Spec {
        serial: arguments.serial,
        rack: arguments.rack,
        index: arguments.index,
        role: arguments.role,
        labels: unique("label", arguments.label)?,
        macs: arguments.mac,
        bmc: arguments.bmc_kind.map(|kind| BmcSpec { kind, address }),
    };
    let placed = session.client.machine_register(vec![spec]).await?;
    session
        .output
        .show(&placed, |placed| self::placed(&placed.value.placements))
}

async fn import(session: &mut Session<'_>, arguments: Import) -> Result {
    let defaults = inventory::Defaults {
        role: arguments.role,
        labels: unique("label", arguments.label)?,
        bmc_kind: arguments.bmc_kind,
    };
    let machines = if arguments.file == Path::new("-") {
        inventory::parse("standard input", &session.output.read_input()?, &defaults)?
    } else {
        inventory::read(&arguments.file, &defaults)?
    };
    if machines.is_empty() {
        return Err(Failure::usage(format!(
            "{}: no machine in it",
            arguments.file.display()
        )));
    }
    let specs: Vec<Spec> = machines.into_iter().map(Spec::from).collect();
    let imported = count(specs.len() as u64, "machine");
    let placed = session.client.machine_register(specs).await?;
    session
        .output
        .show(&placed, |placed| self::placed(&placed.value.placements))?;
    session
        .output
        .message(&format!("registered {imported} at revision {}", placed.revision));
    Ok(())
}

impl From<inventory::Machine> for Spec {
    fn from(machine: inventory::Machine) -> Self {
        let bmc = machine
            .bmc
            .map(|inventory::Bmc { kind, address }| BmcSpec { kind, address });
        Spec {
            serial: machine.serial,
            rack: machine.rack,
            index: machine.index,
            role: machine.role,
            labels: machine.labels,
            macs: machine.macs,
            bmc,
        }
    }
}

async fn label(session: &mut Session<'_>, arguments: Label) -> Result {
    let (mut set, mut remove) = (BTreeMap::new(), BTreeSet::new());
    for change in arguments.changes {
        let (key, twice) = match change {
            LabelChange::Set(key, value) => (
                key.clone(),
                set.insert(key.clone(), value).is_some() || remove.contains(&key),
            ),
            LabelChange::Remove(key) => (key.clone(), !remove.insert(key.clone()) || set.contains_key(&key)),
        };
        if twice {
            return Err(Failure::usage(format!("label `{key}` is given twice")));
        }
    }
    let serial = arguments.serial;
    let done = session
        .client
        .machine_set_labels(&serial, &Labels { set, remove }, arguments.expect)
        .await?;
    session.output.done(&done, |done| {
        format!("machine {serial} labelled at revision {}", done.revision)
    })
}

async fn retire(session: &mut Session<'_>, arguments: Retire) -> Result {
    session
        .output
        .confirm(&format!("retire {}", arguments.serials.join(", ")), arguments.yes)?;
    let reason = Reason {
        reason: arguments.reason,
    };
    for serial in &arguments.serials {
        let done = session.client.machine_retire(serial, &reason).await?;
        session.output.done(&done, |done| {
            format!("machine {serial} is retiring at revision {}", done.revision)
        })?;
    }
    Ok(())
}

async fn delete(session: &mut Session<'_>, arguments: Delete) -> Result {
    session
        .output
        .confirm(&format!("delete {}", arguments.serials.join(", ")), arguments.yes)?;
    for serial in &arguments.serials {
        let done = session.client.machine_delete(serial).await?;
        session.output.done(&done, |done| {
            format!("machine {serial} deleted at revision {}", done.revision)
        })?;
    }
    Ok(())
}

fn plan_details(plan: &AddressPlan, modified: u64) -> Details {
    let pool = |pool: &onward_api::wire::ipam::Pool| {
        format!(
            "{} from offset {}, 2^{} a rack, /{} with the gateway at {}",
            pool.cidr, pool.offset, pool.range_bits, pool.mask_bits, pool.gateway_offset
        )
    };
    Details::default()
        .field("machines", pool(&plan.machines))
        .field("addresses per machine", plan.addresses_per_machine)
        .field("bmcs", Cell::maybe(plan.bmcs.as_ref().map(pool)))
        .field("index of boot machines", plan.index_offset)
        .field("other machines per rack", plan.machines_per_rack_max)
        .field("modified", modified)
}

fn table(machines: &[Machine], now: Time) -> Table {
    let mut table = Table::new(
        &["SERIAL", "RACK", "INDEX", "ROLE", "STATE", "ADDRESS", "SINCE"],
        &["BMC", "MACS", "LABELS", "MODIFIED"],
    );
    for machine in machines {
        let bmc = machine.bmc.as_ref();
        table.push(vec![
            Cell::from(&machine.serial),
            Cell::from(machine.rack),
            Cell::from(machine.index),
            Cell::from(&machine.role),
            state_cell(&machine.state),
            Cell::maybe(machine.addresses.first().map(|address| address.ip)),
            Cell::from(age(machine.status.since, now)),
            Cell::maybe(bmc.and_then(|bmc| bmc.address)),
            Cell::from(machine.macs.join(",")),
            Cell::from(joined(&machine.labels)),
            Cell::from(machine.modified),
        ]);
    }
    table
}

fn state_cell(state: &str) -> Cell {
    let tone = match state {
        "healthy" => Tone::Good,
        "unhealthy" | "unreachable" => Tone::Bad,
        "retired" => Tone::Dim,
        _ => Tone::Fair,
    };
    Cell::toned(state, tone)
}

fn details(machine: &Machine) -> Details {
    let addresses = machine
        .addresses
        .iter()
        .map(|own| format!("{}/{} via {}", own.ip, own.mask_bits, own.gateway));
    let bmc = machine.bmc.as_ref().map(|bmc| match bmc.address {
        Some(address) => format!("{} at {address}", bmc.kind),
        None => bmc.kind.clone(),
    });
    let status = &machine.status;
    Details::default()
        .field("serial", &machine.serial)
        .field("rack", machine.rack)
        .field("index", machine.index)
        .field("role", &machine.role)
        .field("state", state_cell(&machine.state))
        .field("since", exact(status.since))
        .field("set by", &status.by)
        .field("reason", &status.reason)
        .field("addresses", addresses.collect::<Vec<_>>().join(", "))
        .field("bmc", Cell::maybe(bmc))
        .field("macs", machine.macs.join(", "))
        .field("labels", joined(&machine.labels))
        .field("registered", exact(machine.registered_at))
        .field("generation", machine.generation)
        .field("created", machine.created)
        .field("modified", machine.modified)
}

fn placed(placements: &[Placement]) -> Table {
    let mut table = Table::new(&["SERIAL", "RACK", "INDEX", "ADDRESS", "BMC"], &[]);
    for placement in placements {
        table.push(vec![
            Cell::from(&placement.serial),
            Cell::from(placement.rack),
            Cell::from(placement.index),
            Cell::maybe(placement.addresses.first().map(|address| address.ip)),
            Cell::maybe(placement.bmc_address),
        ]);
    }
    table
}
