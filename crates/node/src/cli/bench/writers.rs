//! Writers that have a number of appends in flight all the time.

use std::collections::VecDeque;
use std::time::Duration;

use bifrost::{AppendError, Appender, AppenderOptions, Log, ReserveError, Ticket};
use bytes::Bytes;
use futures_util::future::try_join_all;
use thiserror::Error;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::WritersArgs;
use super::ground::Ground;
use super::report::Times;
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

/// Told of each acknowledgement, of which log.
pub(super) trait Witness: Sync {
    fn acknowledged(&self, log: usize);
}

/// Nobody.
impl Witness for () {
    fn acknowledged(&self, _: usize) {}
}

/// Writes to all logs until the time is over, or the command is told to stop.
pub(super) async fn write(
    context: &Context,
    ground: &Ground,
    args: &WritersArgs,
    witness: &dyn Witness,
) -> Result<Written, WriteError> {
    let enough = context.stop().child_token();
    let begun = Instant::now();
    let counts = Period { from: begun + args.warm_up, until: begun + args.warm_up + args.duration };
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

/// The time that counts.
#[derive(Debug, Clone, Copy)]
struct Period {
    from: Instant,
    until: Instant,
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
                ticket.await?;
                self.took(sent, &mut times);
            }
            let sent = Instant::now();
            let permit = self.appender.reserve(payload.len()).await?;
            waiting.push_back((sent, permit.send(payload.clone())));
        }
        for (sent, ticket) in waiting {
            ticket.await?;
            self.took(sent, &mut times);
        }
        Ok(times)
    }

    fn took(&self, sent: Instant, times: &mut Times) {
        self.witness.acknowledged(self.log);
        let now = Instant::now();
        if self.counts.from <= now && now < self.counts.until {
            times.record(now - sent);
        }
    }
}
