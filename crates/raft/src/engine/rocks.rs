//! RocksDB behind a journal as the disk of a member: its own directory, one key space, one writer thread.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use bifrost_journal::JournalOptions;
use bifrost_journal::rocks::{DbOpenError, JournaledDb, WriteError};
use bifrost_metadata::rocks::{is_locked, options};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use rocksdb::{Direction, IteratorMode, ReadOptions, WriteBatch};
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};

use super::{Batch, Durability, EngineError, LogEngine, Op, Record};
use crate::member::short_turns;

/// RocksDB's own buffer: entries come and go, and the keyspace is in memory anyway.
const WRITE_BUFFER_BYTES: usize = 16 << 20;
/// Of a file of the journal: some hundred changes of metadata, and little enough for a node that holds nothing else.
const JOURNAL_FILE_BYTES: u64 = 4 << 20;
/// Batches that wait for the writer thread. The log store writes one at a time, a snapshot is built beside it.
const QUEUE: usize = 16;

/// An open database. Dropping it finishes what waits for the writer thread and closes the database: afterwards the
/// directory is free.
pub struct RocksEngine {
    db: Arc<JournaledDb>,
    /// `None` while it is dropped.
    requests: Option<mpsc::Sender<Request>>,
    writer: Option<JoinHandle<()>>,
}

struct Request {
    batch: Batch,
    reply: oneshot::Sender<Result<(), EngineError>>,
}

/// Why a directory cannot be opened.
#[derive(Debug, Error)]
pub enum RocksOpenError {
    /// Another process, or another handle of this one, has it open.
    #[error("the directory {} of the replicated metadata is in use; stop who uses it, or choose another one", dir.display())]
    InUse {
        /// The directory.
        dir: PathBuf,
    },
    /// There are files, and they are not those of a database.
    #[error("{} holds {}, which is no part of a metadata member's log; choose another directory", dir.display(), entry.display())]
    Foreign {
        /// The directory.
        dir: PathBuf,
        /// One of the entries in it.
        entry: PathBuf,
    },
    /// There is no database, and one is expected.
    #[error("{} holds no log of a metadata member", dir.display())]
    Missing {
        /// The directory.
        dir: PathBuf,
    },
    /// It does not open: it or its journal is damaged, or the path cannot be used.
    #[error("the directory {} of the replicated metadata cannot be opened", dir.display())]
    Storage {
        /// The directory.
        dir: PathBuf,
        /// What is wrong.
        #[source]
        source: DbOpenError,
    },
    /// No thread can be started.
    #[error("the writer thread for {} cannot be started", dir.display())]
    Thread {
        /// The directory.
        dir: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl RocksOpenError {
    /// Whether what is stored is not what was stored.
    pub(crate) fn is_damage(&self) -> bool {
        match self {
            Self::Storage { source, .. } => source.is_damage(),
            Self::InUse { .. } | Self::Foreign { .. } | Self::Missing { .. } | Self::Thread { .. } => false,
        }
    }
}

impl RocksEngine {
    /// Opens the database in `dir`, which must be there.
    ///
    /// # Errors
    /// [`RocksOpenError`]; nothing was changed.
    pub fn open_existing(dir: &Path) -> Result<Self, RocksOpenError> {
        if !dir.join(CURRENT).exists() {
            return Err(RocksOpenError::Missing { dir: dir.to_owned() });
        }
        Self::open(dir)
    }

    /// Opens the database in `dir`, made if there is none.
    ///
    /// # Errors
    /// [`RocksOpenError`].
    pub fn open(dir: &Path) -> Result<Self, RocksOpenError> {
        refuse_foreign(dir)?;
        let journal = JournalOptions { file_bytes: JOURNAL_FILE_BYTES, ..JournalOptions::default() };
        #[expect(clippy::disallowed_methods, reason = "what a file held before must not be taken for something new")]
        let salts = Box::new(rand::random::<u64>);
        let opened = JournaledDb::open(&options(WRITE_BUFFER_BYTES), dir, Vec::new(), journal, salts);
        let db = Arc::new(opened.map_err(|source| match &source {
            DbOpenError::Database(error) if is_locked(error) => RocksOpenError::InUse { dir: dir.to_owned() },
            _ => RocksOpenError::Storage { dir: dir.to_owned(), source },
        })?);
        let (requests, queue) = mpsc::channel(QUEUE);
        let served = Arc::clone(&db);
        let named = std::thread::Builder::new().name("bifrost-raft-disk".to_owned());
        let writer = named
            .spawn(move || {
                short_turns();
                serve(&served, queue);
            })
            .map_err(|source| RocksOpenError::Thread { dir: dir.to_owned(), source })?;
        Ok(Self { db, requests: Some(requests), writer: Some(writer) })
    }
}

/// What RocksDB has from its first moment on.
const CURRENT: &str = "CURRENT";
/// What an opening that was interrupted leaves before that.
const BEGUN: [&str; 5] = ["LOCK", "LOG", "IDENTITY", "MANIFEST-", "OPTIONS-"];

/// RocksDB would make a database among whatever is there.
fn refuse_foreign(dir: &Path) -> Result<(), RocksOpenError> {
    if dir.join(CURRENT).exists() {
        return Ok(());
    }
    // A directory that cannot be read is told of by RocksDB.
    let Ok(entries) = std::fs::read_dir(dir) else { return Ok(()) };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let log =
            Path::new(name.as_ref()).extension().is_some_and(|extension| extension == "log" || extension == "dbtmp");
        if !log && !BEGUN.iter().any(|begun| name.starts_with(begun)) {
            return Err(RocksOpenError::Foreign { dir: dir.to_owned(), entry: entry.path() });
        }
    }
    Ok(())
}

impl Drop for RocksEngine {
    fn drop(&mut self) {
        drop(self.requests.take());
        if let Some(writer) = self.writer.take() {
            // It ends by itself, and a panic of it was told to whoever waited for a write.
            let _ended = writer.join();
        }
    }
}

impl fmt::Debug for RocksEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RocksEngine").field("dir", &self.db.db().path()).finish_non_exhaustive()
    }
}

