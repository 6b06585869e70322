//! Giving back the space of dropped batches while the disk is short of it.
//!
//! A drop is a range tombstone. The batches under it are in the WAL, in files of the newest level, or in files below;
//! only whole files of the lower levels go at once. So the memory is flushed, which ends the WAL files and writes
//! nothing that was dropped, and the dropped range is compacted, which reads keys and no payloads.

use std::collections::VecDeque;

use parking_lot::Mutex;
use rocksdb::{DB, FlushOptions};

use super::{BATCHES, STATES, family};
use crate::store::format::BATCH_KEY_BYTES;

/// Ranges that are remembered; older ones are left to RocksDB's own compaction.
const RANGES_MAX: usize = 64;

/// A range of keys, its end exclusive.
pub(super) type KeyRange = ([u8; BATCH_KEY_BYTES], [u8; BATCH_KEY_BYTES]);

/// What was dropped lately, and whether somebody works on it.
#[derive(Debug, Default)]
pub(super) struct Reclaim {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    dropped: VecDeque<KeyRange>,
    running: bool,
}

impl Reclaim {
    /// Remembers a dropped range.
    pub(super) fn dropped(&self, range: KeyRange) {
        let mut state = self.state.lock();
        if state.dropped.len() >= RANGES_MAX {
            state.dropped.pop_front();
        }
        state.dropped.push_back(range);
    }

    /// Whether the caller is to work: there is something to do and nobody does it.
    pub(super) fn begin(&self) -> bool {
        let mut state = self.state.lock();
        let begins = !state.running && !state.dropped.is_empty();
        state.running |= begins;
        begins
    }

    /// Works off what was dropped: `work` says whether it could.
    pub(super) fn run(&self, work: impl FnOnce(&VecDeque<KeyRange>) -> bool) {
        let mut ranges = std::mem::take(&mut self.state.lock().dropped);
        let done = work(&ranges);
        let mut state = self.state.lock();
        state.running = false;
        if !done {
            ranges.append(&mut state.dropped);
            ranges.truncate(RANGES_MAX);
            state.dropped = ranges;
        }
    }
}

/// Gives back what lies in `ranges`; `false` when `free_bytes` is too little to work with.
pub(super) fn reclaim(db: &DB, free_bytes: u64, ranges: &VecDeque<KeyRange>) -> bool {
    let batches = family(db, BATCHES);
    let property = |name: &str| db.property_int_value_cf(batches, name).ok().flatten().unwrap_or(0);
    // A flush or a compaction that runs out of space would stop the small writes as well.
    if property("rocksdb.cur-size-all-mem-tables") > free_bytes {
        return false;
    }
    if let Err(error) = db.flush_cfs_opt(&[batches, family(db, STATES)], &FlushOptions::default()) {
        tracing::warn!(%error, "memory could not be flushed to give space back");
        return false;
    }
    if property("rocksdb.total-sst-files-size") > free_bytes / 2 {
        return false;
    }
    for (first, end) in ranges {
        db.compact_range_cf(batches, Some(first), Some(end));
    }
    true
}
