//! One log server with its disk: the real copy core, and a store that is as small as it can be.

use bifrost_logserver::check_disk;
use bifrost_logserver::copy::{Change, CopyCore, Decision, DurableState, RepairFacts, StoreFacts};
use bifrost_logserver::store::{Chunk, PlacedBatch, Stored};
use bifrost_types::{DiskId, LogletOffset, NodeGeneration, NodeIndex, OpId};
use bifrost_wire::log_server::{CopyError, CopyState};
use bytes::Bytes;

use super::call::Call;

/// Offsets that a run can use.
pub(crate) const OFFSETS: usize = 4;

/// The byte at each offset, from offset 1; 0 is none.
pub(crate) type Records = [u8; OFFSETS];

/// A batch is one record, and a record is one byte.
static BYTES: [u8; 256] = {
    let mut bytes = [0; 256];
    let mut value = 0;
    while value < 256 {
        bytes[value] = value as u8;
        value += 1;
    }
    bytes
};

/// The encoded batch of one record.
pub(crate) fn batch(record: u8) -> Bytes {
    let at = usize::from(record);
    BYTES.get(at..=at).map(Bytes::from_static).unwrap_or_default()
}

/// Offset from its number, which is never 0 here.
pub(crate) fn at(offset: u64) -> LogletOffset {
    LogletOffset::new(offset).unwrap_or(LogletOffset::FIRST)
}

/// The records `[from, until)`, in order, as long as there is one.
pub(crate) fn run_of(records: &Records, from: LogletOffset, until: LogletOffset) -> Vec<(LogletOffset, u8)> {
    let offsets = from.get()..until.get();
    offsets.map(|offset| (at(offset), record_at(records, at(offset)))).take_while(|(_, record)| *record != 0).collect()
}

/// The record at an offset; 0 is none.
pub(crate) fn record_at(records: &Records, offset: LogletOffset) -> u8 {
    usize::try_from(offset.get() - 1).ok().and_then(|slot| records.get(slot)).copied().unwrap_or(0)
}

/// One record at its offset.
pub(crate) fn placed(offset: LogletOffset, record: u8) -> PlacedBatch {
    PlacedBatch::new(offset, at(offset.get() + 1), batch(record))
}

/// A store under way, without what never differs.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Store {
    pub(crate) connection: u8,
    pub(crate) facts: StoreFactsView,
    pub(crate) records: Vec<(LogletOffset, u8)>,
}

/// [`StoreFacts`] as a part of a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct StoreFactsView {
    pub(crate) sequencer: NodeGeneration,
    pub(crate) committed_tail: LogletOffset,
}

/// Who hears of a group once it is durable.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Waiting {
    /// The sequencer, on a connection.
    Sequencer { connection: u8, outcome: Result<(), CopyError> },
    /// The one call of this finder that is here.
    Finder { finder: u8, outcome: Result<(), CopyError> },
}

/// What a group that became durable tells.
pub(crate) struct Released {
    pub(crate) waiting: Waiting,
    pub(crate) state: CopyState,
}

/// A log server.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    /// Its place in the nodeset.
    pub(crate) index: NodeIndex,
    /// Its zone; servers of one zone differ by name only.
    pub(crate) zone: u8,
    /// The disk that the nodeset names for it.
    pub(crate) named: DiskId,
    /// The disk that is in it.
    pub(crate) disk: DiskId,
    pub(crate) core: CopyCore,
    /// The state as the disk has it.
    pub(crate) durable: DurableState,
    /// The records as the disk has them.
    pub(crate) records: Records,
    /// Records of the group that is being built.
    pub(crate) staged: Records,
    /// Whether the group has something to write.
    pub(crate) dirty: bool,
    pub(crate) group: Vec<Waiting>,
    /// What the disk held that was lost, for the rules only: a loss that the replication property allows is no breach.
    pub(crate) gone: Records,
    /// Answers on their way to the sequencer, in order.
    pub(crate) answers: Vec<(u8, Result<CopyState, CopyError>)>,
    /// Stores of a connection that broke; each arrives late or never.
    pub(crate) late: Vec<Store>,
    /// Calls of finders that are under way to or from here.
    pub(crate) calls: Vec<Call>,
    /// Whether it was told the decided tail.
    pub(crate) settled: bool,
}

