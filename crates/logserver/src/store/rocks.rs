//! The store on disk, as one of two engines: `files` keeps batches in the files that make them durable, and says in RocksDB
//! where; or RocksDB keeps everything, and syncs its WAL once per group.
//!
//! The second one: batches are values of one column family, under (loglet, first offset); states of another. At a flush the
//! batches move to blob files, so that compaction sorts keys and does not rewrite payloads again and again.
//!
//! A file system that is full all the same stops RocksDB's writes, and some ways of running full stop them for good. So
//! the store opens the database anew, under its lock, once there is room. Reads go on until then.

mod ballast;
mod database;
mod index;
mod keeper;
mod open;
mod options;
mod reclaim;
mod scan;
#[cfg(test)]
mod tests;

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bifrost_types::{LogletId, LogletOffset};
use parking_lot::{Mutex, RwLock};
use rocksdb::{ColumnFamily, DB, IteratorMode, WriteBatch};
use tokio::sync::Semaphore;
use tokio::time::{Duration, Instant};

use self::ballast::Ballast;
use self::database::OpenDatabase;
use self::open::create;
pub use self::open::{OpenError, check_directory};
pub use self::options::{Engine, RocksOptions};
use self::reclaim::{Reclaim, reclaim};
use self::scan::read;
use crate::space::{BallastStep, Look, Marks};
use crate::store::format::{self, FormatError};
use crate::store::{Cause, Change, Chunk, Group, LogStore, Recovered, Space, StoreError, Stored};

const DIRECTORY: &str = "db";
/// Where the files with batches are, below the directory of the store.
const RECORDS: &str = "records";
const BATCHES: &str = "batches";
const STATES: &str = "states";

/// What opening takes besides what is in the WAL: a manifest, options, the next WAL.
const REOPEN_BYTES: u64 = 1 << 20;
/// Between two tries to open the database anew; doubles up to [`REOPEN_PAUSE_MAX`].
const REOPEN_PAUSE: Duration = Duration::from_millis(100);
const REOPEN_PAUSE_MAX: Duration = Duration::from_secs(10);

/// Batches and states, under `<directory>/db` and `<directory>/records`.
#[derive(Debug)]
pub struct RocksStore {
    shared: Arc<Shared>,
    reads: Arc<Semaphore>,
}

#[derive(Debug)]
struct Shared {
    directory: PathBuf,
    options: RocksOptions,
    marks: Marks,
    /// A directory on each file system that it uses: whoever looks with each group has no path to follow.
    disks: Vec<File>,
    ballast: Ballast,
    reclaim: Reclaim,
    /// Held for reading by whoever uses the database, for writing by whoever opens it anew.
    database: RwLock<Database>,
    reopening: Mutex<Reopening>,
}

#[derive(Debug)]
enum Database {
    Open(OpenDatabase),
    /// It was closed to be opened anew, and there was no room for that.
    NoRoom,
    Closed,
}

#[derive(Debug)]
struct Reopening {
    tried: Option<Instant>,
    pause: Duration,
}

impl RocksStore {
    /// Opens the store, or makes an empty one. Blocks; the lock is held until the store is dropped.
    ///
    /// # Errors
    /// [`OpenError`]; nothing was changed, except that directories may have been made.
    pub fn open(directory: &Path, options: &RocksOptions) -> Result<Self, OpenError> {
        options.validate()?;
        check_directory(directory)?;
        create(directory)?;
        let failed = |source| OpenError::Create { directory: directory.to_owned(), source };
        let total_bytes = total_bytes(directory).map_err(failed)?;
        let marks = options.space.marks(total_bytes, options.write_buffer_bytes as u64);
        let ballast = Ballast::new(directory, marks.ballast_bytes);
        let database = match OpenDatabase::open(directory, options) {
            Err(OpenError::Full { .. }) if ballast.is_there() => {
                ballast.give_up().map_err(failed)?;
                OpenDatabase::open(directory, options)?
            }
            opened => opened?,
        };
        let shared = Shared {
            directory: directory.to_owned(),
            options: options.clone(),
            marks,
            disks: disks(directory).map_err(failed)?,
            ballast,
            reclaim: Reclaim::default(),
            database: RwLock::new(Database::Open(database)),
            reopening: Mutex::new(Reopening { tried: None, pause: REOPEN_PAUSE }),
        };
        let reads = Arc::new(Semaphore::new(usize::from(options.concurrent_reads)));
        Ok(Self { shared: Arc::new(shared), reads })
    }
}

impl Shared {
    /// Uses the database; it stays the same one until this returns.
    fn with<T>(&self, work: impl FnOnce(&DB) -> Result<T, StoreError>) -> Result<T, StoreError> {
        self.with_open(|database| work(database.db()))
    }

    /// The same, for work that is not the same for each engine.
    fn with_open<T>(&self, work: impl FnOnce(&OpenDatabase) -> Result<T, StoreError>) -> Result<T, StoreError> {
        match &*self.database.read() {
            Database::Open(database) => work(database),
            Database::NoRoom => Err(StoreError::Full),
            Database::Closed => Err(abandoned()),
        }
    }

