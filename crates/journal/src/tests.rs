//! The promises of a journal, on a directory that crashes and on a real one.

use std::collections::BTreeMap;
use std::path::Path;

use proptest::prelude::*;

use crate::directory::memory::MemoryDirectory;
use crate::directory::{Fill, ReadFile};
use crate::frame::{BLOCK, BLOCK_BYTES, FRAME_HEADER, FileId, FrameHeader};
use crate::{
    Appended, Damage, Directory, Journal, JournalError, JournalOptions, OpenError, Pace, Position, RealDirectory,
    Replayed, Salts,
};

const FILE_BLOCKS: u64 = 8;
const SMALL: JournalOptions =
    JournalOptions { file_bytes: FILE_BLOCKS * BLOCK, prepares_ahead: false, keeps_files: false, reused_bytes: 0 };

type Groups = BTreeMap<u64, Vec<u8>>;

fn counting() -> Salts {
    let mut salt = 0;
    Box::new(move || {
        salt += 1;
        salt
    })
}

fn open_with<D: Directory>(
    directory: &D,
    options: JournalOptions,
    applied: u64,
) -> Result<(Journal<D>, Groups), OpenError> {
    let mut groups = Groups::new();
    let mut take = |group: Replayed<'_>| {
        assert_eq!(groups.insert(group.sequence, group.bytes.to_vec()), None, "each once");
        Ok(())
    };
    let position = Position::applied(applied);
    let journal = Journal::open(directory.clone(), Path::new("here"), options, counting(), position, &mut take)?;
    Ok((journal, groups))
}

fn open<D: Directory>(directory: &D, applied: u64) -> Result<(Journal<D>, Groups), OpenError> {
    open_with(directory, SMALL, applied)
}

fn append<D: Directory>(journal: &mut Journal<D>, group: &[u8]) -> Result<Appended, JournalError> {
    journal.append(|blocks| blocks.put(group))
}

/// The number of a group, and whether it is the first of its file.
fn begun(appended: Result<Appended, JournalError>) -> (u64, bool) {
    let Appended { sequence, begins_file, .. } = appended.unwrap();
    (sequence, begins_file)
}

/// A group that says which one it is.
fn group(number: u64, bytes: usize) -> Vec<u8> {
    number.to_le_bytes().iter().copied().cycle().take(bytes).collect()
}

#[track_caller]
fn damage(opened: Result<(Journal<MemoryDirectory>, Groups), OpenError>) -> Damage {
    match opened {
        Err(OpenError::Damaged { damage, .. }) => damage,
        other => panic!("{other:?}"),
    }
}

#[derive(Debug, Clone)]
enum Act {
    Append {
        bytes: usize,
    },
    /// What is older than so many groups is needed no more.
    Release {
        kept: u64,
    },
    Reopen,
    /// The machine stops after so many more calls to the disk.
    StopAfter {
        changes: u64,
    },
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        8 => (0..6 * BLOCK_BYTES).prop_map(|bytes| Act::Append { bytes }),
        2 => (0..40_usize).prop_map(|bytes| Act::Append { bytes }),
        1 => (8 * BLOCK_BYTES..20 * BLOCK_BYTES).prop_map(|bytes| Act::Append { bytes }),
        3 => (0..4_u64).prop_map(|kept| Act::Release { kept }),
        1 => Just(Act::Reopen),
        2 => (0..12_u64).prop_map(|changes| Act::StopAfter { changes }),
    ]
}

/// What must be there, and what may.
#[derive(Debug, Default)]
struct Model {
    acknowledged: Groups,
    /// In a crash.
    in_flight: Option<(u64, Vec<u8>)>,
    /// Known elsewhere.
    applied: u64,
}

