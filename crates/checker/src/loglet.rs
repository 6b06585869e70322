//! One loglet: which batch is on which disk, what its copies promise, and how far a write quorum has everything.

use std::collections::BTreeMap;

use bifrost_types::{DiskId, LogletOffset, LogletParams, NodeId, NodeIndex, NodeSet};

use crate::breach::{EventNumber, Judge};
use crate::event::{CopyFacts, Value};
use crate::quorum::{is_f_majority, is_write_quorum};
use crate::rule::Rule;

/// One batch, wherever it lies.
#[derive(Debug)]
struct Batch {
    end: LogletOffset,
    bytes: Value,
    /// The disks on which it ever became durable. What is lost, damaged or dropped later was still answered for.
    holders: NodeSet,
    /// Those of them that cannot read it any more.
    damaged: NodeSet,
    /// Those of them that took it before they were sealed, so from the sequencer and not from a repair.
    unsealed: NodeSet,
    /// When it first became durable anywhere.
    event: EventNumber,
}

/// What one disk of the nodeset has.
#[derive(Debug)]
struct Copy {
    /// The first offset above everything that was ever stored here, or was not stored because it was trimmed already.
    end: LogletOffset,
    facts: Option<(CopyFacts, EventNumber)>,
}

/// One loglet.
#[derive(Debug)]
pub(crate) struct Loglet {
    pub(crate) params: LogletParams,
    pub(crate) decided_tail: Option<LogletOffset>,
    batches: BTreeMap<LogletOffset, Batch>,
    copies: BTreeMap<NodeIndex, Copy>,
    /// Disks of the nodeset of which nothing can be read any more.
    gone: NodeSet,
    /// Everything below became durable on a write quorum, whoever brought it there.
    durable: LogletOffset,
    /// Everything below became durable on a write quorum before its disks were sealed: the sequencer knows no more.
    sequenced: LogletOffset,
    /// The event that raised one of the two last.
    latest_event: EventNumber,
}

impl Loglet {
    pub(crate) const fn new(params: LogletParams, opened: EventNumber) -> Self {
        Self {
            params,
            decided_tail: None,
            batches: BTreeMap::new(),
            copies: BTreeMap::new(),
            gone: NodeSet::EMPTY,
            durable: LogletOffset::FIRST,
            sequenced: LogletOffset::FIRST,
            latest_event: opened,
        }
    }

    /// First offset that is not on a write quorum together with everything below.
    pub(crate) const fn durable(&self) -> LogletOffset {
        self.durable
    }

    /// First offset that is not committed: that is for the sequencer to say, and in the end for the chain, never for a
    /// repair (S4).
    pub(crate) fn committed(&self) -> LogletOffset {
        self.decided_tail.unwrap_or(self.sequenced)
    }

    /// Whether these disks of the nodeset could hold a record.
    pub(crate) fn has_write_quorum_of(&self, holds: impl Fn(DiskId) -> bool) -> bool {
        let members = self.params.nodeset.iter().filter(|(_, member)| holds(member.disk));
        is_write_quorum(&self.params, members.map(|(index, _)| index).collect())
    }

    /// The event since which the disks have so much.
    pub(crate) const fn latest_event(&self) -> EventNumber {
        self.latest_event
    }

    /// Whether the batch at this offset is on a write quorum, whatever is with those below.
    pub(crate) fn is_on_write_quorum(&self, offset: LogletOffset) -> bool {
        let batch = self.batches.range(..=offset).next_back().filter(|(_, batch)| offset < batch.end);
        offset < self.committed() || batch.is_some_and(|(_, batch)| is_write_quorum(&self.params, batch.unsealed))
    }

    /// A batch became unreadable on a disk.
    pub(crate) fn damaged(&mut self, disk: DiskId, first: LogletOffset) {
        let index = self.params.nodeset.iter().find(|(_, member)| member.disk == disk).map(|(index, _)| index);
        if let Some((batch, index)) = self.batches.get_mut(&first).zip(index) {
            batch.damaged.insert(index);
        }
    }

    /// Nothing of a disk will be read again.
    pub(crate) fn disk_gone(&mut self, disk: DiskId) {
        if let Some((index, _)) = self.params.nodeset.iter().find(|(_, member)| member.disk == disk) {
            self.gone.insert(index);
        }
    }

