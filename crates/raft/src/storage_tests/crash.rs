//! The machine stops in the middle of every write. What was answered is there afterwards; of what was not, all or nothing.

use openraft::storage::{RaftLogStorage, RaftStateMachine};
use openraft::{Membership, RaftSnapshotBuilder};

use bifrost_metadata::Keyspace;

use super::*;
use crate::engine::LogEngine;
use crate::machine::Image;
use crate::types::{SnapshotMeta, StoredMembership, Vote};

/// What openraft asks of a disk, in an order in which it does.
#[derive(Debug, Clone)]
pub(super) enum Step {
    Vote(u64),
    Append(Vec<Entry>),
    Truncate(LogId),
    Committed(LogId),
    Apply(Vec<Entry>),
    Snapshot,
    Purge(LogId),
    /// A snapshot up to an entry, with values of so many bytes.
    Install(LogId, usize),
}

/// What must be on the disk.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Kept {
    pub(super) vote: Option<Vote>,
    pub(super) ids: Vec<LogId>,
    pub(super) applied: Option<LogId>,
    pub(super) covered: Option<LogId>,
}

impl Kept {
    pub(super) fn after(mut self, step: &Step) -> Self {
        match step {
            Step::Vote(term) => self.vote = Some(Vote::new(*term, MemberId::from(*term))),
            Step::Append(entries) => self.ids.extend(entries.iter().map(|entry| entry.log_id)),
            Step::Truncate(first) => self.ids.retain(|id| id.index < first.index),
            Step::Apply(entries) => self.applied = entries.last().map(|entry| entry.log_id),
            Step::Snapshot => self.covered = self.applied,
            Step::Install(upto, _) => {
                self.covered = Some(*upto);
                self.applied = Some(*upto);
            }
            Step::Committed(_) | Step::Purge(_) => {}
        }
        self.ids.retain(|id| Some(id.index) > self.covered.map(|covered| covered.index));
        self
    }

    /// What of it a disk shows that was opened again.
    pub(super) async fn found(log: &mut LogStore, machine: &mut StateMachine) -> Self {
        let (covered, _) = machine.applied_state().await.unwrap();
        let mut ids = ids(log).await;
        ids.retain(|id| Some(id.index) > covered.map(|covered| covered.index));
        Self { vote: log.read_vote().await.unwrap(), ids, applied: None, covered }
    }
}

fn entries(term: u64, indexes: std::ops::RangeInclusive<u64>) -> Vec<Entry> {
    indexes.map(|index| write(term, index, &format!("k{}", index % 3))).collect()
}

/// A member follows the leader of term 2, is left with a suffix that is overwritten in term 3, makes a snapshot, is away,
/// and gets one from the leader of term 5.
fn script() -> Vec<Step> {
    vec![
        Step::Vote(2),
        Step::Append(vec![blank(2, 0)]),
        Step::Append(entries(2, 1..=4)),
        Step::Committed(id(2, 2)),
        Step::Apply([vec![blank(2, 0)], entries(2, 1..=2)].concat()),
        Step::Vote(3),
        Step::Truncate(id(2, 3)),
        Step::Append(entries(3, 3..=6)),
        Step::Committed(id(3, 5)),
        Step::Apply(entries(3, 3..=5)),
        Step::Snapshot,
        Step::Purge(id(2, 2)),
        Step::Append(entries(3, 7..=8)),
        Step::Purge(id(3, 5)),
        Step::Vote(5),
        Step::Truncate(id(3, 7)),
        Step::Purge(id(5, 20)),
        Step::Install(id(5, 20), LARGE),
        Step::Append(entries(5, 21..=22)),
        Step::Committed(id(5, 22)),
        Step::Apply(entries(5, 21..=22)),
        Step::Snapshot,
        Step::Purge(id(5, 21)),
        Step::Append(entries(5, 23..=23)),
    ]
}

/// Three of these are a snapshot of several pieces.
const LARGE: usize = 700 << 10;

/// A snapshot that came from a leader.
fn image(upto: LogId, bytes: usize) -> (SnapshotMeta, Vec<u8>) {
    let mut keyspace = Keyspace::new();
    for key in 0..3 {
        keyspace.apply(&Txn::new().put(format!("large/{key}"), vec![key; bytes]));
    }
    let image = Image { keyspace, applied: Some(upto), membership: StoredMembership::new(None, Membership::default()) };
    let meta = SnapshotMeta {
        last_log_id: Some(upto),
        last_membership: image.membership.clone(),
        snapshot_id: upto.to_string(),
    };
    (meta, image.encode())
}

