//! Random schedules against a model that knows only what was promised to the outside.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Event {
    Store { sequencer: u32, committed: u64, batches: Vec<PlacedBatch> },
    Repair { op: u128, committed: u64, batches: Vec<PlacedBatch> },
    Seal { op: u128 },
    Settle { op: u128, decided: u64 },
    Trim { point: u64 },
    Durable,
    Full,
    Crash,
}

fn batches() -> impl Strategy<Value = Vec<PlacedBatch>> {
    let records = prop::collection::vec(1..4_u64, 0..4);
    (1..24_u64, records, prop::bool::weighted(0.1)).prop_map(|(first, records, other_bytes)| {
        let extra = if other_bytes { "!" } else { "" };
        let mut next = first;
        let mut place = |count: u64| {
            next += count;
            placed_with(next - count, count, extra)
        };
        records.into_iter().map(&mut place).collect()
    })
}

fn event() -> impl Strategy<Value = Event> {
    let by = prop_oneof![9 => Just(1_u32), 1 => Just(2)];
    prop_oneof![
        12 => (by, 1..20_u64, batches())
            .prop_map(|(sequencer, committed, batches)| Event::Store { sequencer, committed, batches }),
        4 => (1..4_u128, 1..20_u64, batches())
            .prop_map(|(op, committed, batches)| Event::Repair { op, committed, batches }),
        1 => (1..4_u128).prop_map(|op| Event::Seal { op }),
        1 => (1..4_u128, 1..24_u64).prop_map(|(op, decided)| Event::Settle { op, decided }),
        1 => (1..24_u64).prop_map(|point| Event::Trim { point }),
        6 => Just(Event::Durable),
        1 => Just(Event::Full),
        1 => Just(Event::Crash),
    ]
}

/// The batches of a disk by first offset.
type Disk = BTreeMap<u64, PlacedBatch>;

/// A disk, what is staged for it, and what outsiders told.
#[derive(Default)]
struct World {
    core: CopyCore,
    disk: Disk,
    staged: Disk,
    /// The highest committed tail that an accepted request carried, or decided tail.
    told_committed: u64,
}

impl World {
    /// What the driver does: before a comparison it makes durable what is staged.
    fn place(
        &mut self,
        batches: &[PlacedBatch],
        decide: impl Fn(&mut CopyCore, Option<&Chunk>) -> Result<Decision, CopyError>,
    ) -> Result<(), CopyError> {
        let mut decision = decide(&mut self.core, None)?;
        if let Decision::Compare { from, until } = decision {
            self.durable();
            let overlapping = self.disk.values().filter(|batch| batch.first_offset < until && from < batch.end);
            let parts = overlapping.cloned().map(Stored::Batch).collect();
            decision = decide(&mut self.core, Some(&Chunk { parts, covered_until: until }))?;
        }
        let writes: Vec<usize> = match decision {
            Decision::Nothing => Vec::new(),
            Decision::WriteAll => (0..batches.len()).collect(),
            Decision::Write(indexes) => indexes,
            Decision::Compare { .. } => panic!("asked twice"),
        };
        for batch in writes.into_iter().map(|index| &batches[index]) {
            for offset in batch.first_offset.get()..batch.end.get() {
                let written = covers(&self.disk, offset) || covers(&self.staged, offset);
                assert!(!written, "offset {offset} is written twice (L4)");
            }
            self.staged.insert(batch.first_offset.get(), batch.clone());
        }
        Ok(())
    }

    fn durable(&mut self) {
        let cut = self.core.staged().decided_tail.map_or(u64::MAX, LogletOffset::get);
        self.disk.append(&mut self.staged);
        self.disk.retain(|first, _| *first < cut);
        self.core.on_durable();
    }

    fn step(&mut self, event: &Event) {
        let before = self.core.state();
        let DurableState { bound, seal, .. } = *self.core.staged();
        match event {
            Event::Store { sequencer: by, committed, batches } => {
                let facts = StoreFacts { sequencer: sequencer(*by), committed_tail: at(*committed) };
                if self.place(batches, |core, found| core.store(facts, batches, found)).is_ok() {
                    assert!(seal.is_none(), "a store was taken after a seal (L3)");
                    assert!(bound.is_none_or(|bound| bound == sequencer(*by)), "a second sequencer (L5)");
                    self.told_committed = self.told_committed.max(*committed);
                }
            }
            Event::Repair { op: by, committed, batches } => {
                let facts = RepairFacts { op: op(*by), committed_tail: at(*committed) };
                if self.place(batches, |core, found| core.repair(facts, batches, found)).is_ok() {
                    assert_eq!(seal.map(|seal| seal.repair), Some(op(*by)), "a repair of another operation (L3)");
                    self.told_committed = self.told_committed.max(*committed);
                }
            }
            Event::Seal { op: by } => {
                self.core.seal(op(*by));
            }
            Event::Settle { op: by, decided } => {
                if self.core.settle(op(*by), at(*decided)).is_ok() {
                    self.told_committed = self.told_committed.max(*decided);
                    self.staged.retain(|first, _| first < decided);
                }
            }
            // A refusal is an answer as well.
            Event::Trim { point } => drop(self.core.trim(at(*point))),
            Event::Durable => self.durable(),
            Event::Full => {
                self.staged.clear();
                self.core.on_refused();
            }
            Event::Crash => {
                self.staged.clear();
                self.core = CopyCore::recovered(self.core.durable);
            }
        }
        self.check(before, matches!(event, Event::Crash | Event::Full));
    }

    /// What others were told stays true.
    fn check(&self, before: CopyState, lost: bool) {
        self.core.check();
        let now = self.core.state();
        assert!(now.committed_tail.get() <= self.told_committed.max(1), "a committed tail that nobody told (S4)");
        assert!(lost || now.committed_tail >= before.committed_tail, "the committed tail went back");
        assert!(before.sealed.is_none() || now.sealed.is_some(), "a durable seal was lost");
        assert!(before.decided_tail.is_none() || now.decided_tail == before.decided_tail, "two decided tails");
        assert!(now.trim_point >= before.trim_point, "the trim point went back");
        assert!(now.decided_tail.is_some() || now.local_tail >= before.local_tail, "durable records were lost");
        // L1: everything from the durable committed tail to the local tail is on the disk.
        let untrimmed = now.trim_point.map_or(1, |point| point.get() + 1);
        for offset in self.core.durable.committed_tail.get().max(untrimmed)..now.local_tail.get() {
            assert!(covers(&self.disk, offset), "a hole at {offset} above the committed tail: {:?}", self.core);
        }
        for offset in untrimmed..self.core.durable.whole_tail.get() {
            assert!(covers(&self.disk, offset), "a hole at {offset} below the whole tail: {:?}", self.core);
        }
        if let Some(decided) = now.decided_tail {
            assert!(self.disk.keys().all(|first| *first < decided.get()), "garbage above the decided tail (S5)");
        }
    }
}

fn covers(disk: &Disk, offset: u64) -> bool {
    disk.range(..=offset).next_back().is_some_and(|(_, batch)| batch.end.get() > offset)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_schedule_breaks_a_promise(events in prop::collection::vec(event(), 1..500)) {
        #[cfg(bifrost_plant)]
        bifrost_types::plant::set_from_env();
        let mut world = World::default();
        for event in &events {
            world.step(event);
        }
    }
}
