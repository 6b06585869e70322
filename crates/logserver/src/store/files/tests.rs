//! The store on a disk and an index that crash.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use bifrost_journal::directory::memory::MemoryDirectory;
use bifrost_journal::{Directory, JournalOptions, RealDirectory};
use proptest::prelude::*;

use super::index::memory::MemoryIndex;
use super::{FileStore, FileStoreError};
use crate::copy::DurableState;
use crate::store::{Change, Group, PlacedBatch, Recovered, StoreError, Stored};
use crate::testing::*;
use bifrost_types::LogletId;

const BLOCK: u64 = bifrost_journal::BLOCK_BYTES as u64;
const OPTIONS: JournalOptions =
    JournalOptions { file_bytes: 8 * BLOCK, prepares_ahead: false, keeps_files: true, reused_bytes: 0 };

type Store = FileStore<MemoryDirectory, MemoryIndex>;

#[derive(Debug, Clone, Default)]
struct Disk {
    files: MemoryDirectory,
    index: MemoryIndex,
}

impl Disk {
    fn open(&self) -> Result<Store, FileStoreError> {
        let mut salt = 0;
        let salts = Box::new(move || {
            salt += 1;
            salt
        });
        FileStore::open(self.index.clone(), self.files.clone(), Path::new("here"), OPTIONS, salts)
    }
}

fn of(number: u64) -> LogletId {
    loglet(number, 0)
}

/// A batch with some bytes behind it, so that few fit a file.
fn long(first_offset: u64, records: u64, salt: u8) -> PlacedBatch {
    let short = placed(first_offset, records);
    PlacedBatch::new(short.first_offset, short.end, [&short.bytes()[..], &[salt; 3000]].concat().into())
}

#[derive(Debug, Clone)]
enum Act {
    /// To the ends of some loglets.
    Append {
        loglets: Vec<u64>,
        records: u64,
    },
    /// Once more, what is there already.
    Again {
        loglet: u64,
    },
    DropBelow {
        loglet: u64,
        share: u8,
    },
    DropFrom {
        loglet: u64,
        share: u8,
    },
    Checkpoint,
    Flush,
    Compact,
    Reopen,
    StopAfter {
        changes: u64,
    },
}

fn act() -> impl Strategy<Value = Act> {
    let loglet = || 1..5_u64;
    prop_oneof![
        10 => (prop::collection::vec(loglet(), 1..4), 1..4_u64)
            .prop_map(|(loglets, records)| Act::Append { loglets, records }),
        1 => loglet().prop_map(|loglet| Act::Again { loglet }),
        3 => (loglet(), any::<u8>()).prop_map(|(loglet, share)| Act::DropBelow { loglet, share }),
        1 => (loglet(), any::<u8>()).prop_map(|(loglet, share)| Act::DropFrom { loglet, share }),
        3 => Just(Act::Checkpoint),
        2 => Just(Act::Flush),
        3 => Just(Act::Compact),
        1 => Just(Act::Reopen),
        1 => (0..20_u64).prop_map(|changes| Act::StopAfter { changes }),
    ]
}

/// What must be there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Model {
    batches: BTreeMap<(LogletId, u64), PlacedBatch>,
    states: BTreeMap<LogletId, DurableState>,
    ends: BTreeMap<LogletId, u64>,
}

impl Model {
    fn apply(&mut self, changes: &[Change]) {
        for change in changes {
            match change {
                Change::Append { loglet, batch } => {
                    self.batches.insert((*loglet, batch.first_offset.get()), batch.clone());
                    let end = self.ends.entry(*loglet).or_insert(1);
                    *end = (*end).max(batch.end.get());
                }
                Change::Put { loglet, state } => drop(self.states.insert(*loglet, *state)),
                Change::DropBelow { loglet, offset } => {
                    self.batches.retain(|(of, _), batch| of != loglet || batch.end > *offset);
                }
                Change::DropFrom { loglet, offset } => {
                    self.batches.retain(|(of, first), _| of != loglet || *first < offset.get());
                    let ends = self.batches.range((*loglet, 0)..=(*loglet, u64::MAX)).map(|(_, batch)| batch.end.get());
                    let end = ends.max().unwrap_or(1).max(offset.get());
                    self.ends.insert(*loglet, end);
                }
            }
        }
    }

    fn end(&self, loglet: LogletId) -> u64 {
        self.ends.get(&loglet).copied().unwrap_or(1)
    }

