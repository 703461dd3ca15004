//! Completion scripts for shells.

use crate::failure::Result;
use crate::output::Output;
use clap::Args;
use clap_complete::Shell;

/// Arguments of `completion`.
#[derive(Debug, Args)]
pub struct Completion {
    /// For which shell
    shell: Shell,
}

/// Writes the script for `root`, the whole command tree of the program.
pub(crate) fn run(output: &mut Output, arguments: &Completion, mut root: clap::Command) -> Result {
    let name = root.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut root, name, &mut script);
    output.bytes(&script)
}