impl LogEngine for RocksEngine {
    fn write(&self, batch: Batch) -> BoxFuture<'_, Result<(), EngineError>> {
        Box::pin(async move {
            let (reply, done) = oneshot::channel();
            let requests = self.requests.as_ref().ok_or(EngineError::Closed)?;
            requests.send(Request { batch, reply }).await.map_err(|_| EngineError::Closed)?;
            done.await.unwrap_or(Err(EngineError::Closed))
        })
    }

    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        Ok(self.db.db().get(key).map_err(failed)?.map(Bytes::from))
    }

    fn range(&self, start: &[u8], end: &[u8], bytes_max: usize) -> Result<Vec<Record>, EngineError> {
        let mut records = Vec::new();
        if start >= end {
            return Ok(records);
        }
        let mut bounds = ReadOptions::default();
        bounds.set_iterate_upper_bound(end);
        let mut bytes = 0_usize;
        for item in self.db.db().iterator_opt(IteratorMode::From(start, Direction::Forward), bounds) {
            let (key, value) = item.map_err(failed)?;
            bytes = bytes.saturating_add(value.len());
            records.push((Bytes::from(key), Bytes::from(value)));
            if bytes >= bytes_max {
                break;
            }
        }
        Ok(records)
    }
}

/// Writes in the order of arrival until every handle is gone. The first error ends it: what a failed sync left on the
/// disk is unknown, and a second one's success would say nothing about it.
fn serve(db: &JournaledDb, mut queue: mpsc::Receiver<Request>) {
    while let Some(Request { batch, reply }) = queue.blocking_recv() {
        let mut writes = WriteBatch::default();
        for op in batch.ops() {
            match op {
                Op::Put { key, value } => writes.put(key, value),
                Op::Delete { key } => writes.delete(key),
                Op::DeleteRange { start, end } => writes.delete_range(start, end),
            }
        }
        let written = match batch.durability() {
            Durability::Synced => db.write(writes),
            Durability::Lazy => db.write_lazily(writes),
        };
        let written = written.map_err(|error| match error {
            WriteError::Database(error) => failed(error),
            error => EngineError::Io(io::Error::other(error)),
        });
        let stops = written.is_err();
        // A caller that is gone does not take its write back.
        let _gone = reply.send(written);
        if stops {
            break;
        }
    }
}

fn failed(error: rocksdb::Error) -> EngineError {
    EngineError::Io(io::Error::other(error))
}
