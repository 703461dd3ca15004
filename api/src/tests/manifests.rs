//! Plan, apply, export.

use super::Site;
use serde_json::{Value, json};

fn site_objects(machines: u32) -> Vec<Value> {
    let mut objects = vec![
        json!({"kind": "kv", "key": "site/name", "value": "demo"}),
        json!({"kind": "kv", "key_base64": "/w==", "value_base64": "/g=="}),
        json!({"kind": "app", "name": "hello", "spec": {
            "source": {"repository": "/srv/git/hello.git", "ref": "main"}, "run": "exec ./serve",
            "routes": [{"host": "hello.example.org"}]}}),
        json!({"kind": "service_instance", "service": "ntp", "instance": "a", "spec": {"address": "10.0.0.1", "port": 123}}),
        json!({"kind": "boot_template", "name": "worker", "makes": "ipxe", "selector": "role == worker", "body": "x"}),
    ];
    objects.extend((0..machines).map(|number| {
        json!({"kind": "machine", "serial": format!("S{number}"), "rack": number / 20, "role": "worker",
            "macs": [format!("52-54-00-00-{:02x}-{:02x}", number / 256, number % 256)], "bmc": {"kind": "redfish"}})
    }));
    objects.push(json!({
        "kind": "address_plan", "index_offset": 3, "machines_per_rack_max": 28, "addresses_per_machine": 1,
        "machines": {"cidr": "10.64.0.0/14", "range_bits": 6, "mask_bits": 26, "gateway_offset": 1},
        "bmcs": {"cidr": "10.72.0.0/16", "range_bits": 5, "mask_bits": 20, "gateway_offset": 1},
    }));
    objects
}

impl Site {
    async fn manifest(&self, path: &str, objects: &[Value]) -> super::Answered {
        self.json("POST", path, &json!({"objects": objects})).await
    }
}

#[tokio::test]
async fn what_is_exported_is_applied_without_a_change() {
    let site = Site::new();
    let objects = site_objects(500);
    let plan = site.manifest("/v1/plan", &objects).await.ok();
    assert_eq!((&plan["create"], &plan["refused"]), (&506.into(), &json!(null)));
    assert_eq!(plan["steps"][0]["kind"], "address_plan");
    let applied = site.manifest("/v1/apply", &objects).await.ok();
    assert_eq!(
        (&applied["create"], &applied["revision"]),
        (&506.into(), &1.into())
    );
    // The addresses follow from the plan of the same manifest.
    let machine = site.get("/v1/machines/S21").await.ok();
    assert_eq!(machine["addresses"].as_array().map(Vec::len), Some(1));

    let exported = site.get("/v1/export").await.ok();
    let again = exported["objects"].as_array().expect("objects");
    assert_eq!(again.len(), 506);
    let plan = site.manifest("/v1/plan", again).await.ok();
    assert_eq!(
        (&plan["unchanged"], &plan["create"], &plan["update"]),
        (&506.into(), &0.into(), &0.into())
    );
    let unchanged = site.manifest("/v1/apply", again).await.ok();
    assert_eq!(unchanged["revision"], 1, "nothing was proposed");

    // The original says the same in other words.
    let plan = site.manifest("/v1/plan", &objects).await.ok();
    assert_eq!(plan["unchanged"], 506, "{plan}");

    // And on another site it makes the same.
    let other = Site::new();
    other.manifest("/v1/apply", again).await.ok();
    assert_eq!(other.get("/v1/export").await.ok(), exported);
}

#[tokio::test]
async fn a_plan_shows_the_fields_that_differ() {
    let site = Site::new();
    site.manifest("/v1/apply", &site_objects(3)).await.ok();
    let mut objects = site_objects(3);
    objects[0]["value"] = json!("other");
    objects[5]["labels"] = json!({"zone": "a"});
    objects[2]["spec"]["routes"] = json!([{"host": "hello.example.net"}]);
    let plan = site.manifest("/v1/plan", &objects).await.ok();
    assert_eq!((&plan["update"], &plan["unchanged"]), (&3.into(), &6.into()));
    let steps = plan["steps"].as_array().expect("steps");
    let fields = |kind: &str, name: &str| {
        let step = steps
            .iter()
            .find(|step| step["kind"] == kind && step["name"] == name)
            .expect("a step");
        step["fields"].clone()
    };
    assert_eq!(
        fields("kv", "site/name"),
        json!([{"field": "value", "from": "demo", "to": "other"}])
    );
    assert_eq!(
        fields("machine", "S0"),
        json!([{"field": "labels", "from": null, "to": {"zone": "a"}}])
    );
    let host =
        json!([{"field": "spec.routes[0].host", "from": "hello.example.org", "to": "hello.example.net"}]);
    assert_eq!(fields("app", "hello"), host);
    site.manifest("/v1/apply", &objects).await.ok();
    assert_eq!(site.get("/v1/machines/S0").await.ok()["labels"]["zone"], "a");
}

