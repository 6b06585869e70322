//! Records as bytes: the batch, made once by the appender's client and never re-encoded on its way to the reader.
//!
//! ```text
//!  header, 48 bytes, little-endian                        record, 24 bytes + keys + payload
//!   0 u8   version = 1                                      0 u32  index in the batch
//!   1 u8   zero                                             4 u32  payload length
//!   2 u16  zero                                             8 u32  crc32c, see below
//!   4 u32  records: how many offsets the batch takes       12 u8   keys: 0 none, 1 single, 2 pair, 3 range
//!   8 u128 writer id                                       13 u8   zero ×3
//!  24 u64  sequence number of record 0                     16 u64  creation time, ms since the Unix epoch
//!  32 u32  present: how many records follow                24      keys: 0, 8 or 16 bytes
//!  36 u32  length of what follows, in bytes                ..      payload
//!  40 u32  zero
//!  44 u32  crc32c of bytes 0..44
//! ```
//!
//! `present < records` only in an answer to a filtered read: a log server may leave records out, never change one.
//! The checksum of a record covers writer id, sequence number, creation time, keys (kind and values) and payload, so a
//! record can be verified wherever it lies. It is made once, by the client that appends (R2).

use std::num::NonZeroU32;

use bifrost_types::limits::{BATCH_BYTES_MAX, BATCH_RECORDS_MAX, RECORD_BYTES_MAX, SHARED_BATCH_BYTES};
use bifrost_types::{KeyFilter, Keys, Record, Sequence, WriterId};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use thiserror::Error;

const VERSION: u8 = 1;
/// Bytes of a batch header.
pub const BATCH_HEADER_BYTES: usize = 48;
/// Bytes of a record header, keys not included.
pub const RECORD_HEADER_BYTES: usize = 24;
/// Most bytes that keys take.
const KEYS_BYTES_MAX: usize = 16;
/// Bytes of the checksum at the end of a batch header.
const CRC_BYTES: usize = 4;
/// A batch that grows gets so many times the memory that it had: few steps, and little is moved.
const GROWTH: usize = 4;

const _: () = assert!(
    BATCH_HEADER_BYTES + RECORD_HEADER_BYTES + KEYS_BYTES_MAX + RECORD_BYTES_MAX <= BATCH_BYTES_MAX,
    "the largest record fits a batch"
);

/// Why records do not make a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum EncodeError {
    /// No record.
    #[error("a batch needs at least one record")]
    Empty,
    /// A payload over the limit.
    #[error("a record of {bytes} bytes is over the limit of {RECORD_BYTES_MAX}")]
    RecordTooLarge {
        /// Its size.
        bytes: usize,
    },
    /// All records together over the limit of bytes.
    #[error("a batch of {bytes} bytes is over the limit of {BATCH_BYTES_MAX}")]
    BatchTooLarge {
        /// Its encoded size.
        bytes: usize,
    },
    /// Too many records.
    #[error("a batch of {records} records is over the limit of {BATCH_RECORDS_MAX}")]
    TooManyRecords {
        /// How many.
        records: usize,
    },
    /// A key range whose first is above its last.
    #[error("a key range must not end before it starts")]
    InvertedKeys,
    /// The writer's sequence numbers are used up.
    #[error("the writer has no sequence numbers left")]
    OutOfSequence,
}

/// Why bytes are not a batch, or not the records that were appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum BatchError {
    /// Shorter or longer than they say.
    #[error("the batch has another length than it says")]
    Length,
    /// A version that this build does not know.
    #[error("batch version {version} is unknown")]
    Version {
        /// The version found.
        version: u8,
    },
    /// A field has a value that no encoder writes.
    #[error("a field of the batch is out of its range")]
    Field,
    /// The header's checksum does not match.
    #[error("the checksum of the batch header does not match")]
    HeaderChecksum,
    /// A record's checksum does not match.
    #[error("the checksum of record {index} does not match")]
    RecordChecksum {
        /// Which record of the batch.
        index: u32,
    },
}

/// The size of a batch of these records, in bytes, before it is made.
pub fn encoded_bytes(records: &[Record]) -> usize {
    records.iter().fold(BATCH_HEADER_BYTES, |sum, record| sum.saturating_add(record_bytes(record)))
}

