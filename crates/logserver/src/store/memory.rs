//! A store in memory: what tests, the simulator and `Bifrost::in_memory()` use. Durable for as long as the value lives.

use std::collections::BTreeMap;

use bifrost_types::{LogletId, LogletOffset};
use parking_lot::RwLock;

use crate::copy::DurableState;
use crate::store::{Change, Chunk, Group, LogStore, Recovered, StoreError, Stored};

/// Batches and states in ordered maps. A batch keeps the memory of the message that it came in.
#[derive(Debug, Default)]
pub struct MemoryStore {
    contents: RwLock<Contents>,
    #[cfg(any(test, feature = "test-util"))]
    full: std::sync::atomic::AtomicBool,
}

#[derive(Debug, Default)]
struct Contents {
    batches: BTreeMap<(LogletId, LogletOffset), Stored>,
    states: BTreeMap<LogletId, DurableState>,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether it refuses every group from now on, as a full disk does.
    #[cfg(any(test, feature = "test-util"))]
    pub fn set_full(&self, full: bool) {
        self.full.store(full, std::sync::atomic::Ordering::Relaxed);
    }

    /// Makes the batch that starts at an offset unreadable. Returns whether there was one.
    #[cfg(any(test, feature = "test-util"))]
    pub fn damage(&self, loglet: LogletId, first_offset: LogletOffset) -> bool {
        match self.contents.write().batches.get_mut(&(loglet, first_offset)) {
            Some(stored) => {
                *stored = Stored::Damaged { first_offset, end: stored.end() };
                true
            }
            None => false,
        }
    }

    /// Flips a bit in the stored bytes of the batch that starts at an offset, as if it had rotted behind an intact
    /// frame. Returns whether there was one.
    #[cfg(any(test, feature = "test-util"))]
    pub fn flip_bit(&self, loglet: LogletId, first_offset: LogletOffset, byte: usize) -> bool {
        match self.contents.write().batches.get_mut(&(loglet, first_offset)) {
            Some(Stored::Batch(batch)) => {
                let mut bytes = batch.bytes().to_vec();
                let flipped = bytes.get_mut(byte).map(|byte| *byte ^= 1).is_some();
                *batch = crate::store::PlacedBatch::new(batch.first_offset, batch.end, bytes.into());
                flipped
            }
            Some(Stored::Damaged { .. }) | None => false,
        }
    }
}

impl Contents {
    fn apply(&mut self, change: Change) {
        match change {
            Change::Append { loglet, batch } => {
                self.batches.insert((loglet, batch.first_offset), Stored::Batch(batch));
            }
            Change::Put { loglet, state } => {
                self.states.insert(loglet, state);
            }
            Change::DropBelow { loglet, offset } => {
                let range = (loglet, LogletOffset::FIRST)..(loglet, offset);
                let dropped = self.batches.range(range).filter(|(_, stored)| stored.end() <= offset);
                let dropped: Vec<_> = dropped.map(|(&key, _)| key).collect();
                self.remove(&dropped);
            }
            Change::DropFrom { loglet, offset } => {
                let range = (loglet, offset)..=(loglet, LogletOffset::MAX);
                let dropped: Vec<_> = self.batches.range(range).map(|(&key, _)| key).collect();
                self.remove(&dropped);
            }
        }
    }

    fn remove(&mut self, keys: &[(LogletId, LogletOffset)]) {
        for key in keys {
            self.batches.remove(key);
        }
    }

    fn read(&self, loglet: LogletId, from: LogletOffset, until: LogletOffset, max_bytes: usize) -> Chunk {
        if from >= until {
            return Chunk { parts: Vec::new(), covered_until: until };
        }
        let start = self
            .batches
            .range((loglet, LogletOffset::FIRST)..=(loglet, from))
            .next_back()
            .filter(|(_, stored)| stored.end() > from)
            .map_or(from, |((_, first), _)| *first);
        let mut parts = Vec::new();
        let mut bytes = 0_usize;
        for (_, stored) in self.batches.range((loglet, start)..(loglet, until)) {
            if bytes >= max_bytes && !parts.is_empty() {
                return Chunk { parts, covered_until: stored.first_offset() };
            }
            if let Stored::Batch(batch) = stored {
                bytes = bytes.saturating_add(batch.bytes().len());
            }
            parts.push(stored.clone());
        }
        Chunk { parts, covered_until: until }
    }
}

impl LogStore for MemoryStore {
    async fn recover(&self) -> Result<Vec<Recovered>, StoreError> {
        let contents = self.contents.read();
        Ok(contents.states.iter().map(|(&loglet, &state)| Recovered { loglet, state }).collect())
    }

    async fn commit(&self, group: Group) -> Result<(), StoreError> {
        #[cfg(any(test, feature = "test-util"))]
        if self.full.load(std::sync::atomic::Ordering::Relaxed) {
            return Err(StoreError::Full);
        }
        let mut contents = self.contents.write();
        for change in group.into_changes() {
            contents.apply(change);
        }
        Ok(())
    }

    async fn read(
        &self,
        loglet: LogletId,
        from: LogletOffset,
        until: LogletOffset,
        max_bytes: usize,
    ) -> Result<Chunk, StoreError> {
        Ok(self.contents.read().read(loglet, from, until, max_bytes))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::store::conformance::{self, Lives};

    /// Durable for as long as the value lives: a life ends without dropping it.
    struct Kept(Arc<MemoryStore>);

    impl Lives for Kept {
        type Store = Arc<MemoryStore>;

        async fn open(&mut self) -> Arc<MemoryStore> {
            Arc::clone(&self.0)
        }

        async fn close(&mut self, store: Arc<MemoryStore>) {
            drop(store);
        }
    }

    #[tokio::test]
    async fn the_contract_holds() {
        conformance::run(&mut Kept(Arc::new(MemoryStore::new()))).await;
    }

    #[tokio::test]
    async fn a_full_store_goes_on_when_there_is_room() {
        let store = MemoryStore::new();
        conformance::run_full(&store, || store.set_full(true), || store.set_full(false)).await;
    }
}
