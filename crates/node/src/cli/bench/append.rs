//! `bifrost bench append`.

use super::ground::{Ground, failed};
use super::report::print;
use super::writers::{Appends, write};
use super::{LogsArgs, WritersArgs};
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;

#[derive(Debug, clap::Args)]
pub(crate) struct AppendArgs {
    #[command(flatten)]
    logs: LogsArgs,
    #[command(flatten)]
    writers: WritersArgs,
}

pub(crate) async fn run(context: &Context, args: AppendArgs) -> Result<Exit, CliError> {
    let ground = Ground::make(context, &args.logs).await?;
    let written = write(context, &ground, &args.writers, &()).await;
    let written = ground.clear(context, written.map_err(|error| failed("an append", &error))).await?;
    if context.stop().is_cancelled() {
        return Err(CliError::interrupted());
    }
    print(context, &Appends::of("append", &args.logs, &args.writers, &written))?;
    Ok(Exit::Done)
}
