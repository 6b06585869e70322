//! What is written at once: whole blocks, most of the time one frame.

use std::ops::Range;

use crate::aligned::Aligned;
use crate::frame::{BLOCK_BYTES, FRAME_HEADER_BYTES, FileId, encode_frame_header};
use bifrost_checksum::Sum;

/// Memory that a disk can take from directly: it begins at a multiple of [`BLOCK_BYTES`].
#[derive(Debug, Default)]
pub struct Blocks {
    memory: Aligned,
    /// Of it so much was put.
    len: usize,
    /// What of a group came with its checksum, by places in it, in order.
    summed: Vec<(Range<usize>, Sum)>,
}

impl Blocks {
    /// Empty, with room for so many bytes.
    pub fn with_capacity(bytes: usize) -> Self {
        Self { memory: Aligned::zeroed(bytes), ..Self::default() }
    }

    /// What was put.
    pub fn bytes(&self) -> &[u8] {
        self.memory.get(..self.len).unwrap_or_default()
    }

    /// Bytes that were put.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing was put.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes of memory that it holds.
    pub(crate) fn capacity(&self) -> usize {
        self.memory.len()
    }

    /// Adds bytes.
    pub fn put(&mut self, bytes: &[u8]) {
        self.grow(bytes.len()).copy_from_slice(bytes);
    }

    /// Adds bytes of which the checksum is known: that of a frame is made without another look at them. If it is not theirs,
    /// the frame is one that cannot be read.
    pub fn put_summed(&mut self, bytes: &[u8], sum: Sum) {
        let start = self.group_bytes();
        self.put(bytes);
        self.summed.push((start..self.group_bytes(), sum));
    }

    /// Adds zeros.
    pub(crate) fn put_zeros(&mut self, bytes: usize) {
        self.grow(bytes).fill(0);
    }

    /// Fills the last block with zeros.
    pub(crate) fn pad(&mut self) {
        self.put_zeros(self.len.next_multiple_of(BLOCK_BYTES) - self.len);
    }

    /// Forgets what was put; keeps at most `keep_bytes` of the memory.
    pub(crate) fn clear(&mut self, keep_bytes: usize) {
        if self.capacity() > keep_bytes {
            self.memory = Aligned::default();
        }
        self.len = 0;
        self.summed.clear();
    }

    /// Begins a frame in empty blocks; what is put next is its group.
    pub(crate) fn begin_frame(&mut self) {
        self.put(&[0; FRAME_HEADER_BYTES]);
    }

    /// Bytes of the group so far.
    pub(crate) const fn group_bytes(&self) -> usize {
        self.len.saturating_sub(FRAME_HEADER_BYTES)
    }

    /// Ends the frame for its place.
    pub(crate) fn end_frame(&mut self, file: FileId, at: u64, sequence: u64) {
        if let Some((header, group)) =
            self.memory.get_mut(..self.len).and_then(|frame| frame.split_first_chunk_mut::<FRAME_HEADER_BYTES>())
        {
            *header = encode_frame_header(file, at, sequence, group.len(), |before| {
                let append = |crc, range| bifrost_checksum::crc32c_append(crc, group.get(range).unwrap_or_default());
                let (mut crc, mut end) = (before, 0);
                for (range, sum) in &self.summed {
                    crc = sum.behind(append(crc, end..range.start));
                    end = range.end;
                }
                append(crc, end..group.len())
            });
        }
        self.pad();
    }

    /// So many bytes more, whatever is in them. Moves what was put if there is no room behind it.
    fn grow(&mut self, bytes: usize) -> &mut [u8] {
        let (start, end) = (self.len, self.len.saturating_add(bytes));
        if end > self.capacity() {
            let mut memory = Aligned::zeroed(end.max(self.len.saturating_mul(2)));
            if let Some(begin) = memory.get_mut(..self.len) {
                begin.copy_from_slice(self.bytes());
            }
            self.memory = memory;
        }
        self.len = end;
        self.memory.get_mut(start..end).unwrap_or_default()
    }
}
