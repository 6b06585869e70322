//! The core: from evidence to a diagnosis. The most urgent truth wins: what keeps the log from going on, not what is
//! merely unusual.

use bifrost_loglet::quorum::{Missing, Quorum};
use bifrost_types::{
    Chain, LogletOffset, Lsn, NodeId, NodeIndex, NodeSet, Nodeset, OpId, Reconfiguration, Segment, SegmentState,
};
use bifrost_wire::log_server::CopyState;
use bifrost_wire::sequencer::{SequencerCallError, SequencerError};

use super::{Diagnosis, Evidence, Lack, MemberView, MetadataView, QuorumKind, ReconfigurationStep, SequencerView};

/// Says what a log is doing or waits for.
pub fn diagnose(evidence: &Evidence) -> Diagnosis {
    match &evidence.metadata {
        MetadataView::NoSuchLog => Diagnosis::NoSuchLog,
        MetadataView::NoAnswer { .. } => Diagnosis::NoMetadata,
        MetadataView::Removed(tombstone) => {
            Diagnosis::Deleted { op: tombstone.op, owing: owing(tombstone.removed.as_ref(), &evidence.members) }
        }
        MetadataView::Deleting { chain, tombstone } => {
            let open = chain.last().filter(|last| last.decided_tail().is_none());
            let lacks = open.and_then(|last| Copies::of(last, &evidence.members)?.lacks_f_majority());
            let (op, opened_at_millis) = (tombstone.op, tombstone.opened_at_millis);
            Diagnosis::BeingDeleted { op, opened_at_millis, lacks }
        }
        MetadataView::Chain(chain) => of_chain(chain, evidence).unwrap_or(Diagnosis::Damaged),
    }
}

/// `None` when positions or quorums contradict each other.
fn of_chain(chain: &Chain, evidence: &Evidence) -> Option<Diagnosis> {
    let last = chain.last()?;
    if let SegmentState::Sealed { tail, op, actor, reason, .. } = &last.state {
        let tail = tail.to_lsn(last.base_lsn).ok()?;
        return Some(Diagnosis::ClosedForGood { tail, op: *op, actor: actor.clone(), reason: *reason });
    }
    let copies = Copies::of(last, &evidence.members)?;
    if let Some(pending) = &chain.pending {
        return Some(reconfiguring(pending, &copies));
    }
    if let Some(op) = copies.sealed_by() {
        let fenced = copies.quorum.is_f_majority(copies.sealed);
        let sealed = copies.nodes(copies.sealed);
        return Some(Diagnosis::OrphanedSeal { op, sealed, fenced, lacks: copies.lacks_f_majority() });
    }
    of_open(last, &copies, evidence.sequencer)
}

/// The segment is open, nothing is pending and nobody is sealed.
fn of_open(last: &Segment, copies: &Copies<'_>, sequencer: Option<SequencerView>) -> Option<Diagnosis> {
    let gone = || Diagnosis::SequencerGone { sequencer: last.params.sequencer, lacks: copies.lacks_f_majority() };
    let tails = match sequencer {
        Some(SequencerView::Answered(tails)) => tails,
        Some(SequencerView::Failed(
            error @ SequencerCallError::Refused(SequencerError::Overloaded | SequencerError::DiskFull),
        )) => return Some(Diagnosis::SequencerBusy { sequencer: last.params.sequencer, error }),
        Some(SequencerView::LaterLife { .. } | SequencerView::Removed | SequencerView::Failed(_)) | None => {
            return Some(gone());
        }
    };
    if let Some(missing) = copies.quorum.missing_for_write_quorum(copies.answered, NodeSet::EMPTY) {
        return Some(Diagnosis::NoWriteQuorum { lacks: copies.lack(QuorumKind::Write, missing) });
    }
    let tail: Lsn = tails.committed_tail.to_lsn(last.base_lsn).ok()?;
    let silent = copies.nodes(copies.quorum.all().iter().filter(|index| !copies.answered.contains(*index)).collect());
    Some(if tails.next_offset == LogletOffset::FIRST {
        Diagnosis::Idle { tail, silent }
    } else {
        Diagnosis::Healthy { tail, silent }
    })
}

