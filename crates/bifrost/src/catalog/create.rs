//! Making logs, in the metadata store.

use std::collections::BTreeSet;

use bifrost_types::{LogId, OpId, Successor};
use bifrost_wire::codec::encode_chain;
use bifrost_wire::metadata::{Precondition, TxnOutcome};

use super::{Catalog, CatalogError, NEXT_LOG_ID, Roster, StoredChain, chain_key, log_name_key, validate_name};
use crate::chain;

/// A log that somebody wants.
#[derive(Debug, Clone)]
pub(crate) struct NewLog {
    /// Its name, if it is to have one.
    pub(crate) name: Option<String>,
    /// The operation that makes it.
    pub(crate) op: OpId,
    /// Its first segment.
    pub(crate) first: Successor,
}

/// What became of logs that were to be made in one transaction.
#[derive(Debug)]
pub(crate) enum Together {
    /// All were made, in this order.
    Made(Vec<StoredChain>),
    /// None was, because somebody has these names.
    Taken(BTreeSet<String>),
}

impl Catalog {
    /// Makes a log, or finds the one that this same operation made before.
    ///
    /// # Errors
    /// [`CatalogError::NameTaken`] when another operation has the name; [`CatalogError::Metadata`] with
    /// [`MetadataError::Unknown`](bifrost_wire::metadata::MetadataError::Unknown) when the outcome is not known: call again
    /// with the same `op`.
    pub async fn create_log(
        &self,
        name: Option<&str>,
        op: OpId,
        first: &Successor,
    ) -> Result<StoredChain, CatalogError> {
        let new = NewLog { name: name.map(str::to_owned), op, first: first.clone() };
        loop {
            if let Some(name) = name
                && let Some(stored) = self.named_by(name, op).await?
            {
                return Ok(stored);
            }
            if let Together::Made(made) = self.create_together(&[&new], None).await? {
                return made.into_iter().next().ok_or(CatalogError::Conflict);
            }
        }
    }

    /// The log that an operation made under this name before, or `None` if the name is free.
    ///
    /// # Errors
    /// [`CatalogError::NameTaken`] when another operation has the name.
    pub(crate) async fn named_by(&self, name: &str, op: OpId) -> Result<Option<StoredChain>, CatalogError> {
        loop {
            let Some(log) = self.log_id(name).await? else { return Ok(None) };
            match self.chain(log).await {
                Ok(stored) if stored.chain.outcome(op).is_some() => return Ok(Some(stored)),
                Ok(_) => return Err(CatalogError::NameTaken { log }),
                // It was deleted between the two reads: the name is free.
                Err(CatalogError::UnknownLog) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Makes these logs in one transaction, with the next ids (C2), or none of them. No two have one name. With a roster, if
    /// that is still as it was before the nodes of their first segments were chosen.
    ///
    /// # Errors
    /// [`CatalogError::NodesChanged`] when it is not. After [`CatalogError::Metadata`] with
    /// [`MetadataError::Unknown`](bifrost_wire::metadata::MetadataError::Unknown) they are made or not.
    pub(crate) async fn create_together(
        &self,
        new: &[&NewLog],
        roster: Option<Roster>,
    ) -> Result<Together, CatalogError> {
        for name in new.iter().filter_map(|new| new.name.as_ref()) {
            validate_name(name)?;
        }
        let count = u64::try_from(new.len()).map_err(|_| CatalogError::Exhausted)?;
        loop {
            let (first, mut txn) = self.take_id::<LogId>(NEXT_LOG_ID, |id| id.checked_add(count)).await?;
            let mut chains = Vec::with_capacity(new.len());
            for (id, new) in (first.get()..).zip(new) {
                let log = LogId::try_from(id).map_err(|_| CatalogError::Exhausted)?;
                let chain = chain::create(log, new.name.clone(), new.op, new.first.clone());
                let key = chain_key(log);
                txn = txn.expect(&key, Precondition::Absent).put(&key, encode_chain(&chain));
                if let Some(name) = &new.name {
                    let key = log_name_key(name);
                    txn = txn.expect(&key, Precondition::Absent).put(&key, log.to_string());
                }
                chains.push(chain);
            }
            if let Some(roster) = roster {
                txn = roster.demand(txn);
            }
            match self.store.txn(txn).await? {
                TxnOutcome::Committed(revision) => {
                    let made = chains.into_iter().map(|chain| StoredChain { chain, revision });
                    return Ok(Together::Made(made.collect()));
                }
                TxnOutcome::Conflict(found) if roster.is_some_and(|roster| roster.moved(&found)) => {
                    return Err(CatalogError::NodesChanged);
                }
                TxnOutcome::Conflict(found) => {
                    let is_taken = |name: &&String| {
                        let key = log_name_key(name);
                        found.iter().any(|(there, value)| *there == key && value.is_some())
                    };
                    let taken: BTreeSet<_> =
                        new.iter().filter_map(|new| new.name.as_ref()).filter(is_taken).cloned().collect();
                    if !taken.is_empty() {
                        return Ok(Together::Taken(taken));
                    }
                    // Another log was made at the same time: take the next ids.
                }
            }
        }
    }
}
