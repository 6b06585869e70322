//! `bifrost tail`.

use bifrost::TailKind;
use serde::Serialize;

use super::context::{Context, Output};
use super::error::CliError;
use super::exit::Exit;
use super::failures::look_error;
use super::log_ref::LogRef;

#[derive(Debug, clap::Args)]
pub(crate) struct TailArgs {
    /// The log, by name or number
    log: LogRef,
    /// Ask nobody but metadata: may be old, is never too high
    #[arg(long)]
    cached: bool,
}

/// The result, as JSON.
#[derive(Debug, Serialize)]
struct TailReport {
    log: u64,
    name: Option<String>,
    tail: u64,
    kind: &'static str,
}

pub(crate) async fn run(context: &Context, args: TailArgs) -> Result<Exit, CliError> {
    let log = context.log(&args.log).await?;
    let (kind, word) =
        if args.cached { (TailKind::Cached, "cached") } else { (TailKind::Linearizable, "linearizable") };
    let tail = context.within("asking for the tail", log.find_tail(kind)).await?;
    let tail = tail.map_err(|error| look_error(&args.log, error))?.lsn.get();
    if context.output() == Output::Json {
        context.print_json(&TailReport { log: log.id().get(), name: log.name(), tail, kind: word })?;
    } else {
        context.print(&format!("{tail}\n"))?;
    }
    Ok(Exit::Done)
}
