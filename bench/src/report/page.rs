//! The report as Markdown, for docs/benchmarks.md.

use super::{Cell, Part, Report, Run, bars, plots};
use crate::disk::Disk;
use crate::growth::{Grown, Point};
use crate::handover::Handover;
use crate::load::{BATCH_PUTS, VALUE_BYTES, Work};
use crate::metrics::LogWork;
use crate::overload::Overload;
use crate::rejoin::Rejoin;
use crate::standing::{Idle, Restart};
use crate::system::Kind;
use std::fmt::Write;

pub(super) fn markdown(report: &Report, folder: &str) -> String {
    let mut page = Page(String::from("\n"));
    let Some(newest) = report.newest() else {
        page.line(format_args!("Nothing is measured yet."));
        return page.0;
    };
    page.line(format_args!(
        "- machine: {}, {}",
        newest.machine, newest.file_system
    ));
    page.line(format_args!("- onward: {}", newest.onward));
    if let Some(etcd) = &newest.etcd {
        page.line(format_args!("- etcd: {etcd}"));
    }
    page.bars(&bars::of(report));
    if let Some(part) = &report.load {
        page.load(part);
    }
    if let Some(part) = &report.growth {
        page.growth(part, folder);
    }
    if let Some(part) = &report.disk {
        page.disk(part);
    }
    if let Some(part) = &report.restart {
        page.restart(part);
    }
    if let Some(part) = &report.rejoin {
        page.rejoin(part);
    }
    if let Some(part) = &report.rest {
        page.rest(part);
    }
    if let Some(part) = &report.handover {
        page.handover(part);
    }
    if let Some(part) = &report.overload {
        page.overload(part);
    }
    page.0.push('\n');
    page.0
}

/// Markdown as it grows.
struct Page(String);

impl Page {
    fn line(&mut self, arguments: std::fmt::Arguments<'_>) {
        writeln!(self.0, "{arguments}").expect("a string takes all that is written to it");
    }

    fn head(&mut self, title: &str, run: &Run) {
        self.line(format_args!("\n### {title}\n"));
        let short = if run.quick {
            "; **a quick run, too short to compare anything**"
        } else {
            ""
        };
        let Run {
            date,
            onward,
            load_before,
            ..
        } = run;
        self.line(format_args!(
            "_{date}, {onward}, load of the machine before {load_before}_{short}\n"
        ));
    }

    /// A table: its columns, where those of numbers begin with `>`, and its rows.
    fn table(&mut self, columns: &[&str], rows: impl Iterator<Item = Vec<String>>) {
        let names: Vec<&str> = columns.iter().map(|name| name.trim_start_matches('>')).collect();
        let sides: Vec<&str> = columns
            .iter()
            .map(|name| if name.starts_with('>') { "--:" } else { "---" })
            .collect();
        self.line(format_args!("| {} |\n|{}|", names.join(" | "), sides.join("|")));
        for row in rows {
            self.line(format_args!("| {} |", row.join(" | ")));
        }
    }

    fn bars(&mut self, bars: &[bars::Bar]) {
        self.line(format_args!("\n### Bars\n"));
        let met = bars.iter().filter(|bar| bar.met).count();
        self.line(format_args!("{met} of {} are met.\n", bars.len()));
        self.table(
            &["bar", "measured", ""],
            bars.iter().map(|bar| {
                let met = if bar.met { "met" } else { "**not met**" };
                vec![bar.what.clone(), bar.measured.clone(), met.to_owned()]
            }),
        );
    }

    fn load(&mut self, part: &Part<Vec<Cell>>) {
        let titles = [
            (Work::Put, format!("Durable writes of {VALUE_BYTES} bytes")),
            (
                Work::Batch,
                format!("Durable writes in transactions of {BATCH_PUTS}"),
            ),
            (Work::ReadLeader, "Linearizable reads, from the leader".to_owned()),
            (
                Work::ReadFollowers,
                "Linearizable reads, from the followers".to_owned(),
            ),
        ];
        for (work, title) in titles {
            let cells: Vec<&Cell> = part.found.iter().filter(|cell| cell.work == work).collect();
            if cells.is_empty() {
                continue;
            }
            self.head(&title, &part.run);
            let rate = format!(">{}/s", work.unit());
            let columns = [
                ">nodes",
                ">clients",
                "system",
                &rate,
                ">of each round",
                ">p50 ms",
                ">p99 ms",
                ">server CPU us each",
            ];
            self.table(
                &columns,
                cells.iter().map(|cell| {
                    let load = &cell.load;
                    let rates: Vec<String> = load.rates.iter().map(u64::to_string).collect();
                    vec![
                        cell.nodes.to_string(),
                        cell.clients.to_string(),
                        cell.kind.name().to_owned(),
                        load.rate().to_string(),
                        rates.join(" "),
                        format!("{:.2}", load.p50_ms),
                        format!("{:.2}", load.p99_ms),
                        format!("{:.1}", load.cpu_us),
                    ]
                }),
            );
            if work == Work::Put {
                self.logs_under_load(&cells);
            }
        }
    }

