use super::*;
use crate::disk::{Disk, Syncs};
use crate::growth::Grown;
use crate::metrics::LogWork;
use std::path::PathBuf;

fn run(date: &str) -> Run {
    Run {
        date: date.to_owned(),
        machine: "2 cores".to_owned(),
        onward: "onward 0.1.0".to_owned(),
        ..Run::default()
    }
}

fn part<T>(date: &str, found: T) -> Option<Part<T>> {
    let run = run(date);
    Some(Part { run, found })
}

fn load(rates: &[u64], p99_ms: f64) -> Summary {
    Summary {
        rates: rates.to_vec(),
        p50_ms: p99_ms / 2.0,
        p99_ms,
        cpu_us: 40.0,
        log: None,
    }
}

fn cell(kind: Kind, nodes: usize, load: Summary) -> Cell {
    Cell {
        kind,
        work: Work::Put,
        nodes,
        clients: 64,
        load,
    }
}

fn point(kind: Kind, grown: Grown, at: u64, rate: u64) -> Point {
    Point {
        kind,
        grown,
        at,
        load: load(&[rate], 4.0),
        resident_mib: 70,
        disk_mib: 10,
    }
}

fn bar<'a>(bars: &'a [bars::Bar], what: &str) -> &'a bars::Bar {
    let found = bars.iter().find(|bar| bar.what.contains(what));
    found.unwrap_or_else(|| panic!("no bar says {what}"))
}

#[test]
fn a_bar_is_held_against_the_peer_with_as_many_connections() {
    let report = Report {
        load: part(
            "2026-01-01 00:00 UTC",
            vec![
                cell(Kind::Onward, 3, load(&[90, 110, 100], 2.0)),
                cell(Kind::OnwardShared, 3, load(&[200], 2.0)),
                cell(Kind::Etcd, 3, load(&[50], 9.0)),
                cell(Kind::EtcdShared, 3, load(&[110], 3.0)),
            ],
        ),
        ..Report::default()
    };
    let bars = bars::of(&report);
    let rate = bar(&bars, "64 clients, single puts: at least 2x etcd's rate");
    assert!(rate.met);
    assert_eq!(rate.measured, "100/s beside 50 puts/s (2.00x)");
    let rate = bar(
        &bars,
        "over shared connections, single puts: at least 2x etcd's rate",
    );
    assert!(!rate.met, "200 is less than twice 110");
    assert_eq!(rate.measured, "200/s beside 110 puts/s (1.82x)");
    assert!(bar(&bars, "64 clients, single puts: at most half its p99").met);
    assert!(
        !bar(
            &bars,
            "over shared connections, single puts: at most half its p99"
        )
        .met
    );
    assert!(!bar(&bars, "half its CPU").met);
}

#[test]
fn a_cliff_is_found_wherever_it_is() {
    let growth = |rates: [u64; 3], grown| {
        let sizes = [100, 1_000, 10_000];
        let points = sizes.into_iter().zip(rates);
        let points = points.map(|(at, rate)| point(Kind::Onward, grown, at, rate));
        let report = Report {
            growth: part("2026-01-01 00:00 UTC", points.collect()),
            ..Report::default()
        };
        bar(&bars::of(&report), "no cliff").met
    };
    assert!(growth([100, 90, 80], Grown::Keys));
    assert!(!growth([100, 90, 40], Grown::Keys));
    // Ten times the bytes in each put: a third of the puts is more bytes than before.
    assert!(growth([100, 33, 11], Grown::ValueBytes));
    assert!(!growth([100, 33, 1], Grown::ValueBytes));
}

#[test]
fn a_file_written_before_is_held_against_one_that_grows_in_the_same_company() {
    let syncs = |file: &str, others_write, p50_us, p999_us| Syncs {
        file: file.to_owned(),
        others_write,
        p50_us,
        p99_us: p999_us,
        p999_us,
    };
    let report = Report {
        disk: part(
            "2026-01-01 00:00 UTC",
            Disk {
                syncs: vec![
                    syncs("grows with each write", false, 200, 900),
                    syncs("written before, and written over", false, 120, 80),
                    syncs("grows with each write", true, 500, 5_000),
                    syncs("written before, and written over", true, 240, 1_000),
                ],
                logs: Vec::new(),
            },
        ),
        ..Report::default()
    };
    let bars = bars::of(&report);
    let met = |what| bar(&bars, what).met;
    assert!(!met("alone: half of them in"));
    assert!(met("alone: 99.9 % in"));
    assert!(met("while others write: half of them in"));
    assert!(!met("while others write: 99.9 % in"));
    let measured = &bar(&bars, "alone: half of them in").measured;
    assert_eq!(measured, "120 us beside 200 us (0.60x)");
}

#[test]
fn a_part_is_renewed_and_the_others_stay() {
    let dir = tempfile::tempdir().expect("a directory");
    let page = dir.path().join("page.md");
    fs::write(
        &page,
        "# Kept\n\n<!-- bench: begin -->\nold\n<!-- bench: end -->\nkept, too\n",
    )
    .expect("writes");
    let first = Report {
        load: part(
            "2026-01-01 00:00 UTC",
            vec![cell(Kind::Onward, 3, load(&[1_234], 2.0))],
        ),
        growth: part(
            "2026-01-01 00:00 UTC",
            vec![point(Kind::Onward, Grown::Keys, 10_000, 500)],
        ),
        ..Report::default()
    };
    first.write(&page).expect("writes");
    let mut whole = Report::read(&page).expect("what was written is read");
    let mut logged = load(&[4_321], 2.0);
    logged.log = Some(LogWork {
        syncs_per_second: 3_000.0,
        entries_per_sync: 5.5,
        bytes_per_sync: 1_800.0,
        mean_us: 90.0,
        p99_under_us: None,
    });
    whole.renew(Report {
        load: part("2026-01-02 00:00 UTC", vec![cell(Kind::Onward, 3, logged)]),
        ..Report::default()
    });
    whole.write(&page).expect("writes");
    let text = fs::read_to_string(&page).expect("reads");
    assert!(
        text.starts_with("# Kept\n") && text.ends_with("kept, too\n"),
        "{text}"
    );
    for (there, what) in [
        (true, "4321"),
        (false, "1234"),
        (true, "| 3000 | 5.5 | 1800 | 90 | above all bounds |"),
        (true, "![More and more keys stored](page/keys.svg)"),
        (true, "2026-01-01 00:00 UTC"),
        (false, "old"),
    ] {
        assert_eq!(text.contains(what), there, "{what} in {text}");
    }
    let svg = fs::read_to_string(dir.path().join("page/keys.svg")).expect("the plot is drawn");
    assert!(svg.starts_with("<svg "));
    assert!(!dir.path().join("page/nodes.svg").exists(), "nothing to draw");
}

#[test]
fn the_page_is_what_the_data_say() {
    let page = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/benchmarks.md");
    let report = Report::read(&page).expect("the data are read");
    let text = fs::read_to_string(&page).expect("the page");
    assert!(
        text.contains(&report.markdown("benchmarks")),
        "the report was edited by hand, or is made otherwise now: `onward-bench --render docs/benchmarks.md`"
    );
    for (name, svg) in plots::svgs(&report) {
        let drawn = fs::read_to_string(page.with_extension("").join(name)).unwrap_or_default();
        assert_eq!(
            drawn, svg,
            "{name} is not drawn of the data: `onward-bench --render docs/benchmarks.md`"
        );
    }
}
