//! Reading a range of rows, one for each batch of a loglet, around damage.

use bifrost_types::limits::BATCH_RECORDS_MAX;
use bifrost_types::{LogletId, LogletOffset};

use crate::store::format::{self, FormatError};
use crate::store::{PlacedBatch, StoreError};

/// Rows of a table in the order of their keys, as of one moment. It stands on a row or on none.
pub(super) trait Rows {
    /// Goes to the first row that is not below a key.
    fn seek(&mut self, key: &[u8]);

    /// Goes to the last row that is not above a key.
    fn seek_for_prev(&mut self, key: &[u8]);

    /// Goes to the next row.
    fn next(&mut self);

    /// The row that it stands on.
    fn item(&self) -> Option<(&[u8], &[u8])>;

    /// Why it stands on none, if that is not for want of rows.
    fn status(&self) -> Result<(), RowError>;
}

/// Why there is no row.
#[derive(Debug)]
pub(super) enum RowError {
    /// It cannot be read back; another copy has it.
    Damaged,
    /// The store failed.
    Failed(StoreError),
}

/// What a row says of a batch.
pub(super) trait BatchRow: Sized {
    fn decode(key: &[u8], value: &[u8]) -> Result<Self, FormatError>;
    fn first_offset(&self) -> LogletOffset;
    fn end(&self) -> LogletOffset;
    /// Of the batch.
    fn bytes(&self) -> usize;
}

impl BatchRow for PlacedBatch {
    fn decode(key: &[u8], value: &[u8]) -> Result<Self, FormatError> {
        format::decode_batch(key, value)
    }

    fn first_offset(&self) -> LogletOffset {
        self.first_offset
    }

    fn end(&self) -> LogletOffset {
        self.end
    }

    fn bytes(&self) -> usize {
        self.bytes.len()
    }
}

/// Something in a range.
#[derive(Debug)]
pub(super) enum Found<T> {
    Batch(T),
    Damaged { first_offset: LogletOffset, end: LogletOffset },
}

/// What was found in a range, up to where it was read.
#[derive(Debug)]
pub(super) struct Scanned<T> {
    pub(super) parts: Vec<Found<T>>,
    pub(super) covered_until: LogletOffset,
}

/// Reads what overlaps `[from, until)`, about `max_bytes` of it. The rows are those of the loglet below `until`.
pub(super) fn scan<T: BatchRow>(
    rows: impl Rows,
    loglet: LogletId,
    from: LogletOffset,
    until: LogletOffset,
    max_bytes: usize,
) -> Result<Scanned<T>, StoreError> {
    Scan { rows, loglet, at: from, until, seen: from, damaged_from: None, parts: Vec::new() }.run(from, max_bytes)
}

/// One pass over the rows of a loglet.
struct Scan<R, T> {
    rows: R,
    loglet: LogletId,
    /// Everything below is answered by `parts`, or damaged.
    at: LogletOffset,
    until: LogletOffset,
    /// The last offset of what was met intact, or the first of what was not; a search beyond damage starts above it and so
    /// always moves on.
    seen: LogletOffset,
    damaged_from: Option<LogletOffset>,
    parts: Vec<Found<T>>,
}

impl<R: Rows, T: BatchRow> Scan<R, T> {
    fn run(mut self, from: LogletOffset, max_bytes: usize) -> Result<Scanned<T>, StoreError> {
        self.seek_covering(from);
        let mut bytes = 0_usize;
        while self.at < self.until {
            let Some((key, value)) = self.rows.item() else {
                match self.rows.status() {
                    Ok(()) => break,
                    Err(RowError::Failed(error)) => return Err(error),
                    Err(RowError::Damaged) => {
                        self.damaged_from.get_or_insert(self.at);
                        if self.seek_beyond_damage() {
                            continue;
                        }
                        // Claim no more than one batch can take, and let the caller come back behind it.
                        let end = distance_after(self.seen, BATCH_RECORDS_MAX.into()).min(self.until);
                        self.close_damage(end);
                        return Ok(Scanned { parts: self.parts, covered_until: end });
                    }
                }
            };
            match T::decode(key, value) {
                Ok(batch) => {
                    self.seen = self.seen.max(batch.end().previous().unwrap_or(batch.first_offset()));
                    self.close_damage(batch.first_offset());
                    if bytes >= max_bytes && !self.parts.is_empty() {
                        return Ok(Scanned { parts: self.parts, covered_until: batch.first_offset() });
                    }
                    bytes = bytes.saturating_add(batch.bytes());
                    self.at = self.at.max(batch.end());
                    self.parts.push(Found::Batch(batch));
                }
                Err(_) => {
                    let first_offset = format::decode_batch_key(key).map_or(self.at, |(_, first_offset)| first_offset);
                    self.seen = self.seen.max(first_offset);
                    self.damaged_from.get_or_insert(first_offset.max(self.at));
                }
            }
            self.rows.next();
        }
        self.close_damage(self.until);
        Ok(Scanned { parts: self.parts, covered_until: self.until })
    }

    /// Goes to the batch that reaches over `from`, or else to the first one behind it.
    fn seek_covering(&mut self, from: LogletOffset) {
        self.rows.seek_for_prev(&format::batch_key(self.loglet, from));
        if let Some((key, value)) = self.rows.item() {
            if T::decode(key, value).is_ok_and(|batch| batch.end() <= from) {
                self.rows.next();
            }
        } else if self.rows.status().is_ok() {
            self.rows.seek(&format::batch_key(self.loglet, from));
        }
    }

    /// Goes to some row behind unreadable ones, as near as a few steps of doubling length find one.
    fn seek_beyond_damage(&mut self) -> bool {
        let mut distance = 1_u64;
        while distance <= u64::from(BATCH_RECORDS_MAX) {
            let target = distance_after(self.seen, distance);
            if target >= self.until {
                return false;
            }
            self.rows.seek(&format::batch_key(self.loglet, target));
            if self.rows.item().is_some() {
                return true;
            }
            distance *= 2;
        }
        false
    }

    fn close_damage(&mut self, end: LogletOffset) {
        if let Some(first_offset) = self.damaged_from.take()
            && first_offset < end
        {
            self.parts.push(Found::Damaged { first_offset, end });
        }
    }
}

pub(super) fn distance_after(offset: LogletOffset, distance: u64) -> LogletOffset {
    offset.advance(distance).unwrap_or(LogletOffset::MAX)
}
