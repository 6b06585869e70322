//! Files that stay until they are discarded.

use std::collections::BTreeMap;
use std::path::Path;

use proptest::prelude::*;

use super::{SMALL, append, counting, group};
use crate::directory::ReadFile;
use crate::directory::memory::MemoryDirectory;
use crate::frame::BLOCK_BYTES;
use crate::{Journal, JournalOptions, OpenError, Position, Replayed, open_to_read, remove_file};

const KEEPING: JournalOptions = JournalOptions { keeps_files: true, reused_bytes: 3 * SMALL.file_bytes, ..SMALL };

#[derive(Debug, Clone)]
enum Act {
    Append {
        bytes: usize,
    },
    /// All groups so far are durable elsewhere, and so is what is in full files.
    Checkpoint,
    /// One of the files that are known elsewhere is needed no more.
    Discard {
        which: prop::sample::Index,
    },
    /// There is room for so many files that wait to be used again.
    Spare {
        files: u64,
    },
    Reopen,
    StopAfter {
        changes: u64,
    },
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        8 => (0..6 * BLOCK_BYTES).prop_map(|bytes| Act::Append { bytes }),
        1 => (8 * BLOCK_BYTES..12 * BLOCK_BYTES).prop_map(|bytes| Act::Append { bytes }),
        3 => Just(Act::Checkpoint),
        3 => any::<prop::sample::Index>().prop_map(|which| Act::Discard { which }),
        1 => (0..4_u64).prop_map(|files| Act::Spare { files }),
        1 => Just(Act::Reopen),
        1 => (0..12_u64).prop_map(|changes| Act::StopAfter { changes }),
    ]
}

/// Where a group is.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Placed {
    file: u64,
    at: u64,
    bytes: Vec<u8>,
}

/// What somebody knows who reads groups where they were written.
#[derive(Debug, Default)]
struct Owner {
    groups: BTreeMap<u64, Placed>,
    /// In a crash.
    in_flight: Option<(u64, Vec<u8>)>,
    /// Durable.
    position: Position,
    discarded: Vec<u64>,
}

impl Owner {
    fn open(&mut self, directory: &MemoryDirectory) -> Result<Journal<MemoryDirectory>, OpenError> {
        let mut replayed = BTreeMap::new();
        let mut take = |group: Replayed<'_>| {
            let placed = Placed { file: group.file, at: group.at, bytes: group.bytes.to_vec() };
            assert_eq!(replayed.insert(group.sequence, placed), None, "each once");
            Ok(())
        };
        let journal =
            Journal::open(directory.clone(), Path::new("here"), KEEPING, counting(), self.position, &mut take)?;
        if let Some((sequence, bytes)) = self.in_flight.take()
            && let Some(placed) = replayed.get(&sequence)
        {
            assert_eq!(placed.bytes, bytes);
            self.groups.insert(sequence, placed.clone());
        }
        let Position { replayed_after, first_file, .. } = self.position;
        let read =
            self.groups.iter().filter(|(sequence, placed)| placed.file >= first_file && **sequence > replayed_after);
        assert_eq!(replayed, read.map(|(sequence, placed)| (*sequence, placed.clone())).collect());
        Ok(journal)
    }

    /// Everything that was not discarded is where it was written.
    fn read_all(&self, directory: &MemoryDirectory) {
        for placed in self.groups.values().filter(|placed| !self.discarded.contains(&placed.file)) {
            let mut found = vec![0; placed.bytes.len()];
            let file = open_to_read(directory, placed.file).unwrap();
            assert_eq!(file.read(&mut found, placed.at).unwrap(), found.len());
            assert_eq!(found, placed.bytes);
        }
    }
}

