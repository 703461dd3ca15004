//! Every route as a method. `expect` is what `If-Match` carries: the revision at which the object was last modified, 0
//! for "does not exist".

use super::path::{key, segment};
use super::send::Call;
use super::{Client, Consistency, Error, JournalRange, Paging, Stream};
use crate::wire::manifest::{Exported, Manifest, Plan};
use crate::wire::{
    Batch, Entry, JournalPage, Nothing, Page, Results, Stamped, apps, backup, catalog, cluster, history,
    ipam, kv, machines, members, netboot, objects, rollouts,
};
use http::Method;
use serde_json::json;

type Answer<T> = Result<Stamped<T>, Error>;
type Done = Answer<Nothing>;
type List<T> = Answer<Page<T>>;

fn machine_path(serial: &str, rest: &str) -> Result<String, Error> {
    Ok(format!("/v1/machines/{}{rest}", segment("a serial", serial)?))
}

fn template_path(name: &str) -> Result<String, Error> {
    Ok(format!(
        "/v1/boot-templates/{}",
        segment("the name of a boot template", name)?
    ))
}

fn instance_path(service: &str, instance: &str, rest: &str) -> Result<String, Error> {
    let instance = segment("the name of an instance", instance)?;
    Ok(format!(
        "/v1/services/{}/instances/{instance}{rest}",
        segment("the name of a service", service)?
    ))
}

fn app_path(app: &str, rest: &str) -> Result<String, Error> {
    Ok(format!("/v1/apps/{}{rest}", segment("the name of an app", app)?))
}

/// The cluster as a whole.
impl Client {
    /// What the server that answers sees of the cluster.
    pub async fn cluster(&self) -> Answer<cluster::Status> {
        self.call(Call::get("/v1/cluster")).await
    }

    /// The hash of the whole state of the server that is asked.
    pub async fn cluster_hash(&self) -> Answer<cluster::StateHash> {
        self.call(Call::get("/v1/cluster/hash").long()).await
    }

    /// Lets a node in that will run at an address.
    pub async fn cluster_add(&self, peer_address: &str) -> Answer<members::AdmittedMember> {
        let peer_address = peer_address.to_owned();
        let call = Call::write(Method::POST, "/v1/cluster/members");
        self.call(call.json(&members::NewMember { peer_address })).await
    }

    /// Lets a node in that takes the place of a member.
    pub async fn cluster_replace(&self, gone: u64, peer_address: &str) -> Answer<members::AdmittedMember> {
        let peer_address = peer_address.to_owned();
        let call = Call::write(Method::POST, format!("/v1/cluster/members/{gone}/replace"));
        self.call(call.json(&members::NewMember { peer_address })).await
    }

    /// Lets go of a member.
    pub async fn cluster_remove(&self, node: u64) -> Done {
        self.call(Call::write(Method::DELETE, format!("/v1/cluster/members/{node}")))
            .await
    }

    /// Makes another voter the leader; the best one where it is not said which.
    pub async fn cluster_transfer(&self, to: Option<u64>) -> Answer<members::Leader> {
        let call = Call::write(Method::POST, "/v1/cluster/transfer");
        self.call(call.json(&members::Transfer { to })).await
    }

    /// All of these commands or none, in one revision.
    pub async fn batch(&self, batch: &Batch) -> Answer<Results> {
        self.call(Call::write(Method::POST, "/v1/batch").json(batch))
            .await
    }

    /// A page of the journal.
    pub async fn journal(&self, which: &JournalRange, limit: usize) -> Answer<JournalPage> {
        let mut call = Call::get("/v1/journal")
            .maybe("after", which.after)
            .maybe("before", which.before)
            .query("limit", limit.to_string());
        if which.newest {
            call = call.query("newest", "true");
        }
        for area in &which.areas {
            call = call.query("area", area);
        }
        self.read_present(call).await
    }

    /// How much of the journal is to be kept, and is.
    pub async fn journal_state(&self) -> Answer<history::JournalState> {
        self.read_present(Call::get("/v1/journal/retention")).await
    }

    /// Sets how much of the journal is kept.
    pub async fn journal_set_retention(&self, retention: &history::Retention) -> Done {
        let call = Call::write(Method::PUT, "/v1/journal/retention");
        self.call(call.json(retention)).await
    }

    /// Lets go of events up to the revision `to`.
    pub async fn journal_compact(&self, to: u64) -> Done {
        let call = Call::write(Method::POST, "/v1/journal/compact");
        self.call(call.json(&history::Compact { to })).await
    }

