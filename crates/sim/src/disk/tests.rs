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
    let batch = PlacedBatch { first_offset: at(offset), end: at(offset + 1), bytes };
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
    let disk = disk(1);
    let store = disk.open();
    conformance::run_full(&store, || disk.fill(0), || disk.free_up()).await;
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
    assert!(matches!(&parts[1], Stored::Batch(batch) if batch.bytes != "record 2"));
    store.commit(group(1)).await.expect("room");
    assert_eq!(found(&store).await, [1, 2], "written anew");
}

#[tokio::test(start_paused = true)]
async fn one_seed_has_one_behaviour() {
    async fn run(seed: u64) -> (Vec<u64>, u128, u64) {
        let disk = disk(seed);
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
    assert_eq!(run(5).await, run(5).await);
    assert_ne!(run(5).await, run(6).await);
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
    let mut answers = 0;
    for seed in 0..60 {
        let disk = disk(seed);
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
        let found = found(&disk.open()).await.len() as u64;
        assert!(answered.get() <= found + 1, "seed {seed}: answered below {answered}, {found} are there");
        answers += answered.get() - 1;
    }
    assert!(answers > 600, "only {answers} stores were answered");
}