    fn commit(&self, group: &Group) -> Result<(), StoreError> {
        match self.with_open(|database| self.commit_in(database, group)) {
            Err(StoreError::Full) if self.reopen()? => self.with_open(|database| self.commit_in(database, group)),
            outcome => outcome,
        }
    }

    fn commit_in(&self, database: &OpenDatabase, group: &Group) -> Result<(), StoreError> {
        match database.files() {
            None => self.write(database.db(), group),
            Some((files, keeper)) => {
                if files.commit(group)?.checkpoint {
                    keeper.wake();
                }
                Ok(())
            }
        }
    }

    fn read(
        &self,
        loglet: LogletId,
        from: LogletOffset,
        until: LogletOffset,
        max_bytes: usize,
    ) -> Result<Chunk, StoreError> {
        self.with_open(|database| match database.files() {
            None => read(database.db(), loglet, from, until, max_bytes),
            Some((files, _)) => files.read(loglet, from, until, max_bytes),
        })
    }

    fn recover(&self) -> Result<Vec<Recovered>, StoreError> {
        self.with_open(|database| match database.files() {
            None => recover(database.db()),
            Some((files, _)) => files.recover(),
        })
    }

    /// Opens the database anew once there is room for it; `false` while there is not.
    ///
    /// RocksDB resumes by itself from some out-of-space errors, within five seconds of there being room, and from
    /// others never. What is opened here is what the WAL says: every group that was answered, and perhaps one that was
    /// refused. That one is harmless. Its batches are what their sequencer sent, so whoever stores there again stores
    /// the same bytes (A1), and its promises were asked for.
    fn reopen(&self) -> Result<bool, StoreError> {
        let now = Instant::now();
        let mut reopening = self.reopening.lock();
        match reopening.tried.map(|tried| now.saturating_duration_since(tried)) {
            Some(passed) if passed < reopening.pause => return Ok(false),
            // Long ago: another incident.
            Some(passed) if passed > REOPEN_PAUSE_MAX => reopening.pause = REOPEN_PAUSE,
            Some(_) | None => {}
        }
        let free_bytes = self.look().map_or(0, |look| look.free_bytes);
        // The WAL is written into files while it is read, and only then removed.
        if free_bytes < wal_bytes(&self.directory.join(DIRECTORY)).saturating_add(REOPEN_BYTES) {
            return Ok(false);
        }
        reopening.tried = Some(now);
        reopening.pause = (reopening.pause * 2).min(REOPEN_PAUSE_MAX);
        let mut database = self.database.write();
        if matches!(*database, Database::Closed) {
            return Err(abandoned());
        }
        // Closes it first: the lock of the directory is not shared.
        *database = Database::NoRoom;
        match OpenDatabase::open(&self.directory, &self.options) {
            Ok(opened) => {
                *database = Database::Open(opened);
                tracing::info!(directory = %self.directory.display(), "there is room again, the store was opened anew");
                Ok(true)
            }
            Err(OpenError::Full { .. }) => Ok(false),
            Err(OpenError::Damaged { source, .. } | OpenError::Failed { source, .. }) => {
                Err(StoreError::Failed { cause: Cause::Open(source) })
            }
            // Somebody else took the directory in between, or took it away.
            Err(_) => Err(abandoned()),
        }
    }

    fn write(&self, db: &DB, group: &Group) -> Result<(), StoreError> {
        let batches = family(db, BATCHES);
        let states = family(db, STATES);
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
                    let bound = lowest_kept(db, *loglet, *offset, earlier)?;
                    let range = (format::batch_key(*loglet, LogletOffset::FIRST), format::batch_key(*loglet, bound));
                    batch.delete_range_cf(batches, range.0, range.1);
                    dropped.push(range);
                }
                Change::DropFrom { loglet, offset } => {
                    let range = (format::batch_key(*loglet, *offset), format::batch_key(*loglet, LogletOffset::MAX));
                    batch.delete_range_cf(batches, range.0, range.1);
                    self.reclaim.dropped(range);
                }
            }
        }
        database::write(db, batch)?;
        for (first, end) in dropped {
            // Gives whole files back at once; the range tombstone above would wait for a compaction. What it cannot
            // drop stays hidden behind that tombstone, so a failure costs space and nothing else.
            if let Err(error) = db.delete_file_in_range_cf(batches, first, end) {
                tracing::warn!(%error, "trimmed files could not be dropped");
            }
            self.reclaim.dropped((first, end));
        }
        Ok(())
    }
}

impl LogStore for RocksStore {
    async fn recover(&self) -> Result<Vec<Recovered>, StoreError> {
        let shared = Arc::clone(&self.shared);
        tokio::task::spawn_blocking(move || shared.recover()).await.unwrap_or_else(|_| Err(abandoned()))
    }

    async fn commit(&self, group: Group) -> Result<(), StoreError> {
        self.shared.commit(&group)
    }