fn reconfiguring(pending: &Reconfiguration, copies: &Copies<'_>) -> Diagnosis {
    let (step, lacks) = copies.step();
    Diagnosis::Reconfiguring {
        op: pending.op,
        actor: pending.actor.clone(),
        reason: pending.reason,
        for_good: pending.successor.is_none(),
        opened_at_millis: pending.opened_at_millis,
        attempt: pending.attempt,
        step,
        lacks,
    }
}

/// Members that may still have something of a removed log.
fn owing(removed: Option<&Chain>, members: &[MemberView]) -> Vec<NodeId> {
    let tail = removed.and_then(Chain::last).and_then(Segment::decided_tail);
    let gave_back =
        |state: &CopyState| state.decided_tail.is_some() && tail.and_then(LogletOffset::previous) <= state.trim_point;
    members.iter().filter(|member| !member.answer.as_ref().is_ok_and(gave_back)).map(|member| member.node).collect()
}

/// The answers of one segment's members, with its quorums.
struct Copies<'a> {
    nodeset: &'a Nodeset,
    quorum: Quorum,
    answered: NodeSet,
    sealed: NodeSet,
    states: Vec<Option<CopyState>>,
}

impl<'a> Copies<'a> {
    fn of(segment: &'a Segment, members: &[MemberView]) -> Option<Self> {
        let nodeset = &segment.params.nodeset;
        let quorum = Quorum::new(nodeset, &segment.params.replication).ok()?;
        let answer = |node: NodeId| members.iter().find(|member| member.node == node)?.answer.ok();
        let states: Vec<Option<CopyState>> = nodeset.members().iter().map(|member| answer(member.node)).collect();
        let which = |keep: fn(&CopyState) -> bool| -> NodeSet {
            let kept = nodeset.indexes().zip(&states).filter(|(_, state)| state.as_ref().is_some_and(keep));
            kept.map(|(index, _)| index).collect()
        };
        let answered = which(|_| true);
        let sealed = which(|state| state.sealed.is_some());
        Some(Self { nodeset, quorum, answered, sealed, states })
    }

    /// An operation that sealed a copy.
    fn sealed_by(&self) -> Option<OpId> {
        self.states.iter().flatten().find_map(|state| state.sealed)
    }

    /// How far the closing is, and what it lacks.
    fn step(&self) -> (ReconfigurationStep, Option<Lack>) {
        let tails = |keep: NodeSet| -> Vec<Option<LogletOffset>> {
            let tail = |(index, state): (NodeIndex, &Option<CopyState>)| {
                state.filter(|_| keep.contains(index)).map(|state| state.local_tail)
            };
            self.nodeset.indexes().zip(&self.states).map(tail).collect()
        };
        let Some(safe) = self.quorum.lowest_safe(&tails(self.sealed)) else {
            let sealed = self.nodes(self.sealed);
            let step = if sealed.is_empty() {
                ReconfigurationStep::Announced
            } else {
                ReconfigurationStep::Sealing { sealed }
            };
            return (step, self.lacks_f_majority());
        };
        let committed = self.states.iter().flatten().map(|state| state.committed_tail).max();
        let committed = committed.unwrap_or(LogletOffset::FIRST);
        let stored = self.quorum.best_committed(&tails(self.sealed)).unwrap_or(LogletOffset::FIRST).max(committed);
        if stored >= safe {
            return (ReconfigurationStep::Deciding { candidate: stored }, None);
        }
        let lacks = self.quorum.missing_for_write_quorum(self.answered, NodeSet::EMPTY);
        let lacks = lacks.map(|missing| self.lack(QuorumKind::Write, missing));
        (ReconfigurationStep::Repairing { from: committed, until: safe }, lacks)
    }

    /// What those who answer lack to be sealed as an f-majority.
    fn lacks_f_majority(&self) -> Option<Lack> {
        let missing = self.quorum.missing_for_f_majority(self.answered, NodeSet::EMPTY)?;
        Some(self.lack(QuorumKind::FMajority, missing))
    }

    fn lack(&self, quorum: QuorumKind, missing: Missing) -> Lack {
        Lack { quorum, at_least: missing.at_least, of: self.nodes(missing.of) }
    }

    fn nodes(&self, set: NodeSet) -> Vec<NodeId> {
        set.iter().filter_map(|index| self.nodeset.member(index)).map(|member| member.node).collect()
    }
}

#[cfg(test)]
mod tests;
