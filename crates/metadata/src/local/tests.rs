#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc as std_mpsc;

use bifrost_wire::metadata::{Changes, Precondition};
use tempfile::TempDir;

use super::writer::PersistError;
use super::*;
use crate::conformance::conformance;
use crate::format;

async fn open(dir: &Path) -> LocalMetadata {
    LocalMetadata::open(dir).await.unwrap()
}

async fn write(store: &LocalMetadata, key: &str, value: &str) -> Revision {
    match store.txn(Txn::new().put(key, value.to_owned())).await.unwrap() {
        TxnOutcome::Committed(revision) => revision,
        TxnOutcome::Conflict(_) => unreachable!("no preconditions"),
    }
}

async fn entries(store: &LocalMetadata) -> Vec<(String, Versioned)> {
    let page = store.list(String::new(), None, usize::MAX).await.unwrap();
    assert!(!page.more);
    page.entries
}

/// What kill -9 leaves: the files as they are at this moment.
fn copy_of(dir: &Path) -> TempDir {
    let copy = TempDir::new().unwrap();
    for file in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        if file.file_name() != "LOCK" {
            fs::copy(file.path(), copy.path().join(file.file_name())).unwrap();
        }
    }
    copy
}

fn newest_wal(dir: &Path) -> PathBuf {
    let files = fs::read_dir(dir).unwrap().map(|file| file.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|extension| extension == "log")).max().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn local_passes_the_conformance_suite() {
    let root = TempDir::new().unwrap();
    let stores = AtomicUsize::new(0);
    conformance(async || open(&root.path().join(stores.fetch_add(1, Ordering::SeqCst).to_string())).await).await;
}

#[tokio::test]
async fn a_reopened_store_has_exactly_what_was_committed() {
    let dir = TempDir::new().unwrap();
    let mut last = 0;
    for round in 0..3 {
        let store = open(dir.path()).await;
        let outcome = store.txn(Txn::new()).await;
        assert_eq!(outcome, Ok(TxnOutcome::Committed(last)), "the revision goes on where it was");
        write(&store, "gone", "1").await;
        write(&store, &format!("kept/{round}"), "").await;
        last = match store.txn(Txn::new().delete("gone").put("pair", "1")).await.unwrap() {
            TxnOutcome::Committed(revision) => revision,
            TxnOutcome::Conflict(_) => unreachable!("no preconditions"),
        };
        let refused = store.txn(Txn::new().expect("pair", Precondition::Absent).put("refused", "1")).await;
        assert!(matches!(refused, Ok(TxnOutcome::Conflict(_))));
        let before = entries(&store).await;
        store.shutdown().await;
        let store = open(dir.path()).await;
        assert_eq!(entries(&store).await, before);
        assert_eq!(before.len(), round + 2);
        store.shutdown().await;
    }
    assert_eq!(last, 9, "three transactions in each of three rounds");
}

#[tokio::test]
async fn a_killed_store_has_everything_that_was_answered() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path()).await;
    for write_no in 0..50 {
        write(&store, &format!("k{}", write_no % 7), &write_no.to_string()).await;
        if write_no % 10 == 9 {
            let copy = copy_of(dir.path());
            let killed = open(copy.path()).await;
            assert_eq!(entries(&killed).await, entries(&store).await, "killed after {write_no}");
            assert_eq!(write(&killed, "next", "").await, write_no + 2, "no revision is given twice or left out");
            killed.shutdown().await;
        }
    }
    store.shutdown().await;
}

#[tokio::test]
async fn a_torn_log_leaves_a_prefix_of_the_commits() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path()).await;
    for commit in 1..=20_u64 {
        // Two keys in one commit: a prefix never has one of them only.
        let txn = Txn::new().put("a", commit.to_string()).put("b", commit.to_string());
        assert_eq!(store.txn(txn).await, Ok(TxnOutcome::Committed(commit)));
    }
    let mut shortest = 20;
    for torn in [1, 2, 7, 8, 20, 50, 100, 300, 700] {
        let copy = copy_of(dir.path());
        let wal = newest_wal(copy.path());
        let length = fs::metadata(&wal).unwrap().len();
        fs::File::options().write(true).open(&wal).unwrap().set_len(length.checked_sub(torn).unwrap()).unwrap();
        let reopened = open(copy.path()).await;
        let TxnOutcome::Committed(revision) = reopened.txn(Txn::new()).await.unwrap() else { unreachable!() };
        assert!(revision <= shortest && revision > 0, "{torn} bytes less: up to {revision}");
        shortest = revision;
        for (_, versioned) in entries(&reopened).await {
            assert_eq!((versioned.revision, versioned.value), (revision, revision.to_string().into()), "whole commits");
        }
        reopened.shutdown().await;
    }
    assert!(shortest < 19, "the tears reached past the last commit");
    store.shutdown().await;
}

