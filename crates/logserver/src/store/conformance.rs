//! The contract of [`LogStore`] as one suite that every store passes.
//!
//! `open` gives the store of a directory or device, `close` ends one life of it: whatever was committed must be there
//! in the next.
#![allow(clippy::panic, clippy::missing_panics_doc, reason = "a failed assertion is what a test suite is for")]

use std::future::Future;
use std::num::NonZeroU128;

use bifrost_types::{
    Generation, LogId, LogletId, LogletOffset, NodeGeneration, NodeId, OpId, Record, SegmentIndex, Sequence, WriterId,
};
use bifrost_wire::batch;

use crate::copy::{DurableState, Seal};
use crate::store::{Change, Chunk, Group, LogStore, PlacedBatch, Recovered, StoreError, Stored};

/// Opens and closes the store under test.
pub trait Lives {
    /// The store.
    type Store: LogStore;

    /// Starts a life.
    fn open(&mut self) -> impl Future<Output = Self::Store>;

    /// Ends a life, as a crash would: nothing is flushed.
    fn close(&mut self, store: Self::Store) -> impl Future<Output = ()>;
}

/// Runs every check, each on loglets of its own.
pub async fn run(lives: &mut impl Lives) {
    let store = lives.open().await;
    an_empty_store_covers_ranges_and_knows_nothing(&store).await;
    batches_are_found_by_any_offset_that_they_cover(&store).await;
    holes_are_not_in_the_parts(&store).await;
    reading_stops_at_the_byte_limit_and_says_where(&store).await;
    loglets_do_not_see_each_other(&store).await;
    drops_keep_what_reaches_over_the_offset(&store).await;
    later_changes_of_a_group_see_earlier_ones(&store).await;
    lives.close(store).await;
    what_was_committed_is_there_in_the_next_life(lives).await;
}

/// Fills the store up and makes room again. `take` leaves the disk without a free byte, `give` undoes that; the store may
/// have room of its own for some groups after `take`.
pub async fn run_full(store: &impl LogStore, mut take: impl FnMut(), mut give: impl FnMut()) {
    let of = loglet(10, 0);
    let mut next = 1;
    let mut stored = Vec::new();
    for round in 0..3 {
        store.commit(group([append(of, next, 3)])).await.expect("room");
        stored.push((next, 3));
        next += 3;
        take();
        let mut refused = 0;
        while refused < 3 {
            assert!(next < 100_000, "the store never runs full");
            match store.commit(group([Change::Append { loglet: of, batch: large(next) }])).await {
                Ok(()) => {
                    stored.push((next, LARGE_RECORDS));
                    next += LARGE_RECORDS;
                }
                Err(StoreError::Full) => {
                    refused += 1;
                    let found = contents(store, of, next + LARGE_RECORDS).await;
                    assert_eq!(found, stored, "a refused group leaves no trace, and reads go on");
                }
                Err(error) => panic!("round {round}: {error}"),
            }
        }
        give();
        let began = tokio::time::Instant::now();
        loop {
            match store.commit(group([Change::Append { loglet: of, batch: large(next) }])).await {
                Ok(()) => break,
                Err(StoreError::Full) => tokio::task::yield_now().await,
                Err(error) => panic!("round {round}: {error}"),
            }
            assert!(began.elapsed().as_secs() < 30, "it does not notice that there is room");
        }
        stored.push((next, LARGE_RECORDS));
        next += LARGE_RECORDS;
        assert_eq!(contents(store, of, next).await, stored);
    }
}

/// Records of a batch that takes some room.
const LARGE_RECORDS: u64 = 4;

/// A batch of 64 KiB.
fn large(first_offset: u64) -> PlacedBatch {
    let payloads: Vec<Record> = (0..LARGE_RECORDS).map(|_| Record::new(vec![first_offset as u8; 16 << 10])).collect();
    let writer = WriterId::new(NonZeroU128::MIN);
    let bytes = batch::encode(writer, Sequence::FIRST, 0, &payloads).expect("small records");
    PlacedBatch::new(at(first_offset), at(first_offset + LARGE_RECORDS), bytes)
}

