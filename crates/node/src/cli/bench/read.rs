//! `bifrost bench read`.

use std::num::{NonZeroU32, NonZeroU64};

use bifrost::{Log, Lsn, ReadError, ReadEvent, ReadOptions};
use futures_util::StreamExt;
use futures_util::future::try_join_all;
use serde::Serialize;
use tokio::time::Instant;

use super::LogsArgs;
use super::ground::{Ground, failed};
use super::report::{Rate, Report, Setting, print, rate_rows};
use crate::cli::context::Context;
use crate::cli::error::{CliError, ErrorCode};
use crate::cli::exit::Exit;

#[derive(Debug, clap::Args)]
pub(crate) struct ReadArgs {
    #[command(flatten)]
    logs: LogsArgs,
    /// Records that are written to each log first
    #[arg(long, value_name = "N", default_value = "100000")]
    records: NonZeroU64,
    /// Readers of each log, all at the same time
    #[arg(long, value_name = "N", default_value = "1")]
    readers: NonZeroU32,
}

/// The result, as JSON.
#[derive(Debug, Serialize)]
struct ReadReport {
    #[serde(flatten)]
    setting: Setting,
    readers: u32,
    #[serde(flatten)]
    rate: Rate,
}

impl Report for ReadReport {
    fn rows(&self) -> Vec<(String, String)> {
        rate_rows(&self.rate)
    }
}

pub(crate) async fn run(context: &Context, args: ReadArgs) -> Result<Exit, CliError> {
    let ground = Ground::make(context, &args.logs).await?;
    let outcome = tokio::select! {
        biased;
        () = context.stop().cancelled() => Err(CliError::interrupted()),
        outcome = measure(context, &ground, &args) => outcome,
    };
    let rate = ground.clear(context, outcome).await?;
    let report = ReadReport { setting: Setting::of("read", &args.logs), readers: args.readers.get(), rate };
    print(context, &report)?;
    Ok(Exit::Done)
}

async fn measure(context: &Context, ground: &Ground, args: &ReadArgs) -> Result<Rate, CliError> {
    let filled = try_join_all(ground.logs.iter().map(|log| fill(context, log, ground, args.records))).await?;
    let begun = Instant::now();
    let readers = ground
        .logs
        .iter()
        .zip(&filled)
        .flat_map(|(log, tail)| (0..args.readers.get()).map(|_| count(context, log, *tail)));
    let read = try_join_all(readers).await.map_err(|error| failed("a read", &error))?;
    let took = begun.elapsed();
    if let Some(wrong) = read.iter().find(|records| **records != args.records.get()) {
        let told = format!("a reader was given {wrong} records of {}", args.records);
        return Err(CliError::new(ErrorCode::Failed, told));
    }
    Ok(Rate::of(read.iter().sum(), args.logs.size, took))
}

/// Writes the records; returns the tail.
async fn fill(context: &Context, log: &Log, ground: &Ground, records: NonZeroU64) -> Result<Lsn, CliError> {
    let appender = log.appender_with(context.config().appender.clone());
    let write_failed = |error: &(dyn std::error::Error + 'static)| failed("an append", error);
    for _ in 1..records.get() {
        let permit = appender.reserve(ground.payload.len()).await.map_err(|error| write_failed(&error))?;
        // The last one tells for all: what a writer sent before is in the log before.
        drop(permit.send(ground.payload.clone()));
    }
    let last = appender.append(ground.payload.clone()).await.map_err(|error| write_failed(&error))?;
    last.advance(1).map_err(|error| write_failed(&error))
}

async fn count(context: &Context, log: &Log, tail: Lsn) -> Result<u64, ReadError> {
    let credit_bytes = context.config().reader_credit_bytes;
    let mut reader = log.read(ReadOptions { until: Some(tail), credit_bytes, ..ReadOptions::default() });
    let mut records = 0;
    while let Some(event) = reader.next().await {
        records += u64::from(matches!(event?, ReadEvent::Record(_)));
    }
    Ok(records)
}
