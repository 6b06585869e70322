//! What can be set on the store on disk, and what RocksDB is told.

use rocksdb::{BlockBasedOptions, Cache, DBCompressionType, DBRecoveryMode, Options};

use crate::options::InvalidOption;
use crate::space::SpaceOptions;

/// Where the batches of a store are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Engine {
    /// In files that are written before they are needed and used again; RocksDB says where. Each payload is written once,
    /// and an fsync costs a third of that of a file that grows.
    #[default]
    Files,
    /// In RocksDB, which has a log of its own.
    RocksDb,
}

/// How the store is set up. The defaults keep three servers in one process well below 512 MiB.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RocksOptions {
    /// Where batches are, in a directory that is new; one that has records goes on as what it is. Default: files.
    pub engine: Engine,
    /// Bytes that RocksDB keeps in memory before they move to its files; 1 MiB to 16 GiB. Default 64 MiB. Its own log, if it
    /// has one, is bounded by twice this.
    pub write_buffer_bytes: usize,
    /// Bytes of a file of batches, 1 MiB to 16 GiB. Default 64 MiB: what opening reads at most, and what one batch that is
    /// needed keeps until it is moved.
    pub file_bytes: usize,
    /// Bytes of index and data blocks kept in memory, up to 16 GiB. Default 16 MiB: batches are in files of their own and are
    /// cached by the system, so only keys are in here.
    pub block_cache_bytes: usize,
    /// Bytes of batches that are kept in memory for readers at the ends of logs, up to 16 GiB. Default 32 MiB.
    pub recent_bytes: usize,
    /// Threads for flush and compaction, 1 to 64. Default 2: one each.
    pub background_jobs: u16,
    /// Reads that may run at once, 1 to 256; others wait. Default 4: each holds a thread of the blocking pool.
    pub concurrent_reads: u16,
    /// Files that RocksDB keeps open, at least 16. Default 256; each costs a descriptor and a little memory.
    pub open_files: u16,
    /// How much of the disk is kept free, and what for.
    pub space: SpaceOptions,
}

impl Default for RocksOptions {
    fn default() -> Self {
        Self {
            engine: Engine::default(),
            write_buffer_bytes: 64 << 20,
            file_bytes: 64 << 20,
            block_cache_bytes: 16 << 20,
            recent_bytes: 32 << 20,
            background_jobs: 2,
            concurrent_reads: 4,
            open_files: 256,
            space: SpaceOptions::default(),
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
            ("file_bytes", self.file_bytes, 1 << 20, 1 << 34),
            ("block_cache_bytes", self.block_cache_bytes, 0, 1 << 34),
            ("recent_bytes", self.recent_bytes, 0, 1 << 34),
            ("background_jobs", usize::from(self.background_jobs), 1, 64),
            ("concurrent_reads", usize::from(self.concurrent_reads), 1, 256),
            ("open_files", usize::from(self.open_files), 16, usize::from(u16::MAX)),
        ] {
            if value < least || value > most {
                return Err(InvalidOption { option, least, most });
            }
        }
        self.space.validate()
    }

    pub(super) fn database(&self) -> Options {
        let mut database = Options::default();
        database.create_if_missing(true);
        database.create_missing_column_families(true);
        database.set_db_write_buffer_size(self.write_buffer_bytes);
        database.set_max_total_wal_size(self.write_buffer_bytes as u64 * 2);
        database.set_max_background_jobs(i32::from(self.background_jobs));
        database.set_max_open_files(i32::from(self.open_files));
        // Damage in the middle of the WAL must not silently drop what was acknowledged after it: only a torn last
        // record is tolerated. That mode excludes recycling WAL files, whose old contents look like torn records.
        database.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
        database.set_track_and_verify_wals_in_manifest(true);
        database.set_paranoid_checks(true);
        // Writing back early keeps the next fsync of the WAL from queueing behind a whole flush.
        database.set_bytes_per_sync(1 << 20);
        database.set_max_log_file_size(4 << 20);
        database.set_keep_log_file_num(2);
        database
    }

    pub(super) fn batches(&self) -> Options {
        let mut family = Options::default();
        family.set_block_based_table_factory(&table(self.block_cache_bytes));
        family.set_write_buffer_size(self.write_buffer_bytes / 2);
        family.set_max_write_buffer_number(3);
        // Small batches stay with their keys: a blob costs a lookup of its own.
        family.set_enable_blob_files(true);
        family.set_min_blob_size(512);
        family.set_blob_file_size(256 << 20);
        // A log that is trimmed late pins the blob files that it shares; past half garbage they are rewritten.
        family.set_enable_blob_gc(true);
        family.set_blob_gc_force_threshold(0.5);
        // Payloads are the caller's: most are compressed or small. The keys gain nothing.
        family.set_compression_type(DBCompressionType::None);
        family
    }

    /// Where batches are: small rows, written in the order of time and read in that of offsets.
    pub(super) fn places(&self) -> Options {
        let mut family = Options::default();
        family.set_block_based_table_factory(&table(self.block_cache_bytes));
        family.set_write_buffer_size(self.write_buffer_bytes / 4);
        family.set_compression_type(DBCompressionType::None);
        family
    }

    pub(super) fn states(&self) -> Options {
        let mut family = Options::default();
        family.set_block_based_table_factory(&table(1 << 20));
        family.set_write_buffer_size(self.write_buffer_bytes / 8);
        family.set_compression_type(DBCompressionType::None);
        family
    }
}

fn table(block_cache_bytes: usize) -> BlockBasedOptions {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(&Cache::new_lru_cache(block_cache_bytes));
    table.set_cache_index_and_filter_blocks(true);
    table.set_pin_l0_filter_and_index_blocks_in_cache(true);
    table
}
