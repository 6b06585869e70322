//! A RocksDB whose log is a [`Journal`].
//!
//! ```text
//!  write(batch) ─► journal: one write, one fsync ─► memtable, with the batch's number   (RocksDB's own log is off)
//!                     │ a file begins
//!                     ▼
//!           checkpoint thread: flush ─► groups up to there are released
//!
//!  open: the database as it was flushed last ─► the groups after its number, from the journal
//! ```
//! A flush takes all column families at once, so that the number it leaves says what of each of them is there.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use parking_lot::Mutex;
use rocksdb::{ColumnFamilyDescriptor, DB, ErrorKind, FlushOptions, Options, WriteBatch};
use thiserror::Error;

use crate::directory::RealDirectory;
use crate::error::{JournalError, OpenError};
use crate::journal::{Journal, JournalOptions, Salts};
use crate::recovery::{Position, Replayed};

/// Where the files are, below the directory of the database.
pub const DIRECTORY: &str = "journal";
/// The number of the last group that is in the database, under an empty key. A build that does not know of the journal
/// does not know this family either, and RocksDB refuses to open a database without all of them.
const APPLIED: &str = "journal";
const KEY: &[u8] = b"";
/// Changes that wait for a durable one to go with; with more, they do not wait.
const LAZY_BYTES_MAX: usize = 64 << 10;

/// A database and its journal. Dropping it ends its threads and closes the database.
#[derive(Debug)]
pub struct JournaledDb {
    db: Arc<DB>,
    writer: Mutex<Writer>,
    checkpoints: Checkpoints,
}

#[derive(Debug)]
struct Writer {
    journal: Journal<RealDirectory>,
    /// Batches that are in the database and not in the journal yet.
    lazy: Vec<Vec<u8>>,
    lazy_bytes: usize,
}

