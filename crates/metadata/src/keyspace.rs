//! The core: keys, their values, the revision, and the recent changes. A plain state machine that gives the same
//! answers for the same transactions in the same order, so that one disk, or a replicated log, can stand behind it.
//!
//! ```text
//!  stage(txn) ─┐
//!  stage(txn) ─┼─► Staged: outcomes and changes, invisible to readers ──► commit: visible, in history
//!  stage(txn) ─┘              (a driver makes it durable in between)
//! ```

mod history;

use std::collections::BTreeMap;
use std::ops::Bound;

use bifrost_types::limits::{BATCH_BYTES_MAX, METADATA_VALUE_BYTES_MAX};
use bifrost_wire::metadata::{
    Change, Changes, MetadataError, Page, Precondition, Revision, Txn, TxnOutcome, Versioned, Write,
};
use thiserror::Error;

use history::History;
pub use history::{HISTORY_BYTES_MAX, HISTORY_REVISIONS_MAX};

/// Bytes of all keys and values of one transaction: with this a transaction fits one message and one group commit.
pub const TXN_BYTES_MAX: usize = BATCH_BYTES_MAX;
/// Bytes of values on one page; the first entry is always taken.
pub const PAGE_VALUE_BYTES_MAX: usize = 1 << 20;
/// Bytes of keys on one page; the first entry is always taken.
pub const PAGE_KEY_BYTES_MAX: usize = 1 << 20;
/// The highest revision that can be restored. The rest of the range is out of reach of counting up by one.
pub const REVISION_MAX: Revision = 1 << 62;

const _: () = {
    assert!(METADATA_VALUE_BYTES_MAX <= PAGE_VALUE_BYTES_MAX, "a page takes the largest value");
    assert!(METADATA_VALUE_BYTES_MAX < TXN_BYTES_MAX, "a transaction takes the largest value");
    assert!(TXN_BYTES_MAX <= HISTORY_BYTES_MAX, "history takes the largest transaction");
};

/// Keys with their values, the revision of the store, and the changes of the last revisions.
///
/// Pointer order: `0 < revision of a value <= revision()`, and `oldest() <= revision()`; history holds exactly the
/// revisions above `oldest()`.
#[derive(Debug, Clone, Default)]
pub struct Keyspace {
    entries: BTreeMap<String, Versioned>,
    revision: Revision,
    history: History,
}

/// Transactions that were decided on top of a [`Keyspace`] and are not visible in it yet. Valid as long as that
/// keyspace does not change.
#[derive(Debug, Default)]
pub struct Staged {
    commits: Vec<Changes>,
    /// What the last commit that touched a key left of it.
    overlay: BTreeMap<String, Option<Versioned>>,
}

/// Why a snapshot cannot be a keyspace.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RestoreError {
    /// A value has revision 0, or one above the revision of the store.
    #[error("key {key:?} has revision {revision} in a store of revision {store}")]
    EntryRevision {
        /// The key.
        key: String,
        /// The revision of its value.
        revision: Revision,
        /// The revision of the store.
        store: Revision,
    },
    /// The revision of the store is above [`REVISION_MAX`].
    #[error("revision {revision} is out of range")]
    RevisionOutOfRange {
        /// The revision.
        revision: Revision,
    },
}

impl Staged {
    /// What was committed, one item for each revision, in order. This is what a driver persists: the changes and, in
    /// the same write, the revision of the last item (etcd #13766: two writes can be torn apart).
    pub fn commits(&self) -> &[Changes] {
        &self.commits
    }
}

impl Keyspace {
    /// An empty keyspace of revision 0: the first commit has revision 1.
    pub fn new() -> Self {
        Self::default()
    }

    /// Rebuilds a keyspace from [`entries`](Self::entries) and [`revision`](Self::revision). History starts there.
    ///
    /// # Errors
    /// [`RestoreError`] when the revisions contradict each other.
    pub fn restore(
        revision: Revision,
        entries: impl IntoIterator<Item = (String, Versioned)>,
    ) -> Result<Self, RestoreError> {
        if revision > REVISION_MAX {
            return Err(RestoreError::RevisionOutOfRange { revision });
        }
        let entries: BTreeMap<_, _> = entries.into_iter().collect();
        for (key, Versioned { revision: written, .. }) in &entries {
            if *written == 0 || *written > revision {
                return Err(RestoreError::EntryRevision { key: key.clone(), revision: *written, store: revision });
            }
        }
        Ok(Self { entries, revision, history: History::starting_after(revision) })
    }

    /// The revision of the last commit, 0 before the first.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// The oldest revision that [`changes_after`](Self::changes_after) can start after.
    pub fn oldest(&self) -> Revision {
        self.history.oldest()
    }

    /// All keys in order with their values.
    pub fn entries(&self) -> impl ExactSizeIterator<Item = (&str, &Versioned)> {
        self.entries.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Versioned> {
        self.entries.get(key)
    }

    /// Keys that start with `prefix`, in order, after the key `after`: at most `limit`, [`PAGE_VALUE_BYTES_MAX`] of
    /// values and [`PAGE_KEY_BYTES_MAX`] of keys.
    pub fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Page {
        let start = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            Some(_) | None => Bound::Included(prefix),
        };
        let mut page = Page { revision: self.revision, entries: Vec::new(), more: false };
        let (mut value_bytes, mut key_bytes) = (0_usize, 0_usize);
        let keys = self.entries.range::<str, _>((start, Bound::Unbounded));
        for (key, versioned) in keys.take_while(|(key, _)| key.starts_with(prefix)) {
            value_bytes += versioned.value.len();
            key_bytes += key.len();
            let full = value_bytes > PAGE_VALUE_BYTES_MAX || key_bytes > PAGE_KEY_BYTES_MAX;
            if page.entries.len() >= limit || (full && !page.entries.is_empty()) {
                page.more = true;
                break;
            }
            page.entries.push((key.clone(), versioned.clone()));
        }
        page
    }

