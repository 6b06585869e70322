//! What one step of catching up does. Each may be dropped at any await and done again.

use std::num::{NonZeroU64, NonZeroUsize};
use std::sync::Arc;
use std::time::Duration;

use bifrost_loglet::peers::Peers;
use bifrost_loglet::read::{GapKind, Item, ReadOptions, read_range};
use bifrost_logserver::LogServerHandle;
use bifrost_types::{KeyFilter, LogletOffset, NodeId, NodeSet};
use bifrost_wire::log_server::{
    CallError, LogServer, ReadReply, ReadRequest, RepairRequest, SealRequest, SettleRequest, TrimRequest,
};
use bytes::Bytes;
use tokio::time::timeout;

use super::cases::HOLES_MAX;
use super::core::{Outcome, Step};
use super::progress::CatchUpError;
use super::share::Share;
use crate::directory::Directory;

/// Bytes of the own copy that are read in one step.
const LOOK_BYTES: u64 = 4 << 20;

/// Who carries steps out.
#[derive(Debug, Clone)]
pub(super) struct Hands {
    pub(super) node: NodeId,
    pub(super) log_server: LogServerHandle,
    pub(super) directory: Directory,
    pub(super) chunk_bytes: NonZeroUsize,
    pub(super) deadline: Duration,
}

impl Hands {
    /// Does one step, in bounded time and with bounded memory.
    pub(super) async fn carry_out(&self, step: Step) -> Outcome {
        let loglet = step.share().params.id;
        // What is read of others waits for whoever has it; the deadline says that nobody does.
        let late = match &step {
            Step::Copy { hole, .. } => CatchUpError::NoSource { loglet, from: hole.0 },
            Step::Prepare(_) | Step::Look { .. } | Step::Attest(_) => CatchUpError::DeadlinePassed { loglet },
        };
        let done = async {
            match step {
                Step::Prepare(share) => self.prepare(&share).await,
                Step::Look { share, from } => self.look(&share, from).await,
                Step::Copy { share, hole } => self.copy(&share, hole).await,
                Step::Attest(share) => {
                    let attested = self.log_server.attest_whole(loglet, share.decided_tail).await;
                    attested.map(|_| Outcome::Attested).map_err(|source| CatchUpError::Here { loglet, source })
                }
            }
        };
        timeout(self.deadline, done).await.unwrap_or(Err(late)).unwrap_or_else(Outcome::Failed)
    }

    /// Whoever was away at the seal is sealed by the decided tail, under the operation that closed the segment (L3): from
    /// then on repairs of that operation are taken. An orphaned seal of another one gives way to it.
    async fn prepare(&self, share: &Share) -> Result<Outcome, CatchUpError> {
        let loglet = share.params.id;
        let (disk, op) = (self.log_server.disk(), share.op);
        let here = |source| CatchUpError::Here { loglet, source };
        let settle = SettleRequest { loglet, disk, op, decided_tail: share.decided_tail };
        let mut state = self.log_server.settle(settle).await.map_err(here)?;
        if state.sealed != Some(op) {
            state = self.log_server.seal(SealRequest { loglet, disk, op }).await.map_err(here)?;
        }
        if let Some(trim_point) = share.from.previous()
            && state.trim_point < Some(trim_point)
        {
            self.log_server.trim(TrimRequest { loglet, disk, trim_point }).await.map_err(here)?;
        }
        Ok(Outcome::Prepared { whole_tail: self.log_server.whole_tail(loglet) })
    }

