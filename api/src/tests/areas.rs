//! Each area, through its routes.

use super::Site;
use serde_json::{Value, json};

const BYTES: (&str, &str) = ("content-type", "application/octet-stream");

#[tokio::test]
async fn keys_and_values_are_bytes_of_any_kind() {
    use http_body_util::BodyExt;
    let site = Site::new();
    site.send("PUT", "/v1/kv/bin/%FF%00", &[BYTES], vec![0xfe, 0])
        .await
        .ok();
    let pair = site.get("/v1/kv/bin/%FF%00").await.ok();
    assert_eq!(
        (&pair["key_base64"], &pair["value_base64"]),
        (&"YmluL/8A".into(), &"/gA=".into())
    );
    let raw = site
        .raw(
            "GET",
            "/v1/kv/bin/%FF%00",
            &[("accept", "application/octet-stream")],
            "",
        )
        .await;
    assert_eq!(raw.headers()["onward-revision"], "1");
    assert_eq!(
        raw.into_body().collect().await.expect("a body").to_bytes(),
        vec![0xfe, 0]
    );
    site.json("PUT", "/v1/kv/txt", &json!({"value": "héllo"}))
        .await
        .ok();
    assert_eq!(site.get("/v1/kv/txt").await.ok()["value"], "héllo");
    // Keys that are called as operations are.
    for key in ["txn", "watch"] {
        site.put(key, "1").await;
        let path = format!("/v1/kv/%{:02x}{}", key.as_bytes()[0], &key[1..]);
        assert_eq!(site.get(&path).await.ok()["key"], key);
    }
    let gone = site.send("DELETE", "/v1/kv/watch", &[], "").await.ok();
    assert_eq!(gone["deleted"], 1);
    let gone = site.send("DELETE", "/v1/kv?prefix=", &[], "").await.ok();
    assert_eq!(gone["deleted"], 3);
}

#[tokio::test]
async fn a_transaction_compares_and_does_one_thing_or_the_other() {
    let site = Site::new();
    let txn = json!({
        "compare": [{"key": "lock", "version": 0}],
        "then": [{"put": {"key": "lock", "value": "me"}}, {"get": {"key": "lock"}}],
        "else": [{"get": {"key": "lock"}}, {"delete": {"key": "lock"}}],
    });
    let first = site.json("POST", "/v1/kv/txn", &txn).await.ok();
    assert_eq!(
        (&first["succeeded"], &first["results"][0]),
        (&true.into(), &"put".into())
    );
    let second = site.json("POST", "/v1/kv/txn", &txn).await.ok();
    assert_eq!(second["succeeded"], false);
    assert_eq!(second["results"][0]["got"]["value"], "me");
    assert_eq!(second["results"][1], json!({"deleted": 1}));
    let compare = |relation: &str| {
        let compare = json!([{"key": "n", "is": relation, "value": "5"}]);
        json!({"compare": compare, "then": [], "else": []})
    };
    site.put("n", "7").await;
    for (relation, holds) in [
        ("greater", true),
        ("less", false),
        ("not_equal", true),
        ("equal", false),
    ] {
        let done = site.json("POST", "/v1/kv/txn", &compare(relation)).await.ok();
        assert_eq!(done["succeeded"], holds, "{relation}");
    }
}

fn plan() -> Value {
    json!({
        "index_offset": 3, "machines_per_rack_max": 28, "addresses_per_machine": 1,
        "machines": {"cidr": "10.69.0.0/20", "range_bits": 6, "mask_bits": 26, "gateway_offset": 1},
        "bmcs": {"cidr": "10.72.16.0/20", "range_bits": 5, "mask_bits": 20, "gateway_offset": 1},
    })
}

