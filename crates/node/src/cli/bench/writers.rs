//! Writers that have a number of appends in flight all the time.

use std::collections::VecDeque;
use std::time::Duration;

use bifrost::{AppendError, Appender, AppenderOptions, Log, ReserveError, Ticket};
use bytes::Bytes;
use futures_util::future::try_join_all;
use serde::Serialize;
use thiserror::Error;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::ground::Ground;
use super::report::{Percentiles, Rate, Report, Setting, Times, rate_rows, times_row};
use super::{LogsArgs, Period, WritersArgs};
use crate::cli::context::Context;

/// Why a writer stopped.
#[derive(Debug, Error)]
pub(super) enum WriteError {
    /// An append was not acknowledged.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// The log takes no more.
    #[error(transparent)]
    Reserve(#[from] ReserveError),
}

/// What writers did in the time that counts.
#[derive(Debug, Default)]
pub(super) struct Written {
    pub(super) times: Times,
    /// Until the last of them had all its outcomes, or the time was over.
    pub(super) took: Duration,
}

/// What was written, for a report.
#[derive(Debug, Serialize)]
pub(super) struct Appends {
    #[serde(flatten)]
    setting: Setting,
    writers: u32,
    in_flight: u32,
    #[serde(flatten)]
    rate: Rate,
    latency_micros: Percentiles,
}

impl Appends {
    pub(super) fn of(bench: &'static str, logs: &LogsArgs, writers: &WritersArgs, written: &Written) -> Self {
        Self {
            setting: Setting::of(bench, logs),
            writers: writers.writers.get(),
            in_flight: writers.in_flight,
            rate: Rate::of(written.times.len(), logs.size, written.took),
            latency_micros: written.times.percentiles(),
        }
    }
}

impl Report for Appends {
    fn rows(&self) -> Vec<(String, String)> {
        let mut rows = rate_rows(&self.rate);
        rows.push(times_row("append", &self.latency_micros));
        rows
    }
}

/// Told of each outcome.
pub(super) trait Witness: Sync {
    /// An append to this log.
    fn acknowledged(&self, log: usize);

    /// Returns whether the writers go on.
    fn failed(&self, error: &AppendError) -> bool;
}

/// Nobody, who has nothing to say of a run in which an append failed.
impl Witness for () {
    fn acknowledged(&self, _: usize) {}

    fn failed(&self, _: &AppendError) -> bool {
        false
    }
}

/// Writes to all logs until the time is over, or the command is told to stop.
pub(super) async fn write(
    context: &Context,
    ground: &Ground,
    args: &WritersArgs,
    witness: &dyn Witness,
) -> Result<Written, WriteError> {
    let enough = context.stop().child_token();
    let counts = args.time.period();
    let writers = ground.logs.iter().enumerate().flat_map(|(place, log)| {
        let enough = &enough;
        (0..args.writers.get()).map(move |_| {
            let writer = Writer { appender: appender(context, log), log: place, witness, counts };
            writer.run(&ground.payload, args.in_flight as usize, enough)
        })
    });
    let done = try_join_all(writers).await?;
    let mut written =
        Written { took: counts.until.min(Instant::now()) - counts.from.min(Instant::now()), ..Written::default() };
    done.iter().for_each(|times| written.times.add(times));
    Ok(written)
}

fn appender(context: &Context, log: &Log) -> Appender {
    log.appender_with(AppenderOptions { ..context.config().appender.clone() })
}

struct Writer<'a> {
    appender: Appender,
    log: usize,
    witness: &'a dyn Witness,
    counts: Period,
}

impl Writer<'_> {
    async fn run(self, payload: &Bytes, in_flight: usize, enough: &CancellationToken) -> Result<Times, WriteError> {
        let mut times = Times::default();
        let mut waiting: VecDeque<(Instant, Ticket)> = VecDeque::with_capacity(in_flight);
        while Instant::now() < self.counts.until && !enough.is_cancelled() {
            if waiting.len() >= in_flight
                && let Some((sent, ticket)) = waiting.pop_front()
            {
                self.settle(sent, ticket, &mut times).await?;
            }
            let sent = Instant::now();
            let permit = self.appender.reserve(payload.len()).await?;
            waiting.push_back((sent, permit.send(payload.clone())));
        }
        for (sent, ticket) in waiting {
            self.settle(sent, ticket, &mut times).await?;
        }
        Ok(times)
    }

    async fn settle(&self, sent: Instant, ticket: Ticket, times: &mut Times) -> Result<(), AppendError> {
        match ticket.await {
            Ok(_) => {}
            Err(error) if self.witness.failed(&error) => return Ok(()),
            Err(error) => return Err(error),
        }
        self.witness.acknowledged(self.log);
        let now = Instant::now();
        if self.counts.from <= now && now < self.counts.until {
            times.record(now - sent);
        }
        Ok(())
    }
}
