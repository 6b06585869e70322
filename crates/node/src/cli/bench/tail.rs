//! `bifrost bench tail`.

use bifrost::{AppendError, Log, Lsn, ReadError, ReadEvent, ReadOptions, Reader, ReserveError};
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::try_join_all;
use serde::Serialize;
use thiserror::Error;
use tokio::time::Instant;

use super::ground::{Ground, failed};
use super::report::{Percentiles, Rate, Report, Setting, Times, print, rate_rows, times_row};
use super::{LogsArgs, Period, TimeArgs};
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;

#[derive(Debug, clap::Args)]
pub(crate) struct TailArgs {
    #[command(flatten)]
    logs: LogsArgs,
    #[command(flatten)]
    time: TimeArgs,
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
    let counts = args.time.period();
    let followers = ground.logs.iter().map(|log| follow(context, log, &ground.payload, counts));
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
        rate: Rate::of(deliveries.len(), args.logs.size, args.time.duration),
        append_micros: appends.percentiles(),
        delivery_micros: deliveries.percentiles(),
    };
    print(context, &report)?;
    Ok(Exit::Done)
}

async fn follow(context: &Context, log: &Log, payload: &Bytes, counts: Period) -> Result<(Times, Times), TailError> {
    let appender = log.appender_with(context.config().appender.clone());
    let mut reader = log.read(ReadOptions::default());
    let (mut appends, mut deliveries) = (Times::default(), Times::default());
    while Instant::now() < counts.until {
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
        if counts.from <= sent {
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
