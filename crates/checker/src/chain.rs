//! The chain of a log: what one value must be, and what one write may change (C1–C4), with what a decision needs (S1–S3).

use bifrost_types::{Chain, Finished, LogletOffset, Lsn, Segment, SegmentState};

use crate::breach::{EventNumber, Judge};
use crate::log::{KnownChain, Log, Place, Witness};
use crate::loglet::Loglet;
use crate::nodes::Nodes;
use crate::operations::Operations;
use crate::quorum::is_write_quorum;
use crate::rule::Rule;

/// How a chain came to be known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// The store took it just now.
    Written,
    /// Somebody read it.
    Read,
}

/// A chain and when it was seen.
type Seen<'a> = (&'a Chain, EventNumber);

/// Takes a chain. `nodes` are those of the history, if it tells what is durable on their disks.
pub(crate) fn observe(
    judge: &mut Judge,
    operations: &mut Operations,
    log: &mut Log,
    (chain, source): (&Chain, Source),
    nodes: Option<&Nodes>,
) {
    let now = judge.now();
    check_form(judge, chain);
    let fresh = log.deleted.is_none() || source == Source::Read;
    judge.require(Rule::IdsAreFresh, fresh, log.deleted, || format!("log {} is there again", chain.log));
    let outcomes = chain.segments.iter().enumerate().filter_map(|(place, _)| outcome(chain, place));
    for finished in outcomes.chain(chain.finished.iter().cloned()) {
        operations.finished(judge, chain.log, &finished);
    }
    if let Some(KnownChain { chain: before, event }) = log.known.take() {
        if source == Source::Read && chain.version <= before.version {
            check_continuation(judge, (chain, now), (&before, event));
            log.known = Some(KnownChain { chain: before, event });
            return;
        }
        check_continuation(judge, (&before, event), (chain, now));
        if source == Source::Written {
            check_write(judge, (&before, event), chain);
            if let Some((closed, tail)) = decision(&before, chain) {
                check_decision(judge, log, closed, tail, nodes);
            }
        }
    }
    for segment in &chain.segments {
        let loglet = log.loglets.entry(segment.index()).or_insert_with(|| {
            let all = segment.params.nodeset.indexes().collect();
            judge.require(Rule::QuorumExists, is_write_quorum(&segment.params, all), [], || {
                format!("no record can be on as many disks of {} as its property wants", segment.params.id)
            });
            Loglet::new(segment.params.clone(), now)
        });
        loglet.decided_tail = segment.decided_tail();
    }
    if let Some(last) = end_of_closed(chain).and_then(|end| end.previous()) {
        log.advance(last, now, Witness::Decided);
    }
    log.every_write |= source == Source::Written;
    log.known = Some(KnownChain { chain: chain.clone(), event: now });
    check_trim_point(judge, log, nodes.is_some());
}

/// The end of what is closed: below it there is nothing that is not written.
fn end_of_closed(chain: &Chain) -> Option<Lsn> {
    let last = chain.last()?;
    last.decided_tail().map_or(Some(last.base_lsn), |tail| tail.to_lsn(last.base_lsn).ok())
}

/// How the operation that closed a segment ended.
fn outcome(chain: &Chain, place: usize) -> Option<Finished> {
    let segment = chain.segments.get(place)?;
    let SegmentState::Sealed { tail, op, .. } = segment.state else { return None };
    let successor = chain.segments.get(place.checked_add(1)?).map(Segment::index);
    Some(Finished { op, segment: segment.index(), tail, successor })
}

/// The segment that a write closed, as it was before, and its decided tail.
fn decision<'a>(before: &'a Chain, after: &Chain) -> Option<(&'a Segment, LogletOffset)> {
    let last = before.last().filter(|last| last.decided_tail().is_none())?;
    let tail = after.segment(last.index())?.decided_tail()?;
    Some((last, tail))
}