impl Model {
    /// Compares, and goes on with what is there.
    fn check(&mut self, replayed: &Groups) {
        let mut expected: Groups =
            self.acknowledged.range(self.applied + 1..).map(|(at, group)| (*at, group.clone())).collect();
        if let Some((sequence, group)) = self.in_flight.take()
            && replayed.contains_key(&sequence)
        {
            expected.insert(sequence, group.clone());
            self.acknowledged.insert(sequence, group);
        }
        assert_eq!(replayed.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
        assert!(*replayed == expected, "the bytes are others");
    }
}

fn play(acts: Vec<Act>, survives: &[bool]) {
    let directory = MemoryDirectory::new();
    let mut survives = survives.iter().copied().cycle();
    let mut survives = || survives.next().unwrap_or_default();
    let mut model = Model::default();
    let (mut journal, _) = open(&directory, 0).unwrap();
    for (number, act) in acts.into_iter().enumerate() {
        match act {
            Act::Append { bytes } => {
                let group = group(number as u64, bytes);
                let sequence = journal.last() + 1;
                match append(&mut journal, &group) {
                    Ok(appended) => {
                        assert_eq!(appended.sequence, sequence);
                        model.acknowledged.insert(sequence, group);
                    }
                    Err(_) => model.in_flight = Some((sequence, group)),
                }
            }
            Act::Release { kept } => {
                model.applied = model.applied.max(journal.last().saturating_sub(kept));
                journal.release(model.applied);
            }
            Act::Reopen => {}
            Act::StopAfter { changes } => {
                directory.stop_after(changes);
                continue;
            }
        }
        if directory.is_stopped() || matches!(act, Act::Reopen) {
            drop(journal);
            if directory.is_stopped() {
                // The process alone, or all of the machine.
                if survives() { directory.kill() } else { directory.crash(&mut survives) }
            }
            // It may stop while it opens, too.
            let opened = open(&directory, model.applied).or_else(|_| {
                assert!(directory.is_stopped());
                directory.crash(&mut survives);
                open(&directory, model.applied)
            });
            let groups;
            (journal, groups) = opened.unwrap();
            model.check(&groups);
            assert_eq!(journal.last(), model.acknowledged.last_key_value().map_or(0, |(last, _)| *last));
        }
    }
    directory.crash(&mut survives);
    let (_, groups) = open(&directory, model.applied).unwrap();
    model.check(&groups);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    #[test]
    fn what_was_acknowledged_is_replayed_after_any_crash(
        acts in proptest::collection::vec(act(), 1..60),
        survives in proptest::collection::vec(any::<bool>(), 1..40),
    ) {
        play(acts, &survives);
    }

    #[test]
    fn a_bit_that_flips_is_noticed_or_is_in_padding(
        sizes in proptest::collection::vec(0..3 * BLOCK_BYTES, 2..12),
        at in any::<proptest::sample::Index>(),
        file in 1..4_u64,
    ) {
        let directory = MemoryDirectory::new();
        let (mut journal, _) = open(&directory, 0).unwrap();
        let groups: Groups = sizes.iter().zip(1..).map(|(bytes, number)| (number, group(number, *bytes))).collect();
        for group in groups.values() {
            append(&mut journal, group).unwrap();
        }
        drop(journal);
        let at = at.index((FILE_BLOCKS * BLOCK) as usize);
        directory.damage(&crate::recovery::file_name(file), at);
        match open(&directory, 0) {
            Err(OpenError::Damaged { .. }) => {}
            Err(OpenError::NewerFormat { .. }) => panic!("its checksum covers the version"),
            Err(other) => panic!("{other}"),
            Ok((_, found)) => {
                // The last group alone cannot be told from one that was being written.
                let last = groups.len() as u64;
                prop_assert!(found == groups || found == groups.range(..last).map(|(at, group)| (*at, group.clone())).collect::<Groups>());
            }
        }
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), salt in any::<u64>()) {
        let _header = crate::frame::decode_file_header(&bytes);
        let file = FileId { number: 1, salt };
        prop_assert_eq!(FrameHeader::decode(file, BLOCK, &bytes), None);
        // A user's bytes, in a file that is used again: they are not read any further than this.
        let forged: Vec<u8> = b"frme".iter().chain(&bytes).copied().collect();
        prop_assert_eq!(FrameHeader::decode(file, BLOCK, &forged), None);
    }
}

#[test]
fn memory_for_large_groups_is_kept_while_they_come_and_given_back_later() {
    let options = JournalOptions { file_bytes: 4 << 20, ..SMALL };
    let (mut journal, _) = open_with(&MemoryDirectory::default(), options, 0).unwrap();
    let mut append = |bytes: usize| {
        append(&mut journal, &group(1, bytes)).unwrap();
        journal.release(journal.last());
        journal.buffer_bytes()
    };
    let kept = (0..10).map(|_| append(3 << 20)).last().unwrap();
    assert!(append(2 << 20) >= 3 << 20, "one a little smaller leaves it");
    assert_eq!((0..10).map(|_| append(3 << 20)).max(), Some(kept), "nothing grows");
    let later = (0..1000).map(|_| append(100)).last().unwrap();
    assert!(later <= (1 << 20) + BLOCK_BYTES, "{later} bytes are kept for groups of a hundred");
}