/// What one record takes of a batch, in bytes.
pub(crate) fn record_bytes(record: &Record) -> usize {
    RECORD_HEADER_BYTES + keys_bytes(record.keys) + record.payload.len()
}

const fn keys_bytes(keys: Keys) -> usize {
    match keys {
        Keys::None => 0,
        Keys::Single(_) => 8,
        Keys::Pair(_, _) | Keys::Range(_, _) => 16,
    }
}

/// Makes the batch: one allocation, each payload copied once.
///
/// # Errors
/// [`EncodeError`] when the records are over a limit or not well-formed.
pub fn encode(
    writer: WriterId,
    first_sequence: Sequence,
    created_at_millis: u64,
    records: &[Record],
) -> Result<Bytes, EncodeError> {
    Ok(BatchBuilder::new(writer, first_sequence, created_at_millis, records)?.finish())
}

/// A batch that more records may come into before it is finished. Its bytes are those that [`encode`] makes of the same
/// records at once.
///
/// It begins with as much memory as its first records take, and grows in few steps; what it grew too far is given back
/// at the end.
#[derive(Debug)]
pub struct BatchBuilder {
    writer: WriterId,
    first_sequence: Sequence,
    /// At least 1.
    records: u32,
    /// Zeros in place of the header, then the records.
    buffer: Vec<u8>,
}

impl BatchBuilder {
    /// A batch that begins with these records.
    ///
    /// # Errors
    /// [`EncodeError`] when the records are over a limit or not well-formed.
    pub fn new(
        writer: WriterId,
        first_sequence: Sequence,
        created_at_millis: u64,
        records: &[Record],
    ) -> Result<Self, EncodeError> {
        let mut builder = Self { writer, first_sequence, records: 0, buffer: Vec::new() };
        builder.push(created_at_millis, records)?;
        Ok(builder)
    }

    /// How many records are in it, at least 1.
    pub const fn records(&self) -> u32 {
        self.records
    }

    /// The size of the batch as it is now, in bytes, header included.
    pub fn bytes(&self) -> usize {
        self.buffer.len().max(BATCH_HEADER_BYTES)
    }

    /// The size that it would have with these records too.
    pub fn bytes_with(&self, records: &[Record]) -> usize {
        records.iter().fold(self.bytes(), |sum, record| sum.saturating_add(record_bytes(record)))
    }

    /// Adds records behind those that are in it: all of them, with the sequence numbers that follow.
    ///
    /// # Errors
    /// [`EncodeError`] when the records are not well-formed, or the batch would be over a limit with them; it is as it
    /// was then.
    pub fn push(&mut self, created_at_millis: u64, records: &[Record]) -> Result<(), EncodeError> {
        let total = usize::try_from(self.records).unwrap_or(usize::MAX).saturating_add(records.len());
        let total = u32::try_from(total)
            .ok()
            .filter(|total| *total <= BATCH_RECORDS_MAX)
            .ok_or(EncodeError::TooManyRecords { records: total })?;
        if records.is_empty() {
            return Err(EncodeError::Empty);
        }
        if self.first_sequence.checked_add(u64::from(total)).is_none() {
            return Err(EncodeError::OutOfSequence);
        }
        for record in records {
            if record.payload.len() > RECORD_BYTES_MAX {
                return Err(EncodeError::RecordTooLarge { bytes: record.payload.len() });
            }
            if let Keys::Range(first, last) = record.keys
                && first > last
            {
                return Err(EncodeError::InvertedKeys);
            }
        }
        let bytes = self.bytes_with(records);
        if bytes > BATCH_BYTES_MAX {
            return Err(EncodeError::BatchTooLarge { bytes });
        }
        self.grow(bytes);
        self.buffer.resize(self.bytes(), 0);
        for (index, record) in (self.records..).zip(records) {
            let sequence = self.first_sequence.get() + u64::from(index);
            put_record(&mut self.buffer, self.writer, sequence, index, created_at_millis, record);
        }
        debug_assert_eq!(self.buffer.len(), bytes, "the size was computed from the same layout");
        self.records = total;
        Ok(())
    }

