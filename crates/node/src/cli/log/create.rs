//! `bifrost log create`.

use bifrost::{LogOptions, ReplicationProperty};
use serde::Serialize;

use crate::cli::context::{Context, Output};
use crate::cli::error::{CliError, ErrorCode};
use crate::cli::exit::Exit;
use crate::cli::failures::log_error;
use crate::cli::log_ref::LogRef;

#[derive(Debug, clap::Args)]
pub(crate) struct CreateArgs {
    /// The name: 1 to 255 letters, digits, `-`, `_` and `.`, with a letter in it
    name: LogRef,
    /// How many copies, and in which domains: `2`, or `{zone: 2, node: 3}` [default: the cluster's]
    #[arg(long, value_name = "PROPERTY")]
    replication: Option<ReplicationProperty>,
}

/// The new log, as JSON.
#[derive(Debug, Serialize)]
struct CreateReport {
    log: u64,
    name: Option<String>,
    replication: Option<String>,
    sequencer: Option<String>,
    nodeset: Vec<String>,
}

pub(crate) async fn run(context: &Context, args: CreateArgs) -> Result<Exit, CliError> {
    let LogRef::Name(name) = &args.name else {
        let error = CliError::new(ErrorCode::InvalidArgument, format!("`{}` is a number, not a name", args.name));
        return Err(error.with_advice("a name has a letter in it; numbers are given by the cluster"));
    };
    let options = LogOptions { replication: args.replication, ..LogOptions::default() };
    let bifrost = context.bifrost().await?;
    let made = context.within("making the log", bifrost.create_log(name, options)).await?;
    let log = made.map_err(|error| log_error(&args.name, error))?;
    let chain = log.chain();
    let params = chain.last().map(|last| &last.params);
    let report = CreateReport {
        log: log.id().get(),
        name: log.name(),
        replication: params.map(|params| params.replication.to_string()),
        sequencer: params.map(|params| params.sequencer.to_string()),
        nodeset: params.into_iter().flat_map(|params| params.nodeset.members()).map(|m| m.node.to_string()).collect(),
    };
    if context.output() == Output::Json {
        context.print_json(&report)?;
    } else {
        let replication = report.replication.unwrap_or_default();
        let on = report.nodeset.join(", ");
        context.print(&format!("log {name} has number {}, replication {replication} on {on}\n", log.id()))?;
    }
    Ok(Exit::Done)
}
