//! The bytes of groups in files, and of rows that say where they are. Drawn in `docs/FORMAT.md`.
//!
//! ```text
//!  batch       1 │ batch key 20 │ records 4 │ crc 4 │ length 4 │ the batch
//!  state       2 │ loglet key 12 │ value 92
//!  drop below  3 │ loglet key 12 │ offset 8
//!  drop from   4 │ loglet key 12 │ offset 8
//! ```
//! Keys are those of the rows, big-endian; everything else is little-endian. The checksum (crc32c) of a batch covers its key
//! and its number of records too: it is a batch in one place of one loglet only.

#[cfg(test)]
mod tests;

use std::num::NonZeroU32;

use bifrost_checksum::Sum;
use bifrost_types::{LogletId, LogletOffset};
use bytes::{Buf, BufMut, Bytes};

use crate::store::PlacedBatch;
use crate::store::format::{
    BATCH_KEY_BYTES, FormatError, LOGLET_KEY_BYTES, STATE_BYTES, batch_key, decode_batch_key, loglet_key,
};
use crate::store::scan::BatchRow;

const BATCH: u8 = 1;
const STATE: u8 = 2;
const DROP_BELOW: u8 = 3;
const DROP_FROM: u8 = 4;

/// Bytes of the row of a batch.
const PLACE_BYTES: usize = 32;
const PLACE_VERSION: u8 = 1;
/// Bytes in front of a batch in a group.
const BATCH_HEADER_BYTES: usize = BATCH_KEY_BYTES + 12;

/// A place in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct Spot {
    pub(super) file: u64,
    pub(super) at: u64,
}

/// Where a batch lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) loglet: LogletId,
    pub(super) first_offset: LogletOffset,
    pub(super) records: NonZeroU32,
    pub(super) end: LogletOffset,
    pub(super) spot: Spot,
    pub(super) length: u32,
    pub(super) crc: u32,
}

impl Place {
    /// Of a batch that is about to be written: its spot counts from the start of its group until that is settled.
    pub(super) fn new(loglet: LogletId, batch: &PlacedBatch) -> Result<Self, FormatError> {
        let PlacedBatch { first_offset, end, .. } = *batch;
        let records = end.distance_from(first_offset).and_then(|records| u32::try_from(records).ok());
        let records = records.and_then(NonZeroU32::new).ok_or(FormatError::Field)?;
        let length = u32::try_from(batch.bytes().len()).map_err(|_| FormatError::Length)?;
        let crc = checksum(&batch_key(loglet, first_offset), records, batch.sum());
        Ok(Self { loglet, first_offset, records, end, spot: Spot { file: 0, at: 0 }, length, crc })
    }

    pub(super) fn key(&self) -> [u8; BATCH_KEY_BYTES] {
        batch_key(self.loglet, self.first_offset)
    }

    /// The row of the batch.
    pub(super) fn value(&self) -> [u8; PLACE_BYTES] {
        let mut value = [0; PLACE_BYTES];
        let mut rest = &mut value[..];
        rest.put_u8(PLACE_VERSION);
        rest.put_bytes(0, 3);
        rest.put_u32_le(self.records.get());
        rest.put_u64_le(self.spot.file);
        rest.put_u64_le(self.spot.at);
        rest.put_u32_le(self.length);
        rest.put_u32_le(self.crc);
        value
    }

    /// The batch, if these are its bytes.
    pub(super) fn batch(&self, bytes: Bytes) -> Option<PlacedBatch> {
        let batch = PlacedBatch::new(self.first_offset, self.end, bytes);
        (checksum(&self.key(), self.records, batch.sum()) == self.crc).then_some(batch)
    }
}

fn checksum(key: &[u8], records: NonZeroU32, batch: Sum) -> u32 {
    batch.behind(bifrost_checksum::crc32c_append(bifrost_checksum::crc32c(key), &records.get().to_le_bytes()))
}

impl BatchRow for Place {
    fn decode(key: &[u8], value: &[u8]) -> Result<Self, FormatError> {
        let (loglet, first_offset) = decode_batch_key(key)?;
        let mut fields = value;
        if fields.len() != PLACE_BYTES {
            return Err(FormatError::Length);
        }
        let found = fields.get_u8();
        if found != PLACE_VERSION {
            return Err(FormatError::Version { found });
        }
        fields.advance(3);
        let records = NonZeroU32::new(fields.get_u32_le()).ok_or(FormatError::Field)?;
        let end = first_offset.advance(u64::from(records.get())).map_err(|_| FormatError::Field)?;
        let spot = Spot { file: fields.get_u64_le(), at: fields.get_u64_le() };
        let (length, crc) = (fields.get_u32_le(), fields.get_u32_le());
        Ok(Self { loglet, first_offset, records, end, spot, length, crc })
    }

    fn first_offset(&self) -> LogletOffset {
        self.first_offset
    }

