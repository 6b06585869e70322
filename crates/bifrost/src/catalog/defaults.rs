//! What holds for the whole cluster where nobody says otherwise.

use bifrost_types::ReplicationProperty;
use bifrost_wire::metadata::{Txn, TxnOutcome};

use super::{Catalog, CatalogError, text};

const DEFAULT_REPLICATION: &str = "default-replication";

impl Catalog {
    /// The replication property of new logs whose creator does not say; `None` if the cluster has none of its own.
    ///
    /// # Errors
    /// [`CatalogError`] when metadata cannot be read.
    pub async fn default_replication(&self) -> Result<Option<ReplicationProperty>, CatalogError> {
        let stored = self.store.get(DEFAULT_REPLICATION.to_owned()).await?;
        stored.map(|stored| text(&stored.value)).transpose()
    }

    /// Sets the replication property of new logs whose creator does not say, or takes it away. Logs that are there keep
    /// theirs. The last one to set it wins.
    ///
    /// # Errors
    /// [`CatalogError`] when metadata cannot be written; after [`MetadataError::Unknown`](bifrost_wire::metadata::MetadataError::Unknown) it is set or not.
    pub async fn set_default_replication(&self, property: Option<&ReplicationProperty>) -> Result<(), CatalogError> {
        let txn = match property {
            Some(property) => Txn::new().put(DEFAULT_REPLICATION, property.to_string()),
            None => Txn::new().delete(DEFAULT_REPLICATION),
        };
        match self.store.txn(txn).await? {
            TxnOutcome::Committed(_) => Ok(()),
            TxnOutcome::Conflict(_) => Err(CatalogError::Conflict),
        }
    }
}
