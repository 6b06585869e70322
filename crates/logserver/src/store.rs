//! What a log server needs of its storage: groups of changes that become durable together, and reads of batches.
//!
//! The trait speaks of batches and of durability, not of files or of RocksDB, so that a store with preallocated files
//! or a simulated disk can stand behind the same writer. `conformance` (feature `test-util`) is the contract as a test.

#[cfg(any(test, feature = "test-util"))]
pub mod conformance;
#[cfg(any(test, feature = "test-util"))]
pub mod faulty;
#[cfg(any(feature = "rocksdb", feature = "test-util", test))]
#[cfg_attr(not(feature = "rocksdb"), allow(dead_code, reason = "only the store on a real disk needs all of it"))]
mod files;
pub mod format;
pub mod memory;
pub mod recent;
#[cfg(feature = "rocksdb")]
pub mod rocks;
#[cfg(any(feature = "rocksdb", feature = "test-util", test))]
#[cfg_attr(not(feature = "rocksdb"), allow(dead_code, reason = "only the store on a real disk needs all of it"))]
mod scan;

use std::future::Future;
use std::io;
use std::sync::Arc;

use bifrost_checksum::Sum;
use bifrost_types::{LogletId, LogletOffset};
use bytes::Bytes;
use thiserror::Error;

#[cfg(any(test, feature = "test-util"))]
pub use self::files::memory::{MemoryFiles, OpenFiles};
use crate::copy::DurableState;
use crate::space::{BallastStep, Look, Marks};

/// A batch and the offsets `[first_offset, end)` that it takes. `first_offset < end`; `bytes` is an encoded batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlacedBatch {
    /// Offset of its first record.
    pub first_offset: LogletOffset,
    /// First offset after it.
    pub end: LogletOffset,
    bytes: Bytes,
    sum: Sum,
}

impl PlacedBatch {
    /// A batch in its place. Reads all of it once, for the checksum that every store of it needs.
    pub fn new(first_offset: LogletOffset, end: LogletOffset, bytes: Bytes) -> Self {
        let sum = Sum::of(&bytes);
        Self { first_offset, end, bytes, sum }
    }

    /// The encoded batch.
    pub const fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The encoded batch, of which the checksum is not needed any more.
    pub fn into_bytes(self) -> Bytes {
        self.bytes
    }

    /// The checksum of the encoded batch.
    pub const fn sum(&self) -> Sum {
        self.sum
    }
}

/// What a store found in a range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stored {
    /// A batch whose frame is intact. Its records' own checksums are the reader's business.
    Batch(PlacedBatch),
    /// Something was written in `[first_offset, end)` and cannot be read back.
    Damaged {
        /// Where the damage starts.
        first_offset: LogletOffset,
        /// Where the next intact batch may start.
        end: LogletOffset,
    },
}

impl Stored {
    /// Where it starts.
    pub const fn first_offset(&self) -> LogletOffset {
        match self {
            Self::Batch(batch) => batch.first_offset,
            Self::Damaged { first_offset, .. } => *first_offset,
        }
    }

    /// First offset after it.
    pub const fn end(&self) -> LogletOffset {
        match self {
            Self::Batch(batch) => batch.end,
            Self::Damaged { end, .. } => *end,
        }
    }

    /// Whether it shares an offset with `[from, until)`.
    pub fn overlaps(&self, from: LogletOffset, until: LogletOffset) -> bool {
        self.first_offset() < until && from < self.end()
    }
}

/// A part of a range, read at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// What overlaps the part, in order. The first may start below it and the last may end above it.
    pub parts: Vec<Stored>,
    /// The part ends here (exclusive): what is not in `parts` below this offset is not in the store.
    pub covered_until: LogletOffset,
}

/// One change of a group. Later ones of a group see the earlier ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Write a batch. What is there at the same first offset is replaced: L4 is the copy's business.
    Append {
        /// Of which loglet.
        loglet: LogletId,
        /// The batch.
        batch: PlacedBatch,
    },
    /// Replace a loglet's state.
    Put {
        /// Of which loglet.
        loglet: LogletId,
        /// The whole state.
        state: DurableState,
    },
    /// Drop the batches that end at or below an offset. One that reaches over it stays.
    DropBelow {
        /// Of which loglet.
        loglet: LogletId,
        /// First offset that is kept.
        offset: LogletOffset,
    },
    /// Drop the batches that start at or above an offset. One that reaches over it stays.
    DropFrom {
        /// Of which loglet.
        loglet: LogletId,
        /// First offset that is dropped.
        offset: LogletOffset,
    },
}

/// Changes of any number of loglets that become durable together or not at all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Group {
    changes: Vec<Change>,
    bytes: usize,
    batches: usize,
}

impl Group {
    /// Adds a change behind the others.
    pub fn push(&mut self, change: Change) {
        if let Change::Append { batch, .. } = &change {
            self.bytes = self.bytes.saturating_add(batch.bytes().len());
            self.batches = self.batches.saturating_add(1);
        }
        self.changes.push(change);
    }

    /// The changes in order.
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// The changes in order, by value.
    pub fn into_changes(self) -> Vec<Change> {
        self.changes
    }

