//! How a process becomes a node: its record, its disk and the states of DESIGN §6. The core is a table; every change is
//! written as desired state, so that repeating one whose reply was lost is success (M2, M3).
//!
//! A start begins a life: it writes the life's generation into the marker of its disk, durably, and only then into the
//! record. So the marker of the disk that the record names is never behind the record, and one that is behind is an old
//! copy of that disk, which has forgotten what it acknowledged (W2). The generation is above both, not above the record's
//! alone: a start that died between the two writes has used its generation up, and a copy from before it is an old one too.
//!
//! What this cannot see is a copy that was taken and put back within one life: nothing was written down in between.

#[cfg(test)]
mod tests;

use std::cmp::Ordering;

use bifrost_logserver::Marker;
use bifrost_types::plant::{self, Plant};
use bifrost_types::{ClusterId, DiskId, Generation, Location, NodeGeneration, NodeId, NodeRecord, Roles, StorageState};
use thiserror::Error;

/// What a starting node says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Its name: the same one again is the same node in a later life.
    pub name: String,
    /// Where it listens, `host:port`; empty for a node that is reached inside its process only.
    pub address: String,
    /// Where it stands.
    pub location: Location,
    /// What it does.
    pub roles: Roles,
}

impl Identity {
    /// The record of a node that the cluster does not know yet.
    pub fn first_record(&self, node: NodeId) -> NodeRecord {
        NodeRecord {
            id: NodeGeneration::new(node, Generation::FIRST),
            name: self.name.clone(),
            address: self.address.clone(),
            location: self.location.clone(),
            disk: None,
            storage: StorageState::Provisioning,
            declared_lost: false,
            roles: self.roles,
        }
    }

    /// The record of the node in this life, from wherever it runs now.
    pub fn record_of_life(&self, record: &NodeRecord, life: Generation) -> NodeRecord {
        NodeRecord {
            id: NodeGeneration::new(record.id.node, life),
            address: self.address.clone(),
            location: self.location.clone(),
            roles: self.roles,
            ..record.clone()
        }
    }
}

/// Why a node must not serve its disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Refusal {
    /// The directory carries the marker of somebody else.
    #[error(
        "the data directory belongs to cluster {cluster}, node {node}, not to this node; give this node its own \
         directory, or an empty one if it is new"
    )]
    OthersDisk {
        /// Whose cluster.
        cluster: ClusterId,
        /// Whose node.
        node: NodeId,
    },
    /// The directory carries this node's marker with another disk id: a disk that was replaced.
    #[error(
        "the data directory is disk {found}, the cluster knows this node with disk {expected}; put that disk back, or \
         start a new node under another name"
    )]
    OtherDisk {
        /// What the marker says.
        found: DiskId,
        /// What the record says.
        expected: DiskId,
    },
    /// The directory is a copy of this node's disk from before a later life of the node began with that disk.
    #[error(
        "the data directory is an old copy of disk {disk}: it is of life {found} of the node, which has begun life \
         {expected} with that disk since; put the newer disk back, or, if it is gone, declare it as data loss and start a \
         new node under another name"
    )]
    OldCopy {
        /// The disk, by both.
        disk: DiskId,
        /// The life that the marker knows.
        found: Generation,
        /// The life that the record knows.
        expected: Generation,
    },
    /// The record names a disk, and the directory is empty: the disk was lost. Its copies do not count any more.
    #[error(
        "disk {lost} of this node is gone; it was marked as data loss and will not be served as empty; start a new node \
         under another name, on an empty directory"
    )]
    DiskLost {
        /// The lost disk.
        lost: DiskId,
    },
    /// The record names a disk that another process serves at this moment: two processes have one name.
    #[error(
        "{node} runs already, at another address, with disk {disk}; stop that process, or give this one another name"
    )]
    NameInUse {
        /// The node.
        node: NodeId,
        /// The disk that it serves.
        disk: DiskId,
    },
    /// The node is to serve no disk, and copies of it count.
    #[error(
        "the node has disk {disk} in service and is started without the role `log-server`; start it with that role, or take \
         the disk out of service first, with `bifrost node set-state`"
    )]
    HoldsCopies {
        /// The disk.
        disk: DiskId,
    },
    /// The record names a disk that is not here, and another process may have it. It is not taken for lost: to be silent
    /// is not to be gone.
    #[error(
        "disk {disk} of {node} is not here, and whoever had it was at another address and does not answer; start the node on \
         that disk, or, if it is gone, declare it with `bifrost node set-state {node} data-loss`"
    )]
    DiskElsewhere {
        /// The node.
        node: NodeId,
        /// The disk.
        disk: DiskId,
    },
    /// An operator or the node itself has taken the disk out of service.
    #[error(
        "the disk of this node is in state {state} and is not served; start a new node under another name, on an empty \
         directory"
    )]
    OutOfService {
        /// Which state.
        state: StorageState,
    },
}

/// What a starting node must do next about its disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BootStep {
    /// Write this marker durably, then look again.
    WriteMarker(Marker),
    /// Write the record with this life, which the marker knows already, then look again.
    BeginLife(Generation),
    /// Write the record with this state and disk, then look again.
    Desire(StorageState, DiskId),
    /// Serve this disk.
    Serve(DiskId),
    /// Write the record as data loss, then refuse.
    LoseDisk(DiskId),
    /// Do not start.
    Refuse(Refusal),
}

