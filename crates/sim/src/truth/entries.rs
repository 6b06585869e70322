//! What the members of a group apply: the same entries, in the same places, none left out.

use std::collections::BTreeMap;

use bifrost_metadata::Keyspace;
use bifrost_raft::types::LogId;
use bifrost_wire::metadata::Txn;

use super::{Truth, mark};
use crate::history::value_of;

/// The entries that somebody applied, each with the digest of the keyspace after it.
#[derive(Debug, Default)]
pub(super) struct Entries {
    all: BTreeMap<u64, (LogId, u64)>,
}

impl Entries {
    /// The index of the last one.
    fn last(&self) -> Option<u64> {
        self.all.last_key_value().map(|(index, _)| *index)
    }
}

impl Truth {
    /// A member applies an entry. The first one to do so decides what it is.
    pub fn applies(&self, member: &str, id: LogId, txns: &[Txn]) {
        let (known, next) = {
            let facts = self.facts.lock();
            (facts.entries.all.get(&id.index).map(|(known, _)| *known), facts.entries.last().map_or(0, |last| last + 1))
        };
        match known {
            Some(known) if known == id => return,
            Some(known) => return self.breach(format!("M1 {member} applies {id}, where {known} was applied before")),
            None if id.index > next => self.breach(format!("M1 {member} applies {id}, and nobody applied {next}")),
            None => {}
        }
        for txn in txns {
            // A member decides on any transaction in the same way as the others do; the proposer has validated it.
            if self.commit(txn).is_err() {
                self.breach(format!("M1 {member} applies {id}, which has a transaction that is none"));
            }
        }
        let mut facts = self.facts.lock();
        let digest = facts.digest;
        facts.entries.all.insert(id.index, (id, digest));
    }

    /// A member goes on from a snapshot.
    pub fn installs(&self, member: &str, keyspace: &Keyspace, applied: Option<LogId>) {
        let Some(applied) = applied else { return };
        let found = keyspace.entries().fold(0, |digest, (key, versioned)| {
            digest ^ mark(key, (versioned.revision, Some(value_of(&versioned.value))))
        });
        let known = self.facts.lock().entries.all.get(&applied.index).copied();
        self.history.note(format!("metadata: {member} goes on from a snapshot up to {applied}"));
        if known != Some((applied, found)) {
            let known = known.map(|(id, _)| id);
            self.breach(format!("M1 {member} takes a snapshot up to {applied}, where {known:?} left something else"));
        }
    }

    /// The last entry that somebody applied.
    pub fn last_entry(&self) -> Option<u64> {
        self.facts.lock().entries.last()
    }
}
