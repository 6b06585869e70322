//! The nouns of Bifrost: ids, positions, topology, records, chains, limits. No IO, no async, no decisions of a protocol.
//!
//! Reading order: [`id`], [`position`], [`topology`], [`record`], [`loglet`], [`chain`], [`tombstone`],
//! [`role`], [`node`], [`limits`], [`plant`].
//!
//! One word has one meaning here (see `docs/GLOSSARY.md`). A `tail` is exclusive: the first position not written.
//! `first_`, `last_` and `_point` are inclusive. Ranges are half-open.

pub mod chain;
pub mod id;
pub mod limits;
pub mod loglet;
pub mod node;
pub mod plant;
pub mod position;
pub mod record;
pub mod role;
pub mod tombstone;
pub mod topology;

pub use chain::{Actor, Chain, CloseReason, Finished, Reconfiguration, Segment, SegmentState, Successor, Timings};
pub use id::{
    AppendId, ClusterId, DiskId, Generation, InvalidId, LogId, LogletId, NodeGeneration, NodeId, OpId, SegmentIndex,
    Sequence, WriterId,
};
pub use loglet::LogletParams;
pub use node::{NodeRecord, StorageState};
pub use position::{LogletOffset, Lsn, OutOfPositions};
pub use record::{KeyFilter, Keys, Record};
pub use role::{NoRole, Role, Roles, UnknownRole};
pub use tombstone::Tombstone;
pub use topology::{
    Location, Member, NodeIndex, NodeSet, Nodeset, NodesetError, PropertyError, ReplicationProperty, Scope,
};
