//! How a process becomes a node: its record, its disk and the states of DESIGN §6. The core is a table; every change is
//! written as desired state, so that repeating one whose reply was lost is success (M2, M3).
//!
//! ```text
//!  look at record and marker ─► open the disk ─► look again: which life ─► a first record ─► marker ─► life ─► state ─► serve
//! ```
//! Whatever can be refused is refused before the disk is opened: opening a store writes to it. The disk is open, and so
//! nobody else's, before the record is touched.
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
use bifrost_types::{
    ClusterId, DiskId, Generation, Location, NodeGeneration, NodeId, NodeRecord, Role, Roles, StorageState,
};
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
    /// The lives of a node are numbered, and the numbers are used up.
    #[error("{node} has begun its last life; start a new node under another name, on an empty directory")]
    LastLife {
        /// The node.
        node: NodeId,
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

/// What a starting node must do next. Each may be repeated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BootStep {
    /// Ask the node where its record says it is whether it serves this disk; then [`Boot::heard`].
    AskWhoServes(NodeId, DiskId),
    /// Open the disk, which keeps everybody else from it; then [`Boot::opened`].
    OpenDisk,
    /// Make the [first record](Identity::first_record) of the node.
    Reserve,
    /// Write this marker durably.
    WriteMarker(Marker),
    /// Write this in place of the record that was seen.
    WriteRecord(NodeRecord),
    /// Serve.
    Serve,
    /// Another process has begun this life or a later one.
    Superseded,
    /// Do not start.
    Refuse(Refusal),
}

/// One start of a node: the table of DESIGN §6, the record against the marker.
#[derive(Debug)]
pub struct Boot {
    cluster: ClusterId,
    identity: Identity,
    /// The id of a disk that has none yet.
    fresh: DiskId,
    /// Nobody else has the disk; also of a node without one.
    opened: bool,
    /// The life that this start begins, once the disk is open.
    life: Option<Generation>,
    /// What became of [`BootStep::AskWhoServes`].
    served: Option<bool>,
    /// The disk that this start found gone.
    lost: Option<DiskId>,
}

impl Boot {
    /// A start of the node `identity` in this cluster. `fresh` is the disk id for a directory without one.
    pub fn new(cluster: ClusterId, identity: Identity, fresh: DiskId) -> Self {
        let opened = !identity.roles.has(Role::LogServer);
        Self { cluster, identity, fresh, opened, life: None, served: None, lost: None }
    }

    /// Who starts.
    pub const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The disk is open. Record and marker are looked at again after this.
    pub const fn opened(&mut self) {
        self.opened = true;
    }

    /// Whether the disk that was asked for is served by whoever is where the record says.
    pub const fn heard(&mut self, served: bool) {
        self.served = Some(served);
    }

    /// What to do next, of the record and the marker as they are now.
    pub fn next(&mut self, record: Option<&NodeRecord>, marker: Option<Marker>) -> BootStep {
        if self.opened && self.life.is_none() {
            self.life = next_life(record, marker);
            if let (None, Some(record)) = (self.life, record) {
                return BootStep::Refuse(Refusal::LastLife { node: record.id.node });
            }
        }
        if let (Some(record), Some(life)) = (record, self.life) {
            match record.id.generation.cmp(&life) {
                Ordering::Less => {}
                // Our own write is recognised by our address (M2).
                Ordering::Equal if record.address == self.identity.address => {}
                Ordering::Equal | Ordering::Greater => return BootStep::Superseded,
            }
        }
        if let Some(objection) = self.objection(record, marker) {
            return objection;
        }
        let Some(life) = self.life else { return BootStep::OpenDisk };
        let Some(record) = record else { return BootStep::Reserve };
        let begun = self.identity.record_of_life(record, life);
        if !self.has_disk() {
            return if record.id.generation < life { BootStep::WriteRecord(begun) } else { BootStep::Serve };
        }
        let Some(marker) = marker else {
            let disk = record.disk.unwrap_or(self.fresh);
            let marker = Marker { cluster: self.cluster, node: record.id.node, disk, generation: Some(life) };
            return BootStep::WriteMarker(marker);
        };
        if marker.generation < Some(life) {
            return BootStep::WriteMarker(Marker { generation: Some(life), ..marker });
        }
        if record.id.generation < life {
            return BootStep::WriteRecord(begun);
        }
        let with_disk = |storage| NodeRecord { storage, disk: Some(marker.disk), ..record.clone() };
        match (record.storage, record.disk) {
            (StorageState::Provisioning, _) => BootStep::WriteRecord(with_disk(StorageState::ReadWrite)),
            (state, None) => BootStep::WriteRecord(with_disk(state)),
            (_, Some(_)) => BootStep::Serve,
        }
    }

