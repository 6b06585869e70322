//! One store stream: checks what a sequencer node sends and queues it, in order.
//!
//! Everything about a request that needs no copy is checked here, so that many cores share that work and the writer has
//! little to do per batch.

use std::sync::Arc;

use bifrost_types::{DiskId, LogletOffset};
use bifrost_wire::batch::Batch;
use bifrost_wire::log_server::{CopyError, StoreRequest};
use bytes::Bytes;
use tokio::sync::{Semaphore, mpsc};

use crate::copy::StoreFacts;
use crate::store::PlacedBatch;
use crate::writer::{Peer, StoreCommand};

/// Refuses a request that names another disk (W2): a disk that the nodeset does not name has no vote, whatever it holds.
pub(crate) fn check_disk(named: DiskId, actual: DiskId) -> Result<(), CopyError> {
    if named == actual { Ok(()) } else { Err(CopyError::WrongDisk { actual }) }
}

/// Turns encoded batches into placed ones: structure, completeness and every record's checksum are checked (R2). The checksum
/// that goes to the disk with a batch is made here, next to that and on the same core: the writer does not look at payloads.
pub(crate) fn place(first_offset: LogletOffset, batches: Vec<Bytes>) -> Result<Vec<PlacedBatch>, CopyError> {
    let mut at = first_offset;
    let mut placed = Vec::with_capacity(batches.len());
    for bytes in batches {
        let bad = CopyError::BadBatch { offset: at };
        let batch = Batch::decode(bytes).map_err(|_| bad)?;
        if !batch.is_complete() || batch.verify().is_err() {
            return Err(bad);
        }
        let end = at.advance(u64::from(batch.header().records.get())).map_err(|_| CopyError::OutOfRange)?;
        placed.push(PlacedBatch::new(at, end, batch.into_bytes()));
        at = end;
    }
    Ok(placed)
}

/// Bytes that a request takes in a queue of `queue_bytes`; one larger than the queue takes all of it.
pub(crate) fn room_for(batches: &[Bytes], queue_bytes: usize) -> u32 {
    let bytes = batches.iter().fold(0, |sum: usize, batch| sum.saturating_add(batch.len()));
    u32::try_from(bytes.min(queue_bytes)).unwrap_or(u32::MAX)
}

/// The receiving half of a store stream.
pub(crate) struct StreamTask {
    pub(crate) disk: DiskId,
    pub(crate) room: Arc<Semaphore>,
    pub(crate) queue_bytes: usize,
    pub(crate) stores: mpsc::Sender<StoreCommand>,
    pub(crate) peer: Arc<Peer>,
}

impl StreamTask {
    /// Runs until the peer closes the stream, stops taking replies, or the server stops.
    pub(crate) async fn run(self, mut requests: mpsc::Receiver<StoreRequest>) {
        let gone = self.peer.gone.clone();
        let pass = async {
            while let Some(request) = requests.recv().await {
                if self.pass(request).await.is_none() {
                    return;
                }
            }
        };
        tokio::select! {
            biased;
            () = gone.cancelled() => {}
            // A peer that dropped its replies is gone, even if it never sends again.
            () = self.peer.replies.closed() => gone.cancel(),
            () = pass => {}
        }
    }

    /// Queues one request, or `None` once the writer is gone. Waiting for room is what slows a fast sender down.
    async fn pass(&self, request: StoreRequest) -> Option<()> {
        let StoreRequest { loglet, disk, sequencer, committed_tail, first_offset, batches } = request;
        let bytes = room_for(&batches, self.queue_bytes);
        let room = Arc::clone(&self.room).acquire_many_owned(bytes).await.ok()?;
        // A refusal passes through the queue as well, so that answers keep the order of the requests.
        let batches = check_disk(disk, self.disk).and_then(|()| place(first_offset, batches));
        let facts = StoreFacts { sequencer, committed_tail };
        let command = StoreCommand { peer: Arc::clone(&self.peer), loglet, facts, batches, room };
        self.stores.send(command).await.ok()
    }
}