    /// The committed batches of which no disk has a copy that can be read, from first to last offset.
    pub(crate) fn lost(&self) -> impl Iterator<Item = (LogletOffset, LogletOffset)> + '_ {
        let readable =
            |batch: &Batch| batch.holders.iter().any(|at| !batch.damaged.contains(at) && !self.gone.contains(at));
        let committed = self.batches.range(..self.committed());
        committed.filter(move |(_, batch)| !readable(batch)).map(|(first, batch)| (*first, batch.end))
    }

    /// Whether the durable seals are an f-majority, and the events that made them.
    pub(crate) fn seals(&self) -> (bool, Vec<EventNumber>) {
        let sealed = self.copies.iter().filter_map(|(index, copy)| {
            let (facts, event) = copy.facts.as_ref()?;
            facts.sealed.map(|_| (*index, *event))
        });
        let (set, events): (Vec<NodeIndex>, Vec<EventNumber>) = sealed.unzip();
        (is_f_majority(&self.params, set.into_iter().collect()), events)
    }

    /// The place of a disk in the nodeset (W2).
    fn member(&self, judge: &mut Judge, node: NodeId, disk: DiskId) -> Option<NodeIndex> {
        let found = self.params.nodeset.iter().find(|(_, member)| member.node == node && member.disk == disk);
        judge.require(Rule::OnlyNamedDisks, found.is_some(), [], || {
            format!("{node} has a copy of {} on disk {disk}, which its nodeset does not name", self.params.id)
        });
        found.map(|(index, _)| index)
    }

    /// A batch is durable on a disk.
    pub(crate) fn stored(
        &mut self,
        judge: &mut Judge,
        (node, disk): (NodeId, DiskId),
        (first, end): (LogletOffset, LogletOffset),
        bytes: Value,
    ) {
        let Some(index) = self.member(judge, node, disk) else { return };
        let (id, committed) = (self.params.id, self.committed());
        let copy = self.copies.entry(index).or_insert(Copy { end: LogletOffset::FIRST, facts: None });
        let highest = copy.end.max(committed);
        judge.require(Rule::NoHoles, first <= highest, [self.latest_event], || {
            format!(
                "{node} stores [{first}, {end}) of {id}, has nothing from {} on, and {committed} is no tail",
                copy.end
            )
        });
        if let Some((facts, event)) = &copy.facts {
            if facts.sealed.is_some() {
                judge.require(Rule::SealHolds, self.batches.contains_key(&first), [*event], || {
                    format!("{node} is sealed and stores [{first}, {end}) of {id}, which no other disk has")
                });
            }
            if let Some(decided) = facts.decided_tail {
                judge.require(Rule::GarbageGoes, end <= decided, [*event], || {
                    format!("{node} stores [{first}, {end}) of {id} and knows that it ended at {decided}")
                });
            }
        }
        copy.end = copy.end.max(end);
        let sealed = copy.facts.as_ref().is_some_and(|(facts, _)| facts.sealed.is_some());
        if self.fits(judge, index, (first, end), bytes) {
            let event = judge.now();
            let fresh =
                Batch { end, bytes, holders: NodeSet::EMPTY, damaged: NodeSet::EMPTY, unsealed: NodeSet::EMPTY, event };
            let batch = self.batches.entry(first).or_insert(fresh);
            batch.holders.insert(index);
            batch.damaged.remove(index);
            if !sealed {
                batch.unsealed.insert(index);
            }
            self.raise(event);
        }
    }

    /// Whether these bytes are the only ones at these offsets (L4, A1).
    fn fits(
        &self,
        judge: &mut Judge,
        index: NodeIndex,
        (first, end): (LogletOffset, LogletOffset),
        bytes: Value,
    ) -> bool {
        // Those that begin below and above are in nobody's way, unless they overlap.
        let below = self.batches.range(..first).next_back().filter(|(_, batch)| first < batch.end);
        let above = self.batches.range(first..).next().filter(|(at, _)| **at < end);
        let other =
            below.into_iter().chain(above).find(|(at, batch)| (**at, batch.end, batch.bytes) != (first, end, bytes));
        let id = self.params.id;
        if let Some((at, batch)) = other {
            let here = batch.holders.contains(index);
            let rule = if here { Rule::WrittenOnce } else { Rule::OffsetsGivenOnce };
            judge.require(rule, false, [batch.event], || {
                let where_else = if here { "the same disk" } else { "another disk" };
                let (until, there) = (batch.end, batch.bytes);
                format!(
                    "[{first}, {end}) of {id} is stored as {bytes}, and {where_else} has {there} in [{at}, {until})"
                )
            });
            return false;
        }
        judge.held(Rule::WrittenOnce);
        judge.held(Rule::OffsetsGivenOnce);
        true
    }

    fn raise(&mut self, event: EventNumber) {
        while let Some(batch) = self.batches.get(&self.durable)
            && is_write_quorum(&self.params, batch.holders)
        {
            self.durable = batch.end;
            self.latest_event = event;
        }
        while let Some(batch) = self.batches.get(&self.sequenced)
            && is_write_quorum(&self.params, batch.unsealed)
        {
            self.sequenced = batch.end;
            self.latest_event = event;
        }
    }

    /// The state of a copy is durable on a disk.
    pub(crate) fn copy_written(&mut self, judge: &mut Judge, (node, disk): (NodeId, DiskId), facts: &CopyFacts) {
        let Some(index) = self.member(judge, node, disk) else { return };
        let (id, now) = (self.params.id, judge.now());
        let committed = (self.committed(), self.latest_event);
        let copy = self.copies.entry(index).or_insert(Copy { end: LogletOffset::FIRST, facts: None });
        let before = copy.facts.replace((*facts, now));
        let who = format_args!("{node}'s copy of {id}").to_string();
        if let Some((before, event)) = &before {
            not_back(judge, &who, (before, *event), facts);
        }
        in_order(judge, &who, facts);
        judge.require(Rule::BoundOnce, facts.bound.is_none_or(|bound| bound == self.params.sequencer), [], || {
            format!("{who} is bound to {:?}, its sequencer is {}", facts.bound, self.params.sequencer)
        });
        judge.require(Rule::CommittedIsTrue, facts.committed_tail <= committed.0, [committed.1], || {
            format!(
                "{who} has the committed tail {}, and no more than what is below {} is committed",
                facts.committed_tail, committed.0
            )
        });
        let trimmed = facts.trim_point.and_then(|point| point.advance(1).ok()).unwrap_or(LogletOffset::FIRST);
        let reached = copy.end.max(trimmed);
        // A settle cuts what lies above. What was trimmed before it came counts as stored.
        let least = facts.decided_tail.map_or(copy.end, |decided| copy.end.min(decided));
        let durable = least <= facts.local_tail && facts.local_tail <= reached;
        judge.require(Rule::CopiesKeepTheirWord, durable, before.map(|(_, event)| event), || {
            format!("{who} has the local tail {}, and everything up to {} was stored there", facts.local_tail, copy.end)
        });
        copy.end = facts.local_tail;
        if let Some(decided) = facts.decided_tail {
            judge.require(Rule::OneDecision, self.decided_tail == Some(decided), [], || {
                format!("{who} was told that it ended at {decided}, its chain says {:?}", self.decided_tail)
            });
        }
    }
}