    fn has_disk(&self) -> bool {
        self.identity.roles.has(Role::LogServer)
    }

    /// Why the node must not start, whatever it has done so far; or what must be found out and written down before it is
    /// refused.
    fn objection(&mut self, record: Option<&NodeRecord>, marker: Option<Marker>) -> Option<BootStep> {
        let refuse = |refusal| Some(BootStep::Refuse(refusal));
        let Some(record) = record else {
            // The directory of a node that the cluster does not know must be nobody's.
            let Marker { cluster, node, .. } = marker?;
            return refuse(Refusal::OthersDisk { cluster, node });
        };
        let in_service = match record.storage {
            StorageState::ReadWrite | StorageState::ReadOnly => record.disk,
            // Nothing was ever acknowledged with the disk, or what was does not count any more.
            StorageState::Provisioning | StorageState::DataLoss | StorageState::Retired => None,
        };
        if !self.has_disk() {
            // Whoever has copies keeps the role until its disk is out of service: a node that serves them no more would
            // count as lost by itself.
            return refuse(Refusal::HoldsCopies { disk: in_service? });
        }
        if let Some(marker) = marker
            && (marker.cluster != self.cluster || marker.node != record.id.node)
        {
            return refuse(Refusal::OthersDisk { cluster: marker.cluster, node: marker.node });
        }
        match record.storage {
            StorageState::Provisioning | StorageState::ReadWrite | StorageState::ReadOnly => {}
            StorageState::DataLoss | StorageState::Retired => {
                return refuse(match self.lost {
                    Some(lost) => Refusal::DiskLost { lost },
                    None => Refusal::OutOfService { state: record.storage },
                });
            }
        }
        let known = in_service?;
        match marker {
            None if plant::is(Plant::WipedDiskVotes) => None,
            None => Some(self.miss(record, known)),
            Some(marker) if marker.disk != known => refuse(Refusal::OtherDisk { found: marker.disk, expected: known }),
            Some(marker) => {
                let expected = record.id.generation;
                // A marker without a generation is from before there was one: it is taken as it is, and gets one now.
                let found = marker.generation.filter(|found| *found < expected && !plant::is(Plant::OldCopyServed))?;
                refuse(Refusal::OldCopy { disk: known, found, expected })
            }
        }
    }

    /// The record names a disk that is not here.
    fn miss(&mut self, record: &NodeRecord, disk: DiskId) -> BootStep {
        let node = record.id.node;
        // Whoever listened at our own address is gone, because we do. At another one the disk may well be in service, or
        // only stopped: to mark it would take a healthy copy away.
        if !record.address.is_empty() && record.address != self.identity.address {
            return match self.served {
                None => BootStep::AskWhoServes(node, disk),
                Some(true) => BootStep::Refuse(Refusal::NameInUse { node, disk }),
                Some(false) => BootStep::Refuse(Refusal::DiskElsewhere { node, disk }),
            };
        }
        self.lost = Some(disk);
        BootStep::WriteRecord(NodeRecord { storage: StorageState::DataLoss, ..record.clone() })
    }
}

/// The life that a start begins: above the record's, and above every one that a start tried to begin on this disk.
/// `record` is `None` for a node that the cluster does not know yet. `None` when there is no further life.
fn next_life(record: Option<&NodeRecord>, marker: Option<Marker>) -> Option<Generation> {
    let Some(record) = record else { return Some(Generation::FIRST) };
    if plant::is(Plant::GenerationNotRaised) {
        return Some(record.id.generation);
    }
    let tried = marker.and_then(|marker| marker.generation).unwrap_or(Generation::FIRST);
    record.id.generation.max(tried).next()
}
