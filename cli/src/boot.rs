//! `onward boot`: what machines boot.

use crate::examples::examples;
use crate::failure::Result;
use crate::session::Session;
use crate::table::{Cell, Table};
use clap::{Args, Subcommand};
use onward_api::wire::netboot::{Spec, Template};
use std::path::PathBuf;

/// Commands on booting.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Boot templates
    #[command(subcommand, visible_alias = "templates", after_help = examples![
        "boot template set worker-ipxe --makes ipxe -l role=worker -f worker.ipxe",
        "boot template render S1001 ipxe",
    ])]
    Template(TemplateCommand),
}

/// Commands on boot templates.
#[derive(Debug, Subcommand)]
pub enum TemplateCommand {
    /// List boot templates
    #[command(visible_alias = "ls", after_help = examples!["boot template list"])]
    List,
    /// Print the text of a boot template
    #[command(after_help = examples!["boot template get worker-ipxe", "boot template get worker-ipxe -o yaml"])]
    Get(Get),
    /// Set a boot template
    #[command(after_help = examples![
        "boot template set worker-ipxe --makes ipxe -l role=worker -f worker.ipxe",
        "boot template set default --makes ignition --priority -10 -f - < default.ign",
    ])]
    Set(Set),
    /// Delete a boot template
    #[command(visible_alias = "rm", after_help = examples!["boot template delete worker-ipxe --yes"])]
    Delete(Delete),
    /// Print what a machine would get
    #[command(after_help = examples!["boot template render S1001 ipxe", "boot template render S1001 ignition"])]
    Render(Render),
}

/// Arguments of `boot template get`.
#[derive(Debug, Args)]
pub struct Get {
    /// The name of the template
    name: String,
}

/// Arguments of `boot template set`.
#[derive(Debug, Args)]
pub struct Set {
    /// The name of the template
    name: String,
    /// What it makes: ipxe, ignition, user-data, meta-data or network-config
    #[arg(long, value_name = "WHAT")]
    makes: String,
    /// For which machines; for all where it is not given
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    selector: Vec<String>,
    /// The highest wins where several choose a machine
    #[arg(
        long,
        value_name = "NUMBER",
        default_value_t = 0,
        allow_negative_numbers = true
    )]
    priority: i32,
    /// The text of the template; `-` reads standard input
    #[arg(short, long, value_name = "FILE")]
    file: PathBuf,
    /// Only if the template was last modified at this revision; 0 for "does not exist"
    #[arg(long, value_name = "REVISION")]
    expect: Option<u64>,
}

/// Arguments of `boot template delete`.
#[derive(Debug, Args)]
pub struct Delete {
    /// The name of the template
    name: String,
    /// Only if the template was last modified at this revision
    #[arg(long, value_name = "REVISION")]
    expect: Option<u64>,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

/// Arguments of `boot template render`.
#[derive(Debug, Args)]
pub struct Render {
    /// The serial of the machine
    serial: String,
    /// What to make: ipxe, ignition, user-data, meta-data or network-config
    kind: String,
}

/// Runs a command on booting.
pub(crate) async fn run(session: &mut Session<'_>, command: Command) -> Result {
    let Command::Template(command) = command;
    match command {
        TemplateCommand::List => {
            let templates = session
                .list(None, async |client, page| client.boot_template_list(page).await)
                .await?;
            session
                .output
                .show(&templates, |templates| table(&templates.items))
        }
        TemplateCommand::Get(Get { name }) => {
            let template = session.client.boot_template_get(&name).await?;
            session.output.show(&template, |template| {
                template.value.body.clone().unwrap_or_default()
            })
        }
        TemplateCommand::Set(arguments) => set(session, arguments).await,
        TemplateCommand::Delete(Delete { name, expect, yes }) => {
            session
                .output
                .confirm(&format!("delete boot template {name}"), yes)?;
            let done = session.client.boot_template_delete(&name, expect).await?;
            session.output.done(&done, |done| {
                format!("boot template {name} deleted at revision {}", done.revision)
            })
        }
        TemplateCommand::Render(Render { serial, kind }) => {
            let rendered = session.client.boot_template_render(&serial, &kind).await?;
            session.output.value(&rendered)
        }
    }
}

async fn set(session: &mut Session<'_>, arguments: Set) -> Result {
    let name = arguments.name;
    let spec = Spec {
        name: name.clone(),
        makes: arguments.makes,
        selector: arguments.selector.join(","),
        priority: arguments.priority,
        body: session.read_text(&arguments.file)?,
    };
    let done = session.client.boot_template_set(&spec, arguments.expect).await?;
    session.output.done(&done, |done| {
        format!("boot template {name} set at revision {}", done.revision)
    })
}

fn table(templates: &[Template]) -> Table {
    let mut table = Table::new(
        &["NAME", "MAKES", "SELECTOR", "PRIORITY", "BYTES"],
        &["GENERATION", "CREATED", "MODIFIED"],
    );
    for template in templates {
        table.push(vec![
            Cell::from(&template.name),
            Cell::from(&template.makes),
            Cell::from(&template.selector),
            Cell::from(template.priority),
            Cell::from(template.body_bytes),
            Cell::from(template.generation),
            Cell::from(template.created),
            Cell::from(template.modified),
        ]);
    }
    table
}