    /// The changes of an act, if it is one that changes something.
    fn changes(&self, act: &Act, number: usize) -> Vec<Change> {
        let state = |loglet| Change::Put {
            loglet,
            state: DurableState { local_tail: at(number as u64 + 1), ..DurableState::EMPTY },
        };
        let within = |loglet, share: u8| at(1 + self.end(loglet) * u64::from(share) / 256);
        match act {
            Act::Append { loglets, records } => {
                let mut after = self.clone();
                let mut changes = Vec::new();
                for loglet in loglets.iter().map(|number| of(*number)) {
                    let batch = long(after.end(loglet), *records, number as u8);
                    changes.extend([Change::Append { loglet, batch }, state(loglet)]);
                    after = self.clone();
                    after.apply(&changes);
                }
                changes
            }
            Act::Again { loglet } => {
                let found = self.batches.range((of(*loglet), 0)..=(of(*loglet), u64::MAX)).next();
                found
                    .map(|((loglet, _), batch)| Change::Append { loglet: *loglet, batch: batch.clone() })
                    .into_iter()
                    .collect()
            }
            Act::DropBelow { loglet, share } => {
                let loglet = of(*loglet);
                vec![state(loglet), Change::DropBelow { loglet, offset: within(loglet, *share) }]
            }
            Act::DropFrom { loglet, share } => {
                let loglet = of(*loglet);
                vec![Change::DropFrom { loglet, offset: within(loglet, *share) }, state(loglet)]
            }
            _ => Vec::new(),
        }
    }

    fn check(&self, store: &Store) {
        let states = store.recover().unwrap();
        let expected: Vec<Recovered> =
            self.states.iter().map(|(loglet, state)| Recovered { loglet: *loglet, state: *state }).collect();
        assert_eq!(states, expected);
        for loglet in (1..5).map(of) {
            let expected: Vec<Stored> = self
                .batches
                .range((loglet, 0)..=(loglet, u64::MAX))
                .map(|(_, batch)| Stored::Batch(batch.clone()))
                .collect();
            let chunk = store.read(loglet, at(1), at(1 << 30), usize::MAX).unwrap();
            assert_eq!(chunk.parts, expected, "{loglet}");
        }
    }
}

