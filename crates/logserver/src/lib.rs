//! A log server: keeps one copy of many loglets on one disk, and obeys seals. It knows no chain and no quorum; what its
//! copy means together with others is the business of `loglet`.
//!
//! ```text
//!  store streams ─► decode, verify ─► bounded queue ─┐
//!  seal, settle, trim, repair ─► bounded queue ──────┴─► writer: step the copies ─► one group ─► LogStore::commit
//!                                                              │                                (one write, one fsync)
//!        replies ◄─────────────── publish CopyState ◄──────────┴── durable
//!                                       │
//!  read streams ◄── verify, filter ◄────┴── LogStore::read
//! ```
//!
//! One writer turns everything that waits into one group, whatever loglets it belongs to (L2); while a group becomes
//! durable the next one gathers by itself. Readers never touch the writer: they follow the published state.
//!
//! Reading order: [`copy`] (every decision), [`space`] (who may write on a full disk), [`store`] (groups and durability)
//! with [`store::format`], [`store::memory`] and `store::rocks`, `stream` (what a store passes before the writer),
//! `writer` (the group commit) with `guard` (looks at the disk), `read` (read streams), [`server`] (the handle that
//! implements [`LogServer`](bifrost_wire::log_server::LogServer)), [`marker`] (whose disk this is), [`options`],
//! [`metrics`].

#[cfg(test)]
mod allocations;
pub mod copy;
mod guard;
pub mod marker;
pub mod metrics;
pub mod options;
mod published;
mod read;
pub mod server;
pub mod space;
pub mod store;
mod stream;
#[cfg(test)]
mod testing;
mod writer;

pub use marker::{Marker, MarkerError};
pub use options::{InvalidOption, ServerOptions};
pub use server::{LogServerHandle, StartError, WriterRuntime};
pub use space::{Fullness, SpaceOptions};
pub use store::memory::MemoryStore;
pub use store::recent::Recent;
#[cfg(feature = "rocksdb")]
pub use store::rocks::{Engine, OpenError, RocksOptions, RocksStore, check_directory};
pub use store::{LogStore, StoreError};

/// What a server says to a request that names a disk, before it looks at any copy (W2): models of many servers ask it
/// as a server does.
///
/// # Errors
/// [`CopyError::WrongDisk`](bifrost_wire::log_server::CopyError::WrongDisk).
#[cfg(feature = "test-util")]
pub fn check_disk(
    named: bifrost_types::DiskId,
    actual: bifrost_types::DiskId,
) -> Result<(), bifrost_wire::log_server::CopyError> {
    stream::check_disk(named, actual)
}