/// Does a step; `false` if the disk did not answer.
pub(super) async fn step(log: &mut LogStore, machine: &mut StateMachine, step: &Step) -> bool {
    match step {
        Step::Vote(term) => log.save_vote(&Vote::new(*term, MemberId::from(*term))).await.is_ok(),
        Step::Append(entries) => append(log, entries.clone()).await,
        Step::Truncate(first) => log.truncate(*first).await.is_ok(),
        Step::Committed(id) => log.save_committed(Some(*id)).await.is_ok(),
        Step::Apply(entries) => machine.apply(entries.clone()).await.is_ok(),
        Step::Snapshot => machine.get_snapshot_builder().await.build_snapshot().await.is_ok(),
        Step::Purge(upto) => log.purge(*upto).await.is_ok(),
        Step::Install(upto, bytes) => {
            let (meta, bytes) = image(*upto, *bytes);
            machine.install_snapshot(&meta, Box::new(std::io::Cursor::new(bytes))).await.is_ok()
        }
    }
}

#[tokio::test]
async fn what_was_answered_survives_a_crash_in_every_write() {
    #[cfg(bifrost_plant)]
    bifrost_types::plant::set_from_env();
    let engine = MemoryEngine::new();
    let (mut log, mut machine) = open(&engine).unwrap();
    let mut states = vec![Kept::default()];
    for next in &script() {
        assert!(step(&mut log, &mut machine, next).await, "{next:?}");
        states.push(states.last().unwrap().clone().after(next));
    }
    let (writes, mut cases) = (engine.writes(), 0);
    for stop in 0..writes {
        for kept in 0.. {
            let engine = MemoryEngine::new();
            let (mut log, mut machine) = open(&engine).unwrap();
            engine.stop_after(stop);
            let mut answered = 0;
            for next in &script() {
                if !step(&mut log, &mut machine, next).await {
                    break;
                }
                answered += 1;
            }
            assert!(answered < script().len(), "it stopped in write {stop}");
            assert!(!step(&mut log, &mut machine, &Step::Vote(9)).await, "a member whose disk failed goes on");
            let unsynced = engine.unsynced();
            engine.crash(kept);
            let (mut log, mut machine) = open(&engine).unwrap_or_else(|error| panic!("write {stop}, {kept}: {error}"));
            let found = Kept::found(&mut log, &mut machine).await;
            let allowed = states[answered..=answered + 1].iter().cloned();
            let mut allowed = allowed.map(|state| Kept { applied: None, ..state });
            assert!(allowed.any(|state| state == found), "write {stop}, {kept} kept, {answered} answered: {found:?}");
            // It goes on from there.
            let next = last(&mut log).await.map_or(0, |last| last.index + 1);
            assert!(append(&mut log, vec![blank(7, next)]).await);
            cases += 1;
            if kept >= unsynced {
                break;
            }
        }
    }
    assert!(cases > 40, "only {cases} crashes");
}

#[tokio::test]
async fn an_append_behind_a_snapshot_waits_until_the_snapshot_is_on_the_disk() {
    let engine = MemoryEngine::new();
    let (mut log, mut machine) = open(&engine).unwrap();
    assert!(append(&mut log, entries(1, 0..=3)).await);
    log.purge(id(5, 20)).await.unwrap();
    assert_eq!(last(&mut log).await, Some(id(5, 20)));
    assert_eq!(ids(&mut log).await, [], "nobody reads what is purged");
    let mut appending = {
        let mut log = log.clone();
        Box::pin(async move { append(&mut log, vec![blank(5, 21)]).await })
    };
    assert!(futures_util::poll!(&mut appending).is_pending(), "a crash now would leave a hole before it");
    let (_, mut same) = open(&engine).unwrap();
    assert_eq!(same.applied_state().await.unwrap().0, None);
    assert!(step(&mut log, &mut machine, &Step::Install(id(5, 20), LARGE)).await);
    assert!(appending.await);
    let (mut log, mut machine) = open(&engine).unwrap();
    assert_eq!(ids(&mut log).await, [id(5, 21)]);
    assert_eq!(machine.applied_state().await.unwrap().0, Some(id(5, 20)));
}

#[tokio::test]
async fn a_snapshot_and_the_log_after_it_give_back_the_keyspace() {
    let engine = MemoryEngine::new();
    let (mut log, mut machine) = open(&engine).unwrap();
    for next in &script() {
        assert!(step(&mut log, &mut machine, next).await);
    }
    let before = machine.live().lock().keyspace().clone();
    engine.crash(0);
    let (mut log, mut machine) = open(&engine).unwrap();
    let covered = machine.applied_state().await.unwrap().0.unwrap();
    assert!(covered < id(5, 22) || covered == id(5, 22));
    let rest = log.try_get_log_entries(covered.index + 1..=22).await.unwrap();
    machine.apply(rest).await.unwrap();
    let live = machine.live();
    let live = live.lock();
    assert_eq!(live.keyspace().revision(), before.revision());
    assert!(live.keyspace().entries().eq(before.entries()));
}

