//! Open files for readers, few at a time, and the proof that nobody reads a file that is about to be used again.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::sync::{Arc, Weak};

use bifrost_journal::{Directory, open_to_read};
use parking_lot::Mutex;

/// Files that are kept open.
const OPEN_MAX: usize = 64;

#[derive(Debug)]
pub(super) struct Readers<D: Directory> {
    directory: D,
    state: Mutex<State<D::Reader>>,
}

#[derive(Debug)]
struct State<R> {
    /// Files that may be read.
    known: BTreeSet<u64>,
    /// Everyone that somebody reads, or that is kept open.
    open: BTreeMap<u64, Weak<R>>,
    kept_open: VecDeque<(u64, Arc<R>)>,
}

impl<D: Directory> Readers<D> {
    pub(super) fn new(directory: D, known: BTreeSet<u64>) -> Self {
        Self { directory, state: Mutex::new(State { known, open: BTreeMap::new(), kept_open: VecDeque::new() }) }
    }

    /// A file from which batches may be read from now on.
    pub(super) fn add(&self, file: u64) {
        self.state.lock().known.insert(file);
    }

    /// An open file; `None` if it is not there any more. It stays as it is while this is held.
    pub(super) fn get(&self, file: u64) -> io::Result<Option<Arc<D::Reader>>> {
        let mut state = self.state.lock();
        if !state.known.contains(&file) {
            return Ok(None);
        }
        if let Some(reader) = state.open.get(&file).and_then(Weak::upgrade) {
            return Ok(Some(reader));
        }
        let reader = match open_to_read(&self.directory, file) {
            Ok(reader) => Arc::new(reader),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        while state.kept_open.len() >= OPEN_MAX {
            state.kept_open.pop_front();
        }
        state.kept_open.push_back((file, Arc::clone(&reader)));
        state.open.retain(|_, reader| reader.strong_count() > 0);
        state.open.insert(file, Arc::downgrade(&reader));
        Ok(Some(reader))
    }

    /// Nobody gets a file any more. Whether nobody has it.
    pub(super) fn retire(&self, file: u64) -> bool {
        let mut state = self.state.lock();
        state.known.remove(&file);
        state.kept_open.retain(|(kept, _)| *kept != file);
        state.open.get(&file).is_none_or(|reader| reader.strong_count() == 0)
    }
}