#[tokio::test]
async fn machines_are_registered_chosen_and_led_through_their_life() {
    let site = Site::new();
    site.json_with("PUT", "/v1/address-plan", &[("if-match", "0")], &plan())
        .await
        .ok();
    assert_eq!(
        site.get("/v1/address-plan").await.ok()["plan"]["machines"]["cidr"],
        "10.69.0.0/20"
    );
    let machine = |serial: &str, rack: u32, mac: &str| {
        json!({"serial": serial, "rack": rack, "role": "worker", "labels": {"zone": format!("z{rack}")}, "macs": [mac],
            "bmc": {"kind": "redfish"}})
    };
    let register =
        json!({"machines": [machine("S1", 0, "52-54-00-00-00-01"), machine("S/2", 1, "52:54:00:00:00:02")]});
    let placed = site.json("POST", "/v1/machines", &register).await.ok();
    assert_eq!(placed["placements"][0]["addresses"][0]["ip"], "10.69.0.4");
    site.json("POST", "/v1/machines", &register)
        .await
        .problem(409, "machine_serial_taken", &["`S1`"]);

    let serials = async |query: &str| -> Vec<String> {
        let list = site.get(&format!("/v1/machines?{query}")).await.ok();
        let items = list["items"].as_array().expect("items").clone();
        items
            .iter()
            .map(|item| item["serial"].as_str().expect("a serial").to_owned())
            .collect()
    };
    assert_eq!(serials("").await, ["S/2", "S1"]);
    assert_eq!(serials("selector=zone+in+(z1,z9)").await, ["S/2"]);
    assert_eq!(serials("selector=role=worker&fields=rack!=1").await, ["S1"]);
    assert_eq!(serials("mac=52:54:00:00:00:02").await, ["S/2"]);
    assert_eq!(serials("address=10.69.0.4").await, ["S1"]);
    assert_eq!(serials("address=10.69.0.4&selector=zone=z1").await, [""; 0]);

    let found = site.get("/v1/machines/S%2F2").await.ok();
    assert_eq!(
        (&found["macs"][0], &found["bmc"]["planned"]),
        (&"52:54:00:00:00:02".into(), &true.into())
    );
    assert_eq!(
        (&found["state"], &found["registered_at"]),
        (&"uninitialized".into(), &"1970-01-01T00:00:00Z".into())
    );

    let set = async |body: Value| site.json("POST", "/v1/machines/S1/state", &body).await;
    set(json!({"state": "healthy", "reason": "up"})).await.ok();
    set(json!({"state": "retired"}))
        .await
        .problem(409, "machine_transition", &["healthy", "retired"]);
    set(json!({"state": "tired"}))
        .await
        .problem(400, "field_invalid", &["`state`", "tired"]);
    site.json(
        "POST",
        "/v1/machines/S1/labels",
        &json!({"set": {"disk": "ssd"}, "remove": ["zone"]}),
    )
    .await
    .ok();
    let found = site.get("/v1/machines/S1").await.ok();
    assert_eq!(
        (&found["labels"], &found["status"]["reason"]),
        (&json!({"disk": "ssd"}), &"up".into())
    );

    site.send("DELETE", "/v1/machines/S1", &[], "")
        .await
        .problem(409, "machine_not_retired", &["`S1`"]);
    site.send("POST", "/v1/machines/S1/retire", &[], "").await.ok();
    set(json!({"state": "retired"})).await.ok();
    site.send("DELETE", "/v1/machines/S1", &[("if-match", "1")], "")
        .await
        .problem(412, "machine_revision_mismatch", &[]);
    site.send("DELETE", "/v1/machines/S1", &[], "").await.ok();
    site.get("/v1/machines/S1")
        .await
        .problem(404, "not_found", &["`S1`"]);

    let other = machine("S9", 2, "52:54:00:00:00:09");
    site.json("PUT", "/v1/machines/S3", &other)
        .await
        .problem(400, "field_invalid", &["`S9`", "`S3`"]);
    site.json("PUT", "/v1/machines/S9", &other).await.ok();
    let mut bad = other.clone();
    bad["macs"] = json!(["52:54"]);
    site.json("PUT", "/v1/machines/S9", &bad)
        .await
        .problem(400, "field_invalid", &["`macs`", "52:54"]);
    site.json("PUT", "/v1/address-plan", &json!({"index_offset": 1}))
        .await
        .problem(400, "body_invalid", &["missing field"]);
    let mut wrong = plan();
    wrong["machines"]["cidr"] = json!("10.69.0.0");
    site.json("PUT", "/v1/address-plan", &wrong).await.problem(
        400,
        "field_invalid",
        &["`machines.cidr`", "10.69.0.0"],
    );
}

