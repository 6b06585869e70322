//! How an append gets to the core: decoded and verified in the stream's own task, then let in when there is room in the
//! loglet's window. That wait is the back-pressure: it holds the stream, then the network, then the appender.

use std::sync::Arc;

use bifrost_types::WriterId;
use bifrost_types::limits::{WINDOW_BATCHES, WINDOW_BYTES};
use bifrost_wire::batch::Batch;
use bifrost_wire::sequencer::{AppendRequest, SequencerError};
use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::core::StreamId;
use crate::driver::Input;

/// Append requests of one stream that wait for its task.
pub(crate) const STREAM_REQUESTS: usize = 64;

/// The room in one loglet's window.
#[derive(Debug, Clone)]
pub(crate) struct Admission {
    bytes: Arc<Semaphore>,
    batches: Arc<Semaphore>,
}

/// Room of one batch; dropping it gives it back.
#[derive(Debug)]
pub struct Room {
    _bytes: OwnedSemaphorePermit,
    _batch: OwnedSemaphorePermit,
}

impl Admission {
    pub(crate) fn new() -> Self {
        Self { bytes: Arc::new(Semaphore::new(WINDOW_BYTES)), batches: Arc::new(Semaphore::new(WINDOW_BATCHES)) }
    }

    /// Waits for room, in the order of the calls; `None` once the loglet takes no more appends.
    async fn reserve(&self, bytes: usize) -> Option<Room> {
        let bytes = u32::try_from(bytes.min(WINDOW_BYTES)).expect("the window is below 4 GiB");
        let batch = self.batches.clone().acquire_owned().await.ok()?;
        let bytes = self.bytes.clone().acquire_many_owned(bytes).await.ok()?;
        Some(Room { _bytes: bytes, _batch: batch })
    }

    /// Ends every wait: the loglet takes no more appends.
    pub(crate) fn close(&self) {
        self.bytes.close();
        self.batches.close();
    }
}

/// Runs one append stream until its requests end, its loglet ends, or it sends what is no batch of its writer.
pub(crate) async fn run_stream(
    stream: StreamId,
    writer: WriterId,
    admission: Admission,
    mut requests: mpsc::Receiver<AppendRequest>,
    inputs: mpsc::Sender<Input>,
) {
    'requests: while let Some(AppendRequest { batches }) = requests.recv().await {
        for batch in batches {
            let Some((records, batch)) = verify(writer, batch) else {
                let error = SequencerError::BadBatch;
                let _ended = inputs.send(Input::CloseStream { stream, error }).await;
                break 'requests;
            };
            let Some(room) = admission.reserve(batch.len()).await else { break 'requests };
            if inputs.send(Input::Append { stream, records, batch, room }).await.is_err() {
                break 'requests;
            }
        }
    }
    let _ended = inputs.send(Input::StreamEnded { stream }).await;
}

/// The batch's number of records, if it is a complete and undamaged batch of this writer.
fn verify(writer: WriterId, bytes: Bytes) -> Option<(u32, Bytes)> {
    let batch = Batch::decode(bytes).ok()?;
    let header = batch.header();
    let valid = header.writer == writer && batch.is_complete() && batch.verify().is_ok();
    valid.then(|| (header.records.get(), batch.into_bytes()))
}
