//! Reading a range of batches from RocksDB, around damage.

use bifrost_types::limits::BATCH_RECORDS_MAX;
use bifrost_types::{LogletId, LogletOffset};
use rocksdb::{DB, DBRawIterator, ErrorKind, ReadOptions};

use super::{BATCHES, family};
use crate::store::{Chunk, StoreError, Stored, format};

/// Reads on the calling thread. A block or a blob that cannot be read is damage, as is a frame with a wrong checksum.
pub(super) fn read(
    db: &DB,
    loglet: LogletId,
    from: LogletOffset,
    until: LogletOffset,
    max_bytes: usize,
) -> Result<Chunk, StoreError> {
    if from >= until {
        return Ok(Chunk { parts: Vec::new(), covered_until: until });
    }
    let mut options = ReadOptions::default();
    options.set_iterate_lower_bound(format::batch_key(loglet, LogletOffset::FIRST));
    options.set_iterate_upper_bound(format::batch_key(loglet, until));
    let rows = db.raw_iterator_cf_opt(family(db, BATCHES), options);
    Scan { rows, loglet, at: from, until, seen: from, damaged_from: None, parts: Vec::new() }.run(from, max_bytes)
}

/// One pass over the rows of a loglet.
struct Scan<'a> {
    rows: DBRawIterator<'a>,
    loglet: LogletId,
    /// Everything below is answered by `parts`, or damaged.
    at: LogletOffset,
    until: LogletOffset,
    /// The last offset of what was met intact, or the first of what was not; a search beyond damage starts above it and so
    /// always moves on.
    seen: LogletOffset,
    damaged_from: Option<LogletOffset>,
    parts: Vec<Stored>,
}

impl Scan<'_> {
    fn run(mut self, from: LogletOffset, max_bytes: usize) -> Result<Chunk, StoreError> {
        self.seek_covering(from);
        let mut bytes = 0_usize;
        while self.at < self.until {
            let Some((key, value)) = self.rows.item() else {
                match self.rows.status() {
                    Ok(()) => break,
                    Err(error) if !is_damage(&error) => return Err(StoreError::Failed { cause: error.into() }),
                    Err(_) => {
                        self.damaged_from.get_or_insert(self.at);
                        if self.seek_beyond_damage() {
                            continue;
                        }
                        // Claim no more than one batch can take, and let the caller come back behind it.
                        let end = distance_after(self.seen, BATCH_RECORDS_MAX.into()).min(self.until);
                        self.close_damage(end);
                        return Ok(Chunk { parts: self.parts, covered_until: end });
                    }
                }
            };
            match format::decode_batch(key, value) {
                Ok(batch) => {
                    self.seen = self.seen.max(batch.end.previous().unwrap_or(batch.first_offset));
                    self.close_damage(batch.first_offset);
                    if bytes >= max_bytes && !self.parts.is_empty() {
                        return Ok(Chunk { parts: self.parts, covered_until: batch.first_offset });
                    }
                    bytes = bytes.saturating_add(batch.bytes.len());
                    self.at = self.at.max(batch.end);
                    self.parts.push(Stored::Batch(batch));
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
        Ok(Chunk { parts: self.parts, covered_until: self.until })
    }

    /// Goes to the batch that reaches over `from`, or else to the first one behind it.
    fn seek_covering(&mut self, from: LogletOffset) {
        self.rows.seek_for_prev(format::batch_key(self.loglet, from));
        if let Some((key, value)) = self.rows.item() {
            if format::decode_batch(key, value).is_ok_and(|batch| batch.end <= from) {
                self.rows.next();
            }
        } else if self.rows.status().is_ok() {
            self.rows.seek(format::batch_key(self.loglet, from));
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
            self.rows.seek(format::batch_key(self.loglet, target));
            if self.rows.valid() {
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
            self.parts.push(Stored::Damaged { first_offset, end });
        }
    }
}

pub(super) fn distance_after(offset: LogletOffset, distance: u64) -> LogletOffset {
    offset.advance(distance).unwrap_or(LogletOffset::MAX)
}

/// Bytes that cannot be read back, whether a checksum or the device says so; another copy has them.
fn is_damage(error: &rocksdb::Error) -> bool {
    matches!(error.kind(), ErrorKind::Corruption | ErrorKind::IOError)
}