/// Why it cannot be opened. Nothing that was acknowledged is lost by it.
#[derive(Debug, Error)]
pub enum DbOpenError {
    /// RocksDB does not open it.
    #[error(transparent)]
    Database(#[from] rocksdb::Error),
    /// Its journal does not open.
    #[error(transparent)]
    Journal(#[from] OpenError),
    /// Its journal has no directory, or its threads cannot be started.
    #[error("the journal of {} cannot be made", directory.display())]
    Io {
        /// The database.
        directory: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The number of the last group is no number.
    #[error("the database in {} does not say what it has of its journal", directory.display())]
    Position {
        /// The database.
        directory: PathBuf,
    },
}

impl DbOpenError {
    /// Whether what is stored is not what was stored.
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Database(error) => error.kind() == ErrorKind::Corruption,
            Self::Journal(OpenError::Damaged { .. } | OpenError::Replay { .. }) => !self.is_full(),
            Self::Position { .. } => true,
            Self::Journal(_) | Self::Io { .. } => false,
        }
    }

    /// Whether there is too little room to open it.
    pub fn is_full(&self) -> bool {
        match self {
            Self::Database(error) => is_full(error),
            Self::Journal(OpenError::Replay { source, .. }) => {
                matches!(source.downcast_ref(), Some(GroupError::Database(error)) if is_full(error))
            }
            Self::Journal(OpenError::Io { source, .. }) | Self::Io { source, .. } => {
                matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
            }
            Self::Journal(_) | Self::Position { .. } => false,
        }
    }
}

/// Whether RocksDB found no room. It tells the reason in words only. A quota that is used up is a full disk of its own.
pub fn is_full(error: &rocksdb::Error) -> bool {
    let text = error.as_ref();
    text.contains("No space left on device") || text.contains("Disk quota exceeded")
}

/// Why a batch was not written. After any error but a full journal nobody may use it any more.
#[derive(Debug, Error)]
pub enum WriteError {
    /// The journal refused or failed.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// RocksDB did not take what is in the journal already.
    #[error(transparent)]
    Database(#[from] rocksdb::Error),
}

/// A group is what it should not be, although its checksum is right.
#[derive(Debug, Error)]
enum GroupError {
    #[error("its batches are not as long as they say")]
    Length,
    #[error(transparent)]
    Database(#[from] rocksdb::Error),
}

/// Flushes, one at a time.
#[derive(Debug)]
struct Checkpoints {
    /// `None` while it is dropped.
    wanted: Option<SyncSender<u64>>,
    flushed: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl JournaledDb {
    /// Opens the database in `directory` with these column families and the default one, made if there is none, and brings
    /// it up to its journal. A database that had none goes on with one. Blocks.
    ///
    /// # Errors
    /// [`DbOpenError`].
    pub fn open(
        options: &Options,
        directory: &Path,
        families: Vec<ColumnFamilyDescriptor>,
        journal: JournalOptions,
        salts: Salts,
    ) -> Result<Self, DbOpenError> {
        let mut options = options.clone();
        options.set_atomic_flush(true);
        options.create_missing_column_families(true);
        let mut names = vec![rocksdb::DEFAULT_COLUMN_FAMILY_NAME.to_owned(), APPLIED.to_owned()];
        names.extend(families.iter().map(|family| family.name().to_owned()));
        let applied = ColumnFamilyDescriptor::new(APPLIED, Options::default());
        let default = ColumnFamilyDescriptor::new(rocksdb::DEFAULT_COLUMN_FAMILY_NAME, options.clone());
        let db = DB::open_cf_descriptors(&options, directory, families.into_iter().chain([default, applied]))?;
        let path = directory.join(DIRECTORY);
        let io = |source| DbOpenError::Io { directory: directory.to_owned(), source };
        let files = RealDirectory::open(&path).map_err(io)?;
        tracing::debug!(directory = %path.display(), direct = files.is_direct(), "a journal is opened");
        let position = position(&db)?.ok_or_else(|| DbOpenError::Position { directory: directory.to_owned() })?;
        let mut replay = |group: Replayed<'_>| Ok(replay(&db, group.bytes, group.sequence)?);
        let journal = Journal::open(files, &path, journal, salts, Position::applied(position), &mut replay)?;
        let db = Arc::new(db);
        let checkpoints = Checkpoints::start(Arc::clone(&db), names, position).map_err(io)?;
        Ok(Self { db, writer: Mutex::new(Writer { journal, lazy: Vec::new(), lazy_bytes: 0 }), checkpoints })
    }

    /// For reading, flushing and compacting.
    pub fn db(&self) -> &DB {
        &self.db
    }

    /// Writes a batch: durable, whole, and visible when this returns. Batches are applied in the order of the calls. Blocks.
    ///
    /// # Errors
    /// [`WriteError`].
    pub fn write(&self, batch: WriteBatch) -> Result<(), WriteError> {
        // Held until the batch is applied: they are, in the order of their numbers.
        let mut writer = self.writer.lock();
        let sequence = writer.append(Some(&batch), &self.checkpoints)?;
        // What the database has of the journal must not have a hole: only a new life may go on after this.
        Ok(apply(&self.db, batch, sequence).inspect_err(|_| writer.journal.fail())?)
    }

    /// Writes a batch that is visible when this returns, and durable with the next one that is.
    ///
    /// # Errors
    /// [`WriteError`].
    pub fn write_lazily(&self, batch: WriteBatch) -> Result<(), WriteError> {
        let mut writer = self.writer.lock();
        writer.lazy_bytes = writer.lazy_bytes.saturating_add(batch.size_in_bytes());
        writer.lazy.push(batch.data().to_vec());
        self.db.write_without_wal(batch).inspect_err(|_| writer.journal.fail())?;
        if writer.lazy_bytes > LAZY_BYTES_MAX {
            let sequence = writer.append(None, &self.checkpoints)?;
            apply(&self.db, WriteBatch::default(), sequence).inspect_err(|_| writer.journal.fail())?;
        }
        Ok(())
    }
}

impl Drop for JournaledDb {
    fn drop(&mut self) {
        let mut writer = self.writer.lock();
        if !writer.lazy.is_empty() {
            // Nobody was promised anything.
            let _lost = writer.append(None, &self.checkpoints);
        }
    }
}

impl Writer {
    /// Appends what waits, and a batch, as one group. Returns its number.
    fn append(&mut self, batch: Option<&WriteBatch>, checkpoints: &Checkpoints) -> Result<u64, JournalError> {
        self.journal.release(checkpoints.flushed());
        let lazy = &self.lazy;
        let appended = self.journal.append(|blocks| {
            let waiting = lazy.iter().map(Vec::as_slice);
            for bytes in waiting.chain(batch.map(WriteBatch::data)) {
                // Longer ones are longer than a group may be, and refused.
                blocks.put(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes());
                blocks.put(bytes);
            }
        })?;
        self.lazy.clear();
        self.lazy_bytes = 0;
        if appended.begins_file {
            checkpoints.want(appended.sequence - 1);
        }
        Ok(appended.sequence)
    }
}

fn position(db: &DB) -> Result<Option<u64>, rocksdb::Error> {
    let Some(value) = db.get_cf(family(db), KEY)? else { return Ok(Some(0)) };
    Ok(value.as_slice().try_into().ok().map(u64::from_le_bytes))
}

/// Applies the batches of a group, and its number with the last of them.
fn replay(db: &DB, group: &[u8], sequence: u64) -> Result<(), GroupError> {
    let mut rest = group;
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
        let (batch, after) = after.split_at_checked(length).ok_or(GroupError::Length)?;
        rest = after;
        db.write_without_wal(WriteBatch::from_data(batch))?;
    }
    if !rest.is_empty() {
        return Err(GroupError::Length);
    }
    // A crash in between finds the group in the journal, and applies it again.
    Ok(apply(db, WriteBatch::default(), sequence)?)
}

fn apply(db: &DB, mut batch: WriteBatch, sequence: u64) -> Result<(), rocksdb::Error> {
    batch.put_cf(family(db), KEY, sequence.to_le_bytes());
    db.write_without_wal(batch)
}

fn family(db: &DB) -> &rocksdb::ColumnFamily {
    db.cf_handle(APPLIED).expect("open creates it and nothing drops it")
}

impl Checkpoints {
    fn start(db: Arc<DB>, families: Vec<String>, flushed: u64) -> io::Result<Self> {
        let flushed = Arc::new(AtomicU64::new(flushed));
        let (wanted, wants) = sync_channel::<u64>(1);
        let done = Arc::clone(&flushed);
        let thread = thread::Builder::new().name("checkpoints".to_owned()).spawn(move || {
            let handles: Vec<_> = families.iter().filter_map(|name| db.cf_handle(name)).collect();
            while let Ok(sequence) = wants.recv() {
                match db.flush_cfs_opt(&handles, &FlushOptions::default()) {
                    Ok(()) => drop(done.fetch_max(sequence, Ordering::AcqRel)),
                    Err(error) if error.kind() == ErrorKind::ShutdownInProgress => return,
                    // Writes fail from now on, and the journal keeps what it has.
                    Err(error) => tracing::error!(%error, "a database cannot flush what is in its journal"),
                }
            }
        })?;
        Ok(Self { wanted: Some(wanted), flushed, thread: Some(thread) })
    }

    /// What the database has up to this group is to be flushed. While it flushes, the next file asks again.
    fn want(&self, sequence: u64) {
        let _busy = self.wanted.as_ref().map(|wanted| wanted.try_send(sequence));
    }

    fn flushed(&self) -> u64 {
        self.flushed.load(Ordering::Acquire)
    }
}

impl Drop for Checkpoints {
    fn drop(&mut self) {
        drop(self.wanted.take());
        if let Some(thread) = self.thread.take() {
            let _ended = thread.join();
        }
    }
}

#[cfg(test)]
mod tests;
