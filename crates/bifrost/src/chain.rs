//! The transitions of a chain: pure functions from one value to the next (C1–C4). The catalog commits what they return;
//! nothing else changes a chain.

use bifrost_types::limits::CHAIN_FINISHED_MAX;
use bifrost_types::plant::{self, Plant};
use bifrost_types::{
    Chain, Finished, LogId, LogletId, LogletOffset, LogletParams, Lsn, OpId, OutOfPositions, Reconfiguration, Segment,
    SegmentIndex, SegmentState, Successor, Timings,
};
use thiserror::Error;

/// Why a chain cannot take a transition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ChainError {
    /// The log was closed for good.
    #[error("the log is closed")]
    Closed,
    /// The positions or the segment numbers of the log are used up.
    #[error("the log has no positions left")]
    Exhausted,
    /// The segment was closed and wholly trimmed, and has left the chain since: which operation closed it is not known any
    /// more.
    #[error("the segment was closed and trimmed, and has left the chain")]
    Left,
    /// The value is not a chain: its pointer order is broken.
    #[error("the stored chain is damaged")]
    Damaged,
}

impl From<OutOfPositions> for ChainError {
    fn from(_: OutOfPositions) -> Self {
        Self::Exhausted
    }
}

/// A new log with its first segment. The creating operation is kept as the first outcome, so that its author
/// recognises it after a lost reply (M2).
pub fn create(log: LogId, name: Option<String>, op: OpId, first: Successor) -> Chain {
    let index = SegmentIndex::FIRST;
    Chain {
        log,
        name,
        version: 1,
        segments: vec![open_segment(log, index, Lsn::FIRST, first)],
        next_segment: SegmentIndex::new(1),
        pending: None,
        finished: vec![Finished { op, segment: index, tail: LogletOffset::FIRST, successor: Some(index) }],
        trim_point: None,
    }
}

/// What announcing an operation leads to (T1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Announce {
    /// Write this chain; then the operation is pending.
    Write(Chain),
    /// It is pending already, or another one is: drive that one.
    Pending(Reconfiguration),
    /// It is over (C4).
    Finished(Finished),
    /// The segment that it wanted to close was closed by another operation, perhaps for good.
    Superseded(Finished),
}

/// How an operation ended, if the chain knows it: from the last few outcomes, and beyond them from the segment that it
/// closed. So an operation that is asked for very late is still not carried out twice (C4), until that segment has left.
pub fn outcome(chain: &Chain, op: OpId) -> Option<Finished> {
    if plant::is(Plant::FinishedOpRunsAgain) {
        return chain.finished.last().filter(|newest| newest.op == op).cloned();
    }
    if let Some(finished) = chain.outcome(op) {
        return Some(finished.clone());
    }
    let by_op = |segment: &&Segment| matches!(segment.state, SegmentState::Sealed { op: closer, .. } if closer == op);
    finished_of(chain, chain.segments.iter().find(by_op)?)
}

/// T1: make `wanted` the pending operation, unless one is pending or the segment is closed.
///
/// # Errors
/// [`ChainError::Closed`] when the log is closed for good and never had the segment, [`ChainError::Left`] when it had the
/// segment long ago, [`ChainError::Damaged`], [`ChainError::Exhausted`].
pub fn announce(chain: &Chain, wanted: &Reconfiguration) -> Result<Announce, ChainError> {
    if let Some(finished) = outcome(chain, wanted.op) {
        return Ok(Announce::Finished(finished));
    }
    // Before what is pending: that is about a later segment, and may have to wait for its disks.
    if let Some(by) = chain.segment(wanted.segment).and_then(|closed| finished_of(chain, closed)) {
        return Ok(Announce::Superseded(by));
    }
    // Whoever wanted to close that one does not want to close another.
    if chain.has_left(wanted.segment) {
        return Err(ChainError::Left);
    }
    if let Some(pending) = &chain.pending {
        return Ok(Announce::Pending(pending.clone()));
    }
    let last = chain.last().ok_or(ChainError::Damaged)?;
    if last.decided_tail().is_some() {
        return Err(ChainError::Closed);
    }
    let pending = Reconfiguration { segment: last.index(), ..wanted.clone() };
    Ok(Announce::Write(next_version(Chain { pending: Some(pending), ..chain.clone() })?))
}

