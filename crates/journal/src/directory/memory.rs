//! A directory in memory that can crash: of the blocks that were not synced each survives or not, as the crash says.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;

use super::{Directory, Fill, JournalFile, ReadFile};
use crate::blocks::Blocks;
use crate::frame::{BLOCK, BLOCK_BYTES};
use crate::pace::Pace;

type Block = [u8; BLOCK_BYTES];

/// A handle to one directory; clones share it. It outlives the journal in it, as a disk does.
#[derive(Debug, Clone, Default)]
pub struct MemoryDirectory {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    files: BTreeMap<u64, Contents>,
    names: BTreeMap<String, u64>,
    next: u64,
    /// Blocks that may be in files at the same time.
    room_blocks: Option<usize>,
    /// Calls that change something, before the machine stops in the middle of one.
    stop_after: Option<u64>,
    stopped: bool,
    /// Calls that change something, before one is refused.
    refuse_after: Option<u64>,
    /// Syncs that fail.
    syncs_to_fail: u32,
}

#[derive(Debug, Default, Clone)]
struct Contents {
    durable: Vec<Block>,
    /// By number of the block.
    unsynced: BTreeMap<usize, Block>,
    /// What a sync failed for: still seen, and no later sync takes it for something to write.
    forgotten: BTreeMap<usize, Block>,
}

impl Contents {
    fn block(&self, number: usize) -> Option<&Block> {
        self.unsynced.get(&number).or_else(|| self.forgotten.get(&number)).or_else(|| self.durable.get(number))
    }

    fn fail_sync(&mut self) {
        self.forgotten.append(&mut self.unsynced);
    }

    fn crash(&mut self, mut survives: impl FnMut() -> bool) {
        self.forgotten.append(&mut self.unsynced);
        self.unsynced = std::mem::take(&mut self.forgotten);
        self.unsynced.retain(|_, _| survives());
        self.sync();
    }

    fn sync(&mut self) {
        for (number, block) in std::mem::take(&mut self.unsynced) {
            self.forgotten.remove(&number);
            if let Some(place) = self.durable.get_mut(number) {
                *place = block;
            }
        }
    }
}

impl State {
    /// `Ok(true)` if the machine stops in the middle of this call: it does its work and gives no answer.
    fn change(&mut self) -> io::Result<bool> {
        self.check()?;
        match &mut self.refuse_after {
            Some(0) => {
                self.refuse_after = None;
                return Err(io::ErrorKind::StorageFull.into());
            }
            Some(left) => *left -= 1,
            None => {}
        }
        match &mut self.stop_after {
            Some(0) => self.stopped = true,
            Some(left) => *left -= 1,
            None => {}
        }
        Ok(self.stopped)
    }

    fn check(&self) -> io::Result<()> {
        if self.stopped { Err(io::ErrorKind::BrokenPipe.into()) } else { Ok(()) }
    }

    fn of(&mut self, name: &str) -> io::Result<u64> {
        self.names.get(name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn blocks(&self) -> usize {
        self.files.values().map(|file| file.durable.len()).sum()
    }
}

impl MemoryDirectory {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// The machine stops in the middle of the change that follows `changes` more; every later call fails.
    pub fn stop_after(&self, changes: u64) {
        self.state.lock().stop_after = Some(changes);
    }

    /// Whether the machine stopped.
    pub fn is_stopped(&self) -> bool {
        self.state.lock().stopped
    }

    /// What power loss does: each block that was not synced, or whose sync failed, is there if `survives` says so. The
    /// directory can be used again.
    pub fn crash(&self, mut survives: impl FnMut() -> bool) {
        let mut state = self.state.lock();
        (state.stopped, state.stop_after) = (false, None);
        state.files.values_mut().for_each(|file| file.crash(&mut survives));
    }

    /// What kill -9 does: nothing that was written is lost, and what was not synced still is not; what a sync failed for is
    /// still seen. The directory can be used again.
    pub fn kill(&self) {
        let mut state = self.state.lock();
        (state.stopped, state.stop_after) = (false, None);
    }

    /// The change that follows `changes` more is refused, as by a full disk, and does nothing.
    pub fn refuse_after(&self, changes: u64) {
        self.state.lock().refuse_after = Some(changes);
    }

    /// So many of the next syncs fail. What they should have synced is still seen, and gone after a crash or not.
    pub fn fail_syncs(&self, syncs: u32) {
        self.state.lock().syncs_to_fail = syncs;
    }

    /// Another directory that has the same, synced and not, and no faults to come.
    pub fn copy(&self) -> Self {
        let state = self.state.lock();
        let State { files, names, next, .. } = &*state;
        let copied = State { files: files.clone(), names: names.clone(), next: *next, ..State::default() };
        Self { state: Arc::new(Mutex::new(copied)) }
    }

    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.state.lock().blocks() as u64 * BLOCK
    }

    /// Room for so many blocks in all files; `None` for any number.
    pub fn limit(&self, blocks: Option<usize>) {
        self.state.lock().room_blocks = blocks;
    }

    /// Flips a bit, as a bad disk does.
    pub fn damage(&self, name: &str, at: usize) {
        let mut state = self.state.lock();
        let Ok(file) = state.of(name) else { return };
        if let Some(file) = state.files.get_mut(&file)
            && let Some(byte) = file.durable.get_mut(at / BLOCK_BYTES).and_then(|block| block.get_mut(at % BLOCK_BYTES))
        {
            *byte ^= 1;
        }
    }
}

impl Directory for MemoryDirectory {
    type File = MemoryFile;
    type Reader = MemoryFile;

