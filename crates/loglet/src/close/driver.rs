//! Runs the core of a finder over log servers: select one event, step, run its effects. Only the select awaits.

use std::sync::Arc;
use std::time::Duration;

use bifrost_types::limits::STORE_MESSAGE_BYTES;
use bifrost_types::{KeyFilter, LogletId, LogletOffset, LogletParams, Member, NodeIndex, OpId};
use bifrost_wire::RpcError;
use bifrost_wire::log_server::{LogServer, ReadReply, ReadRequest, RepairRequest, SealRequest};
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::watch;
use tokio::time::Instant;

use super::{Chunk, CloseError, CloseLoglet, CloseProgress, Closed, Effect, Event, ReadFailure};
use crate::alarm::Alarm;
use crate::metrics;
use crate::peers::{MemberError, Peers, call};

/// How long a finder waits for single answers. Safety does not depend on it, nor does progress while enough members
/// answer: nobody is waited for once the others suffice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CloseOptions {
    /// For the answer to a seal, which is one fsync. Default 3 s.
    pub seal_deadline: Duration,
    /// For reading or storing one chunk: [`STORE_MESSAGE_BYTES`] or one larger batch. Default 10 s.
    pub transfer_deadline: Duration,
}

impl Default for CloseOptions {
    fn default() -> Self {
        Self { seal_deadline: Duration::from_secs(3), transfer_deadline: Duration::from_secs(10) }
    }
}

/// Seals the loglet on an f-majority, finds a candidate for its tail and repairs what lies below it: everything before
/// the deciding transaction. Calls all members at once and returns on the first answers that suffice; a server that is
/// dead or slow is not waited for. As long as they do not suffice it goes on for ever with back-off, and says in
/// `progress` which disks it waits for; one that an operator declares lost is then not waited for any more.
///
/// # Errors
/// [`CloseError`]: wrong parameters, a newer operation, or a broken invariant. Never because of a server that does not
/// answer.
///
/// # Cancel safety
/// Safe at every await, and that is the way to stop it. What was sealed stays sealed (there is no way back after the
/// first seal); calling it again with the same operation, here or anywhere, goes on from what the servers know (C4).
pub async fn close_loglet(
    params: &LogletParams,
    op: OpId,
    peers: &dyn Peers,
    options: CloseOptions,
    progress: &watch::Sender<CloseProgress>,
) -> Result<Closed, CloseError> {
    let mut core = CloseLoglet::new(params, op)?;
    let servers = Servers { params, op, peers, options };
    let origin = Instant::now();
    let mut calls: FuturesUnordered<BoxFuture<'static, Event>> = FuturesUnordered::new();
    let mut effects = Vec::new();
    let mut retry_at = None;
    let mut alarm = Alarm::default();
    let mut event = Event::RetryDue;
    loop {
        core.step(origin.elapsed(), event, &mut effects);
        publish(progress, core.progress());
        for effect in effects.drain(..) {
            match effect {
                Effect::Seal { index } => calls.push(servers.seal(index)),
                Effect::Read { target, source, from, until } => calls.push(servers.read(target, source, from, until)),
                Effect::Repair { target, committed_tail, chunk } => {
                    calls.push(servers.repair(target, committed_tail, chunk));
                }
                Effect::RetryAt { at } => retry_at = Some(origin + at),
                Effect::AskWhoIsLost => calls.push(servers.who_is_lost()),
                Effect::EndSequencer => calls.push(servers.end_sequencer()),
                Effect::Blocked(blocked) => {
                    metrics::close_blocked();
                    tracing::warn!(loglet = %params.id, %op, %blocked, "closing is blocked");
                }
                Effect::Done(closed) => {
                    metrics::closed(&closed);
                    return Ok(closed);
                }
                Effect::Failed(error) => return Err(error),
            }
        }
        event = tokio::select! {
            biased;
            Some(event) = calls.next() => event,
            () = alarm.at_any(retry_at) => {
                retry_at = None;
                Event::RetryDue
            }
        };
    }
}

fn publish(progress: &watch::Sender<CloseProgress>, now: CloseProgress) {
    progress.send_if_modified(|known| {
        let changed = *known != now;
        if changed {
            *known = now;
        }
        changed
    });
}

/// Turns effects into calls, each of which ends in exactly one event.
struct Servers<'a> {
    params: &'a LogletParams,
    op: OpId,
    peers: &'a dyn Peers,
    options: CloseOptions,
}