impl Server {
    pub(crate) fn new(index: NodeIndex, zone: u8, disk: DiskId) -> Self {
        Self {
            index,
            zone,
            named: disk,
            disk,
            core: CopyCore::default(),
            durable: DurableState::EMPTY,
            records: Records::default(),
            staged: Records::default(),
            dirty: false,
            group: Vec::new(),
            gone: Records::default(),
            answers: Vec::new(),
            late: Vec::new(),
            calls: Vec::new(),
            settled: false,
        }
    }

    /// What its disk holds, or held before it was lost.
    pub(crate) fn held(&self, offset: LogletOffset) -> u8 {
        match record_at(&self.records, offset) {
            0 => record_at(&self.gone, offset),
            record => record,
        }
    }

    /// As every request is checked: each names the disk of the nodeset (W2).
    pub(crate) fn check_disk(&self) -> Result<(), CopyError> {
        check_disk(self.named, self.disk)
    }

    /// Takes what a sequencer sends. `None` when nobody is answered: the news that a store without batches carries.
    pub(crate) fn store(&mut self, store: &Store, out: &mut Vec<Released>) -> Option<Waiting> {
        let StoreFactsView { sequencer, committed_tail } = store.facts;
        let facts = StoreFacts { sequencer, committed_tail };
        let batches: Vec<_> = store.records.iter().map(|(offset, record)| placed(*offset, *record)).collect();
        let outcome = self
            .check_disk()
            .and_then(|()| self.place(&batches, |core, found| core.store(facts, &batches, found), out));
        let silent = batches.is_empty() && outcome.is_ok();
        (!silent).then_some(Waiting::Sequencer { connection: store.connection, outcome })
    }

    /// Takes a repair.
    pub(crate) fn repair(
        &mut self,
        facts: RepairFacts,
        records: &[(LogletOffset, u8)],
        out: &mut Vec<Released>,
    ) -> Result<(), CopyError> {
        let batches: Vec<_> = records.iter().map(|(offset, record)| placed(*offset, *record)).collect();
        self.check_disk()?;
        self.place(&batches, |core, found| core.repair(facts, &batches, found), out)
    }

    /// Seals.
    pub(crate) fn seal(&mut self, op: OpId) -> Result<(), CopyError> {
        self.check_disk()?;
        self.dirty |= self.core.seal(op) == Change::Changed;
        Ok(())
    }

    /// Learns the decided tail.
    pub(crate) fn settle(&mut self, op: OpId, decided_tail: LogletOffset) -> Result<(), CopyError> {
        self.check_disk()?;
        self.dirty |= self.core.settle(op, decided_tail)? == Change::Changed;
        Ok(())
    }

    /// Trims.
    pub(crate) fn trim(&mut self, trim_point: LogletOffset) -> Result<Change, CopyError> {
        let change = self.core.trim(trim_point)?;
        self.dirty |= change == Change::Changed;
        Ok(change)
    }

