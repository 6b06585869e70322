//! Versioned values with transactions and watch: the place where chains and node records live.
//!
//! It is a [`MetadataStore`]: a small linearizable store in which every committed transaction that writes takes the
//! next revision (M1). It is not a database: all values are in memory, a value has at most 1 MiB, and the history
//! that watchers resume from is bounded.
//!
//! ```text
//!            ┌──────────── handle (MemoryMetadata, LocalMetadata) ────────────┐
//!  get, list │ read the keyspace under a lock                                 │
//!  txn       │ keyspace.stage ─► persist, if there is a disk ─► keyspace.commit│──► answer
//!  watch     │                                                    └► watchers │──► bounded channel of each watcher
//!            └─────────────────────────────────────────────────────────────────┘
//! ```
//!
//! Reading order: [`keyspace`] (the core: a deterministic state machine without IO), `watch` (who is told of what),
//! [`export`] (all of it as a file) and [`import`], [`memory`], [`local`] (RocksDB) with [`mod@format`], [`conformance`] (what every implementation must pass), [`lossy`] (lost calls and
//! replies by a script).

#[cfg(any(test, feature = "test-util"))]
pub mod conformance;
pub mod export;
pub mod format;
pub mod import;
pub mod keyspace;
pub mod live;
#[cfg(feature = "rocksdb")]
pub mod local;
#[cfg(any(test, feature = "test-util"))]
pub mod lossy;
pub mod memory;
#[cfg(feature = "rocksdb")]
pub mod rocks;
mod watch;

pub use bifrost_wire::metadata::{
    Change, Changes, MetadataError, MetadataStore, Page, Precondition, Revision, Txn, TxnOutcome, Versioned,
    WatchStream, Write, validate_key,
};
pub use export::{Export, ExportError};
pub use keyspace::Keyspace;
pub use live::Live;
#[cfg(feature = "rocksdb")]
pub use local::{LocalMetadata, OpenError};
#[cfg(any(test, feature = "test-util"))]
pub use lossy::{Call, CallKind, Fault, LossyMetadata, Script};
pub use memory::MemoryMetadata;