    /// Bytes of the batches in it.
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many batches are in it.
    pub const fn batches(&self) -> usize {
        self.batches
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }
}

/// What a store knows of a loglet when it is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recovered {
    /// Which loglet.
    pub loglet: LogletId,
    /// Its last committed state.
    pub state: DurableState,
}

/// Why a store did not do what it was asked.
#[derive(Debug, Error)]
pub enum StoreError {
    /// No room. Nothing of the group is visible, and a later group may succeed without a restart. After one, the group may
    /// be there as a whole.
    #[error("no room on the disk")]
    Full,
    /// The disk or the store on it failed. After a failed commit nothing is known about the group, and the store must
    /// not be used any more: a second fsync may report success for pages that the first one lost.
    #[error("the store failed")]
    Failed {
        /// What happened.
        #[source]
        cause: Cause,
    },
    /// Written by a newer build, which knows promises that this one would break.
    #[error("the data is of format {found}, which this build does not know; start it with the build that wrote it")]
    NewerFormat {
        /// Its format.
        found: u8,
    },
    /// Something other than a batch cannot be read back: without it the copy cannot vote.
    #[error("the state of a loglet is damaged on disk")]
    Corrupt {
        /// What was wrong with the bytes.
        #[source]
        cause: format::FormatError,
    },
}

/// What makes a store fail.
#[derive(Debug, Error)]
pub enum Cause {
    /// RocksDB said so.
    #[cfg(feature = "rocksdb")]
    #[error(transparent)]
    Rocks(#[from] rocksdb::Error),
    /// The journal said so.
    #[error(transparent)]
    Journal(#[from] bifrost_journal::JournalError),
    /// The store could not be opened anew.
    #[error(transparent)]
    Open(Box<dyn std::error::Error + Send + Sync>),
    /// A file cannot be read.
    #[error(transparent)]
    File(#[from] io::Error),
    /// The thread that worked on it is gone.
    #[error("the operation was abandoned")]
    Abandoned,
    /// A test wanted it.
    #[cfg(any(test, feature = "test-util"))]
    #[error("an injected fault")]
    Injected,
}

/// The disk under a store, as far as it can run full. Every call is short: a look is one system call.
pub trait Space: Send + Sync {
    /// What is refused when.
    fn marks(&self) -> Marks;

    /// What is free now.
    ///
    /// # Errors
    /// What the system says; the caller goes on with what it saw last.
    fn look(&self) -> io::Result<Look>;

    /// Makes the ballast or gives it up. Blocks for as long as the file system takes to reserve or free it.
    ///
    /// # Errors
    /// What the system says; whether the ballast is there now is in the next [`look`](Self::look).
    fn move_ballast(&self, step: BallastStep) -> io::Result<()>;

    /// Gives back what dropped batches still take, in the background.
    fn reclaim(&self);
}

/// Storage of one log server.
///
/// One writer calls [`commit`](Self::commit), one call at a time; any number of readers call [`read`](Self::read)
/// meanwhile and see a group whole or not at all.
pub trait LogStore: Send + Sync + 'static {
    /// Every loglet that has a state. Called once, before anything else.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] if the state of any loglet cannot be trusted, [`StoreError::Failed`] otherwise.
    ///
    /// # Cancel safety
    /// Safe; it changes nothing.
    fn recover(&self) -> impl Future<Output = Result<Vec<Recovered>, StoreError>> + Send;

    /// Makes a group durable: one write and one fsync, all or nothing, on stable storage when this returns.
    ///
    /// May block its thread; the writer has one of its own where that happens.
    ///
    /// # Errors
    /// [`StoreError::Full`] leaves no trace. After any other error the caller must stop using the store.
    ///
    /// # Cancel safety
    /// Not safe: the group may or may not become durable. The writer never drops it.
    fn commit(&self, group: Group) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Reads what overlaps `[from, until)`, about `max_bytes` of it, at least one batch if there is any; finds also
    /// the batch that starts below `from` and reaches over it. An empty range covers itself.
    ///
    /// # Errors
    /// [`StoreError::Failed`]; damage is an answer and not an error.
    ///
    /// # Cancel safety
    /// Safe; it changes nothing.
    fn read(
        &self,
        loglet: LogletId,
        from: LogletOffset,
        until: LogletOffset,
        max_bytes: usize,
    ) -> impl Future<Output = Result<Chunk, StoreError>> + Send;

    /// The disk under it; `None` for a store that has no disk to fill.
    fn space(&self) -> Option<&dyn Space> {
        None
    }
}

impl<S: LogStore> LogStore for Arc<S> {
    async fn recover(&self) -> Result<Vec<Recovered>, StoreError> {
        self.as_ref().recover().await
    }

    async fn commit(&self, group: Group) -> Result<(), StoreError> {
        self.as_ref().commit(group).await
    }

    async fn read(
        &self,
        loglet: LogletId,
        from: LogletOffset,
        until: LogletOffset,
        max_bytes: usize,
    ) -> Result<Chunk, StoreError> {
        self.as_ref().read(loglet, from, until, max_bytes).await
    }

    fn space(&self) -> Option<&dyn Space> {
        self.as_ref().space()
    }
}
