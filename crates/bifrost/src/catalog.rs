//! What the cluster knows, as typed values in the metadata store: chains, names, nodes.
//!
//! | key | value |
//! |---|---|
//! | `cluster` | the cluster id, as text |
//! | `logs/<id, 20 digits>` | the chain |
//! | `log-names/<name>` | the log id, as text |
//! | `log-pins/<id, 20 digits>` | the node that an operator pinned the log's sequencer to, as text |
//! | `deleted-logs/<id, 20 digits>` | the tombstone of a log that is being deleted, until its servers gave the space back |
//! | `nodes/<id, 10 digits>` | the node record |
//! | `node-names/<name>` | the node id, as text |
//! | `default-replication` | the replication property of logs whose creator does not say, as text |
//! | `roster` | moves with every change of which disks may take new segments: see [`Roster`] |
//! | `next-log-id`, `next-node-id` | the next id to give, as text; ids are never given twice (C2) |

use std::str::FromStr;
use std::sync::Arc;

use bifrost_types::limits::LOG_NAME_BYTES_MAX;
use bifrost_types::{Chain, ClusterId, LogId, NodeId, NodeRecord};
use bifrost_wire::codec::{decode_chain, decode_node_record, encode_chain, encode_node_record};
use bifrost_wire::metadata::{
    MetadataError, MetadataStore, Precondition, Revision, Txn, TxnOutcome, Versioned, WatchStream,
};
use bytes::Bytes;
use thiserror::Error;

use crate::chain::{self, ChainError};
use crate::cluster::random_id;

mod chains;
mod create;
mod defaults;
mod pins;
mod roster;
mod tombstones;

pub(crate) use self::create::{NewLog, Together};
pub use self::roster::Roster;
pub use self::tombstones::StoredTombstone;

const CLUSTER: &str = "cluster";
const NEXT_LOG_ID: &str = "next-log-id";
const NEXT_NODE_ID: &str = "next-node-id";
const LOGS: &str = "logs/";
/// Prefix of all node records.
pub(crate) const NODES: &str = "nodes/";
const PAGE: usize = 256;

/// Why the catalog gave no answer, or did not change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum CatalogError {
    /// The metadata store failed; see [`MetadataError`] for whether a change may have happened.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    /// A stored value cannot be understood by this build.
    #[error("a metadata value is damaged or of a newer version")]
    Damaged,
    /// Somebody else changed the value first: look again.
    #[error("the value was changed by somebody else")]
    Conflict,
    /// Which disks may take new segments was changed first: choose nodes again.
    #[error("the nodes that may take new segments have changed")]
    NodesChanged,
    /// No such log.
    #[error("there is no such log")]
    UnknownLog,
    /// The log of a handle was deleted. Its name may be another log's by now.
    #[error("log {log} was deleted")]
    Deleted {
        /// The log.
        log: LogId,
    },
    /// The name belongs to another log.
    #[error("the name is taken by log {log}")]
    NameTaken {
        /// Whose it is.
        log: LogId,
    },
    /// A name is 1 to [`LOG_NAME_BYTES_MAX`] bytes of letters, digits, `-`, `_` and `.`, and starts with a letter or
    /// digit, with a letter somewhere.
    #[error("not a valid name")]
    InvalidName,
    /// The ids are used up.
    #[error("there are no ids left")]
    Exhausted,
}

impl CatalogError {
    /// Whether trying again may help without anybody doing anything about it.
    pub const fn is_passing(&self) -> bool {
        match self {
            Self::Metadata(MetadataError::Unknown | MetadataError::Unavailable)
            | Self::Conflict
            | Self::NodesChanged => true,
            Self::Metadata(
                MetadataError::TooLarge
                | MetadataError::Invalid
                | MetadataError::OtherCluster { .. }
                | MetadataError::Compacted { .. },
            )
            | Self::Damaged
            | Self::UnknownLog
            | Self::Deleted { .. }
            | Self::NameTaken { .. }
            | Self::InvalidName
            | Self::Exhausted => false,
        }
    }
}

impl From<ChainError> for CatalogError {
    fn from(error: ChainError) -> Self {
        match error {
            ChainError::Exhausted => Self::Exhausted,
            ChainError::Closed | ChainError::Left | ChainError::Damaged => Self::Damaged,
        }
    }
}

