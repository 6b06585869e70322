//! How a process becomes a node: its record, its disk and the states of DESIGN §6. The core is a table; every change is
//! written as desired state, so that repeating one whose reply was lost is success (M2, M3).

use bifrost_logserver::Marker;
use bifrost_types::plant::{self, Plant};
use bifrost_types::{ClusterId, DiskId, Generation, Location, NodeGeneration, NodeId, NodeRecord, Roles, StorageState};
use bifrost_wire::metadata::Revision;
use thiserror::Error;

use crate::catalog::{Catalog, CatalogError};

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
            roles: self.roles,
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
    /// The directory carries this node's marker with another disk id: an old copy, or a disk that was replaced.
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
    /// Write the record with this state and disk, then look again.
    Desire(StorageState, DiskId),
    /// Serve this disk.
    Serve(DiskId),
    /// Write the record as data loss, then refuse.
    LoseDisk(DiskId),
    /// Do not start.
    Refuse(Refusal),
}

/// The table of DESIGN §6: the record against the marker. `fresh` is the disk id for a directory without one.
pub fn boot_step(record: &NodeRecord, marker: Option<Marker>, cluster: ClusterId, fresh: DiskId) -> BootStep {
    let node = record.id.node;
    if let Some(marker) = marker
        && (marker.cluster != cluster || marker.node != node)
    {
        return BootStep::Refuse(Refusal::OthersDisk { cluster: marker.cluster, node: marker.node });
    }
    match (record.storage, marker) {
        (StorageState::Provisioning, None) => BootStep::WriteMarker(Marker { cluster, node, disk: fresh }),
        (StorageState::Provisioning, Some(marker)) => BootStep::Desire(StorageState::ReadWrite, marker.disk),
        (StorageState::ReadWrite | StorageState::ReadOnly, marker) => match (record.disk, marker) {
            (Some(known), Some(marker)) if known == marker.disk => BootStep::Serve(known),
            (Some(known), Some(marker)) => BootStep::Refuse(Refusal::OtherDisk { found: marker.disk, expected: known }),
            (Some(disk), None) if plant::is(Plant::WipedDiskVotes) => {
                BootStep::WriteMarker(Marker { cluster, node, disk })
            }
            (Some(known), None) => BootStep::LoseDisk(known),
            (None, Some(marker)) => BootStep::Desire(record.storage, marker.disk),
            (None, None) => BootStep::WriteMarker(Marker { cluster, node, disk: fresh }),
        },
        (state @ (StorageState::DataLoss | StorageState::Retired), _) => {
            BootStep::Refuse(Refusal::OutOfService { state })
        }
    }
}

/// What can be said about a directory before anything is touched: neither the directory nor, but for a lost disk, the
/// record. `record` is `None` for a node that the cluster does not know yet; its directory must be nobody's.
pub fn before_boot(
    record: Option<&NodeRecord>,
    marker: Option<Marker>,
    cluster: ClusterId,
    fresh: DiskId,
) -> Option<BootStep> {
    let step = match (record, marker) {
        (Some(record), marker) => boot_step(record, marker, cluster, fresh),
        (None, Some(Marker { cluster, node, .. })) => BootStep::Refuse(Refusal::OthersDisk { cluster, node }),
        (None, None) => return None,
    };
    match step {
        BootStep::LoseDisk(_) | BootStep::Refuse(_) => Some(step),
        BootStep::WriteMarker(_) | BootStep::Desire(..) | BootStep::Serve(_) => None,
    }
}