    /// Reads the own copy from `from` on, about [`LOOK_BYTES`] of it: what it does not give, or gives damaged, is a hole.
    async fn look(&self, share: &Share, from: LogletOffset) -> Result<Outcome, CatchUpError> {
        let loglet = share.params.id;
        let request = ReadRequest {
            loglet,
            disk: self.log_server.disk(),
            from,
            until: Some(share.end),
            filter: KeyFilter::Any,
            credit_bytes: LOOK_BYTES,
            readable_tail: share.end,
        };
        let stream = self.log_server.read(request).await;
        let mut stream = stream.map_err(|source| CatchUpError::Here { loglet, source })?;
        let (mut until, mut holes, mut bytes) = (from, Vec::new(), 0_u64);
        while until < share.end && bytes < LOOK_BYTES && holes.len() < HOLES_MAX {
            match stream.replies.recv().await {
                Some(Ok(ReadReply::Batch { end, batch, .. })) => {
                    bytes = bytes.saturating_add(u64::try_from(batch.len()).unwrap_or(u64::MAX));
                    until = end;
                }
                Some(Ok(ReadReply::Missing { from, end, .. })) => {
                    holes.push((from, end));
                    until = end;
                }
                Some(Ok(ReadReply::Trimmed { end, .. } | ReadReply::Filtered { end, .. })) => until = end,
                Some(Ok(ReadReply::Tail(_))) => {}
                Some(Err(source)) => return Err(CatchUpError::Here { loglet, source }),
                None => return Err(CatchUpError::Unreadable { loglet }),
            }
        }
        Ok(Outcome::Looked { until: until.min(share.end), holes, bytes })
    }

    /// Gets the start of a hole from whoever has it, verified by the checksums of its appender's client (R2), and stores it
    /// as a repair of the operation that closed the segment (L3). What is stored already is recognised (L4).
    async fn copy(&self, share: &Share, (from, until): (LogletOffset, LogletOffset)) -> Result<Outcome, CatchUpError> {
        let loglet = share.params.id;
        let credit_bytes = NonZeroU64::try_from(self.chunk_bytes).unwrap_or(NonZeroU64::MAX);
        let options = ReadOptions {
            declared_lost: self.not_asked(share).await,
            credit_bytes,
            spread: u64::from(self.node.get()),
            ..ReadOptions::default()
        };
        let peers: Arc<dyn Peers> = Arc::new(self.directory.clone());
        let params = share.params.clone();
        let read = read_range(params, from, until, KeyFilter::Any, options, peers, self.chunk_bytes.get()).await;
        let read = read.map_err(|source| CatchUpError::Read { loglet, source })?;
        let (mut first_offset, mut end, mut batches) = (None, from, Vec::<Bytes>::new());
        for item in read.items {
            match item {
                Item::Batch { first_offset: at, end: upto, batch, .. } => {
                    first_offset.get_or_insert(at);
                    end = upto;
                    batches.push(batch.into_bytes());
                }
                // Nobody has it any more, or nobody needs it.
                Item::Gap { end, kind, .. } if batches.is_empty() => {
                    return Ok(Outcome::Copied { until: end, bytes: 0, lost: kind == GapKind::Lost });
                }
                // What follows a gap is another run.
                Item::Gap { .. } => break,
                Item::Filtered { .. } | Item::CaughtUp { .. } => {}
            }
        }
        let Some(first_offset) = first_offset else { return Err(CatchUpError::NoSource { loglet, from }) };
        let bytes = batches.iter().map(|batch| u64::try_from(batch.len()).unwrap_or(u64::MAX)).sum();
        let repair = RepairRequest {
            loglet,
            disk: self.log_server.disk(),
            op: share.op,
            // Everything below a decided tail is on a write quorum (S3), or nobody has it any more.
            committed_tail: share.end,
            first_offset,
            batches,
        };
        let stored = self.log_server.repair(repair).await;
        stored.map_err(|source: CallError| CatchUpError::Here { loglet, source })?;
        Ok(Outcome::Copied { until: end, bytes, lost: false })
    }

    /// Ourselves, since we miss it, and the disks that an operator gave up (R3).
    async fn not_asked(&self, share: &Share) -> NodeSet {
        let nodeset = &share.params.nodeset;
        let (mut lost, unheard) = self.directory.declared_lost(nodeset, share.named_at);
        // Perhaps it was taken away.
        if unheard && let Some(now) = self.directory.who_is_lost(nodeset).await {
            lost = now;
        }
        lost.iter().chain(nodeset.index_of(self.node)).collect()
    }
}
