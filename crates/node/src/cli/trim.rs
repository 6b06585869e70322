//! `bifrost trim`.

use bifrost::Lsn;
use serde::Serialize;

use super::context::{Context, Output};
use super::error::CliError;
use super::exit::Exit;
use super::failures::log_error;
use super::log_ref::LogRef;

#[derive(Debug, clap::Args)]
pub(crate) struct TrimArgs {
    /// The log, by name or number
    log: LogRef,
    /// The last LSN that goes
    #[arg(long, value_name = "LSN", value_parser = super::values::parse_lsn)]
    to: Lsn,
}

/// The result, as JSON.
#[derive(Debug, Serialize)]
struct TrimReport {
    log: u64,
    name: Option<String>,
    trim_point: u64,
}

pub(crate) async fn run(context: &Context, args: TrimArgs) -> Result<Exit, CliError> {
    let log = context.log(&args.log).await?;
    let trim_point = context.within("trimming", log.trim(args.to)).await?;
    let trim_point = trim_point.map_err(|error| log_error(&args.log, error))?;
    if context.output() == Output::Json {
        context.print_json(&TrimReport { log: log.id().get(), name: log.name(), trim_point: trim_point.get() })?;
    } else {
        let beyond = if trim_point > args.to { " (it was trimmed so far before)" } else { "" };
        context.print(&format!("log {} is trimmed up to and including LSN {trim_point}{beyond}\n", args.log))?;
    }
    Ok(Exit::Done)
}
