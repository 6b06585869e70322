//! The servers give the space of a deleted log back.

use bifrost_loglet::peers::Peers;
use tracing::debug;

use crate::catalog::{Catalog, CatalogError, StoredTombstone};
use crate::give_back::{Given, Owed, tell};

/// Makes the servers drop everything of a removed log, and takes its tombstone away when all of them have. A node that
/// the cluster does not know any more, or whose disk is gone, owes nothing. Any number of processes may do this at once,
/// again and again: everything that the servers are told is idempotent. What is in `given` is not asked for again.
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
    given: &Given,
) -> Result<Owed, CatalogError> {
    let Some(chain) = &tombstone.tombstone.removed else { return Ok(Owed::default()) };
    let (nodes, _) = catalog.nodes().await?;
    // What had left the chain before was given back before.
    let owed = tell(peers, &chain.segments, &nodes, given).await.owed;
    if owed.by.is_empty() {
        match catalog.remove_tombstone(tombstone).await {
            // Somebody else was as fast.
            Ok(()) | Err(CatalogError::Conflict) => {}
            Err(error) => return Err(error),
        }
    } else {
        debug!(log = %tombstone.tombstone.log, nodes = ?owed.by.keys(), "space of a deleted log is not given back yet");
    }
    Ok(owed)
}