/// A chain and the revision that it was read at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredChain {
    /// The chain.
    pub chain: Chain,
    /// The store's revision of it: what a replacement is conditional on.
    pub revision: Revision,
}

/// Typed access to the metadata store. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Catalog {
    store: Arc<dyn MetadataStore>,
}

impl Catalog {
    /// The key of the cluster's id, which is stored as text.
    pub const CLUSTER_KEY: &str = CLUSTER;

    /// The catalog in `store`.
    pub fn new(store: Arc<dyn MetadataStore>) -> Self {
        Self { store }
    }

    /// The store itself.
    pub fn store(&self) -> &Arc<dyn MetadataStore> {
        &self.store
    }

    /// The cluster's identity; made on first use.
    ///
    /// # Errors
    /// [`CatalogError`] when metadata cannot be read or written.
    pub async fn cluster_id(&self, fresh: ClusterId) -> Result<ClusterId, CatalogError> {
        if let Some(known) = self.known_cluster_id().await? {
            return Ok(known);
        }
        let txn = Txn::new().expect(CLUSTER, Precondition::Absent).put(CLUSTER, fresh.to_string());
        match self.store.txn(txn).await? {
            TxnOutcome::Committed(_) => Ok(fresh),
            TxnOutcome::Conflict(_) => {
                let known = self.store.get(CLUSTER.to_owned()).await?.ok_or(CatalogError::Conflict)?;
                text(&known.value)
            }
        }
    }

    /// Like [`cluster_id`](Self::cluster_id), with a random id if there is none yet.
    ///
    /// # Errors
    /// [`CatalogError`] when metadata cannot be read or written.
    pub async fn ensure_cluster_id(&self) -> Result<ClusterId, CatalogError> {
        self.cluster_id(ClusterId::new(random_id())).await
    }

    /// The cluster's identity, or `None` if no node has started yet.
    ///
    /// # Errors
    /// [`CatalogError`] when metadata cannot be read.
    pub async fn known_cluster_id(&self) -> Result<Option<ClusterId>, CatalogError> {
        let known = self.store.get(CLUSTER.to_owned()).await?;
        known.map(|known| text(&known.value)).transpose()
    }

    /// Reads a chain, linearizably.
    ///
    /// # Errors
    /// [`CatalogError::UnknownLog`] when there is none.
    pub async fn chain(&self, log: LogId) -> Result<StoredChain, CatalogError> {
        let stored = self.store.get(chain_key(log)).await?.ok_or(CatalogError::UnknownLog)?;
        decode_stored(&stored)
    }

    /// The same, and the revision of the store at that moment: a watch from there on tells of every later change. The
    /// revision of the chain itself may be older than the changes that the store remembers.
    ///
    /// # Errors
    /// [`CatalogError::UnknownLog`] when there is none.
    pub(crate) async fn chain_at(&self, log: LogId) -> Result<(StoredChain, Revision), CatalogError> {
        let key = chain_key(log);
        let page = self.store.list(key.clone(), None, 1).await?;
        let found = page.entries.first().filter(|(found, _)| *found == key);
        let (_, stored) = found.ok_or(CatalogError::UnknownLog)?;
        Ok((decode_stored(stored)?, page.revision))
    }

    /// A chain as this process has seen it, without asking anybody; it may be old. `None` if it has not.
    pub(crate) fn chain_seen(&self, log: LogId) -> Option<StoredChain> {
        decode_stored(&self.store.seen(&chain_key(log))?).ok()
    }

    /// Replaces a chain that nobody changed since it was read; returns what is stored then. A chain that names nodes anew
    /// is for [`replace_under`](Self::replace_under).
    ///
    /// # Errors
    /// [`CatalogError::Conflict`] when somebody did. After [`MetadataError::Unknown`] it is replaced or not.
    pub async fn replace(&self, read: &StoredChain, next: Chain) -> Result<StoredChain, CatalogError> {
        self.replace_if(read, next, None).await
    }

