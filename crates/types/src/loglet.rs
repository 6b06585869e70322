//! The immutable parameters of a loglet.

use crate::id::{LogletId, NodeGeneration};
use crate::topology::{Nodeset, ReplicationProperty};

/// Everything that is fixed about a loglet when its segment is opened.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LogletParams {
    /// Which loglet.
    pub id: LogletId,
    /// The only disks that may hold its records.
    pub nodeset: Nodeset,
    /// What a write quorum is.
    pub replication: ReplicationProperty,
    /// The one life of one node that numbers its records (A6, L5).
    pub sequencer: NodeGeneration,
}
