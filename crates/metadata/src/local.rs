//! A store on the disk of one process: RocksDB below, the keyspace in memory above it.
//!
//! ```text
//!  txn ─► bounded queue ─► writer thread: stage all that waits ─► ONE WriteBatch, one fsync ─► visible ─► answers
//!  get, list, watch ─────────────────────► keyspace, under a lock (durable state only)
//! ```
//!
//! Nothing is visible before it is durable, so a reader never sees what a crash can take back. An error of the disk
//! stops the store for good: after a failed fsync nobody knows what is on the disk, and trying again would only hide
//! it. Opening it again reads what is really there.
//!
//! A full file system is another matter. A group for which there is no room is refused before it is tried: it is
//! `Unavailable`, and reads go on. If the file system runs full under a write, that group is `Unknown` and nothing is
//! answered any more, until there is room to open the database anew and read what is there. Neither needs a restart.

mod disk;
mod writer;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use bifrost_wire::metadata::{MetadataError, MetadataStore, Page, Revision, Txn, TxnOutcome, Versioned, WatchStream};
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use thiserror::Error;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

pub use crate::format::FormatError;
use crate::keyspace::{Keyspace, RestoreError, TXN_BYTES_MAX, txn_bytes, validate};
use crate::live::Live;
use disk::Disk;
use writer::{Persist, Request, Writer};

/// Transactions that wait in front of the writer thread; one more is refused as [`MetadataError::Unavailable`].
const QUEUE: usize = 4096;
/// Bytes of keys and values that wait in front of the writer thread.
const QUEUE_BYTES: u32 = 64 << 20;

const _: () = assert!(TXN_BYTES_MAX < QUEUE_BYTES as usize, "an empty queue takes the largest transaction");

/// A handle to one store on disk; clones share it. The store closes when the last handle is gone, in the background;
/// [`shutdown`](Self::shutdown) tells when.
#[derive(Debug, Clone)]
pub struct LocalMetadata {
    shared: Arc<Shared>,
}

/// Why a store cannot be opened. Nothing on the disk was changed, except that a new directory may have been begun.
#[derive(Debug, Error)]
pub enum OpenError {
    /// Another process, or another handle of this one, has it open. Close that one first.
    #[error("the metadata directory {} is in use by another process; stop that one, or choose another directory", dir.display())]
    InUse {
        /// The directory.
        dir: PathBuf,
    },
    /// There is a file where the directory should be.
    #[error("{} is a file, and a directory for metadata is wanted; choose another path, or move the file away", dir.display())]
    NotADirectory {
        /// The path.
        dir: PathBuf,
    },
    /// There are files, and they are not those of a metadata store.
    #[error(
        "{} holds {}, which is no part of a metadata store; choose an empty directory, or that of this cluster",
        dir.display(), entry.display()
    )]
    Foreign {
        /// The directory.
        dir: PathBuf,
        /// One of the entries in it.
        entry: PathBuf,
    },
    /// Its user may not write there, or the file system is read-only.
    #[error("the metadata directory {} cannot be written; give this user the right to, or choose another directory", dir.display())]
    Unwritable {
        /// The directory.
        dir: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The file system is too full to open what is there.
    #[error("the file system of {} is full; free some space there and start again", dir.display())]
    Full {
        /// The directory.
        dir: PathBuf,
    },
    /// Written by a newer build.
    #[error(
        "the metadata directory {} has format {found}, which this build does not know; start it with the build that \
         wrote it",
        dir.display()
    )]
    NewerFormat {
        /// The directory.
        dir: PathBuf,
        /// Its format.
        found: u8,
    },
    /// The directory cannot be made, or no thread can be started.
    #[error("the metadata directory {} cannot be prepared; check the path and its owner", dir.display())]
    Io {
        /// The directory.
        dir: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// RocksDB does not open or read it, for example because its log is damaged in the middle.
    #[error("the metadata directory {} cannot be read; keep it for a look, and restore it from a copy", dir.display())]
    Storage {
        /// The directory.
        dir: PathBuf,
        /// What RocksDB said.
        #[source]
        source: rocksdb::Error,
    },
    /// What is stored is damaged, or not ours.
    #[error("the metadata directory {} holds a bad value; keep it for a look, and restore it from a copy", dir.display())]
    Format {
        /// The directory.
        dir: PathBuf,
        /// Which, and how.
        #[source]
        source: FormatError,
    },
    /// Every value is readable, but together they are no keyspace.
    #[error("the metadata directory {} contradicts itself; keep it for a look, and restore it from a copy", dir.display())]
    Contradiction {
        /// The directory.
        dir: PathBuf,
        /// How.
        #[source]
        source: RestoreError,
    },
}

#[derive(Debug)]
struct Shared {
    state: Arc<State>,
    /// `None` once the store takes no more transactions.
    requests: Mutex<Option<mpsc::Sender<Request>>>,
    queue_bytes: Arc<Semaphore>,
}

