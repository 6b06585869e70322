//! The writer thread: turns everything that waits into one write and one fsync, in the order of arrival.

use bifrost_wire::metadata::{Changes, MetadataError, Txn, TxnOutcome};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use super::State;
use crate::keyspace::{Staged, TXN_BYTES_MAX, txn_bytes};

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
    fn persist(&mut self, commits: &[Changes]) -> Result<(), Self::Error>;
}

/// The only one that changes the keyspace; hence what it staged stays valid while it waits for the disk without a lock.
#[derive(Debug)]
pub(super) struct Writer<'a, P> {
    pub(super) disk: P,
    pub(super) state: &'a State,
    pub(super) queue: mpsc::Receiver<Request>,
}

impl<P: Persist> Writer<'_, P> {
    /// Serves until every sender is gone and the queue is empty, or the disk fails. Lets go of the disk last.
    pub(super) fn run(mut self) {
        while let Some(first) = self.queue.blocking_recv() {
            let group = self.gather(first);
            if let Err(error) = self.write(group) {
                let cause: &dyn std::error::Error = &error;
                tracing::error!(error = cause, "the metadata store stops: its disk failed");
                break;
            }
        }
        // From here on no handle sees state that nobody can change any more, and watchers learn that it is over.
        *self.state.live.lock() = None;
        self.queue.close();
        while let Ok(request) = self.queue.try_recv() {
            let _ = request.reply.send(Err(MetadataError::Unavailable));
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
    fn write(&mut self, group: Vec<Request>) -> Result<(), P::Error> {
        let mut staged = Staged::default();
        let outcomes: Vec<TxnOutcome> = {
            let mut live = self.state.live.lock();
            let Some(live) = live.as_mut() else { return Ok(()) };
            group.iter().map(|request| live.stage(&mut staged, &request.txn)).collect()
        };
        if !staged.commits().is_empty()
            && let Err(error) = self.disk.persist(staged.commits())
        {
            // Whether the group is on the disk is unknown, so nobody may read as if it were not.
            *self.state.live.lock() = None;
            for request in group {
                let _ = request.reply.send(Err(MetadataError::Unknown));
            }
            return Err(error);
        }
        if let Some(live) = self.state.live.lock().as_mut() {
            live.commit(staged);
        }
        for (request, outcome) in group.into_iter().zip(outcomes) {
            // A caller that is gone treats its transaction as unknown.
            let _ = request.reply.send(Ok(outcome));
        }
        Ok(())
    }
}
