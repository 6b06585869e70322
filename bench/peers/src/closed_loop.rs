//! The client, the same for all: a number of appends unacknowledged all the time, a new one for each that is
//! acknowledged.

use std::collections::VecDeque;
use std::future::Future;
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::cell::Outcome;
use crate::flushes::Device;
use crate::times::Times;

/// How long the last acknowledgements may take after the time is over.
const PATIENCE: Duration = Duration::from_secs(30);

/// In which order a cluster acknowledges what one client sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// As it was sent: waiting for the oldest costs nothing.
    AsSent,
    /// Any: each is waited for by itself.
    Any,
}

/// What appends to one log of a cluster.
pub(crate) trait Appends: Send + 'static {
    /// An append on its way.
    type Sent: Send + 'static;
    const ORDER: Order;

    /// Sends one, or says what has to be waited for to send it and have it acknowledged.
    fn send(&mut self, payload: Bytes) -> impl Future<Output = Result<Self::Sent>> + Send;

    /// Waits for the acknowledgement.
    fn outcome(sent: Self::Sent) -> impl Future<Output = Result<()>> + Send + 'static;
}

/// How much to append, for how long.
#[derive(Debug, Clone)]
pub(crate) struct Load {
    pub(crate) bytes: usize,
    pub(crate) in_flight: usize,
    pub(crate) warm_up: Duration,
    pub(crate) duration: Duration,
    pub(crate) device: Option<Device>,
}

/// The time that counts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Period {
    pub(crate) from: Instant,
    pub(crate) until: Instant,
}

impl Period {
    pub(crate) fn of(load: &Load) -> Self {
        let from = Instant::now() + load.warm_up;
        Self { from, until: from + load.duration }
    }

    pub(crate) fn has(&self, moment: Instant) -> bool {
        self.from <= moment && moment < self.until
    }
}

/// Appends until the time is over. The loop runs on a thread of the runtime, like the client below it.
pub(crate) async fn append<A: Appends>(appends: A, load: &Load) -> Result<Outcome> {
    let period = Period::of(load);
    let payload = noise(load.bytes);
    let in_flight = load.in_flight;
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(async move {
        let all = async {
            match A::ORDER {
                Order::AsSent => as_sent(appends, &payload, in_flight, period).await,
                Order::Any => any_order(appends, &payload, in_flight, period).await,
            }
        };
        timeout_at(period.until + PATIENCE, all).await.context("appends are not acknowledged")?
    });
    let done = async { tasks.join_next().await.context("the loop was not started")?.context("the loop")? };
    let (times, flushes) = tokio::try_join!(done, flushes_of(load.device.as_ref(), period))?;
    Ok(rate(times.len(), load, &times, flushes))
}

/// What so many records in the measured time mean.
pub(crate) fn rate(records: u64, load: &Load, times: &Times, flushes: Option<u64>) -> Outcome {
    let seconds = load.duration.as_secs_f64();
    let records_per_second = records as f64 / seconds;
    Outcome {
        seconds,
        records,
        records_per_second,
        megabytes_per_second: records_per_second * load.bytes as f64 / 1e6,
        micros: times.percentiles(),
        append_micros: None,
        flushes_per_record: flushes.filter(|_| records > 0).map(|flushes| flushes as f64 / records as f64),
    }
}

/// Flushes of the device within the time that counts.
pub(crate) async fn flushes_of(device: Option<&Device>, period: Period) -> Result<Option<u64>> {
    let Some(device) = device else { return Ok(None) };
    sleep_until(period.from).await;
    let before = device.flushes()?;
    sleep_until(period.until).await;
    Ok(Some(device.flushes()?.saturating_sub(before)))
}

async fn as_sent<A: Appends>(mut appends: A, payload: &Bytes, in_flight: usize, period: Period) -> Result<Times> {
    let mut times = Times::default();
    let mut waiting = VecDeque::with_capacity(in_flight);
    while Instant::now() < period.until {
        while waiting.len() < in_flight {
            waiting.push_back((Instant::now(), appends.send(payload.clone()).await.context("sending")?));
        }
        if let Some((begun, sent)) = waiting.pop_front() {
            A::outcome(sent).await.context("an append")?;
            note(&mut times, begun, period);
        }
    }
    for (_, sent) in waiting {
        A::outcome(sent).await.context("an append")?;
    }
    Ok(times)
}

async fn any_order<A: Appends>(mut appends: A, payload: &Bytes, in_flight: usize, period: Period) -> Result<Times> {
    let mut times = Times::default();
    let mut waiting = FuturesUnordered::new();
    while Instant::now() < period.until {
        while waiting.len() < in_flight {
            let begun = Instant::now();
            let sent = appends.send(payload.clone()).await.context("sending")?;
            waiting.push(async move {
                A::outcome(sent).await?;
                Ok::<_, anyhow::Error>(begun)
            });
        }
        if let Some(begun) = waiting.next().await {
            note(&mut times, begun.context("an append")?, period);
        }
    }
    while let Some(last) = waiting.next().await {
        last.context("an append")?;
    }
    Ok(times)
}

fn note(times: &mut Times, begun: Instant, period: Period) {
    let now = Instant::now();
    if period.has(now) {
        times.record(now - begun);
    }
}

/// Appends so many records, with so many unacknowledged; for a log that is read afterwards.
pub(crate) async fn fill<A: Appends>(mut appends: A, bytes: usize, in_flight: usize, records: u64) -> Result<()> {
    let payload = noise(bytes);
    let mut waiting = VecDeque::with_capacity(in_flight);
    for _ in 0..records {
        if waiting.len() >= in_flight
            && let Some(sent) = waiting.pop_front()
        {
            A::outcome(sent).await.context("an append")?;
        }
        waiting.push_back(appends.send(payload.clone()).await.context("sending")?);
    }
    for sent in waiting {
        A::outcome(sent).await.context("an append")?;
    }
    Ok(())
}

/// A payload of this size that does not compress.
pub(crate) fn noise(bytes: usize) -> Bytes {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.flatten().take(bytes).collect()
}