    /// What the leader's log did meanwhile, where it was counted.
    fn logs_under_load(&mut self, cells: &[&Cell]) {
        let counted: Vec<(&&Cell, LogWork)> = cells
            .iter()
            .filter(|cell| !cell.kind.shares())
            .filter_map(|cell| Some((cell, cell.load.log?)))
            .collect();
        if counted.is_empty() {
            return;
        }
        self.line(format_args!("\nThe log of onward's leader meanwhile:\n"));
        let columns = [&[">nodes", ">clients"], &LOG_COLUMNS[..]].concat();
        self.table(
            &columns,
            counted.iter().map(|(cell, log)| {
                let mut row = vec![cell.nodes.to_string(), cell.clients.to_string()];
                row.extend(log_row(log));
                row
            }),
        );
    }

    fn growth(&mut self, part: &Part<Vec<Point>>, folder: &str) {
        self.head("Cost as work grows", &part.run);
        for grown in plots::ALL {
            let points: Vec<&Point> = part.found.iter().filter(|point| point.grown == grown).collect();
            if points.is_empty() {
                continue;
            }
            let (what, column) = match grown {
                Grown::Keys => ("More and more keys stored", ">keys"),
                Grown::Nodes => ("More and more nodes", ">nodes"),
                Grown::ValueBytes => ("Longer and longer values", ">value"),
            };
            self.line(format_args!("![{what}]({folder}/{})\n", plots::file(grown)));
            let columns = [
                column,
                "system",
                ">puts/s",
                ">of each round",
                ">MB/s",
                ">p50 ms",
                ">p99 ms",
                ">server CPU us each",
                ">memory of the largest node, MiB",
                ">disk of a node, MiB",
            ];
            self.table(&columns, points.iter().map(|point| growth_row(point)));
            self.line(format_args!(""));
        }
    }

    fn disk(&mut self, part: &Part<Disk>) {
        self.head("The disk under the log", &part.run);
        self.table(
            &[
                "4 KiB and fdatasync, of a file that is",
                "others write",
                ">p50 us",
                ">p99 us",
                ">p99.9 us",
            ],
            part.found.syncs.iter().map(|row| {
                vec![
                    row.file.clone(),
                    if row.others_write { "yes" } else { "no" }.to_owned(),
                    row.p50_us.to_string(),
                    row.p99_us.to_string(),
                    row.p999_us.to_string(),
                ]
            }),
        );
        self.line(format_args!(
            "\nThe log of one node of onward, writes of {VALUE_BYTES} bytes:\n"
        ));
        let columns = [&[">clients", ">puts/s"], &LOG_COLUMNS[..]].concat();
        let logs = part.found.logs.iter();
        self.table(
            &columns,
            logs.filter_map(|row| {
                let mut cells = vec![row.clients.to_string(), row.load.rate().to_string()];
                cells.extend(log_row(&row.load.log?));
                Some(cells)
            }),
        );
    }

    fn restart(&mut self, part: &Part<Vec<Restart>>) {
        self.head("Restart of one node", &part.run);
        self.table(
            &[">keys", "stopped by", ">ready after", ">memory"],
            part.found.iter().map(|restart| {
                vec![
                    restart.keys.to_string(),
                    restart.stopped_by.clone(),
                    format!("{} ms", restart.ready_after_ms),
                    format!("{} MiB", restart.resident_mib),
                ]
            }),
        );
    }

