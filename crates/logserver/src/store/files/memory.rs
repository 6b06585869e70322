//! The engine on a disk in memory that crashes, for whoever simulates log servers.

use std::path::Path;

use bifrost_journal::directory::memory::MemoryDirectory;
use bifrost_journal::{Directory, JournalOptions, Salts, file_name};
use bifrost_types::{LogletId, LogletOffset};

use super::FileStore;
use super::format::Place;
use super::index::memory::MemoryIndex;
use super::index::{Index, Table};
use crate::store::format::batch_key;
use crate::store::scan::BatchRow;
use crate::store::{Cause, Chunk, Group, Recovered, StoreError};

/// Files with batches and the rows that say where these are. Clones share both; they outlive the store on them.
#[derive(Debug, Clone, Default)]
pub struct MemoryFiles {
    directory: MemoryDirectory,
    index: MemoryIndex,
}

impl MemoryFiles {
    /// Opens the store, or makes an empty one, with files of `file_bytes`, whole blocks. No thread takes part: files are made
    /// when they are needed, and whoever has the store open [keeps](OpenFiles::keep) them in order.
    ///
    /// # Errors
    /// [`StoreError::Failed`] says why not.
    pub fn open(&self, file_bytes: u64, salts: Salts) -> Result<OpenFiles, StoreError> {
        let reused_bytes = 2 * file_bytes;
        let options = JournalOptions { file_bytes, prepares_ahead: false, keeps_files: true, reused_bytes };
        let (index, directory) = (self.index.clone(), self.directory.clone());
        FileStore::open(index, directory, Path::new("memory"), options, salts)
            .map(OpenFiles)
            .map_err(|error| StoreError::Failed { cause: Cause::Open(error.into()) })
    }

    /// The files; faults of the disk begin there.
    pub const fn directory(&self) -> &MemoryDirectory {
        &self.directory
    }

    /// Others that have the same, durable and not.
    pub fn copy(&self) -> Self {
        Self { directory: self.directory.copy(), index: self.index.copy() }
    }

    /// What power loss does: of the files each block that was not synced is there if `survives` says so, and the rows are what
    /// was flushed last.
    pub fn crash(&self, survives: impl FnMut() -> bool) {
        self.directory.crash(survives);
        self.index.crash();
    }

    /// What kill -9 does: the rows are what was flushed last.
    pub fn kill(&self) {
        self.directory.kill();
        self.index.crash();
    }

    /// The rows become durable without anybody's wish, as those of a database do now and then.
    ///
    /// # Errors
    /// [`StoreError`] of the index.
    pub fn flush(&self) -> Result<(), StoreError> {
        self.index.flush()
    }
}

/// An open store on [`MemoryFiles`]. Its calls do not wait; see [`LogStore`](crate::store::LogStore) for what they mean.
#[derive(Debug)]
pub struct OpenFiles(FileStore<MemoryDirectory, MemoryIndex>);

impl OpenFiles {
    /// Makes a group durable. Whether there is something to [keep](Self::keep) in order now.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn commit(&self, group: &Group) -> Result<bool, StoreError> {
        self.0.commit(group).map(|wants| wants.checkpoint)
    }

    /// Every loglet that has a state.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn recover(&self) -> Result<Vec<Recovered>, StoreError> {
        self.0.recover()
    }

    /// Reads what overlaps `[from, until)`, about `max_bytes` of it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn read(
        &self,
        loglet: LogletId,
        from: LogletOffset,
        until: LogletOffset,
        max_bytes: usize,
    ) -> Result<Chunk, StoreError> {
        self.0.read(loglet, from, until, max_bytes)
    }

    /// Keeps files in order: a checkpoint, and compaction of those of which less than a `share`-th is needed. `pause` is
    /// called in between with bytes that were read and written, and says whether to go on.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn keep(&self, share: u64, mut pause: impl FnMut(u64) -> bool) -> Result<(), StoreError> {
        self.0.keep(share, &mut pause)
    }

    /// The number of the last group; 0 before the first.
    pub fn last(&self) -> u64 {
        self.0.writer.lock().journal.last()
    }

    /// Names of the files, in their order.
    ///
    /// # Errors
    /// [`StoreError::Failed`] after a crash.
    pub fn names(&self) -> Result<Vec<String>, StoreError> {
        self.0.directory.names().map_err(|error| StoreError::Failed { cause: error.into() })
    }

    /// Flips a bit in a byte of a batch, counted around its end. Whether it is there.
    ///
    /// A checkpoint comes first: damage in what the index knows is found by whoever reads it. In what came after that, it is
    /// found when the store is opened, which refuses, or is taken for a torn end.
    ///
    /// # Errors
    /// [`StoreError`] if there is no checkpoint; nothing is damaged then.
    pub fn damage(&self, loglet: LogletId, first_offset: LogletOffset, byte: u64) -> Result<bool, StoreError> {
        self.0.checkpoint()?;
        let key = batch_key(loglet, first_offset);
        let row = self.0.index.get(Table::Batches, &key)?;
        let Some(place) = row.and_then(|row| Place::decode(&key, &row).ok()) else { return Ok(false) };
        let at = place.spot.at.saturating_add(byte.checked_rem(place.length.into()).unwrap_or(0));
        self.0.directory.damage(&file_name(place.spot.file), usize::try_from(at).unwrap_or(usize::MAX));
        Ok(true)
    }
}
