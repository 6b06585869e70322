//! The store on disk: one RocksDB whose WAL is synced once per group.
//!
//! Batches are values of one column family, under (loglet, first offset); states of another. At a flush the batches
//! move to blob files, so that compaction sorts keys and does not rewrite payloads again and again.

mod scan;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bifrost_types::{LogletId, LogletOffset};
use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DB, DBRecoveryMode, DEFAULT_COLUMN_FAMILY_NAME,
    ErrorKind, IteratorMode, Options, WriteBatch, WriteOptions,
};
use thiserror::Error;
use tokio::sync::Semaphore;

use self::scan::read;
use crate::options::InvalidOption;
use crate::store::format::{self, FormatError};
use crate::store::{Cause, Change, Chunk, Group, LogStore, Recovered, StoreError, Stored};

const DIRECTORY: &str = "db";
const BATCHES: &str = "batches";
const STATES: &str = "states";

/// How RocksDB is set up. The defaults keep three servers in one process well below 512 MiB.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RocksOptions {
    /// Bytes of writes kept in memory before they move to files; 1 MiB to 16 GiB. Default 64 MiB: at 50 MB/s a flush a
    /// second, and the WAL is bounded by twice this.
    pub write_buffer_bytes: usize,
    /// Bytes of index and data blocks kept in memory, up to 16 GiB. Default 16 MiB: batches are in blob files and are cached by the
    /// page cache, so only keys are in here.
    pub block_cache_bytes: usize,
    /// Threads for flush and compaction, 1 to 64. Default 2: one each.
    pub background_jobs: u16,
    /// Reads that may run at once, 1 to 256; others wait. Default 4: each holds a thread of the blocking pool.
    pub concurrent_reads: u16,
    /// Files that are kept open, at least 16. Default 256; each costs a descriptor and a little memory.
    pub open_files: u16,
}

