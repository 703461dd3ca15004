//! The commands as a user runs them, against a scripted server.

mod commands;
mod help;
mod manifests;
mod members;
mod rollouts;
mod server;

use self::server::Server;
use crate::output::Streams;
use crate::{Command, Global};
use clap::{CommandFactory, Parser};
use std::io::{self, Cursor, Write};
use std::sync::{Arc, Mutex};

/// The program, as far as it is a client.
#[derive(Debug, Parser)]
#[command(name = "onward", version)]
struct Program {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// What a command came to.
#[derive(Debug, PartialEq, Eq)]
struct Ran {
    code: u8,
    output: String,
    error: String,
}

/// How a command is run.
#[derive(Default)]
struct Setting<'a> {
    server: String,
    input: &'a str,
    interactive: bool,
    animated: bool,
}

#[derive(Clone, Default)]
struct Buffer(Arc<Mutex<Vec<u8>>>);

impl Buffer {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Setting<'_> {
    /// With this server, and nobody at the terminal.
    fn of(server: &Server) -> Self {
        Setting {
            server: server.url(),
            ..Setting::default()
        }
    }

    /// Runs `onward ARGUMENTS`.
    fn run(&self, arguments: &[&str]) -> Ran {
        let mut line = vec!["onward"];
        line.extend(arguments);
        let program = Program::try_parse_from(&line).expect("the arguments parse");
        let mut global = program.global;
        if !self.server.is_empty() {
            global.server = self.server.split(',').map(str::to_owned).collect();
        }
        let (output, error) = (Buffer::default(), Buffer::default());
        let streams = Streams {
            input: Box::new(Cursor::new(self.input.to_owned())),
            output: Box::new(output.clone()),
            error: Box::new(error.clone()),
            interactive: self.interactive,
            terminal: false,
            color: false,
            animated: self.animated,
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let code = runtime.block_on(crate::execute(global, program.command, Program::command, streams));
        Ran {
            code,
            output: output.text(),
            error: error.text(),
        }
    }
}
