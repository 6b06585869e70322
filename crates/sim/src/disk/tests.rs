use bifrost_logserver::store::conformance::{self, Lives};
use bifrost_logserver::store::{Change, LogStore, PlacedBatch, StoreError, Stored};
use bifrost_logserver::{LogServerHandle, ServerOptions, WriterRuntime};
use bifrost_types::{
    ClusterId, DiskId, Generation, LogId, NodeGeneration, NodeId, OpId, Record, SegmentIndex, Sequence, WriterId,
};
use bifrost_wire::batch;
use bifrost_wire::log_server::{CopyError, LogServer, SealRequest, StoreRequest};
use bytes::Bytes;
use tokio::time::{sleep, timeout};

use super::*;
use crate::history::What;

const CAPACITY: u64 = 1 << 26;
const FOREVER: Duration = Duration::from_secs(3600);

fn disk(seed: u64) -> Disk {
    let disk = Disk::new("n1", seed, CAPACITY, History::new(|| 0));
    disk.set_latency(DiskLatency::NONE);
    disk.set_marker(marker());
    disk
}

/// One where the engine `files` keeps what is stored.
fn on_files(seed: u64) -> Disk {
    let options = FilesOptions { file_bytes: 4 * 4096, recent_bytes: 0 };
    let disk = Disk::on_files("n1", seed, CAPACITY, History::new(|| 0), options);
    disk.set_latency(DiskLatency::NONE);
    disk.set_marker(marker());
    disk
}

fn notes(disk: &Disk) -> Vec<String> {
    let lines = disk.state.lock().history.lines();
    let notes = lines.into_iter().filter_map(|line| match line.what {
        What::Note(note) => Some(note),
        What::Event(_) => None,
    });
    notes.collect()
}

fn marker() -> Marker {
    Marker {
        generation: Some(Generation::FIRST),
        cluster: ClusterId::try_from(1).expect("non-zero"),
        node: NodeId::try_from(1).expect("non-zero"),
        disk: DiskId::try_from(0xd15c).expect("non-zero"),
    }
}

fn loglet() -> LogletId {
    LogletId::new(LogId::try_from(7).expect("non-zero"), SegmentIndex::new(0))
}

fn at(offset: u64) -> LogletOffset {
    LogletOffset::new(offset).expect("non-zero")
}

/// A group with one batch of one record, and the state that goes with it.
fn group(offset: u64) -> Group {
    let bytes = Bytes::from(format!("record {offset}"));
    let batch = PlacedBatch::new(at(offset), at(offset + 1), bytes);
    let state = DurableState { local_tail: at(offset + 1), ..DurableState::EMPTY };
    let mut group = Group::default();
    group.push(Change::Append { loglet: loglet(), batch });
    group.push(Change::Put { loglet: loglet(), state });
    group
}

/// Offsets of the batches that the store finds intact.
async fn found(store: &SimStore) -> Vec<u64> {
    let chunk = store.read(loglet(), at(1), at(1000), usize::MAX).await.expect("a read");
    let intact = chunk.parts.iter().filter(|part| matches!(part, Stored::Batch(_)));
    intact.map(|part| part.first_offset().get()).collect()
}

/// What the history says became durable.
fn stored(disk: &Disk) -> Vec<u64> {
    let lines = disk.state.lock().history.lines();
    let events = lines.iter().filter_map(|line| match &line.what {
        What::Event(Event::Stored { first_offset, .. }) => Some(first_offset.get()),
        What::Event(_) | What::Note(_) => None,
    });
    events.collect()
}

/// Writes a group whose fsync does not end.
async fn write_unsynced(disk: &Disk, store: &SimStore, offset: u64) {
    disk.set_latency(DiskLatency { fsync_min: FOREVER, fsync_max: FOREVER, ..DiskLatency::NONE });
    let cut = timeout(Duration::from_millis(1), store.commit(group(offset))).await;
    assert!(cut.is_err(), "the fsync ended");
    disk.set_latency(DiskLatency::NONE);
}

struct Openings(Disk);

impl Lives for Openings {
    type Store = SimStore;

    async fn open(&mut self) -> SimStore {
        self.0.open()
    }

    async fn close(&mut self, store: SimStore) {
        drop(store);
        self.0.crash();
    }
}

#[tokio::test]
async fn the_contract_holds() {
    conformance::run(&mut Openings(disk(1))).await;
}