fn play(acts: Vec<Act>, survives: &[bool]) {
    let disk = Disk::default();
    let mut survives = survives.iter().copied().cycle();
    let mut survives = || survives.next().unwrap_or_default();
    let mut model = Model::default();
    let mut in_flight: Option<Model> = None;
    let mut store = disk.open().unwrap();
    for (number, act) in acts.into_iter().enumerate() {
        let changes = model.changes(&act, number);
        if !changes.is_empty() {
            let mut group = Group::default();
            changes.iter().for_each(|change| group.push(change.clone()));
            let mut after = model.clone();
            after.apply(&changes);
            match store.commit(&group) {
                Ok(_) => model = after,
                Err(_) => in_flight = Some(after),
            }
        }
        match act {
            Act::Checkpoint => drop(store.checkpoint()),
            Act::Flush => drop(super::Index::flush(store.index())),
            Act::Compact => {
                if let Some(file) = store.sparsest(1) {
                    // Stopped in the middle, it is done again.
                    let _stopped = store.compact(file, |_| true);
                }
            }
            Act::StopAfter { changes } => {
                disk.files.stop_after(changes);
                continue;
            }
            _ => {}
        }
        if disk.files.is_stopped() || matches!(act, Act::Reopen) {
            drop(store);
            disk.index.crash();
            if disk.files.is_stopped() {
                if survives() { disk.files.kill() } else { disk.files.crash(&mut survives) }
            }
            store = disk
                .open()
                .or_else(|_| {
                    assert!(disk.files.is_stopped());
                    disk.files.crash(&mut survives);
                    disk.index.crash();
                    disk.open()
                })
                .unwrap();
            // What was being written is there as a whole, or not at all.
            if let Some(after) = in_flight.take()
                && store.recover().unwrap()
                    == after
                        .states
                        .iter()
                        .map(|(loglet, state)| Recovered { loglet: *loglet, state: *state })
                        .collect::<Vec<_>>()
            {
                model = after;
            }
        }
        if !disk.files.is_stopped() {
            model.check(&store);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn what_was_committed_is_there_after_any_crash(
        acts in prop::collection::vec(act(), 1..80),
        survives in prop::collection::vec(any::<bool>(), 1..40),
    ) {
        #[cfg(bifrost_plant)]
        bifrost_types::plant::set_from_env();
        play(acts, &survives);
    }
}

fn commit(store: &Store, changes: impl IntoIterator<Item = Change>) {
    let mut group = Group::default();
    changes.into_iter().for_each(|change| group.push(change));
    store.commit(&group).unwrap();
}

fn append(number: u64, first_offset: u64) -> Change {
    Change::Append { loglet: of(number), batch: long(first_offset, 1, 0) }
}

fn trim(number: u64, offset: u64) -> Change {
    Change::DropBelow { loglet: of(number), offset: at(offset) }
}

fn names(disk: &Disk) -> Vec<String> {
    disk.files.names().unwrap()
}

#[test]
fn files_of_trimmed_loglets_go_and_the_others_stay() {
    let disk = Disk::default();
    let store = disk.open().unwrap();
    for offset in 1..=70 {
        commit(&store, [append(1, offset)]);
    }
    store.checkpoint().unwrap();
    assert_eq!(names(&disk).len(), 10, "a frame to a block, seven to a file");
    commit(&store, [trim(1, 36)]);
    store.checkpoint().unwrap();
    let left = names(&disk);
    assert_eq!(left.len(), 7, "of eleven five were dead, and one of them is kept to be used again: {left:?}");
    for offset in 71..=77 {
        commit(&store, [append(1, offset)]);
    }
    let reused = names(&disk);
    assert_eq!(reused.len(), 7, "{reused:?}");
    assert!(reused.contains(&"0000000012.journal".to_owned()), "{reused:?}");
    let found = store.read(of(1), at(1), at(100), usize::MAX).unwrap();
    assert_eq!(found.parts.first().map(Stored::first_offset), Some(at(36)));
    assert_eq!(found.parts.len(), 42);
}

#[test]
fn a_file_of_which_little_is_needed_is_written_once_more_and_goes() {
    let disk = Disk::default();
    let store = disk.open().unwrap();
    // One slow loglet among what a busy one writes.
    for offset in 1..=28 {
        let slow = (offset % 7 == 1).then(|| append(2, offset / 7 + 1));
        commit(&store, slow.into_iter().chain([append(1, offset)]));
    }
    commit(&store, [trim(1, 29)]);
    store.checkpoint().unwrap();
    assert_eq!(store.sparsest(100), None);
    let before = names(&disk).len();
    while let Some(file) = store.sparsest(2) {
        store.compact(file, |_| true).unwrap();
        store.checkpoint().unwrap();
    }
    assert!(names(&disk).len() < before / 2 + 1, "{before}, {:?}", names(&disk));
    drop(store);
    disk.index.crash();
    let store = disk.open().unwrap();
    let found = store.read(of(2), at(1), at(100), usize::MAX).unwrap();
    assert_eq!(found.parts, [1, 2, 3, 4].map(|offset| Stored::Batch(long(offset, 1, 0))));
}

#[test]
fn without_a_file_that_is_needed_it_does_not_open() {
    let disk = Disk::default();
    let store = disk.open().unwrap();
    for offset in 1..=30 {
        commit(&store, [append(1, offset)]);
    }
    store.checkpoint().unwrap();
    drop(store);
    disk.files.remove("0000000002.journal").unwrap();
    assert!(matches!(disk.open(), Err(FileStoreError::Missing { file: 2 })));
}

#[test]
fn a_batch_that_rotted_is_damaged_and_its_neighbours_are_not() {
    let disk = Disk::default();
    let store = disk.open().unwrap();
    for offset in 1..=30 {
        commit(&store, [append(1, offset)]);
    }
    store.checkpoint().unwrap();
    // The second file begins with offset 8, its third block has offset 9.
    disk.files.damage("0000000002.journal", 2 * BLOCK as usize + 500);
    let found = store.read(of(1), at(1), at(31), usize::MAX).unwrap();
    let expected: Vec<Stored> = (1..=30)
        .map(|offset| match offset {
            9 => Stored::Damaged { first_offset: at(9), end: at(10) },
            _ => Stored::Batch(long(offset, 1, 0)),
        })
        .collect();
    assert_eq!(found.parts, expected);
    // What cannot be read to its end stays, so that nothing behind the damage is lost.
    commit(&store, [append(2, 1)]);
    store.compact(2, |_| true).unwrap();
    store.checkpoint().unwrap();
    assert_eq!(store.read(of(1), at(1), at(31), usize::MAX).unwrap().parts, expected);
    assert_eq!(store.sparsest(1), store.sparsest(1));
    drop(store);
    disk.index.crash();
    assert_eq!(disk.open().unwrap().read(of(1), at(1), at(31), usize::MAX).unwrap().parts, expected);
}

#[test]
fn a_full_disk_refuses_a_group_and_leaves_no_trace() {
    let disk = Disk::default();
    let store = disk.open().unwrap();
    disk.files.limit(Some(16));
    let mut offset = 1;
    let refused = loop {
        let mut group = Group::default();
        group.push(append(1, offset));
        match store.commit(&group) {
            Ok(_) => offset += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, StoreError::Full), "{refused}");
    assert_eq!(store.read(of(1), at(1), at(100), usize::MAX).unwrap().parts.len() as u64, offset - 1);
    // A trim makes room on the same disk: what it drops is in the first file.
    disk.files.limit(None);
    commit(&store, [trim(1, offset)]);
    store.checkpoint().unwrap();
    disk.files.limit(Some(16));
    commit(&store, [append(1, offset)]);
    let files: BTreeSet<String> = names(&disk).into_iter().collect();
    assert!(files.len() <= 3, "{files:?}");
}

#[test]
fn a_file_that_somebody_reads_stays_as_it_is() {
    let disk = Disk::default();
    let store = disk.open().unwrap();
    for offset in 1..=20 {
        commit(&store, [append(1, offset)]);
    }
    let reader = store.readers.get(1).unwrap().expect("it is there");
    commit(&store, [trim(1, 15)]);
    store.checkpoint().unwrap();
    assert!(names(&disk).contains(&"0000000001.journal".to_owned()), "{:?}", names(&disk));
    assert!(store.readers.get(1).unwrap().is_none(), "nobody else begins to read it");
    drop(reader);
    store.checkpoint().unwrap();
    // Of the first two one was used again or removed at once.
    assert!(!names(&disk).contains(&"0000000002.journal".to_owned()), "{:?}", names(&disk));
    for offset in 21..=50 {
        commit(&store, [append(1, offset)]);
    }
    assert!(!names(&disk).contains(&"0000000001.journal".to_owned()), "{:?}", names(&disk));
}

#[test]
fn an_end_that_is_cut_off_frees_its_files() {
    let disk = Disk::default();
    let store = disk.open().unwrap();
    for offset in 1..=40 {
        commit(&store, [append(1, offset)]);
    }
    store.checkpoint().unwrap();
    let before = names(&disk).len();
    commit(&store, [Change::DropFrom { loglet: of(1), offset: at(10) }, append(2, 1)]);
    store.checkpoint().unwrap();
    assert!(names(&disk).len() < before - 1, "{before}, {:?}", names(&disk));
    // Everything below the cut goes with the next trim, and nothing keeps a file for what was above it.
    commit(&store, [trim(1, 10)]);
    store.checkpoint().unwrap();
    assert_eq!(names(&disk).len(), 2, "the newest one, and one to be used again: {:?}", names(&disk));
}

#[test]
fn a_batch_that_reaches_over_a_cut_and_a_trim_keeps_its_file() {
    let disk = Disk::default();
    let store = disk.open().unwrap();
    let reaching = long(1, 4, 7);
    commit(&store, [Change::Append { loglet: of(1), batch: reaching.clone() }]);
    commit(&store, [Change::DropFrom { loglet: of(1), offset: at(3) }]);
    commit(&store, [trim(1, 3)]);
    for offset in 1..=30 {
        commit(&store, [append(2, offset)]);
    }
    commit(&store, [trim(2, 31)]);
    store.checkpoint().unwrap();
    assert_eq!(store.read(of(1), at(1), at(9), usize::MAX).unwrap().parts, [Stored::Batch(reaching)]);
}

#[test]
fn what_is_trimmed_while_its_file_is_compacted_does_not_come_back() {
    let disk = Disk::default();
    let store = disk.open().unwrap();
    for offset in 1..=30 {
        commit(&store, [append(1, offset)]);
    }
    store.checkpoint().unwrap();
    let mut groups = 0;
    let went_on = store.compact(2, |_| {
        groups += 1;
        if groups == 5 {
            commit(&store, [trim(1, 12)]);
        }
        true
    });
    assert!(went_on.unwrap());
    store.checkpoint().unwrap();
    let found = store.read(of(1), at(1), at(100), usize::MAX).unwrap();
    assert_eq!(found.parts.first().map(Stored::first_offset), Some(at(12)));
    assert_eq!(found.parts.len(), 19);
}

#[test]
fn without_the_newest_groups_that_the_index_knows_it_does_not_open() {
    let disk = Disk::default();
    let store = disk.open().unwrap();
    for offset in 1..=10 {
        commit(&store, [append(1, offset)]);
    }
    super::Index::flush(store.index()).unwrap();
    drop(store);
    disk.files.remove("0000000002.journal").unwrap();
    let refused = disk.open().unwrap_err();
    assert!(refused.is_damage(), "{refused}");
}

#[test]
fn after_a_failure_of_the_index_nothing_is_taken_and_no_file_goes() {
    let refusals: [fn() -> StoreError; 2] =
        [|| StoreError::Full, || StoreError::Failed { cause: crate::store::Cause::Injected }];
    for refusal in refusals {
        for fails_in_checkpoint in [true, false] {
            let disk = Disk::default();
            let store = disk.open().unwrap();
            for offset in 1..=10 {
                commit(&store, [append(1, offset)]);
            }
            store.checkpoint().unwrap();
            for offset in 11..=40 {
                commit(&store, [append(1, offset)]);
            }
            disk.index.refuse(Some(refusal));
            let mut group = Group::default();
            group.push(trim(1, 30));
            let failed = if fails_in_checkpoint { store.checkpoint() } else { store.commit(&group).map(drop) };
            let failed = failed.unwrap_err();
            disk.index.refuse(None);
            let refused = store.commit(&group).unwrap_err();
            assert_eq!(matches!(refused, StoreError::Full), matches!(failed, StoreError::Full), "{refused}");
            let before = names(&disk);
            store.checkpoint().unwrap();
            store.checkpoint().unwrap();
            assert_eq!(names(&disk), before, "the books are not to be believed");
            drop(store);
            disk.index.crash();
            let store = disk.open().unwrap();
            // The trim is in the files, and may be there as a whole.
            let first = if fails_in_checkpoint { 1 } else { 30 };
            let found = store.read(of(1), at(1), at(100), usize::MAX).unwrap();
            let expected: Vec<Stored> = (first..=40).map(|offset| Stored::Batch(long(offset, 1, 0))).collect();
            assert_eq!(found.parts, expected);
        }
    }
}

#[test]
fn a_trim_sees_a_cut_of_the_same_group() {
    let disk = Disk::default();
    let store = disk.open().unwrap();
    for offset in 1..=30 {
        commit(&store, [append(1, offset)]);
    }
    store.checkpoint().unwrap();
    commit(&store, [Change::DropFrom { loglet: of(1), offset: at(12) }, trim(1, 12)]);
    commit(&store, [append(2, 1)]);
    store.checkpoint().unwrap();
    let left = names(&disk);
    assert_eq!(left.len(), 2, "the newest one, and one to be used again: {left:?}");
}

#[test]
fn a_group_costs_its_files_as_much_with_many_records_as_with_one() {
    let cost = |batches: u64, records: u64| {
        let parent = tempfile::tempdir().unwrap();
        let directory = RealDirectory::open(&parent.path().join("records")).unwrap();
        let options =
            JournalOptions { file_bytes: 64 << 20, prepares_ahead: false, keeps_files: true, reused_bytes: 0 };
        let salts = Box::new(|| 1);
        let store = FileStore::open(MemoryIndex::default(), directory, Path::new("here"), options, salts).unwrap();
        let group = |turn: u64| {
            let mut group = Group::default();
            for batch in 0..batches {
                let batch: PlacedBatch = placed((turn * batches + batch) * records + 1, records);
                group.push(Change::Append { loglet: loglet(1, 0), batch });
            }
            group
        };
        let groups: Vec<Group> = (0..33).map(group).collect();
        usual(|turn| {
            store.commit(&groups[turn as usize]).unwrap();
        })
    };
    let (one, many, several) = (cost(1, 1), cost(1, 256), cost(16, 256));
    assert!(one.count_total <= 6, "{one:?}");
    assert!(many.count_total <= one.count_total, "{many:?}");
    assert!(many.bytes_total <= one.bytes_total + 256, "a payload was copied: {many:?}");
    assert!(several.count_total <= 3 * 16, "{several:?}");
}