    async fn replace_if(
        &self,
        read: &StoredChain,
        next: Chain,
        roster: Option<Roster>,
    ) -> Result<StoredChain, CatalogError> {
        debug_assert_eq!(next.version, read.chain.version + 1, "C3: versions grow by one");
        chain::validate(&next)?;
        let key = chain_key(read.chain.log);
        let mut txn = Txn::new().expect(&key, Precondition::Revision(read.revision)).put(&key, encode_chain(&next));
        if let Some(roster) = roster {
            txn = roster.demand(txn);
        }
        match self.store.txn(txn).await? {
            TxnOutcome::Committed(revision) => Ok(StoredChain { chain: next, revision }),
            TxnOutcome::Conflict(found) if roster.is_some_and(|roster| roster.moved(&found)) => {
                Err(CatalogError::NodesChanged)
            }
            TxnOutcome::Conflict(_) => Err(CatalogError::Conflict),
        }
    }

    /// The log with this name.
    ///
    /// # Errors
    /// [`CatalogError`] when metadata cannot be read.
    pub async fn log_id(&self, name: &str) -> Result<Option<LogId>, CatalogError> {
        validate_name(name)?;
        let stored = self.store.get(log_name_key(name)).await?;
        stored.map(|stored| text(&stored.value)).transpose()
    }

    /// All logs, in order of their ids, at most `limit` after the id `after`. A page may also end at a number of bytes: only
    /// an empty one says that there are no more.
    ///
    /// # Errors
    /// [`CatalogError`] when metadata cannot be read.
    pub async fn logs(&self, after: Option<LogId>, limit: usize) -> Result<Vec<StoredChain>, CatalogError> {
        let page = self.store.list(LOGS.to_owned(), after.map(chain_key), limit.min(PAGE)).await?;
        page.entries.iter().map(|(_, stored)| decode_stored(stored)).collect()
    }

    /// Delivers every change of a chain after a revision.
    ///
    /// # Errors
    /// [`CatalogError`] when metadata cannot be watched.
    pub async fn watch_chain(&self, log: LogId, after: Revision) -> Result<WatchStream, CatalogError> {
        Ok(self.store.watch(chain_key(log), after).await?)
    }

    /// All node records and the revision that they were read at.
    ///
    /// # Errors
    /// [`CatalogError`] when metadata cannot be read.
    pub async fn nodes(&self) -> Result<(Vec<NodeRecord>, Revision), CatalogError> {
        let (nodes, revision) = self.stored_nodes().await?;
        Ok((nodes.into_iter().map(|(record, _)| record).collect(), revision))
    }

    /// Delivers every change of node records after a revision.
    ///
    /// # Errors
    /// [`CatalogError`] when metadata cannot be watched.
    pub async fn watch_nodes(&self, after: Revision) -> Result<WatchStream, CatalogError> {
        Ok(self.store.watch(NODES.to_owned(), after).await?)
    }

    /// The node with this name, and the revision of its record.
    ///
    /// # Errors
    /// [`CatalogError`] when metadata cannot be read.
    pub async fn node_by_name(&self, name: &str) -> Result<Option<(NodeRecord, Revision)>, CatalogError> {
        validate_name(name)?;
        let Some(id) = self.store.get(node_name_key(name)).await? else { return Ok(None) };
        let Some(stored) = self.store.get(node_key(text(&id.value)?)).await? else { return Ok(None) };
        let record = decode_node_record(&stored.value).map_err(|_| CatalogError::Damaged)?;
        Ok(Some((record, stored.revision)))
    }

    /// Makes a node record under a fresh id; `make` gets the id.
    ///
    /// # Errors
    /// [`CatalogError::Conflict`] when the name was taken meanwhile: look again.
    pub async fn create_node(
        &self,
        name: &str,
        make: impl FnOnce(NodeId) -> NodeRecord,
    ) -> Result<(NodeRecord, Revision), CatalogError> {
        validate_name(name)?;
        let (id, txn) = self.take_id::<NodeId>(NEXT_NODE_ID, |id| id.checked_add(1)).await?;
        let record = make(id);
        let name_key = node_name_key(name);
        let txn = txn
            .expect(&name_key, Precondition::Absent)
            .put(&name_key, id.get().to_string())
            .put(node_key(id), encode_node_record(&record));
        match self.store.txn(txn).await? {
            TxnOutcome::Committed(revision) => Ok((record, revision)),
            TxnOutcome::Conflict(_) => Err(CatalogError::Conflict),
        }
    }

