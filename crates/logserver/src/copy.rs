//! The core of a log server: what one copy of a loglet promises, and what it takes.
//!
//! A plain struct without IO. Each method takes the facts of a request and decides: refuse it, or stage a change. The
//! driver (`writer.rs`) makes staged changes durable as part of a group and then calls
//! [`CopyCore::on_durable`]; only then does [`CopyCore::state`] show them (L2).

#[cfg(test)]
mod tests;

use std::hash::{Hash, Hasher};

use bifrost_types::plant::{self, Plant};
use bifrost_types::{LogletOffset, NodeGeneration, OpId};
use bifrost_wire::log_server::{CopyError, CopyState};

use crate::store::{Chunk, PlacedBatch, Stored};

/// A durable promise to take no more stores from the sequencer (L3).
///
/// L3 says that only repairs of the seal's `OpId` are taken. A seal may be an orphan whose operation will never go on;
/// so a later seal by another operation leaves the loglet sealed and makes its own operation the one that may repair.
/// That is safe: repairs never raise the committed tail beyond the sequencer's (S4), and which repaired tail counts is
/// decided by one transaction (C1). It keeps an orphan from blocking a loglet for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Seal {
    /// The operation that sealed first; kept for whoever asks how an orphaned seal came about.
    pub first: OpId,
    /// The newest operation that sealed; it may repair, and answers name it.
    pub repair: OpId,
}

/// What the store keeps of a copy besides its batches. Written in the same group as the batches that it speaks of.
///
/// `trim_point < committed_tail <= decided_tail`, `whole_tail <= local_tail <= decided_tail`, and a decided tail implies a
/// seal. Offsets in `[committed_tail, local_tail)` are all here: holes lie below the committed tail (L1), and not below the
/// whole tail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DurableState {
    /// The sequencer whose stores are taken (L5).
    pub bound: Option<NodeGeneration>,
    /// First offset that is not here.
    pub local_tail: LogletOffset,
    /// First offset not known to be on a write quorum.
    pub committed_tail: LogletOffset,
    /// The seal.
    pub seal: Option<Seal>,
    /// Where the loglet ended (S5).
    pub decided_tail: Option<LogletOffset>,
    /// Last trimmed offset.
    pub trim_point: Option<LogletOffset>,
    /// Everything below that is not trimmed was stored here: a lower bound, which spares whoever catches up from looking
    /// for holes. Nothing of the protocol depends on it.
    pub whole_tail: LogletOffset,
}

/// Without the whole tail: what does not decide anything makes no two states of a model different.
impl Hash for DurableState {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        let Self { bound, local_tail, committed_tail, seal, decided_tail, trim_point, whole_tail: _ } = self;
        (bound, local_tail, committed_tail, seal, decided_tail, trim_point).hash(hasher);
    }
}

impl DurableState {
    /// A loglet that nobody touched.
    pub const EMPTY: Self = Self {
        bound: None,
        local_tail: LogletOffset::FIRST,
        committed_tail: LogletOffset::FIRST,
        seal: None,
        decided_tail: None,
        trim_point: None,
        whole_tail: LogletOffset::FIRST,
    };

    /// Whether the pointers are in the order that the struct promises. Checked on what is read from a disk.
    pub fn is_ordered(&self) -> bool {
        let decided_first = self
            .decided_tail
            .is_none_or(|decided| self.committed_tail <= decided && self.local_tail <= decided && self.seal.is_some());
        decided_first
            && self.trim_point.is_none_or(|point| point < self.committed_tail)
            && self.whole_tail <= self.local_tail
    }
}

/// What a store wants, besides its batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreFacts {
    /// Who numbers the loglet.
    pub sequencer: NodeGeneration,
    /// Its committed tail when it sent this.
    pub committed_tail: LogletOffset,
}

/// What a repair wants, besides its batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RepairFacts {
    /// The operation that repairs.
    pub op: OpId,
    /// The highest committed tail that a sealed copy reported; it came from the sequencer.
    pub committed_tail: LogletOffset,
}

