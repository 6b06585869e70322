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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FILE: FileId = FileId { number: 3, salt: 0x5a17 };

    #[test]
    fn what_was_put_stays_aligned_and_whole_while_memory_grows() {
        let (mut blocks, mut expected) = (Blocks::default(), Vec::new());
        for piece in (1..200_usize).map(|turn| vec![turn as u8; turn * turn]) {
            blocks.put(&piece);
            expected.extend_from_slice(&piece);
            assert_eq!(blocks.bytes().as_ptr().align_offset(BLOCK_BYTES), 0, "{} bytes", blocks.len());
        }
        assert!(expected.len() > 2 << 20, "beyond one huge page");
        assert!(blocks.bytes() == expected);
        blocks.clear(usize::MAX);
        blocks.put_zeros(100_000);
        assert_eq!(blocks.bytes(), [0; 100_000], "what was there before is gone");
    }

    proptest! {
        #[test]
        fn a_frame_is_the_same_whether_sums_were_known(
            pieces in proptest::collection::vec((proptest::collection::vec(any::<u8>(), 0..3000), any::<bool>()), 0..12),
            at in any::<u64>(),
        ) {
            let (mut plain, mut summed) = (Blocks::default(), Blocks::default());
            for blocks in [&mut plain, &mut summed] {
                blocks.begin_frame();
            }
            for (piece, known) in &pieces {
                plain.put(piece);
                if *known { summed.put_summed(piece, Sum::of(piece)) } else { summed.put(piece) }
            }
            for blocks in [&mut plain, &mut summed] {
                blocks.end_frame(FILE, at, 9);
            }
            prop_assert_eq!(plain.bytes(), summed.bytes());
        }
    }

    #[test]
    fn a_sum_of_other_bytes_makes_a_frame_that_is_none() {
        let mut blocks = Blocks::default();
        blocks.begin_frame();
        blocks.put_summed(b"what was verified", Sum::of(b"what was verifled"));
        blocks.end_frame(FILE, 4096, 9);
        let header = crate::frame::FrameHeader::decode(FILE, 4096, blocks.bytes()).expect("the header is right");
        assert_eq!(header.open(FILE, 4096, blocks.bytes()), None);
    }
}
