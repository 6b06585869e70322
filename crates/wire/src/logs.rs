//! The service of logs for clients in any language: plain records in, plain records out. Every node serves it; behind it
//! are chains, quorums and batches, and nothing of them shows.
//!
//! Reading order: [`Logs`], [`LogRef`], [`AppendRecords`] with [`NewRecord`] and [`AppendOutcome`], [`ReadLog`] with
//! [`LogEvent`], [`LogRefusal`].

use std::fmt;
use std::num::NonZeroUsize;

use bifrost_types::limits::{BATCH_BYTES_MAX, BATCH_RECORDS_MAX, RECORD_BYTES_MAX};
use bifrost_types::{
    AppendId, Chain, KeyFilter, Keys, LogId, Lsn, Reconfiguration, Record, ReplicationProperty, Segment,
};
use futures_core::stream::BoxStream;
use futures_util::future::BoxFuture;
use thiserror::Error;
use tokio::sync::mpsc;

use crate::batch::{BATCH_HEADER_BYTES, record_bytes};
use crate::error::RpcError;

/// Logs of a page that does not say how many it wants.
pub const PAGE_SIZE_DEFAULT: NonZeroUsize = NonZeroUsize::new(100).expect("not 0");
/// Most logs of a page.
pub const PAGE_SIZE_MAX: usize = 256;
/// Longest text of an append id, in bytes; ours are below 200.
pub const APPEND_ID_BYTES_MAX: usize = 256;

/// CRC-32C (Castagnoli) of a payload: what a client may send with a record, and gets with each record that it reads.
pub fn payload_crc32c(payload: &[u8]) -> u32 {
    bifrost_checksum::crc32c(payload)
}

/// Names a log.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogRef {
    /// By its name; perhaps not a legal one.
    Name(String),
    /// By its id.
    Id(LogId),
}

/// A new log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateLog {
    /// Its name, perhaps not a legal one; `None` for a log that is known by its id only.
    pub name: Option<String>,
    /// How many copies of each record, and in which domains; `None` for the cluster's default.
    pub replication: Option<ReplicationProperty>,
}

/// What a log is made of: its chain without the outcomes that it remembers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogDescription {
    /// Its id.
    pub log: LogId,
    /// Its name, if it has one.
    pub name: Option<String>,
    /// Version of the chain.
    pub version: u64,
    /// Ordered, never empty.
    pub segments: Vec<Segment>,
    /// The reconfiguration in progress.
    pub pending: Option<Reconfiguration>,
    /// Last trimmed LSN.
    pub trim_point: Option<Lsn>,
}

impl From<Chain> for LogDescription {
    fn from(chain: Chain) -> Self {
        let Chain { log, name, version, segments, next_segment: _, pending, finished: _, trim_point } = chain;
        Self { log, name, version, segments, pending, trim_point }
    }
}

/// Asks for a page of logs in order of their ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListLogs {
    /// Only logs with a larger id; `None` to begin at the first.
    pub after: Option<LogId>,
    /// Most logs of the page, at most [`PAGE_SIZE_MAX`].
    pub page_size: NonZeroUsize,
}

/// One line of a list of logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSummary {
    /// Its id.
    pub log: LogId,
    /// Its name, if it has one.
    pub name: Option<String>,
    /// How many segments it has.
    pub segments: u32,
    /// Whether it is closed for good.
    pub closed: bool,
    /// Whether a reconfiguration is in progress.
    pub pending: bool,
    /// Last trimmed LSN.
    pub trim_point: Option<Lsn>,
}

impl From<&Chain> for LogSummary {
    fn from(chain: &Chain) -> Self {
        Self {
            log: chain.log,
            name: chain.name.clone(),
            segments: u32::try_from(chain.segments.len()).unwrap_or(u32::MAX),
            closed: chain.last().is_some_and(|last| last.decided_tail().is_some()),
            pending: chain.pending.is_some(),
            trim_point: chain.trim_point,
        }
    }
}

/// One page of a list of logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogPage {
    /// In order of id.
    pub logs: Vec<LogSummary>,
    /// Where the next page begins; `None` if this one is the last.
    pub next_after: Option<LogId>,
}

