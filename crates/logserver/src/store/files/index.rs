//! The rows that say what is in the files.
//!
//! ```text
//!  Batches   loglet, first offset ─► where the batch lies
//!  States    loglet               ─► its state
//!  Spans     loglet, file         ─► what the file has of the loglet
//!  Files     file                 ─► how much of it is needed
//!  Position                       ─► the last group that is in here, and the one up to which spans and files are
//! ```
//! What was written is visible at once and durable after a flush, which takes everything or nothing. After a crash it is what
//! some flush left, and the groups after its position are applied again.

use std::fmt;

use crate::store::StoreError;
use crate::store::scan::Rows;

#[cfg(any(test, feature = "test-util"))]
pub(super) mod memory;

/// A family of rows, sorted by their keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::store) enum Table {
    Batches,
    States,
    Spans,
    Files,
    Position,
}

impl Table {
    pub(in crate::store) const ALL: [Self; 5] = [Self::Batches, Self::States, Self::Spans, Self::Files, Self::Position];
}

/// Changes of rows that become visible together. Later ones win.
pub(in crate::store) trait Writes {
    fn put(&mut self, table: Table, key: &[u8], value: &[u8]);
    fn delete(&mut self, table: Table, key: &[u8]);
    /// Deletes `[from, until)`.
    fn delete_range(&mut self, table: Table, from: &[u8], until: &[u8]);
}

/// The rows. Calls block.
pub(in crate::store) trait Index: fmt::Debug + Send + Sync + 'static {
    type Writes<'a>: Writes;
    type Rows<'a>: Rows;

    /// No changes, with room for so many bytes of them.
    fn writes(&self, bytes: usize) -> Self::Writes<'_>;

    /// Makes changes visible.
    fn write(&self, writes: Self::Writes<'_>) -> Result<(), StoreError>;

    /// Everything that was written before is durable when this returns.
    fn flush(&self) -> Result<(), StoreError>;

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;

    /// The rows in `[from, until)`, as of now.
    fn rows(&self, table: Table, from: &[u8], until: &[u8]) -> Self::Rows<'_>;
}
