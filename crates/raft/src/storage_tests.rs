#![allow(clippy::unwrap_used, clippy::panic)]
//! Log store and state machine on every engine.

mod crash;
mod golden;
mod history;
mod machine;
mod suite;

use std::sync::Arc;

use openraft::storage::{RaftLogStorage, RaftLogStorageExt};
use openraft::{CommittedLeaderId, EntryPayload, LogId as RaftLogId, RaftLogReader};

use bifrost_metadata::Txn;
use bifrost_types::ClusterId;

use crate::disk::{Disk, DiskError, Owner};
use crate::engine::memory::MemoryEngine;
use crate::log::LogStore;
use crate::machine::StateMachine;
use crate::types::{Command, Entry, Lineage, LogId, MemberId};

const ME: u64 = 1;

fn owner(cluster: ClusterId, member: u64) -> Owner {
    Owner { cluster, member: MemberId::from(member), lineage: Lineage::default() }
}

fn id(term: u64, index: u64) -> LogId {
    RaftLogId::new(CommittedLeaderId::new(term, MemberId::from(term)), index)
}

fn blank(term: u64, index: u64) -> Entry {
    Entry { log_id: id(term, index), payload: EntryPayload::Blank }
}

/// An entry that writes its own id under a key.
fn write(term: u64, index: u64, key: &str) -> Entry {
    let txn = Txn::new().put(key, format!("{term}.{index}"));
    Entry { log_id: id(term, index), payload: EntryPayload::Normal(Command { txns: vec![txn] }) }
}

fn open(engine: &MemoryEngine) -> Result<(LogStore, StateMachine), DiskError> {
    crate::machine::open(&Disk::new(Arc::new(engine.clone())), MemberId::from(ME))
}

async fn append(log: &mut LogStore, entries: Vec<Entry>) -> bool {
    log.blocking_append(entries).await.is_ok()
}

async fn ids(log: &mut LogStore) -> Vec<LogId> {
    log.try_get_log_entries(..).await.unwrap().into_iter().map(|entry| entry.log_id).collect()
}

async fn last(log: &mut LogStore) -> Option<LogId> {
    log.get_log_state().await.unwrap().last_log_id
}
