//! Memory that a disk can take from directly, in as few pieces as can be.
//!
//! A write past the page cache pins each page that it takes from, and hands the disk a list of them. Of a huge page that is
//! one: 11 of the 119 us of a group of 124 KiB.

use std::ops::{Deref, DerefMut};

use memmap2::{Advice, MmapMut, MmapOptions};

use crate::frame::BLOCK_BYTES;

/// From here on it is made of huge pages, where the system has them.
const HUGE_FROM: usize = 64 << 10;
const HUGE_PAGE: usize = 2 << 20;

/// Zeros to begin with; the first byte lies at a multiple of [`BLOCK_BYTES`].
#[derive(Debug, Default)]
pub(crate) struct Aligned {
    held: Held,
    start: usize,
    bytes: usize,
}

#[derive(Debug)]
enum Held {
    Heap(Vec<u8>),
    Mapped(MmapMut),
}

impl Default for Held {
    fn default() -> Self {
        Self::Heap(Vec::new())
    }
}

impl Aligned {
    /// So many bytes, or more.
    pub(crate) fn zeroed(bytes: usize) -> Self {
        if bytes >= HUGE_FROM
            && let Some(bytes) = bytes.checked_next_multiple_of(HUGE_PAGE)
            && let Some(mapped) = map(bytes.saturating_add(HUGE_PAGE))
        {
            // What is mapped and never touched takes no memory.
            return Self::within(Held::Mapped(mapped), HUGE_PAGE, bytes);
        }
        let bytes = bytes.next_multiple_of(BLOCK_BYTES);
        Self::within(Held::Heap(vec![0; bytes.saturating_add(BLOCK_BYTES)]), BLOCK_BYTES, bytes)
    }

    /// Where alignment cannot be told, direct writes fail and plain ones do not care.
    fn within(held: Held, align: usize, bytes: usize) -> Self {
        let start = held.as_ref().as_ptr().align_offset(align).min(align);
        Self { held, start, bytes }
    }
}

/// `None` if the system does not give it.
fn map(bytes: usize) -> Option<MmapMut> {
    let mapped = MmapOptions::new().len(bytes).map_anon().ok()?;
    // Ordinary pages do as well.
    let _refused = mapped.advise(Advice::HugePage);
    Some(mapped)
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        match self {
            Self::Heap(memory) => memory,
            Self::Mapped(memory) => memory,
        }
    }
}

impl Deref for Aligned {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.held.as_ref().get(self.start..self.start + self.bytes).unwrap_or_default()
    }
}

impl DerefMut for Aligned {
    fn deref_mut(&mut self) -> &mut [u8] {
        let memory: &mut [u8] = match &mut self.held {
            Held::Heap(memory) => memory,
            Held::Mapped(memory) => memory,
        };
        memory.get_mut(self.start..self.start + self.bytes).unwrap_or_default()
    }
}
