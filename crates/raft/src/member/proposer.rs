//! Transactions on their way into the log: what waits shares an entry, and some entries are in flight.

use std::sync::Arc;

use bifrost_metadata::keyspace::txn_bytes;
use bifrost_metadata::{MetadataError, Txn, TxnOutcome};
use openraft::Raft;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::status::Status;
use crate::codec::ENTRY_TXNS_MAX;
use crate::types::{Command, Types};

/// Transactions share an entry up to this many bytes of keys and values; a larger one has an entry of its own, so that
/// every entry fits one message.
const ENTRY_BYTES: usize = 1 << 20;
/// Entries that were proposed and are not decided.
const IN_FLIGHT: usize = 8;

/// A transaction that waits.
#[derive(Debug)]
pub(super) struct Proposal {
    pub(super) txn: Txn,
    pub(super) reply: oneshot::Sender<Result<TxnOutcome, MetadataError>>,
    /// Its share of the bytes that may wait or be undecided; given back when its fate is known.
    pub(super) room: OwnedSemaphorePermit,
}

/// The only one that proposes: transactions enter the log in the order of arrival.
pub(super) struct Proposer {
    pub(super) raft: Raft<Types>,
    pub(super) queue: mpsc::Receiver<Proposal>,
    /// Did not fit the last entry and begins the next one.
    pub(super) held: Option<Proposal>,
    pub(super) status: watch::Receiver<Status>,
    pub(super) stop: CancellationToken,
    pub(super) tasks: TaskTracker,
}

impl Proposer {
    /// Serves until the member stops.
    pub(super) async fn run(mut self) {
        let in_flight = Arc::new(Semaphore::new(IN_FLIGHT));
        loop {
            // The place first: what arrives while all are taken shares the next entry.
            let place = tokio::select! {
                biased;
                () = self.stop.cancelled() => break,
                place = Arc::clone(&in_flight).acquire_owned() => place,
            };
            let (Ok(place), Some(first)) = (place, self.next().await) else { break };
            self.propose(first, place).await;
        }
        self.queue.close();
        if let Some(held) = self.held.take() {
            answer(vec![held], MetadataError::Unavailable);
        }
        while let Ok(proposal) = self.queue.try_recv() {
            let _gone = proposal.reply.send(Err(MetadataError::Unavailable));
        }
    }

    async fn next(&mut self) -> Option<Proposal> {
        if let Some(held) = self.held.take() {
            return Some(held);
        }
        tokio::select! {
            biased;
            () = self.stop.cancelled() => None,
            first = self.queue.recv() => first,
        }
    }

    async fn propose(&mut self, first: Proposal, place: OwnedSemaphorePermit) {
        let mut bytes = txn_bytes(&first.txn);
        let mut group = vec![first];
        while group.len() < ENTRY_TXNS_MAX
            && bytes < ENTRY_BYTES
            && let Ok(proposal) = self.queue.try_recv()
        {
            bytes = bytes.saturating_add(txn_bytes(&proposal.txn));
            if bytes > ENTRY_BYTES {
                self.held = Some(proposal);
                break;
            }
            group.push(proposal);
        }
        // Who was told that the outcome is unknown is gone: what was not begun is not begun any more.
        group.retain(|proposal| !proposal.reply.is_closed());
        if !self.status.borrow().serves() {
            answer(group, MetadataError::Unavailable);
            return;
        }
        let txns = group.iter_mut().map(|proposal| std::mem::take(&mut proposal.txn)).collect();
        let Ok(decided) = self.raft.client_write_ff(Command { txns }).await else {
            return answer(group, MetadataError::Unknown);
        };
        let (stop, mut status) = (self.stop.clone(), self.status.clone());
        let me = status.borrow().member;
        self.tasks.spawn(async move {
            // Not for ever: openraft forgets who waits for an entry that a snapshot stands for.
            let deposed = status.wait_for(|status| status.leader != Some(me));
            let decided = tokio::select! {
                biased;
                decided = decided => decided.ok(),
                () = stop.cancelled() => None,
                _ = deposed => None,
            };
            match decided {
                Some(Ok(response)) if response.data.0.len() == group.len() => {
                    for (proposal, outcome) in group.into_iter().zip(response.data.0) {
                        let _gone = proposal.reply.send(Ok(outcome));
                        drop(proposal.room);
                    }
                }
                // Not decided here. Another member may have the entry, and its next leader may commit it (M2).
                Some(_) | None => answer(group, MetadataError::Unknown),
            }
            drop(place);
        });
    }
}

fn answer(group: Vec<Proposal>, error: MetadataError) {
    for proposal in group {
        let _gone = proposal.reply.send(Err(error));
    }
}
