//! Reading a range of batches from RocksDB, around damage.

use bifrost_types::{LogletId, LogletOffset};
use rocksdb::{DB, ErrorKind};

use super::index::rows;
use super::{BATCHES, family};
use crate::store::scan::{Found, Scanned, scan};
use crate::store::{Chunk, PlacedBatch, StoreError, Stored, format};

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
    let (first, end) = (format::batch_key(loglet, LogletOffset::FIRST), format::batch_key(loglet, until));
    let rows = rows(db, family(db, BATCHES), &first, &end);
    let Scanned { parts, covered_until } = scan::<PlacedBatch>(rows, loglet, from, until, max_bytes)?;
    let parts = parts.into_iter().map(|part| match part {
        Found::Batch(batch) => Stored::Batch(batch),
        Found::Damaged { first_offset, end } => Stored::Damaged { first_offset, end },
    });
    Ok(Chunk { parts: parts.collect(), covered_until })
}

/// Bytes that cannot be read back, whether a checksum or the device says so; another copy has them.
pub(super) fn is_damage(error: &rocksdb::Error) -> bool {
    matches!(error.kind(), ErrorKind::Corruption | ErrorKind::IOError)
}
