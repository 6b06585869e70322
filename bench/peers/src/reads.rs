//! The reading client, the same for all that have one.

use std::future::Future;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use tokio::time::{Instant, timeout, timeout_at};

use crate::cell::{Outcome, READ_BYTES};
use crate::closed_loop::{Appends, Load, Period, flushes_of, noise, rate};
use crate::times::Times;

/// Records of the log that is read from its start: a hundred megabytes, a fraction of any machine's memory.
pub(crate) const BACKLOG: u64 = 100_000;

const PATIENCE: Duration = Duration::from_secs(30);

/// What delivers the records of one log, in order.
pub(crate) trait Delivers: Send {
    /// Waits for the next record.
    fn next(&mut self) -> impl Future<Output = Result<Bytes>> + Send;
}

/// Reads the whole log with a new reader again and again, until the time is over. Only whole passes count.
pub(crate) async fn catch_up<R, F, Fut>(open: F, load: &Load) -> Result<Outcome>
where
    R: Delivers,
    F: Fn() -> Fut,
    Fut: Future<Output = Result<R>>,
{
    let begun = Instant::now();
    let mut passes = 0;
    while begun.elapsed() < load.duration || passes == 0 {
        let pass = async {
            let mut reader = open().await.context("opening a reader")?;
            for _ in 0..BACKLOG {
                let record = reader.next().await.context("reading")?;
                if record.len() != READ_BYTES {
                    bail!("a record of {} bytes was written with {READ_BYTES}", record.len());
                }
            }
            Ok(())
        };
        timeout(PATIENCE + load.duration, pass).await.context("the log is not delivered")??;
        passes += 1;
    }
    let measured = Load { duration: begun.elapsed(), ..load.clone() };
    Ok(rate(passes * BACKLOG, &measured, &Times::default(), None))
}

/// One append at a time; the next begins when it is acknowledged and delivered.
pub(crate) async fn tail<A: Appends, R: Delivers>(mut appends: A, mut reader: R, load: &Load) -> Result<Outcome> {
    let period = Period::of(load);
    let payload = noise(READ_BYTES);
    let follow = async {
        let (mut acknowledged, mut delivered) = (Times::default(), Times::default());
        while Instant::now() < period.until {
            let begun = Instant::now();
            let sent = appends.send(payload.clone()).await.context("sending")?;
            let acknowledgement = async {
                A::outcome(sent).await.context("an append")?;
                Ok::<_, anyhow::Error>(begun.elapsed())
            };
            let delivery = async {
                reader.next().await.context("reading")?;
                Ok(begun.elapsed())
            };
            let (acknowledgement, delivery) = tokio::try_join!(acknowledgement, delivery)?;
            if period.has(Instant::now()) {
                acknowledged.record(acknowledgement);
                delivered.record(delivery);
            }
        }
        Ok((acknowledged, delivered))
    };
    let follow = async { timeout_at(period.until + PATIENCE, follow).await.context("nothing is delivered")? };
    let ((acknowledged, delivered), flushes) = tokio::try_join!(follow, flushes_of(load.device.as_ref(), period))?;
    let outcome = rate(delivered.len(), load, &delivered, flushes);
    Ok(Outcome { append_micros: acknowledged.percentiles(), ..outcome })
}
