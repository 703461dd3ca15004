//! What a node says to nonsense: which field, which rule, what to do; and that nothing of it is half done.

use crate::support::{Cluster, ONWARD, free_ports};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};

/// A configuration of a node of its own, on ports that are free.
fn configuration(dir: &Path, node: u64, extra: &str) -> String {
    let [http, peer, dns, ingress] = free_ports();
    format!(
        "node_id = {node}\ndata_dir = '{}'\n{extra}\n[http]\nlisten = '{http}'\n[peer]\nlisten = '{peer}'\n[dns]\n\
         listen = '{dns}'\n[ingress]\nlisten = '{ingress}'\n",
        dir.join("data").display(),
    )
}

/// Runs `onward serve` with this configuration, which must fail; what it says.
fn fails(dir: &Path, configuration: &str) -> String {
    let file = dir.join("onward.toml");
    std::fs::write(&file, configuration).expect("writable");
    let child = Command::new(ONWARD)
        .args(["serve", "--exit-with-parent", "--config"])
        .arg(&file)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    let output = child.wait_with_output().expect("ends by itself");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!said.contains("panicked"), "{said}");
    said
}

/// Runs `onward serve` until it is ready, then stops it.
fn runs_once(dir: &Path, configuration: &str) {
    let file = dir.join("onward.toml");
    std::fs::write(&file, configuration).expect("writable");
    let mut child = Command::new(ONWARD)
        .args(["serve", "--exit-with-parent", "--config"])
        .arg(&file)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("starts");
    let identity = dir.join("data").join("identity");
    crate::support::eventually("the directory has an identity", || identity.exists());
    crate::support::signal(child.id(), nix::sys::signal::Signal::SIGTERM);
    assert!(child.wait().expect("ends").success());
}

#[test]
fn a_configuration_with_an_unknown_key_is_refused_by_name() {
    let dir = tempfile::tempdir().expect("a directory");
    let said = fails(dir.path(), "[http]\nlissten = '127.0.0.1:1'\n");
    assert!(
        said.contains("lissten") && said.contains("onward.toml") && said.contains("listen"),
        "{said}"
    );
}

#[test]
fn a_port_in_use_is_named() {
    let dir = tempfile::tempdir().expect("a directory");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let free = configuration(dir.path(), 1, "");
    for field in ["http", "peer", "dns", "ingress"] {
        let mut table: toml::Table = free.parse().expect("TOML");
        table[field]["listen"] = address.clone().into();
        let said = fails(dir.path(), &toml::to_string(&table).expect("TOML"));
        assert!(
            said.contains(&address) && said.contains(&format!("{field}.listen")),
            "{field}: {said}"
        );
    }
}

#[test]
fn a_directory_of_another_node_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    runs_once(dir.path(), &configuration(dir.path(), 1, ""));
    let said = fails(dir.path(), &configuration(dir.path(), 2, ""));
    assert!(said.contains("node 1") && said.contains("data"), "{said}");
}

#[test]
fn a_directory_of_a_newer_format_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let configuration = configuration(dir.path(), 1, "");
    runs_once(dir.path(), &configuration);
    let identity = dir.path().join("data").join("identity");
    let text = std::fs::read_to_string(&identity).expect("the identity is text");
    let newer = text.replacen("format = 1", "format = 999", 1);
    assert_ne!(text, newer, "the identity names its format: {text}");
    std::fs::write(&identity, newer).expect("writable");
    let said = fails(dir.path(), &configuration);
    assert!(said.contains("999") && said.contains("upgrade"), "{said}");
}

#[test]
fn a_directory_in_use_is_refused() {
    let cluster = Cluster::start(1);
    let dir = tempfile::tempdir().expect("a directory");
    let mut table: toml::Table = configuration(dir.path(), 1, "").parse().expect("TOML");
    let data = cluster.nodes[0].dir.join("data");
    table["data_dir"] = data.display().to_string().into();
    let said = fails(dir.path(), &toml::to_string(&table).expect("TOML"));
    assert!(said.contains(&data.display().to_string()), "{said}");
}

#[test]
fn nonsense_over_http_is_a_problem_and_nothing_more() {
    let cluster = Cluster::start(1);
    let node = &cluster.nodes[0];
    let post = |path: &str, body: Vec<u8>| {
        let request = cluster
            .http
            .post(format!("{}{path}", node.http))
            .header("Content-Type", "application/json");
        let answer = request.body(body).send().expect("an answer");
        let status = answer.status().as_u16();
        let problem: serde_json::Value = answer.json().expect("a problem document");
        (
            status,
            problem["code"].as_str().unwrap_or_default().to_owned(),
            problem["detail"].to_string(),
        )
    };
    let (status, _, detail) = post("/v1/machines", b"{\"machines\": [".to_vec());
    assert_eq!(status, 400, "{detail}");
    let (status, _, detail) = post("/v1/kv/txn", b"{\"comparez\": []}".to_vec());
    assert!(status == 400 && detail.contains("comparez"), "{status} {detail}");
    let (status, _, detail) = post("/v1/kv/txn", vec![b' '; 16 << 20]);
    assert_eq!(status, 413, "{detail}");
    let answer = cluster
        .http
        .get(format!("{}/v1/machines?cursor=%00nonsense", node.http))
        .send()
        .expect("an answer");
    assert_eq!(answer.status().as_u16(), 400);
    let answer = cluster
        .http
        .get(format!("{}/v1/machines?selector=a%3D%3D%3D(", node.http))
        .send()
        .expect("an answer");
    assert_eq!(answer.status().as_u16(), 400);
    let put = cluster
        .http
        .put(format!("{}/v1/boot-templates/broken", node.http));
    let template = serde_json::json!({"name": "broken", "makes": "ipxe", "body": "{{ serial"});
    let answer = put.json(&template).send().expect("an answer");
    let status = answer.status().as_u16();
    let said = answer.text().expect("text");
    assert!(status == 422 && said.contains("broken"), "{status} {said}");
    let journal = cluster
        .http
        .get(format!(
            "{}/v1/journal?after=0&area=kv&area=machines&area=boot_templates",
            node.http
        ))
        .send()
        .expect("an answer");
    let journal: serde_json::Value = journal.json().expect("JSON");
    assert_eq!(journal["items"], serde_json::json!([]), "nothing of it happened");
}
