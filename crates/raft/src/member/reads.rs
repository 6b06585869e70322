//! Linearizable reads (M1): a leader asks a majority whether it still leads, once for all reads that wait.

use std::time::Duration;

use bifrost_metadata::MetadataError;
use openraft::Raft;
use openraft::error::{CheckIsLeaderError, RaftError};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::status::Status;
use crate::types::Types;

/// Reads that wait for a round; one more is refused.
pub(super) const READS_MAX: usize = 4096;

/// Somebody who waits until what is applied here is as new as its call.
pub(super) type Waiter = oneshot::Sender<Result<(), MetadataError>>;

/// Makes rounds for those who wait.
pub(super) struct Reads {
    pub(super) raft: Raft<Types>,
    pub(super) queue: mpsc::Receiver<Waiter>,
    pub(super) status: watch::Receiver<Status>,
    /// Between two rounds of which the first had no answer.
    pub(super) pause: Duration,
    /// For one round and what has to be applied for it.
    pub(super) deadline: Duration,
    pub(super) stop: CancellationToken,
}

impl Reads {
    /// Serves until the member stops. Who waits then is told by the end of its channel.
    pub(super) async fn run(mut self) {
        let stop = self.stop.clone();
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = self.serve() => {}
        }
    }

    async fn serve(&mut self) {
        let mut waiting = Vec::new();
        while self.queue.recv_many(&mut waiting, READS_MAX).await > 0 {
            while !waiting.is_empty() {
                // Begun after all of them arrived: what was acknowledged before they asked is committed by now.
                let round = timeout(self.deadline, self.raft.ensure_linearizable()).await;
                let answer = match round {
                    Ok(Ok(_)) => Ok(()),
                    // Lost messages: a majority may answer the next round.
                    Ok(Err(RaftError::APIError(CheckIsLeaderError::QuorumNotEnough(_))))
                        if self.status.borrow().serves() =>
                    {
                        sleep(self.pause).await;
                        waiting.retain(|waiter| !waiter.is_closed());
                        let room = READS_MAX.saturating_sub(waiting.len());
                        waiting.extend(std::iter::from_fn(|| self.queue.try_recv().ok()).take(room));
                        continue;
                    }
                    Ok(Err(_)) | Err(_) => Err(MetadataError::Unavailable),
                };
                for waiter in waiting.drain(..) {
                    let _gone = waiter.send(answer);
                }
            }
        }
    }
}
