//! RocksDB as the disk of the store: one record for each key, one for the revision, changed together.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use bifrost_wire::metadata::Changes;
use rocksdb::{DB, DBCompressionType, DBRecoveryMode, ErrorKind, IteratorMode, Options, WriteBatch, WriteOptions};

use super::OpenError;
use super::writer::Persist;
use crate::format::{self, Record};
use crate::keyspace::Keyspace;

/// Values are in memory anyway: RocksDB's own buffer stays small.
const WRITE_BUFFER_BYTES: usize = 16 << 20;

/// The open database; dropping it releases the lock of its directory.
pub(super) struct Disk {
    db: DB,
    sync: WriteOptions,
}

impl Disk {
    /// Opens `dir` and reads everything in it.
    pub(super) fn open(dir: PathBuf) -> Result<(Self, Keyspace), OpenError> {
        prepare(&dir).map_err(|source| OpenError::Io { dir: dir.clone(), source })?;
        let db = DB::open(&options(), &dir).map_err(|source| match is_locked(&source) {
            true => OpenError::InUse { dir: dir.clone() },
            false => OpenError::Storage { dir: dir.clone(), source },
        })?;
        let mut revision = None;
        let mut entries = Vec::new();
        for item in db.iterator(IteratorMode::Start) {
            let (key, value) = item.map_err(|source| OpenError::Storage { dir: dir.clone(), source })?;
            match format::decode(&key, &value).map_err(|source| OpenError::Format { dir: dir.clone(), source })? {
                Record::Revision(found) => revision = Some(found),
                Record::Entry(key, versioned) => entries.push((key, versioned)),
            }
        }
        // Entries without the revision record are refused by `restore`: no value is newer than its store.
        let keyspace = Keyspace::restore(revision.unwrap_or(0), entries)
            .map_err(|source| OpenError::Contradiction { dir: dir.clone(), source })?;
        let mut sync = WriteOptions::default();
        sync.set_sync(true);
        Ok((Self { db, sync }, keyspace))
    }
}

impl Persist for Disk {
    type Error = rocksdb::Error;

    fn persist(&mut self, commits: &[Changes]) -> Result<(), rocksdb::Error> {
        let mut batch = WriteBatch::default();
        for change in commits.iter().flat_map(|changes| &changes.changes) {
            let key = format::entry_key(&change.key);
            match &change.value {
                Some(value) => batch.put(&key, format::entry_value(&key, change.revision, value)),
                None => batch.delete(&key),
            }
        }
        // In the same batch as what it counts: torn apart, a revision could be given twice (etcd #13766).
        if let Some(last) = commits.last() {
            batch.put(format::REVISION_KEY, format::revision_value(last.revision));
        }
        self.db.write_opt(batch, &self.sync)
    }
}

fn options() -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_write_buffer_size(WRITE_BUFFER_BYTES);
    options.set_keep_log_file_num(2);
    options.set_compression_type(DBCompressionType::Lz4);
    // A torn last record was never acknowledged and is dropped. A checksum that fails before it may be an acknowledged
    // commit: refuse to open instead of silently going back in time, which RocksDB's default (point in time) does.
    // What this cannot see: a damaged length in the log's last 32 KiB block looks like a torn end.
    options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    options
}

/// Makes the directory, and durable in every parent that this changes.
fn prepare(dir: &Path) -> io::Result<()> {
    let dir = std::path::absolute(dir)?;
    let missing = dir.ancestors().take_while(|ancestor| !ancestor.exists()).count();
    fs::create_dir_all(&dir)?;
    for parent in dir.ancestors().skip(1).take(missing) {
        File::open(parent)?.sync_all()?;
    }
    Ok(())
}

/// RocksDB has no code for it: the lock is held by this process (first text) or by another one (second).
fn is_locked(error: &rocksdb::Error) -> bool {
    let text = error.as_ref();
    error.kind() == ErrorKind::IOError
        && (text.contains("lock hold by current process") || text.contains("While lock file"))
}