/// Why a store cannot be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The options are not valid.
    #[error(transparent)]
    Options(#[from] InvalidOption),
    /// Another process, or another server of this one, has it open.
    #[error("the data directory {} is in use", directory.display())]
    InUse {
        /// Which directory.
        directory: PathBuf,
    },
    /// What is on the disk is damaged; the copies of this server must come from other servers.
    #[error("the data directory {} is damaged", directory.display())]
    Damaged {
        /// Which directory.
        directory: PathBuf,
        /// What RocksDB found.
        #[source]
        source: rocksdb::Error,
    },
    /// The directory cannot be made.
    #[error("cannot create the data directory {}", directory.display())]
    Create {
        /// Which directory.
        directory: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Anything else.
    #[error("cannot open the data directory {}", directory.display())]
    Failed {
        /// Which directory.
        directory: PathBuf,
        /// What RocksDB said.
        #[source]
        source: rocksdb::Error,
    },
}

impl Default for RocksOptions {
    fn default() -> Self {
        Self {
            write_buffer_bytes: 64 << 20,
            block_cache_bytes: 16 << 20,
            background_jobs: 2,
            concurrent_reads: 4,
            open_files: 256,
        }
    }
}

impl RocksOptions {
    /// Checks the bounds.
    ///
    /// # Errors
    /// [`InvalidOption`] names the first field that is out of its bounds.
    pub fn validate(&self) -> Result<(), InvalidOption> {
        for (option, value, least, most) in [
            ("write_buffer_bytes", self.write_buffer_bytes, 1 << 20, 1 << 34),
            ("block_cache_bytes", self.block_cache_bytes, 0, 1 << 34),
            ("background_jobs", usize::from(self.background_jobs), 1, 64),
            ("concurrent_reads", usize::from(self.concurrent_reads), 1, 256),
            ("open_files", usize::from(self.open_files), 16, usize::from(u16::MAX)),
        ] {
            if value < least || value > most {
                return Err(InvalidOption { option, least, most });
            }
        }
        Ok(())
    }
}

/// Batches and states in RocksDB, under `<directory>/db`.
#[derive(Debug)]
pub struct RocksStore {
    db: Arc<DB>,
    reads: Arc<Semaphore>,
}

impl RocksStore {
    /// Opens the store, or makes an empty one. Blocks; the lock is held until the last clone of the store is dropped.
    ///
    /// # Errors
    /// [`OpenError`]; nothing was changed, except that directories may have been made.
    pub fn open(directory: &Path, options: &RocksOptions) -> Result<Self, OpenError> {
        options.validate()?;
        std::fs::create_dir_all(directory)
            .map_err(|source| OpenError::Create { directory: directory.to_owned(), source })?;
        let families = [
            ColumnFamilyDescriptor::new(BATCHES, batch_options(options)),
            ColumnFamilyDescriptor::new(STATES, state_options(options)),
            // Not used, and set all the same: out of space RocksDB goes on once the largest write buffer of any family
            // would fit, and the default one takes 64 MiB.
            ColumnFamilyDescriptor::new(DEFAULT_COLUMN_FAMILY_NAME, state_options(options)),
        ];
        let db = DB::open_cf_descriptors(&database_options(options), directory.join(DIRECTORY), families)
            .map_err(|source| open_error(directory, source))?;
        Ok(Self { db: Arc::new(db), reads: Arc::new(Semaphore::new(usize::from(options.concurrent_reads))) })
    }

    fn write(&self, group: &Group) -> Result<(), StoreError> {
        let batches = family(&self.db, BATCHES);
        let states = family(&self.db, STATES);
        // Room for the payloads and for the key, frame and header of each change: the buffer does not grow by doubling.
        let mut batch = WriteBatch::with_capacity_bytes(group.bytes() + group.changes().len() * 128);
        let mut frame = Vec::new();
        let mut dropped = Vec::new();
        for (index, change) in group.changes().iter().enumerate() {
            match change {
                Change::Append { loglet, batch: placed } => {
                    let key = format::batch_key(*loglet, placed.first_offset);
                    format::encode_batch(&key, placed, &mut frame).map_err(|cause| StoreError::Corrupt { cause })?;
                    batch.put_cf(batches, key, &frame);
                }
                Change::Put { loglet, state } => {
                    let key = format::loglet_key(*loglet);
                    batch.put_cf(states, key, format::encode_state(&key, state));
                }
                Change::DropBelow { loglet, offset } => {
                    let earlier = group.changes().iter().take(index);
                    let bound = self.lowest_kept(*loglet, *offset, earlier)?;
                    let range = (format::batch_key(*loglet, LogletOffset::FIRST), format::batch_key(*loglet, bound));
                    batch.delete_range_cf(batches, range.0, range.1);
                    dropped.push(range);
                }
                Change::DropFrom { loglet, offset } => {
                    let range = (format::batch_key(*loglet, *offset), format::batch_key(*loglet, LogletOffset::MAX));
                    batch.delete_range_cf(batches, range.0, range.1);
                }
            }
        }
        let mut options = WriteOptions::default();
        options.set_sync(true);
        self.db.write_opt(batch, &options).map_err(write_error)?;
        for (first, end) in dropped {
            // Gives whole files back at once; the range tombstone above would wait for a compaction. What it cannot
            // drop stays hidden behind that tombstone, so a failure costs space and nothing else.
            if let Err(error) = self.db.delete_file_in_range_cf(batches, first, end) {
                tracing::warn!(%error, "trimmed files could not be dropped");
            }
        }
        Ok(())
    }

    /// The first offset of what must stay when everything below `offset` goes: a batch that reaches over it starts
    /// lower.
    fn lowest_kept<'a>(
        &self,
        loglet: LogletId,
        offset: LogletOffset,
        earlier: impl Iterator<Item = &'a Change>,
    ) -> Result<LogletOffset, StoreError> {
        let Ok(after) = offset.advance(1) else {
            return Ok(offset);
        };
        let chunk = read(&self.db, loglet, offset, after, 0)?;
        let stored = chunk.parts.first().map(Stored::first_offset);
        let staged = earlier.filter_map(|change| match change {
            Change::Append { loglet: of, batch } if *of == loglet && batch.end > offset => Some(batch.first_offset),
            Change::Append { .. } | Change::Put { .. } | Change::DropBelow { .. } | Change::DropFrom { .. } => None,
        });
        Ok(staged.chain(stored).fold(offset, LogletOffset::min))
    }
}

impl LogStore for RocksStore {
    async fn recover(&self) -> Result<Vec<Recovered>, StoreError> {
        let db = Arc::clone(&self.db);
        tokio::task::spawn_blocking(move || recover(&db)).await.unwrap_or_else(|_| Err(abandoned()))
    }

    async fn commit(&self, group: Group) -> Result<(), StoreError> {
        self.write(&group)
    }

