//! What `make demo` shows, with the binary under test: it checks itself, and a demo that nobody runs goes stale.

use crate::support::ONWARD;
use std::path::Path;
use std::process::{Command, Stdio};

#[test]
fn the_demo_shows_what_it_says() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/demo");
    let shown = Command::new(script)
        .env("CI", "1")
        .env("ONWARD_BINARY", ONWARD)
        .stdin(Stdio::null())
        .output()
        .expect("bash runs");
    let (out, err) = (
        String::from_utf8_lossy(&shown.stdout),
        String::from_utf8_lossy(&shown.stderr),
    );
    assert!(shown.status.success(), "{out}\n{err}");
}
