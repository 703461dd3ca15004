//! The table of routes, the document made of it, and what is served beside the areas.

use super::Site;
use crate::http::routes;
use serde_json::{Value, json};
use std::collections::BTreeSet;

#[test]
fn the_document_covers_every_route() {
    let table = routes();
    let document = table.openapi();
    let paths = document["paths"].as_object().expect("paths");
    let mut documented = BTreeSet::new();
    let mut ids = BTreeSet::new();
    for (path, methods) in paths {
        for (method, operation) in methods.as_object().expect("methods") {
            documented.insert((method.clone(), path.clone()));
            let id = operation["operationId"].as_str().expect("an id");
            assert!(ids.insert(id.to_owned()), "{id} is there twice");
            assert!(
                !operation["responses"]["200"]["content"].is_null(),
                "{id} answers nothing"
            );
        }
    }
    let served: BTreeSet<_> = table
        .list()
        .iter()
        .map(|(method, path)| ((*method).to_owned(), path.replace("{*", "{")))
        .collect();
    assert_eq!(served, documented);
    assert_eq!(table.list().len(), documented.len());
}

#[test]
fn every_reference_of_the_document_leads_somewhere() {
    fn walk(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(map) => {
                if let Some(Value::String(target)) = map.get("$ref") {
                    found.insert(target.clone());
                }
                map.values().for_each(|inner| walk(inner, found));
            }
            Value::Array(list) => list.iter().for_each(|inner| walk(inner, found)),
            _ => {}
        }
    }
    let document = routes().openapi();
    let mut found = BTreeSet::new();
    walk(&document, &mut found);
    assert!(found.len() > 40);
    for target in found {
        let name = target.strip_prefix("#/components/schemas/").expect("a schema");
        assert!(
            !document["components"]["schemas"][name].is_null(),
            "{name} is missing"
        );
    }
}

/// A change of the members is no command: nothing of it comes into the journal.
#[test]
fn the_document_says_where_it_is_found_who_demanded_something() {
    let document = routes().openapi();
    let actor = |path: &str, method: &str| {
        let headers = document["paths"][path][method]["parameters"]
            .as_array()
            .expect("headers");
        let actor = headers.iter().find(|header| header["name"] == "Onward-Actor");
        actor.expect("it is taken")["description"]
            .as_str()
            .expect("text")
            .to_owned()
    };
    assert!(actor("/v1/kv/{key}", "put").contains("for the journal"));
    for (path, method) in [
        ("/v1/cluster/members", "post"),
        ("/v1/cluster/members/{node}", "delete"),
        ("/v1/cluster/members/{node}/replace", "post"),
        ("/v1/cluster/transfer", "post"),
    ] {
        let said = actor(path, method);
        assert!(
            said.contains("for the log of the node that is asked"),
            "{path}: {said}"
        );
    }
}

/// Two types of one name would overwrite each other in the document.
#[test]
fn schemas_have_names_of_their_own() {
    let table = routes();
    let mut seen = std::collections::BTreeMap::new();
    for (name, schema) in table.schemas() {
        let schema = serde_json::to_value(schema).expect("a schema is JSON");
        if let Some(before) = seen.insert(name.clone(), schema.clone()) {
            assert_eq!(before, schema, "two types are called {name}");
        }
    }
}

#[tokio::test]
async fn every_route_is_served() {
    let site = Site::new();
    for (method, path) in routes().list() {
        let path = path.replace("{*key}", "some/key").replace(['{', '}'], "");
        let answered = site.raw(&method.to_uppercase(), &path, &[], "").await;
        let status = answered.status().as_u16();
        assert!(!matches!(status, 405 | 500..), "{method} {path}: {status}");
        assert_ne!(answered.headers().get("content-type"), None, "{method} {path}");
    }
}

#[tokio::test]
async fn health_readiness_cluster_errors_and_document_are_served() {
    let site = Site::new();
    site.put("a", "1").await;
    assert_eq!(site.get("/healthz").await.ok()["status"], "alive");
    assert_eq!(site.get("/readyz").await.ok()["leader"], 1);
    let cluster = site.get("/v1/cluster").await.ok();
    assert_eq!(
        (&cluster["leader"], &cluster["role"], &cluster["applied"]),
        (&1.into(), &"leader".into(), &1.into())
    );
    assert_eq!(cluster["members"][0]["lag"], 0);
    let codes = site.get("/v1/errors").await.ok();
    let codes: Vec<_> = codes["codes"]
        .as_array()
        .expect("codes")
        .iter()
        .map(|code| &code["code"])
        .collect();
    assert!(codes.contains(&&Value::from("kv_revision_mismatch")));
    assert_eq!(site.get("/v1/openapi.json").await.ok()["openapi"], "3.1.0");

    site.node
        .fail_barriers(Some(onward_statemachine::ports::ReadError::NoLeader));
    site.get("/readyz")
        .await
        .problem(503, "not_ready", &["no leader"]);
    assert_eq!(site.get("/healthz").await.ok()["status"], "alive");
}