/// First offset and records of each batch below `until`.
async fn contents(store: &impl LogStore, loglet: LogletId, until: u64) -> Vec<(u64, u64)> {
    let parts = read(store, loglet, 1, until).await.parts;
    parts.iter().map(|part| (part.first_offset().get(), part.end().get() - part.first_offset().get())).collect()
}

fn at(offset: u64) -> LogletOffset {
    LogletOffset::new(offset).expect("non-zero")
}

fn loglet(log: u64, segment: u32) -> LogletId {
    LogletId::new(LogId::try_from(log).expect("non-zero"), SegmentIndex::new(segment))
}

/// A batch with recognisable contents.
fn placed(first_offset: u64, records: u64) -> PlacedBatch {
    let payloads: Vec<Record> = (0..records).map(|index| Record::new(format!("{first_offset}+{index}"))).collect();
    let writer = WriterId::new(NonZeroU128::MIN);
    let bytes = batch::encode(writer, Sequence::FIRST, 0, &payloads).expect("small records");
    PlacedBatch::new(at(first_offset), at(first_offset + records), bytes)
}

fn group(changes: impl IntoIterator<Item = Change>) -> Group {
    let mut group = Group::default();
    changes.into_iter().for_each(|change| group.push(change));
    group
}

fn append(loglet: LogletId, first_offset: u64, records: u64) -> Change {
    Change::Append { loglet, batch: placed(first_offset, records) }
}

fn found(batches: &[(u64, u64)], covered_until: u64) -> Chunk {
    let parts = batches.iter().map(|&(first_offset, records)| Stored::Batch(placed(first_offset, records))).collect();
    Chunk { parts, covered_until: at(covered_until) }
}

async fn read(store: &impl LogStore, loglet: LogletId, from: u64, until: u64) -> Chunk {
    store.read(loglet, at(from), at(until), usize::MAX).await.expect("a read")
}

async fn an_empty_store_covers_ranges_and_knows_nothing(store: &impl LogStore) {
    assert_eq!(store.recover().await.expect("recovers"), Vec::new());
    assert_eq!(read(store, loglet(1, 0), 1, 100).await, found(&[], 100));
    assert_eq!(read(store, loglet(1, 0), 5, 5).await, found(&[], 5));
    store.commit(Group::default()).await.expect("nothing to write");
}

async fn batches_are_found_by_any_offset_that_they_cover(store: &impl LogStore) {
    let of = loglet(2, 0);
    store.commit(group([append(of, 1, 3), append(of, 4, 1), append(of, 5, 5)])).await.expect("room");
    assert_eq!(read(store, of, 1, 10).await, found(&[(1, 3), (4, 1), (5, 5)], 10));
    assert_eq!(read(store, of, 3, 5).await, found(&[(1, 3), (4, 1)], 5));
    assert_eq!(read(store, of, 4, 5).await, found(&[(4, 1)], 5));
    assert_eq!(read(store, of, 9, 50).await, found(&[(5, 5)], 50));
    assert_eq!(read(store, of, 10, 50).await, found(&[], 50));
}

async fn holes_are_not_in_the_parts(store: &impl LogStore) {
    let of = loglet(3, 0);
    store.commit(group([append(of, 10, 2), append(of, 20, 2)])).await.expect("room");
    assert_eq!(read(store, of, 1, 30).await, found(&[(10, 2), (20, 2)], 30));
    assert_eq!(read(store, of, 12, 20).await, found(&[], 20));
    assert_eq!(read(store, of, 15, 21).await, found(&[(20, 2)], 21));
    store.commit(group([append(of, 12, 8)])).await.expect("room");
    assert_eq!(read(store, of, 11, 30).await, found(&[(10, 2), (12, 8), (20, 2)], 30));
}

async fn reading_stops_at_the_byte_limit_and_says_where(store: &impl LogStore) {
    let of = loglet(4, 0);
    store.commit(group([append(of, 1, 1), append(of, 2, 1), append(of, 5, 1)])).await.expect("room");
    let first = store.read(of, at(1), at(10), 0).await.expect("a read");
    assert_eq!(first, found(&[(1, 1)], 2));
    let second = store.read(of, at(2), at(10), 1).await.expect("a read");
    assert_eq!(second, found(&[(2, 1)], 5), "the hole behind it is covered");
}

