//! RocksDB as the disk of the store: one record for each key, one for the revision, changed together.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use bifrost_wire::metadata::Changes;
use rocksdb::{DB, IteratorMode, WriteBatch, WriteOptions};
use rustix::fs::{Access, access};
use thiserror::Error;

use super::writer::{Persist, PersistError};
use super::{FormatError, OpenError};
use crate::format::{self, Record};
use crate::keyspace::Keyspace;
use crate::rocks::{is_locked, options};

/// Values are in memory anyway: RocksDB's own buffer stays small, and so does the room that it sets aside.
const WRITE_BUFFER_BYTES: usize = 4 << 20;
/// Bytes that must be free besides twice those of a group: below it, RocksDB could run out of space in the middle.
const RESERVE_BYTES: u64 = 512 << 10;
/// Present in every database; written last when one is made.
const CURRENT: &str = "CURRENT";

/// The open database; dropping it releases the lock of its directory.
pub(super) struct Disk {
    dir: PathBuf,
    /// `None` while there is no room to open it anew.
    db: Option<DB>,
    sync: WriteOptions,
}

/// Why the disk must not be used any more.
#[derive(Debug, Error)]
pub(super) enum DiskError {
    #[error("a write failed")]
    Write(#[source] rocksdb::Error),
    #[error("the database cannot be opened anew")]
    Reopen(#[source] OpenError),
}

impl Disk {
    /// Opens `dir` and reads everything in it.
    pub(super) fn open(dir: PathBuf) -> Result<(Self, Keyspace), OpenError> {
        check_directory(&dir)?;
        prepare(&dir).map_err(|source| match source.kind() {
            io::ErrorKind::StorageFull => OpenError::Full { dir: dir.clone() },
            _ => OpenError::Io { dir: dir.clone(), source },
        })?;
        let (db, keyspace) = Self::open_database(&dir)?;
        let mut sync = WriteOptions::default();
        sync.set_sync(true);
        Ok((Self { dir, db: Some(db), sync }, keyspace))
    }

    fn open_database(dir: &Path) -> Result<(DB, Keyspace), OpenError> {
        let db = DB::open(&options(WRITE_BUFFER_BYTES), dir).map_err(|source| match &source {
            source if is_full(source) => OpenError::Full { dir: dir.to_owned() },
            source if is_locked(source) => OpenError::InUse { dir: dir.to_owned() },
            _ => OpenError::Storage { dir: dir.to_owned(), source },
        })?;
        let mut revision = None;
        let mut entries = Vec::new();
        for item in db.iterator(IteratorMode::Start) {
            let (key, value) = item.map_err(|source| OpenError::Storage { dir: dir.to_owned(), source })?;
            let record = format::decode(&key, &value).map_err(|source| match source {
                FormatError::UnknownVersion { version, .. } => {
                    OpenError::NewerFormat { dir: dir.to_owned(), found: version }
                }
                source => OpenError::Format { dir: dir.to_owned(), source },
            })?;
            match record {
                Record::Revision(found) => revision = Some(found),
                Record::Entry(key, versioned) => entries.push((key, versioned)),
            }
        }
        // Entries without the revision record are refused by `restore`: no value is newer than its store.
        let keyspace = Keyspace::restore(revision.unwrap_or(0), entries)
            .map_err(|source| OpenError::Contradiction { dir: dir.to_owned(), source })?;
        Ok((db, keyspace))
    }

    /// Bytes free on the file system; as good as none when it does not say.
    fn free_bytes(&self) -> u64 {
        rustix::fs::statvfs(&self.dir).map_or(0, |found| found.f_bavail.saturating_mul(found.f_frsize))
    }
}

impl Persist for Disk {
    type Error = DiskError;

    fn persist(&mut self, commits: &[Changes]) -> Result<(), PersistError<DiskError>> {
        let values = commits.iter().flat_map(|changes| &changes.changes).filter_map(|change| change.value.as_ref());
        let bytes = values.map(|value| value.len() as u64).fold(0, u64::saturating_add);
        // A removal takes next to nothing and may be what gives space back, but it is written by the same rule: the
        // reserve is small.
        let wanted = RESERVE_BYTES.saturating_add(bytes.saturating_mul(2));
        let Some(db) = self.db.as_ref().filter(|_| self.free_bytes() >= wanted) else {
            return Err(PersistError::NoRoom);
        };
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
        db.write_opt(batch, &self.sync).map_err(|error| match is_full(&error) {
            true => PersistError::RanFull,
            false => PersistError::Failed(DiskError::Write(error)),
        })
    }

    fn revive(&mut self) -> Result<Option<Keyspace>, DiskError> {
        // What is in the log is written into a file while it is read, and only then removed.
        if self.free_bytes() < RESERVE_BYTES.saturating_add(wal_bytes(&self.dir)) {
            return Ok(None);
        }
        // Closed first: the lock of the directory is not shared.
        self.db = None;
        match Self::open_database(&self.dir) {
            Ok((db, keyspace)) => {
                self.db = Some(db);
                Ok(Some(keyspace))
            }
            Err(OpenError::Full { .. }) => Ok(None),
            Err(error) => Err(DiskError::Reopen(error)),
        }
    }
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

/// RocksDB tells the reason in words only. A quota that is used up is a full disk of its own.
fn is_full(error: &rocksdb::Error) -> bool {
    let text = error.as_ref();
    text.contains("No space left on device") || text.contains("Disk quota exceeded")
}

/// Refuses what is not the directory of a metadata store, and changes nothing. A directory that is not there is fine.
fn check_directory(dir: &Path) -> Result<(), OpenError> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            return Err(OpenError::NotADirectory { dir: dir.to_owned() });
        }
        Err(source) => return Err(OpenError::Unwritable { dir: dir.to_owned(), source }),
    };
    let mut foreign = None;
    let mut database = false;
    for entry in entries {
        let name = entry.map_err(|source| OpenError::Unwritable { dir: dir.to_owned(), source })?.file_name();
        database |= name == CURRENT;
        if !name.to_str().is_some_and(is_known) {
            foreign = Some(PathBuf::from(name));
        }
    }
    if let Some(entry) = foreign
        && !database
    {
        return Err(OpenError::Foreign { dir: dir.to_owned(), entry });
    }
    access(dir, Access::WRITE_OK | Access::EXEC_OK)
        .map_err(|error| OpenError::Unwritable { dir: dir.to_owned(), source: error.into() })
}

/// What a file system puts into its root, and what RocksDB has made when it was stopped before a database was complete.
fn is_known(name: &str) -> bool {
    matches!(name, "lost+found" | "LOCK" | "IDENTITY")
        || ["LOG", "MANIFEST-", "OPTIONS-"].iter().any(|prefix| name.starts_with(prefix))
        || [".log", ".dbtmp", ".sst", ".blob"].iter().any(|suffix| name.ends_with(suffix))
}

/// Bytes of the log files of a database.
fn wal_bytes(dir: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    let files = entries.flatten().filter(|entry| entry.path().extension().is_some_and(|extension| extension == "log"));
    files.filter_map(|file| file.metadata().ok()).map(|about| about.len()).fold(0, u64::saturating_add)
}