    async fn read(
        &self,
        loglet: LogletId,
        from: LogletOffset,
        until: LogletOffset,
        max_bytes: usize,
    ) -> Result<Chunk, StoreError> {
        let permit = Arc::clone(&self.reads).acquire_owned().await.map_err(|_| abandoned())?;
        let db = Arc::clone(&self.db);
        let work = move || {
            let _permit = permit;
            read(&db, loglet, from, until, max_bytes)
        };
        tokio::task::spawn_blocking(work).await.unwrap_or_else(|_| Err(abandoned()))
    }
}

fn database_options(options: &RocksOptions) -> Options {
    let mut database = Options::default();
    database.create_if_missing(true);
    database.create_missing_column_families(true);
    database.set_db_write_buffer_size(options.write_buffer_bytes);
    database.set_max_total_wal_size(options.write_buffer_bytes as u64 * 2);
    database.set_max_background_jobs(i32::from(options.background_jobs));
    database.set_max_open_files(i32::from(options.open_files));
    // Damage in the middle of the WAL must not silently drop what was acknowledged after it: only a torn last record
    // is tolerated. That mode excludes recycling WAL files, whose old contents look like torn records.
    database.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    database.set_track_and_verify_wals_in_manifest(true);
    database.set_paranoid_checks(true);
    // Writing back early keeps the next fsync of the WAL from queueing behind a whole flush.
    database.set_bytes_per_sync(1 << 20);
    database.set_max_log_file_size(4 << 20);
    database.set_keep_log_file_num(2);
    database
}

fn table_options(options: &RocksOptions) -> BlockBasedOptions {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(&Cache::new_lru_cache(options.block_cache_bytes));
    table.set_cache_index_and_filter_blocks(true);
    table.set_pin_l0_filter_and_index_blocks_in_cache(true);
    table
}

fn batch_options(options: &RocksOptions) -> Options {
    let mut family = Options::default();
    family.set_block_based_table_factory(&table_options(options));
    family.set_write_buffer_size(options.write_buffer_bytes / 2);
    family.set_max_write_buffer_number(3);
    // Small batches stay with their keys: a blob costs a lookup of its own.
    family.set_enable_blob_files(true);
    family.set_min_blob_size(512);
    family.set_blob_file_size(256 << 20);
    // A log that is trimmed late pins the blob files that it shares; past half garbage they are rewritten.
    family.set_enable_blob_gc(true);
    family.set_blob_gc_force_threshold(0.5);
    // Payloads are the caller's: most are compressed or small. The keys gain nothing.
    family.set_compression_type(rocksdb::DBCompressionType::None);
    family
}

fn state_options(options: &RocksOptions) -> Options {
    let mut family = Options::default();
    family
        .set_block_based_table_factory(&table_options(&RocksOptions { block_cache_bytes: 1 << 20, ..options.clone() }));
    family.set_write_buffer_size(options.write_buffer_bytes / 8);
    family.set_compression_type(rocksdb::DBCompressionType::None);
    family
}

fn family<'a>(db: &'a DB, name: &str) -> &'a ColumnFamily {
    db.cf_handle(name).expect("open creates both column families and nothing drops them")
}

fn open_error(directory: &Path, source: rocksdb::Error) -> OpenError {
    let directory = directory.to_owned();
    let locked = source.as_ref().contains("/LOCK: ");
    match source.kind() {
        ErrorKind::IOError if locked => OpenError::InUse { directory },
        ErrorKind::Corruption => OpenError::Damaged { directory, source },
        _ => OpenError::Failed { directory, source },
    }
}

fn write_error(error: rocksdb::Error) -> StoreError {
    // RocksDB tells the reason in words only. Out of space it refuses every write, looks at the disk every five
    // seconds, and goes on by itself once half of `write_buffer_bytes` is free.
    if error.as_ref().contains("No space left on device") {
        StoreError::Full
    } else {
        StoreError::Failed { cause: error.into() }
    }
}

const fn abandoned() -> StoreError {
    StoreError::Failed { cause: Cause::Abandoned }
}

fn recover(db: &DB) -> Result<Vec<Recovered>, StoreError> {
    let mut recovered = Vec::new();
    for entry in db.iterator_cf(family(db, STATES), IteratorMode::Start) {
        let (key, value) = entry.map_err(|cause| StoreError::Failed { cause: cause.into() })?;
        let corrupt = |cause: FormatError| StoreError::Corrupt { cause };
        let loglet = format::decode_loglet_key(&key).map_err(corrupt)?;
        let state = format::decode_state(&key, &value).map_err(corrupt)?;
        recovered.push(Recovered { loglet, state });
    }
    Ok(recovered)
}