#[tokio::test]
async fn a_log_damaged_before_its_end_is_refused() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path()).await;
    for commit in 0..20 {
        write(&store, "a", &format!("value {commit}")).await;
    }
    store.shutdown().await;
    let wal = newest_wal(dir.path());
    let mut bytes = fs::read(&wal).unwrap();
    let middle = bytes.windows(8).position(|window| window == b"value 10").unwrap();
    bytes[middle] ^= 0x40;
    fs::write(&wal, bytes).unwrap();
    // Opening as far as it goes would take back commits that were answered.
    let refused = LocalMetadata::open(dir.path()).await;
    assert!(matches!(refused, Err(OpenError::Storage { .. })), "{refused:?}");
}

#[tokio::test]
async fn a_directory_in_use_is_a_typed_error() {
    let root = TempDir::new().unwrap();
    let dir = root.path().join("new/and/deep");
    let store = open(&dir).await;
    let second = LocalMetadata::open(&dir).await;
    assert!(matches!(second, Err(OpenError::InUse { dir: found }) if found == dir));
    store.shutdown().await;
    open(&dir).await.shutdown().await;
}

/// Names and contents of everything in a directory.
fn contents(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let files = fs::read_dir(dir).unwrap().map(|file| file.unwrap().path());
    let mut contents: Vec<_> = files.map(|path| (path.clone(), fs::read(path).unwrap())).collect();
    contents.sort();
    contents
}

#[tokio::test]
async fn what_is_no_directory_of_ours_is_refused_and_left_alone() {
    let root = TempDir::new().unwrap();
    let file = root.path().join("thesis.txt");
    fs::write(&file, "mine").unwrap();
    let before = contents(root.path());
    assert!(matches!(LocalMetadata::open(&file).await, Err(OpenError::NotADirectory { .. })));
    let foreign = LocalMetadata::open(root.path()).await;
    assert!(
        matches!(&foreign, Err(OpenError::Foreign { entry, .. }) if entry == Path::new("thesis.txt")),
        "{foreign:?}"
    );
    assert_eq!(contents(root.path()), before);
    // A start that was cut short leaves RocksDB's own files and no database.
    let begun = TempDir::new().unwrap();
    fs::write(begun.path().join("LOG"), "").unwrap();
    fs::write(begun.path().join("MANIFEST-000001"), "").unwrap();
    open(begun.path()).await.shutdown().await;
}

#[tokio::test]
async fn a_value_of_a_newer_build_is_told_from_damage() {
    let dir = TempDir::new().unwrap();
    let mut newer = format::entry_value(b"kx", 5, b"who knows");
    let body = newer.len() - 4;
    newer[0] = 2;
    let crc = bifrost_checksum::crc32c_append(bifrost_checksum::crc32c(b"kx"), &newer[..body]);
    newer[body..].copy_from_slice(&crc.to_le_bytes());
    rocksdb::DB::open_default(dir.path()).unwrap().put(b"kx", &newer).unwrap();
    for _ in 0..2 {
        let refused = LocalMetadata::open(dir.path()).await;
        assert!(matches!(refused, Err(OpenError::NewerFormat { found: 2, .. })), "{refused:?}");
    }
    let kept = rocksdb::DB::open_default(dir.path()).unwrap().get(b"kx").unwrap();
    assert_eq!(kept, Some(newer), "refusing changes nothing");
}

#[tokio::test]
async fn a_damaged_or_foreign_value_is_refused() {
    for (key, value) in [
        (b"kx".to_vec(), b"not ours".to_vec()),
        (b"kx".to_vec(), Vec::new()),
        (b"?".to_vec(), b"1".to_vec()),
        (b"ky".to_vec(), format::entry_value(b"kx", 1, b"under another key")),
    ] {
        let dir = TempDir::new().unwrap();
        rocksdb::DB::open_default(dir.path()).unwrap().put(&key, value).unwrap();
        assert!(matches!(LocalMetadata::open(dir.path()).await, Err(OpenError::Format { .. })), "{key:?}");
    }
    let dir = TempDir::new().unwrap();
    let newer = format::entry_value(b"kx", 5, b"newer than the store");
    rocksdb::DB::open_default(dir.path()).unwrap().put(b"kx", newer).unwrap();
    assert!(matches!(LocalMetadata::open(dir.path()).await, Err(OpenError::Contradiction { .. })));
}

