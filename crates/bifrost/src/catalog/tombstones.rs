//! Logs that are being deleted, in the metadata store.

use bifrost_types::{LogId, Tombstone};
use bifrost_wire::codec::{decode_tombstone, encode_tombstone};
use bifrost_wire::metadata::{Precondition, Revision, Txn, TxnOutcome, Versioned, WatchStream};
use tracing::warn;

use super::pins::pin_key;
use super::{Catalog, CatalogError, PAGE, StoredChain, chain_key, log_name_key, text};

const DELETED_LOGS: &str = "deleted-logs/";

/// A tombstone and the revision that it was read at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredTombstone {
    /// The tombstone.
    pub tombstone: Tombstone,
    /// The store's revision of it: what a change is conditional on.
    pub revision: Revision,
}

impl Catalog {
    /// Reads the tombstone of a log, linearizably.
    ///
    /// # Errors
    /// [`CatalogError`] when metadata cannot be read.
    pub async fn tombstone(&self, log: LogId) -> Result<Option<StoredTombstone>, CatalogError> {
        self.store.get(tombstone_key(log)).await?.map(|stored| decode(&stored)).transpose()
    }

    /// All tombstones and the revision that they were read at. One that cannot be understood is reported and passed
    /// over, so that it does not stand in the way of the others.
    ///
    /// # Errors
    /// [`CatalogError`] when metadata cannot be read.
    pub async fn tombstones(&self) -> Result<(Vec<StoredTombstone>, Revision), CatalogError> {
        let mut tombstones = Vec::new();
        let mut after = None;
        let mut first_revision = None;
        loop {
            let page = self.store.list(DELETED_LOGS.to_owned(), after, PAGE).await?;
            let revision = *first_revision.get_or_insert(page.revision);
            for (key, stored) in &page.entries {
                match decode(stored) {
                    Ok(tombstone) => tombstones.push(tombstone),
                    Err(error) => warn!(key, %error, "a tombstone cannot be read"),
                }
            }
            match page.entries.last() {
                Some((last, _)) if page.more => after = Some(last.clone()),
                _ => return Ok((tombstones, revision)),
            }
        }
    }

    /// Delivers every change of tombstones after a revision.
    ///
    /// # Errors
    /// [`CatalogError`] when metadata cannot be watched.
    pub async fn watch_tombstones(&self, after: Revision) -> Result<WatchStream, CatalogError> {
        Ok(self.store.watch(DELETED_LOGS.to_owned(), after).await?)
    }

    /// Writes down that a log is to be deleted, if its chain is as it was read and nobody wrote that down before.
    ///
    /// # Errors
    /// [`CatalogError::Conflict`] when one of them does not hold: look again.
    pub async fn announce_deletion(&self, chain: &StoredChain, tombstone: &Tombstone) -> Result<(), CatalogError> {
        let key = tombstone_key(tombstone.log);
        let txn = Txn::new()
            .expect(chain_key(tombstone.log), Precondition::Revision(chain.revision))
            .expect(&key, Precondition::Absent)
            .put(&key, encode_tombstone(tombstone));
        self.commit(txn).await
    }

    /// Takes chain and name of a log away and leaves `next` in their place: one transaction, so that the name is free
    /// exactly when the log is gone (C2: its id is not).
    ///
    /// # Errors
    /// [`CatalogError::Conflict`] when chain or tombstone is not as it was read: look again.
    pub async fn remove_log(
        &self,
        chain: &StoredChain,
        tombstone: &StoredTombstone,
        next: &Tombstone,
    ) -> Result<(), CatalogError> {
        let log = chain.chain.log;
        let (chain_key, key) = (chain_key(log), tombstone_key(log));
        let mut txn = Txn::new()
            .expect(&chain_key, Precondition::Revision(chain.revision))
            .delete(&chain_key)
            .delete(pin_key(log))
            .expect(&key, Precondition::Revision(tombstone.revision))
            .put(&key, encode_tombstone(next));
        if let Some(name) = &chain.chain.name {
            let name_key = log_name_key(name);
            if let Some(stored) = self.store.get(name_key.clone()).await?
                && text::<LogId>(&stored.value)? == log
            {
                txn = txn.expect(&name_key, Precondition::Revision(stored.revision)).delete(&name_key);
            }
        }
        self.commit(txn).await
    }

    /// Takes a tombstone away.
    ///
    /// # Errors
    /// [`CatalogError::Conflict`] when it is not as it was read, for example because somebody else took it away.
    pub async fn remove_tombstone(&self, tombstone: &StoredTombstone) -> Result<(), CatalogError> {
        let key = tombstone_key(tombstone.tombstone.log);
        self.commit(Txn::new().expect(&key, Precondition::Revision(tombstone.revision)).delete(&key)).await
    }

    async fn commit(&self, txn: Txn) -> Result<(), CatalogError> {
        match self.store.txn(txn).await? {
            TxnOutcome::Committed(_) => Ok(()),
            TxnOutcome::Conflict(_) => Err(CatalogError::Conflict),
        }
    }
}

fn decode(stored: &Versioned) -> Result<StoredTombstone, CatalogError> {
    let tombstone = decode_tombstone(&stored.value).map_err(|_| CatalogError::Damaged)?;
    Ok(StoredTombstone { tombstone, revision: stored.revision })
}

fn tombstone_key(log: LogId) -> String {
    format!("{DELETED_LOGS}{:020}", log.get())
}