    /// Decides a transaction on top of what is staged already. Nothing becomes visible. Total: a transaction that
    /// [`validate`] refuses is decided too, the same way everywhere (its last write of a key wins).
    pub fn stage(&self, staged: &mut Staged, txn: &Txn) -> TxnOutcome {
        let holds = txn.preconditions.iter().all(|(key, precondition)| {
            let present = self.seen(staged, key).map(|versioned| versioned.revision);
            match precondition {
                Precondition::Absent => present.is_none(),
                Precondition::Revision(revision) => present == Some(*revision),
            }
        });
        if !holds {
            let present = |(key, _): &(String, Precondition)| (key.clone(), self.seen(staged, key).cloned());
            return TxnOutcome::Conflict(txn.preconditions.iter().map(present).collect());
        }
        let last = staged.commits.last().map_or(self.revision, |changes| changes.revision);
        if txn.writes.is_empty() {
            return TxnOutcome::Committed(last);
        }
        let revision = last.checked_add(1).expect("a restored revision is at most 2^62 and grows by one");
        let mut changes = Vec::with_capacity(txn.writes.len());
        for (key, write) in &txn.writes {
            let value = match write {
                Write::Put(value) => Some(value.clone()),
                // Removing nothing changes nothing: watchers and disks are not told.
                Write::Delete if self.seen(staged, key).is_none() => continue,
                Write::Delete => None,
            };
            let versioned = value.clone().map(|value| Versioned { revision, value });
            staged.overlay.insert(key.clone(), versioned);
            changes.push(Change { key: key.clone(), revision, value });
        }
        staged.commits.push(Changes { revision, changes });
        TxnOutcome::Committed(revision)
    }

    /// Makes staged transactions visible.
    pub fn commit(&mut self, staged: Staged) {
        for (key, versioned) in staged.overlay {
            match versioned {
                Some(versioned) => self.entries.insert(key, versioned),
                None => self.entries.remove(&key),
            };
        }
        for changes in staged.commits {
            assert_eq!(changes.revision, self.revision + 1, "staged on another state of this keyspace");
            self.revision = changes.revision;
            self.history.push(changes);
        }
    }

    /// Decides a transaction and makes it visible. The changes are those of the revision that it took, if it took one.
    pub fn apply(&mut self, txn: &Txn) -> (TxnOutcome, Option<Changes>) {
        let mut staged = Staged::default();
        let outcome = self.stage(&mut staged, txn);
        let changes = staged.commits.first().cloned();
        self.commit(staged);
        (outcome, changes)
    }

    /// Changes of keys that start with `prefix`, of every revision above `after`, one item for each revision that has
    /// any, in order.
    ///
    /// # Errors
    /// [`MetadataError::Compacted`] when that history is gone, or when this store never was at `after`: the caller
    /// watched another history and has to list again.
    pub fn changes_after(&self, after: Revision, prefix: &str) -> Result<impl Iterator<Item = Changes>, MetadataError> {
        if after < self.oldest() || after > self.revision {
            return Err(MetadataError::Compacted { oldest: self.oldest() });
        }
        Ok(self.history.after(after).filter_map(move |changes| select(changes, prefix)))
    }

    /// Asserts the pointer order.
    #[cfg(test)]
    fn check(&self) {
        assert!(self.oldest() <= self.revision, "history begins after the present");
        for (key, Versioned { revision, .. }) in &self.entries {
            assert!((1..=self.revision).contains(revision), "{key} has revision {revision}");
        }
        let kept = self.history.after(0).map(|changes| changes.revision);
        assert!(kept.eq(self.oldest() + 1..=self.revision), "a revision is missing in history");
    }

    fn seen<'a>(&'a self, staged: &'a Staged, key: &str) -> Option<&'a Versioned> {
        match staged.overlay.get(key) {
            Some(versioned) => versioned.as_ref(),
            None => self.entries.get(key),
        }
    }
}

/// The part of one revision's changes under a prefix, or `None` if there is none.
pub(crate) fn select(changes: &Changes, prefix: &str) -> Option<Changes> {
    let selected: Vec<Change> =
        changes.changes.iter().filter(|change| change.key.starts_with(prefix)).cloned().collect();
    (!selected.is_empty()).then_some(Changes { revision: changes.revision, changes: selected })
}

/// Bytes of all keys and values of a transaction.
pub fn txn_bytes(txn: &Txn) -> usize {
    let demanded = txn.preconditions.iter().map(|(key, _)| key.len());
    let written = txn.writes.iter().map(|(key, write)| {
        key.len()
            + match write {
                Write::Put(value) => value.len(),
                Write::Delete => 0,
            }
    });
    demanded.chain(written).sum()
}

/// Checks a transaction against the limits of the contract and [`TXN_BYTES_MAX`].
///
/// # Errors
/// [`MetadataError::TooLarge`] or [`MetadataError::Invalid`].
pub fn validate(txn: &Txn) -> Result<(), MetadataError> {
    txn.validate()?;
    if txn_bytes(txn) > TXN_BYTES_MAX {
        return Err(MetadataError::TooLarge);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
