//! The metadata service: versioned values with transactions and watch.

use std::fmt;

use bifrost_types::ClusterId;
use bifrost_types::limits::{METADATA_KEY_BYTES_MAX, METADATA_TXN_ITEMS_MAX, METADATA_VALUE_BYTES_MAX};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use thiserror::Error;
use tokio::sync::mpsc;

use crate::error::RpcError;

/// A revision of the whole store, given by the store: each committed transaction that writes takes the next one.
/// 0 is "before the first"; no value ever has it.
pub type Revision = u64;

/// A value and the revision that wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Versioned {
    /// The revision of the last write of this key, at least 1.
    pub revision: Revision,
    /// The bytes.
    pub value: Bytes,
}

/// What a transaction demands of a key before it does anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precondition {
    /// The key has no value.
    Absent,
    /// The key's value was written by this revision.
    Revision(Revision),
}

/// What a transaction does to a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// Sets the value.
    Put(Bytes),
    /// Removes the value; removing none is no error.
    Delete,
}

/// All writes happen, or none: if and only if every precondition holds. A key may be named once among the
/// preconditions and once among the writes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Txn {
    /// What must hold.
    pub preconditions: Vec<(String, Precondition)>,
    /// What is done.
    pub writes: Vec<(String, Write)>,
}

impl Txn {
    /// An empty transaction.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a demand.
    #[must_use]
    pub fn expect(mut self, key: impl Into<String>, precondition: Precondition) -> Self {
        self.preconditions.push((key.into(), precondition));
        self
    }

    /// Adds a write of a value.
    #[must_use]
    pub fn put(mut self, key: impl Into<String>, value: impl Into<Bytes>) -> Self {
        self.writes.push((key.into(), Write::Put(value.into())));
        self
    }

    /// Adds a removal.
    #[must_use]
    pub fn delete(mut self, key: impl Into<String>) -> Self {
        self.writes.push((key.into(), Write::Delete));
        self
    }

    /// Checks the limits of a transaction.
    ///
    /// # Errors
    /// [`MetadataError::TooLarge`] or [`MetadataError::Invalid`].
    pub fn validate(&self) -> Result<(), MetadataError> {
        if self.preconditions.len() + self.writes.len() > METADATA_TXN_ITEMS_MAX {
            return Err(MetadataError::TooLarge);
        }
        let keys = self.preconditions.iter().map(|(key, _)| key).chain(self.writes.iter().map(|(key, _)| key));
        for key in keys {
            validate_key(key)?;
        }
        for (_, write) in &self.writes {
            if let Write::Put(value) = write
                && value.len() > METADATA_VALUE_BYTES_MAX
            {
                return Err(MetadataError::TooLarge);
            }
        }
        if has_duplicates(self.preconditions.iter().map(|(key, _)| key.as_str()))
            || has_duplicates(self.writes.iter().map(|(key, _)| key.as_str()))
        {
            return Err(MetadataError::Invalid);
        }
        Ok(())
    }
}

/// Checks one key: 1 to [`METADATA_KEY_BYTES_MAX`] bytes.
///
/// # Errors
/// [`MetadataError::TooLarge`] or [`MetadataError::Invalid`].
pub fn validate_key(key: &str) -> Result<(), MetadataError> {
    if key.is_empty() {
        return Err(MetadataError::Invalid);
    }
    if key.len() > METADATA_KEY_BYTES_MAX {
        return Err(MetadataError::TooLarge);
    }
    Ok(())
}

fn has_duplicates<'a>(keys: impl Iterator<Item = &'a str>) -> bool {
    let mut seen = std::collections::BTreeSet::new();
    let mut keys = keys;
    keys.any(|key| !seen.insert(key))
}

/// How a transaction ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TxnOutcome {
    /// Everything was written, by this revision, durably.
    Committed(Revision),
    /// Nothing was written: a precondition did not hold. Holds the present value of every key that has a precondition,
    /// in their order, all read at one moment.
    Conflict(Vec<(String, Option<Versioned>)>),
}