#[tokio::test]
async fn the_contract_holds_on_files() {
    for seed in 0..20 {
        let disk = on_files(seed);
        conformance::run(&mut Openings(disk.clone())).await;
        assert_eq!(disk.failures(), Vec::<String>::new(), "seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_contract_holds_on_a_slow_disk() {
    let disk = disk(1);
    let seconds = Duration::from_secs;
    let slow = DiskLatency { fsync_max: seconds(5), read_max: seconds(1), ..DiskLatency::NONE };
    disk.set_latency(slow);
    conformance::run(&mut Openings(disk)).await;
}

#[tokio::test]
async fn a_full_disk_goes_on_when_there_is_room() {
    for disk in [disk(1), on_files(1)] {
        let store = disk.open();
        conformance::run_full(&store, || disk.fill(0), || disk.free_up()).await;
    }
}

/// A few groups of two loglets, trims of both at different places, and now and then a crash with one more group under way.
/// Returns how often it gave files back, moved groups, and kept what was under way.
async fn write_and_trim(disk: &Disk) -> (usize, usize, usize) {
    let mut store = disk.open();
    for offset in 1..=400 {
        store.commit(group(offset)).await.expect("room");
        if offset % 40 == 0 {
            let mut slow = Group::default();
            let loglet = LogletId::new(LogId::try_from(8).expect("non-zero"), SegmentIndex::new(0));
            let (first_offset, end) = (at(offset / 40), at(offset / 40 + 1));
            let batch = PlacedBatch::new(first_offset, end, Bytes::from(format!("slow {offset}")));
            slow.push(Change::Append { loglet, batch });
            slow.push(Change::Put { loglet, state: DurableState { local_tail: end, ..DurableState::EMPTY } });
            slow.push(Change::DropBelow { loglet: self::loglet(), offset: at(offset - 20) });
            store.commit(slow).await.expect("room");
        }
        if offset % 57 == 0 {
            write_unsynced(disk, &store, offset + 1).await;
            disk.crash();
            store = disk.open();
        }
    }
    let notes = notes(disk);
    let told = |what: &str| notes.iter().filter(|note| note.contains(what)).count();
    (told("files go") - told(" 0 files go"), told("moved out") - told("and 0 groups"), told("crash: 1 of 1 unsynced"))
}

#[tokio::test(start_paused = true)]
async fn files_are_given_back_and_compacted_and_keep_what_is_needed_through_crashes() {
    let (mut gone, mut moved, mut kept) = (0, 0, 0);
    for seed in 0..20 {
        let disk = on_files(seed);
        let (of_this, moves, keeps) = write_and_trim(&disk).await;
        (gone, moved, kept) = (gone + of_this, moved + moves, kept + keeps);
        assert_eq!(disk.failures(), Vec::<String>::new(), "seed {seed}");
        assert_eq!(found(&disk.open()).await, (380..=400).collect::<Vec<_>>(), "seed {seed}");
    }
    assert!(gone > 50 && moved > 20, "files went {gone} times, {moved} times some were compacted");
    assert!((20..120).contains(&kept), "{kept} of 140 groups survived a crash that met them");
}

#[tokio::test(start_paused = true)]
async fn what_an_engine_loses_is_found() {
    let disk = on_files(1);
    let store = disk.open();
    store.commit(group(1)).await.expect("room");
    assert_eq!(disk.failures(), Vec::<String>::new());
    disk.state.lock().platter.apply(group(2));
    let failures = disk.failures();
    assert!(failures.iter().any(|failure| failure.contains("1 batches for 2")), "{failures:?}");
}

#[tokio::test(start_paused = true)]
async fn a_crash_never_loses_what_was_synced_and_keeps_a_prefix_of_the_rest() {
    let mut kept = [0; 4];
    for seed in 0..100 {
        let disk = disk(seed);
        let store = disk.open();
        store.commit(group(1)).await.expect("room");
        for offset in 2..=4 {
            write_unsynced(&disk, &store, offset).await;
        }
        assert_eq!(stored(&disk), [1]);
        disk.crash();
        let found = found(&disk.open()).await;
        assert_eq!(found, (1..=found.len() as u64).collect::<Vec<_>>(), "no prefix");
        assert_eq!(stored(&disk), found, "the history says what survived");
        kept[found.len() - 1] += 1;
    }
    assert!(kept.iter().all(|seeds| *seeds > 0), "groups kept in 100 seeds: {kept:?}");
}

#[tokio::test(start_paused = true)]
async fn one_fsync_makes_everything_before_it_durable() {
    let disk = disk(1);
    let store = disk.open();
    write_unsynced(&disk, &store, 1).await;
    assert!(found(&store).await.is_empty(), "not visible before it is durable");
    store.commit(group(2)).await.expect("room");
    assert_eq!((disk.unsynced(), stored(&disk)), (0, vec![1, 2]));
}

#[tokio::test(start_paused = true)]
async fn a_process_that_ends_alone_loses_nothing_that_it_wrote() {
    let disk = disk(1);
    let store = disk.open();
    write_unsynced(&disk, &store, 1).await;
    assert_eq!(found(&disk.open()).await, [1]);
    assert_eq!(stored(&disk), [1]);
}

#[tokio::test(start_paused = true)]
async fn after_a_failed_fsync_files_take_nothing_and_lose_nothing_that_was_found_again() {
    let mut found_again = 0;
    for seed in 0..40 {
        let disk = on_files(seed);
        let store = disk.open();
        store.commit(group(1)).await.expect("room");
        disk.fail_fsyncs(1);
        assert!(matches!(store.commit(group(2)).await, Err(StoreError::Failed { .. })));
        assert!(matches!(store.commit(group(3)).await, Err(StoreError::Failed { .. })), "a later one is not believed");
        for _ in 0..3 {
            disk.crash();
            let found = found(&disk.open()).await;
            assert_eq!(stored(&disk), found, "seed {seed}: the history says what survived");
            assert_eq!(disk.failures(), Vec::<String>::new(), "seed {seed}");
        }
        found_again += stored(&disk).len() - 1;
    }
    assert!((5..35).contains(&found_again), "{found_again} of 40 groups were there all the same");
}

#[tokio::test]
async fn a_failed_fsync_loses_its_groups_whatever_a_later_one_says() {
    let disk = disk(1);
    let store = disk.open();
    store.commit(group(1)).await.expect("room");
    disk.fail_fsyncs(1);
    assert!(matches!(store.commit(group(2)).await, Err(StoreError::Failed { .. })));
    // What a process must not do: go on.
    store.commit(Group::default()).await.expect("the next fsync reports success");
    store.commit(group(3)).await.expect("and so does one with bytes");
    assert_eq!(found(&store).await, [1, 2, 3], "its own memory still shows them");
    assert_eq!(stored(&disk), [1], "the history knows better");
    disk.crash();
    assert_eq!(found(&disk.open()).await, [1]);
}

#[tokio::test(start_paused = true)]
async fn a_store_of_an_earlier_life_cannot_write() {
    let disk = disk(1);
    let old = disk.open();
    let new = disk.open();
    assert!(matches!(old.commit(group(1)).await, Err(StoreError::Failed { .. })));
    assert!(matches!(old.read(loglet(), at(1), at(2), 1).await, Err(StoreError::Failed { .. })));
    disk.set_latency(DiskLatency { fsync_min: FOREVER, fsync_max: FOREVER, ..DiskLatency::NONE });
    let (outcome, ()) = tokio::join!(new.commit(group(1)), async {
        tokio::task::yield_now().await;
        disk.crash();
    });
    assert!(outcome.is_err(), "a commit that a crash cut short reports nothing");
    assert!(!new.is_alive());
}

#[tokio::test]
async fn a_wiped_disk_is_empty_and_nobodys() {
    let disk = disk(1);
    let store = disk.open();
    store.commit(group(1)).await.expect("room");
    disk.wipe();
    assert!(store.commit(group(2)).await.is_err());
    let store = disk.open();
    assert_eq!((found(&store).await, store.recover().await.expect("recovers").len()), (vec![], 0));
    assert_eq!(disk.marker(), None);
    let lines = disk.state.lock().history.lines();
    let lost = What::Event(Event::DiskLost { disk: marker().disk });
    assert!(lines.iter().any(|line| line.what == lost));
}

#[tokio::test]
async fn damage_shows_and_goes_with_the_batch() {
    let disk = disk(1);
    let store = disk.open();
    assert_eq!(disk.damage_any(Damage::Frame), None);
    store.commit(group(1)).await.expect("room");
    store.commit(group(2)).await.expect("room");
    assert!(disk.damage(loglet(), at(1), Damage::Frame));
    assert!(!disk.damage(loglet(), at(1), Damage::Frame), "damaged already");
    assert_eq!(disk.damage_any(Damage::Bit), Some((loglet(), at(2))));
    let parts = store.read(loglet(), at(1), at(3), usize::MAX).await.expect("a read").parts;
    assert_eq!(parts[0], Stored::Damaged { first_offset: at(1), end: at(2) });
    assert!(matches!(&parts[1], Stored::Batch(batch) if batch.bytes() != "record 2"));
    store.commit(group(1)).await.expect("room");
    assert_eq!(found(&store).await, [1, 2], "written anew");
}

#[tokio::test]
async fn damage_in_files_shows_and_keeps_nobody_from_opening_them() {
    let disk = on_files(1);
    let store = disk.open();
    store.commit(group(1)).await.expect("room");
    store.commit(group(2)).await.expect("room");
    assert!(disk.damage(loglet(), at(1), Damage::Frame));
    assert_eq!(found(&store).await, [2]);
    disk.crash();
    assert_eq!(disk.damage_any(Damage::Bit), Some((loglet(), at(2))), "while nobody has it open");
    let store = disk.open();
    let parts = store.read(loglet(), at(1), at(3), usize::MAX).await.expect("a read").parts;
    let damaged = |offset| Stored::Damaged { first_offset: at(offset), end: at(offset + 1) };
    assert_eq!(parts, [damaged(1), damaged(2)]);
    assert_eq!(disk.failures(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn one_seed_has_one_behaviour() {
    async fn run(disk: Disk) -> (Vec<u64>, u128, u64) {
        let began = tokio::time::Instant::now();
        for round in 0..10 {
            let store = disk.open();
            disk.set_latency(DiskLatency { stall_percent: 20, ..DiskLatency::default() });
            store.commit(group(round * 2 + 1)).await.expect("room");
            write_unsynced(&disk, &store, round * 2 + 2).await;
            disk.crash();
        }
        (stored(&disk), began.elapsed().as_millis(), disk.state.lock().history.fingerprint())
    }
    for of in [disk, on_files] {
        assert_eq!(run(of(5)).await, run(of(5)).await);
        assert_ne!(run(of(5)).await, run(of(6)).await);
    }
}

async fn start(disk: &Disk) -> LogServerHandle {
    let marker = disk.marker().expect("was set");
    let options = ServerOptions::new(marker.node, marker.disk);
    LogServerHandle::start(Arc::new(disk.open()), options, WriterRuntime::Task).await.expect("starts")
}

fn store(loglet: LogletId, first_offset: u64) -> StoreRequest {
    let writer = WriterId::try_from(1).expect("non-zero");
    let sequence = Sequence::try_from(first_offset).expect("non-zero");
    let batch = batch::encode(writer, sequence, 0, &[Record::new("payload")]).expect("a small record");
    StoreRequest {
        loglet,
        disk: marker().disk,
        sequencer: NodeGeneration::new(marker().node, Generation::FIRST),
        committed_tail: LogletOffset::FIRST,
        first_offset: at(first_offset),
        batches: vec![batch],
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_on_a_full_disk_refuses_and_still_seals() {
    let disk = disk(1);
    let server = start(&disk).await;
    // The ballast is made at the first look.
    sleep(Duration::from_secs(2)).await;
    disk.fill(0);
    sleep(Duration::from_secs(2)).await;
    let op = OpId::try_from(1).expect("non-zero");
    let sealed = server.seal(SealRequest { loglet: loglet(), disk: marker().disk, op }).await;
    assert_eq!(sealed.map(|state| state.sealed), Ok(Some(op)), "it lives on the ballast");
    let mut stream = server.open_store().await.expect("runs");
    let other = LogletId::new(LogId::try_from(8).expect("non-zero"), SegmentIndex::new(0));
    stream.requests.send(store(other, 1)).await.expect("runs");
    let reply = stream.replies.recv().await.expect("an answer");
    assert_eq!(reply.outcome, Some(Err(CopyError::DiskFull)));
}

#[tokio::test(start_paused = true)]
async fn what_a_server_answered_survives_every_crash_and_every_failed_fsync() {
    let answers = crash_servers(disk).await + crash_servers(on_files).await;
    assert!(answers > 1200, "only {answers} stores were answered");
}

/// How many stores were answered.
async fn crash_servers(of: fn(u64) -> Disk) -> u64 {
    let mut answers = 0;
    for seed in 0..60 {
        let disk = of(seed);
        let slow = Duration::from_millis(50);
        disk.set_latency(DiskLatency { fsync_max: slow, stall_percent: 5, stall_max: slow * 10, ..DiskLatency::NONE });
        let server = start(&disk).await;
        let mut stream = server.open_store().await.expect("runs");
        let (mut sent, mut answered) = (0, LogletOffset::FIRST);
        let end = sleep(Duration::from_millis(100 + seed * 7));
        tokio::pin!(end);
        loop {
            tokio::select! {
                biased;
                () = &mut end => break,
                reply = stream.replies.recv() => match reply.and_then(|reply| reply.outcome) {
                    Some(Ok(state)) => answered = answered.max(state.local_tail),
                    Some(Err(_)) | None => break,
                },
                () = sleep(Duration::from_millis(3)) => {
                    sent += 1;
                    if sent == 20 && seed % 2 == 1 {
                        disk.fail_fsyncs(1);
                    }
                    if stream.requests.send(store(loglet(), sent)).await.is_err() {
                        break;
                    }
                }
            }
        }
        disk.crash();
        // An opening syncs too.
        disk.fail_fsyncs(0);
        let found = found(&disk.open()).await.len() as u64;
        assert!(answered.get() <= found + 1, "seed {seed}: answered below {answered}, {found} are there");
        answers += answered.get() - 1;
    }
    answers
}
