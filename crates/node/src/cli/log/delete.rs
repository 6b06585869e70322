//! `bifrost log delete`.

use serde::Serialize;

use crate::cli::context::{Context, Output};
use crate::cli::error::{CliError, ErrorCode};
use crate::cli::exit::Exit;
use crate::cli::failures::log_error;
use crate::cli::log_ref::LogRef;
use crate::cli::waiting::with_progress;

#[derive(Debug, clap::Args)]
pub(crate) struct DeleteArgs {
    /// The log, by name or number
    log: LogRef,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

/// The result, as JSON.
#[derive(Debug, Serialize)]
struct DeleteReport {
    log: u64,
    name: Option<String>,
    deleted: bool,
}

pub(crate) async fn run(context: &Context, args: DeleteArgs) -> Result<Exit, CliError> {
    let log = context.log(&args.log).await?;
    let name = log.name();
    if !args.yes {
        let question = format!("delete log {} (number {}) and all its records for good?", args.log, log.id());
        if !context.confirm(&question)? {
            return Err(CliError::new(ErrorCode::Refused, "not confirmed: nothing was deleted"));
        }
    }
    let bifrost = context.bifrost().await?;
    let deleting = bifrost.delete_log(log.id());
    let deleted = with_progress(context, "deleting the log", log.progress(), deleting).await?;
    deleted.map_err(|error| log_error(&args.log, error))?;
    if context.output() == Output::Json {
        context.print_json(&DeleteReport { log: log.id().get(), name, deleted: true })?;
    } else {
        let text = format!("log {} is deleted; its servers give the space back in the background\n", args.log);
        context.print(&text)?;
    }
    Ok(Exit::Done)
}
