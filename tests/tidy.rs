//! The house rules that a compiler does not check: who may depend on whom, and which names stay where.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every folder with source files.
const ALL: [&str; 9] = [
    "src",
    "statemachine",
    "raft",
    "api",
    "cli",
    "appliers",
    "bench",
    "jepsen",
    "tests",
];

/// Source files below `folder` with the extension `rs`.
fn sources(folder: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("the folder exists") {
            let path = entry.expect("readable").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).expect("source is UTF-8");
                found.push((
                    path.strip_prefix(root()).expect("below the root").to_owned(),
                    text,
                ));
            }
        }
    }
    assert!(!found.is_empty(), "{folder} has no sources");
    found
}

/// DESIGN: dependencies point one way. Any other edge fails here.
#[test]
fn dependencies_point_one_way() {
    let allowed: BTreeMap<&str, &[&str]> = BTreeMap::from([
        (
            ".",
            &[
                "onward-api",
                "onward-appliers-deployments",
                "onward-appliers-machines",
                "onward-appliers-services",
                "onward-cli",
                "onward-raft",
                "onward-statemachine",
            ][..],
        ),
        ("cli", &["onward-api"]),
        ("api", &["onward-statemachine"]),
        ("appliers/deployments", &["onward-statemachine"]),
        ("appliers/machines", &["onward-statemachine"]),
        ("appliers/services", &["onward-statemachine"]),
        ("raft", &["onward-statemachine"]),
        ("statemachine", &[]),
        ("bench", &["onward-api"]),
        ("jepsen", &["onward-api", "onward-raft", "onward-statemachine"]),
    ]);
    let manifest = |folder: &str| -> toml::Table {
        let text = std::fs::read_to_string(root().join(folder).join("Cargo.toml")).expect("a manifest");
        text.parse().expect("valid TOML")
    };
    let members = manifest(".")["workspace"]["members"]
        .as_array()
        .expect("members")
        .clone();
    for member in members {
        let member = member.as_str().expect("a path").to_owned();
        let allowed = allowed
            .get(member.as_str())
            .unwrap_or_else(|| panic!("{member} is not in this test's table"));
        let manifest = manifest(&member);
        let dependencies = manifest
            .get("dependencies")
            .and_then(|table| table.as_table())
            .cloned()
            .unwrap_or_default();
        for name in dependencies.keys().filter(|name| name.starts_with("onward-")) {
            assert!(
                allowed.contains(&name.as_str()),
                "{member} must not depend on {name}"
            );
        }
    }
}

/// Planted bugs are for those who ask for them: nothing turns the feature on but a feature of the same name.
#[test]
fn bugs_are_planted_on_demand_only() {
    let text = std::fs::read_to_string(root().join("Cargo.toml")).expect("a manifest");
    let workspace: toml::Table = text.parse().expect("valid TOML");
    for member in workspace["workspace"]["members"].as_array().expect("members") {
        let path = root().join(member.as_str().expect("a path")).join("Cargo.toml");
        let text = std::fs::read_to_string(&path).expect("a manifest");
        let mut manifest: toml::Table = text.parse().expect("valid TOML");
        if let Some(features) = manifest
            .get_mut("features")
            .and_then(|table| table.as_table_mut())
        {
            features.remove("mutants");
        }
        let rest = manifest.to_string();
        assert!(
            !rest.contains("mutants"),
            "{} turns planted bugs on",
            path.display()
        );
    }
}

#[test]
fn engine_names_stay_in_raft() {
    for folder in ["src", "statemachine/src", "api/src", "cli/src", "appliers"] {
        for (path, text) in sources(folder) {
            for (number, line) in text.lines().enumerate() {
                let code = line.split("//").next().unwrap_or_default().to_lowercase();
                for name in ["openraft", "rocksdb"] {
                    assert!(
                        !code.contains(name),
                        "{}:{} names {name}",
                        path.display(),
                        number + 1
                    );
                }
            }
        }
    }
}

#[test]
fn the_state_machine_never_awaits_or_logs() {
    for (path, text) in sources("statemachine/src") {
        for (number, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            for banned in [".await", "async fn", "tracing::", "println!", "f64", "f32"] {
                let testing = path.starts_with("statemachine/src/testing");
                assert!(
                    testing || !code.contains(banned),
                    "{}:{} has {banned}",
                    path.display(),
                    number + 1
                );
            }
        }
    }
}

#[test]
fn bincode_is_named_in_the_codec_only() {
    for folder in [
        "src",
        "statemachine/src",
        "api/src",
        "cli/src",
        "appliers",
        "raft",
    ] {
        for (path, text) in sources(folder) {
            let named = text
                .lines()
                .any(|line| line.split("//").next().unwrap_or_default().contains("bincode"));
            assert!(
                !named || path.ends_with("statemachine/src/codec.rs"),
                "{} names bincode",
                path.display()
            );
        }
    }
}

#[test]
fn nothing_is_left_open() {
    for folder in ALL {
        for (path, text) in sources(folder) {
            for (number, line) in text.lines().enumerate() {
                for mark in [
                    "to".to_owned() + "do!(",
                    "unimple".to_owned() + "mented!(",
                    "FIX".to_owned() + "ME",
                    "TO".to_owned() + "DO",
                ] {
                    assert!(
                        !line.contains(&mark),
                        "{}:{} has {mark}",
                        path.display(),
                        number + 1
                    );
                }
            }
        }
    }
}

/// Sizes: past about 500 lines a file usually has two ideas in it.
#[test]
fn files_stay_readable() {
    for folder in ALL {
        for (path, text) in sources(folder) {
            let lines = text.lines().count();
            assert!(
                lines <= 700,
                "{} has {lines} lines: look for the two ideas in it",
                path.display()
            );
        }
    }
}
