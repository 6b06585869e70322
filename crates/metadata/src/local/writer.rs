//! The writer thread: turns everything that waits into one write and one fsync, in the order of arrival.

use std::time::Duration;

use bifrost_wire::metadata::{Changes, MetadataError, Txn, TxnOutcome};
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use super::State;
use crate::keyspace::{Keyspace, Staged, TXN_BYTES_MAX, txn_bytes};
use crate::live::Live;

/// Transactions of one group at most.
const GROUP: usize = 1024;
/// A group stops growing at this many bytes of keys and values, the last transaction not counted.
const GROUP_BYTES: usize = TXN_BYTES_MAX;

/// A transaction that waits.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) txn: Txn,
    pub(super) reply: oneshot::Sender<Result<TxnOutcome, MetadataError>>,
    /// Its share of the bytes that may wait; given back when the request is dropped.
    pub(super) _room: OwnedSemaphorePermit,
}

/// Where commits become durable.
pub(super) trait Persist {
    type Error: std::error::Error + 'static;

    /// Writes consecutive revisions, all or none of them, and returns once they are on stable storage.
    fn persist(&mut self, commits: &[Changes]) -> Result<(), PersistError<Self::Error>>;

    /// After [`PersistError::RanFull`]: what is really there, or `None` while there is no room to look.
    fn revive(&mut self) -> Result<Option<Keyspace>, Self::Error>;
}

/// Why commits did not become durable.
#[derive(Debug)]
pub(super) enum PersistError<E> {
    /// There is no room for them; nothing was tried.
    NoRoom,
    /// There was no room in the middle of it; they may be there or not.
    RanFull,
    /// The disk failed. It must not be used any more.
    Failed(E),
}

/// Between two looks whether there is room again.
const REVIVE_PAUSE: Duration = Duration::from_millis(100);

/// The only one that changes the keyspace; hence what it staged stays valid while it waits for the disk without a lock.
#[derive(Debug)]
pub(super) struct Writer<'a, P> {
    pub(super) disk: P,
    pub(super) state: &'a State,
    pub(super) queue: mpsc::Receiver<Request>,
    /// Whether the last group was refused for want of room: that is logged once.
    pub(super) refusing: bool,
}

/// Whether the store goes on.
enum Next {
    GoOn,
    /// It must be read anew before anything else.
    Revive,
}

impl<P: Persist> Writer<'_, P> {
    /// Serves until every sender is gone and the queue is empty, or the disk fails. Lets go of the disk last.
    pub(super) fn run(mut self) {
        if let Err(error) = self.serve() {
            let cause: &dyn std::error::Error = &error;
            tracing::error!(error = cause, "the metadata store stops: its disk failed");
        }
        // From here on no handle sees state that nobody can change any more, and watchers learn that it is over.
        *self.state.live.lock() = None;
        self.queue.close();
        while let Ok(request) = self.queue.try_recv() {
            let _ = request.reply.send(Err(MetadataError::Unavailable));
        }
    }

    fn serve(&mut self) -> Result<(), P::Error> {
        while let Some(first) = self.queue.blocking_recv() {
            let group = self.gather(first);
            match self.write(group)? {
                Next::GoOn => {}
                Next::Revive if self.revive()? => {}
                Next::Revive => break,
            }
        }
        Ok(())
    }

    /// Waits for room, then shows what is really there; `false` when every sender is gone. Whoever asks meanwhile is told
    /// that the store cannot serve.
    fn revive(&mut self) -> Result<bool, P::Error> {
        tracing::error!("the file system is full, the metadata store waits for room");
        loop {
            if let Some(keyspace) = self.disk.revive()? {
                *self.state.live.lock() = Some(Live::new(keyspace));
                tracing::info!("there is room again, the metadata store goes on");
                return Ok(true);
            }
            loop {
                match self.queue.try_recv() {
                    Ok(request) => drop(request.reply.send(Err(MetadataError::Unavailable))),
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => return Ok(false),
                }
            }
            std::thread::park_timeout(REVIVE_PAUSE);
        }
    }

    fn gather(&mut self, first: Request) -> Vec<Request> {
        let mut bytes = txn_bytes(&first.txn);
        let mut group = vec![first];
        while group.len() < GROUP
            && bytes < GROUP_BYTES
            && let Ok(request) = self.queue.try_recv()
        {
            bytes += txn_bytes(&request.txn);
            group.push(request);
        }
        group
    }

    /// Decides the group in order, makes it durable, then visible, then answers. Also a conflict is answered only
    /// then: it may tell values of the same group.
    fn write(&mut self, group: Vec<Request>) -> Result<Next, P::Error> {
        let mut staged = Staged::default();
        let outcomes: Vec<TxnOutcome> = {
            let mut live = self.state.live.lock();
            let Some(live) = live.as_mut() else { return Ok(Next::GoOn) };
            group.iter().map(|request| live.stage(&mut staged, &request.txn)).collect()
        };
        let persisted = if staged.commits().is_empty() { Ok(()) } else { self.disk.persist(staged.commits()) };
        let refusing = matches!(persisted, Err(PersistError::NoRoom));
        if refusing && !self.refusing {
            tracing::warn!("the file system is full, metadata transactions are refused");
        }
        self.refusing = refusing;
        match persisted {
            Ok(()) => {}
            Err(PersistError::NoRoom) => {
                answer(group, MetadataError::Unavailable);
                return Ok(Next::GoOn);
            }
            Err(error) => {
                // Whether the group is on the disk is unknown, so nobody may read as if it were not.
                *self.state.live.lock() = None;
                answer(group, MetadataError::Unknown);
                return match error {
                    PersistError::Failed(error) => Err(error),
                    PersistError::NoRoom | PersistError::RanFull => Ok(Next::Revive),
                };
            }
        }
        if let Some(live) = self.state.live.lock().as_mut() {
            live.commit(staged);
        }
        for (request, outcome) in group.into_iter().zip(outcomes) {
            // A caller that is gone treats its transaction as unknown.
            let _ = request.reply.send(Ok(outcome));
        }
        Ok(Next::GoOn)
    }
}

fn answer(group: Vec<Request>, error: MetadataError) {
    for request in group {
        let _gone = request.reply.send(Err(error));
    }
}
