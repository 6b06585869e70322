//! The thread that keeps files in order: checkpoints when a file is full or nobody needs one, and compaction of sparse ones.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use bifrost_journal::RealDirectory;

use super::index::RocksIndex;
use crate::store::StoreError;
use crate::store::files::FileStore;

/// A file goes when less than one of so many bytes in it is needed.
const SHARE: u64 = 4;
/// The same while the disk is short of space.
const SHARE_IN_NEED: u64 = 2;
/// Bytes that compaction reads and writes in a second.
const BYTES_PER_SECOND: u64 = 32 << 20;

pub(super) type Files = FileStore<RealDirectory, RocksIndex>;

/// Ends its thread when it is dropped, in the middle of a file if need be.
#[derive(Debug)]
pub(super) struct Keeper {
    /// `None` while it is dropped.
    wanted: Option<SyncSender<()>>,
    share: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    /// Begins with what a crash left to be done.
    pub(super) fn start(files: Arc<Files>) -> io::Result<Self> {
        let in_order = files.is_in_order(SHARE);
        let (wanted, wants) = sync_channel::<()>(1);
        let share = Arc::new(AtomicU64::new(SHARE));
        let asked = Arc::clone(&share);
        let thread = thread::Builder::new().name("files".to_owned()).spawn(move || {
            while wants.recv().is_ok() {
                let mut stopped = false;
                let mut pause = |bytes: u64| {
                    let time = Duration::from_micros(bytes.saturating_mul(1_000_000) / BYTES_PER_SECOND);
                    // Somebody who wants something meanwhile gets it at the end of this round.
                    if !stopped && matches!(wants.recv_timeout(time), Err(RecvTimeoutError::Disconnected)) {
                        stopped = true;
                    }
                    !stopped
                };
                let share = asked.swap(SHARE, Ordering::AcqRel);
                tell(files.keep(share, &mut pause));
            }
            // So that the next life has nothing to read.
            tell(files.checkpoint());
        })?;
        let keeper = Self { wanted: Some(wanted), share, thread: Some(thread) };
        if !in_order {
            keeper.wake();
        }
        Ok(keeper)
    }

    /// There is something to do.
    pub(super) fn wake(&self) {
        let _busy = self.wanted.as_ref().map(|wanted| wanted.try_send(()));
    }

    /// The disk is short of space.
    pub(super) fn reclaim(&self) {
        self.share.store(SHARE_IN_NEED, Ordering::Release);
        self.wake();
    }
}

fn tell(ended: Result<(), StoreError>) {
    match ended {
        Ok(()) => {}
        Err(StoreError::Full) => tracing::debug!("there is no room to keep files in order"),
        Err(error) => tracing::error!(%error, "files cannot be kept in order"),
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        drop(self.wanted.take());
        if let Some(thread) = self.thread.take() {
            let _ended = thread.join();
        }
    }
}