    /// A page of what changed between two revisions, up to the present without `to`.
    pub async fn diff(
        &self,
        from: u64,
        to: Option<u64>,
        areas: &[String],
        page: Paging,
    ) -> Answer<history::Diff> {
        let mut call = Call::get("/v1/diff")
            .query("from", from.to_string())
            .maybe("to", to)
            .page(page);
        for area in areas {
            call = call.query("area", area);
        }
        self.read_present(call).await
    }

    /// A page of the events that made an object what it is, those before `before`; with `all`, also what happened
    /// before it was created.
    pub async fn why(
        &self,
        object: &str,
        before: Option<u64>,
        all: bool,
        limit: usize,
    ) -> Answer<history::Why> {
        let call = Call::get("/v1/why")
            .query("object", object)
            .maybe("before", before)
            .maybe("all", all.then_some(true))
            .query("limit", limit.to_string());
        self.read_present(call).await
    }

    /// Follows the journal after `after`, from now on without it.
    pub async fn events(&self, after: Option<u64>, areas: &[String]) -> Result<Stream<Entry>, Error> {
        let areas = areas.iter().map(|area| ("area", area.clone())).collect();
        Stream::open(self, "/v1/events", areas, after).await
    }

    /// What applying `manifest` would do.
    pub async fn plan(&self, manifest: &Manifest) -> Answer<Plan> {
        self.read(Call::ask("/v1/plan").json(manifest)).await
    }

    /// Makes everything as `manifest` declares it, in one revision or not at all.
    pub async fn apply(&self, manifest: &Manifest) -> Answer<Plan> {
        self.call(Call::write(Method::POST, "/v1/apply").json(manifest))
            .await
    }

    /// Everything of these kinds (of all without any) as a manifest declares it.
    pub async fn export(&self, kinds: &[String]) -> Answer<Exported> {
        let mut call = Call::get("/v1/export");
        for kind in kinds {
            call = call.query("kind", kind);
        }
        self.read(call).await
    }
}

/// Key-value pairs.
impl Client {
    /// Reads a key.
    pub async fn kv_get(&self, of: impl AsRef<[u8]>) -> Answer<kv::Pair> {
        self.read(Call::get(key(of.as_ref())?)).await
    }

    /// Puts a key.
    pub async fn kv_put(&self, at: impl AsRef<[u8]>, value: Vec<u8>, expect: Option<u64>) -> Done {
        let call = Call::write(Method::PUT, key(at.as_ref())?);
        self.call(call.bytes(value).if_match(expect)).await
    }

    /// Deletes a key.
    pub async fn kv_delete(&self, at: impl AsRef<[u8]>, expect: Option<u64>) -> Answer<kv::Deleted> {
        let call = Call::write(Method::DELETE, key(at.as_ref())?);
        self.call(call.if_match(expect)).await
    }

    /// Deletes all keys that begin with `prefix`.
    pub async fn kv_delete_prefix(&self, prefix: &str) -> Answer<kv::Deleted> {
        let call = Call::write(Method::DELETE, "/v1/kv");
        self.call(call.query("prefix", prefix)).await
    }

    /// Lists the pairs whose keys begin with `prefix`.
    pub async fn kv_list(&self, prefix: &str, page: Paging) -> List<kv::Pair> {
        self.read(Call::get("/v1/kv").query("prefix", prefix).page(page))
            .await
    }

    /// Compares, then does one thing or the other, in one revision.
    pub async fn kv_txn(&self, txn: &kv::Txn) -> Answer<kv::TxnResult> {
        self.call(Call::write(Method::POST, "/v1/kv/txn").json(txn)).await
    }

    /// Follows the changes of keys that begin with `prefix` after `after`, from now on without it.
    pub async fn kv_watch(&self, prefix: &str, after: Option<u64>) -> Result<Stream<kv::Change>, Error> {
        Stream::open(self, "/v1/kv/watch", vec![("prefix", prefix.to_owned())], after).await
    }
}

/// Machines, the address plan, boot templates.
impl Client {
    /// Reads a machine.
    pub async fn machine_get(&self, serial: &str) -> Answer<machines::Machine> {
        self.read(Call::get(machine_path(serial, "")?)).await
    }

    /// Lists machines by a selector over labels and fields, and one over fields alone; either may be empty.
    pub async fn machine_list(&self, selector: &str, fields: &str, page: Paging) -> List<machines::Machine> {
        let mut call = Call::get("/v1/machines").page(page);
        if !selector.is_empty() {
            call = call.query("selector", selector);
        }
        if !fields.is_empty() {
            call = call.query("fields", fields);
        }
        self.read(call).await
    }