    fn end(&self) -> LogletOffset {
        self.end
    }

    fn bytes(&self) -> usize {
        self.length as usize
    }
}

/// One change of a group, without the bytes of its batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Entry {
    Batch(Place),
    State {
        key: [u8; LOGLET_KEY_BYTES],
        value: [u8; STATE_BYTES],
    },
    /// Everything that starts below the offset.
    DropBelow {
        loglet: LogletId,
        offset: LogletOffset,
    },
    /// Everything that starts at the offset or above it.
    DropFrom {
        loglet: LogletId,
        offset: LogletOffset,
    },
}

/// Where the bytes of a group go.
pub(super) trait Sink {
    fn put(&mut self, bytes: &[u8]);
    /// With the checksum of the bytes.
    fn put_summed(&mut self, bytes: &[u8], sum: Sum);
    /// Bytes of the group so far.
    fn len(&self) -> u64;
}

impl Entry {
    /// Writes it, with its batch if it is one, and notes where in the group the bytes of that begin.
    pub(super) fn encode(&mut self, batch: Option<&PlacedBatch>, out: &mut impl Sink) {
        match self {
            Self::Batch(place) => {
                out.put(&[BATCH]);
                encode_place(place, out);
                if let Some(batch) = batch {
                    out.put_summed(batch.bytes(), batch.sum());
                }
            }
            Self::State { key, value } => {
                out.put(&[STATE]);
                out.put(key);
                out.put(value);
            }
            Self::DropBelow { loglet, offset } => {
                out.put(&[DROP_BELOW]);
                encode_drop(*loglet, *offset, out);
            }
            Self::DropFrom { loglet, offset } => {
                out.put(&[DROP_FROM]);
                encode_drop(*loglet, *offset, out);
            }
        }
    }

    /// The group begins here.
    pub(super) fn settle(&mut self, group: Spot) {
        if let Self::Batch(place) = self {
            place.spot = Spot { file: group.file, at: place.spot.at.saturating_add(group.at) };
        }
    }
}

fn encode_place(place: &mut Place, out: &mut impl Sink) {
    let mut header = [0; BATCH_HEADER_BYTES];
    let mut rest = &mut header[..];
    rest.put_slice(&place.key());
    rest.put_u32_le(place.records.get());
    rest.put_u32_le(place.crc);
    rest.put_u32_le(place.length);
    out.put(&header);
    place.spot.at = out.len();
}

fn encode_drop(loglet: LogletId, offset: LogletOffset, out: &mut impl Sink) {
    out.put(&loglet_key(loglet));
    out.put(&offset.get().to_le_bytes());
}

/// Reads the entries of a group that begins at `group`, each with the bytes of its batch.
///
/// # Errors
/// [`FormatError`] if the bytes are no group.
pub(super) fn decode_group<'a>(
    bytes: &'a [u8],
    group: Spot,
    mut take: impl FnMut(Entry, &'a [u8]) -> Result<(), FormatError>,
) -> Result<(), FormatError> {
    let mut rest = bytes;
    while let Some((tag, after)) = rest.split_first() {
        rest = after;
        let entry = match *tag {
            BATCH => {
                let (place, batch, after) = decode_placed(bytes, rest, group)?;
                rest = after;
                take(Entry::Batch(place), batch)?;
                continue;
            }
            STATE => {
                let (key, after) = rest.split_first_chunk().ok_or(FormatError::Length)?;
                let (value, after) = after.split_first_chunk().ok_or(FormatError::Length)?;
                rest = after;
                Entry::State { key: *key, value: *value }
            }
            DROP_BELOW | DROP_FROM => {
                let (key, after) = rest.split_first_chunk::<LOGLET_KEY_BYTES>().ok_or(FormatError::Length)?;
                let (offset, after) = after.split_first_chunk().ok_or(FormatError::Length)?;
                rest = after;
                let loglet = crate::store::format::decode_loglet_key(key)?;
                let offset = LogletOffset::new(u64::from_le_bytes(*offset)).ok_or(FormatError::Field)?;
                match *tag {
                    DROP_BELOW => Entry::DropBelow { loglet, offset },
                    _ => Entry::DropFrom { loglet, offset },
                }
            }
            found => return Err(FormatError::Version { found }),
        };
        take(entry, &[])?;
    }
    Ok(())
}

fn decode_placed<'a>(whole: &[u8], rest: &'a [u8], group: Spot) -> Result<(Place, &'a [u8], &'a [u8]), FormatError> {
    let (header, after) = rest.split_at_checked(BATCH_HEADER_BYTES).ok_or(FormatError::Length)?;
    let (key, mut fields) = header.split_at(BATCH_KEY_BYTES);
    let (loglet, first_offset) = decode_batch_key(key)?;
    let records = NonZeroU32::new(fields.get_u32_le()).ok_or(FormatError::Field)?;
    let (crc, length) = (fields.get_u32_le(), fields.get_u32_le());
    let end = first_offset.advance(u64::from(records.get())).map_err(|_| FormatError::Field)?;
    let at = (whole.len() - after.len()) as u64;
    let (batch, after) =
        usize::try_from(length).ok().and_then(|length| after.split_at_checked(length)).ok_or(FormatError::Length)?;
    let spot = Spot { file: group.file, at: group.at.saturating_add(at) };
    Ok((Place { loglet, first_offset, records, end, spot, length, crc }, batch, after))
}