/// A change that a watcher is told of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The key.
    pub key: String,
    /// The revision that changed it.
    pub revision: Revision,
    /// The new value, or `None` if it was removed.
    pub value: Option<Bytes>,
}

/// What a watch delivers: all changes of one revision together, in order of revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changes {
    /// The revision. A watch resumes from it.
    pub revision: Revision,
    /// The changed keys under the watched prefix; may be empty, to tell that the store is this far.
    pub changes: Vec<Change>,
}

/// One page of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The store's revision at which the page was read.
    pub revision: Revision,
    /// Keys in order with their values.
    pub entries: Vec<(String, Versioned)>,
    /// Whether keys follow; go on with `after` = the last key here.
    pub more: bool,
}

/// What a call to the metadata store can end with besides its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum MetadataError {
    /// No answer: a transaction may or may not have been committed (M2). Read again and look for your own `OpId`.
    #[error("the metadata store gave no answer, the outcome is unknown")]
    Unknown,
    /// The store cannot serve now and did nothing.
    #[error("the metadata store is not available")]
    Unavailable,
    /// A key, a value or the transaction is over its limit; nothing was done.
    #[error("a metadata key, value or transaction is over its limit")]
    TooLarge,
    /// An empty key, or one key twice; nothing was done.
    #[error("the metadata request is not valid")]
    Invalid,
    /// The store belongs to another cluster and did nothing: its address was given to somebody else.
    #[error("the metadata store belongs to cluster {server}, the request was meant for cluster {client}")]
    OtherCluster {
        /// The cluster of this process.
        client: ClusterId,
        /// The cluster of the store.
        server: ClusterId,
    },
    /// The history that a watch wanted to resume from is gone: list again and watch from there.
    #[error("the history before revision {oldest} is gone")]
    Compacted {
        /// The oldest revision that a watch may start after.
        oldest: Revision,
    },
}

impl From<RpcError> for MetadataError {
    fn from(error: RpcError) -> Self {
        match error {
            RpcError::Unreachable | RpcError::DeadlinePassed => Self::Unknown,
            RpcError::Overloaded | RpcError::ShuttingDown | RpcError::NotOffered => Self::Unavailable,
            RpcError::OtherCluster { client, server } => Self::OtherCluster { client, server },
            RpcError::Malformed => Self::Invalid,
        }
    }
}

/// A watch in progress; dropping it ends it. Bounded: a watcher that falls behind the store's history gets
/// [`MetadataError::Compacted`] as the last item. A closed channel says that the connection is gone: resume with a new
/// watch from the last revision that was delivered.
pub type WatchStream = mpsc::Receiver<Result<Changes, MetadataError>>;

/// A linearizable store of small versioned values (M1).
///
/// # Cancel safety
/// Dropping a returned future leaves a transaction committed or not: treat it as [`MetadataError::Unknown`].
pub trait MetadataStore: Send + Sync + fmt::Debug {
    /// Reads one key, linearizably.
    fn get(&self, key: String) -> BoxFuture<'_, Result<Option<Versioned>, MetadataError>>;

    /// Reads keys that start with `prefix`, in order, after the key `after`; at most `limit` of them, and fewer when a
    /// page would be over 1 MiB of values.
    fn list(&self, prefix: String, after: Option<String>, limit: usize) -> BoxFuture<'_, Result<Page, MetadataError>>;

    /// Commits a transaction, or says why not.
    fn txn(&self, txn: Txn) -> BoxFuture<'_, Result<TxnOutcome, MetadataError>>;

    /// Delivers every change of keys that start with `prefix` with a revision above `after`, without a gap.
    fn watch(&self, prefix: String, after: Revision) -> BoxFuture<'_, Result<WatchStream, MetadataError>>;

    /// What this process knows to have been stored under a key, without asking anybody. It may be old, so it is for values
    /// of which any later one says the same. `None` also where there is nothing to look at.
    fn seen(&self, key: &str) -> Option<Versioned> {
        let _nothing_here = key;
        None
    }
}