    /// The batch. The header is written now.
    ///
    /// # Panics
    /// Never: a builder has a record.
    pub fn finish(self) -> Bytes {
        let Self { writer, first_sequence, records, mut buffer } = self;
        let records = NonZeroU32::new(records).expect("new refuses to make a batch without a record");
        let header = BatchHeader { writer, first_sequence, records, present: records.get() };
        let (place, body) = buffer.split_at_mut(BATCH_HEADER_BYTES);
        place.copy_from_slice(&header_to_bytes(header, body.len()));
        buffer.shrink_to_fit();
        buffer.into()
    }

    /// Makes room for `bytes` altogether: at first no more than that, then several times as much as before, as long as
    /// appends share a batch.
    fn grow(&mut self, bytes: usize) {
        if bytes > self.buffer.capacity() {
            let ahead = self.buffer.capacity().saturating_mul(GROWTH).min(SHARED_BATCH_BYTES);
            self.buffer.reserve_exact(bytes.max(ahead) - self.buffer.len());
        }
    }
}

fn header_to_bytes(header: BatchHeader, body: usize) -> [u8; BATCH_HEADER_BYTES] {
    let mut bytes = [0; BATCH_HEADER_BYTES];
    let mut checked = &mut bytes[..BATCH_HEADER_BYTES - CRC_BYTES];
    checked.put_u8(VERSION);
    checked.put_bytes(0, 3);
    checked.put_u32_le(header.records.get());
    checked.put_u128_le(header.writer.get());
    checked.put_u64_le(header.first_sequence.get());
    checked.put_u32_le(header.present);
    checked.put_u32_le(u32::try_from(body).expect("a batch is below 4 GiB by its limit"));
    checked.put_u32_le(0);
    let crc = bifrost_checksum::crc32c(&bytes[..BATCH_HEADER_BYTES - CRC_BYTES]);
    bytes[BATCH_HEADER_BYTES - CRC_BYTES..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

fn put_record(buffer: &mut Vec<u8>, writer: WriterId, sequence: u64, index: u32, created_at: u64, record: &Record) {
    let (kind, keys, length) = keys_to_bytes(record.keys);
    let keys = &keys[..length];
    buffer.put_u32_le(index);
    buffer.put_u32_le(u32::try_from(record.payload.len()).expect("a record is below 4 GiB by its limit"));
    buffer.put_u32_le(record_crc(writer, sequence, created_at, kind, keys, &record.payload));
    buffer.put_u8(kind);
    buffer.put_bytes(0, 3);
    buffer.put_u64_le(created_at);
    buffer.put_slice(keys);
    buffer.put_slice(&record.payload);
}

fn record_crc(writer: WriterId, sequence: u64, created_at: u64, kind: u8, keys: &[u8], payload: &[u8]) -> u32 {
    let mut head = [0_u8; 33];
    head[..16].copy_from_slice(&writer.get().to_le_bytes());
    head[16..24].copy_from_slice(&sequence.to_le_bytes());
    head[24..32].copy_from_slice(&created_at.to_le_bytes());
    head[32] = kind;
    let crc = bifrost_checksum::crc32c(&head);
    let crc = if keys.is_empty() { crc } else { bifrost_checksum::crc32c_append(crc, keys) };
    bifrost_checksum::crc32c_append(crc, payload)
}

fn keys_to_bytes(keys: Keys) -> (u8, [u8; KEYS_BYTES_MAX], usize) {
    let (kind, one, two) = match keys {
        Keys::None => (0, 0, 0),
        Keys::Single(key) => (1, key, 0),
        Keys::Pair(one, two) => (2, one, two),
        Keys::Range(first, last) => (3, first, last),
    };
    let mut bytes = [0; KEYS_BYTES_MAX];
    bytes[..8].copy_from_slice(&u64::to_le_bytes(one));
    bytes[8..].copy_from_slice(&u64::to_le_bytes(two));
    (kind, bytes, keys_bytes(keys))
}

/// What a batch says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchHeader {
    /// The appender.
    pub writer: WriterId,
    /// Sequence number of record 0.
    pub first_sequence: Sequence,
    /// How many offsets the batch takes; record `i` lies at `first_offset + i`.
    pub records: NonZeroU32,
    /// How many of them are in these bytes.
    pub present: u32,
}

/// Bytes that are a batch by their structure: every length, count and header field was checked when this was made.
/// The records' checksums are checked by [`verify`](Self::verify).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    header: BatchHeader,
    bytes: Bytes,
}

