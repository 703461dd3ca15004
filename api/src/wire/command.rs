//! Batches: many commands, over any mix of areas, in one revision or not at all.

use super::{Invalid, apps, catalog, ipam, kv, machines, netboot, objects, rollouts};
use onward_statemachine::deployments::{apps as app_area, instances, releases};
use onward_statemachine::services::catalog as catalog_area;
use onward_statemachine::{self as log, Reply, Revision, machines as machine_areas, system};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

/// All of these commands or none, in one revision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Batch {
    /// 1 to 4096 of them; each sees what the ones before it did.
    pub commands: Vec<Command>,
}

/// One command of a batch: an object with one member, whose name says what is demanded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// Puts a key.
    KvPut(kv::Put),
    /// Deletes a key, or all with a prefix.
    KvDelete(kv::Delete),
    /// Compares, then does one thing or the other.
    KvTxn(kv::Txn),
    /// Registers machines.
    MachineRegister(machines::Register),
    /// Has a machine, and has it so.
    MachineDeclare(machines::Declare),
    /// Sets and removes labels of a machine.
    MachineSetLabels(machines::SetLabels),
    /// Takes a machine to a state.
    MachineSetState(machines::SetState),
    /// Takes a machine out of service.
    MachineRetire(machines::Retire),
    /// Forgets a retired machine.
    MachineDelete(machines::Delete),
    /// Sets the address plan.
    AddressPlanSet(ipam::SetPlan),
    /// Has no address plan.
    AddressPlanClear(Expect),
    /// Has a boot template.
    BootTemplateSet(netboot::Set),
    /// Deletes a boot template.
    BootTemplateDelete(netboot::Delete),
    /// Registers instances of services.
    ServiceRegister(catalog::Register),
    /// Says that an instance of a service lives.
    ServiceRenew(catalog::Id),
    /// Deregisters an instance of a service.
    ServiceDeregister(catalog::Id),
    /// Commits an object transaction.
    ObjectsCommit(objects::Commit),
    /// Declares an app.
    AppSet(apps::Set),
    /// Lets an app go.
    AppDelete(apps::AppName),
    /// Lets an app run.
    AppStart(apps::AppName),
    /// Lets no instance of an app run.
    AppStop(apps::AppName),
    /// Deploys an app.
    AppDeploy(AppDeploy),
    /// Brings an earlier release of an app back.
    AppRollback(AppRollback),
}

/// A precondition alone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Expect {
    /// Only if it was last modified at this revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expect_revision: Option<u64>,
}

/// Deploys an app.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AppDeploy {
    /// Which.
    pub app: String,
    /// The branch, tag or commit; the app's own where it is missing.
    #[serde(default, rename = "ref", skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
}

/// Brings an earlier release of an app back.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AppRollback {
    /// Which.
    pub app: String,
    /// The release; where it is missing, the last one that served before the present one was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<u64>,
}

impl From<AppDeploy> for instances::Command {
    fn from(deploy: AppDeploy) -> Self {
        instances::Command::Deploy {
            app: app_area::Name(deploy.app),
            reference: deploy.reference,
        }
    }
}

impl From<AppRollback> for instances::Command {
    fn from(rollback: AppRollback) -> Self {
        instances::Command::Rollback {
            app: app_area::Name(rollback.app),
            release: rollback.release.map(releases::Number),
        }
    }
}

