//! The examples under every `--help`. A test parses each of them.

/// `Examples:` and a line for each command, as `after_help`.
macro_rules! examples {
    ($($line:literal),+ $(,)?) => { concat!("Examples:", $("\n  onward ", $line),+) };
}
pub(crate) use examples;