/// One record of a batch. The payload shares the batch's memory: a small payload keeps the whole batch alive, and the
/// network frame that it came in, so copy what is kept for long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchRecord {
    /// Place in the batch; the record's offset is the batch's first offset plus this.
    pub index: u32,
    /// The writer's number of this record.
    pub sequence: Sequence,
    /// The client's clock when the record was sent, in milliseconds since the Unix epoch.
    pub created_at_millis: u64,
    /// The keys.
    pub keys: Keys,
    /// The caller's bytes.
    pub payload: Bytes,
}

/// The part of a batch that passes a filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Filtered {
    /// All of it.
    All,
    /// Some records; the bytes of a batch that lacks the others.
    Some(Bytes),
    /// None.
    None,
}

/// Where a record lies within the bytes of a batch.
struct RawRecord {
    index: u32,
    crc: u32,
    kind: u8,
    created_at: u64,
    start: usize,
    keys: usize,
    payload: usize,
    end: usize,
}

impl Batch {
    /// Checks the header with its checksum and the structure of all records; does not read payloads. The bytes are
    /// kept, not copied.
    ///
    /// # Errors
    /// [`BatchError`], never [`BatchError::RecordChecksum`].
    pub fn decode(bytes: Bytes) -> Result<Self, BatchError> {
        if bytes.len() > BATCH_BYTES_MAX {
            return Err(BatchError::Length);
        }
        let header = decode_header(&bytes)?;
        let mut previous: Option<u32> = None;
        let mut at = BATCH_HEADER_BYTES;
        for _ in 0..header.present {
            let record = raw_record(&bytes, at)?;
            // Indexes ascend, so each offset is there once at most.
            if record.index >= header.records.get() || previous.is_some_and(|previous| previous >= record.index) {
                return Err(BatchError::Field);
            }
            previous = Some(record.index);
            at = record.end;
        }
        if at != bytes.len() {
            return Err(BatchError::Length);
        }
        Ok(Self { header, bytes })
    }

    /// What the batch says about itself.
    pub const fn header(&self) -> BatchHeader {
        self.header
    }

    /// The encoded form.
    pub const fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The encoded form, without the view.
    pub fn into_bytes(self) -> Bytes {
        self.bytes
    }

    /// Whether no record was left out by a filter.
    pub const fn is_complete(&self) -> bool {
        self.header.present == self.header.records.get()
    }

    /// Compares every record with the checksum that its appender made (R2).
    ///
    /// # Errors
    /// [`BatchError::RecordChecksum`] names the first record that does not match.
    pub fn verify(&self) -> Result<(), BatchError> {
        for record in self.raw_records() {
            let keys = &self.bytes[record.keys..record.payload];
            let payload = &self.bytes[record.payload..record.end];
            let sequence = self.sequence_of(record.index);
            let crc = record_crc(self.header.writer, sequence, record.created_at, record.kind, keys, payload);
            if crc != record.crc {
                return Err(BatchError::RecordChecksum { index: record.index });
            }
        }
        Ok(())
    }

