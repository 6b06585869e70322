//! What a member needs of a disk: ordered keys, and batches that are written whole or not at all.
//!
//! ```text
//!  log store, state machine ─► Disk: checksums, stops for good at the first error ─► LogEngine ─► RocksDB
//!                                                                                            └─► a model with crashes
//! ```

#[cfg(any(test, feature = "test-util"))]
pub mod memory;
#[cfg(feature = "rocksdb")]
pub mod rocks;

use std::fmt;
use std::io;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use thiserror::Error;

/// A key and its value as they are stored.
pub type Record = (Bytes, Bytes);

/// One change of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Sets a value.
    Put {
        /// The key.
        key: Bytes,
        /// Its value.
        value: Bytes,
    },
    /// Removes a value; removing none is no error.
    Delete {
        /// The key.
        key: Bytes,
    },
    /// Removes every key from `start` to before `end`.
    DeleteRange {
        /// The first key that goes.
        start: Bytes,
        /// The first key that stays.
        end: Bytes,
    },
}

/// When a batch is on stable storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// Before the write returns.
    #[default]
    Synced,
    /// With the next synced batch at the latest. A crash before it takes the batch back, and nothing before it.
    Lazy,
}

/// Changes that happen together, in order: all of them, or none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    ops: Vec<Op>,
    durability: Durability,
}

impl Batch {
    /// An empty batch that is synced.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty batch that becomes durable with a later one.
    pub fn lazy() -> Self {
        Self { ops: Vec::new(), durability: Durability::Lazy }
    }

    /// Sets a value.
    pub fn put(&mut self, key: impl Into<Bytes>, value: impl Into<Bytes>) {
        self.ops.push(Op::Put { key: key.into(), value: value.into() });
    }

    /// Removes a value.
    pub fn delete(&mut self, key: impl Into<Bytes>) {
        self.ops.push(Op::Delete { key: key.into() });
    }

    /// Removes a range of keys.
    pub fn delete_range(&mut self, start: impl Into<Bytes>, end: impl Into<Bytes>) {
        self.ops.push(Op::DeleteRange { start: start.into(), end: end.into() });
    }

    /// The changes in order.
    pub fn ops(&self) -> &[Op] {
        &self.ops
    }

    /// When it is durable.
    pub fn durability(&self) -> Durability {
        self.durability
    }
}

/// Why an engine did not do what it was told. Whether a write happened is unknown: nobody may use it any more.
#[derive(Debug, Error)]
pub enum EngineError {
    /// The disk refused or failed.
    #[error("the disk failed")]
    Io(#[from] io::Error),
    /// The engine was shut down.
    #[error("the engine is closed")]
    Closed,
}

/// An ordered map on a disk.
///
/// # Cancel safety
/// A write that is dropped happens whole or not at all.
pub trait LogEngine: fmt::Debug + Send + Sync + 'static {
    /// Writes a batch. Readers see it once it returned; it is durable as [`Durability`] says. Batches are applied in the
    /// order of the calls.
    fn write(&self, batch: Batch) -> BoxFuture<'_, Result<(), EngineError>>;

    /// The value of a key.
    ///
    /// # Errors
    /// [`EngineError`].
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, EngineError>;

    /// Records from `start` to before `end`, in order; ends after the one with which `bytes_max` bytes of values are
    /// reached, so that at least one is returned if there is one.
    ///
    /// # Errors
    /// [`EngineError`].
    fn range(&self, start: &[u8], end: &[u8], bytes_max: usize) -> Result<Vec<Record>, EngineError>;
}

#[cfg(test)]
mod tests;
