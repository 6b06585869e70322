//! `bifrost bench append`.

use serde::Serialize;

use super::ground::{Ground, failed};
use super::report::{Percentiles, Rate, Report, Setting, print, rate_rows, times_row};
use super::writers::write;
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

/// The result, as JSON.
#[derive(Debug, Serialize)]
struct AppendReport {
    #[serde(flatten)]
    setting: Setting,
    writers: u32,
    in_flight: u32,
    #[serde(flatten)]
    rate: Rate,
    latency_micros: Percentiles,
}

impl Report for AppendReport {
    fn rows(&self) -> Vec<(String, String)> {
        let mut rows = rate_rows(&self.rate);
        rows.push(times_row("append", &self.latency_micros));
        rows
    }
}

pub(crate) async fn run(context: &Context, args: AppendArgs) -> Result<Exit, CliError> {
    let ground = Ground::make(context, &args.logs).await?;
    let written = write(context, &ground, &args.writers, &()).await;
    let written = ground.clear(context, written.map_err(|error| failed("an append", &error))).await?;
    if context.stop().is_cancelled() {
        return Err(CliError::interrupted());
    }
    let report = AppendReport {
        setting: Setting::of("append", &args.logs),
        writers: args.writers.writers.get(),
        in_flight: args.writers.in_flight,
        rate: Rate::of(written.times.len(), args.logs.size, written.took),
        latency_micros: written.times.percentiles(),
    };
    print(context, &report)?;
    Ok(Exit::Done)
}
