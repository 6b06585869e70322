//! What all handles of one store share: the keyspace as readers may see it, and the watchers.

use bifrost_types::limits::METADATA_KEY_BYTES_MAX;
use bifrost_wire::metadata::{MetadataError, Page, Revision, Txn, TxnOutcome, Versioned, WatchStream, validate_key};

use crate::keyspace::{Keyspace, Staged};
use crate::watch::Watchers;

/// A keyspace and its watchers. Whoever holds it exclusively sees one moment of the store.
#[derive(Debug, Default)]
pub struct Live {
    keyspace: Keyspace,
    watchers: Watchers,
}

impl Live {
    /// A store that begins as this keyspace, without watchers.
    pub fn new(keyspace: Keyspace) -> Self {
        Self { keyspace, watchers: Watchers::default() }
    }

    /// Reads one key.
    ///
    /// # Errors
    /// [`MetadataError`] when the key is not one.
    pub fn get(&self, key: &str) -> Result<Option<Versioned>, MetadataError> {
        validate_key(key)?;
        Ok(self.keyspace.get(key).cloned())
    }

    /// Reads a page of keys.
    ///
    /// # Errors
    /// [`MetadataError`] when the prefix is not one.
    pub fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Page, MetadataError> {
        validate_prefix(prefix)?;
        validate_prefix(after.unwrap_or_default())?;
        Ok(self.keyspace.list(prefix, after, limit))
    }

    /// Starts a watch.
    ///
    /// # Errors
    /// [`MetadataError`] when the prefix is not one, there are too many watches, or that history is gone.
    pub fn watch(&mut self, prefix: String, after: Revision) -> Result<WatchStream, MetadataError> {
        validate_prefix(&prefix)?;
        self.watchers.subscribe(&self.keyspace, prefix, after)
    }

    /// The keyspace as it is now.
    pub fn keyspace(&self) -> &Keyspace {
        &self.keyspace
    }

    /// Decides a transaction that [`keyspace::validate`](crate::keyspace::validate) accepted; nothing is visible yet.
    pub fn stage(&self, staged: &mut Staged, txn: &Txn) -> TxnOutcome {
        self.keyspace.stage(staged, txn)
    }

    /// Makes staged transactions visible and tells the watchers.
    pub fn commit(&mut self, staged: Staged) {
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