#[tokio::test]
async fn boot_templates_are_kept_with_their_bodies() {
    let site = Site::new();
    let template = json!({"name": "worker", "makes": "ipxe", "selector": "role=worker", "body": "#!ipxe\n"});
    site.json("PUT", "/v1/boot-templates/worker", &template)
        .await
        .ok();
    let found = site.get("/v1/boot-templates/worker").await.ok();
    assert_eq!(
        (&found["body"], &found["generation"]),
        (&"#!ipxe\n".into(), &1.into())
    );
    let list = site.get("/v1/boot-templates").await.ok();
    assert_eq!(
        (&list["items"][0]["body"], &list["items"][0]["body_bytes"]),
        (&json!(null), &7.into())
    );
    let mut bad = template.clone();
    bad["makes"] = json!("toast");
    site.json("PUT", "/v1/boot-templates/worker", &bad).await.problem(
        400,
        "field_invalid",
        &["`makes`", "toast"],
    );
    bad["makes"] = json!("ipxe");
    bad["selector"] = json!("=");
    site.json("PUT", "/v1/boot-templates/worker", &bad)
        .await
        .problem(400, "field_invalid", &["`selector`"]);
    site.send("DELETE", "/v1/boot-templates/none", &[], "")
        .await
        .problem(404, "boot_template_not_found", &["`none`"]);
    site.send("DELETE", "/v1/boot-templates/worker", &[], "")
        .await
        .ok();
}

#[tokio::test]
async fn service_instances_live_and_die() {
    let site = Site::new();
    let path = "/v1/services/web/instances/web-1";
    let spec = json!({"address": "10.0.0.7", "port": 80, "tags": ["blue"], "ttl_ms": 30_000});
    site.json("PUT", path, &spec).await.ok();
    let found = site.get(path).await.ok();
    assert_eq!(
        (&found["health"], &found["serving"], &found["spec"]["port"]),
        (&"passing".into(), &true.into(), &80.into())
    );
    assert_eq!(found["deadline"], "1970-01-01T00:00:30Z");
    site.json("POST", &format!("{path}/health"), &json!({"health": "critical"}))
        .await
        .ok();
    site.send("POST", &format!("{path}/renew"), &[], "").await.ok();
    site.json("POST", &format!("{path}/maintenance"), &json!({"on": true}))
        .await
        .ok();
    let list = async |query: &str| {
        site.get(&format!("/v1/services/web/instances?{query}"))
            .await
            .ok()["items"]
            .clone()
    };
    assert_eq!(list("serving=true").await, json!([]));
    assert_eq!(list("tag=blue").await.as_array().map(Vec::len), Some(1));
    assert_eq!(list("tag=blue&tag=green").await, json!([]));
    assert_eq!(site.get("/v1/services").await.ok()["items"][0]["instances"], 1);
    assert_eq!(site.get("/v1/services/web").await.ok()["serving"], 0);
    site.get("/v1/services/none/instances")
        .await
        .problem(404, "not_found", &["`none`"]);
    site.json("PUT", "/v1/services/Web_/instances/a", &spec)
        .await
        .problem(400, "catalog_name", &["Web_"]);
    let bad = json!({"address": "nowhere", "port": 80});
    site.json("PUT", path, &bad)
        .await
        .problem(400, "body_invalid", &["IP address"]);
    let bad = json!({"address": "10.0.0.7", "port": 70_000});
    site.json("PUT", path, &bad)
        .await
        .problem(400, "body_invalid", &["70000"]);
    site.send("DELETE", path, &[("if-match", "1")], "").await.problem(
        412,
        "catalog_revision_mismatch",
        &["web/web-1"],
    );
    site.send("DELETE", path, &[], "").await.ok();
    site.get(path).await.problem(404, "not_found", &["web/web-1"]);
}

