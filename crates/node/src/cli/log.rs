//! `bifrost log`: make, list, describe, delete.

mod create;
mod delete;
mod describe;
mod list;
mod pin;

use clap::Subcommand;

use super::context::Context;
use super::error::CliError;
use super::exit::Exit;

#[derive(Debug, clap::Args)]
pub(crate) struct LogArgs {
    #[command(subcommand)]
    command: LogCommand,
}

#[derive(Debug, Subcommand)]
enum LogCommand {
    /// Make a log
    Create(create::CreateArgs),
    /// List all logs
    List,
    /// Show a log's chain: where each segment lies, where it ends, who closed it and why
    Describe(describe::DescribeArgs),
    /// Say on which node a log's sequencer is to be
    #[command(after_help = pin::HELP)]
    Pin(pin::PinArgs),
    /// Delete a log for good: its records are gone, its name is free
    Delete(delete::DeleteArgs),
}

pub(crate) async fn run(context: &Context, args: LogArgs) -> Result<Exit, CliError> {
    match args.command {
        LogCommand::Create(args) => create::run(context, args).await,
        LogCommand::List => list::run(context).await,
        LogCommand::Describe(args) => describe::run(context, args).await,
        LogCommand::Pin(args) => pin::run(context, args).await,
        LogCommand::Delete(args) => delete::run(context, args).await,
    }
}
