//! Keys and values on disk. Drawn in `docs/FORMAT.md`, pinned by the golden files of this crate.
//!
//! Keys are big-endian so that they sort by position; values are little-endian, start with a version byte and carry a
//! crc32c that covers their key too: a value that turns up under another key is as damaged as one with a flipped bit.

#[cfg(test)]
mod tests;

use std::num::NonZeroU32;

use bifrost_checksum::Sum;
use bifrost_types::{Generation, LogId, LogletId, LogletOffset, NodeGeneration, NodeId, OpId, SegmentIndex};
use bytes::{Buf, BufMut, Bytes};
use thiserror::Error;

use crate::copy::{DurableState, Seal};
use crate::store::PlacedBatch;

const BATCH_VERSION: u8 = 1;
const STATE_VERSION: u8 = 2;
/// Before states had a whole tail.
const STATE_VERSION_WITHOUT_WHOLE: u8 = 1;
/// Bytes of a state key, and of the prefix that all batches of a loglet share.
pub const LOGLET_KEY_BYTES: usize = 12;
/// Bytes of a batch key.
pub const BATCH_KEY_BYTES: usize = LOGLET_KEY_BYTES + 8;
/// Bytes in front of the batch in a batch value.
pub const FRAME_BYTES: usize = 12;
/// Bytes of a state value.
pub const STATE_BYTES: usize = 92;

const FRAME_CRC_AT: usize = 8;
const STATE_CRC_AT: usize = STATE_BYTES - 4;
const WHOLE_TAIL_BYTES: usize = 8;

const _: () = assert!(FRAME_CRC_AT + 4 == FRAME_BYTES, "the checksum ends the frame");

/// Why bytes from a disk are not what they should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum FormatError {
    /// Shorter or longer than the format says.
    #[error("the length is wrong")]
    Length,
    /// Written by a newer build, or damaged.
    #[error("format version {found} is unknown")]
    Version {
        /// The version byte.
        found: u8,
    },
    /// The checksum does not match.
    #[error("the checksum does not match")]
    Checksum,
    /// A field holds what no build writes.
    #[error("a field is out of its range")]
    Field,
}

/// The key of a loglet's state.
pub fn loglet_key(loglet: LogletId) -> [u8; LOGLET_KEY_BYTES] {
    let mut key = [0; LOGLET_KEY_BYTES];
    let mut rest = &mut key[..];
    rest.put_u64(loglet.log.get());
    rest.put_u32(loglet.segment.get());
    key
}

/// The key of a batch.
pub fn batch_key(loglet: LogletId, first_offset: LogletOffset) -> [u8; BATCH_KEY_BYTES] {
    let mut key = [0; BATCH_KEY_BYTES];
    let mut rest = &mut key[..];
    rest.put_u64(loglet.log.get());
    rest.put_u32(loglet.segment.get());
    rest.put_u64(first_offset.get());
    key
}

/// Reads a state key back.
///
/// # Errors
/// [`FormatError`] if it is none.
pub fn decode_loglet_key(mut key: &[u8]) -> Result<LogletId, FormatError> {
    if key.len() != LOGLET_KEY_BYTES {
        return Err(FormatError::Length);
    }
    let log = LogId::try_from(key.get_u64()).map_err(|_| FormatError::Field)?;
    Ok(LogletId::new(log, SegmentIndex::new(key.get_u32())))
}

/// Reads a batch key back.
///
/// # Errors
/// [`FormatError`] if it is none.
pub fn decode_batch_key(mut key: &[u8]) -> Result<(LogletId, LogletOffset), FormatError> {
    if key.len() != BATCH_KEY_BYTES {
        return Err(FormatError::Length);
    }
    let log = LogId::try_from(key.get_u64()).map_err(|_| FormatError::Field)?;
    let segment = SegmentIndex::new(key.get_u32());
    let first_offset = LogletOffset::new(key.get_u64()).ok_or(FormatError::Field)?;
    Ok((LogletId::new(log, segment), first_offset))
}

/// Writes the value of a batch into `value`, whose old contents are dropped.
///
/// # Errors
/// [`FormatError::Field`] if the batch takes no offset or more than a batch may.
pub fn encode_batch(key: &[u8], batch: &PlacedBatch, value: &mut Vec<u8>) -> Result<(), FormatError> {
    let records = batch
        .end
        .distance_from(batch.first_offset)
        .and_then(|records| u32::try_from(records).ok())
        .and_then(NonZeroU32::new)
        .ok_or(FormatError::Field)?;
    value.clear();
    value.put_u8(BATCH_VERSION);
    value.put_bytes(0, 3);
    value.put_u32_le(records.get());
    let crc = bifrost_checksum::crc32c_append(bifrost_checksum::crc32c(key), value);
    value.put_u32_le(batch.sum().behind(crc));
    value.extend_from_slice(batch.bytes());
    Ok(())
}

