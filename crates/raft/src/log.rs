//! The log store: votes and entries, each on stable storage before it is answered.
//!
//! openraft calls it from one task and waits for each call, so writes are in order and completions too. What this adds:
//! - entries follow each other, and a hole that is read is an error, not an empty answer. What was purged or truncated while
//!   somebody was about to send it is none;
//! - what is committed is never removed, whoever asks (Restate #2535 asserted it; here it stops this one member);
//! - openraft purges the entries that a snapshot stands for while that snapshot is still being installed. A crash in
//!   between would leave neither. So entries go only when the snapshot is on the disk, in the same batch; until then they
//!   are hidden, and an append behind the gap waits.
//! - a member that starts again is no leader, even if it was: its vote is read as a candidate's. openraft would let it
//!   answer reads at once, from a state that may be older than what it acknowledged in its last life.

mod shape;

use std::fmt::Debug;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use bifrost_types::plant::{self, Plant};
use openraft::storage::{LogFlushed, RaftLogStorage};
use openraft::{LogIdOptionExt, LogState, OptionalSend, RaftLogReader};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::codec::{Writer, decode_entry, encode_entry};
use crate::disk::{self, Disk, DiskError, entry_key, entry_keys};
use crate::engine::Batch;
use crate::types::{Entry, LogId, MemberId, StorageError, Types, Vote};
pub use shape::Shape;

/// Entries of this many bytes go to another member in one request; one larger entry goes alone.
pub const REQUEST_BYTES: usize = 1 << 20;
/// Bytes read at a time when the log is opened.
const SCAN_BYTES: usize = 4 << 20;

/// A handle to the log of one member; clones share it.
#[derive(Debug, Clone)]
pub struct LogStore {
    disk: Disk,
    me: MemberId,
    shape: Arc<Mutex<Shape>>,
    /// Told whenever a snapshot is on the disk.
    covered: watch::Receiver<Option<LogId>>,
}

impl LogStore {
    /// Reads the whole log of a disk, and checks it. `covered` is what the snapshot on the disk covers.
    ///
    /// # Errors
    /// [`DiskError`] when it is not whole: an entry that is missing may have been acknowledged.
    pub(crate) fn open(disk: Disk, me: MemberId, covered: watch::Receiver<Option<LogId>>) -> Result<Self, DiskError> {
        let purged = disk.read(disk::PURGED, "a log id", |reader| reader.log_id())?;
        let committed = disk.read(disk::COMMITTED, "a log id", |reader| reader.log_id())?;
        let snapshot = *covered.borrow();
        if let Some(purged) = purged
            && Some(purged) > snapshot
        {
            return Err(disk.fail(DiskError::NotCovered { purged, covered: snapshot }));
        }
        let mut shape = Shape::opened(purged, snapshot, committed);
        let (mut start, end) = entry_keys();
        loop {
            let records = disk.range(&start, &end, SCAN_BYTES)?;
            let Some((last_key, _)) = records.last() else { break };
            start = [last_key.as_ref(), &[0]].concat();
            for (key, bytes) in &records {
                let entry = read_entry(&disk, key, bytes)?;
                // A log may begin at 0 or 1: some leaders number from 1.
                let expected = shape.last.map_or(entry.log_id.index.min(1), |last| last.index + 1);
                if entry.log_id.index != expected || Some(entry.log_id) < shape.last {
                    return Err(disk.fail(DiskError::Hole { expected, found: Some(entry.log_id) }));
                }
                shape.appended(entry.log_id, bytes.len() as u64);
            }
        }
        Ok(Self { disk, me, shape: Arc::new(Mutex::new(shape)), covered })
    }

    /// The log in numbers.
    pub fn shape(&self) -> Arc<Mutex<Shape>> {
        Arc::clone(&self.shape)
    }

    pub(crate) fn entries(&self, start: u64, end: u64, bytes_max: usize) -> Result<Vec<Entry>, DiskError> {
        let start = start.max(self.shape.lock().purged.map_or(0, |purged| purged.index + 1));
        let records = self.disk.range(&entry_key(start), &entry_key(end), bytes_max)?;
        records.iter().map(|(key, bytes)| read_entry(&self.disk, key, bytes)).collect()
    }