#[tokio::test]
async fn the_hash_is_that_of_the_whole_state() {
    let (site, twin) = (Site::new(), Site::new());
    let hash = async |site: &Site| {
        let answer = site.get("/v1/cluster/hash").await.ok();
        let hash = answer["hash"].as_str().expect("a hash").to_owned();
        assert!(
            u64::from_str_radix(&hash, 16).is_ok() && hash.len() == 16,
            "{hash}"
        );
        (answer["revision"].as_u64().expect("a revision"), hash)
    };
    let empty = hash(&site).await;
    assert_eq!(empty, hash(&twin).await);
    site.put("a", "1").await;
    let (revision, first) = hash(&site).await;
    assert_eq!(revision, 1);
    assert_ne!(first, empty.1);
    site.put("a", "2").await;
    let (revision, second) = hash(&site).await;
    assert_eq!(revision, 2);
    assert_ne!(second, first);
    assert_eq!((revision, second), hash(&site).await, "reading changes nothing");
}

#[tokio::test]
async fn metrics_show_the_engine_and_the_routes() {
    use http_body_util::BodyExt;
    let site = Site::new();
    site.put("a", "1").await;
    site.get("/v1/kv/missing")
        .await
        .problem(404, "not_found", &["missing"]);
    site.get("/nowhere")
        .await
        .problem(404, "route_not_found", &["/nowhere"]);
    let response = site.raw("GET", "/metrics", &[], "").await;
    let text = response.into_body().collect().await.expect("a body").to_bytes();
    let text = String::from_utf8(text.to_vec()).expect("text");
    for line in [
        "onward_applied_revision 1",
        "onward_http_unrouted_requests_total 1",
        "onward_http_requests_total{method=\"put\",route=\"/v1/kv/{*key}\",status=\"2xx\"} 1",
        "onward_http_requests_total{method=\"get\",route=\"/v1/kv/{*key}\",status=\"4xx\"} 1",
        "onward_http_request_duration_seconds_count{method=\"put\",route=\"/v1/kv/{*key}\"} 1",
        "# TYPE onward_http_request_duration_seconds histogram",
    ] {
        assert!(text.lines().any(|found| found == line), "no `{line}` in\n{text}");
    }
}

#[tokio::test]
async fn members_are_added_removed_and_followed_by_a_leader() {
    let site = Site::new();
    let at = |peer_address: &str| json!({"peer_address": peer_address});
    let added = site
        .json("POST", "/v1/cluster/members", &at("10.0.0.4:7401"))
        .await
        .ok();
    assert_eq!(
        (&added["node"], &added["join"]),
        (&2.into(), &"127.0.0.1:7401".into())
    );
    assert_eq!(
        added["command"],
        "onward serve --cluster test --data-dir DIR --peer-listen 10.0.0.4:7401 --http-listen 10.0.0.4:7400 --join \
         127.0.0.1:7401"
    );
    let replaced = site
        .json("POST", "/v1/cluster/members/1/replace", &at("[fd00::4]:7401"))
        .await
        .ok();
    assert_eq!(replaced["replaces"], 1);
    assert!(
        replaced["command"]
            .as_str()
            .expect("text")
            .ends_with("--replaces 1")
    );
    for (wrong, word) in [
        ("10.0.0.4", "no port"),
        ("10.0.0.4:0", "between 1 and 65535"),
        (":7401", "no host"),
        ("a b:7401", "no host"),
        ("0.0.0.0:7401", "stands for all"),
        ("[::]:7401", "stands for all"),
        ("[::g]:7401", "no IPv6"),
    ] {
        let answered = site.json("POST", "/v1/cluster/members", &at(wrong)).await;
        answered.problem(400, "field_invalid", &["peer_address", wrong, word, "HOST:PORT"]);
    }
    let missing = site.json("POST", "/v1/cluster/members", &json!({})).await;
    missing.problem(400, "body_invalid", &["peer_address"]);

    let delete = async |node: &str| {
        let path = format!("/v1/cluster/members/{node}");
        site.send("DELETE", &path, &[], "").await
    };
    delete("1")
        .await
        .problem(409, "member_last_voter", &["node 1", "add another"]);
    delete("7")
        .await
        .problem(404, "member_not_found", &["node 7", "the members are 1"]);
    delete("x").await.problem(400, "path_invalid", &["`x`", "from 1"]);

    let transfer = async |body: &Value| site.json("POST", "/v1/cluster/transfer", body).await;
    assert_eq!(transfer(&json!({"to": 1})).await.ok()["leader"], 1);
    let alone = transfer(&json!({})).await;
    alone.problem(409, "member_no_heir", &["node 1", "no other voter"]);
    transfer(&json!({"too": 1}))
        .await
        .problem(400, "body_invalid", &["too"]);
}
