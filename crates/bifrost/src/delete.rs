//! Deleting a log: an intent that outlives whoever had it, a log that takes no more, one transaction that takes it away,
//! and servers that give the space back.
//!
//! | chain | tombstone | next step |
//! |---|---|---|
//! | there | none | write the tombstone: from now on anybody can finish this |
//! | open | closing | close the log for good under the operation of the tombstone, so that nothing more is acknowledged |
//! | closed | closing | **remove**: one transaction takes chain and name away; the tombstone keeps the final chain |
//! | gone | removed | tell the servers: settle, then trim everything; when all have answered, the tombstone goes |
//!
//! The log is gone with the remove, not before: until then it can be read. Its id is never given again (C2), and the
//! servers keep the seal, the decided tail and the trim point of its loglets, so that a late store finds a closed door.
//! The core, [`next_step`], keeps nothing that a crash could lose; a lost reply, a conflict and a resumed deletion are
//! one case: look again (M2). Whoever deletes gives the space back in the background; the [`sweeper`] of each node
//! finishes what was left behind.

mod give_back;
pub mod sweeper;

use std::sync::Arc;

use bifrost_loglet::peers::Peers;
use bifrost_types::{Actor, Chain, CloseReason, LogId, OpId, Tombstone};
use tokio::sync::watch;
use tracing::{debug, info};

use crate::back_off::BackOff;
use crate::catalog::{Catalog, CatalogError, StoredTombstone};
use crate::chain::ChainError;
use crate::clock::now_millis;
use crate::reconfigure::{Intent, Progress, ReconfigureError, Reconfigurer, Surroundings};

pub use self::give_back::give_back;
pub use crate::give_back::{Given, Owed};

/// The next step of a deletion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeleteStep {
    /// Write this tombstone if nobody wrote one, then look again.
    Announce(Tombstone),
    /// Carry this intent out, then look again.
    Close(Intent),
    /// Take the chain away and leave this tombstone, then look again.
    Remove(Tombstone),
    /// The log is gone. The servers may still have to give its space back.
    Removed,
    /// Neither log nor tombstone: it is over, or there never was such a log.
    Gone,
}

/// The next step, given what is in metadata. `chain` must have been read before `tombstone`.
///
/// # Errors
/// [`ChainError::Damaged`] when the two contradict each other.
pub fn next_step(
    log: LogId,
    op: OpId,
    chain: Option<&Chain>,
    tombstone: Option<&Tombstone>,
    now_millis: u64,
) -> Result<DeleteStep, ChainError> {
    match (chain, tombstone) {
        (None, None) => Ok(DeleteStep::Gone),
        // A chain beside it was read before it was removed.
        (_, Some(Tombstone { removed: Some(_), .. })) => Ok(DeleteStep::Removed),
        // Both go in one transaction, and the chain was read first.
        (None, Some(_)) => Err(ChainError::Damaged),
        (Some(_), None) => Ok(DeleteStep::Announce(Tombstone { log, op, opened_at_millis: now_millis, removed: None })),
        (Some(chain), Some(tombstone)) => {
            let last = chain.last().ok_or(ChainError::Damaged)?;
            if last.decided_tail().is_none() {
                return Ok(DeleteStep::Close(Intent {
                    op: tombstone.op,
                    segment: last.index(),
                    actor: Actor::Operator,
                    reason: CloseReason::Deleted,
                    successor: None,
                }));
            }
            // Outcomes are of no use any more, and without them the value is no larger than the chain was.
            let removed = Chain { finished: Vec::new(), ..chain.clone() };
            Ok(DeleteStep::Remove(Tombstone { removed: Some(removed), ..tombstone.clone() }))
        }
    }
}

/// Deletes one log.
#[derive(Debug, Clone)]
pub struct Deleter {
    log: LogId,
    catalog: Catalog,
    peers: Arc<dyn Peers>,
}

impl Deleter {
    /// Deletes `log`.
    pub fn new(log: LogId, catalog: Catalog, peers: Arc<dyn Peers>) -> Self {
        Self { log, catalog, peers }
    }