    /// Waits until what was purged is covered by a snapshot on the disk, if the next entry would leave a hole before.
    async fn await_snapshot(&self, next: u64) -> Result<(), DiskError> {
        let stopped = self.disk.stopped();
        let mut covered = self.covered.clone();
        loop {
            covered.borrow_and_update();
            {
                let shape = self.shape.lock();
                if !shape.awaits_snapshot() || shape.last_on_disk().is_none_or(|last| next <= last + 1) {
                    return Ok(());
                }
            }
            tokio::select! {
                biased;
                () = stopped.cancelled() => return Err(DiskError::Stopped),
                changed = covered.changed() => changed.map_err(|_| DiskError::Stopped)?,
            }
        }
    }

    async fn write_entries(&self, entries: impl IntoIterator<Item = Entry>) -> Result<(), DiskError> {
        let lazy = plant::is(Plant::RaftAcknowledgedBeforeFsync);
        let mut batch = if lazy { Batch::lazy() } else { Batch::new() };
        let mut written = Vec::new();
        let (mut last, purged) = {
            let shape = self.shape.lock();
            (shape.last, shape.purged)
        };
        for entry in entries {
            // What is purged is part of a snapshot: there is no place for it in the log any more.
            if purged.is_some_and(|purged| entry.log_id.index <= purged.index) {
                continue;
            }
            if Some(entry.log_id) <= last || last.is_some_and(|last| entry.log_id.index <= last.index) {
                return Err(self.disk.fail(DiskError::NotAscending { last, next: entry.log_id }));
            }
            last = Some(entry.log_id);
            let bytes = encode_entry(&entry);
            written.push((entry.log_id, bytes.len() as u64));
            disk::put(&mut batch, entry_key(entry.log_id.index), &bytes);
        }
        let Some((first, _)) = written.first() else { return Ok(()) };
        self.await_snapshot(first.index).await?;
        self.disk.write(batch).await?;
        let mut shape = self.shape.lock();
        written.into_iter().for_each(|(id, bytes)| shape.appended(id, bytes));
        Ok(())
    }

    async fn remove_since(&self, first: LogId) -> Result<(), DiskError> {
        let (committed, purged, last) = {
            let shape = self.shape.lock();
            (shape.committed, shape.purged, shape.last)
        };
        if last.is_none_or(|last| last.index < first.index) {
            return Ok(());
        }
        if let Some(committed) = committed.max(purged)
            && first.index <= committed.index
        {
            return Err(self.disk.fail(DiskError::CommittedRemoved { first, committed }));
        }
        let previous = match first.index.checked_sub(1) {
            Some(previous) => self.entries(previous, first.index, usize::MAX)?.pop().map(|entry| entry.log_id),
            None => None,
        };
        let mut batch = Batch::new();
        if !plant::is(Plant::RaftSuffixKept) {
            batch.delete_range(entry_key(first.index), entry_keys().1);
        }
        // First, so that nobody who reads meanwhile takes what is gone for missing.
        self.shape.lock().truncated(first.index, previous.or(purged));
        self.disk.write(batch).await
    }

    async fn remove_upto(&self, upto: LogId) -> Result<(), DiskError> {
        let covered = {
            let mut shape = self.shape.lock();
            if shape.purged_on_disk >= Some(upto) {
                return Ok(());
            }
            shape.hidden(upto);
            shape.covered >= Some(upto)
        };
        if !covered {
            return Ok(());
        }
        let mut batch = Batch::lazy();
        purge_into(&mut batch, upto);
        self.disk.write(batch).await?;
        self.shape.lock().purged(upto);
        Ok(())
    }
}

/// Removes the entries up to one that a snapshot covers. It may be lost in a crash: then the log is longer.
pub(crate) fn purge_into(batch: &mut Batch, upto: LogId) {
    let mut writer = Writer::default();
    writer.log_id(&upto);
    disk::put(batch, disk::PURGED.to_vec(), &writer.finish());
    batch.delete_range(entry_keys().0, entry_key(upto.index + 1));
}