    /// Registers machines: all of them or none.
    pub async fn machine_register(&self, machines: Vec<machines::Spec>) -> Answer<machines::Placements> {
        let call = Call::write(Method::POST, "/v1/machines");
        self.call(call.json(&machines::Register { machines })).await
    }

    /// Has a machine, and has it so.
    pub async fn machine_declare(&self, machine: &machines::Spec, expect: Option<u64>) -> Done {
        let call = Call::write(Method::PUT, machine_path(&machine.serial, "")?);
        self.call(call.json(machine).if_match(expect)).await
    }

    /// Sets and removes labels of a machine.
    pub async fn machine_set_labels(
        &self,
        serial: &str,
        labels: &machines::Labels,
        expect: Option<u64>,
    ) -> Done {
        let call = Call::write(Method::POST, machine_path(serial, "/labels")?);
        self.call(call.json(labels).if_match(expect)).await
    }

    /// Takes a machine to a state of its life.
    pub async fn machine_set_state(
        &self,
        serial: &str,
        change: &machines::StateChange,
        expect: Option<u64>,
    ) -> Done {
        let call = Call::write(Method::POST, machine_path(serial, "/state")?);
        self.call(call.json(change).if_match(expect)).await
    }

    /// Takes a machine out of service.
    pub async fn machine_retire(&self, serial: &str, reason: &machines::Reason) -> Done {
        let call = Call::write(Method::POST, machine_path(serial, "/retire")?);
        self.call(call.json(reason)).await
    }

    /// Forgets a retired machine.
    pub async fn machine_delete(&self, serial: &str) -> Done {
        self.call(Call::write(Method::DELETE, machine_path(serial, "")?))
            .await
    }

    /// Reads the address plan.
    pub async fn address_plan_get(&self) -> Answer<ipam::StoredPlan> {
        self.read(Call::get("/v1/address-plan")).await
    }

    /// Sets the address plan.
    pub async fn address_plan_set(&self, plan: &ipam::AddressPlan, expect: Option<u64>) -> Done {
        let call = Call::write(Method::PUT, "/v1/address-plan");
        self.call(call.json(plan).if_match(expect)).await
    }

    /// Has no address plan.
    pub async fn address_plan_clear(&self, expect: Option<u64>) -> Done {
        let call = Call::write(Method::DELETE, "/v1/address-plan");
        self.call(call.if_match(expect)).await
    }

    /// Reads a boot template with its body.
    pub async fn boot_template_get(&self, name: &str) -> Answer<netboot::Template> {
        self.read(Call::get(template_path(name)?)).await
    }

    /// Lists boot templates, without their bodies.
    pub async fn boot_template_list(&self, page: Paging) -> List<netboot::Template> {
        self.read(Call::get("/v1/boot-templates").page(page)).await
    }

    /// Has a boot template, new or in place of the one with the name.
    pub async fn boot_template_set(&self, template: &netboot::Spec, expect: Option<u64>) -> Done {
        let call = Call::write(Method::PUT, template_path(&template.name)?);
        self.call(call.json(template).if_match(expect)).await
    }

    /// Deletes a boot template.
    pub async fn boot_template_delete(&self, name: &str, expect: Option<u64>) -> Done {
        let call = Call::write(Method::DELETE, template_path(name)?);
        self.call(call.if_match(expect)).await
    }

    /// What a machine is told when it boots: its document of a kind (`ipxe`, `ignition`, `user-data`, `meta-data` or
    /// `network-config`), as its firmware reads it. Firmware is answered from the replica of the node that it asks; this
    /// is a read like any other, in the freshness of this client and as of its revision.
    pub async fn boot_template_render(&self, serial: &str, kind: &str) -> Result<Vec<u8>, Error> {
        let serial = segment("a serial", serial)?;
        let path = match kind {
            "ipxe" | "ignition" => format!("/boot/v1/{kind}/{serial}"),
            document => format!(
                "/boot/v1/cloud-init/{serial}/{}",
                segment("a kind of boot template", document)?
            ),
        };
        let mut call = self.fresh(Call::get(path)).maybe("at", self.at);
        if self.consistency == Consistency::Linearizable {
            call = call.query("consistency", "linearizable");
        }
        let (_, body) = self.send(call).await?;
        Ok(body)
    }
}

/// Services.
impl Client {
    /// Lists services.
    pub async fn service_list(&self, page: Paging) -> List<catalog::Service> {
        self.read(Call::get("/v1/services").page(page)).await
    }

