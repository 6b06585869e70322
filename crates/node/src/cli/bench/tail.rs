//! `bifrost bench tail`.

use std::time::Duration;

use bifrost::{AppendError, Log, Lsn, ReadError, ReadEvent, ReadOptions, Reader, ReserveError};
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::try_join_all;
use serde::Serialize;
use thiserror::Error;
use tokio::time::Instant;

use super::LogsArgs;
use super::ground::{Ground, failed};
use super::report::{Percentiles, Rate, Report, Setting, Times, print, rate_rows, times_row};
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::values::parse_duration;

#[derive(Debug, clap::Args)]
pub(crate) struct TailArgs {
    #[command(flatten)]
    logs: LogsArgs,
    /// How long is measured
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_duration)]
    duration: Duration,
    /// How long is written before that
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = parse_duration)]
    warm_up: Duration,
}

/// The result, as JSON.
#[derive(Debug, Serialize)]
struct TailReport {
    #[serde(flatten)]
    setting: Setting,
    #[serde(flatten)]
    rate: Rate,
    /// From before the append to its acknowledgement.
    append_micros: Percentiles,
    /// From before the append until a reader delivered it.
    delivery_micros: Percentiles,
}

impl Report for TailReport {
    fn rows(&self) -> Vec<(String, String)> {
        let mut rows = rate_rows(&self.rate);
        rows.push(times_row("append", &self.append_micros));
        rows.push(times_row("delivery", &self.delivery_micros));
        rows
    }
}

/// Why it stopped.
#[derive(Debug, Error)]
enum TailError {
    #[error(transparent)]
    Append(#[from] AppendError),
    #[error(transparent)]
    Reserve(#[from] ReserveError),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("what was appended at {appended} was delivered at {delivered:?}")]
    Misplaced { appended: Lsn, delivered: Option<Lsn> },
}

pub(crate) async fn run(context: &Context, args: TailArgs) -> Result<Exit, CliError> {
    let ground = Ground::make(context, &args.logs).await?;
    let from = Instant::now() + args.warm_up;
    let until = from + args.duration;
    let followers = ground.logs.iter().map(|log| follow(context, log, &ground.payload, from, until));
    let outcome = tokio::select! {
        biased;
        () = context.stop().cancelled() => Err(CliError::interrupted()),
        outcome = try_join_all(followers) => outcome.map_err(|error| failed("an append or its delivery", &error)),
    };
    let followed = ground.clear(context, outcome).await?;
    let (mut appends, mut deliveries) = (Times::default(), Times::default());
    for (append, delivery) in &followed {
        appends.add(append);
        deliveries.add(delivery);
    }
    let report = TailReport {
        setting: Setting::of("tail", &args.logs),
        rate: Rate::of(deliveries.len(), args.logs.size, args.duration),
        append_micros: appends.percentiles(),
        delivery_micros: deliveries.percentiles(),
    };
    print(context, &report)?;
    Ok(Exit::Done)
}

async fn follow(
    context: &Context,
    log: &Log,
    payload: &Bytes,
    from: Instant,
    until: Instant,
) -> Result<(Times, Times), TailError> {
    let appender = log.appender_with(context.config().appender.clone());
    let mut reader = log.read(ReadOptions::default());
    let (mut appends, mut deliveries) = (Times::default(), Times::default());
    while Instant::now() < until {
        let sent = Instant::now();
        let ticket = appender.reserve(payload.len()).await?.send(payload.clone());
        let acknowledged = async {
            let lsn = ticket.await?;
            Ok::<_, TailError>((lsn, sent.elapsed()))
        };
        let delivered = async { Ok::<_, TailError>((next_record(&mut reader).await?, sent.elapsed())) };
        let ((appended, append), (delivered, delivery)) = tokio::try_join!(acknowledged, delivered)?;
        if delivered != Some(appended) {
            return Err(TailError::Misplaced { appended, delivered });
        }
        if from <= sent {
            appends.record(append);
            deliveries.record(delivery);
        }
    }
    Ok((appends, deliveries))
}

async fn next_record(reader: &mut Reader) -> Result<Option<Lsn>, ReadError> {
    while let Some(event) = reader.next().await {
        if let ReadEvent::Record(record) = event? {
            return Ok(Some(record.lsn));
        }
    }
    Ok(None)
}
