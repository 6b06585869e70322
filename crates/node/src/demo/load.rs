//! The writers: each keeps a few appends in flight and notes how each of them ended.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bifrost::{Advice, AppendError, Appender, Log, Lsn, Ticket};
use hdrhistogram::Histogram;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::ledger::{AppenderLedger, PAYLOAD_BYTES_MIN};

/// An append that takes longer counts as this long, in microseconds: two minutes.
const LATENCY_MICROS_MAX: u64 = 120_000_000;

/// What all writers have done, for the progress line, and when to stop.
#[derive(Debug)]
pub(super) struct Load {
    pub(super) records: AtomicU64,
    pub(super) bytes: AtomicU64,
    /// Payload bytes and records that may still be begun.
    bytes_left: AtomicU64,
    records_left: AtomicU64,
    /// Whether those ran out.
    pub(super) exhausted: AtomicBool,
    pub(super) stop: CancellationToken,
}

/// What one writer does.
#[derive(Debug, Clone, Copy)]
pub(super) struct WriterOptions {
    pub(super) in_flight: usize,
    /// The mean payload; payloads are spread evenly from half of it to one and a half of it.
    pub(super) record_bytes: u32,
    pub(super) seed: u64,
}

/// What a writer hands in.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) ledger: AppenderLedger,
    /// From send to acknowledgement, in microseconds.
    pub(super) latency: Histogram<u64>,
    /// Appends that were not acknowledged.
    pub(super) failed: u64,
}

impl Load {
    pub(super) fn new(bytes_max: u64, records_max: u64, stop: CancellationToken) -> Arc<Self> {
        Arc::new(Self {
            records: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            bytes_left: AtomicU64::new(bytes_max),
            records_left: AtomicU64::new(records_max),
            exhausted: AtomicBool::new(false),
            stop,
        })
    }

    /// Takes room for a record of `bytes` bytes; ends the load when there is none.
    fn take(&self, bytes: u64) -> bool {
        let take = |left: &AtomicU64, wanted| {
            left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left: u64| left.checked_sub(wanted)).is_ok()
        };
        let taken = take(&self.bytes_left, bytes) && take(&self.records_left, 1);
        if !taken {
            self.exhausted.store(true, Ordering::Relaxed);
            self.stop.cancel();
        }
        taken
    }
}

/// An empty histogram of latencies.
pub(super) fn latencies() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_MICROS_MAX, 2).expect("1 to two minutes with two digits is a valid range")
}

/// Appends until the load is stopped, then waits for every outcome.
pub(super) async fn write(log: Log, ledger: AppenderLedger, load: Arc<Load>, options: WriterOptions) -> Written {
    let mut writer = Writer {
        appender: log.appender(),
        log,
        written: Written { ledger, latency: latencies(), failed: 0 },
        in_flight: VecDeque::new(),
        load,
        options,
        random: SmallRng::seed_from_u64(options.seed),
    };
    while writer.fill().await {
        writer.settle_one().await;
    }
    while !writer.in_flight.is_empty() {
        writer.settle_one().await;
    }
    writer.written
}

struct Writer {
    log: Log,
    appender: Appender,
    written: Written,
    in_flight: VecDeque<InFlight>,
    load: Arc<Load>,
    options: WriterOptions,
    random: SmallRng,
}

struct InFlight {
    number: u32,
    bytes: u32,
    sent: Instant,
    ticket: Ticket,
}

impl Writer {
    /// Sends up to the number that may be in flight; `false` when nothing more is to be sent.
    async fn fill(&mut self) -> bool {
        while self.in_flight.len() < self.options.in_flight {
            let mean = self.options.record_bytes;
            let floor = u32::try_from(PAYLOAD_BYTES_MIN).unwrap_or(u32::MAX);
            let bytes = self.random.random_range(mean / 2..=mean.saturating_add(mean / 2)).max(floor);
            let size = usize::try_from(bytes).unwrap_or(usize::MAX);
            if self.load.stop.is_cancelled() || !self.load.take(u64::from(bytes)) {
                return false;
            }
            // Waiting for room ends with the load: what is in flight gives it back, or is told within its time.
            let permit = match self.appender.reserve(size).await {
                Ok(permit) => permit,
                Err(error) => {
                    warn!(%error, "an appender takes no more records");
                    return false;
                }
            };
            let (number, payload) = self.written.ledger.begin(bytes);
            let sent = Instant::now();
            self.in_flight.push_back(InFlight { number, bytes, sent, ticket: permit.send(payload) });
        }
        true
    }

    /// Waits for the oldest append in flight: an appender's appends end in order.
    async fn settle_one(&mut self) {
        let Some(InFlight { number, bytes, sent, ticket }) = self.in_flight.pop_front() else { return };
        let outcome = ticket.await;
        self.written.ledger.ended(number, &outcome);
        match outcome {
            Ok(_) => {
                let micros = u64::try_from(sent.elapsed().as_micros()).unwrap_or(u64::MAX);
                self.written.latency.saturating_record(micros);
                self.load.records.fetch_add(1, Ordering::Relaxed);
                self.load.bytes.fetch_add(u64::from(bytes), Ordering::Relaxed);
            }
            Err(error) => self.on_failure(number, &error).await,
        }
    }

    async fn on_failure(&mut self, number: u32, error: &AppendError) {
        self.written.failed += 1;
        warn!(appender = self.written.ledger.appender(), number, %error, "an append was not acknowledged");
        if let AppendError::Unknown { id } = error {
            // Stays unknown when it cannot be found out now.
            match self.log.resolve(*id).await {
                Ok(resolved) => self.written.ledger.resolved(number, 1, resolved),
                Err(error) => warn!(%id, %error, "the outcome of an append cannot be found out"),
            }
        }
        if error.advice() == Advice::GiveUp {
            self.load.stop.cancel();
        }
    }
}

/// Where readers of a log begin: the first LSN that is not trimmed.
pub(super) fn oldest(trim_point: Option<Lsn>) -> Lsn {
    trim_point.and_then(|point| point.advance(1).ok()).unwrap_or(Lsn::FIRST)
}