#[test]
fn zeros_come_in_pieces_of_two_groups_and_not_at_all_for_large_ones() {
    let pieces = |at_once| Fill::Zeros { at_once };
    assert_eq!(Fill::for_groups(0), Fill::ZEROS);
    assert_eq!(Fill::for_groups(32 << 10), Fill::ZEROS);
    assert_eq!(Fill::for_groups(50 << 10), pieces(100 << 10));
    assert_eq!(Fill::for_groups(128 << 10), pieces(256 << 10));
    assert_eq!(Fill::for_groups((256 << 10) - 1), pieces(256 << 10));
    assert_eq!(Fill::for_groups(256 << 10), Fill::Reserved);
    assert_eq!(Fill::for_groups(u64::MAX), Fill::Reserved);
}

#[test]
fn files_for_large_groups_are_not_filled_with_zeros_and_those_for_small_ones_are() {
    let parent = tempfile::tempdir().unwrap();
    let directory = RealDirectory::open(&parent.path().join("journal")).unwrap();
    let options = JournalOptions { file_bytes: 8 << 20, prepares_ahead: false, ..SMALL };
    let (mut journal, _) = open_with(&directory, options, 0).unwrap();
    let mut append = |groups: u64, bytes: usize| {
        let before = journal.zeroed();
        for _ in 0..groups {
            let next = group(journal.last() + 1, bytes);
            append(&mut journal, &next).unwrap();
        }
        journal.zeroed() - before
    };
    assert!(append(10, 100) > 0, "the first file");
    append(40, 1 << 20);
    assert_eq!(append(40, 1 << 20), 0, "by now they are large on average");
    append(100, 100);
    assert!(append(3, 3 << 20) > 0, "a file that was made while they were small");
    let last = journal.last();
    drop(journal);
    let (journal, groups) = open_with(&directory, options, 0).unwrap();
    assert_eq!((journal.last(), groups.len() as u64), (last, last));
    assert!(groups.iter().all(|(number, bytes)| *bytes == group(*number, bytes.len())), "all are what they were");
}

#[test]
fn files_are_used_again_and_their_number_stays_small() {
    let directory = MemoryDirectory::new();
    let (mut journal, _) = open(&directory, 0).unwrap();
    for number in 1..=200 {
        let appended = append(&mut journal, &group(number, 3000)).unwrap();
        let (file, block) = ((number - 1) / (FILE_BLOCKS - 1) + 1, (number - 1) % (FILE_BLOCKS - 1) + 1);
        let at = block * BLOCK + FRAME_HEADER;
        assert_eq!(appended, Appended { sequence: number, file, at, written: BLOCK, begins_file: block == 1 });
        journal.release(number - 1);
        assert!(directory.names().unwrap().len() <= 3, "{:?}", directory.names());
    }
    drop(journal);
    assert_eq!(open(&directory, 199).unwrap().1, Groups::from([(200, group(200, 3000))]));
}

#[test]
fn without_what_was_acknowledged_it_does_not_open() {
    let filled = || {
        let directory = MemoryDirectory::new();
        let (mut journal, _) = open(&directory, 0).unwrap();
        for number in 1..=30 {
            append(&mut journal, &group(number, 5000)).unwrap();
        }
        directory
    };
    let directory = filled();
    assert_eq!(directory.names().unwrap().len(), 10, "three groups of two blocks each in a file");
    directory.remove("0000000004.journal").unwrap();
    assert_eq!(damage(open(&directory, 0)), Damage::FileMissing { number: 4 });

    let directory = filled();
    directory.remove("0000000001.journal").unwrap();
    assert_eq!(damage(open(&directory, 0)), Damage::Begins { needed: 1, first: 4 });
    assert!(open(&directory, 3).is_ok(), "what it held is known elsewhere");

    let directory = filled();
    assert_eq!(damage(open(&directory, 31)), Damage::Ends { known: 31, last: Some(30) });
    assert_eq!(damage(open(&MemoryDirectory::new(), 7)), Damage::Ends { known: 7, last: None });

    let directory = filled();
    directory.damage("0000000002.journal", 100 + BLOCK_BYTES);
    let name = "0000000002.journal".to_owned();
    assert_eq!(damage(open(&directory, 0)), Damage::Frame { sequence: 4, name, at: BLOCK, later: 5 });

    let directory = filled();
    directory.damage("0000000002.journal", 20);
    assert_eq!(damage(open(&directory, 0)), Damage::Header { name: "0000000002.journal".to_owned() });

    let directory = filled();
    directory.create("notes.txt", BLOCK, Fill::ZEROS, &Pace::unlimited()).unwrap();
    assert!(matches!(open(&directory, 0), Err(OpenError::Foreign { name, .. }) if name == "notes.txt"));
}