/// Finds or makes the record of a node and begins its next life.
///
/// # Errors
/// [`CatalogError`] when metadata cannot be reached; calling again begins yet another life, which is harmless.
pub(crate) async fn begin_life(catalog: &Catalog, identity: &Identity) -> Result<(NodeRecord, Revision), CatalogError> {
    loop {
        let made = match catalog.node_by_name(&identity.name).await? {
            None => catalog.create_node(&identity.name, |node| identity.first_record(node)).await,
            Some((record, revision)) => {
                let mut generation = record.id.generation.next().ok_or(CatalogError::Exhausted)?;
                if plant::is(Plant::GenerationNotRaised) {
                    generation = record.id.generation;
                }
                let next = NodeRecord {
                    id: NodeGeneration::new(record.id.node, generation),
                    address: identity.address.clone(),
                    location: identity.location.clone(),
                    roles: identity.roles,
                    ..record
                };
                catalog.replace_node(revision, &next).await.map(|revision| (next, revision))
            }
        };
        match made {
            Err(CatalogError::Conflict) => {} // somebody changed the record: look again
            made => return made,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster(value: u128) -> ClusterId {
        ClusterId::try_from(value).expect("non-zero")
    }

    fn disk(value: u128) -> DiskId {
        DiskId::try_from(value).expect("non-zero")
    }

    fn record(storage: StorageState, disk: Option<DiskId>) -> NodeRecord {
        NodeRecord {
            id: NodeGeneration::new(NodeId::try_from(3).expect("non-zero"), Generation::FIRST),
            name: "three".to_owned(),
            address: String::new(),
            location: Location::default(),
            disk,
            storage,
            roles: Roles::DATA,
        }
    }

    fn marker(disk_id: u128) -> Marker {
        Marker { cluster: cluster(1), node: NodeId::try_from(3).expect("non-zero"), disk: disk(disk_id) }
    }

    fn step(record: &NodeRecord, marker: Option<Marker>) -> BootStep {
        boot_step(record, marker, cluster(1), disk(77))
    }

    #[test]
    fn first_boot_writes_the_marker_and_then_the_state_and_each_may_be_interrupted() {
        let record = record(StorageState::Provisioning, None);
        assert_eq!(step(&record, None), BootStep::WriteMarker(marker(77)));
        assert_eq!(step(&record, Some(marker(7))), BootStep::Desire(StorageState::ReadWrite, disk(7)));
    }

    #[test]
    fn a_matching_disk_is_served_and_a_lost_one_never_as_empty() {
        let record = record(StorageState::ReadWrite, Some(disk(7)));
        assert_eq!(step(&record, Some(marker(7))), BootStep::Serve(disk(7)));
        assert_eq!(step(&record, None), BootStep::LoseDisk(disk(7)));
        let other = Refusal::OtherDisk { found: disk(8), expected: disk(7) };
        assert_eq!(step(&record, Some(marker(8))), BootStep::Refuse(other));
    }

    #[test]
    fn somebody_elses_disk_is_refused_in_every_state() {
        let foreign = Marker { cluster: cluster(2), ..marker(7) };
        for storage in [StorageState::Provisioning, StorageState::ReadWrite, StorageState::DataLoss] {
            let step = step(&record(storage, Some(disk(7))), Some(foreign));
            assert!(matches!(step, BootStep::Refuse(Refusal::OthersDisk { .. })), "{storage}");
        }
    }

    #[test]
    fn a_node_that_nobody_knows_takes_no_disk_that_somebody_marked() {
        let before = |record, marker| before_boot(record, marker, cluster(1), disk(77));
        assert_eq!(before(None, None), None);
        let refusal = Refusal::OthersDisk { cluster: cluster(1), node: marker(7).node };
        assert_eq!(before(None, Some(marker(7))), Some(BootStep::Refuse(refusal)));
        let known = record(StorageState::ReadWrite, Some(disk(7)));
        assert_eq!(before(Some(&known), Some(marker(7))), None, "the table decides once the directory is locked");
        assert_eq!(before(Some(&known), None), Some(BootStep::LoseDisk(disk(7))));
    }

    #[test]
    fn a_disk_out_of_service_stays_out() {
        for state in [StorageState::DataLoss, StorageState::Retired] {
            for marker in [None, Some(marker(7))] {
                let step = step(&record(state, Some(disk(7))), marker);
                assert_eq!(step, BootStep::Refuse(Refusal::OutOfService { state }));
            }
        }
    }
}
