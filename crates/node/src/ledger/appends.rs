//! What one appender sent, and how each append ended.

use bifrost::{AppendError, Lsn, Resolved};
use bytes::Bytes;

use super::order::Order;
use super::payload::Identity;

/// How an append ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Nobody has said yet. Left over at the end, it breaks promise 4.
    Pending,
    /// Acknowledged at this LSN.
    Committed(Lsn),
    /// Not in the log, and never will be.
    NotAppended,
    /// May be in the log, once.
    Unknown,
}

/// One record: 32 bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attempt {
    pub(crate) outcome: Outcome,
    pub(crate) bytes: u32,
    pub(crate) started: u32,
    /// The place of the acknowledgement in the order; 0 without one.
    pub(crate) acknowledged: u32,
}

/// The appends of one appender. Kept by the task that appends, without locks, and handed in at the end.
#[derive(Debug)]
pub struct AppenderLedger {
    run: u32,
    appender: u32,
    order: Order,
    pub(crate) attempts: Vec<Attempt>,
}

impl AppenderLedger {
    pub(crate) const fn new(run: u32, appender: u32, order: Order) -> Self {
        Self { run, appender, order, attempts: Vec::new() }
    }

    /// The number of this appender.
    pub const fn appender(&self) -> u32 {
        self.appender
    }

    /// How many records were begun.
    pub const fn records(&self) -> usize {
        self.attempts.len()
    }

    /// Begins the next append: its number, and its payload of `bytes` bytes (at least
    /// [`PAYLOAD_BYTES_MIN`](super::PAYLOAD_BYTES_MIN)). Call it before the record is sent, in the order of sending. For a
    /// batch, call it once for each record.
    pub fn begin(&mut self, bytes: u32) -> (u32, Bytes) {
        let number = u32::try_from(self.attempts.len()).expect("a run has fewer than 2^32 records");
        let payload = self.identity(number, bytes).payload();
        let bytes = u32::try_from(payload.len()).unwrap_or(bytes);
        let started = self.order.stamp();
        self.attempts.push(Attempt { outcome: Outcome::Pending, bytes, started, acknowledged: 0 });
        (number, payload)
    }

    /// Takes note of how the append of one record ended.
    pub fn ended(&mut self, number: u32, outcome: &Result<Lsn, AppendError>) {
        self.ended_batch(number, 1, outcome);
    }

    /// Takes note of how the append of an atomic batch ended, whose records are `first` and the following.
    pub fn ended_batch(&mut self, first: u32, records: u32, outcome: &Result<Lsn, AppendError>) {
        match outcome {
            Ok(lsn) => self.committed(first, records, *lsn),
            Err(AppendError::NotAppended { .. } | AppendError::Closed { .. }) => {
                self.set(first, records, Outcome::NotAppended);
            }
            Err(AppendError::Unknown { .. }) => self.set(first, records, Outcome::Unknown),
        }
    }

    /// Takes note of what became of a batch whose outcome was unknown.
    pub fn resolved(&mut self, first: u32, records: u32, outcome: Resolved) {
        match outcome {
            Resolved::Committed(lsn) => self.committed(first, records, lsn),
            Resolved::NotAppended => self.set(first, records, Outcome::NotAppended),
            Resolved::Unknowable => self.set(first, records, Outcome::Unknown),
        }
    }

    /// Nobody waits for the outcome any more: the caller dropped the ticket. It may be in the log, once.
    pub fn abandoned(&mut self, first: u32, records: u32) {
        self.set(first, records, Outcome::Unknown);
    }

    /// It was never sent.
    pub fn not_sent(&mut self, first: u32, records: u32) {
        self.set(first, records, Outcome::NotAppended);
    }

    pub(crate) const fn identity(&self, number: u32, bytes: u32) -> Identity {
        Identity { run: self.run, appender: self.appender, number, bytes }
    }

    fn committed(&mut self, first: u32, records: u32, lsn: Lsn) {
        let acknowledged = self.order.stamp();
        self.order.acknowledged();
        for (attempt, distance) in self.range(first, records).zip(0_u64..) {
            attempt.outcome = lsn.advance(distance).map_or(Outcome::Unknown, Outcome::Committed);
            attempt.acknowledged = acknowledged;
        }
    }

    fn set(&mut self, first: u32, records: u32, outcome: Outcome) {
        self.range(first, records).for_each(|attempt| attempt.outcome = outcome);
    }

    fn range(&mut self, first: u32, records: u32) -> impl Iterator<Item = &mut Attempt> {
        let skip = usize::try_from(first).unwrap_or(usize::MAX);
        self.attempts.iter_mut().skip(skip).take(usize::try_from(records).unwrap_or(usize::MAX))
    }
}

const _: () = assert!(size_of::<Attempt>() <= 32, "a long run fits in memory");