/// T1': replace what comes after, under the same operation. `None` when there is nothing to replace.
///
/// # Errors
/// [`ChainError::Exhausted`] when versions or attempts run out.
pub fn replace_successor(chain: &Chain, op: OpId, successor: Successor) -> Result<Option<Chain>, ChainError> {
    let Some(pending) = chain.pending.as_ref().filter(|pending| pending.op == op) else { return Ok(None) };
    let attempt = pending.attempt.checked_add(1).ok_or(ChainError::Exhausted)?;
    let pending = Reconfiguration { successor: Some(successor), attempt, ..pending.clone() };
    Ok(Some(next_version(Chain { pending: Some(pending), ..chain.clone() })?))
}

/// What deciding leads to (T2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decide {
    /// Write this chain: that write decides.
    Write(Chain),
    /// It was decided before, with this outcome; the tail there is the tail.
    Finished(Finished),
    /// The operation is not pending, and the chain knows no outcome of it.
    Gone,
}

/// Where a segment ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// The decided tail.
    pub tail: LogletOffset,
    /// From here to the tail nothing was found, at most the tail: see [`SegmentState::Sealed`].
    pub lost_from: Option<LogletOffset>,
}

impl From<LogletOffset> for End {
    fn from(tail: LogletOffset) -> Self {
        Self { tail, lost_from: None }
    }
}

/// T2: close the last segment at `end` and open the successor, in one value (C1).
///
/// # Errors
/// [`ChainError`] when positions run out or the chain is damaged.
pub fn decide(chain: &Chain, op: OpId, end: End, timings: Timings) -> Result<Decide, ChainError> {
    if let Some(finished) = outcome(chain, op) {
        return Ok(Decide::Finished(finished));
    }
    let Some(pending) = chain.pending.as_ref().filter(|pending| pending.op == op) else { return Ok(Decide::Gone) };
    let mut next = chain.clone();
    let last = next.segments.last_mut().ok_or(ChainError::Damaged)?;
    if last.index() != pending.segment || last.decided_tail().is_some() {
        return Err(ChainError::Damaged);
    }
    let End { tail, lost_from } = end;
    let (actor, reason) = (pending.actor.clone(), pending.reason);
    last.state = SegmentState::Sealed { tail, lost_from, op, actor, reason, timings };
    let base_lsn = tail.to_lsn(last.base_lsn)?;
    let mut successor = None;
    if let Some(params) = pending.successor.clone() {
        let mut index = next.next_segment;
        if plant::is(Plant::LogletIdReused) && tail == LogletOffset::FIRST {
            next.segments.pop();
            index = pending.segment;
        }
        next.next_segment = index.next().ok_or(ChainError::Exhausted)?;
        next.segments.push(open_segment(chain.log, index, base_lsn, params));
        successor = Some(index);
    }
    next.finished.push(Finished { op, segment: pending.segment, tail, successor });
    let surplus = next.finished.len().saturating_sub(CHAIN_FINISHED_MAX);
    next.finished.drain(..surplus);
    next.pending = None;
    Ok(Decide::Write(next_version(next)?))
}

/// The chain with at least this trim point; `None` if it holds already. The caller checked that it is readable.
///
/// # Errors
/// [`ChainError::Exhausted`] when versions run out.
pub fn raise_trim_point(chain: &Chain, trim_point: Lsn) -> Result<Option<Chain>, ChainError> {
    let goes_back = plant::is(Plant::TrimGoesBack) && chain.trim_point != Some(trim_point);
    if chain.trim_point >= Some(trim_point) && !goes_back {
        return Ok(None);
    }
    Ok(Some(next_version(Chain { trim_point: Some(trim_point), ..chain.clone() })?))
}

/// The segments that may leave the chain in a transaction of their own: those [`to_leave`], and none while something is pending,
/// since whoever drives that would have to look again just before it decides.
pub fn spent(chain: &Chain) -> &[Segment] {
    if chain.pending.is_some() { &[] } else { to_leave(chain) }
}