#[tokio::test]
async fn damage_is_not_opened() {
    let engine = MemoryEngine::new();
    let (mut log, mut machine) = open(&engine).unwrap();
    for next in &script() {
        assert!(step(&mut log, &mut machine, next).await);
    }
    let records = engine.range(b"", b"z", usize::MAX).unwrap();
    let kinds: Vec<u8> = records.iter().map(|(key, _)| key[0]).collect();
    for kind in *b"cdepsv" {
        assert!(kinds.contains(&kind), "no key {}", char::from(kind));
    }
    for (key, _) in records {
        assert!(engine.damage(&key));
        let opened = open(&engine);
        // The vote is read when Raft starts.
        let refused = match opened {
            Ok((mut log, _)) => log.read_vote().await.is_err(),
            Err(_) => true,
        };
        assert!(refused, "damage under {}", key.escape_ascii());
        assert!(engine.damage(&key), "and repaired");
    }
    assert!(open(&engine).is_ok());
}

#[cfg(feature = "rocksdb")]
fn copy_into(from: &std::path::Path, to: &std::path::Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if source.is_dir() {
            std::fs::create_dir(&target)?;
            copy_into(&source, &target)?;
        } else if entry.file_name() != "LOCK" {
            std::fs::copy(source, target)?;
        }
    }
    Ok(())
}

#[cfg(feature = "rocksdb")]
#[tokio::test]
async fn a_damaged_journal_is_damage_and_one_that_is_gone_too() {
    use std::fs;

    use crate::StartError;
    use crate::engine::rocks::RocksEngine;

    let dir = tempfile::TempDir::new().unwrap();
    let disk = Disk::new(Arc::new(RocksEngine::open(dir.path()).unwrap()));
    let (mut log, mut machine) = crate::machine::open(&disk, MemberId::from(ME)).unwrap();
    for next in &script() {
        assert!(step(&mut log, &mut machine, next).await);
    }
    drop((disk, log, machine));
    let journal = dir.path().join("journal");
    // The first of two groups at least: the last one alone would be one that was being written. The oldest file may be gone.
    let files = fs::read_dir(&journal).unwrap().map(|entry| entry.unwrap().path());
    let (file, mut bytes) = files
        .map(|path| (fs::read(&path).unwrap(), path))
        .find_map(|(bytes, path)| {
            let number = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
            let length = u32::from_le_bytes(bytes[4096 + 12..4096 + 16].try_into().unwrap());
            let next = 4096 + (24 + usize::try_from(length).unwrap()).next_multiple_of(4096);
            (number(4096 + 16)? > 0 && number(next + 16)? == number(4096 + 16)? + 1).then_some((path, bytes))
        })
        .unwrap();
    bytes[4096 + 50] ^= 1;
    fs::write(&file, bytes).unwrap();
    let refused = StartError::from(RocksEngine::open(dir.path()).unwrap_err());
    assert!(refused.is_damage(), "{refused:?}");
    fs::remove_dir_all(&journal).unwrap();
    let refused = StartError::from(RocksEngine::open(dir.path()).unwrap_err());
    assert!(refused.is_damage(), "{refused:?}");
    let file = tempfile::NamedTempFile::new().unwrap();
    let elsewhere = StartError::from(RocksEngine::open(file.path()).unwrap_err());
    assert!(!elsewhere.is_damage(), "{elsewhere:?}");
}

#[cfg(feature = "rocksdb")]
#[tokio::test]
async fn rocksdb_has_what_was_answered_when_the_process_is_killed() {
    use crate::engine::rocks::RocksEngine;

    let dir = tempfile::TempDir::new().unwrap();
    let disk = Disk::new(Arc::new(RocksEngine::open(dir.path()).unwrap()));
    let (mut log, mut machine) = crate::machine::open(&disk, MemberId::from(ME)).unwrap();
    let mut state = Kept::default();
    for next in &script() {
        assert!(step(&mut log, &mut machine, next).await);
        state = state.after(next);
        // What kill -9 leaves: the files as they are at this moment. A file of the journal may be made meanwhile, and have
        // its name only for a moment; what can be copied and opened has everything.
        let killed = (0..100).find_map(|_| {
            let copy = tempfile::TempDir::new().unwrap();
            copy_into(dir.path(), copy.path()).ok()?;
            Some((RocksEngine::open(copy.path()).ok()?, copy))
        });
        let (killed, _copy) = killed.expect("one of a hundred copies is whole");
        let disk = Disk::new(Arc::new(killed));
        let (mut log, mut machine) = crate::machine::open(&disk, MemberId::from(ME)).unwrap();
        let found = Kept::found(&mut log, &mut machine).await;
        assert_eq!(found, Kept { applied: None, ..state.clone() }, "after {next:?}");
    }
}
