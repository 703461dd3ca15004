//! The options that every client command takes.

use clap::{Args, ValueEnum};
use std::str::FromStr;
use std::time::Duration;

/// Options of every client command.
#[derive(Debug, Clone, Args)]
pub struct Global {
    /// API addresses, tried in order until one answers
    #[arg(
        long, global = true, env = "ONWARD_SERVER", hide_env_values = true, value_name = "URL", value_delimiter = ',',
        default_value = "http://127.0.0.1:7400", help_heading = HEADING
    )]
    pub server: Vec<String>,

    /// What standard output is for: people, or programs
    #[arg(short, long, global = true, value_name = "FORMAT", default_value = "table", help_heading = HEADING)]
    pub output: Format,

    /// How long to wait for an answer: 500ms, 10s, 2m
    #[arg(
        long, global = true, value_name = "TIME", default_value = "30s", value_parser = duration, help_heading = HEADING
    )]
    pub timeout: Duration,

    /// How fresh reads are: linearizable, local, or at-least=REVISION
    #[arg(long, global = true, value_name = "HOW", default_value = "linearizable", help_heading = HEADING)]
    pub consistency: Consistency,

    /// Read the state as of this revision: every get and list, within the history that is kept
    #[arg(long, global = true, value_name = "REVISION", help_heading = HEADING)]
    pub at: Option<u64>,

    /// Say nothing but results and errors
    #[arg(short, long, global = true, help_heading = HEADING)]
    pub quiet: bool,
}

const HEADING: &str = "Client options";

/// How results are written to standard output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Aligned columns
    Table,
    /// Aligned columns, more of them
    Wide,
    /// JSON
    Json,
    /// YAML
    Yaml,
}

/// How fresh a read is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consistency {
    /// Sees every write that was acknowledged before.
    Linearizable,
    /// Sees at least this revision.
    AtLeast(u64),
    /// Whatever the node that answers has.
    Local,
}

impl FromStr for Consistency {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "linearizable" => Ok(Consistency::Linearizable),
            "local" => Ok(Consistency::Local),
            _ => text
                .strip_prefix("at-least=")
                .and_then(|revision| revision.parse().ok())
                .map(Consistency::AtLeast)
                .ok_or_else(|| "it is `linearizable`, `local` or `at-least=REVISION`".to_owned()),
        }
    }
}

/// A time with its unit: `500ms`, `10s`, `2m`, `1h`, `30d`. More than zero.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let rule = || "it is a whole number above 0 and a unit: 500ms, 10s, 2m, 1h, 30d".to_owned();
    let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(rule)?;
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| rule())?;
    let unit_ms = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(rule()),
    };
    match number.checked_mul(unit_ms) {
        None | Some(0) => Err(rule()),
        Some(ms) => Ok(Duration::from_millis(ms)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        assert_eq!(duration("1500ms"), Ok(Duration::from_millis(1500)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        for wrong in [
            "",
            "5",
            "s",
            "0s",
            "-1s",
            "1.5s",
            "1w",
            "99999999999999999999s",
            "18446744073709551615h",
        ] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn consistency_is_named() {
        assert_eq!("at-least=17".parse(), Ok(Consistency::AtLeast(17)));
        assert_eq!("local".parse(), Ok(Consistency::Local));
        assert!("at-least=".parse::<Consistency>().is_err());
        assert!("stale".parse::<Consistency>().is_err());
    }
}