/// What holds of every chain: contiguous, in order, one open segment and it is the last, nothing pending but on it.
fn check_form(judge: &mut Judge, chain: &Chain) {
    let log = chain.log;
    judge.require(Rule::OneDecision, !chain.segments.is_empty(), [], || format!("log {log} has no segment"));
    for (one, two) in chain.segments.iter().zip(chain.segments.iter().skip(1)) {
        let end = one.decided_tail().and_then(|tail| tail.to_lsn(one.base_lsn).ok());
        judge.require(Rule::OneDecision, end == Some(two.base_lsn), [], || {
            format!("segment {} of log {log} ends at {end:?}, the next one begins at {}", one.index(), two.base_lsn)
        });
        judge.require(Rule::IdsAreFresh, one.index() < two.index(), [], || {
            format!("segment {} of log {log} follows segment {}", two.index(), one.index())
        });
    }
    for segment in &chain.segments {
        let holds = segment.index() < chain.next_segment && segment.params.id.log == log;
        judge.require(Rule::IdsAreFresh, holds, [], || {
            format!("log {log} has loglet {}, and segment {} is next", segment.params.id, chain.next_segment)
        });
    }
    // A close is two writes: announced, decided.
    let closed = chain.segments.iter().filter(|segment| segment.decided_tail().is_some()).count();
    let least = u64::try_from(closed).map_or(u64::MAX, |closed| closed.saturating_mul(2).saturating_add(1));
    judge.require(Rule::VersionsCount, least <= chain.version, [], || {
        format!("log {log} has version {}, too low for {closed} closed segments", chain.version)
    });
    if let Some(pending) = &chain.pending {
        let open = chain.last().is_some_and(|last| last.decided_tail().is_none() && last.index() == pending.segment);
        judge.require(Rule::OneDecision, open, [], || {
            format!("log {log}: {} is pending on segment {}, which is not the open one", pending.op, pending.segment)
        });
    }
}

/// What holds between any two chains of one log, however much happened between them.
fn check_continuation(judge: &mut Judge, (older, older_event): Seen<'_>, (newer, newer_event): Seen<'_>) {
    let log = older.log;
    let events = [older_event, newer_event];
    if older.version == newer.version {
        judge.require(Rule::VersionsCount, older == newer, events, || {
            format!("two chains of log {log} have version {}", older.version)
        });
    }
    check_what_left(judge, older, newer, events);
    for old in &older.segments {
        let Some(new) = newer.segment(old.index()) else { continue };
        let same = old.base_lsn == new.base_lsn && old.params == new.params;
        let decided = old.decided_tail().is_none() || old.state == new.state;
        judge.require(Rule::OneDecision, same && decided, events, || {
            format!("segment {} of log {log} was {old:?} and is {new:?}", old.index())
        });
    }
    let closed = older.last().is_some_and(|last| last.decided_tail().is_some());
    let goes_on = newer.last().map(Segment::index) != older.last().map(Segment::index);
    judge.require(Rule::OneDecision, !closed || !goes_on, events, || {
        format!("log {log} goes on after it was closed for good")
    });
    judge.require(Rule::IdsAreFresh, older.next_segment <= newer.next_segment, events, || {
        format!("the next segment of log {log} was {} and is {}", older.next_segment, newer.next_segment)
    });
    for segment in added(older, newer) {
        judge.require(Rule::IdsAreFresh, segment.index() >= older.next_segment, events, || {
            format!("log {log} takes index {} again", segment.index())
        });
    }
    judge.require(Rule::TrimOnlyRises, older.trim_point <= newer.trim_point, events, || {
        format!("the trim point of log {log} was {:?} and is {:?}", older.trim_point, newer.trim_point)
    });
}

/// The segments that are in the newer chain only.
fn added<'a>(older: &Chain, newer: &'a Chain) -> &'a [Segment] {
    let last = older.last().map(Segment::index);
    let from = newer.segments.partition_point(|segment| Some(segment.index()) <= last);
    newer.segments.get(from..).unwrap_or_default()
}

/// Segments leave from the beginning, when everything before what is left is trimmed; none is lost otherwise.
fn check_what_left(judge: &mut Judge, older: &Chain, newer: &Chain, events: [EventNumber; 2]) {
    let log = older.log;
    let Some(first) = newer.segments.first() else { return };
    let lost = older.segments.iter().find(|old| old.index() >= first.index() && newer.segment(old.index()).is_none());
    judge.require(Rule::OneDecision, lost.is_none(), events, || format!("log {log} lost segment {lost:?}"));
    let left = older.segments.iter().any(|old| old.index() < first.index());
    let trimmed = first.base_lsn.previous() <= newer.trim_point;
    judge.require(Rule::OneDecision, !left || trimmed, events, || {
        format!("segments of log {log} left before {} was trimmed, which is at {:?}", first.base_lsn, newer.trim_point)
    });
}