    /// Lists the instances of a service, or only those that clients are sent to.
    pub async fn service_instances(
        &self,
        service: &str,
        serving: bool,
        page: Paging,
    ) -> List<catalog::Instance> {
        let path = format!(
            "/v1/services/{}/instances",
            segment("the name of a service", service)?
        );
        let call = Call::get(path).page(page);
        self.read(if serving {
            call.query("serving", "true")
        } else {
            call
        })
        .await
    }

    /// Reads an instance of a service.
    pub async fn service_get(&self, service: &str, instance: &str) -> Answer<catalog::Instance> {
        self.read(Call::get(instance_path(service, instance, "")?)).await
    }

    /// Registers an instance of a service, or registers it as something else than before.
    pub async fn service_register(
        &self,
        service: &str,
        instance: &str,
        spec: &catalog::Spec,
        expect: Option<u64>,
    ) -> Done {
        let call = Call::write(Method::PUT, instance_path(service, instance, "")?);
        self.call(call.json(spec).if_match(expect)).await
    }

    /// Registers instances of services: all of them or none.
    pub async fn service_register_all(&self, registrations: Vec<catalog::Registration>) -> Done {
        let call = Call::write(Method::POST, "/v1/services");
        self.call(call.json(&catalog::Register { registrations })).await
    }

    /// Says that an instance lives.
    pub async fn service_renew(&self, service: &str, instance: &str) -> Done {
        self.call(Call::write(
            Method::POST,
            instance_path(service, instance, "/renew")?,
        ))
        .await
    }

    /// Says whether an instance is well.
    pub async fn service_set_health(&self, service: &str, instance: &str, health: catalog::Health) -> Done {
        let call = Call::write(Method::POST, instance_path(service, instance, "/health")?);
        self.call(call.json(&catalog::SetHealth { health })).await
    }

    /// Takes an instance out of service, or puts it back.
    pub async fn service_set_maintenance(&self, service: &str, instance: &str, on: bool) -> Done {
        let call = Call::write(Method::POST, instance_path(service, instance, "/maintenance")?);
        self.call(call.json(&catalog::SetMaintenance { on })).await
    }

    /// Deregisters an instance.
    pub async fn service_deregister(&self, service: &str, instance: &str, expect: Option<u64>) -> Done {
        let call = Call::write(Method::DELETE, instance_path(service, instance, "")?);
        self.call(call.if_match(expect)).await
    }
}

/// Objects.
impl Client {
    /// Where the object database stands.
    pub async fn object_head(&self) -> Answer<objects::Head> {
        self.read(Call::get("/v1/objects/head")).await
    }

    /// Reads an object as it is, or as the snapshot at `tid` sees it.
    pub async fn object_get(&self, oid: &str, tid: Option<&str>) -> Answer<objects::Object> {
        let path = format!("/v1/objects/{}", segment("an object id", oid)?);
        self.read(Call::get(path).maybe("tid", tid)).await
    }

    /// Lists the objects that exist.
    pub async fn object_list(&self, page: Paging) -> List<objects::Entry> {
        self.read(Call::get("/v1/objects").page(page)).await
    }

    /// Lists the revisions of an object, newest first.
    pub async fn object_history(&self, oid: &str, page: Paging) -> List<objects::History> {
        let path = format!("/v1/objects/{}/history", segment("an object id", oid)?);
        self.read(Call::get(path).page(page)).await
    }

    /// Lists transactions, newest first.
    pub async fn object_transactions(&self, page: Paging) -> List<objects::Transaction> {
        self.read(Call::get("/v1/objects/transactions").page(page)).await
    }

    /// Reads a transaction with what it wrote.
    pub async fn object_transaction(&self, tid: &str) -> Answer<objects::TransactionDetail> {
        let path = format!("/v1/objects/transactions/{}", segment("a tid", tid)?);
        self.read(Call::get(path)).await
    }

    /// Commits a transaction.
    pub async fn object_commit(&self, commit: &objects::Commit) -> Answer<objects::Committed> {
        self.call(Call::write(Method::POST, "/v1/objects/transactions").json(commit))
            .await
    }

    /// Asks for oids that nobody has.
    pub async fn object_allocate(&self, count: u32) -> Answer<objects::Allocated> {
        let call = Call::write(Method::POST, "/v1/objects/oids");
        self.call(call.json(&objects::Allocate { count })).await
    }
}

