//! Scheduled backups on real processes: to a directory, and to a server of the S3 protocol.

use crate::support::{Cluster, ONWARD, eventually, free_ports, signal};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A cluster of `nodes` whose members have this section in their configuration.
pub fn start(nodes: usize, section: &str) -> Cluster {
    start_with(nodes, section, &[])
}

fn start_with(nodes: usize, section: &str, environment: &[(&str, &str)]) -> Cluster {
    let mut cluster = Cluster::start_with(nodes, environment);
    cluster.stop();
    for node in &cluster.nodes {
        let file = node.dir.join("onward.toml");
        let mut config = std::fs::read_to_string(&file).expect("a configuration");
        let table: toml::Table = config.parse().expect("TOML");
        if table.contains_key("backup") {
            let mut table = table;
            table.remove("backup");
            config = toml::to_string(&table).expect("TOML");
        }
        config.push_str(section);
        std::fs::write(&file, config).expect("writable");
    }
    cluster.restart()
}

/// The whole backups in a directory, by name: name and revision.
fn stored(dir: &Path) -> BTreeMap<String, u64> {
    let entries = std::fs::read_dir(dir).expect("a directory");
    let names = entries.map(|entry| {
        entry
            .expect("an entry")
            .file_name()
            .to_string_lossy()
            .into_owned()
    });
    let whole = names.filter_map(|name| {
        let revision = name.strip_suffix(".backup")?.rsplit_once("-r")?.1.parse().ok()?;
        Some((name, revision))
    });
    whole.collect()
}

fn verified(file: &Path) -> Value {
    let output = Command::new(ONWARD)
        .args(["verify", "-o", "json"])
        .arg(file)
        .stdin(Stdio::null())
        .output()
        .expect("the binary runs");
    let said: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert!(output.status.success(), "{said}");
    said
}

fn schedule(cluster: &Cluster, node: u64) -> Value {
    let url = format!("{}/v1/cluster/backups", cluster.node(node).http);
    let answer = cluster.http.get(url).send().expect("the node answers");
    answer.json::<Value>().expect("JSON")["schedule"].clone()
}

#[test]
fn the_leader_backs_up_on_schedule_and_the_next_one_goes_on() {
    let place = tempfile::tempdir().expect("a directory");
    let section = format!(
        "\n[backup]\ninterval_s = 1\nkeep = 3\ndirectory = '{}'\n",
        place.path().display()
    );
    let cluster = start(3, &section);
    cluster.ok(&["kv", "put", "a", "1"]);
    eventually("three are kept", || stored(place.path()).len() == 3);
    let first = stored(place.path());
    eventually("a newer one has taken the place of each", || {
        let now = stored(place.path());
        now.keys().all(|name| !first.contains_key(name)) && now.len() <= 4
    });
    let leader = cluster.leader();
    let standing = schedule(&cluster, leader);
    assert!(standing["taken"].as_u64() >= Some(4), "{standing}");
    assert_eq!(standing["failures"], 0, "{standing}");
    assert_eq!(standing["destination"], place.path().to_str().expect("UTF-8"));
    for other in cluster.others(leader) {
        assert_eq!(
            schedule(&cluster, other.id)["taken"],
            0,
            "only the leader takes them"
        );
        eventually("the others see what is there", || {
            !schedule(&cluster, other.id)["newest"].is_null()
        });
    }
    let metrics = cluster.http.get(format!("{}/metrics", cluster.node(leader).http));
    let metrics = metrics.send().expect("the node answers").text().expect("text");
    for name in ["taken_total", "failed_total", "kept"] {
        assert!(
            metrics.contains(&format!("\nonward_backups_{name} ")),
            "{name} in {metrics}"
        );
    }
    assert!(metrics.contains("\nonward_backup_last_success_age_seconds "));
    let shown = cluster.ok(&["cluster", "backups"]);
    assert!(shown.contains(place.path().to_str().expect("UTF-8")), "{shown}");

    // The next leader goes on.
    cluster.kill(leader);
    let rest: Vec<u64> = cluster.others(leader).iter().map(|node| node.id).collect();
    eventually("another node takes them", || {
        rest.iter()
            .any(|id| schedule(&cluster, *id)["taken"].as_u64() > Some(1))
    });
    cluster.ok(&["kv", "put", "a", "2"]);
    let newest = |dir: &Path| stored(dir).into_iter().next_back().expect("some");
    let (_, before) = newest(place.path());
    eventually("a backup has what was put", || newest(place.path()).1 > before);
    drop(cluster);
    assert!(stored(place.path()).len() <= 4);
    for (name, revision) in stored(place.path()) {
        assert_eq!(verified(&place.path().join(name))["revision"], revision);
    }
}