#[tokio::test]
async fn watches_start_at_the_recovered_revision() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path()).await;
    write(&store, "a", "1").await;
    let recovered = write(&store, "a", "2").await;
    store.shutdown().await;
    let store = open(dir.path()).await;
    for after in [0, recovered - 1, recovered + 1] {
        let refused = store.watch("a".into(), after).await;
        assert!(matches!(refused, Err(MetadataError::Compacted { oldest }) if oldest == recovered), "{after}");
    }
    let mut stream = store.watch("a".into(), recovered).await.unwrap();
    assert_eq!(stream.recv().await, Some(Ok(Changes { revision: recovered, changes: Vec::new() })));
    let next = write(&store, "a", "3").await;
    assert_eq!(stream.recv().await.unwrap().unwrap().revision, next);
    store.shutdown().await;
    assert_eq!(stream.recv().await, None, "the watch ends with the store");
}

#[tokio::test]
async fn a_store_that_was_shut_down_is_unavailable() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path()).await;
    let other = store.clone();
    write(&store, "a", "1").await;
    store.shutdown().await;
    other.shutdown().await;
    assert_eq!(other.txn(Txn::new().put("a", "2")).await, Err(MetadataError::Unavailable));
    assert_eq!(other.get("a".into()).await, Err(MetadataError::Unavailable));
    assert_eq!(other.list(String::new(), None, 1).await, Err(MetadataError::Unavailable));
    assert!(matches!(other.watch(String::new(), 0).await, Err(MetadataError::Unavailable)));
}

/// A disk whose every write waits for a verdict.
struct Scripted {
    started: std_mpsc::Sender<usize>,
    verdicts: std_mpsc::Receiver<Verdict>,
    /// What is found on the disk after it ran full; asked again and again until there is something.
    found: std_mpsc::Receiver<Keyspace>,
}

enum Verdict {
    Durable,
    NoRoom,
    RanFull,
    Failed,
}

impl Persist for Scripted {
    type Error = io::Error;

    fn persist(&mut self, commits: &[Changes]) -> Result<(), PersistError<io::Error>> {
        self.started.send(commits.len()).unwrap();
        match self.verdicts.recv().unwrap() {
            Verdict::Durable => Ok(()),
            Verdict::NoRoom => Err(PersistError::NoRoom),
            Verdict::RanFull => Err(PersistError::RanFull),
            Verdict::Failed => Err(PersistError::Failed(io::ErrorKind::Other.into())),
        }
    }

    fn revive(&mut self) -> Result<Option<Keyspace>, io::Error> {
        Ok(self.found.try_recv().ok())
    }
}

struct Script {
    starts: std_mpsc::Receiver<usize>,
    verdict: std_mpsc::Sender<Verdict>,
    found: std_mpsc::Sender<Keyspace>,
}

async fn scripted() -> (LocalMetadata, Script) {
    let (started, starts) = std_mpsc::channel();
    let (verdict, verdicts) = std_mpsc::channel();
    let (finds, found) = std_mpsc::channel();
    let disk = Scripted { started, verdicts, found };
    let store = LocalMetadata::start(PathBuf::new(), move || Ok((disk, Keyspace::new()))).await.unwrap();
    (store, Script { starts, verdict, found: finds })
}

#[tokio::test]
async fn what_waits_is_one_group_and_visible_only_when_durable() {
    let (store, Script { starts, verdict, .. }) = scripted().await;
    let first = store.enqueue(Txn::new().put("a", "1")).unwrap();
    assert_eq!(starts.recv(), Ok(1), "the first is on its way to the disk");
    assert_eq!(store.get("a".into()).await, Ok(None), "what is not durable is not visible");
    let waiting: Vec<_> = (0..100).map(|key| store.enqueue(Txn::new().put(format!("k{key}"), "1")).unwrap()).collect();
    let refused = store.enqueue(Txn::new().expect("k7", Precondition::Absent).put("k7", "2")).unwrap();
    verdict.send(Verdict::Durable).unwrap();
    assert_eq!(first.await.unwrap(), Ok(TxnOutcome::Committed(1)));
    assert_eq!(starts.recv(), Ok(100), "all that waited is one write");
    assert!(store.get("k7".into()).await.unwrap().is_none(), "also the second group waits for the disk");
    verdict.send(Verdict::Durable).unwrap();
    for (index, answer) in waiting.into_iter().enumerate() {
        assert_eq!(answer.await.unwrap(), Ok(TxnOutcome::Committed(index as u64 + 2)), "in order of arrival");
    }
    let Ok(TxnOutcome::Conflict(present)) = refused.await.unwrap() else { panic!("k7 was there") };
    assert_eq!(present[0].1.as_ref().map(|value| value.revision), Some(9), "decided on top of its own group");
    store.shutdown().await;
}

