//! The servers give the space of a deleted log back.

use std::collections::BTreeMap;
use std::time::Duration;

use bifrost_loglet::peers::{MemberError, Peers};
use bifrost_types::{Chain, DiskId, LogletId, LogletOffset, NodeId, NodeRecord, OpId, SegmentState, StorageState};
use bifrost_wire::RpcError;
use bifrost_wire::log_server::{LogServer, SettleRequest, TrimRequest};
use futures_util::future::join_all;
use tokio::time::timeout;
use tracing::debug;

use crate::catalog::{Catalog, CatalogError, StoredTombstone};

/// For one answer, which is one fsync.
const CALL_DEADLINE: Duration = Duration::from_secs(5);

/// What one disk has of a closed loglet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Share {
    loglet: LogletId,
    disk: DiskId,
    op: OpId,
    decided_tail: LogletOffset,
}

/// The nodes that have not given the space back, and why.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Owed {
    /// By node id.
    pub by: BTreeMap<NodeId, MemberError>,
}

/// Makes the servers drop everything of a removed log, and takes its tombstone away when all of them have. A node that
/// the cluster does not know any more, or whose disk is gone, owes nothing. Any number of processes may do this at once,
/// again and again: everything that the servers are told is idempotent.
///
/// # Errors
/// [`CatalogError`] when metadata cannot be read or written. Nothing is lost: the tombstone stays.
///
/// # Cancel safety
/// Safe: do it again.
pub async fn give_back(
    catalog: &Catalog,
    peers: &dyn Peers,
    tombstone: &StoredTombstone,
) -> Result<Owed, CatalogError> {
    let Some(chain) = &tombstone.tombstone.removed else { return Ok(Owed::default()) };
    let (nodes, _) = catalog.nodes().await?;
    let telling = shares(chain, &nodes).into_iter().map(|(node, shares)| async move {
        let told = match peers.log_server(node) {
            Some(server) => drop_all(server.as_ref(), &shares).await,
            None => Err(MemberError::AddressUnknown),
        };
        told.err().map(|error| (node, error))
    });
    let by: BTreeMap<NodeId, MemberError> = join_all(telling).await.into_iter().flatten().collect();
    if by.is_empty() {
        match catalog.remove_tombstone(tombstone).await {
            // Somebody else was as fast.
            Ok(()) | Err(CatalogError::Conflict) => {}
            Err(error) => return Err(error),
        }
    } else {
        debug!(log = %tombstone.tombstone.log, nodes = ?by.keys(), "space of a deleted log is not given back yet");
    }
    Ok(Owed { by })
}

/// What each node has to drop, oldest loglet first.
fn shares(chain: &Chain, nodes: &[NodeRecord]) -> BTreeMap<NodeId, Vec<Share>> {
    let mut shares: BTreeMap<NodeId, Vec<Share>> = BTreeMap::new();
    for segment in &chain.segments {
        // A removed chain has no open segment.
        let SegmentState::Sealed { tail, op, .. } = segment.state else { continue };
        for member in segment.params.nodeset.members() {
            if nodes.iter().any(|node| node.id.node == member.node && has(node, member.disk)) {
                let share = Share { loglet: segment.params.id, disk: member.disk, op, decided_tail: tail };
                shares.entry(member.node).or_default().push(share);
            }
        }
    }
    shares
}

/// Whether the node has that disk, by its record. A disk that is lost or retired is never served again.
fn has(node: &NodeRecord, disk: DiskId) -> bool {
    node.disk == Some(disk)
        && match node.storage {
            StorageState::Provisioning | StorageState::ReadWrite | StorageState::ReadOnly => true,
            StorageState::DataLoss | StorageState::Retired => false,
        }
}

/// Ends every loglet where it was decided to end, then trims all of it.
async fn drop_all(server: &dyn LogServer, shares: &[Share]) -> Result<(), MemberError> {
    for &Share { loglet, disk, op, decided_tail } in shares {
        in_time(server.settle(SettleRequest { loglet, disk, op, decided_tail })).await?;
        if let Some(trim_point) = decided_tail.previous() {
            in_time(server.trim(TrimRequest { loglet, disk, trim_point })).await?;
        }
    }
    Ok(())
}

async fn in_time<T, E: Into<MemberError>>(call: impl Future<Output = Result<T, E>>) -> Result<T, MemberError> {
    match timeout(CALL_DEADLINE, call).await {
        Ok(answer) => answer.map_err(Into::into),
        Err(_) => Err(RpcError::DeadlinePassed.into()),
    }
}