#[tokio::test]
async fn object_transactions_commit_conflict_and_are_remembered() {
    use http_body_util::BodyExt;
    let site = Site::new();
    let given = site
        .json("POST", "/v1/objects/oids", &json!({"count": 2}))
        .await
        .ok();
    assert_eq!(
        (&given["first"], &given["count"]),
        (&"0000000000000001".into(), &2.into())
    );
    let commit = async |body: Value| site.json("POST", "/v1/objects/transactions", &body).await;
    let first =
        commit(json!({"user": "hanako", "description": "one", "writes": [{"oid": "1", "text": "a"}]}))
            .await
            .ok();
    let first = first["tid"].as_str().expect("a tid").to_owned();
    let lost = commit(json!({"writes": [{"oid": "1", "text": "b"}]})).await;
    lost.problem(409, "objects_conflict", &["0000000000000001", &first]);
    let second = commit(json!({"writes": [{"oid": "1", "read": first, "bytes_base64": "Yg=="}]}))
        .await
        .ok();
    let second = second["tid"].as_str().expect("a tid").to_owned();

    let now = site.get("/v1/objects/1").await.ok();
    assert_eq!(
        (&now["bytes_base64"], &now["serial"]),
        (&"Yg==".into(), &second.as_str().into())
    );
    let then = site.get(&format!("/v1/objects/1?tid={first}")).await.ok();
    assert_eq!(
        (&then["bytes_base64"], &then["next"]),
        (&"YQ==".into(), &second.as_str().into())
    );
    assert_eq!(
        site.get(&format!("/v1/objects/1?before={second}")).await.ok()["serial"],
        first
    );
    assert_eq!(
        site.get(&format!("/v1/objects/1?serial={first}")).await.ok()["bytes_base64"],
        "YQ=="
    );
    let raw = site
        .raw(
            "GET",
            "/v1/objects/1",
            &[("accept", "application/octet-stream")],
            "",
        )
        .await;
    assert_eq!(raw.headers()["onward-serial"], second.as_str());
    assert_eq!(raw.into_body().collect().await.expect("a body").to_bytes(), "b");

    let history = site.get("/v1/objects/1/history?limit=1").await.ok();
    assert_eq!(history["items"][0]["transaction"]["tid"], second);
    let next = history["next"].as_str().expect("there is more");
    let older = site
        .get(&format!("/v1/objects/1/history?cursor={next}"))
        .await
        .ok();
    assert_eq!(older["items"][0]["transaction"]["user"], "hanako");
    assert_eq!(
        site.get("/v1/objects/transactions").await.ok()["items"][0]["tid"],
        second
    );
    assert_eq!(
        site.get("/v1/objects/transactions?ascending").await.ok()["items"][0]["tid"],
        first
    );
    let detail = site.get(&format!("/v1/objects/transactions/{first}")).await.ok();
    assert_eq!(detail["objects"][0]["size"], 1);
    assert_eq!(site.get("/v1/objects").await.ok()["items"][0]["serial"], second);

    commit(json!({"writes": [{"oid": "1", "read": second, "delete": true}]}))
        .await
        .ok();
    site.get("/v1/objects/1")
        .await
        .problem(404, "not_found", &["deleted"]);
    assert_eq!(site.get("/v1/objects/head").await.ok()["objects"], 0);
    site.get("/v1/objects/9")
        .await
        .problem(404, "not_found", &["never was"]);
    site.get("/v1/objects/xyz")
        .await
        .problem(400, "path_invalid", &["xyz", "hexadecimal"]);
    commit(json!({"writes": []}))
        .await
        .problem(400, "objects_empty", &[]);
    commit(json!({"writes": [{"oid": "2"}]})).await.problem(
        400,
        "field_invalid",
        &["exactly one", "`delete`"],
    );
    commit(json!({"writes": [{"oid": "g", "text": ""}]}))
        .await
        .problem(400, "field_invalid", &["`oid`", "hexadecimal"]);
}

fn spec() -> Value {
    json!({
        "source": {"repository": "/srv/git/hello.git", "ref": "main"}, "run": "exec ./serve",
        "routes": [{"host": "b.example.org"}, {"host": "a.example.org", "path": "/x"}],
        "health": {"http_path": "/healthz"},
    })
}