#[tokio::test]
async fn a_failed_disk_stops_the_store_for_good() {
    let (store, Script { starts, verdict, .. }) = scripted().await;
    let mut stream = store.watch(String::new(), 0).await.unwrap();
    stream.recv().await.unwrap().unwrap();
    let in_flight = store.enqueue(Txn::new().put("a", "1")).unwrap();
    assert_eq!(starts.recv(), Ok(1));
    let waiting = store.enqueue(Txn::new().put("b", "1")).unwrap();
    verdict.send(Verdict::Failed).unwrap();
    assert_eq!(in_flight.await.unwrap(), Err(MetadataError::Unknown), "it may be on the disk");
    assert_eq!(waiting.await.unwrap(), Err(MetadataError::Unavailable), "it was never tried");
    assert_eq!(stream.recv().await, None);
    assert_eq!(store.get("a".into()).await, Err(MetadataError::Unavailable));
    assert_eq!(store.txn(Txn::new().put("a", "1")).await, Err(MetadataError::Unavailable));
    store.shutdown().await;
    assert!(starts.try_recv().is_err(), "the disk was not tried again");
}

#[tokio::test]
async fn without_room_nothing_is_done_reads_go_on_and_so_do_writes_later() {
    let (store, Script { starts, verdict, .. }) = scripted().await;
    verdict.send(Verdict::Durable).unwrap();
    assert_eq!(write(&store, "a", "1").await, 1);
    verdict.send(Verdict::NoRoom).unwrap();
    assert_eq!(store.txn(Txn::new().put("a", "2")).await, Err(MetadataError::Unavailable));
    assert_eq!(store.get("a".into()).await.unwrap().unwrap().value, "1", "nothing was done");
    assert_eq!(store.txn(Txn::new()).await, Ok(TxnOutcome::Committed(1)), "what writes nothing needs no room");
    verdict.send(Verdict::Durable).unwrap();
    assert_eq!(write(&store, "a", "3").await, 2, "no revision is left out");
    assert_eq!(starts.try_iter().count(), 3);
    store.shutdown().await;
}

#[tokio::test]
async fn a_write_that_ran_out_of_space_is_unknown_until_the_disk_is_read_again() {
    let (store, Script { verdict, found, starts: _starts }) = scripted().await;
    let mut stream = store.watch(String::new(), 0).await.unwrap();
    stream.recv().await.unwrap().unwrap();
    verdict.send(Verdict::RanFull).unwrap();
    assert_eq!(store.txn(Txn::new().put("a", "1")).await, Err(MetadataError::Unknown));
    assert_eq!(stream.recv().await, None, "watchers read anew");
    assert_eq!(store.get("a".into()).await, Err(MetadataError::Unavailable), "nobody reads as if it were not there");
    assert_eq!(store.txn(Txn::new().put("b", "1")).await, Err(MetadataError::Unavailable));
    let entry = Versioned { revision: 1, value: "1".into() };
    found.send(Keyspace::restore(1, vec![("a".to_owned(), entry.clone())]).unwrap()).unwrap();
    let read = loop {
        match store.get("a".into()).await {
            Err(MetadataError::Unavailable) => tokio::task::yield_now().await,
            read => break read,
        }
    };
    assert_eq!(read, Ok(Some(entry)), "it was there");
    verdict.send(Verdict::Durable).unwrap();
    assert_eq!(write(&store, "b", "1").await, 2);
    verdict.send(Verdict::RanFull).unwrap();
    assert_eq!(store.txn(Txn::new().put("c", "1")).await, Err(MetadataError::Unknown));
    store.shutdown().await;
}

#[tokio::test]
async fn a_full_queue_is_an_answer() {
    let (store, Script { starts, verdict, .. }) = scripted().await;
    let first = store.enqueue(Txn::new().put("a", "1")).unwrap();
    assert_eq!(starts.recv(), Ok(1));
    let waiting: Vec<_> = (0..QUEUE).map(|_| store.enqueue(Txn::new()).unwrap()).collect();
    assert_eq!(store.txn(Txn::new()).await, Err(MetadataError::Unavailable));
    verdict.send(Verdict::Durable).unwrap();
    assert_eq!(first.await.unwrap(), Ok(TxnOutcome::Committed(1)));
    for answer in waiting {
        assert_eq!(answer.await.unwrap(), Ok(TxnOutcome::Committed(1)));
    }
    let large = || (0..15).fold(Txn::new(), |txn, key| txn.put(format!("large/{key}"), vec![0; 1 << 20]));
    let blocked = store.enqueue(Txn::new().put("a", "2")).unwrap();
    assert_eq!(starts.recv(), Ok(1));
    let mut taken = Vec::new();
    while let Ok(answer) = store.enqueue(large()) {
        taken.push(answer);
    }
    assert_eq!(taken.len(), 4, "64 MiB wait at most");
    drop(taken);
    for _ in 0..8 {
        verdict.send(Verdict::Durable).unwrap();
    }
    assert_eq!(blocked.await.unwrap(), Ok(TxnOutcome::Committed(2)));
    store.shutdown().await;
}