#[test]
fn a_full_disk_refuses_a_group_and_takes_the_next_one_when_there_is_room() {
    let directory = MemoryDirectory::new();
    let (mut journal, _) = open(&directory, 0).unwrap();
    directory.limit(Some(2 * FILE_BLOCKS as usize));
    let mut number = 0;
    let refused = loop {
        number += 1;
        if let Err(error) = append(&mut journal, &group(number, 5000)) {
            break error;
        }
    };
    assert!(matches!(refused, JournalError::Full), "{refused:?}");
    assert_eq!(journal.last(), 6);
    // Released files are used again without more room.
    journal.release(3);
    assert_eq!(begun(append(&mut journal, &group(7, 5000))), (7, true));
    for number in 8..=9 {
        append(&mut journal, &group(number, 5000)).unwrap();
    }
    assert!(matches!(append(&mut journal, &group(10, 5000)), Err(JournalError::Full)));
    directory.limit(None);
    assert_eq!(append(&mut journal, &group(10, 5000)).unwrap().sequence, 10);
    drop(journal);
    assert_eq!(open(&directory, 3).unwrap().1, (4..=10).map(|number| (number, group(number, 5000))).collect());
}

#[test]
fn a_group_that_does_not_fit_a_file_gets_one_of_its_own() {
    let directory = MemoryDirectory::new();
    let (mut journal, _) = open(&directory, 0).unwrap();
    for (number, bytes) in [(1, 10), (2, 100 * BLOCK_BYTES), (3, 10)] {
        assert_eq!(begun(append(&mut journal, &group(number, bytes))), (number, true));
    }
    drop(journal);
    let (_, groups) = open(&directory, 0).unwrap();
    assert_eq!(
        groups,
        [(1, 10), (2, 100 * BLOCK_BYTES), (3, 10)].map(|(number, bytes)| (number, group(number, bytes))).into()
    );
}

#[test]
fn a_journal_in_a_file_system_prepares_ahead_and_uses_files_again() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("journal");
    let options = JournalOptions { file_bytes: 16 * BLOCK, ..JournalOptions::default() };
    let directory = RealDirectory::open(&path).unwrap();
    let (mut journal, _) = open_with(&directory, options, 0).unwrap();
    for number in 1..=300 {
        append(&mut journal, &group(number, 100)).unwrap();
        journal.release(number.saturating_sub(20));
    }
    drop(journal);
    // One that is written, one that is ready, and what the twenty groups and the one to be used again take.
    assert!(directory.names().unwrap().len() <= 6, "{:?}", directory.names());
    std::fs::write(path.join("0000000099.tmp"), "left").unwrap();
    let (journal, groups) = open_with(&RealDirectory::open(&path).unwrap(), options, 280).unwrap();
    assert_eq!((journal.last(), groups), (300, (281..=300).map(|number| (number, group(number, 100))).collect()));
    drop(journal);
    assert!(directory.names().unwrap().iter().all(|name| name.ends_with(".journal")));
}

#[test]
fn the_next_file_is_made_along_with_what_goes_into_the_one_before() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("journal");
    let options = JournalOptions { file_bytes: 256 << 10, ..JournalOptions::default() };
    let directory = RealDirectory::open(&path).unwrap();
    let (mut journal, _) = open_with(&directory, options, 0).unwrap();
    let blocks = options.file_bytes / BLOCK;
    append(&mut journal, &group(1, 100)).unwrap();
    assert_eq!(journal.zeroed(), options.file_bytes, "the first one, made in a hurry");
    let mut number = 1;
    while journal.end().is_some_and(|(_, at)| at < blocks / 2 * BLOCK) {
        number += 1;
        append(&mut journal, &group(number, 100)).unwrap();
    }
    let next = "0000000002.journal".to_owned();
    let is_there = || directory.names().unwrap().contains(&next);
    assert!(!is_there(), "it is not ready before three quarters of this one are written");
    // Whoever closes the journal does not wait for it.
    drop(journal);
    assert_eq!(directory.names().unwrap(), ["0000000001.journal"]);

    let (mut journal, _) = open_with(&directory, options, number).unwrap();
    while journal.end().is_some_and(|(_, at)| at < blocks / 4 * 3 * BLOCK) {
        number += 1;
        append(&mut journal, &group(number, 100)).unwrap();
    }
    journal.wait_for_helper();
    assert!(is_there(), "it is ready in time");
}