/// A clock that was once far ahead has left a backup of its time; another cluster and a clock that was behind have, too.
#[test]
fn a_name_from_the_future_neither_hastens_backups_nor_costs_the_good_ones() {
    const INTERVAL: Duration = Duration::from_secs(2);
    let place = tempfile::tempdir().expect("a directory");
    let section = format!(
        "\n[backup]\ninterval_s = {}\nkeep = 2\ndirectory = '{}'\n",
        INTERVAL.as_secs(),
        place.path().display()
    );
    let cluster = start(1, &section);
    eventually("the first is there", || !stored(place.path()).is_empty());
    let (good, _) = stored(place.path()).pop_last().expect("one");
    let identity = good.split_at(good.rfind("-r").expect("a revision")).0;
    let identity = identity.rsplit_once('-').expect("a time").0.to_owned();
    // The year 2100, and 1970.
    let planted = [
        format!("{identity}-4102444800000-r1.backup"),
        format!("{identity}-0000000000001-r2.backup"),
    ];
    let foreign = "onward-00000000-0000-0000-0000-000000000007-0000000000001-r1.backup";
    for name in planted.iter().map(String::as_str).chain([foreign]) {
        std::fs::write(place.path().join(name), "").expect("writable");
    }
    let taken = || schedule(&cluster, 1)["taken"].as_u64().expect("a number");
    let (began, before) = (Instant::now(), taken());
    eventually("what is of an old revision goes, whatever its time", || {
        assert_ne!(schedule(&cluster, 1)["newest"]["name"], planted[0]);
        let there = stored(place.path());
        planted.iter().all(|name| !there.contains_key(name))
    });
    eventually("it goes on", || taken() >= before + 3);
    let most = began.elapsed().as_millis() / INTERVAL.as_millis() + 1;
    let count = u128::from(taken() - before);
    assert!(count <= most, "{count} were taken, where {most} were due");
    assert!(place.path().join(foreign).exists(), "it is another cluster's");
}

/// What `/v1/cluster` has an operator see to.
fn alarms(cluster: &Cluster, node: u64) -> String {
    let status = cluster.status(cluster.node(node)).expect("the node answers");
    status["alarms"].to_string()
}

#[test]
fn a_destination_that_fails_is_counted_and_said() {
    let place = tempfile::tempdir().expect("a directory");
    let gone = place.path().join("not-there");
    let section = format!("\n[backup]\ninterval_s = 1\ndirectory = '{}'\n", gone.display());
    let cluster = start(1, &section);
    eventually("failures are counted", || {
        schedule(&cluster, 1)["failures"].as_u64() >= Some(2)
    });
    let standing = schedule(&cluster, 1);
    let error = standing["error"].as_str().expect("an error");
    assert!(
        error.contains("not-there") && error.contains("No such file"),
        "{error}"
    );
    let alarms_said = alarms(&cluster, 1);
    assert!(
        alarms_said.contains("scheduled backups to") && alarms_said.contains("No such file"),
        "{alarms_said}"
    );
    let age = || cluster.metric(cluster.node(1), "onward_backup_last_success_age_seconds");
    eventually("the age counts though none ever succeeded", || age() >= 3.0);
    cluster.ok(&["kv", "put", "a", "1"]);
    std::fs::create_dir(&gone).expect("a directory");
    eventually("it goes on", || {
        !stored(&gone).is_empty() && schedule(&cluster, 1)["error"].is_null()
    });
    eventually("nothing is wrong any more", || alarms(&cluster, 1) == "[]");
}

