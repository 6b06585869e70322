//! Segments that are wholly trimmed leave their chain, so that a log that is written, trimmed and moved for years has a chain
//! as short as what can be read of it.
//!
//! | chain | next step |
//! |---|---|
//! | has [spent](spent) segments | the **servers give the space back**: every member of each is told the decided tail (`Settle`) and to trim everything (`Trim`) |
//! | the oldest of them are given back | they **leave**: one transaction takes them off the beginning of the chain. A move or a trim in the same process takes them along, so that moves without a pause do not keep them |
//! | has none | over |
//!
//! A segment leaves after its space was given back, not before: the chain itself is the list of who owes what, and there is no
//! other. So whatever is interrupted is found there and done again (M2: every step is idempotent), a server that was away
//! is asked until it answers, and one that will never answer again is not waited for: its node was removed, or its disk is
//! lost or retired. Until then its segments, and those after them, stay; they are readable as `Trimmed`, like everything
//! below the trim point.
//!
//! Whoever trims does this in the background; what was left behind is found by the controllers ([`keeper`]). Loglet ids do not
//! come back (`next_segment` stays), LSNs do not move (the first segment has its base), and readers below are told
//! `Trimmed` by the trim point, which the chain keeps.

pub mod keeper;

use std::sync::Arc;

use bifrost_loglet::peers::Peers;
use bifrost_types::{Chain, LogId, Segment, SegmentIndex};
use bifrost_wire::metadata::MetadataError;
use tracing::{debug, info};

use crate::back_off::BackOff;
use crate::catalog::{Catalog, CatalogError, StoredChain};
use crate::chain::{ChainError, spent, to_leave, without_spent};
use crate::give_back::{Given, Owed, tell};

/// Why a chain was not shortened as far as it could be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ShortenError {
    /// The chain could not be read or written. Nothing is lost: what is spent stays in it.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The chain takes no such change.
    #[error(transparent)]
    Chain(#[from] ChainError),
}

/// Shortens one chain.
#[derive(Debug, Clone)]
pub struct Shortener {
    log: LogId,
    catalog: Catalog,
    peers: Arc<dyn Peers>,
}

impl Shortener {
    /// Shortens the chain of `log`.
    pub fn new(log: LogId, catalog: Catalog, peers: Arc<dyn Peers>) -> Self {
        Self { log, catalog, peers }
    }

    /// Makes the servers give back what is spent, and takes it off the chain, until nothing is spent any more or somebody
    /// owes; returns who. `seen` is shown every chain that was read or written. What is in `given` is not asked for again. While
    /// something is pending they give it back, and leave later.
    ///
    /// # Errors
    /// [`ShortenError`] when metadata cannot be read or written, a lost reply apart: that is the same as looking again (M2).
    ///
    /// # Cancel safety
    /// Safe at every await: whoever comes next finds in the chain what is left to do.
    pub(crate) async fn drive(
        &self,
        seen: &(dyn Fn(&StoredChain) + Sync),
        given: &Given,
    ) -> Result<Owed, ShortenError> {
        let mut back_off = BackOff::new();
        loop {
            let read = self.catalog.chain(self.log).await?;
            seen(&read);
            let trimmed = to_leave(&read.chain);
            if trimmed.is_empty() {
                return Ok(Owed::default());
            }
            // After the chain: a node that it names is among them, or gone.
            let (nodes, _) = self.catalog.nodes().await?;
            let told = tell(self.peers.as_ref(), trimmed, &nodes, given).await;
            let returned = last_given_back(trimmed, told.oldest_owed);
            if returned > given.returned() {
                given.note_returned(returned);
                // Whoever moves the log takes it along, and the next ones are not to wait for a race that is lost to moves.
                back_off.reset();
            }
            if let Some(last) = returned
                && let Some(shorter) = without_spent(&read.chain, last)?
            {
                match self.catalog.replace(&read, shorter).await {
                    Ok(written) => {
                        back_off.reset();
                        info!(log = %self.log, %last, "trimmed segments left the chain");
                        seen(&written);
                    }
                    // A conflict and a lost reply are the same to us: look again.
                    Err(error @ (CatalogError::Conflict | CatalogError::Metadata(MetadataError::Unknown))) => {
                        debug!(log = %self.log, %error, "shortening looks again");
                        back_off.pause().await;
                        continue;
                    }
                    Err(error) => return Err(error.into()),
                }
            }
            if read.chain.pending.is_some() {
                return Ok(told.owed);
            }
            if !told.owed.by.is_empty() {
                debug!(log = %self.log, nodes = ?told.owed.by.keys(), "trimmed segments wait for nodes");
                return Ok(told.owed);
            }
        }
    }
}

/// Whether a chain has segments that should leave it.
pub(crate) fn is_due(chain: &Chain) -> bool {
    !spent(chain).is_empty()
}

/// The last segment before the oldest of which somebody owes.
fn last_given_back(segments: &[Segment], oldest_owed: Option<SegmentIndex>) -> Option<SegmentIndex> {
    let given = segments.iter().map(Segment::index).take_while(|index| oldest_owed.is_none_or(|owed| *index < owed));
    given.last()
}

#[cfg(test)]
mod tests;