fn play(acts: Vec<Act>, survives: &[bool]) {
    let directory = MemoryDirectory::new();
    let mut survives = survives.iter().copied().cycle();
    let mut survives = || survives.next().unwrap_or_default();
    let mut owner = Owner::default();
    let mut journal = owner.open(&directory).unwrap();
    for (number, act) in acts.into_iter().enumerate() {
        match act {
            Act::Append { bytes } => {
                let bytes = group(number as u64, bytes);
                match append(&mut journal, &bytes) {
                    Ok(appended) => {
                        owner.groups.insert(appended.sequence, Placed { file: appended.file, at: appended.at, bytes });
                    }
                    Err(_) => owner.in_flight = Some((journal.last() + 1, bytes)),
                }
            }
            Act::Checkpoint => {
                // From the start of a file, or from where the last group ends.
                let (first_file, at) = journal.end().unwrap_or_default();
                owner.position = match number % 2 {
                    0 => Position { applied: journal.last(), replayed_after: 0, first_file, at: 0 },
                    _ => Position { applied: journal.last(), replayed_after: journal.last(), first_file, at },
                };
                journal.release(journal.last());
            }
            Act::Discard { which } => {
                let known: Vec<u64> =
                    journal.kept().map(|(file, _)| file).filter(|file| *file < owner.position.first_file).collect();
                if !known.is_empty() {
                    let file = *which.get(&known);
                    owner.discarded.push(file);
                    journal.discard(file);
                }
                if let Some(file) = journal.pop_discarded() {
                    // Another try is made when it is opened the next time, or none.
                    let _left = remove_file(&directory, file);
                }
            }
            Act::Spare { files } => journal.spare(files * KEEPING.file_bytes),
            Act::Reopen => {}
            Act::StopAfter { changes } => {
                directory.stop_after(changes);
                continue;
            }
        }
        if directory.is_stopped() || matches!(act, Act::Reopen) {
            drop(journal);
            if directory.is_stopped() {
                if survives() { directory.kill() } else { directory.crash(&mut survives) }
            }
            let opened = owner.open(&directory).or_else(|_| {
                assert!(directory.is_stopped());
                directory.crash(&mut survives);
                owner.open(&directory)
            });
            journal = opened.unwrap();
            for file in &owner.discarded {
                journal.discard(*file);
            }
        }
        if !directory.is_stopped() {
            owner.read_all(&directory);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    #[test]
    fn what_is_not_discarded_is_where_it_was_written(
        acts in proptest::collection::vec(act(), 1..60),
        survives in proptest::collection::vec(any::<bool>(), 1..40),
    ) {
        play(acts, &survives);
    }
}

#[test]
fn discarded_files_are_used_again_and_the_others_are_not() {
    let directory = MemoryDirectory::new();
    let mut owner = Owner::default();
    let mut journal = owner.open(&directory).unwrap();
    for number in 1..=30 {
        append(&mut journal, &group(number, 5000)).unwrap();
        journal.release(number);
    }
    let kept: Vec<u64> = journal.kept().map(|(file, _)| file).collect();
    assert_eq!(kept, (1..=9).collect::<Vec<_>>(), "three groups to a file");
    journal.spare(0);
    [7, 2, 4].into_iter().for_each(|file| journal.discard(file));
    assert_eq!(journal.pop_discarded(), Some(7), "one is kept to be used again, and the last is not asked for");
    for number in 31..=33 {
        append(&mut journal, &group(number, 5000)).unwrap();
    }
    let names = crate::Directory::names(&directory).unwrap();
    assert!(!names.contains(&"0000000002.journal".to_owned()), "{names:?}");
    assert!(names.contains(&"0000000004.journal".to_owned()), "{names:?}");
}

#[test]
fn as_many_files_stay_to_be_used_again_as_was_said() {
    let directory = MemoryDirectory::new();
    let mut journal = Owner::default().open(&directory).unwrap();
    for number in 1..=30 {
        append(&mut journal, &group(number, 5000)).unwrap();
        journal.release(number);
    }
    (1..=6).for_each(|file| journal.discard(file));
    let surplus: Vec<u64> = std::iter::from_fn(|| journal.pop_discarded()).collect();
    assert_eq!(surplus, [1, 2, 3]);
    surplus.into_iter().for_each(|file| remove_file(&directory, file).unwrap());
    let zeroed = journal.zeroed();
    for number in 31..=39 {
        append(&mut journal, &group(number, 5000)).unwrap();
    }
    assert_eq!(journal.zeroed(), zeroed, "three groups to a file");
    for number in 40..=42 {
        append(&mut journal, &group(number, 5000)).unwrap();
    }
    assert_eq!(journal.zeroed(), zeroed + KEEPING.file_bytes);
}