impl TryFrom<Command> for log::Command {
    type Error = Invalid;
    fn try_from(command: Command) -> Result<Self, Invalid> {
        Ok(match command {
            Command::KvPut(put) => log::Command::Kv(put.try_into()?),
            Command::KvDelete(delete) => log::Command::Kv(delete.try_into()?),
            Command::KvTxn(txn) => log::Command::Kv(txn.try_into()?),
            Command::MachineRegister(register) => log::Command::Registry(register.try_into()?),
            Command::MachineDeclare(declare) => log::Command::Registry(declare.try_into()?),
            Command::MachineSetLabels(labels) => log::Command::Registry(labels.into()),
            Command::MachineSetState(state) => log::Command::Registry(state.try_into()?),
            Command::MachineRetire(retire) => log::Command::Registry(retire.into()),
            Command::MachineDelete(delete) => log::Command::Registry(delete.into()),
            Command::AddressPlanSet(set) => log::Command::Ipam(set.try_into()?),
            Command::AddressPlanClear(Expect { expect_revision }) => {
                let expect = expect_revision.map(Revision);
                log::Command::Ipam(machine_areas::ipam::Command::ClearPlan { expect })
            }
            Command::BootTemplateSet(set) => log::Command::Netboot(set.try_into()?),
            Command::BootTemplateDelete(delete) => log::Command::Netboot(delete.into()),
            Command::ServiceRegister(register) => log::Command::Catalog(register.into()),
            Command::ServiceRenew(id) => {
                if id.expect_revision.is_some() {
                    return Err(Invalid::new("expect_revision", "a renewal is not conditional"));
                }
                log::Command::Catalog(catalog_area::Command::Renew { id: id.into() })
            }
            Command::ServiceDeregister(id) => {
                let expect = id.expect_revision.map(Revision);
                log::Command::Catalog(catalog_area::Command::Deregister {
                    id: id.into(),
                    expect,
                })
            }
            Command::ObjectsCommit(commit) => log::Command::Objects(commit.try_into()?),
            Command::AppSet(set) => log::Command::Apps(set.into()),
            Command::AppDelete(app) => {
                let (name, expect) = app.parts();
                log::Command::Apps(app_area::Command::Delete { name, expect })
            }
            Command::AppStart(app) => {
                let (name, expect) = app.parts();
                log::Command::Apps(app_area::Command::Start { name, expect })
            }
            Command::AppStop(app) => {
                let (name, expect) = app.parts();
                log::Command::Apps(app_area::Command::Stop { name, expect })
            }
            Command::AppDeploy(deploy) => log::Command::Instances(deploy.into()),
            Command::AppRollback(rollback) => log::Command::Instances(rollback.into()),
        })
    }
}

impl TryFrom<Batch> for log::Command {
    type Error = Invalid;
    fn try_from(batch: Batch) -> Result<Self, Invalid> {
        let commands = batch.commands.into_iter().enumerate().map(|(place, command)| {
            log::Command::try_from(command).map_err(|invalid| Invalid {
                field: format!("commands[{place}].{}", invalid.field),
                ..invalid
            })
        });
        commands.collect::<Result<_, _>>().map(log::Command::Batch)
    }
}

/// What a batch told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Results {
    /// One for each command: what its own route would have answered beside the revision, or null.
    #[schema(value_type = Vec<Object>)]
    pub results: Vec<Value>,
}

/// What a command told, as its own route would answer it.
pub(crate) fn reply(reply: Reply) -> Value {
    match reply {
        Reply::None => Value::Null,
        Reply::Batch(replies) => replies.into_iter().map(self::reply).collect(),
        Reply::System(system::Reply::NodeId(id)) => json!({"node": id.0}),
        Reply::Kv(answer) => kv::reply(answer),
        Reply::Registry(machine_areas::registry::Reply::Registered(placements)) => {
            let placements: Vec<_> = placements.into_iter().map(machines::Placement::from).collect();
            json!({"placements": placements})
        }
        Reply::Objects(log::objects::Reply::Committed { tid }) => json!({"tid": tid.to_string()}),
        Reply::Objects(log::objects::Reply::Allocated { first, count }) => {
            json!({"first": first.to_string(), "count": count})
        }
        Reply::Builds(log::deployments::builds::Reply::Number(number)) => json!({"build": number.0}),
        Reply::Releases(releases::Reply::Number(number)) => json!({"release": number.0}),
        Reply::Instances(instances::Reply::Rollout(number)) => json!(rollouts::Queued { rollout: number.0 }),
    }
}