    fn rejoin(&mut self, part: &Part<Rejoin>) {
        self.head("A wiped node comes back while writes go on", &part.run);
        let rejoin = &part.found;
        let each = |ms: u64| format!("{} ms", ms / u64::from(rejoin.returns.max(1)));
        self.table(
            &[
                ">keys",
                ">returns",
                ">snapshots",
                ">installed after",
                ">speed",
                ">voter after",
                ">puts/s meanwhile",
                ">quiet p50, p99 ms",
                ">meanwhile p50, p99 ms",
            ],
            std::iter::once(vec![
                rejoin.keys.to_string(),
                rejoin.returns.to_string(),
                format!("{:.0} MiB", rejoin.snapshot_mib),
                each(rejoin.installed_after_ms),
                format!("{:.0} MiB/s", rejoin.mib_per_second()),
                each(rejoin.voter_after_ms),
                rejoin.puts_per_second.to_string(),
                format!("{:.2}, {:.2}", rejoin.quiet_ms.0, rejoin.quiet_ms.1),
                format!("{:.2}, {:.2}", rejoin.meanwhile_ms.0, rejoin.meanwhile_ms.1),
            ]),
        );
    }

    fn rest(&mut self, part: &Part<Vec<Idle>>) {
        self.head("Three nodes at rest", &part.run);
        self.table(
            &["system", ">CPU of one core, each node", ">memory, each node"],
            part.found.iter().map(|idle| {
                let percent: Vec<String> = idle.permille.iter().copied().map(in_percent).collect();
                let mib: Vec<String> = idle.resident_mib.iter().map(|mib| format!("{mib} MiB")).collect();
                vec![idle.kind.name().to_owned(), percent.join(", "), mib.join(", ")]
            }),
        );
    }

    fn handover(&mut self, part: &Part<Vec<Handover>>) {
        self.head("Another node leads, three nodes, 16 writers", &part.run);
        self.table(
            &[
                "what happens",
                ">times",
                ">writes stand still, median",
                ">shortest",
                ">longest",
                ">failed writes",
            ],
            part.found.iter().map(|handover| {
                let still = &handover.still_ms;
                let ms = |at: Option<&u64>| format!("{} ms", at.copied().unwrap_or(0));
                vec![
                    handover.what.clone(),
                    still.len().to_string(),
                    format!("{} ms", handover.median_ms()),
                    ms(still.first()),
                    ms(still.last()),
                    handover.failed.to_string(),
                ]
            }),
        );
    }

    fn overload(&mut self, part: &Part<Overload>) {
        self.head("Four times the load of the peak, three nodes", &part.run);
        let overload = &part.found;
        self.table(
            &[
                ">peak",
                ">offered",
                ">acknowledged",
                ">of the peak",
                ">turned away",
                ">acknowledged and lost",
                ">CPU at the peak",
                ">CPU",
            ],
            std::iter::once(vec![
                format!("{}/s", overload.peak),
                format!("{}/s", overload.offered),
                format!("{}/s", overload.acknowledged),
                format!("{} %", overload.left_percent()),
                format!("{}/s", overload.turned_away),
                overload.lost.to_string(),
                format!("{} us", overload.peak_cpu_us),
                format!("{} us", overload.cpu_us),
            ]),
        );
    }
}

const LOG_COLUMNS: [&str; 5] = [
    ">syncs/s",
    ">entries a sync",
    ">bytes a sync",
    ">write and sync, mean us",
    ">99 % under us",
];

fn log_row(log: &LogWork) -> Vec<String> {
    vec![
        format!("{:.0}", log.syncs_per_second),
        format!("{:.1}", log.entries_per_sync),
        format!("{:.0}", log.bytes_per_sync),
        format!("{:.0}", log.mean_us),
        log.p99_under_us
            .map_or_else(|| "above all bounds".to_owned(), |bound| bound.to_string()),
    ]
}

fn growth_row(point: &Point) -> Vec<String> {
    let load = &point.load;
    let rates: Vec<String> = load.rates.iter().map(u64::to_string).collect();
    let value_bytes = match point.grown {
        Grown::ValueBytes => point.at,
        Grown::Keys | Grown::Nodes => VALUE_BYTES as u64,
    };
    let system = if point.kind == Kind::Onward {
        "onward"
    } else {
        "etcd"
    };
    vec![
        plots::size(point.grown, point.at),
        system.to_owned(),
        load.rate().to_string(),
        rates.join(" "),
        format!("{:.1}", (load.rate() * value_bytes) as f64 / 1e6),
        format!("{:.2}", load.p50_ms),
        format!("{:.2}", load.p99_ms),
        format!("{:.1}", load.cpu_us),
        point.resident_mib.to_string(),
        point.disk_mib.to_string(),
    ]
}

pub(super) fn in_percent(permille: u64) -> String {
    format!("{}.{} %", permille / 10, permille % 10)
}
