//! Metadata that is replicated by Raft: the keyspace of the local store behind a log that a majority of members keeps.
//!
//! It is the protocol library openraft with a disk, a state machine and a network of our own, behind the same
//! [`MetadataStore`](bifrost_metadata::MetadataStore) as the other stores. It is not a general Raft: the log carries
//! metadata transactions and memberships, and nothing else.
//!
//! ```text
//!  log store (votes, entries) ─┐
//!  state machine, snapshots ───┴─► Disk: seals, stops at the first error ─► LogEngine: RocksDB | a model with crashes
//! ```
//!
//! Reading order: [`types`], [`engine`], [`codec`] (bytes of disk and network), [`disk`] (keys and seals), [`log`],
//! [`machine`].

pub mod codec;
pub mod disk;
pub mod engine;
pub mod log;
pub mod machine;
pub mod types;

pub use types::{Member, MemberId};

#[cfg(test)]
mod storage_tests;
