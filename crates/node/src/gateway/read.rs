//! Reading: a reader of the log, whose events go out in groups as its client takes them.

use std::num::NonZeroU64;
use std::sync::Arc;

use bifrost::{GapKind as LogGapKind, LogRecord, ReadEvent, ReadOptions, Reader};
use bifrost_types::{Lsn, Record};
use bifrost_wire::RpcError;
use bifrost_wire::logs::{GapKind, LogEvent, LogEvents, LogsError, ReadLog, ReadRecord, payload_crc32c};
use futures_util::{FutureExt as _, StreamExt as _, stream};
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::refusal::{of_log, of_read};

/// Payload bytes after which a response takes no more records. One larger record travels alone.
const RESPONSE_BYTES: usize = 256 << 10;
/// Most records of one response.
const RESPONSE_RECORDS: usize = 1024;

/// Begins to read.
pub(super) async fn open(shared: &Arc<Shared>, request: ReadLog) -> Result<LogEvents, LogsError> {
    let place = shared.reads.clone().try_acquire_owned().map_err(|_| RpcError::Overloaded)?;
    let ReadLog { log, from, until, filter } = request;
    let open = shared.open(&log).await?;
    let from = match from {
        Some(from) => from,
        None => {
            let described = open.log.describe().await.map_err(of_log);
            let trim_point = shared.unless_gone(&open, described)?.trim_point;
            // Nothing lies beyond the last position: such a log reads as its end.
            trim_point.map_or(Lsn::FIRST, |point| point.advance(1).unwrap_or(Lsn::MAX))
        }
    };
    let ahead = u64::try_from(shared.options.read_credit_bytes.get()).ok().and_then(NonZeroU64::new);
    let credit_bytes = ahead.unwrap_or(NonZeroU64::MIN);
    let reader = open.log.read(ReadOptions { from, until, filter, credit_bytes });
    let reading = Reading { reader, next: None, ended: false, closing: shared.closing.clone(), _place: place };
    let events = stream::unfold(Some(reading), |reading| async move {
        let mut reading = reading?;
        let event = reading.event().await?;
        let goes_on = event.is_ok();
        Some((event, goes_on.then_some(reading)))
    });
    Ok(events.boxed())
}

/// One read. Works while it is polled.
struct Reading {
    reader: Reader,
    /// Was taken from the reader, and did not belong into the last response.
    next: Option<Result<ReadEvent, LogsError>>,
    /// The reader has nothing more, and must not be asked again.
    ended: bool,
    closing: CancellationToken,
    _place: OwnedSemaphorePermit,
}

impl Reading {
    /// What goes out next; `None` at the end.
    async fn event(&mut self) -> Option<Result<LogEvent, LogsError>> {
        let event = match self.next.take() {
            Some(event) => event,
            None => self.wait().await?,
        };
        Some(match event {
            Ok(ReadEvent::Record(record)) => Ok(LogEvent::Records(self.group(record))),
            Ok(ReadEvent::Gap { from, end, kind }) => {
                let kind = match kind {
                    LogGapKind::Trimmed => GapKind::Trimmed,
                    LogGapKind::Lost => GapKind::Lost,
                };
                Ok(LogEvent::Gap { from, end, kind })
            }
            Ok(ReadEvent::CaughtUp { tail }) => Ok(LogEvent::CaughtUp { tail }),
            Err(error) => Err(error),
        })
    }

    async fn wait(&mut self) -> Option<Result<ReadEvent, LogsError>> {
        if self.ended {
            // A reader also ends with its node: that must not look like the end of the log.
            return self.closing.is_cancelled().then(|| Err(RpcError::ShuttingDown.into()));
        }
        tokio::select! {
            biased;
            () = self.closing.cancelled() => Some(Err(RpcError::ShuttingDown.into())),
            event = self.reader.next() => event.map(|event| event.map_err(of_read)),
        }
    }

    /// A record and those that are there already.
    fn group(&mut self, first: LogRecord) -> Vec<ReadRecord> {
        let mut bytes = first.payload.len();
        let mut records = vec![outside(first)];
        while bytes < RESPONSE_BYTES && records.len() < RESPONSE_RECORDS {
            let Some(event) = self.reader.next().now_or_never() else { break };
            let Some(event) = event else {
                self.ended = true;
                break;
            };
            match event.map_err(of_read) {
                Ok(ReadEvent::Record(record)) if bytes + record.payload.len() <= RESPONSE_BYTES => {
                    bytes += record.payload.len();
                    records.push(outside(record));
                }
                other => {
                    self.next = Some(other);
                    break;
                }
            }
        }
        records
    }
}

/// The checksum is made of what was just verified against that of the appender (R2).
fn outside(record: LogRecord) -> ReadRecord {
    let LogRecord { lsn, keys, payload, created_at_millis, .. } = record;
    ReadRecord { lsn, payload_crc32c: payload_crc32c(&payload), record: Record { payload, keys }, created_at_millis }
}