impl Servers<'_> {
    fn at(&self, index: NodeIndex) -> Result<(Arc<dyn LogServer>, Member), MemberError> {
        let member = self.params.nodeset.member(index).ok_or(MemberError::AddressUnknown)?;
        let server = self.peers.log_server(member.node).ok_or(MemberError::AddressUnknown)?;
        Ok((server, member.clone()))
    }

    fn who_is_lost(&self) -> BoxFuture<'static, Event> {
        let answer = tokio::time::timeout(self.options.seal_deadline, self.peers.who_is_lost(&self.params.nodeset));
        Box::pin(async move { Event::DeclaredLost(answer.await.ok().flatten()) })
    }

    fn end_sequencer(&self) -> BoxFuture<'static, Event> {
        let LogletParams { id, sequencer, .. } = *self.params;
        let answer = tokio::time::timeout(self.options.seal_deadline, self.peers.end_sequencer(id, sequencer, self.op));
        Box::pin(async move { Event::SequencerEnded(answer.await.ok().flatten()) })
    }

    fn seal(&self, index: NodeIndex) -> BoxFuture<'static, Event> {
        let (at, loglet, op, deadline) = (self.at(index), self.params.id, self.op, self.options.seal_deadline);
        Box::pin(async move {
            let answer = async {
                let (server, member) = at?;
                call(deadline, server.seal(SealRequest { loglet, disk: member.disk, op })).await
            };
            match answer.await {
                Ok(state) => Event::Sealed { index, state },
                Err(error) => Event::SealFailed { index, error },
            }
        })
    }

    fn repair(&self, target: NodeIndex, committed_tail: LogletOffset, chunk: Chunk) -> BoxFuture<'static, Event> {
        let (at, loglet, op, deadline) = (self.at(target), self.params.id, self.op, self.options.transfer_deadline);
        Box::pin(async move {
            let answer = async {
                let (server, member) = at?;
                let Chunk { first_offset, batches, .. } = chunk;
                let request = RepairRequest { loglet, disk: member.disk, op, committed_tail, first_offset, batches };
                call(deadline, server.repair(request)).await
            };
            match answer.await {
                Ok(state) => Event::Repaired { target, state },
                Err(error) => Event::RepairFailed { target, error },
            }
        })
    }

    fn read(
        &self,
        target: NodeIndex,
        source: NodeIndex,
        from: LogletOffset,
        until: LogletOffset,
    ) -> BoxFuture<'static, Event> {
        let (at, loglet, deadline) = (self.at(source), self.params.id, self.options.transfer_deadline);
        Box::pin(async move {
            let answer = async {
                let (server, member) = at.map_err(ReadFailure::Member)?;
                match tokio::time::timeout(deadline, read_chunk(&*server, &member, loglet, from, until)).await {
                    Ok(result) => result,
                    Err(_) => Err(ReadFailure::Member(RpcError::DeadlinePassed.into())),
                }
            };
            match answer.await {
                Ok(chunk) => Event::Read { target, source, from, chunk },
                Err(failure) => Event::ReadFailed { target, source, from, failure },
            }
        })
    }
}

/// Reads consecutive batches from `from` on until [`STORE_MESSAGE_BYTES`] are there, `until` is reached, or the source
/// has a hole.
async fn read_chunk(
    server: &dyn LogServer,
    member: &Member,
    loglet: LogletId,
    from: LogletOffset,
    until: LogletOffset,
) -> Result<Chunk, ReadFailure> {
    let request = ReadRequest {
        loglet,
        disk: member.disk,
        from,
        until: Some(until),
        filter: KeyFilter::Any,
        credit_bytes: STORE_MESSAGE_BYTES as u64,
        // The copy has it durably; whether it may be read by users is not the question here.
        readable_tail: until,
    };
    let mut stream = server.read(request).await.map_err(|error| ReadFailure::Member(error.into()))?;
    let mut chunk = Chunk { first_offset: from, end: from, batches: Vec::new() };
    let mut bytes = 0;
    while bytes < STORE_MESSAGE_BYTES && chunk.end < until {
        let Some(reply) = stream.replies.recv().await else {
            return whole(chunk, ReadFailure::Member(RpcError::Unreachable.into()));
        };
        match reply {
            Ok(ReadReply::Batch { first_offset, end, batch }) => {
                // Batches are never cut, so the first may begin before `from`; the others follow one another.
                let follows = if chunk.batches.is_empty() { first_offset <= from } else { first_offset == chunk.end };
                if !follows || end <= chunk.end {
                    return whole(chunk, ReadFailure::Member(RpcError::Malformed.into()));
                }
                if chunk.batches.is_empty() {
                    chunk.first_offset = first_offset;
                }
                bytes += batch.len();
                chunk.end = end;
                chunk.batches.push(batch);
            }
            Ok(ReadReply::Tail(_)) => {}
            // Nothing at or above a committed tail can be trimmed, and no filter was given: such a source is of no use.
            Ok(ReadReply::Missing { end, .. } | ReadReply::Trimmed { end, .. } | ReadReply::Filtered { end, .. }) => {
                return whole(chunk, ReadFailure::Absent { end });
            }
            Err(error) => return whole(chunk, ReadFailure::Member(error.into())),
        }
    }
    Ok(chunk)
}

/// What was read before the failure, if anything was: the rest is asked for again.
fn whole(chunk: Chunk, failure: ReadFailure) -> Result<Chunk, ReadFailure> {
    if chunk.batches.is_empty() { Err(failure) } else { Ok(chunk) }
}

#[cfg(test)]
mod tests;