    fn names(&self) -> io::Result<Vec<String>> {
        let state = self.state.lock();
        state.check()?;
        Ok(state.names.keys().cloned().collect())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let state = self.state.lock();
        state.check()?;
        let free = state.room_blocks.map(|room| room.saturating_sub(state.blocks()) as u64 * BLOCK);
        Ok(free.unwrap_or(u64::MAX))
    }

    fn create(&self, name: &str, bytes: u64, _fill: Fill, _pace: &Pace) -> io::Result<()> {
        let mut state = self.state.lock();
        let stopped = state.change()?;
        let blocks = usize::try_from(bytes / BLOCK).unwrap_or(usize::MAX);
        if state.room_blocks.is_some_and(|room| room < state.blocks().saturating_add(blocks)) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let number = state.next;
        state.next += 1;
        state.files.insert(number, Contents { durable: vec![[0; BLOCK_BYTES]; blocks], ..Contents::default() });
        state.names.insert(name.to_owned(), number);
        if stopped { state.check() } else { Ok(()) }
    }

    fn open(&self, name: &str) -> io::Result<MemoryFile> {
        let mut state = self.state.lock();
        state.check()?;
        let number = state.of(name)?;
        Ok(MemoryFile { state: Arc::clone(&self.state), number })
    }

    fn open_to_read(&self, name: &str) -> io::Result<MemoryFile> {
        self.open(name)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state.lock();
        let stopped = state.change()?;
        let number = state.of(from)?;
        state.names.remove(from);
        state.names.insert(to.to_owned(), number);
        if stopped { state.check() } else { Ok(()) }
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state.lock();
        let stopped = state.change()?;
        let number = state.of(name)?;
        state.names.remove(name);
        state.files.remove(&number);
        if stopped { state.check() } else { Ok(()) }
    }
}

/// A file of a [`MemoryDirectory`].
#[derive(Debug)]
pub struct MemoryFile {
    state: Arc<Mutex<State>>,
    number: u64,
}

impl ReadFile for MemoryFile {
    fn bytes(&self) -> io::Result<u64> {
        let state = self.state.lock();
        state.check()?;
        Ok(state.files.get(&self.number).map_or(0, |file| file.durable.len() as u64 * BLOCK))
    }

    fn read(&self, into: &mut [u8], at: u64) -> io::Result<usize> {
        let state = self.state.lock();
        state.check()?;
        let file = state.files.get(&self.number).ok_or(io::ErrorKind::NotFound)?;
        let at = usize::try_from(at).unwrap_or(usize::MAX);
        let mut done = 0;
        while let Some(rest) = into.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let place = at + done;
            let Some(block) = file.block(place / BLOCK_BYTES) else { break };
            let from = block.get(place % BLOCK_BYTES..).unwrap_or_default();
            let length = rest.len().min(from.len());
            if let (Some(rest), Some(from)) = (rest.get_mut(..length), from.get(..length)) {
                rest.copy_from_slice(from);
            }
            done += length;
        }
        Ok(done)
    }
}

impl JournalFile for MemoryFile {
    fn write(&self, blocks: &Blocks, at: u64) -> io::Result<()> {
        let mut state = self.state.lock();
        let stopped = state.change()?;
        assert!(at.is_multiple_of(BLOCK) && blocks.len().is_multiple_of(BLOCK_BYTES), "whole blocks");
        let file = state.files.get_mut(&self.number).ok_or(io::ErrorKind::NotFound)?;
        let first = usize::try_from(at / BLOCK).unwrap_or(usize::MAX);
        for (place, block) in blocks.bytes().as_chunks::<BLOCK_BYTES>().0.iter().enumerate() {
            assert!(first + place < file.durable.len(), "files do not grow");
            file.unsynced.insert(first + place, *block);
        }
        if stopped { state.check() } else { Ok(()) }
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.state.lock();
        // A machine that stops in the middle has not synced.
        if state.change()? {
            return state.check();
        }
        let fails = state.syncs_to_fail > 0;
        state.syncs_to_fail = state.syncs_to_fail.saturating_sub(1);
        match state.files.get_mut(&self.number) {
            Some(file) if fails => {
                file.fail_sync();
                Err(io::Error::other("an injected fault"))
            }
            Some(file) => {
                file.sync();
                Ok(())
            }
            None => Ok(()),
        }
    }
}
