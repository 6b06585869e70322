//! Metadata that is replicated by Raft: the keyspace of the local store behind a log that a majority of members keeps.
//!
//! It is the protocol library openraft with a disk, a state machine and a network of our own, behind the same
//! [`MetadataStore`](bifrost_metadata::MetadataStore) as the other stores. It is not a general Raft: the log carries
//! metadata transactions and memberships, and nothing else.
//!
//! ```text
//!  MetadataStore ─► RaftMetadata ─► member: proposer, reads ─► openraft ─► network ─► Peers ═══ other members
//!                       own thread                             │   ▲        inbound ◄─ Receive ═══
//!                                                 log store ◄──┘   └──► state machine: the keyspace, snapshots
//!                                                     └─► Disk: seals, stops at the first error ◄─┘
//!                                                           └─► LogEngine: RocksDB | a model with crashes
//! ```
//!
//! Reading order: [`types`], [`engine`], [`codec`] (bytes of disk and network), [`disk`] (keys and seals), [`log`],
//! [`machine`]; [`peers`], `network`, `inbound`, `mesh` (a network for tests), [`grpc`]; [`options`], `member`, [`metadata`].

pub mod codec;
pub mod disk;
pub mod engine;
pub mod grpc;
mod inbound;
pub mod log;
pub mod machine;
mod member;
#[cfg(any(test, feature = "test-util"))]
pub mod mesh;
pub mod metadata;
mod network;
pub mod options;
pub mod peers;
pub mod types;

pub use grpc::{GrpcPeers, PeersGrpc};
#[cfg(feature = "rocksdb")]
pub use machine::offline::owner_at;
pub use member::{AdminError, Role, StartError, Status};
pub use metadata::RaftMetadata;
pub use options::RaftOptions;
pub use peers::{PeerError, Peers, Receive};
pub use types::{GroupId, Lineage, Member, MemberId};

#[cfg(test)]
mod group_tests;
#[cfg(test)]
mod storage_tests;