/// What to do for a store or a repair that is not refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Nothing to write; the answer is the state after the group that is being built.
    Nothing,
    /// Write every batch, and the state.
    WriteAll,
    /// Write the batches at these indexes of the request (ascending), and the state.
    Write(Vec<usize>),
    /// Nothing was changed: some of the batches lie where something may be stored. Read `[from, until)` as of a moment
    /// when nothing of this loglet is staged, and ask again with what was found.
    Compare {
        /// Where to start.
        from: LogletOffset,
        /// Where to stop.
        until: LogletOffset,
    },
}

/// Whether a request changed what must become durable before it is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It was so already.
    Unchanged,
    /// The state must be written.
    Changed,
}

/// One loglet's copy on one disk. The caller has checked the disk (W2).
///
/// `durable.local_tail <= staged.local_tail`, except after a settle, which cuts. What is staged and not durable has
/// not been answered to anybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CopyCore {
    /// As the store has it.
    durable: DurableState,
    /// As the store will have it after the group that is being built. Only its committed tail is shown before: it is
    /// news from the sequencer and true whether or not it is on this disk.
    staged: DurableState,
}

impl Default for CopyCore {
    fn default() -> Self {
        Self::recovered(DurableState::EMPTY)
    }
}

impl CopyCore {
    /// The copy as the store has it.
    pub const fn recovered(state: DurableState) -> Self {
        Self { durable: state, staged: state }
    }

    /// What may be told to others now.
    pub fn state(&self) -> CopyState {
        CopyState {
            local_tail: self.durable.local_tail,
            committed_tail: self.staged.committed_tail,
            sealed: self.durable.seal.map(|seal| seal.repair),
            decided_tail: self.durable.decided_tail,
            trim_point: self.durable.trim_point,
        }
    }

    /// First offset above the trim point that is not known to be here without a hole before it.
    pub const fn whole_tail(&self) -> LogletOffset {
        self.durable.whole_tail
    }

    /// Somebody looked, or filled the holes: everything below `whole_tail` that is not trimmed is here, durably.
    pub fn attest(&mut self, whole_tail: LogletOffset) -> Change {
        let known = whole_tail.min(self.staged.local_tail);
        if known <= self.staged.whole_tail {
            return Change::Unchanged;
        }
        self.staged.whole_tail = known;
        Change::Changed
    }

    /// The state that goes into the group that is being built.
    pub const fn staged(&self) -> &DurableState {
        &self.staged
    }

    /// The group is durable.
    pub const fn on_durable(&mut self) {
        self.durable = self.staged;
    }

    /// The group left no trace: the disk was full. News of the committed tail stays.
    pub fn on_refused(&mut self) {
        if plant::is(Plant::RefusedGroupCounts) {
            return;
        }
        let committed_tail = match self.durable.decided_tail {
            // A settle that was refused raised the committed tail to a decided tail, which is true as well, but it
            // is taken back with it so that the pointers keep their order.
            None if self.staged.decided_tail.is_some() => self.durable.committed_tail,
            _ => self.staged.committed_tail,
        };
        self.staged = DurableState { committed_tail, ..self.durable };
    }

    /// Why stores of this sequencer are refused, whatever they carry.
    ///
    /// # Errors
    /// Sealed, or bound to another sequencer.
    pub fn check_sequencer(&self, sequencer: NodeGeneration) -> Result<(), CopyError> {
        let races = plant::is(Plant::StoreRacesSeal) && self.staged.decided_tail.is_none();
        if let Some(seal) = self.staged.seal
            && !races
        {
            return Err(CopyError::Sealed { op: seal.repair });
        }
        let one_node =
            |bound: NodeGeneration| plant::is(Plant::StaleGenerationAccepted) && bound.node == sequencer.node;
        match self.staged.bound {
            Some(bound) if bound != sequencer && !one_node(bound) => Err(CopyError::OtherSequencer { bound }),
            Some(_) | None => Ok(()),
        }
    }

    /// Batches from the sequencer: contiguous, each `first_offset < end`. `found` is `None` at first, and what the
    /// store has after [`Decision::Compare`].
    ///
    /// # Errors
    /// Sealed, bound to another sequencer, a hole (L1), or a conflict (L4); nothing was changed.
    pub fn store(
        &mut self,
        facts: StoreFacts,
        batches: &[PlacedBatch],
        found: Option<&Chunk>,
    ) -> Result<Decision, CopyError> {
        self.check_sequencer(facts.sequencer)?;
        let committed_tail = self.staged.committed_tail.max(facts.committed_tail);
        let decision = self.place(committed_tail, batches, found)?;
        if !matches!(decision, Decision::Compare { .. }) {
            self.staged.bound = Some(facts.sequencer);
            self.stage(committed_tail, batches);
        }
        Ok(decision)
    }

