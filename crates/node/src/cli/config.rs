//! `bifrost config`.

use clap::Subcommand;
use serde::Serialize;
use serde_json::Value;

use super::context::{Context, Output, Style};
use super::error::CliError;
use super::exit::Exit;
use crate::config::{Origin, SECTIONS, example, keys};

#[derive(Debug, clap::Args)]
pub(crate) struct ConfigArgs {
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Print a file with every key: its unit, its default, and the reason for it
    Example,
    /// Print the values that hold here, and where each came from
    Show,
}

/// One value, as JSON.
#[derive(Debug, Serialize)]
struct ValueReport {
    section: &'static str,
    key: &'static str,
    /// In the form of the file.
    value: Value,
    /// `default`, `file`, `env` or `flag`.
    source: &'static str,
    /// The file and line, the variable, or the flag.
    origin: Option<String>,
}

impl ConfigArgs {
    /// Whether it is asked for something that a broken configuration must not hide.
    pub(super) const fn needs_no_config(&self) -> bool {
        matches!(self.command, ConfigCommand::Example)
    }
}

pub(crate) fn run(context: &Context, args: &ConfigArgs) -> Result<Exit, CliError> {
    match args.command {
        ConfigCommand::Example => context.print(&example())?,
        ConfigCommand::Show if context.output() == Output::Json => {
            for report in reports(context) {
                context.print_json(&report)?;
            }
        }
        ConfigCommand::Show => context.print(&text(context))?,
    }
    Ok(Exit::Done)
}

fn reports(context: &Context) -> impl Iterator<Item = ValueReport> {
    keys().map(|key| {
        let origin = context.config().origin(key);
        let value = context.config().value(key);
        // Every value is written as TOML and JSON both read it.
        let value = serde_json::from_str(&value).unwrap_or(Value::String(value));
        let source = match origin {
            Origin::Default => "default",
            Origin::File { .. } => "file",
            Origin::Env { .. } => "env",
            Origin::Flag { .. } => "flag",
        };
        let origin = (origin != Origin::Default).then(|| origin.to_string());
        ValueReport { section: key.name.section, key: key.name.key, value, source, origin }
    })
}

/// The values as a file; where each came from is a comment.
fn text(context: &Context) -> String {
    let mut text = String::new();
    for (section, _) in SECTIONS {
        text += &format!("{}\n", context.paint(Style::Strong, format!("[{section}]")));
        for key in keys().filter(|key| key.name.section == *section) {
            let line = format!("{} = {}", key.name.key, context.config().value(key));
            let origin = context.config().origin(key);
            let style = if origin == Origin::Default { Style::Dim } else { Style::Good };
            text += &format!("{line:<44}  {}\n", context.paint(style, format!("# {origin}")));
        }
        text += "\n";
    }
    text.pop();
    text
}