/// The first segments that are wholly trimmed. The last closed one stays, since those who wrote to it last may still ask about
/// it.
pub fn to_leave(chain: &Chain) -> &[Segment] {
    let Some(trim_point) = chain.trim_point else { return &[] };
    let open = usize::from(chain.last().is_some_and(|last| last.decided_tail().is_none()));
    // A segment ends where the next one begins; that one is closed too.
    let next = chain.segments.get(1..chain.segments.len().saturating_sub(open)).unwrap_or_default();
    let spent = next.partition_point(|next| next.base_lsn.previous() <= Some(trim_point));
    chain.segments.get(..spent).unwrap_or_default()
}

/// The chain without its spent segments up to and including this one; `None` when that one is not spent (any more).
///
/// # Errors
/// [`ChainError::Exhausted`] when versions run out.
pub fn without_spent(chain: &Chain, last: SegmentIndex) -> Result<Option<Chain>, ChainError> {
    let leaving = up_to(spent(chain), last);
    if leaving.last().map(Segment::index) != Some(last) {
        return Ok(None);
    }
    let segments = chain.segments.get(leaving.len()..).unwrap_or_default().to_vec();
    Ok(Some(next_version(Chain { segments, ..chain.clone() })?))
}

/// What is about to be written for another reason, without those of the segments [`to_leave`] whose servers have `returned` the
/// space: up to this one.
#[must_use]
pub fn taking_along(mut next: Chain, returned: Option<SegmentIndex>) -> Chain {
    if let Some(returned) = returned {
        let leaving = up_to(to_leave(&next), returned).len();
        next.segments.drain(..leaving);
    }
    next
}

fn up_to(segments: &[Segment], last: SegmentIndex) -> &[Segment] {
    segments.get(..segments.partition_point(|segment| segment.index() <= last)).unwrap_or_default()
}

/// Checks the pointer order of a chain that came from storage.
///
/// # Errors
/// [`ChainError::Damaged`].
pub fn validate(chain: &Chain) -> Result<(), ChainError> {
    let last = chain.last().ok_or(ChainError::Damaged)?;
    let mut base_lsn = chain.segments.first().ok_or(ChainError::Damaged)?.base_lsn;
    let mut previous: Option<SegmentIndex> = None;
    for segment in &chain.segments {
        let in_order = previous < Some(segment.index()) && segment.index() < chain.next_segment;
        if !in_order || segment.base_lsn != base_lsn || segment.params.id.log != chain.log {
            return Err(ChainError::Damaged);
        }
        match segment.decided_tail() {
            Some(_) if segment.held_tail() > segment.decided_tail() => return Err(ChainError::Damaged),
            Some(tail) => base_lsn = tail.to_lsn(base_lsn).map_err(|_| ChainError::Damaged)?,
            None if segment.index() != last.index() => return Err(ChainError::Damaged),
            None => {}
        }
        previous = Some(segment.index());
    }
    match &chain.pending {
        Some(pending) if pending.segment != last.index() || last.decided_tail().is_some() => Err(ChainError::Damaged),
        _ => Ok(()),
    }
}

/// The outcome that closed a segment, or `None` while it is open.
fn finished_of(chain: &Chain, segment: &Segment) -> Option<Finished> {
    let SegmentState::Sealed { tail, op, .. } = segment.state else { return None };
    let successor = chain.segment_after(segment.index()).map(Segment::index);
    Some(Finished { op, segment: segment.index(), tail, successor })
}

fn open_segment(log: LogId, index: SegmentIndex, base_lsn: Lsn, params: Successor) -> Segment {
    let Successor { nodeset, replication, sequencer } = params;
    let params = LogletParams { id: LogletId::new(log, index), nodeset, replication, sequencer };
    Segment { base_lsn, params, state: SegmentState::Open }
}

fn next_version(chain: Chain) -> Result<Chain, ChainError> {
    let version = chain.version.checked_add(1).ok_or(ChainError::Exhausted)?;
    Ok(Chain { version, ..chain })
}

#[cfg(test)]
mod tests;