/// What one write may change.
fn check_write(judge: &mut Judge, (before, event): Seen<'_>, after: &Chain) {
    let log = before.log;
    judge.require(Rule::VersionsCount, before.version.checked_add(1) == Some(after.version), [event], || {
        format!("version {} of log {log} is written over version {}", after.version, before.version)
    });
    let added = added(before, after);
    let decided = decision(before, after);
    let first = after.segments.first().map(Segment::index);
    let left = before.segments.iter().filter(|old| Some(old.index()) < first).count();
    if left > 0 {
        // Whoever wrote to the last closed segment may still ask about it.
        let stays = after.segments.iter().any(|segment| segment.decided_tail().is_some());
        judge.require(Rule::OneDecision, stays, [event], || {
            format!(
                "one write takes {left} of {} segments off log {log}, the last closed one too",
                before.segments.len()
            )
        });
        // With a decision or a trim, or alone, and then not in the way of what is pending.
        let trims = before.trim_point < after.trim_point;
        let alone = before.pending.is_none() && after.pending.is_none();
        judge.require(Rule::OneDecision, decided.is_some() || trims || alone, [event], || {
            format!("one write that announces takes {left} of {} segments off log {log}", before.segments.len())
        });
    }
    judge.require(Rule::OneDecision, added.len() <= usize::from(decided.is_some()), [event], || {
        format!("one write adds {} segments to log {log}, and closes {}", added.len(), u8::from(decided.is_some()))
    });
    let next = match added {
        [] => Some(before.next_segment),
        _ => before.next_segment.next(),
    };
    judge.require(Rule::IdsAreFresh, next == Some(after.next_segment), [event], || {
        format!("the next segment of log {log} was {} and is {}", before.next_segment, after.next_segment)
    });
    let pending = before.pending.as_ref().map(|pending| pending.op);
    match decided {
        Some((closed, _)) => {
            let closer = after.segment(closed.index()).and_then(|segment| match segment.state {
                SegmentState::Sealed { op, .. } => Some(op),
                SegmentState::Open => None,
            });
            judge.require(Rule::VersionsCount, closer.is_some() && closer == pending, [event], || {
                format!("segment {} of log {log} is closed by {closer:?}, announced was {pending:?}", closed.index())
            });
            judge.require(Rule::OneOutcome, after.pending.is_none(), [event], || {
                format!("segment {} of log {log} is closed and something is still pending", closed.index())
            });
            let told = closer.and_then(|op| after.outcome(op));
            judge.require(Rule::OneOutcome, told.is_some(), [event], || {
                format!("the close of segment {} of log {log} is not among its outcomes", closed.index())
            });
        }
        None => {
            let now = after.pending.as_ref().map(|pending| pending.op);
            judge.require(Rule::OneOutcome, pending.is_none() || pending == now, [event], || {
                format!("operation {pending:?} was pending on log {log} and was dropped")
            });
        }
    }
}

/// What must be true when a segment is closed (S1–S3).
fn check_decision(judge: &mut Judge, log: &Log, closed: &Segment, tail: LogletOffset, nodes: Option<&Nodes>) {
    let id = closed.params.id;
    let end = tail.to_lsn(closed.base_lsn).ok();
    if let Some(acknowledged) = log.acknowledged {
        let (highest, event) = (acknowledged.highest, acknowledged.highest_event);
        judge.require(Rule::DecidedCoversAcknowledged, Some(highest) < end, [event], || {
            format!("{id} ends at offset {tail}, before LSN {highest}, which was acknowledged")
        });
    }
    if let Some((highest, event)) = log.delivered {
        judge.require(Rule::ReadAllowed, Some(highest) < end, [event], || {
            format!("{id} ends at offset {tail}, before LSN {highest}, which a reader was given")
        });
    }
    let Some((loglet, nodes)) = log.loglets.get(&closed.index()).zip(nodes) else { return };
    let (sealed, events) = loglet.seals();
    judge.require(Rule::SealedByEnough, sealed, events.iter().copied(), || {
        format!("{id} is closed with the durable seals of {} disks, which is no f-majority", events.len())
    });
    let stored = tail <= loglet.durable() || !loglet.has_write_quorum_of(|disk| !nodes.is_given_up(disk));
    judge.require(Rule::DecidedIsDurable, stored, [loglet.latest_event()], || {
        format!("{id} ends at offset {tail}, a write quorum has everything up to {}", loglet.durable())
    });
}

/// Nothing is trimmed that is not committed.
fn check_trim_point(judge: &mut Judge, log: &Log, disks: bool) {
    let Some(point) = log.chain().and_then(|chain| chain.trim_point).filter(|_| disks) else { return };
    let (holds, events) = match log.place_of(point) {
        Place::Unknown => return,
        Place::Beyond => (false, None),
        Place::In(loglet, offset) => (offset < loglet.committed(), Some(loglet.latest_event())),
    };
    judge.require(Rule::TrimOnlyRises, holds, events, || format!("{point} is trimmed and was not committed"));
}