/// What handles and the writer thread share.
#[derive(Debug)]
struct State {
    /// Durable state, or `None` once the store stopped.
    live: Mutex<Option<Live>>,
    /// Cancelled when the writer thread has let go of the disk.
    ended: CancellationToken,
}

impl LocalMetadata {
    /// Opens the store in `dir`, made if it does not exist. Watches can start at the revision found there; older
    /// history is gone.
    ///
    /// # Errors
    /// [`OpenError`]; the store refuses to guess.
    ///
    /// # Cancel safety
    /// Safe. A store that was being opened is closed again, in the background.
    pub async fn open(dir: impl Into<PathBuf>) -> Result<Self, OpenError> {
        let dir = dir.into();
        let opening = dir.clone();
        Self::start(dir, move || Disk::open(opening)).await
    }

    /// Runs a writer thread that opens the disk, then owns it until the store stops.
    async fn start<P: Persist + 'static>(
        dir: PathBuf,
        open: impl FnOnce() -> Result<(P, Keyspace), OpenError> + Send + 'static,
    ) -> Result<Self, OpenError> {
        let (requests, queue) = mpsc::channel(QUEUE);
        let (opened, opening) = oneshot::channel();
        let state = Arc::new(State { live: Mutex::new(None), ended: CancellationToken::new() });
        let run = {
            let state = Arc::clone(&state);
            move || {
                let _ended = state.ended.clone().drop_guard();
                let (disk, keyspace) = match open() {
                    Ok(opened) => opened,
                    Err(error) => {
                        // Nobody to tell means that nobody waits for the store any more.
                        let _ = opened.send(Err(error));
                        return;
                    }
                };
                *state.live.lock() = Some(Live::new(keyspace));
                if opened.send(Ok(())).is_ok() {
                    Writer { disk, state: &state, queue, refusing: false }.run();
                }
            }
        };
        let named = std::thread::Builder::new().name("bifrost-metadata".to_owned());
        named.spawn(run).map_err(|source| OpenError::Io { dir: dir.clone(), source })?;
        match opening.await {
            Ok(opened) => opened?,
            Err(_) => return Err(OpenError::Io { dir, source: io::ErrorKind::BrokenPipe.into() }),
        }
        let queue_bytes = Arc::new(Semaphore::new(QUEUE_BYTES as usize));
        Ok(Self { shared: Arc::new(Shared { state, requests: Mutex::new(Some(requests)), queue_bytes }) })
    }

    /// Stops taking transactions, finishes those that wait, and returns after the directory is free to be opened
    /// again. Every later call on any handle answers [`MetadataError::Unavailable`]; watches end. Repeating is success.
    ///
    /// # Cancel safety
    /// Safe. Once polled, the store stops, whether or not anybody waits for it.
    pub async fn shutdown(&self) {
        drop(self.shared.requests.lock().take());
        self.shared.state.ended.cancelled().await;
    }

    fn with_live<T>(&self, read: impl FnOnce(&mut Live) -> Result<T, MetadataError>) -> Result<T, MetadataError> {
        self.shared.state.live.lock().as_mut().map_or(Err(MetadataError::Unavailable), read)
    }

    /// Queues a transaction; full is an answer, not a wait.
    fn enqueue(&self, txn: Txn) -> Result<oneshot::Receiver<Result<TxnOutcome, MetadataError>>, MetadataError> {
        validate(&txn)?;
        let bytes = u32::try_from(txn_bytes(&txn)).map_err(|_| MetadataError::TooLarge)?;
        let room = Arc::clone(&self.shared.queue_bytes)
            .try_acquire_many_owned(bytes)
            .map_err(|_| MetadataError::Unavailable)?;
        let (reply, answer) = oneshot::channel();
        let requests = self.shared.requests.lock();
        let queue = requests.as_ref().ok_or(MetadataError::Unavailable)?;
        queue.try_send(Request { txn, reply, _room: room }).map_err(|_| MetadataError::Unavailable)?;
        Ok(answer)
    }
}

impl MetadataStore for LocalMetadata {
    fn get(&self, key: String) -> BoxFuture<'_, Result<Option<Versioned>, MetadataError>> {
        Box::pin(async move { self.with_live(|live| live.get(&key)) })
    }

    fn list(&self, prefix: String, after: Option<String>, limit: usize) -> BoxFuture<'_, Result<Page, MetadataError>> {
        Box::pin(async move { self.with_live(|live| live.list(&prefix, after.as_deref(), limit)) })
    }

    fn txn(&self, txn: Txn) -> BoxFuture<'_, Result<TxnOutcome, MetadataError>> {
        Box::pin(async move {
            // A writer thread that ends without answering leaves the outcome open (M2).
            self.enqueue(txn)?.await.unwrap_or(Err(MetadataError::Unknown))
        })
    }

    fn watch(&self, prefix: String, after: Revision) -> BoxFuture<'_, Result<WatchStream, MetadataError>> {
        Box::pin(async move { self.with_live(|live| live.watch(prefix, after)) })
    }
}

#[cfg(test)]
mod tests;