/// A record to append.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewRecord {
    /// The record.
    pub record: Record,
    /// The [checksum](payload_crc32c) that the client made of the payload, to be compared before anything is appended.
    pub payload_crc32c: Option<u32>,
}

/// Append one batch: all of it, at contiguous LSNs, or nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppendRecords {
    /// To which log.
    pub log: LogRef,
    /// What; perhaps not a legal batch, see [`check`].
    pub records: Vec<NewRecord>,
}

/// Checks a batch against the limits and its checksums (R2: from here on the checksum of the batch protects it).
///
/// # Errors
/// The first [`NotAppended`] of the batch, in order of its records.
pub fn check(records: &[NewRecord]) -> Result<(), NotAppended> {
    let count = records.len();
    if count == 0 {
        return Err(NotAppended::EmptyBatch);
    }
    if u32::try_from(count).map_or(true, |count| count > BATCH_RECORDS_MAX) {
        return Err(NotAppended::TooManyRecords { records: wide(count) });
    }
    let mut bytes = BATCH_HEADER_BYTES;
    for (index, new) in (0_u32..).zip(records) {
        let NewRecord { record, payload_crc32c } = new;
        if record.payload.len() > RECORD_BYTES_MAX {
            return Err(NotAppended::RecordTooLarge { record: index, bytes: wide(record.payload.len()) });
        }
        if let Keys::Range(first, last) = record.keys
            && first > last
        {
            return Err(NotAppended::InvertedKeys { record: index });
        }
        if let Some(told) = payload_crc32c {
            let actual = bifrost_checksum::crc32c(&record.payload);
            if actual != *told {
                return Err(NotAppended::BadChecksum { record: index, actual });
            }
        }
        bytes = bytes.saturating_add(record_bytes(record));
    }
    if bytes > BATCH_BYTES_MAX { Err(NotAppended::BatchTooLarge { bytes: wide(bytes) }) } else { Ok(()) }
}

fn wide(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

/// Where the records of a batch are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommittedAt {
    /// LSN of the first record.
    pub first_lsn: Lsn,
    /// LSN of the last record, not below the first.
    pub last_lsn: Lsn,
}

/// How an append ended (promise 4: never a guess).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AppendOutcome {
    /// It is on stable storage on a write quorum.
    Committed(CommittedAt),
    /// It is not in the log and never will be.
    NotAppended(NotAppended),
    /// It may be in the log. The id, if there is one, is for [`Logs::resolve`]; without it only reading the log tells.
    Unknown(Option<AppendId>),
}

/// Why an append is not in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum NotAppended {
    /// The batch has no record.
    #[error("the batch has no record")]
    EmptyBatch,
    /// A payload is too large.
    #[error("the payload of record {record} has {bytes} bytes, more than {RECORD_BYTES_MAX}")]
    RecordTooLarge {
        /// Which record of the batch, from 0.
        record: u32,
        /// Its bytes.
        bytes: u64,
    },
    /// The batch is too large.
    #[error("the batch has {bytes} bytes, more than {BATCH_BYTES_MAX}")]
    BatchTooLarge {
        /// Its bytes, encoded.
        bytes: u64,
    },
    /// The batch has too many records.
    #[error("the batch has {records} records, more than {BATCH_RECORDS_MAX}")]
    TooManyRecords {
        /// How many.
        records: u64,
    },
    /// A range of keys whose first is above its last.
    #[error("the key range of record {record} ends before it starts")]
    InvertedKeys {
        /// Which record of the batch, from 0.
        record: u32,
    },
    /// A payload does not have the checksum that came with it.
    #[error("the payload of record {record} arrived with checksum {actual:#010x}, which is not the one sent along")]
    BadChecksum {
        /// Which record of the batch, from 0.
        record: u32,
        /// The checksum of what arrived.
        actual: u32,
    },
    /// The log made no progress in time, or the node stops: append again, perhaps through another node.
    #[error("the log made no progress in time")]
    NoProgress,
    /// The disks of the log have no room: append again when somebody has made some.
    #[error("the disks of the log are full")]
    DiskFull,
    /// The log does not take it.
    #[error(transparent)]
    Refused(#[from] LogRefusal),
}

