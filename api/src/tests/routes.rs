//! The table of routes, the document made of it, and what is served beside the areas.

use super::Site;
use crate::http::routes;
use serde_json::Value;
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