    /// Replaces a node record that nobody changed since it was read.
    ///
    /// # Errors
    /// [`CatalogError::Conflict`] when somebody did. After [`MetadataError::Unknown`] it is replaced or not.
    pub async fn replace_node(&self, revision: Revision, next: &NodeRecord) -> Result<Revision, CatalogError> {
        let key = node_key(next.id.node);
        let txn = Txn::new().expect(&key, Precondition::Revision(revision)).put(&key, encode_node_record(next));
        match self.store.txn(txn).await? {
            TxnOutcome::Committed(revision) => Ok(revision),
            TxnOutcome::Conflict(_) => Err(CatalogError::Conflict),
        }
    }

    /// The next id of a counter, and a transaction that takes it.
    async fn take_id<T>(
        &self,
        counter: &str,
        next: impl FnOnce(T::Repr) -> Option<T::Repr>,
    ) -> Result<(T, Txn), CatalogError>
    where
        T: CountedId,
    {
        let stored = self.store.get(counter.to_owned()).await?;
        let (repr, precondition) = match &stored {
            Some(stored) => (text::<T::Repr>(&stored.value)?, Precondition::Revision(stored.revision)),
            None => (T::FIRST, Precondition::Absent),
        };
        let id = T::try_from(repr).map_err(|_| CatalogError::Damaged)?;
        let following = next(repr).ok_or(CatalogError::Exhausted)?;
        Ok((id, Txn::new().expect(counter, precondition).put(counter, following.to_string())))
    }
}

/// Ids that are given by a counter.
trait CountedId: TryFrom<Self::Repr> {
    type Repr: Copy + FromStr + ToString;
    const FIRST: Self::Repr;
}

impl CountedId for LogId {
    type Repr = u64;
    const FIRST: u64 = 1;
}

impl CountedId for NodeId {
    type Repr = u32;
    const FIRST: u32 = 1;
}

/// Checks the name of a log or a node: see [`CatalogError::InvalidName`]. A name is never a plain number, so that tools
/// can take either.
///
/// # Errors
/// [`CatalogError::InvalidName`].
pub fn validate_name(name: &str) -> Result<(), CatalogError> {
    let fits = !name.is_empty() && name.len() <= LOG_NAME_BYTES_MAX;
    let starts = name.starts_with(|first: char| first.is_ascii_alphanumeric());
    let plain = name.chars().all(|letter| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_' | '.'));
    let lettered = name.chars().any(|letter| letter.is_ascii_alphabetic());
    if fits && starts && plain && lettered { Ok(()) } else { Err(CatalogError::InvalidName) }
}

/// Decodes a chain as the store or a watch delivered it.
pub(crate) fn decode_chain_value(value: &Bytes) -> Result<Chain, CatalogError> {
    let chain = decode_chain(value).map_err(|_| CatalogError::Damaged)?;
    chain::validate(&chain)?;
    Ok(chain)
}

fn decode_stored(stored: &Versioned) -> Result<StoredChain, CatalogError> {
    Ok(StoredChain { chain: decode_chain_value(&stored.value)?, revision: stored.revision })
}

fn text<T: FromStr>(value: &Bytes) -> Result<T, CatalogError> {
    std::str::from_utf8(value).ok().and_then(|text| text.parse().ok()).ok_or(CatalogError::Damaged)
}

fn chain_key(log: LogId) -> String {
    format!("{LOGS}{:020}", log.get())
}

fn log_name_key(name: &str) -> String {
    format!("log-names/{name}")
}

fn node_key(node: NodeId) -> String {
    format!("{NODES}{:010}", node.get())
}

fn node_name_key(name: &str) -> String {
    format!("node-names/{name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain_and_never_numbers() {
        for name in ["orders", "a", "eu-1.orders_v2", "7days"] {
            assert_eq!(validate_name(name), Ok(()), "{name}");
        }
        let long = "x".repeat(LOG_NAME_BYTES_MAX + 1);
        for name in ["", "17", "../x", "a/b", "a b", "a\0", "-a", ".a", "ä", long.as_str()] {
            assert_eq!(validate_name(name), Err(CatalogError::InvalidName), "{name:?}");
        }
    }

    #[test]
    fn keys_sort_like_their_ids() {
        let key = |id: u64| chain_key(LogId::try_from(id).expect("non-zero"));
        assert!(key(9) < key(10));
        assert!(key(u64::MAX) > key(1));
    }
}