    /// Batches of a sealed loglet from another copy (S3). `found` as for [`store`](Self::store).
    ///
    /// # Errors
    /// Not sealed by this operation, a hole, a conflict, or positions at or above the decided tail; nothing was
    /// changed.
    pub fn repair(
        &mut self,
        facts: RepairFacts,
        batches: &[PlacedBatch],
        found: Option<&Chunk>,
    ) -> Result<Decision, CopyError> {
        if self.staged.seal.is_none_or(|seal| seal.repair != facts.op) {
            return Err(CopyError::NotSealed);
        }
        // S4: the committed tail rises to what the sequencer once said, never to the end of what is repaired.
        let committed_tail = self.staged.committed_tail.max(facts.committed_tail);
        if let Some(decided) = self.staged.decided_tail {
            let end = batches.last().map_or(committed_tail, |batch| batch.end.max(committed_tail));
            if end > decided {
                return Err(CopyError::OutOfRange);
            }
        }
        let decision = self.place(committed_tail, batches, found)?;
        if !matches!(decision, Decision::Compare { .. }) {
            self.stage(committed_tail, batches);
            if plant::is(Plant::RepairedTailVisible) {
                self.staged.committed_tail = committed_tail.max(self.staged.local_tail);
            }
        }
        Ok(decision)
    }

    /// Takes no more stores from now on (L3).
    pub fn seal(&mut self, op: OpId) -> Change {
        let first = match self.staged.seal {
            Some(seal) if seal.repair == op => return Change::Unchanged,
            Some(seal) => seal.first,
            None => op,
        };
        self.staged.seal = Some(Seal { first, repair: op });
        Change::Changed
    }

    /// Learns where the loglet ended. The caller drops what lies at and above (S5). Implies a seal, and raises the
    /// committed tail: everything below a decided tail is on a write quorum (S3).
    ///
    /// # Errors
    /// [`CopyError::OutOfRange`] if another tail was decided, or if the committed tail is higher: then somebody broke
    /// the protocol, and dropping would lose acknowledged records.
    pub fn settle(&mut self, op: OpId, decided_tail: LogletOffset) -> Result<Change, CopyError> {
        match self.staged.decided_tail {
            Some(known) if known == decided_tail => return Ok(Change::Unchanged),
            Some(_) => return Err(CopyError::OutOfRange),
            None if decided_tail < self.staged.committed_tail => return Err(CopyError::OutOfRange),
            None => {}
        }
        let first = self.staged.seal.map_or(op, |seal| seal.first);
        self.staged.seal = Some(Seal { first, repair: op });
        self.staged.decided_tail = Some(decided_tail);
        self.staged.committed_tail = decided_tail;
        self.staged.local_tail = self.staged.local_tail.min(decided_tail);
        self.staged.whole_tail = self.staged.whole_tail.min(decided_tail);
        Ok(Change::Changed)
    }

    /// Drops records up to and including `trim_point`. Never goes back.
    ///
    /// # Errors
    /// [`CopyError::OutOfRange`] at or above the committed tail: what is not known to be committed is not trimmed.
    pub fn trim(&mut self, trim_point: LogletOffset) -> Result<Change, CopyError> {
        if trim_point >= self.staged.committed_tail && !plant::is(Plant::TrimAboveCommitted) {
            return Err(CopyError::OutOfRange);
        }
        let goes_back = plant::is(Plant::TrimGoesBack) && self.staged.trim_point != Some(trim_point);
        if self.staged.trim_point.is_some_and(|known| known >= trim_point) && !goes_back {
            return Ok(Change::Unchanged);
        }
        self.staged.trim_point = Some(trim_point);
        Ok(Change::Changed)
    }