/// Reads a batch back; copies its bytes.
///
/// # Errors
/// [`FormatError`] if key or value is damaged.
pub fn decode_batch(key: &[u8], value: &[u8]) -> Result<PlacedBatch, FormatError> {
    let (_, first_offset) = decode_batch_key(key)?;
    let (frame, batch) = value.split_at_checked(FRAME_BYTES).ok_or(FormatError::Length)?;
    let (covered, mut crc) = frame.split_at(FRAME_CRC_AT);
    let sum = Sum::of(batch);
    let mut fields = covered;
    let version = fields.get_u8();
    if sum.behind(bifrost_checksum::crc32c_append(bifrost_checksum::crc32c(key), covered)) != crc.get_u32_le() {
        return Err(FormatError::Checksum);
    }
    if version != BATCH_VERSION {
        return Err(FormatError::Version { found: version });
    }
    fields.advance(3);
    let records = NonZeroU32::new(fields.get_u32_le()).ok_or(FormatError::Field)?;
    let end = first_offset.advance(u64::from(records.get())).map_err(|_| FormatError::Field)?;
    Ok(PlacedBatch { first_offset, end, bytes: Bytes::copy_from_slice(batch), sum })
}

/// The value of a loglet's state.
pub fn encode_state(key: &[u8], state: &DurableState) -> [u8; STATE_BYTES] {
    let mut value = [0; STATE_BYTES];
    let mut rest = &mut value[..];
    rest.put_u8(STATE_VERSION);
    rest.put_bytes(0, 3);
    rest.put_u32_le(state.bound.map_or(0, |bound| bound.node.get()));
    rest.put_u32_le(state.bound.map_or(0, |bound| bound.generation.get()));
    rest.put_u32_le(0);
    rest.put_u64_le(state.local_tail.get());
    rest.put_u64_le(state.committed_tail.get());
    rest.put_u64_le(state.decided_tail.map_or(0, LogletOffset::get));
    rest.put_u64_le(state.trim_point.map_or(0, LogletOffset::get));
    rest.put_u128_le(state.seal.map_or(0, |seal| seal.first.get()));
    rest.put_u128_le(state.seal.map_or(0, |seal| seal.repair.get()));
    rest.put_u64_le(state.whole_tail.get());
    let (covered, mut crc) = value.split_at_mut(STATE_CRC_AT);
    crc.put_u32_le(bifrost_checksum::crc32c_append(bifrost_checksum::crc32c(key), covered));
    value
}

/// Reads a loglet's state back.
///
/// # Errors
/// [`FormatError`] if it is damaged, newer, or its pointers are out of order.
pub fn decode_state(key: &[u8], value: &[u8]) -> Result<DurableState, FormatError> {
    let crc_at = value.len().checked_sub(4).ok_or(FormatError::Length)?;
    let (mut fields, mut crc) = value.split_at_checked(crc_at).ok_or(FormatError::Length)?;
    let version = fields.first().copied().ok_or(FormatError::Length)?;
    if bifrost_checksum::crc32c_append(bifrost_checksum::crc32c(key), fields) != crc.get_u32_le() {
        return Err(FormatError::Checksum);
    }
    let length = match version {
        STATE_VERSION => STATE_CRC_AT,
        STATE_VERSION_WITHOUT_WHOLE => STATE_CRC_AT - WHOLE_TAIL_BYTES,
        found => return Err(FormatError::Version { found }),
    };
    if fields.len() != length {
        return Err(FormatError::Length);
    }
    fields.advance(4);
    let bound = match (NodeId::try_from(fields.get_u32_le()), Generation::try_from(fields.get_u32_le())) {
        (Ok(node), Ok(generation)) => Some(NodeGeneration::new(node, generation)),
        (Err(_), Err(_)) => None,
        (Ok(_), Err(_)) | (Err(_), Ok(_)) => return Err(FormatError::Field),
    };
    fields.advance(4);
    let local_tail = LogletOffset::new(fields.get_u64_le()).ok_or(FormatError::Field)?;
    let committed_tail = LogletOffset::new(fields.get_u64_le()).ok_or(FormatError::Field)?;
    let decided_tail = LogletOffset::new(fields.get_u64_le());
    let trim_point = LogletOffset::new(fields.get_u64_le());
    let seal = match (OpId::try_from(fields.get_u128_le()), OpId::try_from(fields.get_u128_le())) {
        (Ok(first), Ok(repair)) => Some(Seal { first, repair }),
        (Err(_), Err(_)) => None,
        (Ok(_), Err(_)) | (Err(_), Ok(_)) => return Err(FormatError::Field),
    };
    let whole_tail = match version {
        STATE_VERSION_WITHOUT_WHOLE => LogletOffset::FIRST,
        _ => LogletOffset::new(fields.get_u64_le()).ok_or(FormatError::Field)?,
    };
    let state = DurableState { bound, local_tail, committed_tail, seal, decided_tail, trim_point, whole_tail };
    if state.is_ordered() { Ok(state) } else { Err(FormatError::Field) }
}