/// What a file has of a loglet. Batches in it are needed as long as some of `[first, end)` is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) first: LogletOffset,
    pub(super) end: LogletOffset,
    /// Of the batches.
    pub(super) bytes: u64,
}

const SPAN_KEY_BYTES: usize = LOGLET_KEY_BYTES + 8;
const SPAN_BYTES: usize = 24;
const NEED_BYTES: usize = 24;
const POSITION_BYTES: usize = 32;

impl Span {
    pub(super) fn key(loglet: LogletId, file: u64) -> [u8; SPAN_KEY_BYTES] {
        let mut key = [0; SPAN_KEY_BYTES];
        let mut rest = &mut key[..];
        rest.put_slice(&loglet_key(loglet));
        rest.put_u64(file);
        key
    }

    /// Both of one file and loglet.
    pub(super) fn joined(&self, other: &Self) -> Self {
        let (first, end) = (self.first.min(other.first), self.end.max(other.end));
        Self { first, end, bytes: self.bytes.saturating_add(other.bytes) }
    }

    pub(super) fn file(key: &[u8]) -> Result<u64, FormatError> {
        let (_, file) = key.split_at_checked(LOGLET_KEY_BYTES).ok_or(FormatError::Length)?;
        file.try_into().map(u64::from_be_bytes).map_err(|_| FormatError::Length)
    }

    pub(super) fn value(&self) -> [u8; SPAN_BYTES] {
        let mut value = [0; SPAN_BYTES];
        let mut rest = &mut value[..];
        rest.put_u64_le(self.first.get());
        rest.put_u64_le(self.end.get());
        rest.put_u64_le(self.bytes);
        value
    }

    pub(super) fn decode(value: &[u8]) -> Result<Self, FormatError> {
        let mut fields = value;
        if fields.len() != SPAN_BYTES {
            return Err(FormatError::Length);
        }
        let first = LogletOffset::new(fields.get_u64_le()).ok_or(FormatError::Field)?;
        let end = LogletOffset::new(fields.get_u64_le()).ok_or(FormatError::Field)?;
        Ok(Self { first, end, bytes: fields.get_u64_le() })
    }
}

/// How much of a file is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Need {
    /// Loglets of which it has something that is needed.
    pub(super) spans: u64,
    /// Bytes of the batches of these.
    pub(super) bytes: u64,
    /// Bytes of all batches that were written to it.
    pub(super) written: u64,
}

impl Need {
    pub(super) fn value(&self) -> [u8; NEED_BYTES] {
        let mut value = [0; NEED_BYTES];
        let mut rest = &mut value[..];
        rest.put_u64_le(self.spans);
        rest.put_u64_le(self.bytes);
        rest.put_u64_le(self.written);
        value
    }

    /// Reads a row back.
    pub(super) fn decode(key: &[u8], value: &[u8]) -> Result<(u64, Self), FormatError> {
        let file = key.try_into().map(u64::from_be_bytes).map_err(|_| FormatError::Length)?;
        let mut fields = value;
        if fields.len() != NEED_BYTES {
            return Err(FormatError::Length);
        }
        Ok((file, Self { spans: fields.get_u64_le(), bytes: fields.get_u64_le(), written: fields.get_u64_le() }))
    }
}

/// How far the rows go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Indexed {
    /// The last group whose batches and states are in them.
    pub(super) group: u64,
    /// The last group that is in the rows of spans and files.
    pub(super) booked: u64,
    /// Where that group ends: its file, and the place in it.
    pub(super) end: Spot,
}

impl Indexed {
    /// The key of the only row of its table.
    pub(super) const KEY: &'static [u8] = b"";

    pub(super) fn value(&self) -> [u8; POSITION_BYTES] {
        let mut value = [0; POSITION_BYTES];
        let mut rest = &mut value[..];
        rest.put_u64_le(self.group);
        rest.put_u64_le(self.booked);
        rest.put_u64_le(self.end.file);
        rest.put_u64_le(self.end.at);
        value
    }

    pub(super) fn decode(value: &[u8]) -> Result<Self, FormatError> {
        let mut fields = value;
        if fields.len() != POSITION_BYTES {
            return Err(FormatError::Length);
        }
        let (group, booked) = (fields.get_u64_le(), fields.get_u64_le());
        Ok(Self { group, booked, end: Spot { file: fields.get_u64_le(), at: fields.get_u64_le() } })
    }
}
