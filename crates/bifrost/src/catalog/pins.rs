//! Where operators want the sequencers of logs.
//!
//! A pin is a wish that placement reads; it moves nothing by itself, and nothing waits for a pinned node. It has a key of its
//! own so that to set one does not contend with a reconfiguration of the log.

use bifrost_types::{LogId, NodeId};
use bifrost_wire::metadata::{Precondition, Txn, TxnOutcome};

use super::{Catalog, CatalogError, chain_key, text};

const LOG_PINS: &str = "log-pins/";

impl Catalog {
    /// The node that the sequencer of a log is pinned to, if it is.
    ///
    /// # Errors
    /// [`CatalogError`] when metadata cannot be read.
    pub async fn pin(&self, log: LogId) -> Result<Option<NodeId>, CatalogError> {
        let stored = self.store.get(pin_key(log)).await?;
        stored.map(|stored| text(&stored.value)).transpose()
    }

    /// Pins the sequencer of a log to a node, or takes the pin away. The last one to set it wins, and it goes with the log.
    ///
    /// # Errors
    /// [`CatalogError::UnknownLog`] when there is no such log, [`CatalogError::Conflict`] when its chain changed meanwhile:
    /// try again. After [`MetadataError::Unknown`](bifrost_wire::metadata::MetadataError::Unknown) it is set or not.
    pub async fn set_pin(&self, log: LogId, node: Option<NodeId>) -> Result<(), CatalogError> {
        // A pin of a log that is gone would stay for ever: ids are not given twice (C2).
        let key = chain_key(log);
        let stored = self.store.get(key.clone()).await?.ok_or(CatalogError::UnknownLog)?;
        let there = Txn::new().expect(&key, Precondition::Revision(stored.revision));
        let txn = match node {
            Some(node) => there.put(pin_key(log), node.get().to_string()),
            None => there.delete(pin_key(log)),
        };
        match self.store.txn(txn).await? {
            TxnOutcome::Committed(_) => Ok(()),
            TxnOutcome::Conflict(_) => Err(CatalogError::Conflict),
        }
    }
}

pub(super) fn pin_key(log: LogId) -> String {
    format!("{LOG_PINS}{:020}", log.get())
}
