//! The database and what makes a group durable: files that keep the batches, a journal in front of it, or RocksDB's own log.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bifrost_journal::rocks::{DbOpenError, JournaledDb, WriteError, is_full};
use bifrost_journal::{BLOCK_BYTES, JournalError, JournalOptions, RealDirectory, Salts};
use rocksdb::{ColumnFamilyDescriptor, DB, DEFAULT_COLUMN_FAMILY_NAME, WriteBatch, WriteOptions};

use super::index::RocksIndex;
use super::keeper::{Files, Keeper};
use super::open::OpenError;
use super::options::{RocksOptions, WriteAheadLog};
use super::{BATCHES, DIRECTORY, RECORDS, STATES};
use crate::store::StoreError;
use crate::store::files::FileStore;

/// An open database.
#[derive(Debug)]
pub(super) enum OpenDatabase {
    Journaled {
        database: Box<JournaledDb>,
        /// It had no room for what is in its journal already: only what is opened anew goes on.
        behind: AtomicBool,
    },
    Plain(DB),
    Files {
        /// Ends before the files are closed.
        keeper: Keeper,
        files: Arc<Files>,
    },
}

impl OpenDatabase {
    /// Opens it, or makes an empty one.
    pub(super) fn open(directory: &Path, options: &RocksOptions) -> Result<Self, OpenError> {
        let path = directory.join(DIRECTORY);
        let batches = ColumnFamilyDescriptor::new(BATCHES, options.batches());
        let states = ColumnFamilyDescriptor::new(STATES, options.states());
        let opened = match options.wal {
            WriteAheadLog::Journal => {
                // A memory table fills up about as fast as a file, and is flushed when one is full.
                let file_bytes = (options.write_buffer_bytes / 2).next_multiple_of(BLOCK_BYTES) as u64;
                let journal = JournalOptions { file_bytes, ..JournalOptions::default() };
                let (database, families) = (options.database(), vec![batches, states]);
                JournaledDb::open(&database, &path, families, journal, salts())
                    .map(|database| Self::Journaled { database: Box::new(database), behind: AtomicBool::new(false) })
            }
            WriteAheadLog::RocksDb => {
                // Not used, and set all the same: out of space RocksDB goes on once the largest write buffer of any
                // family would fit, and the default one takes 64 MiB.
                let default = ColumnFamilyDescriptor::new(DEFAULT_COLUMN_FAMILY_NAME, options.states());
                let opened = DB::open_cf_descriptors(&options.database(), path, [batches, states, default]);
                opened.map(Self::Plain).map_err(DbOpenError::Database)
            }
            WriteAheadLog::Files => return Self::open_files(directory, options),
        };
        opened.map_err(|error| OpenError::of(directory, error))
    }

    fn open_files(directory: &Path, options: &RocksOptions) -> Result<Self, OpenError> {
        let failed = |error| OpenError::of(directory, error);
        let io = |source| failed(DbOpenError::Io { directory: directory.to_owned(), source });
        let index = RocksIndex::open(options, &directory.join(DIRECTORY));
        let index = index.map_err(|error| failed(DbOpenError::Database(error)))?;
        let path = directory.join(RECORDS);
        let records = RealDirectory::open(&path).map_err(io)?;
        let file_bytes = options.file_bytes.next_multiple_of(BLOCK_BYTES) as u64;
        let journal = JournalOptions { file_bytes, ..JournalOptions::default() };
        let files = FileStore::open(index, records, &path, journal, salts());
        let files = Arc::new(files.map_err(|error| OpenError::of_files(directory, error))?);
        let keeper = Keeper::start(Arc::clone(&files)).map_err(io)?;
        // What a crash left to be done.
        keeper.wake();
        Ok(Self::Files { keeper, files })
    }

    pub(super) fn db(&self) -> &DB {
        match self {
            Self::Journaled { database, .. } => database.db(),
            Self::Plain(database) => database,
            Self::Files { files, .. } => files.index().db(),
        }
    }

    /// The files that keep batches, if that is where batches are, and who keeps them in order.
    pub(super) fn files(&self) -> Option<(&Files, &Keeper)> {
        match self {
            Self::Files { files, keeper } => Some((files, keeper)),
            Self::Journaled { .. } | Self::Plain(_) => None,
        }
    }

    /// Writes a batch: durable, whole, when this returns.
    pub(super) fn write(&self, batch: WriteBatch) -> Result<(), StoreError> {
        match self {
            Self::Journaled { behind, .. } if behind.load(Ordering::Relaxed) => Err(StoreError::Full),
            Self::Journaled { database, behind } => database.write(batch).map_err(|error| match error {
                WriteError::Journal(JournalError::Full) => StoreError::Full,
                WriteError::Journal(error) => StoreError::Failed { cause: error.into() },
                WriteError::Database(error) => {
                    behind.store(is_full(&error), Ordering::Relaxed);
                    refused(error)
                }
            }),
            Self::Plain(database) => {
                let mut options = WriteOptions::default();
                options.set_sync(true);
                database.write_opt(batch, &options).map_err(refused)
            }
            Self::Files { .. } => Err(super::abandoned()),
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "what a file held before must not be taken for something new")]
fn salts() -> Salts {
    Box::new(rand::random::<u64>)
}

pub(super) fn refused(error: rocksdb::Error) -> StoreError {
    if is_full(&error) { StoreError::Full } else { StoreError::Failed { cause: error.into() } }
}