    /// Asserts the order of the pointers; tests call it after every step.
    ///
    /// # Panics
    /// If the order that the structs promise does not hold.
    #[cfg(any(test, feature = "test-util"))]
    pub fn check(&self) {
        for state in [&self.durable, &self.staged] {
            assert!(state.is_ordered(), "pointers out of order: {self:?}");
        }
        assert!(self.durable.committed_tail <= self.staged.committed_tail, "committed tail went back: {self:?}");
        assert!(self.durable.trim_point <= self.staged.trim_point, "trim point went back: {self:?}");
        assert!(self.durable.seal.is_none() || self.staged.seal.is_some(), "seal was lost: {self:?}");
        assert!(
            self.staged.decided_tail.is_some() || self.durable.local_tail <= self.staged.local_tail,
            "local tail went back: {self:?}"
        );
        assert!(
            self.durable.decided_tail.is_none() || self.durable.decided_tail == self.staged.decided_tail,
            "decided tail changed: {self:?}"
        );
    }

    /// Where the batches go, with the committed tail at `committed_tail`. Changes nothing.
    fn place(
        &self,
        committed_tail: LogletOffset,
        batches: &[PlacedBatch],
        found: Option<&Chunk>,
    ) -> Result<Decision, CopyError> {
        let Some(first) = batches.first() else {
            return Ok(Decision::Nothing);
        };
        let tail = self.staged.local_tail;
        // L1: a hole may only lie below the committed tail, where another copy is known to have the record.
        let expected = tail.max(committed_tail);
        if first.first_offset > expected && !plant::is(Plant::HoleTaken) {
            return Err(CopyError::Hole { expected });
        }
        let trimmed =
            |batch: &PlacedBatch| self.staged.trim_point.is_some_and(|point| batch.end.previous() <= Some(point));
        if first.first_offset >= tail && !trimmed(first) {
            return Ok(Decision::WriteAll);
        }
        let mut compared = batches.iter().filter(|batch| batch.first_offset < tail && !trimmed(batch));
        if let Some(lowest) = compared.next()
            && found.is_none()
        {
            let until = compared.last().unwrap_or(lowest).end;
            return Ok(Decision::Compare { from: lowest.first_offset, until });
        }
        let mut writes = Vec::new();
        for (index, batch) in batches.iter().enumerate() {
            let wanted = if trimmed(batch) {
                false
            } else if batch.first_offset >= tail {
                true
            } else {
                is_missing(batch, committed_tail, found)?
            };
            if wanted {
                writes.push(index);
            }
        }
        let raises_tail = batches.last().is_some_and(|batch| batch.end > tail);
        Ok(if writes.is_empty() && !raises_tail { Decision::Nothing } else { Decision::Write(writes) })
    }

    fn stage(&mut self, committed_tail: LogletOffset, batches: &[PlacedBatch]) {
        self.staged.committed_tail = committed_tail;
        if let (Some(first), Some(last)) = (batches.first(), batches.last()) {
            self.staged.local_tail = self.staged.local_tail.max(last.end);
            // What is trimmed is no hole.
            let untrimmed = self.staged.trim_point.and_then(|point| point.advance(1).ok());
            if untrimmed.max(Some(self.staged.whole_tail)) >= Some(first.first_offset) {
                self.staged.whole_tail = self.staged.whole_tail.max(last.end);
            }
        }
    }
}

/// Whether a batch below the local tail has to be written because nothing readable is there.
fn is_missing(batch: &PlacedBatch, committed_tail: LogletOffset, found: Option<&Chunk>) -> Result<bool, CopyError> {
    let conflict = CopyError::Conflict { offset: batch.first_offset };
    let Some(chunk) = found.filter(|chunk| batch.end <= chunk.covered_until) else {
        return Err(conflict);
    };
    let mut overlapping = chunk.parts.iter().filter(|part| part.overlaps(batch.first_offset, batch.end)).peekable();
    if overlapping.peek().is_none() {
        // A backfill. Holes lie below the committed tail; anywhere else the disk lost what it had promised.
        return if batch.end <= committed_tail { Ok(true) } else { Err(conflict) };
    }
    for part in overlapping {
        match part {
            Stored::Batch(stored) if stored == batch => return Ok(false),
            Stored::Batch(_) if plant::is(Plant::ConflictOverwrites) => {}
            Stored::Batch(_) => return Err(conflict),
            Stored::Damaged { .. } => {}
        }
    }
    // Bytes that fail their checksum are not the bytes that were promised: L4 does not protect them, and the copy
    // that comes in (its checksums were verified) heals the damage.
    Ok(true)
}