#[test]
fn a_file_that_is_given_up_leaves_nothing() {
    let parent = tempfile::tempdir().unwrap();
    let directory = RealDirectory::open(&parent.path().join("journal")).unwrap();
    let pace = Pace::default();
    pace.allow(BLOCK);
    std::thread::scope(|scope| {
        let made = scope.spawn(|| directory.create("next", 1 << 20, Fill::ZEROS, &pace));
        pace.give_up();
        assert_eq!(made.join().unwrap().unwrap_err().kind(), std::io::ErrorKind::Interrupted);
    });
    assert!(directory.names().unwrap().is_empty());
}

#[test]
fn a_preparation_that_is_refused_is_done_again_and_leaves_no_hole() {
    for changes in 0..4 {
        let directory = MemoryDirectory::new();
        let (mut journal, _) = open(&directory, 0).unwrap();
        for number in 1..=12 {
            append(&mut journal, &group(number, 5000)).unwrap();
        }
        journal.release(9);
        directory.refuse_after(changes);
        for number in 13..=20 {
            append(&mut journal, &group(number, 5000)).unwrap();
        }
        drop(journal);
        let (journal, groups) = open(&directory, 9).unwrap();
        assert_eq!(groups.into_keys().collect::<Vec<_>>(), (10..=20).collect::<Vec<_>>(), "change {changes}");
        drop(journal);
    }
}

#[test]
fn what_could_not_be_made_ahead_is_made_when_it_is_needed_and_not_before() {
    let directory = MemoryDirectory::new();
    directory.limit(Some(FILE_BLOCKS as usize));
    let options = JournalOptions { prepares_ahead: true, ..SMALL };
    let (mut journal, _) = open_with(&directory, options, 0).unwrap();
    append(&mut journal, b"1").unwrap();
    // The helper has tried, and was refused.
    journal.wait_for_helper();
    directory.limit(None);
    for number in 2..FILE_BLOCKS {
        append(&mut journal, &group(number, 10)).unwrap();
        journal.wait_for_helper();
        assert_eq!(directory.names().unwrap(), ["0000000001.journal"], "group {number}");
    }
    assert_eq!(begun(append(&mut journal, b"8")), (FILE_BLOCKS, true));
    journal.wait_for_helper();
    assert_eq!(directory.names().unwrap().len(), 2, "nobody says that there is room");
    journal.release(1);
    append(&mut journal, b"9").unwrap();
    journal.wait_for_helper();
    assert_eq!(directory.names().unwrap().len(), 3, "what was released was written elsewhere");
}

#[test]
fn files_grow_with_what_is_written() {
    let path = tempfile::tempdir().unwrap();
    let options = JournalOptions { file_bytes: 1 << 20, ..JournalOptions::default() };
    let (mut journal, _) = open_with(&RealDirectory::open(path.path()).unwrap(), options, 0).unwrap();
    let sizes = || {
        let files = std::fs::read_dir(path.path()).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len() >> 10);
        let mut sizes: Vec<u64> = files.collect();
        sizes.sort_unstable();
        sizes
    };
    append(&mut journal, b"1").unwrap();
    journal.wait_for_helper();
    assert_eq!(sizes(), [256, 512], "a journal that is hardly used is small");
    for number in 2..700 {
        append(&mut journal, &group(number, 3000)).unwrap();
        journal.release(number - 1);
        journal.wait_for_helper();
    }
    assert_eq!(sizes().into_iter().max(), Some(1024));
    assert!(sizes().len() <= 4, "{:?}", sizes());
}

#[test]
fn a_file_that_was_too_small_for_a_refused_group_begins_with_the_next_one() {
    let directory = MemoryDirectory::new();
    let options = JournalOptions { prepares_ahead: true, ..SMALL };
    let (mut journal, _) = open_with(&directory, options, 0).unwrap();
    append(&mut journal, b"1").unwrap();
    journal.wait_for_helper();
    directory.limit(Some(2 * FILE_BLOCKS as usize));
    assert!(matches!(append(&mut journal, &group(2, 9 * BLOCK_BYTES)), Err(JournalError::Full)));
    assert_eq!(begun(append(&mut journal, b"2")), (2, true));
}