/// A server of the S3 protocol.
struct S3 {
    child: Child,
    log: PathBuf,
    endpoint: String,
    http: reqwest::blocking::Client,
}

impl S3 {
    fn start(dir: &Path) -> S3 {
        let server = S3::spawn(dir, "http", &[]);
        eventually("the S3 server takes a bucket", || {
            let made = server.http.put(format!("{}/backups", server.endpoint)).send();
            made.is_ok_and(|made| made.status().is_success())
        });
        server
    }

    /// The same behind TLS, with a certificate of its own, which is trusted by whoever is told to.
    fn start_with_tls(dir: &Path) -> (S3, PathBuf) {
        let (key, certificate) = (dir.join("key.pem"), dir.join("certificate.pem"));
        let made = Command::new("openssl")
            .args([
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-nodes",
                "-days",
                "2",
            ])
            .args(["-subj", "/CN=s3", "-addext", "subjectAltName=IP:127.0.0.1"])
            .args(["-addext", "basicConstraints=critical,CA:FALSE", "-keyout"])
            .arg(&key)
            .arg("-out")
            .arg(&certificate)
            .output()
            .expect("openssl runs");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let files = [&certificate, &key].map(|path| path.to_str().expect("UTF-8"));
        let server = S3::spawn(dir, "https", &["--ssl-cert", files[0], "--ssl-key", files[1]]);
        eventually("the S3 server takes a bucket", || {
            let made = Command::new("curl")
                .args(["-fsS", "-X", "PUT", "--cacert"])
                .arg(&certificate)
                .arg(format!("{}/backups", server.endpoint))
                .output();
            made.is_ok_and(|made| made.status.success())
        });
        (server, certificate)
    }

    fn spawn(dir: &Path, scheme: &str, arguments: &[&str]) -> S3 {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/install-s3-server");
        let python = Command::new(script)
            .output()
            .expect("scripts/install-s3-server runs");
        assert!(
            python.status.success(),
            "the S3 server of `scripts/install-deps test` is missing: {}",
            String::from_utf8_lossy(&python.stderr)
        );
        let python = String::from_utf8(python.stdout).expect("UTF-8");
        let [address] = free_ports();
        let log = dir.join("s3.log");
        let file = std::fs::File::create(&log).expect("a log");
        let child = Command::new(python.trim())
            .args([
                "-m",
                "moto.server",
                "-H",
                "127.0.0.1",
                "-p",
                &address.port().to_string(),
            ])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(file)
            .spawn()
            .expect("the S3 server starts");
        S3 {
            child,
            log,
            endpoint: format!("{scheme}://{address}"),
            http: reqwest::blocking::Client::new(),
        }
    }

