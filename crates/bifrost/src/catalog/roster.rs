//! The roster: which disks may take new segments, as one key whose revision moves whenever that changes.
//!
//! A transaction that names nodes in a chain and one that takes a node out of service write different keys, and must not
//! pass each other. So the second also writes this key, and the first is conditional on the revision that this key had
//! before the node records were read by which it chose. Whoever comes second finds a conflict and looks again. One
//! precondition is enough for any nodeset, and a node that merely starts again disturbs nobody.

use bifrost_types::{Chain, NodeId, NodeRecord};
use bifrost_wire::codec::{decode_node_record, encode_node_record};
use bifrost_wire::metadata::{Precondition, Revision, Txn, TxnOutcome, Versioned};

use super::{Catalog, CatalogError, NEXT_NODE_ID, NODES, PAGE, StoredChain, node_key, node_name_key, text};

const ROSTER: &str = "roster";

/// The roster as it was at some moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Roster(Precondition);

impl Roster {
    /// Before anything was read: no transaction succeeds under it, because no value has revision 0.
    pub(crate) const UNREAD: Self = Self(Precondition::Revision(0));

    /// `txn`, if the roster is still this one.
    pub(super) fn demand(self, txn: Txn) -> Txn {
        txn.expect(ROSTER, self.0)
    }

    /// Whether a conflict came from here.
    pub(super) fn moved(self, found: &[(String, Option<Versioned>)]) -> bool {
        let now = found.iter().find(|(key, _)| key == ROSTER);
        now.is_some_and(|(_, value)| Self::of(value.as_ref()) != self)
    }

    fn of(value: Option<&Versioned>) -> Self {
        Self(value.map_or(Precondition::Absent, |value| Precondition::Revision(value.revision)))
    }
}

impl Catalog {
    /// The roster now, linearizably. Read it before the node records that a choice is made from.
    ///
    /// # Errors
    /// [`CatalogError`] when metadata cannot be read.
    pub async fn roster(&self) -> Result<Roster, CatalogError> {
        Ok(Roster::of(self.store.get(ROSTER.to_owned()).await?.as_ref()))
    }

    /// Like [`replace`](Self::replace), if the roster is still as it was read: for a chain that names nodes anew.
    ///
    /// # Errors
    /// [`CatalogError::NodesChanged`] when it is not; else see there.
    pub async fn replace_under(
        &self,
        read: &StoredChain,
        next: Chain,
        roster: Roster,
    ) -> Result<StoredChain, CatalogError> {
        self.replace_if(read, next, Some(roster)).await
    }

    /// All node records with their revisions, and the store's revision that they were read at.
    pub(crate) async fn stored_nodes(&self) -> Result<(Vec<(NodeRecord, Revision)>, Revision), CatalogError> {
        let mut nodes = Vec::new();
        let mut after = None;
        let mut first_revision = None;
        loop {
            let page = self.store.list(NODES.to_owned(), after, PAGE).await?;
            let revision = *first_revision.get_or_insert(page.revision);
            for (_, stored) in &page.entries {
                nodes.push(decode(stored)?);
            }
            match page.entries.last() {
                Some((last, _)) if page.more => after = Some(last.clone()),
                // A watch from the first page's revision tells what changed while the others were read.
                _ => return Ok((nodes, revision)),
            }
        }
    }

    /// The record of a node with its revision, or `None` when the cluster does not know it (any more).
    pub(crate) async fn stored_node(&self, node: NodeId) -> Result<Option<(NodeRecord, Revision)>, CatalogError> {
        self.store.get(node_key(node)).await?.map(|stored| decode(&stored)).transpose()
    }

    /// Whether there ever was a node of this number: numbers are given in order, and never twice.
    pub(crate) async fn was_node(&self, node: NodeId) -> Result<bool, CatalogError> {
        match self.store.get(NEXT_NODE_ID.to_owned()).await? {
            Some(next) => Ok(node.get() < text::<u32>(&next.value)?),
            None => Ok(false),
        }
    }

    /// Replaces a node record that nobody changed since it was read, and moves the roster: for every change of the
    /// storage state of a disk that was in service.
    ///
    /// # Errors
    /// [`CatalogError::Conflict`] when somebody did. After [`MetadataError::Unknown`] it is replaced or not.
    ///
    /// [`MetadataError::Unknown`]: bifrost_wire::metadata::MetadataError::Unknown
    pub async fn change_storage(&self, revision: Revision, next: &NodeRecord) -> Result<Revision, CatalogError> {
        let key = node_key(next.id.node);
        let txn = Txn::new()
            .expect(&key, Precondition::Revision(revision))
            .put(&key, encode_node_record(next))
            .put(ROSTER, next.id.node.get().to_string());
        match self.store.txn(txn).await? {
            TxnOutcome::Committed(revision) => Ok(revision),
            TxnOutcome::Conflict(_) => Err(CatalogError::Conflict),
        }
    }

    /// Takes a node record away that nobody changed since it was read, with its name, and moves the roster.
    ///
    /// # Errors
    /// [`CatalogError::Conflict`] when somebody did. After [`MetadataError::Unknown`] it is gone or not.
    ///
    /// [`MetadataError::Unknown`]: bifrost_wire::metadata::MetadataError::Unknown
    pub(crate) async fn remove_node(&self, record: &NodeRecord, revision: Revision) -> Result<(), CatalogError> {
        let key = node_key(record.id.node);
        let txn = Txn::new()
            .expect(&key, Precondition::Revision(revision))
            .delete(&key)
            // The name is the node's for as long as there is a record.
            .delete(node_name_key(&record.name))
            .put(ROSTER, record.id.node.get().to_string());
        match self.store.txn(txn).await? {
            TxnOutcome::Committed(_) => Ok(()),
            TxnOutcome::Conflict(_) => Err(CatalogError::Conflict),
        }
    }
}

fn decode(stored: &Versioned) -> Result<(NodeRecord, Revision), CatalogError> {
    let record = decode_node_record(&stored.value).map_err(|_| CatalogError::Damaged)?;
    Ok((record, stored.revision))
}
