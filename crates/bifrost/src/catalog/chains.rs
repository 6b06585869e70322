//! All chains at once, and what changes of keys say: for whoever cares for logs that nobody opened.

use bifrost_types::{LogId, NodeId};
use bifrost_wire::metadata::{Change, Revision, WatchStream};
use tracing::warn;

use super::{Catalog, CatalogError, LOGS, NODES, PAGE, StoredChain, decode_chain_value, decode_stored};

impl Catalog {
    /// Shows all chains to `visit`, page by page; returns the revision to follow from. One that cannot be understood is
    /// reported and passed over, so that it does not stand in the way of the others.
    ///
    /// # Errors
    /// [`CatalogError`] when metadata cannot be read.
    pub(crate) async fn visit_chains(&self, mut visit: impl FnMut(StoredChain)) -> Result<Revision, CatalogError> {
        let mut after = None;
        let mut first_revision = None;
        loop {
            let page = self.store.list(LOGS.to_owned(), after, PAGE).await?;
            let revision = *first_revision.get_or_insert(page.revision);
            for (key, stored) in &page.entries {
                match decode_stored(stored) {
                    Ok(stored) => visit(stored),
                    Err(error) => warn!(key, %error, "a chain cannot be read"),
                }
            }
            match page.entries.last() {
                Some((last, _)) if page.more => after = Some(last.clone()),
                // A watch from the first page's revision tells what changed while the others were read.
                _ => return Ok(revision),
            }
        }
    }

    /// Shows all chains to `visit`, or none of the answer counts: for whoever must not miss one.
    ///
    /// # Errors
    /// [`CatalogError::Damaged`] when one cannot be understood; [`CatalogError`] when metadata cannot be read.
    pub(crate) async fn visit_every_chain(&self, mut visit: impl FnMut(StoredChain)) -> Result<(), CatalogError> {
        let mut after = None;
        loop {
            let page = self.store.list(LOGS.to_owned(), after, PAGE).await?;
            for (_, stored) in &page.entries {
                visit(decode_stored(stored)?);
            }
            match page.entries.last() {
                Some((last, _)) if page.more => after = Some(last.clone()),
                _ => return Ok(()),
            }
        }
    }

    /// A revision that a watch of all chains can begin at now.
    ///
    /// # Errors
    /// [`CatalogError`] when metadata cannot be read.
    pub(crate) async fn chains_revision(&self) -> Result<Revision, CatalogError> {
        Ok(self.store.list(LOGS.to_owned(), None, 1).await?.revision)
    }

    /// Delivers every change of any chain after a revision.
    ///
    /// # Errors
    /// [`CatalogError`] when metadata cannot be watched.
    pub(crate) async fn watch_chains(&self, after: Revision) -> Result<WatchStream, CatalogError> {
        Ok(self.store.watch(LOGS.to_owned(), after).await?)
    }

    /// The log whose chain changed, and the chain; without one the log was deleted. `None`, and a report, when the change
    /// cannot be understood.
    pub(crate) fn chain_change(change: &Change) -> Option<(LogId, Option<StoredChain>)> {
        let Some(value) = &change.value else {
            return Some((Self::log_of(&change.key)?, None));
        };
        match decode_chain_value(value) {
            Ok(chain) => Some((chain.log, Some(StoredChain { chain, revision: change.revision }))),
            Err(error) => {
                warn!(key = change.key, %error, "a chain cannot be read");
                None
            }
        }
    }

    /// The log whose chain has this key.
    pub(crate) fn log_of(key: &str) -> Option<LogId> {
        LogId::try_from(key.strip_prefix(LOGS)?.parse::<u64>().ok()?).ok()
    }

    /// The node whose record has this key.
    pub(crate) fn node_of(key: &str) -> Option<NodeId> {
        NodeId::try_from(key.strip_prefix(NODES)?.parse::<u32>().ok()?).ok()
    }
}
