//! The batches of a loglet that the sequencer holds: first those that are committed and kept for copies that are
//! behind, then those that wait for their write quorum.

use std::collections::VecDeque;

use bifrost_types::{LogletOffset, OutOfPositions};
use bytes::Bytes;

/// One batch with its offsets.
#[derive(Debug, Clone)]
pub struct Entry<T> {
    /// Offset of record 0.
    pub first_offset: LogletOffset,
    /// First offset after the batch.
    pub end: LogletOffset,
    /// The encoded batch.
    pub batch: Bytes,
    /// What to give back when it is committed; `None` afterwards.
    pub waiter: Option<T>,
}

/// Pointer order: `front <= committed_tail <= next_offset`. Entries cover `[front, next_offset)` without a hole (A1).
#[derive(Debug, Clone)]
pub struct Window<T> {
    entries: VecDeque<Entry<T>>,
    /// How many entries at the front are committed.
    committed: usize,
    front: LogletOffset,
    committed_tail: LogletOffset,
    next_offset: LogletOffset,
    retained_bytes: usize,
    retained_bytes_max: usize,
}

impl<T> Window<T> {
    /// An empty window at the start of a loglet, which keeps at most that many bytes of committed batches.
    pub const fn new(retained_bytes_max: usize) -> Self {
        Self {
            entries: VecDeque::new(),
            committed: 0,
            front: LogletOffset::FIRST,
            committed_tail: LogletOffset::FIRST,
            next_offset: LogletOffset::FIRST,
            retained_bytes: 0,
            retained_bytes_max,
        }
    }

    /// The lowest offset that is still held.
    pub const fn front(&self) -> LogletOffset {
        self.front
    }

    /// First offset that is not committed.
    pub const fn committed_tail(&self) -> LogletOffset {
        self.committed_tail
    }

    /// The next offset to give.
    pub const fn next_offset(&self) -> LogletOffset {
        self.next_offset
    }

    /// Whether nothing waits for its write quorum.
    pub const fn is_settled(&self) -> bool {
        self.committed_tail.get() == self.next_offset.get()
    }

    /// Gives the next `records` offsets to a batch (A1).
    ///
    /// # Errors
    /// [`OutOfPositions`] at the end of the range; nothing was given.
    pub fn push(&mut self, records: u64, batch: Bytes, waiter: T) -> Result<LogletOffset, OutOfPositions> {
        let first_offset = self.next_offset;
        let end = first_offset.advance(records)?;
        self.entries.push_back(Entry { first_offset, end, batch, waiter: Some(waiter) });
        self.next_offset = end;
        Ok(first_offset)
    }

    /// Moves the committed tail up to `tail`, over whole batches only (A2), and hands out what they carried, in order.
    pub fn commit(&mut self, tail: LogletOffset, mut committed: impl FnMut(LogletOffset, T)) {
        while let Some(entry) = self.entries.get_mut(self.committed) {
            if entry.end > tail {
                break;
            }
            self.committed_tail = entry.end;
            self.retained_bytes += entry.batch.len();
            self.committed += 1;
            if let Some(waiter) = entry.waiter.take() {
                committed(entry.first_offset, waiter);
            }
        }
    }

    /// Lets go of committed batches that every copy in use has (all below `needed`), and of the oldest ones beyond
    /// the limit of bytes, whoever still lacks them (A4).
    pub fn release(&mut self, needed: LogletOffset) {
        while self.committed > 0 {
            let Some(entry) = self.entries.front() else { break };
            if entry.end > needed && self.retained_bytes <= self.retained_bytes_max {
                break;
            }
            self.front = entry.end;
            self.retained_bytes -= entry.batch.len();
            self.committed -= 1;
            self.entries.pop_front();
        }
    }

    /// The held batches from the one that starts at `offset` or, if none starts there, from the first after it.
    pub fn from(&self, offset: LogletOffset) -> impl Iterator<Item = &Entry<T>> {
        let index = self.entries.partition_point(|entry| entry.first_offset < offset);
        self.entries.range(index..)
    }

    /// Forgets everything that waits and hands it out, in order.
    pub fn drain(&mut self) -> impl Iterator<Item = T> + '_ {
        self.committed = 0;
        self.retained_bytes = 0;
        self.front = self.next_offset;
        self.entries.drain(..).filter_map(|entry| entry.waiter)
    }

    /// Asserts the pointer order. For tests.
    ///
    /// # Panics
    /// When it does not hold.
    pub fn check(&self) {
        assert!(self.front <= self.committed_tail, "front {} above committed {}", self.front, self.committed_tail);
        assert!(self.committed_tail <= self.next_offset, "committed tail above the next offset");
        let mut at = self.front;
        for (place, entry) in self.entries.iter().enumerate() {
            assert_eq!(entry.first_offset, at, "a hole in the window");
            assert_eq!(place < self.committed, entry.end <= self.committed_tail, "committed count is off");
            at = entry.end;
        }
        let held: usize = self.entries.iter().take(self.committed).map(|entry| entry.batch.len()).sum();
        assert_eq!(held, self.retained_bytes, "retained bytes are off");
    }
}