/// Why a request about a log was refused. Nothing was done, unless the variant says otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum LogRefusal {
    /// There is no such log.
    #[error("there is no such log")]
    UnknownLog,
    /// The name belongs to another log.
    #[error("the name is taken by log {log}")]
    NameTaken {
        /// Whose it is.
        log: LogId,
    },
    /// Not a legal name.
    #[error("not a valid name")]
    InvalidName,
    /// No set of nodes can hold the log with its replication property now.
    #[error("no set of nodes can hold the log with its replication property now")]
    NoPlacement,
    /// Only what is written can be trimmed.
    #[error("the tail is {tail}: only what is written can be trimmed")]
    BeyondTail {
        /// The tail now.
        tail: Lsn,
    },
    /// The log is closed for good.
    #[error("the log is closed for good")]
    Closed,
    /// Metadata gave no answer: what the request changes was changed or not.
    #[error("metadata gave no answer")]
    MetadataUnavailable,
    /// Something that is stored cannot be understood or breaks a promise.
    #[error("something that is stored is damaged")]
    Damaged,
    /// The positions of the log, or the ids of the cluster, are used up.
    #[error("there are no positions or ids left")]
    Exhausted,
}

/// What a call can end with besides its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum LogsError {
    /// The connection failed, or the node is at a limit or stops.
    #[error(transparent)]
    Rpc(#[from] RpcError),
    /// The node refused.
    #[error(transparent)]
    Refused(#[from] LogRefusal),
}

/// An open stream of appends of one appender to one log. Sending waits for room. Each request is answered in its place.
/// A client that drops `requests` gets the answers that are due, then the end of `replies`. An error is the last item:
/// with one that [did not happen](RpcError::may_have_happened), what was not answered was not appended.
#[derive(Debug)]
pub struct LogAppends {
    /// The log.
    pub log: LogId,
    /// Where to send batches.
    pub requests: mpsc::Sender<Vec<NewRecord>>,
    /// Where outcomes arrive, in the order of the batches.
    pub replies: mpsc::Receiver<Result<AppendOutcome, RpcError>>,
}

/// What to read of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadLog {
    /// Which log.
    pub log: LogRef,
    /// First wanted LSN; `None` for the first one that is not trimmed.
    pub from: Option<Lsn>,
    /// First LSN that is not wanted any more, not below `from`; `None` to follow the log.
    pub until: Option<Lsn>,
    /// Which records.
    pub filter: KeyFilter,
}

/// A record that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadRecord {
    /// Its position.
    pub lsn: Lsn,
    /// What was appended.
    pub record: Record,
    /// [Checksum](payload_crc32c) of the payload.
    pub payload_crc32c: u32,
    /// The appender's clock, in milliseconds since the Unix epoch.
    pub created_at_millis: u64,
}

/// Why there are no records in a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GapKind {
    /// They were trimmed.
    Trimmed,
    /// Their copies were lost, and an operator has declared so.
    Lost,
}

/// What a read tells, in order of LSN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogEvent {
    /// Records, at least one.
    Records(Vec<ReadRecord>),
    /// There is nothing to deliver in `[from, end)`.
    Gap {
        /// First LSN of the gap.
        from: Lsn,
        /// First LSN after it.
        end: Lsn,
        /// Why.
        kind: GapKind,
    },
    /// Everything below `tail` was delivered, and no more is known of.
    CaughtUp {
        /// First LSN that is not written, as the reader knows it.
        tail: Lsn,
    },
}

/// Events until the range is delivered, the log is closed for good, or an error, which is the last item.
pub type LogEvents = BoxStream<'static, Result<LogEvent, LogsError>>;

/// How sure a tail is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TailKind {
    /// The highest tail that the node has heard of: may be old, is never too high.
    Cached,
    /// At least every append that was acknowledged, to anybody, before the call began (R4).
    Linearizable,
}

/// A tail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogTail {
    /// First LSN not written.
    pub lsn: Lsn,
    /// How sure that is.
    pub kind: TailKind,
}