    /// As the writer does it: what is staged cannot be compared with, so it becomes durable first.
    fn place(
        &mut self,
        batches: &[PlacedBatch],
        decide: impl Fn(&mut CopyCore, Option<&Chunk>) -> Result<Decision, CopyError>,
        out: &mut Vec<Released>,
    ) -> Result<(), CopyError> {
        let mut decision = decide(&mut self.core, None)?;
        if let Decision::Compare { from, until } = decision {
            self.commit(out);
            let offsets = from.get()..until.get();
            let found = offsets.map(at).map(|offset| (offset, record_at(&self.records, offset)));
            let parts = found.filter(|(_, record)| *record != 0).map(|(at, record)| Stored::Batch(placed(at, record)));
            let chunk = Chunk { parts: parts.collect(), covered_until: until };
            decision = decide(&mut self.core, Some(&chunk))?;
        }
        let wanted = match decision {
            Decision::Nothing => return Ok(()),
            Decision::WriteAll => None,
            Decision::Write(indexes) => Some(indexes),
            Decision::Compare { from, .. } => return Err(CopyError::Conflict { offset: from }),
        };
        self.dirty = true;
        for (index, batch) in batches.iter().enumerate() {
            let slot = usize::try_from(batch.first_offset.get() - 1).ok().and_then(|slot| self.staged.get_mut(slot));
            if let (true, Some(slot)) = (wanted.as_ref().is_none_or(|wanted| wanted.contains(&index)), slot) {
                *slot = batch.bytes().first().copied().unwrap_or(0);
            }
        }
        Ok(())
    }

    /// The group becomes durable, and whoever waits is told.
    ///
    /// # Panics
    /// When the core's pointers are out of order, or a record would be overwritten with another one (L4).
    pub(crate) fn commit(&mut self, out: &mut Vec<Released>) {
        if std::mem::take(&mut self.dirty) {
            for (record, staged) in self.records.iter_mut().zip(std::mem::take(&mut self.staged)) {
                assert!(staged == 0 || *record == 0 || *record == staged, "L4: record {staged} replaces {record}");
                if staged != 0 {
                    *record = staged;
                }
            }
            self.durable = *self.core.staged();
            if let Some(decided) = self.durable.decided_tail {
                for (slot, record) in self.records.iter_mut().enumerate() {
                    if slot as u64 + 1 >= decided.get() {
                        *record = 0;
                    }
                }
            }
            self.core.on_durable();
        }
        self.core.check();
        let state = self.core.state();
        out.extend(std::mem::take(&mut self.group).into_iter().map(|waiting| Released { waiting, state }));
    }

    /// The disk is full: the group leaves no trace, and whoever waits is told so.
    pub(crate) fn refuse(&mut self, out: &mut Vec<Released>) {
        self.staged = Records::default();
        self.dirty = false;
        self.core.on_refused();
        self.core.check();
        let state = self.core.state();
        let refused = std::mem::take(&mut self.group).into_iter().map(|waiting| match waiting {
            Waiting::Sequencer { connection, outcome } => {
                Waiting::Sequencer { connection, outcome: outcome.and(Err(CopyError::DiskFull)) }
            }
            Waiting::Finder { finder, outcome } => {
                Waiting::Finder { finder, outcome: outcome.and(Err(CopyError::DiskFull)) }
            }
        });
        out.extend(refused.map(|waiting| Released { waiting, state }));
    }

    /// Comes back with what is durable. Whoever waited for the group hears nothing.
    pub(crate) fn restart(&mut self) -> Vec<Waiting> {
        self.core = CopyCore::recovered(self.durable);
        self.staged = Records::default();
        self.dirty = false;
        std::mem::take(&mut self.group)
    }

    /// Comes back with another disk, an empty one (W2).
    pub(crate) fn lose_disk(&mut self, other: DiskId) -> Vec<Waiting> {
        self.gone = self.records;
        self.records = Records::default();
        self.durable = DurableState::EMPTY;
        self.disk = other;
        self.restart()
    }

    /// L1: everything from the durable committed tail to the local tail is on the disk.
    pub(crate) fn is_without_hole(&self) -> bool {
        let untrimmed = self.durable.trim_point.map_or(1, |point| point.get() + 1);
        let mut offsets = self.durable.committed_tail.get().max(untrimmed)..self.durable.local_tail.get();
        offsets.all(|offset| record_at(&self.records, at(offset)) != 0)
    }
}
