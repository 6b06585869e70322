//! Taking nodes out of service, and out of the cluster: transactions that cannot pass a reconfiguration which chooses the
//! node (see the `roster` of the [catalog](crate::catalog)).
//!
//! Each is a loop: look, decide by a table, write if nothing changed since. A conflict and a lost reply are one case: look
//! again, and find what is wanted there already (M2, M3).

use bifrost_types::{NodeId, NodeRecord, StorageState};
use thiserror::Error;
use tracing::{debug, info};

use super::needs::Needs;
use super::transition::{Transition, TransitionRefused, transition};
use crate::back_off::BackOff;
use crate::catalog::{Catalog, CatalogError};
use crate::handle::Bifrost;

/// What became of the storage state of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StorageChanged {
    /// The node.
    pub node: NodeId,
    /// The state that was found.
    pub before: StorageState,
    /// The state now.
    pub now: StorageState,
}

/// Why a storage state is as it was.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SetStorageError {
    /// Metadata refused.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The cluster does not know the node, or not any more.
    #[error("{node} is not a node of this cluster")]
    UnknownNode {
        /// The node.
        node: NodeId,
    },
    /// One state does not lead to the other.
    #[error(transparent)]
    Refused(#[from] TransitionRefused),
    /// Segments need the node.
    #[error("{} times a segment needs {node}", needs.count())]
    Needed {
        /// The node.
        node: NodeId,
        /// Which ones.
        needs: Needs,
    },
}

/// What became of a node that was to be removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeRemoved {
    /// The node. Its number is never given again.
    pub node: NodeId,
    /// Its record as it was last; `None` when it had been removed before.
    pub record: Option<NodeRecord>,
    /// The segments that needed it; something is there only by force.
    pub needs: Needs,
}

/// Why a node was not removed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RemoveNodeError {
    /// Metadata refused.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// There never was such a node.
    #[error("{node} is not a node of this cluster")]
    UnknownNode {
        /// The node.
        node: NodeId,
    },
    /// Segments need it.
    #[error("{} times a segment needs {node}", needs.count())]
    Needed {
        /// The node.
        node: NodeId,
        /// Which ones.
        needs: Needs,
    },
    /// It is in service, so that a segment may need it the next moment.
    #[error("{node} is in service: its storage is {storage}")]
    InService {
        /// The node.
        node: NodeId,
        /// Its state.
        storage: StorageState,
    },
}

impl Bifrost {
    /// Makes the disk of a node `desired`. That it is so already is success. From when this returns no segment is put on a
    /// disk that is not read-write; one that was announced for it before is put elsewhere.
    ///
    /// `DataLoss` and `Retired` are for ever. `DataLoss` declares that the disk is lost: its copies do not count any more
    /// when the node starts again, and readers do not wait for it: what no other disk has is a gap to them (R3). That holds
    /// too for a disk whose node found it gone and wrote so itself. A process that serves the disk at this moment goes on
    /// with what it serves.
    ///
    /// Waits as long as metadata does not answer.
    ///
    /// # Errors
    /// [`SetStorageError::Refused`] when one state does not lead to the other, and [`SetStorageError::Needed`] when a node
    /// is to be retired that a segment needs. Nothing was changed then.
    ///
    /// # Cancel safety
    /// The state was changed or not; call again.
    pub async fn set_storage_state(
        &self,
        node: NodeId,
        desired: StorageState,
    ) -> Result<StorageChanged, SetStorageError> {
        let catalog = &self.cluster().catalog;
        let mut back_off = BackOff::new();
        let mut first_seen = None;
        loop {
            match set_once(catalog, node, desired, &mut first_seen).await {
                Err(SetStorageError::Catalog(error)) if error.is_passing() => {
                    debug!(%node, %error, "the storage state is looked at again");
                    back_off.pause().await;
                }
                changed => return changed,
            }
        }
    }

    /// Removes a node from the cluster. Its name is free then, its number is not, and logs that name it in their history
    /// show it as removed. That it was removed before is success.
    ///
    /// A node in service is refused, and so is one that a segment needs. With `force` neither is, and what
    /// [`node_needs`](Self::node_needs) says of the cost comes true: look there first. A node that still runs is not
    /// called any more, and does not start again with its disk.
    ///
    /// Waits as long as metadata does not answer.
    ///
    /// # Errors
    /// [`RemoveNodeError`]; the node is there as before.
    ///
    /// # Cancel safety
    /// The node was removed or not; call again.
    pub async fn remove_node(&self, node: NodeId, force: bool) -> Result<NodeRemoved, RemoveNodeError> {
        let catalog = &self.cluster().catalog;
        let mut back_off = BackOff::new();
        let mut tried = None;
        loop {
            match remove_once(catalog, node, force, &mut tried).await {
                Err(RemoveNodeError::Catalog(error)) if error.is_passing() => {
                    debug!(%node, %error, "the node is looked at again");
                    back_off.pause().await;
                }
                removed => return removed,
            }
        }
    }
}

/// Looks, and writes at most once.
async fn set_once(
    catalog: &Catalog,
    node: NodeId,
    desired: StorageState,
    first_seen: &mut Option<StorageState>,
) -> Result<StorageChanged, SetStorageError> {
    let found = catalog.stored_node(node).await?;
    let (record, revision) = found.ok_or(SetStorageError::UnknownNode { node })?;
    let changed = StorageChanged { node, before: *first_seen.get_or_insert(record.storage), now: desired };
    match transition(&record, desired)? {
        Transition::Already => return Ok(changed),
        Transition::Write => {}
        Transition::WriteIfUnneeded => {
            // Read after the record: while that is as it was read, no chain can have begun to name the disk.
            let needs = Needs::find(catalog, node).await?;
            if !needs.is_empty() {
                return Err(SetStorageError::Needed { node, needs });
            }
        }
    }
    let next = NodeRecord { storage: desired, declared_lost: desired == StorageState::DataLoss, ..record };
    catalog.change_storage(revision, &next).await?;
    info!(%node, before = %changed.before, now = %changed.now, "storage state set");
    Ok(changed)
}

/// Looks, and writes at most once. `tried` is what an attempt before would have removed.
async fn remove_once(
    catalog: &Catalog,
    node: NodeId,
    force: bool,
    tried: &mut Option<(NodeRecord, Needs)>,
) -> Result<NodeRemoved, RemoveNodeError> {
    let Some((record, revision)) = catalog.stored_node(node).await? else {
        if let Some((record, needs)) = tried.take() {
            return Ok(NodeRemoved { node, record: Some(record), needs });
        }
        if catalog.was_node(node).await? {
            return Ok(NodeRemoved { node, record: None, needs: Needs::default() });
        }
        return Err(RemoveNodeError::UnknownNode { node });
    };
    // Read after the record: what is out of service and stays so is not named anew.
    let needs = Needs::find(catalog, node).await?;
    if !force && !needs.is_empty() {
        return Err(RemoveNodeError::Needed { node, needs });
    }
    match record.storage {
        storage @ (StorageState::ReadWrite | StorageState::ReadOnly) if !force => {
            return Err(RemoveNodeError::InService { node, storage });
        }
        StorageState::Provisioning
        | StorageState::ReadWrite
        | StorageState::ReadOnly
        | StorageState::DataLoss
        | StorageState::Retired => {}
    }
    *tried = Some((record.clone(), needs.clone()));
    catalog.remove_node(&record, revision).await?;
    info!(%node, name = record.name, "node removed");
    Ok(NodeRemoved { node, record: Some(record), needs })
}