/// What became of an append whose outcome was unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResolvedAppend {
    /// It is in the log.
    Committed(CommittedAt),
    /// It is not in the log and never will be.
    Absent,
    /// Where it would be has been trimmed or lost.
    Unknowable,
}

/// The logs of a cluster, through one node.
///
/// # Cancel safety
/// Dropping a returned future stops the waiting, not what was begun: an append that was sent goes on, a creation, trim or
/// deletion holds or does not.
pub trait Logs: Send + Sync + fmt::Debug {
    /// Makes a log.
    fn create(&self, request: CreateLog) -> BoxFuture<'_, Result<LogDescription, LogsError>>;

    /// Describes a log, read linearizably.
    fn get(&self, log: LogRef) -> BoxFuture<'_, Result<LogDescription, LogsError>>;

    /// A page of logs.
    fn list(&self, request: ListLogs) -> BoxFuture<'_, Result<LogPage, LogsError>>;

    /// Deletes a log; answers its id.
    fn delete(&self, log: LogRef) -> BoxFuture<'_, Result<LogId, LogsError>>;

    /// Appends one batch. An error says nothing about the outcome beyond [`RpcError::may_have_happened`].
    fn append(&self, request: AppendRecords) -> BoxFuture<'_, Result<AppendOutcome, RpcError>>;

    /// Opens a stream of appends.
    fn open_append(&self, log: LogRef) -> BoxFuture<'_, Result<LogAppends, LogsError>>;

    /// Reads a range, or follows the log. Dropping the stream ends the read.
    fn read(&self, request: ReadLog) -> BoxFuture<'_, Result<LogEvents, LogsError>>;

    /// The first LSN that is not written.
    fn find_tail(&self, log: LogRef, kind: TailKind) -> BoxFuture<'_, Result<LogTail, LogsError>>;

    /// Trims up to and including an LSN; answers the trim point that now holds.
    fn trim(&self, log: LogRef, up_to: Lsn) -> BoxFuture<'_, Result<Lsn, LogsError>>;

    /// What became of an append whose outcome was unknown.
    fn resolve(&self, append: AppendId) -> BoxFuture<'_, Result<ResolvedAppend, LogsError>>;
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn new(bytes: usize) -> NewRecord {
        NewRecord { record: Record::new(Bytes::from(vec![7; bytes])), payload_crc32c: None }
    }

    #[test]
    fn a_batch_is_checked_before_it_is_appended() {
        assert_eq!(check(&[]), Err(NotAppended::EmptyBatch));
        assert_eq!(check(&[new(0)]), Ok(()), "zero bytes are legal");
        assert_eq!(check(&[new(0), new(RECORD_BYTES_MAX)]), Ok(()));
        let large = RECORD_BYTES_MAX + 1;
        let expected = NotAppended::RecordTooLarge { record: 1, bytes: wide(large) };
        assert_eq!(check(&[new(0), new(large)]), Err(expected));
        let full = [new(RECORD_BYTES_MAX), new(RECORD_BYTES_MAX)];
        assert!(matches!(check(&full), Err(NotAppended::BatchTooLarge { bytes }) if bytes > wide(BATCH_BYTES_MAX)));
        let many = vec![new(0); BATCH_RECORDS_MAX as usize + 1];
        assert_eq!(check(&many), Err(NotAppended::TooManyRecords { records: 65_537 }));
        let inverted = NewRecord { record: Record::new("x").with_keys(Keys::Range(5, 4)), payload_crc32c: None };
        assert_eq!(check(&[new(1), inverted]), Err(NotAppended::InvertedKeys { record: 1 }));
    }

    #[test]
    fn a_checksum_that_came_along_must_match() {
        // The check value of CRC-32C, so that clients can compare their algorithm.
        assert_eq!(payload_crc32c(b"123456789"), 0xe306_9283);
        let told = |crc| NewRecord { record: Record::new("123456789"), payload_crc32c: Some(crc) };
        assert_eq!(check(&[told(0xe306_9283)]), Ok(()));
        let expected = NotAppended::BadChecksum { record: 0, actual: 0xe306_9283 };
        assert_eq!(check(&[told(0)]), Err(expected));
    }
}
