//! A disk in memory that can crash: what is not synced is kept apart, and a crash keeps a prefix of it.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;

use super::{Batch, Durability, EngineError, LogEngine, Op, Record};

/// A handle to one disk; clones share it. It outlives the member that uses it, as a disk does.
#[derive(Debug, Clone, Default)]
pub struct MemoryEngine {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// What a crash leaves.
    durable: BTreeMap<Bytes, Bytes>,
    /// What a process sees: durable, and all that is unsynced.
    visible: BTreeMap<Bytes, Bytes>,
    /// Batches that no sync has covered, in order.
    unsynced: VecDeque<Batch>,
    /// Batches that were written since the disk was made.
    writes: u64,
    /// The write at which the machine stops, counted as `writes` is.
    stop_at: Option<u64>,
    stopped: bool,
}

impl MemoryEngine {
    /// An empty disk.
    pub fn new() -> Self {
        Self::default()
    }

    /// Batches that were written so far, synced or not.
    pub fn writes(&self) -> u64 {
        self.state.lock().writes
    }

    /// Stops the machine in the middle of the write that follows `writes` more: that batch is in the cache of the disk,
    /// not synced and not answered. Every later call fails.
    pub fn stop_after(&self, writes: u64) {
        let mut state = self.state.lock();
        state.stop_at = Some(state.writes + writes);
    }

    /// Stops the machine now: every later call fails until [`crash`](Self::crash) starts it anew.
    pub fn stop(&self) {
        self.state.lock().stopped = true;
    }

    /// Batches that a crash would take back, if it takes all that it may.
    pub fn unsynced(&self) -> usize {
        self.state.lock().unsynced.len()
    }

    /// What power loss does: of the batches that were not synced the first `kept` survive. The disk can be used again.
    pub fn crash(&self, kept: usize) {
        let mut state = self.state.lock();
        let state = &mut *state;
        for batch in state.unsynced.drain(..).take(kept) {
            apply(&mut state.durable, &batch);
        }
        state.visible = state.durable.clone();
        state.stop_at = None;
        state.stopped = false;
    }

    /// Writes a batch into the cache of the disk and no further, whatever it asks for; [`sync`](Self::sync) brings it to the
    /// disk. For disks that take their time.
    ///
    /// # Errors
    /// [`EngineError`] when the machine has stopped.
    pub fn cache(&self, batch: Batch) -> Result<(), EngineError> {
        self.state.lock().cache(batch)
    }

    /// Everything that was written so far is durable.
    ///
    /// # Errors
    /// [`EngineError`] when the machine has stopped.
    pub fn sync(&self) -> Result<(), EngineError> {
        let mut state = self.state.lock();
        state.check()?;
        state.sync();
        Ok(())
    }

    /// Flips a bit of the value of a key, as a bad disk does. Returns whether there was one.
    pub fn damage(&self, key: &[u8]) -> bool {
        let mut state = self.state.lock();
        let state = &mut *state;
        let mut found = false;
        for map in [&mut state.durable, &mut state.visible] {
            if let Some(value) = map.get_mut(key) {
                let mut bytes = value.to_vec();
                if let Some(last) = bytes.last_mut() {
                    *last ^= 1;
                }
                *value = bytes.into();
                found = true;
            }
        }
        found
    }
}

impl State {
    fn check(&self) -> Result<(), EngineError> {
        if self.stopped { Err(EngineError::Io(io::ErrorKind::BrokenPipe.into())) } else { Ok(()) }
    }

    fn cache(&mut self, batch: Batch) -> Result<(), EngineError> {
        self.check()?;
        apply(&mut self.visible, &batch);
        self.unsynced.push_back(batch);
        if self.stop_at == Some(self.writes) {
            self.stopped = true;
        }
        self.check()?;
        self.writes += 1;
        Ok(())
    }

    fn sync(&mut self) {
        for batch in self.unsynced.drain(..) {
            apply(&mut self.durable, &batch);
        }
    }

    fn write(&mut self, batch: Batch) -> Result<(), EngineError> {
        let durability = batch.durability();
        self.cache(batch)?;
        if durability == Durability::Synced {
            self.sync();
        }
        Ok(())
    }
}

impl LogEngine for MemoryEngine {
    fn write(&self, batch: Batch) -> BoxFuture<'_, Result<(), EngineError>> {
        Box::pin(async move { self.state.lock().write(batch) })
    }

    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        let state = self.state.lock();
        state.check()?;
        Ok(state.visible.get(key).cloned())
    }

    fn range(&self, start: &[u8], end: &[u8], bytes_max: usize) -> Result<Vec<Record>, EngineError> {
        let state = self.state.lock();
        state.check()?;
        let mut records = Vec::new();
        if start >= end {
            return Ok(records);
        }
        let mut bytes = 0_usize;
        for (key, value) in state.visible.range::<[u8], _>((Bound::Included(start), Bound::Excluded(end))) {
            records.push((key.clone(), value.clone()));
            bytes = bytes.saturating_add(value.len());
            if bytes >= bytes_max {
                break;
            }
        }
        Ok(records)
    }
}

fn apply(map: &mut BTreeMap<Bytes, Bytes>, batch: &Batch) {
    for op in batch.ops() {
        match op {
            Op::Put { key, value } => drop(map.insert(key.clone(), value.clone())),
            Op::Delete { key } => drop(map.remove(key)),
            Op::DeleteRange { start, end } => map.retain(|key, _| key < start || key >= end),
        }
    }
}
