//! What metadata has: every transaction in the one order in which they were decided, and what may be told of it (M1).
//!
//! ```text
//!  the one keyspace, or what each member applies ─► Truth ─► history: chains and nodes as they are written
//!  answers to nodes and clients ─► Judged ────────────┘ └──► keyspace, for the run itself
//! ```
//!
//! A transaction or read is linearizable if its answer fits one moment between its call and its answer. Revisions say which
//! moments those are: an answer may not be older than what anybody was told before the call began.
//!
//! Reading order: this file (what was decided), `judge` (answers), `entries` (what the members of a group apply).

mod entries;
mod judge;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use bifrost_checker::event::{Event, Value};
use bifrost_metadata::MemoryMetadata;
use bifrost_types::LogId;
use bifrost_wire::codec::{decode_chain, decode_node_record};
use bifrost_wire::metadata::{MetadataError, MetadataStore, Revision, Txn, TxnOutcome, Write};
use futures_util::FutureExt as _;
use parking_lot::Mutex;

use self::entries::Entries;
pub use self::judge::{Floor, WatchJudge};
use crate::history::{History, value_of};

/// Prefixes of the keys of chains and of node records.
const LOGS: &str = "logs/";
const NODES: &str = "nodes/";
/// Breaches that are kept; after the first, most are its consequences.
const BREACHES_MAX: usize = 20;

/// The truth of one run; clones share it.
#[derive(Clone)]
pub struct Truth {
    keyspace: MemoryMetadata,
    history: History,
    facts: Arc<Mutex<Facts>>,
}

/// A write of a key: its revision, and the value if it was not removed.
type Written = (Revision, Option<Value>);

#[derive(Default)]
struct Facts {
    /// Of the last transaction that wrote anything.
    revision: Revision,
    /// The highest revision that anybody was told of.
    told: Revision,
    /// Every write of each key, in order.
    keys: BTreeMap<String, Vec<Written>>,
    /// What each revision wrote.
    revisions: BTreeMap<Revision, Vec<(String, Option<Value>)>>,
    /// Equal for equal keyspaces.
    digest: u64,
    entries: Entries,
    /// Writes of chains that pass before the one at which the leader is to lose its place.
    depose_after: Option<u32>,
    deposed: bool,
    breaches: Vec<String>,
}

impl fmt::Debug for Truth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Truth").field("revision", &self.facts.lock().revision).finish_non_exhaustive()
    }
}

impl Truth {
    /// Metadata that is empty.
    pub fn new(history: History) -> Self {
        Self { keyspace: MemoryMetadata::new(), history, facts: Arc::default() }
    }

    /// What is decided so far. Reads never wait; only [`commit`](Self::commit) writes.
    pub fn keyspace(&self) -> MemoryMetadata {
        self.keyspace.clone()
    }

    /// Decides the next transaction and tells the history.
    ///
    /// # Errors
    /// What the store says of a transaction that is none.
    pub fn commit(&self, txn: &Txn) -> Result<TxnOutcome, MetadataError> {
        // Memory answers at once.
        let outcome = self.keyspace.txn(txn.clone()).now_or_never().unwrap_or(Err(MetadataError::Unavailable))?;
        if let TxnOutcome::Committed(revision) = outcome
            && !txn.writes.is_empty()
        {
            for (key, write) in &txn.writes {
                let known = self.facts.lock().write(revision, key, write);
                self.tell(key, write, known);
            }
            self.facts.lock().revision = revision;
        }
        Ok(outcome)
    }

    fn tell(&self, key: &str, write: &Write, known: bool) {
        let event = match write {
            Write::Put(value) if key.starts_with(LOGS) => {
                decode_chain(value).ok().map(|chain| Event::ChainWritten { chain })
            }
            Write::Put(value) if key.starts_with(NODES) => {
                decode_node_record(value).ok().map(|record| Event::NodeWritten { record })
            }
            Write::Delete if known => log_of(key).map(|log| Event::ChainDeleted { log }),
            Write::Put(_) | Write::Delete => None,
        };
        match event {
            Some(event) => self.history.record(event),
            None => self.history.note(format!("metadata: {key} is written")),
        }
    }

    /// Says that a promise of metadata is broken.
    pub fn breach(&self, what: impl Into<String>) {
        let what = what.into();
        let mut facts = self.facts.lock();
        if facts.breaches.len() < BREACHES_MAX {
            self.history.note(format!("BREACH: {what}"));
            facts.breaches.push(what);
        }
    }

    /// What was broken, in order.
    pub fn breaches(&self) -> Vec<String> {
        self.facts.lock().breaches.clone()
    }

    /// The leader is to lose its place at the write of a chain after so many others. `None`: no more.
    pub fn depose_at(&self, after: Option<u32>) {
        let mut facts = self.facts.lock();
        facts.depose_after = after;
        facts.deposed = false;
    }

    /// Whether that write was sent. Says so once.
    pub fn take_deposed(&self) -> bool {
        std::mem::take(&mut self.facts.lock().deposed)
    }

    /// Counts a transaction that is sent to metadata.
    pub fn sent(&self, txn: &Txn) {
        if !writes_chain(txn) {
            return;
        }
        let mut facts = self.facts.lock();
        match facts.depose_after {
            Some(0) => {
                facts.depose_after = None;
                facts.deposed = true;
            }
            Some(left) => facts.depose_after = Some(left - 1),
            None => {}
        }
    }
}

impl Facts {
    /// Takes one write over; says whether the key had a value.
    fn write(&mut self, revision: Revision, key: &str, write: &Write) -> bool {
        let value = match write {
            Write::Put(value) => Some(value_of(value)),
            Write::Delete => None,
        };
        let writes = self.keys.entry(key.to_owned()).or_default();
        let before = writes.last().copied().filter(|(_, value)| value.is_some());
        writes.push((revision, value));
        self.digest ^= before.map_or(0, |written| mark(key, written));
        self.digest ^= mark(key, (revision, value));
        if value.is_some() || before.is_some() {
            self.revisions.entry(revision).or_default().push((key.to_owned(), value));
        }
        before.is_some()
    }

    /// What a key had at a revision.
    fn at(&self, key: &str, revision: Revision) -> Option<(Revision, Value)> {
        let writes = self.keys.get(key)?;
        let (written, value) = writes.iter().rev().find(|(written, _)| *written <= revision)?;
        Some((*written, (*value)?))
    }
}

/// Whether a transaction writes a chain.
pub(crate) fn writes_chain(txn: &Txn) -> bool {
    txn.writes.iter().any(|(key, _)| key.starts_with(LOGS))
}

/// The share of one key in the digest of a keyspace; none if it has no value.
fn mark(key: &str, (revision, value): Written) -> u64 {
    value.map_or(0, |value| value_of(format!("{key} {revision} {}", value.0).as_bytes()).0)
}

/// The log of the key of a chain.
fn log_of(key: &str) -> Option<LogId> {
    LogId::try_from(key.strip_prefix(LOGS)?.parse::<u64>().ok()?).ok()
}