fn read_entry(disk: &Disk, key: &[u8], bytes: &[u8]) -> Result<Entry, DiskError> {
    let codec = |source| disk.fail(DiskError::Codec { key: key.to_vec(), source });
    let entry = decode_entry(bytes).map_err(codec)?;
    if entry_key(entry.log_id.index) != key {
        return Err(disk.fail(DiskError::Hole { expected: entry.log_id.index, found: Some(entry.log_id) }));
    }
    Ok(entry)
}

impl RaftLogReader<Types> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, StorageError> {
        let start = match range.start_bound() {
            Bound::Included(start) => *start,
            Bound::Excluded(start) => start.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(end) => end.saturating_add(1),
            Bound::Excluded(end) => *end,
            Bound::Unbounded => u64::MAX,
        };
        Ok(self.entries(start, end, usize::MAX)?)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, StorageError> {
        let (start_key, end_key) = (entry_key(start), entry_key(end));
        let mut records = self.disk.range(&start_key, &end_key, REQUEST_BYTES)?;
        // The range ends with the entry that is too much; unless it is alone it waits for the next request.
        if records.len() > 1 && records.iter().map(|(_, bytes)| bytes.len()).sum::<usize>() > REQUEST_BYTES {
            records.pop();
        }
        let entries: Result<Vec<Entry>, DiskError> =
            records.iter().map(|(key, bytes)| read_entry(&self.disk, key, bytes)).collect();
        let entries = entries?;
        {
            // Whoever sends entries to another member may do so for a moment after this one lost the lead. What it asks for
            // then may be gone, into a snapshot or for entries of the new leader: it has nothing to send any more.
            let shape = self.shape.lock();
            if start < shape.purged.next_index() || start >= shape.last.next_index() {
                return Ok(Vec::new());
            }
        }
        let mut expected = start;
        for entry in &entries {
            if entry.log_id.index != expected {
                return Err(self.disk.fail(DiskError::Hole { expected, found: Some(entry.log_id) }).into());
            }
            expected += 1;
        }
        if entries.is_empty() && start < end {
            return Err(self.disk.fail(DiskError::Hole { expected, found: None }).into());
        }
        Ok(entries)
    }
}

impl RaftLogStorage<Types> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, StorageError> {
        let shape = self.shape.lock();
        Ok(LogState { last_purged_log_id: shape.purged, last_log_id: shape.last })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), StorageError> {
        let mut writer = Writer::default();
        writer.vote(vote);
        let mut batch = if plant::is(Plant::RaftVoteNotDurable) { Batch::lazy() } else { Batch::new() };
        disk::put(&mut batch, disk::VOTE.to_vec(), &writer.finish());
        Ok(self.disk.write(batch).await?)
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, StorageError> {
        let vote = self.disk.read(disk::VOTE, "a vote", |reader| reader.vote())?;
        Ok(vote.map(|mut vote| {
            vote.committed &= vote.leader_id.node_id != self.me;
            vote
        }))
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), StorageError> {
        let Some(committed) = committed else { return Ok(()) };
        let mut writer = Writer::default();
        writer.log_id(&committed);
        let mut batch = Batch::lazy();
        disk::put(&mut batch, disk::COMMITTED.to_vec(), &writer.finish());
        self.disk.write(batch).await?;
        let mut shape = self.shape.lock();
        shape.committed = shape.committed.max(Some(committed));
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, StorageError> {
        Ok(self.shape.lock().committed)
    }

    async fn append<I>(&mut self, entries: I, callback: LogFlushed<Types>) -> Result<(), StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        // An error ends this member: nobody waits for the callback any more.
        self.write_entries(entries).await?;
        callback.log_io_completed(Ok(()));
        Ok(())
    }

    async fn truncate(&mut self, log_id: LogId) -> Result<(), StorageError> {
        Ok(self.remove_since(log_id).await?)
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), StorageError> {
        Ok(self.remove_upto(log_id).await?)
    }
}
