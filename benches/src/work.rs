//! What is measured. Each piece of work runs a number of times and tells how long it took altogether.

use std::collections::VecDeque;
use std::time::Duration;

use anyhow::bail;
use bifrost::{Appender, Log, Lsn, ReadEvent, ReadOptions, Reader, TailKind, Ticket};
use bytes::Bytes;
use futures_util::StreamExt;
use hdrhistogram::Histogram;
use tokio::time::Instant;

/// Records of one run of [`append_in_flight`].
pub const RECORDS_PER_RUN: u64 = 1_000;
/// Records of the log that [`catch_up`] reads.
pub const CATCH_UP_RECORDS: u64 = 20_000;
/// Records that [`append_trimmed`] leaves in its log.
pub const KEPT_RECORDS: u64 = 64 * RECORDS_PER_RUN;
/// Appends before anything counts: connections are made, the sequencer runs, files exist.
const WARM_UP_APPENDS: usize = 300;

/// Longer latencies count as this: one minute.
const LATENCY_NANOS_MAX: u64 = 60_000_000_000;

/// Latencies in nanoseconds, with three significant digits.
#[derive(Debug, Clone)]
pub struct Latencies {
    nanos: Histogram<u64>,
}

impl Default for Latencies {
    fn default() -> Self {
        let nanos = Histogram::new_with_bounds(1, LATENCY_NANOS_MAX, 3);
        Self { nanos: nanos.expect("the bounds are more than a factor of two apart, and three digits are allowed") }
    }
}

impl Latencies {
    /// Adds the time that has passed since then.
    pub fn record(&mut self, since: Instant) {
        self.nanos.saturating_record(u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX));
    }

    /// The latency that this share of all stays below, `0.0..=1.0`.
    pub fn quantile(&self, share: f64) -> Duration {
        Duration::from_nanos(self.nanos.value_at_quantile(share))
    }

    /// How many there are.
    pub fn len(&self) -> u64 {
        self.nanos.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.nanos.is_empty()
    }
}

/// A payload of this size that does not compress.
pub fn payload(bytes: usize) -> Bytes {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let noise = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    noise.flatten().take(bytes).collect()
}

/// Appends, one at a time, until all that starts with the first append has started.
///
/// # Errors
/// When an append fails.
///
/// # Cancel safety
/// Some of the records are appended.
pub async fn warm_up(appender: &Appender, payload: &Bytes) -> anyhow::Result<()> {
    for _ in 0..WARM_UP_APPENDS {
        appender.append(payload.clone()).await?;
    }
    Ok(())
}

/// `runs` appends, each acknowledged before the next is sent.
///
/// # Errors
/// When an append fails.
///
/// # Cancel safety
/// Some of the records are appended.
pub async fn append_single(
    appender: &Appender,
    payload: &Bytes,
    runs: u64,
    latencies: &mut Latencies,
) -> anyhow::Result<Duration> {
    let started = Instant::now();
    for _ in 0..runs {
        let sent = Instant::now();
        appender.append(payload.clone()).await?;
        latencies.record(sent);
    }
    Ok(started.elapsed())
}

/// `runs` times [`RECORDS_PER_RUN`] appends of one appender with `in_flight` of them unacknowledged at any time.
///
/// # Errors
/// When an append fails.
///
/// # Cancel safety
/// Some of the records are appended.
pub async fn append_in_flight(
    appender: &Appender,
    payload: &Bytes,
    in_flight: usize,
    runs: u64,
    latencies: &mut Latencies,
) -> anyhow::Result<Duration> {
    let mut waiting: VecDeque<(Instant, Ticket)> = VecDeque::with_capacity(in_flight);
    let started = Instant::now();
    for _ in 0..runs.saturating_mul(RECORDS_PER_RUN) {
        if waiting.len() >= in_flight
            && let Some((sent, ticket)) = waiting.pop_front()
        {
            ticket.await?;
            latencies.record(sent);
        }
        let permit = appender.reserve(payload.len()).await?;
        waiting.push_back((Instant::now(), permit.send(payload.clone())));
    }
    for (sent, ticket) in waiting {
        ticket.await?;
        latencies.record(sent);
    }
    Ok(started.elapsed())
}

/// As [`append_in_flight`], and all but the last [`KEPT_RECORDS`] of the log are trimmed each time so many more are there: what a
/// log with a bounded history costs once it has that.
///
/// # Errors
/// When an append or a trim fails.
///
/// # Cancel safety
/// Some of the records are appended, and some trimmed.
pub async fn append_trimmed(
    log: &Log,
    appender: &Appender,
    payload: &Bytes,
    in_flight: usize,
    runs: u64,
    latencies: &mut Latencies,
) -> anyhow::Result<Duration> {
    let started = Instant::now();
    let mut left = runs;
    while left > 0 {
        let next = left.min(KEPT_RECORDS / RECORDS_PER_RUN);
        append_in_flight(appender, payload, in_flight, next, latencies).await?;
        left -= next;
        let tail = log.find_tail(TailKind::Cached).await?.lsn;
        if let Some(up_to) = tail.get().checked_sub(KEPT_RECORDS).and_then(Lsn::new) {
            log.trim(up_to).await?;
        }
    }
    Ok(started.elapsed())
}

/// `runs` times: append one record, and wait until a reader at the end of the log delivers it. Its latency is from before the
/// append to the delivery.
///
/// # Errors
/// When an append or the reader fails.
///
/// # Cancel safety
/// The reader may have delivered less than was appended; open another one.
pub async fn tail(
    appender: &Appender,
    reader: &mut Reader,
    payload: &Bytes,
    runs: u64,
    latencies: &mut Latencies,
) -> anyhow::Result<Duration> {
    let started = Instant::now();
    for _ in 0..runs {
        let sent = Instant::now();
        let ticket = appender.reserve(payload.len()).await?.send(payload.clone());
        let (lsn, seen) = tokio::join!(ticket, next_record(reader));
        latencies.record(sent);
        let (lsn, seen) = (lsn?, seen?);
        if lsn != seen {
            bail!("appended at {lsn}, delivered {seen}");
        }
    }
    Ok(started.elapsed())
}

/// `runs` times: read the log from its start to `tail`, which must be [`CATCH_UP_RECORDS`] records away.
///
/// # Errors
/// When the reader fails or delivers another number of records.
///
/// # Cancel safety
/// Safe: it only reads.
pub async fn catch_up(log: &Log, tail: Lsn, runs: u64) -> anyhow::Result<Duration> {
    let started = Instant::now();
    for _ in 0..runs {
        let mut reader = log.read(ReadOptions { until: Some(tail), ..ReadOptions::default() });
        let mut records = 0;
        while let Some(event) = reader.next().await {
            records += u64::from(matches!(event?, ReadEvent::Record(_)));
        }
        if records != CATCH_UP_RECORDS {
            bail!("{records} records of {CATCH_UP_RECORDS} were delivered");
        }
    }
    Ok(started.elapsed())
}

/// The LSN of the next record that the reader delivers.
async fn next_record(reader: &mut Reader) -> anyhow::Result<Lsn> {
    while let Some(event) = reader.next().await {
        if let ReadEvent::Record(record) = event? {
            return Ok(record.lsn);
        }
    }
    bail!("the reader ended")
}