#[test]
fn the_file_of_the_last_group_stays_when_files_change_their_size() {
    let directory = MemoryDirectory::new();
    let (mut journal, _) = open(&directory, 0).unwrap();
    append(&mut journal, &group(1, 5 * BLOCK_BYTES)).unwrap();
    drop(journal);
    // A smaller file is prepared, and nothing gets into it.
    let smaller = JournalOptions { file_bytes: 4 * BLOCK, ..SMALL };
    let (mut journal, _) = open_with(&directory, smaller, 1).unwrap();
    directory.stop_after(4);
    append(&mut journal, &group(2, 2 * BLOCK_BYTES)).unwrap_err();
    drop(journal);
    directory.crash(|| false);
    let (mut journal, _) = open(&directory, 1).unwrap();
    journal.release(1);
    directory.stop_after(5);
    append(&mut journal, &group(2, 5 * BLOCK_BYTES)).unwrap_err();
    directory.crash(|| false);
    assert_eq!(open(&directory, 1).unwrap().0.last(), 1);
}

/// What a file has in it, without zeros at the ends of blocks: lines of `place bytes`, in hex.
#[test]
fn a_file_has_its_golden_bytes() {
    let directory = MemoryDirectory::new();
    let (mut journal, _) = open(&directory, 0).unwrap();
    append(&mut journal, b"first").unwrap();
    append(&mut journal, b"second").unwrap();
    let mut text = String::new();
    let file = directory.open("0000000001.journal").unwrap();
    for at in (0..file.bytes().unwrap()).step_by(BLOCK_BYTES) {
        let mut block = [0; BLOCK_BYTES];
        file.read(&mut block, at).unwrap();
        let Some(last) = block.iter().rposition(|byte| *byte != 0) else { continue };
        let hex: String = block[..=last].iter().map(|byte| format!("{byte:02x}")).collect();
        text.push_str(&format!("{at:04x} {hex}\n"));
    }
    let path = format!("{}/testdata/format/file.hex", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text, "the format changed: {path}");
}

#[test]
fn a_failed_write_ends_it() {
    let directory = MemoryDirectory::new();
    let (mut journal, _) = open(&directory, 0).unwrap();
    append(&mut journal, b"one").unwrap();
    directory.stop_after(1);
    assert!(matches!(append(&mut journal, b"two"), Err(JournalError::Failed(_))));
    directory.crash(|| true);
    assert!(matches!(append(&mut journal, b"three"), Err(JournalError::Failed(_))), "nobody knows what is there");
    drop(journal);
    assert_eq!(open(&directory, 0).unwrap().1.len(), 2, "all of it survived");
}

mod kept;

#[test]
fn what_is_found_after_a_failed_sync_is_not_lost_in_the_next_crash() {
    let directory = MemoryDirectory::new();
    let (mut journal, _) = open(&directory, 0).unwrap();
    append(&mut journal, &group(1, 100)).unwrap();
    directory.fail_syncs(1);
    append(&mut journal, &group(2, 9000)).unwrap_err();
    append(&mut journal, &group(3, 100)).unwrap_err();
    drop(journal);
    // The process begins again and the machine goes on: the group is seen, and no sync writes what another one failed for.
    directory.kill();
    let mut replayed = Vec::new();
    let mut take = |taken: Replayed<'_>| {
        // Whoever takes it may make something of it durable elsewhere at once.
        let lost = directory.copy();
        lost.crash(|| false);
        let (_, groups) = open(&lost, 0).unwrap();
        assert_eq!(groups.get(&taken.sequence).map(Vec::as_slice), Some(taken.bytes));
        replayed.push(taken.sequence);
        Ok(())
    };
    let path = Path::new("here");
    let journal = Journal::open(directory.clone(), path, SMALL, counting(), Position::applied(0), &mut take);
    let mut journal = journal.unwrap();
    assert_eq!(replayed, [1, 2]);
    assert_eq!(append(&mut journal, &group(3, 100)).unwrap().sequence, 3);
    drop(journal);
    directory.crash(|| false);
    let (_, groups) = open(&directory, 0).unwrap();
    assert_eq!(groups, [(1, 100), (2, 9000), (3, 100)].map(|(number, bytes)| (number, group(number, bytes))).into());
}
