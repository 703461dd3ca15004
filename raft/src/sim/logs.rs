//! What nodes log, in the trace.

use super::process::Process;
use std::fmt::{Debug, Write};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// Notes what tasks of simulated processes log.
pub(crate) struct Logs;

#[derive(Default)]
struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        // Writing to a string does not fail.
        let _ = if field.name() == "message" {
            write!(self.0, " {value:?}")
        } else {
            write!(self.0, " {}={value:?}", field.name())
        };
    }
}

impl Subscriber for Logs {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // The engine below logs the machine's own time now and then, which no two runs share.
        let own = metadata.target().starts_with("onward");
        metadata.is_event() && own && *metadata.level() <= Level::DEBUG
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        if let Some(process) = Process::current() {
            process.machine.world.note(|| {
                let mut line = Line::default();
                event.record(&mut line);
                format!(
                    "n{} {} {}:{}",
                    process.machine.id,
                    event.metadata().level(),
                    event.metadata().target(),
                    line.0
                )
            });
        }
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}
