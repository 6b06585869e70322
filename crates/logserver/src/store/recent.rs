//! What was stored last, in memory, in front of any store: readers at the end of a log do not touch the disk.
//!
//! Of each loglet the last batches without a hole between them are here, all loglets together within a number of bytes; the
//! oldest go first. A read is answered from here if all that it asks for is, and by the store otherwise. Nothing is here
//! that the store did not commit.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bifrost_types::{LogletId, LogletOffset};
use parking_lot::Mutex;

use crate::store::{Change, Chunk, Group, LogStore, PlacedBatch, Recovered, Space, StoreError, Stored};

/// A store and what it stored last.
#[derive(Debug)]
pub struct Recent<S> {
    store: Arc<S>,
    kept: Mutex<Kept>,
}

#[derive(Debug)]
struct Kept {
    bytes_max: usize,
    bytes: usize,
    batches: usize,
    runs: BTreeMap<LogletId, VecDeque<Ticketed>>,
    /// Every batch in the order in which it came, and some that are gone.
    order: VecDeque<(u64, LogletId)>,
    next_ticket: u64,
}

#[derive(Debug)]
struct Ticketed {
    ticket: u64,
    batch: PlacedBatch,
}

/// What a batch takes besides its bytes.
const OVERHEAD_BYTES: usize = 128;

impl<S: LogStore> Recent<S> {
    /// Keeps batches of up to `bytes_max` bytes. A batch keeps the memory of the message that it came in, so that it may be
    /// more for as long as a part of a message is kept.
    pub const fn new(store: Arc<S>, bytes_max: usize) -> Self {
        let kept =
            Kept { bytes_max, bytes: 0, batches: 0, runs: BTreeMap::new(), order: VecDeque::new(), next_ticket: 0 };
        Self { store, kept: Mutex::new(kept) }
    }
}

impl Kept {
    fn apply(&mut self, change: &Change) {
        match change {
            Change::Append { loglet, batch } => self.append(*loglet, batch),
            Change::Put { .. } => {}
            Change::DropBelow { loglet, offset } => {
                self.drop_while(*loglet, VecDeque::pop_front, VecDeque::front, |batch| batch.end <= *offset)
            }
            Change::DropFrom { loglet, offset } => {
                self.drop_while(*loglet, VecDeque::pop_back, VecDeque::back, |batch| batch.first_offset >= *offset)
            }
        }
    }

    fn append(&mut self, loglet: LogletId, batch: &PlacedBatch) {
        let last = self.runs.get(&loglet).and_then(VecDeque::back);
        if last.is_some_and(|last| last.batch.end != batch.first_offset) {
            // What is written behind a hole, or once more, begins another run.
            self.drop_while(loglet, VecDeque::pop_front, VecDeque::front, |_| true);
        }
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.order.push_back((ticket, loglet));
        self.bytes = self.bytes.saturating_add(batch.bytes().len() + OVERHEAD_BYTES);
        self.batches += 1;
        self.runs.entry(loglet).or_default().push_back(Ticketed { ticket, batch: batch.clone() });
        while self.bytes > self.bytes_max
            && let Some((ticket, loglet)) = self.order.pop_front()
        {
            if self.first_ticket(loglet) == Some(ticket) {
                self.drop_one(loglet, VecDeque::pop_front);
            }
        }
        // Those that are gone do not pile up.
        if self.order.len() > 2 * self.batches + 64 {
            let runs = &self.runs;
            self.order.retain(|(ticket, loglet)| {
                let run = runs.get(loglet).and_then(|run| Some(run.front()?.ticket..=run.back()?.ticket));
                run.is_some_and(|run| run.contains(ticket))
            });
        }
    }

    fn first_ticket(&self, loglet: LogletId) -> Option<u64> {
        self.runs.get(&loglet)?.front().map(|first| first.ticket)
    }

    fn drop_while(
        &mut self,
        loglet: LogletId,
        pop: fn(&mut VecDeque<Ticketed>) -> Option<Ticketed>,
        next: fn(&VecDeque<Ticketed>) -> Option<&Ticketed>,
        goes: impl Fn(&PlacedBatch) -> bool,
    ) {
        while self.runs.get(&loglet).and_then(next).is_some_and(|next| goes(&next.batch)) {
            self.drop_one(loglet, pop);
        }
    }

    fn drop_one(&mut self, loglet: LogletId, pop: fn(&mut VecDeque<Ticketed>) -> Option<Ticketed>) {
        let Some(run) = self.runs.get_mut(&loglet) else { return };
        if let Some(gone) = pop(run) {
            self.bytes = self.bytes.saturating_sub(gone.batch.bytes().len() + OVERHEAD_BYTES);
            self.batches -= 1;
        }
        if run.is_empty() {
            self.runs.remove(&loglet);
        }
    }

    /// Everything in `[from, until)`, about `max_bytes` of it, if all of that is here.
    fn read(&self, loglet: LogletId, from: LogletOffset, until: LogletOffset, max_bytes: usize) -> Option<Chunk> {
        let run = self.runs.get(&loglet)?;
        if from >= until || run.front()?.batch.first_offset > from || run.back()?.batch.end < until {
            return None;
        }
        let first = run.partition_point(|kept| kept.batch.end <= from);
        let mut parts = Vec::new();
        let mut bytes = 0_usize;
        for batch in run.range(first..).map(|kept| &kept.batch).take_while(|batch| batch.first_offset < until) {
            if bytes >= max_bytes && !parts.is_empty() {
                return Some(Chunk { parts, covered_until: batch.first_offset });
            }
            bytes = bytes.saturating_add(batch.bytes().len());
            parts.push(Stored::Batch(batch.clone()));
        }
        Some(Chunk { parts, covered_until: until })
    }
}

impl<S: LogStore> LogStore for Recent<S> {
    async fn recover(&self) -> Result<Vec<Recovered>, StoreError> {
        self.store.recover().await
    }

    async fn commit(&self, group: Group) -> Result<(), StoreError> {
        // Payloads are shared, not copied.
        let changes: Vec<Change> = group.changes().to_vec();
        self.store.commit(group).await?;
        let mut kept = self.kept.lock();
        changes.iter().for_each(|change| kept.apply(change));
        Ok(())
    }

    async fn read(
        &self,
        loglet: LogletId,
        from: LogletOffset,
        until: LogletOffset,
        max_bytes: usize,
    ) -> Result<Chunk, StoreError> {
        let found = self.kept.lock().read(loglet, from, until, max_bytes);
        match found {
            Some(chunk) => Ok(chunk),
            None => self.store.read(loglet, from, until, max_bytes).await,
        }
    }

    fn space(&self) -> Option<&dyn Space> {
        self.store.space()
    }
}
