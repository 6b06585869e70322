//! What is open: files that keep the batches and their index, or a RocksDB that keeps everything.

use std::path::Path;
use std::sync::Arc;

use bifrost_journal::rocks::is_full;
use bifrost_journal::{BLOCK_BYTES, JournalOptions, RealDirectory};
use rocksdb::{ColumnFamilyDescriptor, DB, DEFAULT_COLUMN_FAMILY_NAME, Options, WriteBatch, WriteOptions};

use super::index::RocksIndex;
use super::keeper::{Files, Keeper};
use super::open::OpenError;
use super::options::{Engine, RocksOptions};
use super::{BATCHES, DIRECTORY, RECORDS, STATES, total_bytes};
use crate::store::StoreError;
use crate::store::files::FileStore;

/// A disk has room for so many files at least.
const FILES_OF_A_DISK: u64 = 64;
/// And no file is shorter.
const FILE_BYTES_MIN: u64 = 256 << 10;
/// Of files that nobody needs any more, so much stays to be written again, as far as there is room: what is trimmed at once, and
/// what a burst of large records takes.
const REUSED_BYTES: u64 = 1 << 30;

/// An open database.
#[derive(Debug)]
pub(super) enum OpenDatabase {
    Files {
        /// Ends before the files are closed.
        keeper: Keeper,
        files: Arc<Files>,
    },
    RocksDb(DB),
}

impl OpenDatabase {
    /// Opens it, or makes an empty one. One that is there goes on as what it is.
    pub(super) fn open(directory: &Path, options: &RocksOptions) -> Result<Self, OpenError> {
        let path = directory.join(DIRECTORY);
        let engine = engine_of(&path).unwrap_or(options.engine);
        if engine != options.engine {
            tracing::info!(directory = %directory.display(), ?engine, "the records that are there stay where they are");
        }
        let database = match engine {
            Engine::Files => return Self::open_files(directory, &path, options),
            Engine::RocksDb => {
                let batches = ColumnFamilyDescriptor::new(BATCHES, options.batches());
                let states = ColumnFamilyDescriptor::new(STATES, options.states());
                // Not used, and set all the same: out of space RocksDB goes on once the largest write buffer of any
                // family would fit, and the default one takes 64 MiB.
                let default = ColumnFamilyDescriptor::new(DEFAULT_COLUMN_FAMILY_NAME, options.states());
                DB::open_cf_descriptors(&options.database(), path, [batches, states, default])
            }
        };
        database.map(Self::RocksDb).map_err(|error| OpenError::of(directory, error))
    }

    fn open_files(directory: &Path, database: &Path, options: &RocksOptions) -> Result<Self, OpenError> {
        let index = RocksIndex::open(options, database).map_err(|error| OpenError::of(directory, error))?;
        let path = directory.join(RECORDS);
        let io = |source| OpenError::of_io(directory, source);
        let records = RealDirectory::open(&path).map_err(io)?;
        tracing::debug!(directory = %path.display(), direct = records.is_direct(), "files of records are opened");
        // Of a small disk a small part: one batch that is needed keeps a whole file.
        let most = (total_bytes(directory).map_err(io)? / FILES_OF_A_DISK).max(FILE_BYTES_MIN);
        let file_bytes = (options.file_bytes as u64).min(most).next_multiple_of(BLOCK_BYTES as u64);
        let journal = JournalOptions { file_bytes, reused_bytes: REUSED_BYTES, ..JournalOptions::default() };
        #[expect(clippy::disallowed_methods, reason = "what a file held before must not be taken for something new")]
        let salts = Box::new(rand::random::<u64>);
        let files = FileStore::open(index, records, &path, journal, salts);
        let files = Arc::new(files.map_err(|error| OpenError::of_files(directory, error))?);
        let keeper = Keeper::start(Arc::clone(&files)).map_err(io)?;
        Ok(Self::Files { keeper, files })
    }

    pub(super) fn db(&self) -> &DB {
        match self {
            Self::Files { files, .. } => files.index().db(),
            Self::RocksDb(database) => database,
        }
    }

    /// The files that keep batches, if that is where batches are, and who keeps them in order.
    pub(super) fn files(&self) -> Option<(&Files, &Keeper)> {
        match self {
            Self::Files { files, keeper } => Some((files, keeper)),
            Self::RocksDb(_) => None,
        }
    }
}

/// What made the database, if there is one.
fn engine_of(database: &Path) -> Option<Engine> {
    let families = DB::list_cf(&Options::default(), database).ok()?;
    Some(if families.iter().any(|family| family == BATCHES) { Engine::RocksDb } else { Engine::Files })
}

/// Writes a batch: durable, whole, when this returns.
pub(super) fn write(database: &DB, batch: WriteBatch) -> Result<(), StoreError> {
    let mut options = WriteOptions::default();
    options.set_sync(true);
    database.write_opt(batch, &options).map_err(refused)
}

pub(super) fn refused(error: rocksdb::Error) -> StoreError {
    if is_full(&error) { StoreError::Full } else { StoreError::Failed { cause: error.into() } }
}
