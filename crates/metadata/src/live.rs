//! What all handles of one store share: the keyspace as readers may see it, and the watchers.

use bifrost_types::limits::METADATA_KEY_BYTES_MAX;
use bifrost_wire::metadata::{MetadataError, Page, Revision, Txn, TxnOutcome, Versioned, WatchStream, validate_key};

use crate::keyspace::{Keyspace, Staged};
use crate::watch::Watchers;

/// A keyspace and its watchers. Whoever holds it exclusively sees one moment of the store.
#[derive(Debug, Default)]
pub(crate) struct Live {
    keyspace: Keyspace,
    watchers: Watchers,
}

impl Live {
    #[cfg(feature = "rocksdb")]
    pub(crate) fn new(keyspace: Keyspace) -> Self {
        Self { keyspace, watchers: Watchers::default() }
    }

    pub(crate) fn get(&self, key: &str) -> Result<Option<Versioned>, MetadataError> {
        validate_key(key)?;
        Ok(self.keyspace.get(key).cloned())
    }

    pub(crate) fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Page, MetadataError> {
        validate_prefix(prefix)?;
        validate_prefix(after.unwrap_or_default())?;
        Ok(self.keyspace.list(prefix, after, limit))
    }

    pub(crate) fn watch(&mut self, prefix: String, after: Revision) -> Result<WatchStream, MetadataError> {
        validate_prefix(&prefix)?;
        self.watchers.subscribe(&self.keyspace, prefix, after)
    }

    /// Decides a transaction that [`keyspace::validate`](crate::keyspace::validate) accepted; nothing is visible yet.
    pub(crate) fn stage(&self, staged: &mut Staged, txn: &Txn) -> TxnOutcome {
        self.keyspace.stage(staged, txn)
    }

    /// Makes staged transactions visible and tells the watchers.
    pub(crate) fn commit(&mut self, staged: Staged) {
        let commits = staged.commits().to_vec();
        self.keyspace.commit(staged);
        self.watchers.publish(&commits, self.keyspace.oldest());
    }
}

fn validate_prefix(prefix: &str) -> Result<(), MetadataError> {
    if prefix.len() > METADATA_KEY_BYTES_MAX {
        return Err(MetadataError::TooLarge);
    }
    Ok(())
}