    /// Carries the deletion out, or joins the one that is under way, until the log is gone. Returns the tombstone, unless
    /// the servers have given everything back already: [`give_back`] is what follows, and nobody needs to wait for it.
    ///
    /// Waits as long as metadata, an f-majority or a write quorum for repair cannot be reached; `progress` says which.
    ///
    /// # Errors
    /// [`CatalogError::UnknownLog`] when there is no such log, or another operation had deleted it before this one
    /// began; an error of metadata when already the first look fails.
    ///
    /// # Cancel safety
    /// Safe at every await. Once the tombstone is written, a sweeper finishes what was begun.
    pub async fn drive(
        &self,
        op: OpId,
        progress: &watch::Sender<Progress>,
        surroundings: &dyn Surroundings,
    ) -> Result<Option<StoredTombstone>, ReconfigureError> {
        let mut back_off = BackOff::new();
        let mut was_there = false;
        loop {
            progress.send_replace(Progress::Metadata);
            match self.step(op, was_there, progress, surroundings).await {
                Ok(Stepped::Over(tombstone)) => return Ok(tombstone.map(|tombstone| *tombstone)),
                Ok(Stepped::Further) => was_there = true,
                Err(ReconfigureError::Catalog(error)) if error.is_passing() && was_there => {
                    debug!(log = %self.log, %error, "deletion waits for metadata");
                    back_off.pause().await;
                }
                // Removed by somebody else while we closed it.
                Err(ReconfigureError::Catalog(CatalogError::UnknownLog)) if was_there => back_off.pause().await,
                Err(error) => return Err(error),
            }
        }
    }

    async fn step(
        &self,
        op: OpId,
        was_there: bool,
        progress: &watch::Sender<Progress>,
        surroundings: &dyn Surroundings,
    ) -> Result<Stepped, ReconfigureError> {
        let chain = match self.catalog.chain(self.log).await {
            Ok(stored) => Some(stored),
            Err(CatalogError::UnknownLog) => None,
            Err(error) => return Err(error.into()),
        };
        if let Some(stored) = &chain {
            surroundings.seen(stored);
        }
        let tombstone = self.catalog.tombstone(self.log).await?;
        let step = next_step(
            self.log,
            op,
            chain.as_ref().map(|stored| &stored.chain),
            tombstone.as_ref().map(|stored| &stored.tombstone),
            now_millis(),
        )?;
        let written = match (step, &chain, tombstone) {
            (DeleteStep::Announce(announced), Some(chain), _) => {
                self.catalog.announce_deletion(chain, &announced).await
            }
            (DeleteStep::Remove(removed), Some(chain), Some(tombstone)) => {
                let removing = self.catalog.remove_log(chain, &tombstone, &removed).await;
                if removing.is_ok() {
                    info!(log = %self.log, op = %removed.op, "log deleted");
                }
                removing
            }
            (DeleteStep::Close(intent), _, _) => {
                let reconfigurer = Reconfigurer::new(self.log, self.catalog.clone(), self.peers.clone());
                // What it would tell the servers, giving the space back tells them too.
                reconfigurer.drive(&intent, progress, surroundings).await?;
                Ok(())
            }
            (DeleteStep::Removed, _, Some(tombstone)) if was_there || tombstone.tombstone.op == op => {
                return Ok(Stepped::Over(Some(Box::new(tombstone))));
            }
            (DeleteStep::Gone, _, _) if was_there => return Ok(Stepped::Over(None)),
            _ => return Err(CatalogError::UnknownLog.into()),
        };
        match written {
            // A conflict and a lost reply are the same to us: look again (M2).
            Err(error) if error.is_passing() => debug!(log = %self.log, %error, "deletion looks again"),
            written => written?,
        }
        Ok(Stepped::Further)
    }
}

enum Stepped {
    /// The log was there, and it is not known to be gone.
    Further,
    /// It is gone, and this is what is left of it.
    Over(Option<Box<StoredTombstone>>),
}

#[cfg(test)]
mod tests;