    /// From now on each request is checked. Returns the credentials that are good, an id and a secret.
    fn check_credentials(&self) -> (String, String) {
        let asked = |action: &str, more: &str| {
            let request = self.http.post(&self.endpoint).header(
                "Authorization",
                "AWS4-HMAC-SHA256 Credential=x/20260101/us-east-1/iam/aws4_request, SignedHeaders=host, Signature=0",
            );
            let request = request
                .header("Content-Type", "application/x-www-form-urlencoded")
                .body(format!(
                    "Action={action}&UserName=onward&Version=2010-05-08{more}"
                ));
            let answer = request.send().expect("it answers");
            assert!(answer.status().is_success(), "{action}: {}", answer.status());
            answer.text().expect("text")
        };
        asked("CreateUser", "");
        let key = asked("CreateAccessKey", "");
        let field = |name: &str| {
            let rest = key.split_once(&format!("<{name}>")).expect("the field").1;
            rest.split_once('<').expect("its end").0.to_owned()
        };
        let policy =
            r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"s3:*","Resource":"*"}]}"#;
        asked(
            "PutUserPolicy",
            &format!("&PolicyName=all&PolicyDocument={policy}"),
        );
        let check = self.http.post(format!("{}/moto-api/reset-auth", self.endpoint));
        let check = check.header("Content-Type", "text/plain").body("0");
        assert!(check.send().expect("it answers").status().is_success());
        (field("AccessKeyId"), field("SecretAccessKey"))
    }

    /// The names of the objects.
    fn names(&self) -> Vec<String> {
        let url = format!("{}/backups?list-type=2&prefix=site/", self.endpoint);
        let listed = self
            .http
            .get(url)
            .send()
            .expect("it answers")
            .text()
            .expect("text");
        let keys = listed.split("<Key>").skip(1);
        keys.filter_map(|rest| Some(rest.split_once("</Key>")?.0.to_owned()))
            .collect()
    }

    fn object(&self, name: &str) -> Vec<u8> {
        let got = self
            .http
            .get(format!("{}/backups/{name}", self.endpoint))
            .send()
            .expect("it answers");
        got.bytes().expect("bytes").to_vec()
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const SECRET: &str = "hush-hush-0123456789";

/// The section of a configuration that backs up to `server`, with a file of credentials in `dir`.
fn section(dir: &Path, server: &S3) -> String {
    section_with(dir, server, ("KEYID7", SECRET))
}

fn section_with(dir: &Path, server: &S3, (id, secret): (&str, &str)) -> String {
    let credentials = dir.join("credentials.toml");
    std::fs::write(
        &credentials,
        format!("access_key_id = \"{id}\"\nsecret_access_key = \"{secret}\"\n"),
    )
    .expect("writable");
    std::fs::set_permissions(&credentials, std::fs::Permissions::from_mode(0o600)).expect("a mode");
    format!(
        "\n[backup]\ninterval_s = 1\nkeep = 2\n[backup.s3]\nendpoint = '{}'\nbucket = 'backups'\nprefix = 'site'\n\
         credentials_file = '{}'\n",
        server.endpoint,
        credentials.display()
    )
}

#[test]
fn an_s3_store_takes_backups_and_sees_no_credentials_in_urls() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = S3::start(dir.path());
    let cluster = start(1, &section(dir.path(), &server));
    // More than one part of an upload.
    for number in 0..12 {
        let put = cluster
            .http
            .put(format!("{}/v1/kv/fill/{number}", cluster.node(1).http));
        let put = put
            .header("Content-Type", "application/octet-stream")
            .body("x".repeat(1_000_000));
        assert!(put.send().expect("the node answers").status().is_success());
    }
    eventually("backups come and go", || {
        schedule(&cluster, 1)["taken"].as_u64() > Some(3) && (1..=3).contains(&server.names().len())
    });
    let newest = server.names().into_iter().next_back().expect("some");
    assert!(newest.starts_with("site/onward-"), "{newest}");
    let file = dir.path().join("newest.backup");
    std::fs::write(&file, server.object(&newest)).expect("writable");
    let found = verified(&file);
    assert!(
        found["looked"][0]["bytes"].as_u64() > Some(12_000_000) || found["revision"].as_u64() > Some(12),
        "{found}"
    );

    // A store that is away is said, and found again.
    signal(server.child.id(), Signal::SIGSTOP);
    std::thread::sleep(Duration::from_millis(1500));
    cluster.ok(&["kv", "put", "while", "away"]);
    signal(server.child.id(), Signal::SIGCONT);
    let taken = schedule(&cluster, 1)["taken"].as_u64();
    eventually("it goes on", || schedule(&cluster, 1)["taken"].as_u64() > taken);
    let requests = std::fs::read_to_string(&server.log).expect("a log");
    assert!(
        requests.contains("uploadId="),
        "it was uploaded in parts: {requests}"
    );
    let node = std::fs::read_to_string(cluster.node(1).dir.join("onward.log")).unwrap_or_default();
    let status = schedule(&cluster, 1).to_string();
    for (place, text) in [
        ("the requests", &requests),
        ("the log", &node),
        ("the status", &status),
    ] {
        assert!(
            !text.contains(SECRET) && !text.contains("KEYID7"),
            "{place} show credentials: {text}"
        );
    }
}