    /// The records, in order. Their payloads are slices of this batch.
    pub fn records(&self) -> impl Iterator<Item = BatchRecord> + '_ {
        self.raw_records().map(|record| BatchRecord {
            index: record.index,
            sequence: Sequence::try_from(self.sequence_of(record.index))
                .expect("a sequence starts at 1 and its end was checked by decode"),
            created_at_millis: record.created_at,
            keys: self.keys_of(&record),
            payload: self.bytes.slice(record.payload..record.end),
        })
    }

    /// Leaves out the records that the filter excludes.
    pub fn filter(&self, filter: KeyFilter) -> Filtered {
        if filter == KeyFilter::Any {
            return Filtered::All;
        }
        let mut present = 0_u32;
        let mut body = 0_usize;
        for record in self.raw_records().filter(|record| filter.matches(self.keys_of(record))) {
            present += 1;
            body += record.end - record.start;
        }
        if present == 0 {
            return Filtered::None;
        }
        if present == self.header.present {
            return Filtered::All;
        }
        let mut buffer = BytesMut::with_capacity(BATCH_HEADER_BYTES + body);
        buffer.put_slice(&header_to_bytes(BatchHeader { present, ..self.header }, body));
        for record in self.raw_records().filter(|record| filter.matches(self.keys_of(record))) {
            buffer.put_slice(&self.bytes[record.start..record.end]);
        }
        Filtered::Some(buffer.freeze())
    }

    fn raw_records(&self) -> impl Iterator<Item = RawRecord> + '_ {
        let mut at = BATCH_HEADER_BYTES;
        (0..self.header.present).map_while(move |_| {
            let record = raw_record(&self.bytes, at).ok()?;
            at = record.end;
            Some(record)
        })
    }

    fn sequence_of(&self, index: u32) -> u64 {
        self.header.first_sequence.get() + u64::from(index)
    }

    fn keys_of(&self, record: &RawRecord) -> Keys {
        let mut keys = &self.bytes[record.keys..record.payload];
        match record.kind {
            1 => Keys::Single(keys.get_u64_le()),
            2 => Keys::Pair(keys.get_u64_le(), keys.get_u64_le()),
            3 => Keys::Range(keys.get_u64_le(), keys.get_u64_le()),
            _ => Keys::None,
        }
    }
}

fn decode_header(bytes: &[u8]) -> Result<BatchHeader, BatchError> {
    let (mut header, body) = bytes.split_at_checked(BATCH_HEADER_BYTES).ok_or(BatchError::Length)?;
    let checked = header.get(..BATCH_HEADER_BYTES - CRC_BYTES).ok_or(BatchError::Length)?;
    let crc = bifrost_checksum::crc32c(checked);
    let version = header.get_u8();
    if version != VERSION {
        return Err(BatchError::Version { version });
    }
    let zero = header.get_uint_le(3);
    let records = header.get_u32_le();
    let writer = header.get_u128_le();
    let first_sequence = header.get_u64_le();
    let present = header.get_u32_le();
    let length = header.get_u32_le();
    let zero_too = header.get_u32_le();
    if header.get_u32_le() != crc {
        return Err(BatchError::HeaderChecksum);
    }
    if usize::try_from(length) != Ok(body.len()) {
        return Err(BatchError::Length);
    }
    let writer = WriterId::try_from(writer).map_err(|_| BatchError::Field)?;
    let first_sequence = Sequence::try_from(first_sequence).map_err(|_| BatchError::Field)?;
    let records = NonZeroU32::new(records).ok_or(BatchError::Field)?;
    let in_range = zero == 0
        && zero_too == 0
        && records.get() <= BATCH_RECORDS_MAX
        && present <= records.get()
        && first_sequence.checked_add(u64::from(records.get())).is_some();
    if !in_range {
        return Err(BatchError::Field);
    }
    Ok(BatchHeader { writer, first_sequence, records, present })
}

fn raw_record(bytes: &[u8], at: usize) -> Result<RawRecord, BatchError> {
    let mut rest = bytes.get(at..).ok_or(BatchError::Length)?;
    if rest.len() < RECORD_HEADER_BYTES {
        return Err(BatchError::Length);
    }
    let index = rest.get_u32_le();
    let length = usize::try_from(rest.get_u32_le()).map_err(|_| BatchError::Length)?;
    let crc = rest.get_u32_le();
    let kind = rest.get_u8();
    let zero = rest.get_uint_le(3);
    let created_at = rest.get_u64_le();
    let keys_length = match kind {
        0 => 0,
        1 => 8,
        2 | 3 => 16,
        _ => return Err(BatchError::Field),
    };
    if zero != 0 || length > RECORD_BYTES_MAX {
        return Err(BatchError::Field);
    }
    let keys = at + RECORD_HEADER_BYTES;
    let payload = keys + keys_length;
    let end = payload + length;
    if end > bytes.len() {
        return Err(BatchError::Length);
    }
    if let (3, Some(mut range)) = (kind, bytes.get(keys..payload))
        && range.get_u64_le() > range.get_u64_le()
    {
        return Err(BatchError::Field);
    }
    Ok(RawRecord { index, crc, kind, created_at, start: at, keys, payload, end })
}

#[cfg(test)]
mod tests;