    async fn read(
        &self,
        loglet: LogletId,
        from: LogletOffset,
        until: LogletOffset,
        max_bytes: usize,
    ) -> Result<Chunk, StoreError> {
        let permit = Arc::clone(&self.reads).acquire_owned().await.map_err(|_| abandoned())?;
        let shared = Arc::clone(&self.shared);
        let work = move || {
            let _permit = permit;
            shared.read(loglet, from, until, max_bytes)
        };
        tokio::task::spawn_blocking(work).await.unwrap_or_else(|_| Err(abandoned()))
    }

    fn space(&self) -> Option<&dyn Space> {
        Some(self)
    }
}

impl Space for RocksStore {
    fn marks(&self) -> Marks {
        self.shared.marks
    }

    fn look(&self) -> io::Result<Look> {
        self.shared.look()
    }

    fn move_ballast(&self, step: BallastStep) -> io::Result<()> {
        match step {
            BallastStep::GiveUp => self.shared.ballast.give_up(),
            BallastStep::Make => self.shared.ballast.make(),
        }
    }

    fn reclaim(&self) {
        let files = self.shared.with_open(|database| {
            let files = database.files();
            files.iter().for_each(|(_, keeper)| keeper.reclaim());
            Ok(files.is_some())
        });
        if files.unwrap_or(true) {
            return;
        }
        if self.shared.reclaim.begin() {
            let shared = Arc::clone(&self.shared);
            // Detached: dropping the store ends what it waits for.
            drop(tokio::task::spawn_blocking(move || {
                shared.reclaim.run(|ranges| {
                    let free_bytes = shared.look().map_or(0, |look| look.free_bytes);
                    shared.with(|database| Ok(reclaim(database, free_bytes, ranges))).unwrap_or(false)
                });
            }));
        }
    }
}

impl Drop for RocksStore {
    fn drop(&mut self) {
        // Whoever still reads or compacts keeps the lock of the database; this waits for them, so that the directory is
        // free when the store is gone.
        let cancelled = self.shared.with_open(|database| {
            // The index of files is small, and flushed once more.
            if database.files().is_none() {
                database.db().cancel_all_background_work(false);
            }
            Ok(())
        });
        drop(cancelled);
        *self.shared.database.write() = Database::Closed;
    }
}

impl Shared {
    /// Of the fuller one, if files with records are on a disk of their own.
    fn look(&self) -> io::Result<Look> {
        let mut free_bytes = u64::MAX;
        for disk in &self.disks {
            let found = rustix::fs::fstatvfs(disk)?;
            free_bytes = free_bytes.min(found.f_bavail.saturating_mul(found.f_frsize));
        }
        Ok(Look { free_bytes, ballast: self.ballast.is_there() })
    }
}

/// The directory of the store, and that of its files with records if there is one on another file system.
fn disks(directory: &Path) -> io::Result<Vec<File>> {
    let own = File::open(directory)?;
    let records = match File::open(directory.join(RECORDS)) {
        Ok(records) if records.metadata()?.dev() != own.metadata()?.dev() => Some(records),
        Ok(_) => None,
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    Ok([own].into_iter().chain(records).collect())
}

fn total_bytes(directory: &Path) -> io::Result<u64> {
    let found = rustix::fs::statvfs(directory)?;
    Ok(found.f_blocks.saturating_mul(found.f_frsize))
}

/// Bytes of the WAL files of a database.
fn wal_bytes(database: &Path) -> u64 {
    let entries = fs::read_dir(database).ok().into_iter().flatten().flatten();
    let files = entries.filter(|entry| entry.path().extension().is_some_and(|extension| extension == "log"));
    files.filter_map(|file| file.metadata().ok()).map(|about| about.len()).fold(0, u64::saturating_add)
}

/// The first offset of what must stay when everything below `offset` goes: a batch that reaches over it starts
/// lower.
fn lowest_kept<'a>(
    db: &DB,
    loglet: LogletId,
    offset: LogletOffset,
    earlier: impl Iterator<Item = &'a Change>,
) -> Result<LogletOffset, StoreError> {
    let Ok(after) = offset.advance(1) else {
        return Ok(offset);
    };
    let chunk = read(db, loglet, offset, after, 0)?;
    let stored = chunk.parts.first().map(Stored::first_offset);
    let staged = earlier.filter_map(|change| match change {
        Change::Append { loglet: of, batch } if *of == loglet && batch.end > offset => Some(batch.first_offset),
        Change::Append { .. } | Change::Put { .. } | Change::DropBelow { .. } | Change::DropFrom { .. } => None,
    });
    Ok(staged.chain(stored).fold(offset, LogletOffset::min))
}

fn family<'a>(db: &'a DB, name: &str) -> &'a ColumnFamily {
    db.cf_handle(name).expect("open creates both column families and nothing drops them")
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
        let state = format::decode_state(&key, &value).map_err(|cause| match cause {
            FormatError::Version { found } => StoreError::NewerFormat { found },
            cause => corrupt(cause),
        })?;
        recovered.push(Recovered { loglet, state });
    }
    Ok(recovered)
}