/// Behind TLS only with a certificate that the machine trusts.
#[test]
fn an_s3_store_is_spoken_to_over_tls() {
    let dir = tempfile::tempdir().expect("a directory");
    let (server, certificate) = S3::start_with_tls(dir.path());
    let section = section(dir.path(), &server);
    let strangers = start(1, &section);
    eventually("it is not trusted", || {
        let error = schedule(&strangers, 1)["error"].to_string();
        error.contains("certificate") || error.contains("UnknownIssuer")
    });
    assert_eq!(schedule(&strangers, 1)["taken"], 0);
    drop(strangers);

    let trusted = certificate.to_str().expect("UTF-8");
    let cluster = start_with(1, &section, &[("SSL_CERT_FILE", trusted)]);
    eventually("backups come and go", || {
        schedule(&cluster, 1)["taken"].as_u64() > Some(2)
    });
    let requests = std::fs::read_to_string(&server.log).expect("a log");
    assert!(
        requests.contains("PUT /backups/site/onward-") || requests.contains("uploadId="),
        "{requests}"
    );
}

/// What is said where the store refuses: once it is, in the status, the log and the alarm.
fn refusal(cluster: &Cluster) -> String {
    eventually("it fails and says so", || {
        schedule(cluster, 1)["failures"].as_u64() >= Some(1) && !schedule(cluster, 1)["error"].is_null()
    });
    let log = std::fs::read_to_string(cluster.node(1).dir.join("onward.log")).expect("a log");
    let said = schedule(cluster, 1)["error"]
        .as_str()
        .expect("an error")
        .to_owned();
    for text in [&said, &alarms(cluster, 1), &log] {
        assert!(text.contains("bucket `"), "it names the bucket: {text}");
        assert!(!text.contains(SECRET) && !text.contains("KEYID7"), "{text}");
    }
    said
}

#[test]
fn a_bucket_that_is_missing_is_named() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = S3::start(dir.path());
    let section = section(dir.path(), &server).replace("'backups'", "'elsewhere'");
    let cluster = start(1, &section);
    let said = refusal(&cluster);
    assert!(
        said.contains("the bucket `elsewhere` is not there: it has to be made first"),
        "{said}"
    );
    let made = server.http.put(format!("{}/elsewhere", server.endpoint)).send();
    assert!(made.expect("it answers").status().is_success());
    eventually("it goes on", || {
        schedule(&cluster, 1)["taken"].as_u64() >= Some(1) && schedule(&cluster, 1)["error"].is_null()
    });
}

#[test]
fn a_store_that_refuses_the_secret_is_named_and_the_secret_is_not() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = S3::start(dir.path());
    let (id, secret) = server.check_credentials();
    let cluster = start(1, &section_with(dir.path(), &server, (&id, SECRET)));
    let said = refusal(&cluster);
    assert!(
        said.contains("the bucket `backups` is not open to these credentials")
            && said.contains("SignatureDoesNotMatch")
            && !said.contains(&id),
        "{said}"
    );
    assert_eq!(schedule(&cluster, 1)["taken"], 0);
    drop(cluster);
    let cluster = start(1, &section_with(dir.path(), &server, (&id, &secret)));
    eventually("with the right one they are taken", || {
        schedule(&cluster, 1)["taken"].as_u64() >= Some(1)
    });
}