/// What a starting node without a disk must do next about its record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DisklessStep {
    /// Write the record with the life that begins, then look again.
    BeginLife,
    /// The life has begun.
    Serve,
    /// Another process has begun this life or a later one.
    Superseded,
    /// Do not start.
    Refuse(Refusal),
}

/// The same table for a node without the role of a log server. Whoever has copies keeps the role until its disk is out of
/// service: a node that serves them no more would count as lost by itself. `address` is where this process listens.
pub fn boot_step_without_disk(record: &NodeRecord, life: Generation, address: &str) -> DisklessStep {
    if let (StorageState::ReadWrite | StorageState::ReadOnly, Some(disk)) = (record.storage, record.disk) {
        return DisklessStep::Refuse(Refusal::HoldsCopies { disk });
    }
    match record.id.generation.cmp(&life) {
        Ordering::Less => DisklessStep::BeginLife,
        // Our own write is recognised by our address (M2).
        Ordering::Equal if record.address == address => DisklessStep::Serve,
        Ordering::Equal | Ordering::Greater => DisklessStep::Superseded,
    }
}

/// The life that a start begins: above the record's, and above every one that a start tried to begin on this disk.
/// `record` is `None` for a node that the cluster does not know yet. `None` when there is no further life.
pub fn next_life(record: Option<&NodeRecord>, marker: Option<Marker>) -> Option<Generation> {
    let Some(record) = record else { return Some(Generation::FIRST) };
    if plant::is(Plant::GenerationNotRaised) {
        return Some(record.id.generation);
    }
    let tried = marker.and_then(|marker| marker.generation).unwrap_or(Generation::FIRST);
    record.id.generation.max(tried).next()
}

/// The table of DESIGN §6: the record against the marker. `fresh` is the disk id for a directory without one, `life` the
/// [`next_life`] as this start found record and marker first.
pub fn boot_step(
    record: &NodeRecord,
    marker: Option<Marker>,
    cluster: ClusterId,
    fresh: DiskId,
    life: Generation,
) -> BootStep {
    if let Some(objection) = objection(record, marker, cluster) {
        return objection;
    }
    let Some(marker) = marker else {
        let disk = record.disk.unwrap_or(fresh);
        return BootStep::WriteMarker(Marker { cluster, node: record.id.node, disk, generation: Some(life) });
    };
    if marker.generation < Some(life) {
        return BootStep::WriteMarker(Marker { generation: Some(life), ..marker });
    }
    if record.id.generation < life {
        return BootStep::BeginLife(life);
    }
    match (record.storage, record.disk) {
        (StorageState::Provisioning, _) => BootStep::Desire(StorageState::ReadWrite, marker.disk),
        (state, None) => BootStep::Desire(state, marker.disk),
        (_, Some(disk)) => BootStep::Serve(disk),
    }
}

/// What can be said about a directory before anything is touched: neither the directory nor, but for a lost disk, the
/// record. `record` is `None` for a node that the cluster does not know yet; its directory must be nobody's.
pub fn before_boot(record: Option<&NodeRecord>, marker: Option<Marker>, cluster: ClusterId) -> Option<BootStep> {
    match (record, marker) {
        (Some(record), marker) => objection(record, marker, cluster),
        (None, Some(Marker { cluster, node, .. })) => Some(BootStep::Refuse(Refusal::OthersDisk { cluster, node })),
        (None, None) => None,
    }
}

/// Why the disk must not be served, whatever a start has done about it so far.
fn objection(record: &NodeRecord, marker: Option<Marker>, cluster: ClusterId) -> Option<BootStep> {
    if let Some(marker) = marker
        && (marker.cluster != cluster || marker.node != record.id.node)
    {
        return Some(BootStep::Refuse(Refusal::OthersDisk { cluster: marker.cluster, node: marker.node }));
    }
    match (record.storage, record.disk, marker) {
        (state @ (StorageState::DataLoss | StorageState::Retired), _, _) => {
            Some(BootStep::Refuse(Refusal::OutOfService { state }))
        }
        // Nothing was ever acknowledged with this disk.
        (StorageState::Provisioning, _, _) | (StorageState::ReadWrite | StorageState::ReadOnly, None, _) => None,
        (StorageState::ReadWrite | StorageState::ReadOnly, Some(known), Some(marker)) => {
            if marker.disk != known {
                return Some(BootStep::Refuse(Refusal::OtherDisk { found: marker.disk, expected: known }));
            }
            let expected = record.id.generation;
            // A marker without a generation is from before there was one: it is taken as it is, and gets one now.
            let found = marker.generation.filter(|found| *found < expected && !plant::is(Plant::OldCopyServed))?;
            Some(BootStep::Refuse(Refusal::OldCopy { disk: known, found, expected }))
        }
        (StorageState::ReadWrite | StorageState::ReadOnly, Some(known), None) => {
            (!plant::is(Plant::WipedDiskVotes)).then_some(BootStep::LoseDisk(known))
        }
    }
}