/// Apps and what runs of them.
impl Client {
    /// Lists apps.
    pub async fn app_list(&self, page: Paging) -> List<apps::App> {
        self.read(Call::get("/v1/apps").page(page)).await
    }

    /// Reads an app.
    pub async fn app_get(&self, app: &str) -> Answer<apps::App> {
        self.read(Call::get(app_path(app, "")?)).await
    }

    /// Declares an app, all of it.
    pub async fn app_set(&self, app: &str, spec: &apps::Spec, expect: Option<u64>) -> Done {
        let call = Call::write(Method::PUT, app_path(app, "")?);
        self.call(call.json(spec).if_match(expect)).await
    }

    /// Lets an app go.
    pub async fn app_delete(&self, app: &str, expect: Option<u64>) -> Done {
        let call = Call::write(Method::DELETE, app_path(app, "")?);
        self.call(call.if_match(expect)).await
    }

    /// Lets an app run.
    pub async fn app_start(&self, app: &str, expect: Option<u64>) -> Done {
        let call = Call::write(Method::POST, app_path(app, "/start")?);
        self.call(call.if_match(expect)).await
    }

    /// Where the scheduled backups stand, as the server that is asked knows.
    pub async fn backups(&self) -> Answer<backup::Backups> {
        self.call(Call::get("/v1/cluster/backups")).await
    }

    /// Lets no instance of an app run.
    pub async fn app_stop(&self, app: &str, expect: Option<u64>) -> Done {
        let call = Call::write(Method::POST, app_path(app, "/stop")?);
        self.call(call.if_match(expect)).await
    }

    /// Deploys what a ref means now; the app's own ref without one.
    pub async fn app_deploy(&self, app: &str, reference: Option<&str>) -> Answer<rollouts::Queued> {
        let reference = reference.map(str::to_owned);
        let call = Call::write(Method::POST, app_path(app, "/deploy")?);
        self.call(call.json(&rollouts::Deploy { reference })).await
    }

    /// Brings an earlier release back; the last one that served before without a number.
    pub async fn app_rollback(&self, app: &str, release: Option<u64>) -> Answer<rollouts::Queued> {
        let call = Call::write(Method::POST, app_path(app, "/rollback")?);
        self.call(call.json(&rollouts::Rollback { release })).await
    }

    /// Runs the present release anew.
    pub async fn app_restart(&self, app: &str, reason: &str) -> Answer<rollouts::Queued> {
        let call = Call::write(Method::POST, app_path(app, "/restart")?);
        self.call(call.json(&json!({"reason": reason}))).await
    }

    /// Lists the instances of an app.
    pub async fn app_instances(&self, app: &str, page: Paging) -> List<rollouts::Instance> {
        self.read(Call::get(app_path(app, "/instances")?).page(page))
            .await
    }

    /// Lists the failures of an app, newest first.
    pub async fn app_failures(&self, app: &str, page: Paging) -> List<rollouts::Failure> {
        self.read(Call::get(app_path(app, "/failures")?).page(page)).await
    }

    /// Lists the instances of all apps.
    pub async fn instance_list(&self, page: Paging) -> List<rollouts::Instance> {
        self.read(Call::get("/v1/instances").page(page)).await
    }

    /// Lists the builds of an app, newest first.
    pub async fn build_list(&self, app: &str, page: Paging) -> List<rollouts::Build> {
        self.read(Call::get(app_path(app, "/builds")?).page(page)).await
    }

    /// Reads a build.
    pub async fn build_get(&self, app: &str, build: u64) -> Answer<rollouts::Build> {
        self.read(Call::get(app_path(app, &format!("/builds/{build}"))?))
            .await
    }

    /// Lists the releases of an app, newest first.
    pub async fn release_list(&self, app: &str, page: Paging) -> List<rollouts::Release> {
        self.read(Call::get(app_path(app, "/releases")?).page(page)).await
    }

    /// Reads a release.
    pub async fn release_get(&self, app: &str, release: u64) -> Answer<rollouts::Release> {
        self.read(Call::get(app_path(app, &format!("/releases/{release}"))?))
            .await
    }

    /// Lists the rollouts of an app, newest first.
    pub async fn rollout_list(&self, app: &str, page: Paging) -> List<rollouts::Rollout> {
        self.read(Call::get(app_path(app, "/rollouts")?).page(page)).await
    }

    /// Reads a rollout.
    pub async fn rollout_get(&self, app: &str, rollout: u64) -> Answer<rollouts::Rollout> {
        self.read(Call::get(app_path(app, &format!("/rollouts/{rollout}"))?))
            .await
    }
}
