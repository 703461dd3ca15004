//! Arguments and help.

use super::Program;
use clap::{CommandFactory, Parser};

/// Visits every command of the tree with its path.
fn walk(command: &clap::Command, path: &str, visit: &mut impl FnMut(&clap::Command, &str)) {
    visit(command, path);
    for inner in command.get_subcommands() {
        walk(inner, &format!("{path} {}", inner.get_name()), visit);
    }
}

#[test]
fn the_command_tree_is_sound() {
    Program::command().debug_assert();
}

#[test]
fn every_command_shows_an_example_that_parses() {
    let mut examples = 0;
    walk(&Program::command(), "onward", &mut |command, path| {
        if path == "onward" {
            return;
        }
        let help = command
            .get_after_help()
            .map(ToString::to_string)
            .unwrap_or_default();
        let lines: Vec<&str> = help
            .lines()
            .filter(|line| line.starts_with("  onward "))
            .collect();
        assert!(
            help.starts_with("Examples:\n") && !lines.is_empty(),
            "`{path} --help` has no example"
        );
        for line in lines {
            let words = words(line);
            if let Err(error) = Program::try_parse_from(&words) {
                panic!("the example `{line}` of `{path}` does not parse: {error}");
            }
            assert!(
                line.trim_start().starts_with(path),
                "the example `{line}` is not one of `{path}`"
            );
            examples += 1;
        }
    });
    assert!(examples > 60, "only {examples} examples were found");
}

#[test]
fn every_argument_is_explained() {
    walk(&Program::command(), "onward", &mut |command, path| {
        assert!(
            command.get_about().is_some() || path == "onward",
            "`{path}` does not say what it does"
        );
        for argument in command.get_arguments() {
            assert!(
                argument.get_help().is_some(),
                "`{path}` does not explain {}",
                argument.get_id()
            );
        }
    });
}

/// The words of an example up to a redirection or its explanation, as a shell splits them.
fn words(line: &str) -> Vec<String> {
    let line = line.trim_start();
    let line = line.split("   ").next().unwrap_or(line);
    let line = line.split(" < ").next().unwrap_or(line);
    let line = line.split(" > ").next().unwrap_or(line);
    let mut words = vec![String::new()];
    let mut quoted = false;
    for c in line.chars() {
        match c {
            '\'' => quoted = !quoted,
            ' ' if !quoted => words.push(String::new()),
            c => words.last_mut().expect("there is a word").push(c),
        }
    }
    assert!(!quoted, "a quote of `{line}` is not closed");
    words
}
