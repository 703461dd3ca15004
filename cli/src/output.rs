//! Where results and messages go: results to standard output in the format that was asked for, everything else to
//! standard error. Nothing else of this crate writes to either.

use crate::failure::{Failure, Result};
use crate::global::Format;
use crate::table::{Details, Table};
use serde::Serialize;
use std::io::{self, BufRead, IsTerminal, Write};

/// The three standard streams and what is known about them.
pub(crate) struct Streams {
    pub(crate) input: Box<dyn BufRead + Send>,
    pub(crate) output: Box<dyn Write + Send>,
    pub(crate) error: Box<dyn Write + Send>,
    /// Whether there is somebody to ask: input and error are a terminal.
    pub(crate) interactive: bool,
    /// Whether standard output is a terminal.
    pub(crate) terminal: bool,
    /// Whether standard output takes colours.
    pub(crate) color: bool,
    /// Whether standard error takes colours and redrawn lines.
    pub(crate) animated: bool,
}

impl Streams {
    /// Those of this process.
    pub(crate) fn standard() -> Self {
        let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let color = !set("NO_COLOR") && !dumb;
        let error = io::stderr().is_terminal();
        Streams {
            input: Box::new(io::BufReader::new(io::stdin())),
            output: Box::new(io::BufWriter::new(io::stdout())),
            error: Box::new(io::stderr()),
            interactive: error && io::stdin().is_terminal(),
            terminal: io::stdout().is_terminal(),
            color: color && io::stdout().is_terminal(),
            animated: error && color,
        }
    }
}

/// Writes results and messages.
pub(crate) struct Output {
    streams: Streams,
    format: Format,
    quiet: bool,
}

/// What people see of a result.
pub(crate) enum View {
    /// Rows.
    Table(Table),
    /// One object.
    Details(Details),
    /// Lines that are written as they are.
    Text(String),
}

impl From<Table> for View {
    fn from(table: Table) -> Self {
        View::Table(table)
    }
}

impl From<Details> for View {
    fn from(details: Details) -> Self {
        View::Details(details)
    }
}

impl From<String> for View {
    fn from(text: String) -> Self {
        View::Text(text)
    }
}

impl Output {
    pub(crate) fn new(streams: Streams, format: Format, quiet: bool) -> Self {
        Output {
            streams,
            format,
            quiet,
        }
    }

    /// Whether results are for programs.
    pub(crate) fn structured(&self) -> bool {
        matches!(self.format, Format::Json | Format::Yaml)
    }

    /// Whether results are JSON.
    pub(crate) fn json(&self) -> bool {
        self.format == Format::Json
    }

    /// Whether tables show all their columns.
    pub(crate) fn wide(&self) -> bool {
        self.format == Format::Wide
    }

    /// Whether there is somebody to ask.
    pub(crate) fn interactive(&self) -> bool {
        self.streams.interactive
    }

    /// Whether standard error takes colours and redrawn lines.
    pub(crate) fn animated(&self) -> bool {
        self.streams.animated && !self.quiet
    }

    /// Whether standard output takes colours.
    pub(crate) fn color(&self) -> bool {
        self.streams.color
    }

    /// A result: `value` for programs, what `view` makes of it for people.
    pub(crate) fn show<T: Serialize, V: Into<View>>(
        &mut self,
        value: &T,
        view: impl FnOnce(&T) -> V,
    ) -> Result {
        let text = match self.format {
            Format::Json => pretty_json(value)?,
            Format::Yaml => yaml(value)?,
            Format::Table | Format::Wide => match view(value).into() {
                View::Table(table) => table.render(self.format == Format::Wide, self.streams.color),
                View::Details(details) => details.render(self.streams.color),
                View::Text(text) => text,
            },
        };
        self.bytes(text.as_bytes())
    }

    /// One result of a stream: a line of JSON or a YAML document for programs, a line for people. Seen at once.
    pub(crate) fn item<T: Serialize>(&mut self, value: &T, line: impl FnOnce(&T) -> String) -> Result {
        let text = match self.format {
            Format::Json => json_line(value)?,
            Format::Yaml => format!("---\n{}", yaml(value)?),
            Format::Table | Format::Wide => line(value),
        };
        self.bytes(text.as_bytes())
    }

    /// Bytes to standard output, as they are.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Result {
        self.streams.output.write_all(bytes)?;
        self.streams.output.flush()?;
        Ok(())
    }

    /// A stored value, as it is; on a terminal its last line is ended, so that the prompt is not glued to it.
    pub(crate) fn value(&mut self, bytes: &[u8]) -> Result {
        self.bytes(bytes)?;
        if self.streams.terminal && !bytes.is_empty() && !bytes.ends_with(b"\n") {
            self.bytes(b"\n")?;
        }
        Ok(())
    }

    /// A line for people about what was done; not in quiet mode.
    pub(crate) fn message(&mut self, line: &str) {
        if !self.quiet {
            // A message that nobody can read is no reason to fail.
            let _ = writeln!(self.streams.error, "{line}");
        }
    }

    /// The outcome of a write: `value` for programs, a message for people.
    pub(crate) fn done<T: Serialize>(&mut self, value: &T, message: impl FnOnce(&T) -> String) -> Result {
        if self.structured() {
            return self.show(value, |_| String::new());
        }
        self.message(&message(value));
        Ok(())
    }

    /// Draws `line` over the one that was drawn last; only where [`Output::animated`].
    pub(crate) fn redraw(&mut self, line: &str) {
        let _ = write!(self.streams.error, "\r\x1b[K{line}");
        let _ = self.streams.error.flush();
    }

    /// Why the command failed.
    pub(crate) fn failure(&mut self, failure: &Failure) {
        if failure.code() != 0 {
            let label = if self.streams.animated {
                "\x1b[31merror\x1b[0m"
            } else {
                "error"
            };
            let _ = writeln!(self.streams.error, "{label}: {failure}");
        }
    }

    /// Everything that standard input has.
    pub(crate) fn read_input(&mut self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let read = self.streams.input.read_to_end(&mut bytes);
        read.map_err(|error| Failure::usage(format!("standard input: {error}")))?;
        Ok(bytes)
    }

    /// Asks before something that cannot be taken back; `yes` answers in advance.
    pub(crate) fn confirm(&mut self, what: &str, yes: bool) -> Result {
        if yes {
            return Ok(());
        }
        if !self.streams.interactive {
            return Err(Failure::usage(format!(
                "{what}: there is no terminal to confirm this on; pass --yes"
            )));
        }
        let _ = write!(self.streams.error, "{what}? [y/N] ");
        let _ = self.streams.error.flush();
        let mut answer = String::new();
        let read = self.streams.input.read_line(&mut answer);
        read.map_err(|error| Failure::usage(format!("standard input: {error}")))?;
        if matches!(answer.trim(), "y" | "Y" | "yes") {
            return Ok(());
        }
        Err(Failure::Refused("not confirmed; nothing was done".to_owned()))
    }
}

fn pretty_json<T: Serialize>(value: &T) -> Result<String> {
    let mut text = serde_json::to_string_pretty(value).map_err(io::Error::from)?;
    text.push('\n');
    Ok(text)
}

fn json_line<T: Serialize>(value: &T) -> Result<String> {
    let mut text = serde_json::to_string(value).map_err(io::Error::from)?;
    text.push('\n');
    Ok(text)
}

/// A value as a YAML document.
pub(crate) fn yaml<T: Serialize>(value: &T) -> Result<String> {
    serde_norway::to_string(value).map_err(|error| Failure::Output(io::Error::other(error)))
}