#[tokio::test]
async fn what_is_wrong_with_a_manifest_is_named() {
    let site = Site::new();
    let bad = async |object: Value, words: &[&str]| {
        let objects = [json!({"kind": "kv", "key": "a", "value": "1"}), object];
        site.manifest("/v1/apply", &objects)
            .await
            .problem(400, "field_invalid", words);
    };
    bad(
        json!({"kind": "machines"}),
        &["objects[1]", "`machines`", "`machine`"],
    )
    .await;
    bad(json!({"key": "a"}), &["objects[1]", "`kind`"]).await;
    bad(
        json!({"kind": "kv", "key": "b", "vaule": "1"}),
        &["objects[1]", "`vaule`", "`value`"],
    )
    .await;
    bad(
        json!({"kind": "kv", "value": "1"}),
        &["objects[1].key", "missing"],
    )
    .await;
    bad(
        json!({"kind": "kv", "key": "a", "value": "2"}),
        &["objects[1]", "kv `a`", "twice"],
    )
    .await;
    bad(
        json!({"kind": "app", "name": "x", "spec": {"run": "x"}}),
        &["objects[1]", "`source`"],
    )
    .await;
    let machine = json!({"kind": "machine", "serial": "S", "rack": 1, "role": "r", "macs": ["zz"]});
    bad(machine, &["objects[1].macs", "`zz`"]).await;
    assert_eq!(
        site.get("/v1/kv").await.ok()["items"],
        json!([]),
        "nothing half done"
    );
    site.get("/v1/export?kind=keys")
        .await
        .problem(400, "query_invalid", &["`keys`", "kv"]);
}

#[tokio::test]
async fn a_manifest_that_the_log_refuses_changes_nothing_and_its_plan_says_so() {
    let site = Site::new();
    let objects = [
        json!({"kind": "kv", "key": "a", "value": "1"}),
        json!({"kind": "machine", "serial": "S", "rack": 1, "role": "no role"}),
    ];
    let plan = site.manifest("/v1/plan", &objects).await.ok();
    assert_eq!(plan["refused"]["code"], "machine_field");
    site.manifest("/v1/apply", &objects)
        .await
        .problem(400, "machine_field", &["`S`", "role"]);
    site.get("/v1/kv/a").await.problem(404, "not_found", &[]);
}

#[tokio::test]
async fn applying_holds_only_for_the_state_that_was_planned_on() {
    let site = Site::new();
    site.put("a", "1").await;
    let objects = json!([{"kind": "kv", "key": "a", "value": "2"}]);
    let plan = site
        .json("POST", "/v1/plan", &json!({"objects": objects}))
        .await
        .ok();
    let planned = plan["revision"].clone();
    site.put("a", "3").await;
    let late = json!({"objects": objects, "expect_revision": planned});
    site.json("POST", "/v1/apply", &late)
        .await
        .problem(412, "plan_stale", &["revision 2", "after 1"]);
    let again = json!({"objects": objects, "expect_revision": 2});
    site.json("POST", "/v1/apply", &again).await.ok();
    // A retry finds its own work and is not stale.
    site.json("POST", "/v1/apply", &again).await.ok();
    assert_eq!(site.get("/v1/kv/a").await.ok()["version"], 3);
}

#[tokio::test]
async fn exports_choose_kinds_and_keys() {
    let site = Site::new();
    site.manifest("/v1/apply", &site_objects(2)).await.ok();
    let export = async |query: &str| site.get(&format!("/v1/export?{query}")).await.ok()["objects"].clone();
    assert_eq!(
        export("kind=machine&kind=app").await.as_array().map(Vec::len),
        Some(3)
    );
    assert_eq!(
        export("kind=kv&prefix=site/").await,
        json!([{"kind": "kv", "key": "site/name", "value": "demo"}])
    );
}
