//! Rows in memory that can crash: what was not flushed is gone.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use parking_lot::Mutex;

use super::{Index, Table, Writes};
use crate::store::StoreError;
use crate::store::scan::{RowError, Rows};

type Contents = BTreeMap<(Table, Vec<u8>), Vec<u8>>;

/// A handle to one index; clones share it. It outlives the store on it, as a disk does.
#[derive(Debug, Clone, Default)]
pub(in crate::store) struct MemoryIndex {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    durable: Arc<Contents>,
    contents: Arc<Contents>,
    /// What every call says.
    refusal: Option<fn() -> StoreError>,
}

impl State {
    fn check(&self) -> Result<(), StoreError> {
        self.refusal.map_or(Ok(()), |refusal| Err(refusal()))
    }
}

impl MemoryIndex {
    /// What kill -9 does as well as power loss.
    pub(in crate::store) fn crash(&self) {
        let mut state = self.state.lock();
        state.contents = Arc::clone(&state.durable);
    }

    /// Another index that has the same, flushed and not.
    pub(in crate::store) fn copy(&self) -> Self {
        let state = self.state.lock();
        let State { durable, contents, refusal } = &*state;
        let copied = State { durable: Arc::clone(durable), contents: Arc::clone(contents), refusal: *refusal };
        Self { state: Arc::new(Mutex::new(copied)) }
    }

    /// Every call but a look at rows fails so from now on; `None` for none.
    #[cfg(test)]
    pub(in crate::store) fn refuse(&self, refusal: Option<fn() -> StoreError>) {
        self.state.lock().refusal = refusal;
    }
}

#[derive(Debug)]
enum Change {
    Put(Table, Vec<u8>, Vec<u8>),
    DeleteRange(Table, Vec<u8>, Vec<u8>),
    Delete(Table, Vec<u8>),
}

#[derive(Debug, Default)]
pub(in crate::store) struct MemoryWrites(Vec<Change>);

impl Writes for MemoryWrites {
    fn put(&mut self, table: Table, key: &[u8], value: &[u8]) {
        self.0.push(Change::Put(table, key.to_vec(), value.to_vec()));
    }

    fn delete(&mut self, table: Table, key: &[u8]) {
        self.0.push(Change::Delete(table, key.to_vec()));
    }

    fn delete_range(&mut self, table: Table, from: &[u8], until: &[u8]) {
        self.0.push(Change::DeleteRange(table, from.to_vec(), until.to_vec()));
    }
}

impl Index for MemoryIndex {
    type Writes<'a> = MemoryWrites;
    type Rows<'a> = MemoryRows;

    fn writes(&self, _bytes: usize) -> MemoryWrites {
        MemoryWrites::default()
    }

    fn write(&self, writes: MemoryWrites) -> Result<(), StoreError> {
        let mut state = self.state.lock();
        state.check()?;
        let contents = Arc::make_mut(&mut state.contents);
        for change in writes.0 {
            match change {
                Change::Put(table, key, value) => {
                    contents.insert((table, key), value);
                }
                Change::Delete(table, key) => {
                    contents.remove(&(table, key));
                }
                Change::DeleteRange(table, from, until) => {
                    contents.retain(|(of, key), _| *of != table || *key < from || *key >= until);
                }
            }
        }
        Ok(())
    }

    fn flush(&self) -> Result<(), StoreError> {
        let mut state = self.state.lock();
        state.check()?;
        state.durable = Arc::clone(&state.contents);
        Ok(())
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let state = self.state.lock();
        state.check()?;
        Ok(state.contents.get(&(table, key.to_vec())).cloned())
    }

    fn rows(&self, table: Table, from: &[u8], until: &[u8]) -> MemoryRows {
        let contents = Arc::clone(&self.state.lock().contents);
        MemoryRows { contents, table, from: from.to_vec(), until: until.to_vec(), at: None }
    }
}

/// The rows as of one moment.
#[derive(Debug)]
pub(in crate::store) struct MemoryRows {
    contents: Arc<Contents>,
    table: Table,
    from: Vec<u8>,
    until: Vec<u8>,
    at: Option<Vec<u8>>,
}

impl MemoryRows {
    fn first(&self, from: Bound<Vec<u8>>) -> Option<Vec<u8>> {
        let from = match from {
            Bound::Included(key) => Bound::Included((self.table, key.max(self.from.clone()))),
            Bound::Excluded(key) => Bound::Excluded((self.table, key)),
            Bound::Unbounded => Bound::Unbounded,
        };
        let until = Bound::Excluded((self.table, self.until.clone()));
        if matches!(&from, Bound::Included(key) | Bound::Excluded(key) if key.1 >= self.until) {
            return None;
        }
        self.contents.range((from, until)).next().map(|((_, key), _)| key.clone())
    }
}

impl Rows for MemoryRows {
    fn seek(&mut self, key: &[u8]) {
        self.at = self.first(Bound::Included(key.to_vec()));
    }

    fn seek_for_prev(&mut self, key: &[u8]) {
        let from = (self.table, self.from.clone());
        let found =
            self.contents.range(from..=(self.table, key.to_vec()).max((self.table, self.from.clone()))).next_back();
        self.at =
            found.map(|((_, found), _)| found.clone()).filter(|found| *found < self.until && found.as_slice() <= key);
    }

    fn next(&mut self) {
        self.at = self.at.take().and_then(|at| self.first(Bound::Excluded(at)));
    }

    fn item(&self) -> Option<(&[u8], &[u8])> {
        let at = self.at.as_ref()?;
        let (key, value) = self.contents.get_key_value(&(self.table, at.clone()))?;
        Some((&key.1, value))
    }

    fn status(&self) -> Result<(), RowError> {
        Ok(())
    }
}