/// What one state of a copy promises.
fn in_order(judge: &mut Judge, who: &str, facts: &CopyFacts) {
    let CopyFacts { local_tail, committed_tail, sealed, decided_tail, trim_point, .. } = *facts;
    let below_decided = decided_tail.is_none_or(|decided| committed_tail <= decided && local_tail <= decided);
    let sealed = decided_tail.is_none() || sealed.is_some();
    let trimmed = trim_point.is_none_or(|point| point < committed_tail);
    judge.require(Rule::CopiesKeepTheirWord, below_decided && sealed && trimmed, [], || {
        format!("{who} has its pointers out of order: {facts:?}")
    });
}

/// What a state of a copy must keep of the one before.
fn not_back(judge: &mut Judge, who: &str, (before, event): (&CopyFacts, EventNumber), facts: &CopyFacts) {
    judge.require(Rule::SealHolds, before.sealed.is_none() || facts.sealed.is_some(), [event], || {
        format!("{who} was sealed, and is not any more")
    });
    judge.require(Rule::BoundOnce, before.bound.is_none() || before.bound == facts.bound, [event], || {
        format!("{who} was bound to {:?} and is now to {:?}", before.bound, facts.bound)
    });
    let cut = before.decided_tail.is_none() && facts.decided_tail.is_some();
    let kept = before.committed_tail <= facts.committed_tail
        && before.trim_point <= facts.trim_point
        && (before.decided_tail.is_none() || before.decided_tail == facts.decided_tail)
        && (cut || before.local_tail <= facts.local_tail);
    judge.require(Rule::CopiesKeepTheirWord, kept, [event], || format!("{who} went back from {before:?} to {facts:?}"));
}