async fn loglets_do_not_see_each_other(store: &impl LogStore) {
    let [one, two, three] = [loglet(5, 0), loglet(5, 1), loglet(6, 0)];
    store.commit(group([append(one, 1, 4), append(two, 2, 2), append(three, 1, 1)])).await.expect("room");
    assert_eq!(read(store, one, 1, 9).await, found(&[(1, 4)], 9));
    assert_eq!(read(store, two, 1, 9).await, found(&[(2, 2)], 9));
    store.commit(group([Change::DropFrom { loglet: one, offset: at(1) }])).await.expect("room");
    store.commit(group([Change::DropBelow { loglet: three, offset: at(9) }])).await.expect("room");
    assert_eq!(read(store, one, 1, 9).await, found(&[], 9));
    assert_eq!(read(store, two, 1, 9).await, found(&[(2, 2)], 9));
    assert_eq!(read(store, three, 1, 9).await, found(&[], 9));
}

async fn drops_keep_what_reaches_over_the_offset(store: &impl LogStore) {
    let of = loglet(7, 0);
    let appends = [append(of, 1, 2), append(of, 3, 4), append(of, 7, 2), append(of, 9, 1)];
    store.commit(group(appends)).await.expect("room");
    store.commit(group([Change::DropBelow { loglet: of, offset: at(5) }])).await.expect("room");
    assert_eq!(read(store, of, 1, 20).await, found(&[(3, 4), (7, 2), (9, 1)], 20));
    store.commit(group([Change::DropFrom { loglet: of, offset: at(8) }])).await.expect("room");
    assert_eq!(read(store, of, 1, 20).await, found(&[(3, 4), (7, 2)], 20));
    store.commit(group([Change::DropBelow { loglet: of, offset: at(7) }])).await.expect("room");
    assert_eq!(read(store, of, 1, 20).await, found(&[(7, 2)], 20));
}

async fn later_changes_of_a_group_see_earlier_ones(store: &impl LogStore) {
    let of = loglet(8, 0);
    let changes =
        [append(of, 1, 2), append(of, 3, 4), Change::DropBelow { loglet: of, offset: at(5) }, append(of, 7, 1)];
    store.commit(group(changes)).await.expect("room");
    assert_eq!(read(store, of, 1, 20).await, found(&[(3, 4), (7, 1)], 20));
    let changes = [Change::DropFrom { loglet: of, offset: at(7) }, append(of, 7, 3)];
    store.commit(group(changes)).await.expect("room");
    assert_eq!(read(store, of, 1, 20).await, found(&[(3, 4), (7, 3)], 20));
}

async fn what_was_committed_is_there_in_the_next_life(lives: &mut impl Lives) {
    let of = loglet(9, 3);
    let state = DurableState {
        bound: Some(NodeGeneration::new(NodeId::try_from(3).expect("non-zero"), Generation::FIRST)),
        local_tail: at(4),
        committed_tail: at(3),
        seal: Some(Seal {
            first: OpId::try_from(1).expect("non-zero"),
            repair: OpId::try_from(u128::MAX).expect("non-zero"),
        }),
        decided_tail: Some(at(4)),
        trim_point: Some(at(1)),
        whole_tail: at(3),
    };
    let store = lives.open().await;
    let older = Change::Put { loglet: of, state: DurableState::EMPTY };
    let other = Change::Put { loglet: loglet(9, 1), state: DurableState::EMPTY };
    store.commit(group([older, other, append(of, 1, 3)])).await.expect("room");
    store.commit(group([Change::Put { loglet: of, state }])).await.expect("room");
    lives.close(store).await;
    let store = lives.open().await;
    let recovered = store.recover().await.expect("recovers");
    let other = Recovered { loglet: loglet(9, 1), state: DurableState::EMPTY };
    assert_eq!(recovered, vec![other, Recovered { loglet: of, state }]);
    assert_eq!(read(&store, of, 1, 9).await, found(&[(1, 3)], 9));
    assert_eq!(read(&store, loglet(7, 0), 1, 20).await, found(&[(7, 2)], 20), "drops hold as well");
    lives.close(store).await;
}
