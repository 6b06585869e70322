//! What the cluster knows of a node.

use std::fmt;

use crate::id::{DiskId, NodeGeneration};
use crate::role::Roles;
use crate::topology::Location;

/// Life of a log server's storage (DESIGN §6), as desired state in the node's record (M3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StorageState {
    /// Not yet known to have a disk.
    Provisioning,
    /// Takes new loglets and new records.
    ReadWrite,
    /// Serves what it has and takes no new loglets.
    ReadOnly,
    /// Its disk was lost: not authoritative, never counts as empty.
    DataLoss,
    /// Holds nothing that history needs.
    Retired,
}

impl fmt::Display for StorageState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Provisioning => "provisioning",
            Self::ReadWrite => "read-write",
            Self::ReadOnly => "read-only",
            Self::DataLoss => "data-loss",
            Self::Retired => "retired",
        })
    }
}

/// The metadata record of one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeRecord {
    /// The node and its present life.
    pub id: NodeGeneration,
    /// The name that the operator gave it.
    pub name: String,
    /// Where it listens, `host:port`; empty for a node inside the caller's process.
    pub address: String,
    /// Where it stands.
    pub location: Location,
    /// The disk whose marker it carries, once it has one.
    pub disk: Option<DiskId>,
    /// Life of that disk.
    pub storage: StorageState,
    /// An operator said that the disk will not come back (R3); then it is in [`StorageState::DataLoss`]. A node that finds
    /// its disk gone writes that state too, and that is no such word: a person may still find the disk.
    pub declared_lost: bool,
    /// What the node does, as of its present life.
    pub roles: Roles,
}
