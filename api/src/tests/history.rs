//! Reads as of earlier revisions, differences, and why an object is as it is.

use super::Site;
use serde_json::{Value, json};

async fn machine(site: &Site, serial: &str, zone: &str) -> u64 {
    let body =
        json!({"machines": [{"serial": serial, "rack": 1, "role": "worker", "labels": {"zone": zone}}]});
    let done = site.json("POST", "/v1/machines", &body).await.ok();
    done["revision"].as_u64().expect("a revision")
}

async fn level_two(site: &Site) {
    use onward_statemachine::ports::{Proposal, Proposer};
    use onward_statemachine::{Actor, Command, system};
    let raise = Command::System(system::Command::RaiseFeatureLevel { level: 2 });
    let proposal = Proposal::new(Actor::new("upgrade@1"), raise);
    site.node.propose(proposal, 1000).await.expect("is raised");
}

#[tokio::test]
async fn every_read_takes_a_revision() {
    let site = Site::new();
    let first = site.put("a", "1").await["revision"].as_u64().expect("a revision");
    let second = machine(&site, "S1", "east").await;
    site.put("a", "2").await;
    let labels = json!({"set": {"zone": "west"}});
    site.json("POST", "/v1/machines/S1/labels", &labels).await.ok();

    let then = site.get(&format!("/v1/kv/a?at={first}")).await;
    assert_eq!(then.headers["onward-revision"], first.to_string());
    let then = then.ok();
    assert_eq!((&then["value"], &then["revision"]), (&json!("1"), &json!(first)));
    let listed = site.get(&format!("/v1/kv?at={first}")).await.ok();
    assert_eq!(listed["items"][0]["value"], "1");
    assert_eq!(site.get("/v1/kv/a").await.ok()["value"], "2");
    let machine = site.get(&format!("/v1/machines/S1?at={second}")).await.ok();
    assert_eq!(machine["labels"]["zone"], "east");
    let exported = site.get(&format!("/v1/export?at={second}")).await.ok();
    assert!(exported["objects"].to_string().contains("east"), "{exported}");
    site.get(&format!("/v1/machines/S1?at={first}"))
        .await
        .problem(404, "not_found", &["S1"]);
    let head = site.get("/v1/kv/a").await.ok()["revision"]
        .as_u64()
        .expect("a revision");
    site.get(&format!("/v1/kv/a?at={}", head + 1)).await.problem(
        404,
        "revision_future",
        &[&head.to_string()],
    );
    site.get("/v1/kv/a?at=x")
        .await
        .problem(400, "query_invalid", &["`at`", "revision"]);
    site.get("/v1/journal?at=1")
        .await
        .problem(400, "query_invalid", &["`at`"]);

    // Every read that takes a freshness takes a revision, but for those of the history itself.
    let document = site.get("/v1/openapi.json").await.ok();
    let mut without = Vec::new();
    for (path, methods) in document["paths"].as_object().expect("paths") {
        let parameters = methods["get"]["parameters"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let has = |name: &str| parameters.iter().any(|parameter| parameter["name"] == name);
        if has("consistency") && !has("at") {
            without.push(path.clone());
        }
    }
    assert_eq!(
        without,
        [
            "/v1/cluster/backup",
            "/v1/diff",
            "/v1/journal",
            "/v1/journal/retention",
            "/v1/why"
        ]
    );
}

/// What a node is, and what it streams, has no past here: who asks for one is told.
#[tokio::test]
async fn what_is_of_the_present_refuses_a_revision() {
    let site = Site::new();
    site.put("a", "1").await;
    site.put("a", "2").await;
    for path in [
        "/v1/cluster",
        "/v1/cluster/hash",
        "/v1/cluster/backups",
        "/v1/cluster/backup",
        "/v1/kv/watch",
        "/v1/events",
        "/v1/why",
    ] {
        site.get(&format!("{path}?at=1"))
            .await
            .problem(400, "query_invalid", &["`at`", "this route"]);
    }
    let hashed = site.get("/v1/cluster/hash").await.ok();
    assert_eq!((&hashed["node"], &hashed["revision"]), (&json!(1), &json!(2)));
}

#[tokio::test]
async fn compaction_moves_the_beginning_of_history() {
    let site = Site::new();
    for round in 1..=5 {
        site.put("a", &round.to_string()).await;
    }
    site.json("POST", "/v1/journal/compact", &json!({"to": 9}))
        .await
        .problem(409, "system_journal_floor", &["10"]);
    site.json("POST", "/v1/journal/compact", &json!({"to": 3}))
        .await
        .ok();
    assert_eq!(site.get("/v1/kv/a?at=3").await.ok()["value"], "3");
    let gone = site.get("/v1/kv/a?at=2").await;
    let gone = gone.problem(410, "revision_compacted", &["revision 2", "revision 3"]);
    assert_eq!(gone["floor"], 3);
    site.get("/v1/journal?after=2")
        .await
        .problem(410, "compacted", &[]);
    site.get("/v1/journal?after=2&newest=true")
        .await
        .problem(410, "compacted", &[]);
    site.get("/v1/diff?from=2")
        .await
        .problem(410, "revision_compacted", &[]);
    let why = site.get("/v1/why?object=kv/a").await.ok();
    assert_eq!(
        (&why["compacted"], &why["items"][0]["revision"]),
        (&json!(3), &json!(4))
    );
}

#[tokio::test]
async fn retention_is_a_setting_of_the_cluster() {
    let site = Site::new();
    let path = "/v1/journal/retention";
    let wanted = json!({"age_ms": 60_000, "bytes": 1 << 20});
    site.json("PUT", path, &wanted)
        .await
        .problem(409, "system_feature_level_too_low", &["level 2"]);
    level_two(&site).await;
    site.json("PUT", path, &json!({"age_ms": 5}))
        .await
        .problem(400, "system_journal_age", &["1000"]);
    site.json("PUT", path, &json!({"bytes": 5}))
        .await
        .problem(400, "system_journal_bytes", &["1048576"]);
    site.json("PUT", path, &json!({"days": 5}))
        .await
        .problem(400, "body_invalid", &["days", "age_ms"]);
    site.json("PUT", path, &wanted).await.ok();
    let state = site.get(path).await.ok();
    assert_eq!(state["retention"], wanted);
    assert!(state["bytes"].as_u64().is_some_and(|bytes| bytes > 0), "{state}");
    let journal = site.get("/v1/journal?newest=true&limit=1").await.ok();
    let event = &journal["items"][0]["events"][0];
    assert_eq!(
        (&event["event"], &event["age_ms"]),
        (&json!("retention_set"), &json!(60_000))
    );
}

#[tokio::test]
async fn a_diff_names_what_changed() {
    let site = Site::new();
    for key in ["kept", "changed", "removed", "touched"] {
        site.put(key, "1").await;
    }
    let from = machine(&site, "S1", "east").await;
    site.put("changed", "2").await;
    site.put("added", "1").await;
    site.send("DELETE", "/v1/kv/removed", &[], "").await.ok();
    site.put("passing", "1").await;
    site.send("DELETE", "/v1/kv/passing", &[], "").await.ok();
    let labels = json!({"set": {"zone": "west"}});
    site.json("POST", "/v1/machines/S1/labels", &labels).await.ok();
    let diff = site.get(&format!("/v1/diff?from={from}")).await.ok();
    let told = |diff: &Value| -> Vec<(String, String)> {
        let items = diff["items"].as_array().expect("items").iter();
        let text = |value: &Value| value.as_str().expect("text").to_owned();
        items
            .map(|item| (text(&item["object"]), text(&item["became"])))
            .collect()
    };
    let pair = |object: &str, became: &str| (object.to_owned(), became.to_owned());
    let all = [
        pair("machine/S1", "changed"),
        pair("kv/added", "added"),
        pair("kv/changed", "changed"),
        pair("kv/removed", "removed"),
    ];
    assert_eq!(told(&diff), all);
    let fields = diff["items"][2]["fields"].as_array().expect("fields");
    let value = fields.iter().find(|field| field["field"] == "value");
    assert_eq!(value, Some(&json!({"field": "value", "from": "1", "to": "2"})));
    assert_eq!(diff["items"][3]["before"]["value"], "1");
    let machines = site
        .get(&format!("/v1/diff?from={from}&area=machines"))
        .await
        .ok();
    assert_eq!(told(&machines), all[..1]);

    // By pages, between two earlier revisions, and up to the present as it is at the first page.
    for to in [format!("&to={}", from + 6), String::new()] {
        let (mut paged, mut next) = (Vec::new(), String::new());
        loop {
            let page = site
                .get(&format!("/v1/diff?from={from}{to}&limit=1{next}"))
                .await
                .ok();
            assert_eq!(page["to"], from + 6);
            paged.extend(told(&page));
            match page["next"].as_str() {
                Some(cursor) => next = format!("&cursor={cursor}"),
                None => break,
            }
            site.get(&format!("/v1/diff?from={from}&to={}{next}", from + 5))
                .await
                .problem(400, "cursor_invalid", &["begin again"]);
            if to.is_empty() {
                site.put("aside", &next).await;
            }
        }
        assert_eq!(paged, all);
    }
    let short = site
        .get(&format!("/v1/diff?from={from}&to={}", from + 1))
        .await
        .ok();
    assert_eq!(told(&short), [pair("kv/changed", "changed")]);
    site.get("/v1/diff")
        .await
        .problem(400, "query_invalid", &["`from`"]);
    site.get("/v1/diff?from=3&to=2")
        .await
        .problem(400, "query_invalid", &["after 2"]);
}

#[tokio::test]
async fn why_tells_the_story_of_one_object() {
    let site = Site::new();
    site.put("a", "1").await;
    site.send("DELETE", "/v1/kv/a", &[], "").await.ok();
    let born = site.put("a", "2").await["revision"].as_u64().expect("a revision");
    site.put("b", "1").await;
    let last = site.put("a", "3").await["revision"].as_u64().expect("a revision");
    let revisions = |why: &Value| -> Vec<u64> {
        let items = why["items"].as_array().expect("items").iter();
        items
            .map(|item| item["revision"].as_u64().expect("a revision"))
            .collect()
    };
    let why = site.get("/v1/why?object=kv/a").await.ok();
    assert_eq!(revisions(&why), [born, last]);
    assert_eq!(
        (&why["exists"], &why["next_before"], &why["compacted"]),
        (&json!(true), &Value::Null, &Value::Null)
    );
    assert_eq!(why["items"][1]["actor"], "http");
    let all = site.get("/v1/why?object=kv/a&all=true").await.ok();
    assert_eq!(revisions(&all), [1, 2, born, last]);
    let newest = site.get("/v1/why?object=kv/a&limit=1").await.ok();
    assert_eq!(
        (revisions(&newest), &newest["next_before"]),
        (vec![last], &json!(last))
    );
    let gone = site.get("/v1/why?object=kv/never").await.ok();
    assert_eq!((revisions(&gone), &gone["exists"]), (Vec::new(), &json!(false)));
    site.get("/v1/why?object=box/1")
        .await
        .problem(400, "query_invalid", &["`box/1`", "`kv/KEY`"]);
    site.get("/v1/why")
        .await
        .problem(400, "query_invalid", &["`object`"]);
}

#[tokio::test]
async fn the_journal_reads_from_its_end() {
    let site = Site::new();
    for round in 1..=6 {
        site.put("a", &round.to_string()).await;
    }
    let revisions = async |query: &str| -> Vec<u64> {
        let page = site.get(&format!("/v1/journal?{query}")).await.ok();
        let items = page["items"].as_array().expect("items").iter();
        items
            .map(|item| item["revision"].as_u64().expect("a revision"))
            .collect()
    };
    assert_eq!(revisions("newest=true&limit=2").await, [5, 6]);
    assert_eq!(revisions("newest=true&limit=2&before=5").await, [3, 4]);
    assert_eq!(revisions("newest=true&after=4").await, [5, 6]);
    assert_eq!(revisions("after=2&before=5").await, [3, 4]);
}