#[tokio::test]
async fn apps_are_declared_and_rolled_out() {
    let site = Site::new();
    site.json("PUT", "/v1/apps/hello", &spec()).await.ok();
    let app = site.get("/v1/apps/hello").await.ok();
    assert_eq!(
        (&app["running"], &app["spec"]["drain_ms"]),
        (&true.into(), &30_000.into())
    );
    assert_eq!(
        app["spec"]["routes"][0],
        json!({"host": "a.example.org", "path": "/x"})
    );
    assert_eq!(app["spec"]["health"]["http_path"], "/healthz");

    let queued = site
        .json("POST", "/v1/apps/hello/deploy", &json!({"ref": "v1"}))
        .await
        .ok();
    assert_eq!(queued["rollout"], 1);
    let queued = site.send("POST", "/v1/apps/hello/deploy", &[], "").await.ok();
    assert_eq!(queued["rollout"], 2);
    let rollouts = site.get("/v1/apps/hello/rollouts?limit=1").await.ok();
    assert_eq!(
        rollouts["items"][0]["what"],
        json!({"kind": "deploy", "ref": "main"})
    );
    let next = rollouts["next"].as_str().expect("there is more");
    let older = site
        .get(&format!("/v1/apps/hello/rollouts?cursor={next}"))
        .await
        .ok();
    assert_eq!(
        (&older["items"][0]["step"], &older["items"][0]["ended"]),
        (&"superseded".into(), &true.into())
    );
    assert_eq!(site.get("/v1/apps/hello/rollouts/2").await.ok()["step"], "queued");
    assert_eq!(
        site.get("/v1/apps").await.ok()["items"][0]["serving"]["rollout"],
        2
    );

    site.send("POST", "/v1/apps/hello/rollback", &[], "")
        .await
        .problem(409, "rollout_no_earlier_release", &["`hello`"]);
    site.json("POST", "/v1/apps/hello/rollback", &json!({"release": 7}))
        .await
        .problem(404, "rollout_release_not_found", &["release 7"]);
    site.send("POST", "/v1/apps/hello/restart", &[], "")
        .await
        .problem(409, "rollout_busy", &["rollout 2"]);
    for list in ["builds", "releases", "failures", "instances"] {
        assert_eq!(
            site.get(&format!("/v1/apps/hello/{list}")).await.ok()["items"],
            json!([]),
            "{list}"
        );
        site.get(&format!("/v1/apps/none/{list}"))
            .await
            .problem(404, "not_found", &["`none`"]);
    }
    assert_eq!(site.get("/v1/instances").await.ok()["items"], json!([]));
    site.get("/v1/apps/hello/releases/1")
        .await
        .problem(404, "not_found", &["release 1"]);
    site.get("/v1/apps/hello/builds/x")
        .await
        .problem(400, "path_invalid", &["`x`"]);
    site.send("POST", "/v1/apps/none/deploy", &[], "").await.problem(
        404,
        "rollout_app_not_found",
        &["`none`"],
    );
    site.json("POST", "/v1/apps/hello/deploy", &json!({"rev": "v1"}))
        .await
        .problem(400, "body_invalid", &["`rev`", "`ref`"]);

    let mut bad = spec();
    bad["source"]["repository"] = json!("http://x:secret@host/x.git");
    let problem = site
        .json("PUT", "/v1/apps/hello", &bad)
        .await
        .problem(400, "app_repository", &[]);
    assert!(!problem["detail"].to_string().contains("secret"));
    site.json("PUT", "/v1/apps/Hello", &spec())
        .await
        .problem(400, "app_name", &["Hello"]);
    site.send("POST", "/v1/apps/hello/stop", &[], "").await.ok();
    assert_eq!(site.get("/v1/apps/hello").await.ok()["running"], false);
    site.send("POST", "/v1/apps/hello/start", &[], "").await.ok();
    site.send("DELETE", "/v1/apps/hello", &[], "").await.ok();
    assert_eq!(site.get("/v1/apps/hello").await.ok()["deleting"], true);
}
