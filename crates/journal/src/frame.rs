//! The bytes of a file: one block of header, then frames, each from the start of a block to the end of one.
//!
//! ```text
//!  block 0   magic 8 │ version 4 │ zero 4 │ number 8 │ salt 8 │ crc 4 │ zeros
//!  block n   magic 4 │ crc 4 │ header crc 4 │ length 4 │ sequence 8 │ bytes │ padding
//! ```
//! All little-endian. The checksum (crc32c) of a frame covers the salt of its file, the file's number, the frame's place in it,
//! and everything between it and the padding: a frame is valid in one place of one use of one file, and nobody who does not
//! know the salt can make bytes that look like one. That of its header covers the same, length and sequence number, so that
//! what only looks like a header is not read any further.

use crate::blocks::Blocks;

/// Frames begin at multiples of this: the unit of direct writes, and at most what one write of a disk leaves whole.
pub const BLOCK_BYTES: usize = 4096;
/// The same, in files.
pub const BLOCK: u64 = BLOCK_BYTES as u64;
/// Most bytes of a group: its length has 32 bits.
pub const GROUP_BYTES_MAX: usize = 1 << 30;

const FILE_MAGIC: [u8; 8] = *b"bifrostj";
const VERSION: u32 = 1;
const FILE_HEADER_BYTES: usize = 36;
const FRAME_MAGIC: [u8; 4] = *b"frme";
pub(crate) const FRAME_HEADER_BYTES: usize = 24;
/// Bytes of a frame in front of its group.
pub const FRAME_HEADER: u64 = FRAME_HEADER_BYTES as u64;
/// What the checksum of a header covers of it.
const HEADER_COVERED: std::ops::Range<usize> = 12..FRAME_HEADER_BYTES;

const _: () = assert!(FILE_HEADER_BYTES <= BLOCK_BYTES && FRAME_HEADER_BYTES < BLOCK_BYTES);
const _: () = assert!(GROUP_BYTES_MAX + FRAME_HEADER_BYTES <= u32::MAX as usize);

/// One use of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileId {
    /// Its place in the order of files.
    pub number: u64,
    /// Drawn for this use.
    pub salt: u64,
}

/// Why the first block of a file is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeaderError {
    /// It is damaged, or of something else.
    Unreadable,
    /// A newer build wrote it.
    Version(u32),
}

/// The first block of a file.
pub fn encode_file_header(id: FileId) -> Blocks {
    let mut blocks = Blocks::with_capacity(BLOCK_BYTES);
    blocks.put(&FILE_MAGIC);
    blocks.put(&VERSION.to_le_bytes());
    blocks.put(&[0; 4]);
    blocks.put(&id.number.to_le_bytes());
    blocks.put(&id.salt.to_le_bytes());
    let crc = bifrost_checksum::crc32c(blocks.bytes());
    blocks.put(&crc.to_le_bytes());
    blocks.pad();
    blocks
}

/// Whose first block it is.
///
/// # Errors
/// [`HeaderError`].
pub fn decode_file_header(block: &[u8]) -> Result<FileId, HeaderError> {
    let mut fields = Fields(block);
    let decoded = (|| {
        let (magic, version, zero) = (fields.take::<8>()?, fields.u32()?, fields.u32()?);
        let id = FileId { number: fields.u64()?, salt: fields.u64()? };
        Some((magic, version, zero, id, fields.u32()?))
    })();
    let (magic, version, zero, id, crc) = decoded.ok_or(HeaderError::Unreadable)?;
    let covered = block.get(..FILE_HEADER_BYTES - 4).ok_or(HeaderError::Unreadable)?;
    if magic != FILE_MAGIC || bifrost_checksum::crc32c(covered) != crc {
        return Err(HeaderError::Unreadable);
    }
    if version != VERSION {
        return Err(HeaderError::Version(version));
    }
    if zero != 0 { Err(HeaderError::Unreadable) } else { Ok(id) }
}

/// What the header of a frame says. Nothing of it is to be believed before [`open`](Self::open).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHeader {
    /// Of the group.
    pub sequence: u64,
    /// Bytes of the group.
    pub length: usize,
    crc: u32,
}

impl FrameHeader {
    /// Of the frame of that place, if these bytes begin with one.
    pub fn decode(file: FileId, at: u64, bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields(bytes);
        let (magic, crc, header_crc) = (fields.take::<4>()?, fields.u32()?, fields.u32()?);
        if magic != FRAME_MAGIC || header_crc != checksum(file, at, bytes.get(HEADER_COVERED)?) {
            return None;
        }
        let length = usize::try_from(fields.u32()?).ok()?;
        let sequence = fields.u64()?;
        (length <= GROUP_BYTES_MAX).then_some(Self { sequence, length, crc })
    }

    /// Bytes of the frame, with its padding.
    pub const fn frame_bytes(&self) -> usize {
        frame_bytes(self.length)
    }

    /// The bytes of the group, if this is the frame of that place: `frame` begins with its header and is as long as
    /// [`frame_bytes`](Self::frame_bytes) or longer.
    pub fn open<'a>(&self, file: FileId, at: u64, frame: &'a [u8]) -> Option<&'a [u8]> {
        let end = FRAME_HEADER_BYTES.checked_add(self.length)?;
        let crc = checksum(file, at, frame.get(8..end)?);
        if crc == self.crc { frame.get(FRAME_HEADER_BYTES..end) } else { None }
    }
}

/// Bytes of the frame of a group of `length` bytes.
pub const fn frame_bytes(length: usize) -> usize {
    (FRAME_HEADER_BYTES + length).next_multiple_of(BLOCK_BYTES)
}

/// The header of the frame of a group of `length` bytes, [`GROUP_BYTES_MAX`] at most. `append` continues a crc32c with those of
/// the group.
pub(crate) fn encode_frame_header(
    file: FileId,
    at: u64,
    sequence: u64,
    length: usize,
    append: impl FnOnce(u32) -> u32,
) -> [u8; FRAME_HEADER_BYTES] {
    let mut header = [0; FRAME_HEADER_BYTES];
    header[..4].copy_from_slice(&FRAME_MAGIC);
    header[12..16].copy_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
    header[16..].copy_from_slice(&sequence.to_le_bytes());
    let crc = checksum(file, at, header.get(HEADER_COVERED).unwrap_or_default());
    header[8..12].copy_from_slice(&crc.to_le_bytes());
    let crc = append(checksum(file, at, header.get(8..).unwrap_or_default()));
    header[4..8].copy_from_slice(&crc.to_le_bytes());
    header
}

fn checksum(file: FileId, at: u64, covered: &[u8]) -> u32 {
    let crc = bifrost_checksum::crc32c(&file.salt.to_le_bytes());
    let crc = bifrost_checksum::crc32c_append(crc, &file.number.to_le_bytes());
    let crc = bifrost_checksum::crc32c_append(crc, &at.to_le_bytes());
    bifrost_checksum::crc32c_append(crc, covered)
}

struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*first)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }
}
