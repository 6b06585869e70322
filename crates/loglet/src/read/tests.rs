#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]

mod fake;

use std::num::NonZeroU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bifrost_types::{DiskId, NodeId, NodeSet};
use proptest::prelude::*;
use tokio::runtime::Builder;
use tokio::time::timeout;

use super::*;
use fake::{Cluster, batch_at, offset};

/// Three batches, offsets 1 to 9.
const NINE: [(u64, u64); 3] = [(1, 3), (4, 3), (7, 3)];
const LONG: Duration = Duration::from_secs(60);

fn readable(tail: u64) -> Readable {
    Readable { tail: offset(tail), ..Readable::UNKNOWN }
}

fn decided(tail: u64) -> Readable {
    Readable { tail: offset(tail), decided: Some(offset(tail)), trim_point: None }
}

fn open_with(
    cluster: &Arc<Cluster>,
    options: ReadOptions,
    filter: KeyFilter,
    first: Readable,
) -> (watch::Sender<Readable>, LogletReader) {
    let (owner, readable) = watch::channel(first);
    let range = ReadRange { from: LogletOffset::FIRST, until: None, filter };
    let peers: Arc<dyn Peers> = Arc::<Cluster>::clone(cluster);
    (owner, LogletReader::open(cluster.params.clone(), range, options, peers, readable))
}

fn open(cluster: &Arc<Cluster>, first: Readable) -> (watch::Sender<Readable>, LogletReader) {
    open_with(cluster, ReadOptions::default(), KeyFilter::Any, first)
}

/// What an item says, short: `1-4`, `f4-7`, `trimmed 1-4`, `lost 1-4`, `tail 10`.
fn short(item: &Item) -> String {
    match item {
        Item::Batch { first_offset, from, end, batch } => {
            batch.verify().expect("delivered records are verified");
            let index = |index: u32| first_offset.get() + u64::from(index);
            for record in batch.records() {
                assert_eq!(record.keys, bifrost_types::Keys::Single(index(record.index)));
            }
            format!("{from}-{end}")
        }
        Item::Filtered { from, end } => format!("f{from}-{end}"),
        Item::Gap { from, end, kind: GapKind::Trimmed } => format!("trimmed {from}-{end}"),
        Item::Gap { from, end, kind: GapKind::Lost } => format!("lost {from}-{end}"),
        Item::CaughtUp { tail } => format!("tail {tail}"),
    }
}

/// The next `count` items, or fewer at the end.
async fn take(reader: &mut LogletReader, count: usize) -> Vec<String> {
    let mut items = Vec::new();
    while items.len() < count {
        match timeout(LONG, reader.next()).await.expect("an item in time") {
            Some(item) => items.push(short(&item.unwrap())),
            None => break,
        }
    }
    items
}

/// Everything up to the end.
async fn all(reader: &mut LogletReader) -> Vec<String> {
    take(reader, usize::MAX).await
}

#[tokio::test(start_paused = true)]
async fn one_copy_pushes_everything_in_the_healthy_case() {
    let cluster = Cluster::new(3, &NINE);
    let (_owner, mut reader) = open(&cluster, decided(10));
    assert_eq!(all(&mut reader).await, ["1-4", "4-7", "7-10"]);
    let opened: Vec<usize> = cluster.servers.iter().map(|server| server.opened.load(Ordering::SeqCst)).collect();
    assert_eq!(opened, [1, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn an_open_loglet_is_followed_and_caught_up_is_said() {
    let cluster = Cluster::new(3, &NINE);
    let (_owner, mut reader) = open(&cluster, Readable::UNKNOWN);
    assert_eq!(take(&mut reader, 4).await, ["1-4", "4-7", "7-10", "tail 10"]);
    assert!(timeout(LONG, reader.next()).await.is_err(), "nothing more is known");
    for node in 1..=3 {
        cluster.change(node, |copy| {
            copy.batches.insert(10, batch_at(10, 2));
            copy.committed = offset(12);
        });
    }
    assert_eq!(take(&mut reader, 2).await, ["10-12", "tail 12"]);
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_dies_mid_stream_is_replaced() {
    let cluster = Cluster::new(3, &NINE);
    cluster.change(1, |copy| copy.break_after = Some(1));
    cluster.change(2, |copy| copy.break_after = Some(1));
    let (_owner, mut reader) = open(&cluster, decided(10));
    assert_eq!(all(&mut reader).await, ["1-4", "4-7", "7-10"]);
}

#[tokio::test(start_paused = true)]
async fn a_hole_of_the_primary_comes_from_another_copy() {
    let cluster = Cluster::new(3, &NINE);
    cluster.change(1, |copy| drop(copy.batches.remove(&4)));
    cluster.change(2, |copy| drop(copy.batches.remove(&4)));
    let (_owner, mut reader) = open(&cluster, decided(10));
    assert_eq!(all(&mut reader).await, ["1-4", "4-7", "7-10"]);
    let sent: Vec<usize> = cluster.servers.iter().map(|server| server.sent.load(Ordering::SeqCst)).collect();
    assert_eq!(sent[0], 2 * sent[2], "the primary went on after the hole");
}

#[tokio::test(start_paused = true)]
async fn a_corrupt_batch_comes_from_another_copy() {
    let cluster = Cluster::new(3, &NINE);
    cluster.change(1, |copy| assert!(copy.rotten.insert(4)));
    let (_owner, mut reader) = open(&cluster, decided(10));
    assert_eq!(all(&mut reader).await, ["1-4", "4-7", "7-10"]);
}

#[tokio::test(start_paused = true)]
async fn a_lagging_primary_does_not_freeze_the_reader() {
    let cluster = Cluster::new(3, &NINE);
    // Cut off from the sequencer, not from the reader (Restate #5033).
    cluster.change(1, |copy| {
        drop(copy.batches.split_off(&4));
        copy.committed = offset(4);
    });
    let (_owner, mut reader) = open(&cluster, Readable::UNKNOWN);
    let began = Instant::now();
    assert_eq!(take(&mut reader, 2).await, ["1-4", "tail 4"]);
    assert_eq!(take(&mut reader, 3).await, ["4-7", "7-10", "tail 10"]);
    assert!(began.elapsed() < Duration::from_millis(300), "took {:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn news_of_a_watch_moves_the_reader_off_a_primary_that_fell_behind() {
    let cluster = Cluster::new(3, &NINE);
    let (_owner, mut reader) = open(&cluster, Readable::UNKNOWN);
    assert_eq!(take(&mut reader, 4).await, ["1-4", "4-7", "7-10", "tail 10"]);
    assert!(timeout(LONG, reader.next()).await.is_err());
    for node in 2..=3 {
        cluster.change(node, |copy| {
            copy.batches.insert(10, batch_at(10, 2));
            copy.committed = offset(12);
        });
    }
    let began = Instant::now();
    assert_eq!(take(&mut reader, 2).await, ["10-12", "tail 12"]);
    assert!(began.elapsed() <= ReadOptions::default().patience, "took {:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_primary_that_hangs_is_left_after_the_patience() {
    let cluster = Cluster::new(3, &NINE);
    cluster.change(1, |copy| copy.mute = true);
    let (_owner, mut reader) = open(&cluster, readable(10));
    let began = Instant::now();
    assert_eq!(take(&mut reader, 3).await, ["1-4", "4-7", "7-10"]);
    assert!(began.elapsed() < Duration::from_millis(300), "took {:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn the_owner_alone_may_know_that_more_is_readable() {
    let cluster = Cluster::new(3, &NINE);
    for node in 1..=3 {
        cluster.change(node, |copy| copy.committed = offset(4));
    }
    let (owner, mut reader) = open(&cluster, readable(1));
    assert_eq!(take(&mut reader, 2).await, ["1-4", "tail 4"]);
    owner.send_replace(readable(7));
    assert_eq!(take(&mut reader, 2).await, ["4-7", "tail 7"]);
    // After a repair no copy knows the committed tail; the decision is told to the primary at once.
    owner.send_replace(decided(10));
    let began = Instant::now();
    assert_eq!(all(&mut reader).await, ["7-10"]);
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn trimmed_ranges_are_gaps_also_during_the_read() {
    let cluster = Cluster::new(3, &NINE);
    let options = ReadOptions { credit_bytes: NonZeroU64::MIN, ..ReadOptions::default() };
    let (owner, mut reader) = open_with(&cluster, options, KeyFilter::Any, readable(10));
    assert_eq!(take(&mut reader, 1).await, ["1-4"]);
    owner.send_replace(Readable { trim_point: Some(offset(5)), ..decided(10) });
    assert_eq!(all(&mut reader).await, ["trimmed 4-6", "6-7", "7-10"]);

    cluster.change(1, |copy| copy.trim_point = Some(offset(6)));
    let (_owner, mut reader) = open(&cluster, decided(10));
    assert_eq!(all(&mut reader).await, ["trimmed 1-7", "7-10"], "a server knows it before the owner");
}

#[tokio::test(start_paused = true)]
async fn nothing_at_or_above_the_decided_tail_is_delivered() {
    let cluster = Cluster::new(3, &NINE);
    for node in 1..=3 {
        cluster.change(node, |copy| copy.overshoots = true);
    }
    let (_owner, mut reader) = open(&cluster, decided(7));
    assert_eq!(all(&mut reader).await, ["1-4", "4-7"]);
    let (_owner, mut reader) = open(&cluster, decided(6));
    assert_eq!(all(&mut reader).await, ["1-4", "4-6"], "the item says where to cut the batch");
}

#[tokio::test(start_paused = true)]
async fn a_decision_below_what_was_delivered_is_an_alarm() {
    let cluster = Cluster::new(3, &NINE);
    let (owner, mut reader) = open(&cluster, Readable::UNKNOWN);
    assert_eq!(take(&mut reader, 4).await.len(), 4);
    owner.send_replace(decided(7));
    let alarm = ReadError::BeyondDecided { end: offset(10), decided: offset(7) };
    assert_eq!(reader.next().await, Some(Err(alarm)));
    assert_eq!(reader.next().await, None);
    assert_eq!(alarm.advice(), ReadAdvice::GiveUp);
}

#[tokio::test(start_paused = true)]
async fn a_key_filter_is_evaluated_by_the_copy() {
    let cluster = Cluster::new(3, &NINE);
    let (_owner, mut reader) = open_with(&cluster, ReadOptions::default(), KeyFilter::Key(5), decided(10));
    let mut items = Vec::new();
    while let Some(item) = reader.next().await {
        items.push(item.unwrap());
    }
    assert_eq!(items.iter().map(short).collect::<Vec<_>>(), ["f1-4", "4-7", "f7-10"]);
    let Item::Batch { batch, .. } = &items[1] else { panic!("a batch") };
    assert_eq!(batch.records().map(|record| record.index).collect::<Vec<_>>(), [1]);
}

#[tokio::test(start_paused = true)]
async fn the_least_credit_is_enough() {
    let cluster = Cluster::new(3, &NINE);
    cluster.change(1, |copy| drop(copy.batches.remove(&4)));
    let options = ReadOptions { credit_bytes: NonZeroU64::MIN, ..ReadOptions::default() };
    let (_owner, mut reader) = open_with(&cluster, options, KeyFilter::Any, decided(10));
    assert_eq!(all(&mut reader).await, ["1-4", "4-7", "7-10"]);
}

#[tokio::test(start_paused = true)]
async fn a_slow_caller_bounds_what_is_sent_ahead() {
    let batches: Vec<(u64, u64)> = (1..=1000).map(|first| (first, 1)).collect();
    let cluster = Cluster::new(1, &batches);
    let bytes = batch_at(1, 1).len();
    let options = ReadOptions { credit_bytes: NonZeroU64::new(2000).unwrap(), ..ReadOptions::default() };
    let (_owner, mut reader) = open_with(&cluster, options, KeyFilter::Any, decided(1001));
    for consumed in 1..=1000 {
        assert_eq!(take(&mut reader, 1).await.len(), 1);
        tokio::task::yield_now().await;
        let sent = cluster.servers[0].sent.load(Ordering::SeqCst);
        assert!(sent <= consumed * bytes + 2000 + bytes, "{sent} bytes sent, {consumed} batches taken");
    }
    assert_eq!(reader.next().await, None);
}

#[tokio::test(start_paused = true)]
async fn dropping_the_reader_cancels_everything() {
    let cluster = Cluster::new(3, &NINE);
    let (_owner, mut reader) = open(&cluster, Readable::UNKNOWN);
    assert_eq!(take(&mut reader, 4).await.len(), 4);
    assert!(timeout(LONG, reader.next()).await.is_err());
    assert_eq!(cluster.reads(), 3, "a primary and two watches");
    drop(reader);
    timeout(LONG, async {
        while cluster.reads() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("no read goes on");
}

#[tokio::test(start_paused = true)]
async fn the_end_closes_all_streams() {
    let cluster = Cluster::new(3, &NINE);
    let (owner, mut reader) = open(&cluster, Readable::UNKNOWN);
    assert_eq!(take(&mut reader, 4).await.len(), 4);
    assert!(timeout(LONG, reader.next()).await.is_err());
    owner.send_replace(decided(10));
    assert_eq!(reader.next().await, None);
    assert!(reader.streams.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_reader_without_copies_waits_and_says_on_whom() {
    let cluster = Cluster::new(3, &NINE);
    for node in 1..=3 {
        cluster.change(node, |copy| copy.down = true);
    }
    let (_owner, mut reader) = open(&cluster, decided(10));
    let progress = reader.progress();
    assert!(timeout(LONG, reader.next()).await.is_err());
    let ReadProgress::Blocked(blocked) = progress.borrow().clone() else { panic!("blocked") };
    assert_eq!((blocked.from, blocked.end, blocked.missing.len()), (offset(1), offset(10), 3));
    cluster.change(3, |copy| copy.down = false);
    let began = Instant::now();
    assert_eq!(all(&mut reader).await, ["1-4", "4-7", "7-10"]);
    assert!(began.elapsed() <= ReadOptions::default().retry_max, "took {:?}", began.elapsed());
    assert_eq!(*progress.borrow(), ReadProgress::Flowing);
}

#[tokio::test(start_paused = true)]
async fn a_range_is_lost_only_when_the_missing_disks_are_declared_lost() {
    let cluster = Cluster::new(3, &NINE);
    cluster.change(1, |copy| drop(copy.batches.remove(&4)));
    cluster.change(2, |copy| assert!(copy.rotten.insert(4)));
    // A wiped disk is another disk: it does not vote (W2).
    cluster.change(3, |copy| copy.disk = DiskId::try_from(99).unwrap());
    let (_owner, mut reader) = open(&cluster, decided(10));
    let progress = reader.progress();
    assert_eq!(take(&mut reader, 1).await, ["1-4"]);
    assert!(timeout(LONG, reader.next()).await.is_err(), "two denials of three are not enough");
    let ReadProgress::Blocked(blocked) = progress.borrow().clone() else { panic!("blocked") };
    let missing = cluster.params.nodeset.members()[2].clone();
    assert_eq!(blocked.missing, [MissingDisk { node: missing.node, disk: missing.disk }]);
    assert_eq!(
        blocked.to_string(),
        format!("[4, 7) is on no copy that can be reached; waiting for N3 (disk {})", missing.disk)
    );

    let mut declared_lost = NodeSet::EMPTY;
    declared_lost.insert(cluster.params.nodeset.index_of(missing.node).unwrap());
    // The word reaches the reader that waits, and those that are opened later.
    reader.declare_lost(declared_lost);
    assert_eq!(all(&mut reader).await, ["lost 4-7", "7-10"]);
    assert_eq!(*progress.borrow(), ReadProgress::Flowing);
    let options = ReadOptions { declared_lost, ..ReadOptions::default() };
    let (_owner, mut reader) = open_with(&cluster, options, KeyFilter::Any, decided(10));
    assert_eq!(all(&mut reader).await, ["1-4", "lost 4-7", "7-10"]);
}

#[tokio::test(start_paused = true)]
async fn a_word_about_one_disk_is_no_word_about_another() {
    let cluster = Cluster::new(3, &NINE);
    for copy in [1, 2] {
        cluster.change(copy, |copy| copy.down = true);
    }
    cluster.change(3, |copy| drop(copy.batches.remove(&4)));
    let (_owner, mut reader) = open(&cluster, decided(10));
    let progress = reader.progress();
    let place = |copy: usize| cluster.params.nodeset.index_of(cluster.params.nodeset.members()[copy].node).unwrap();
    assert_eq!(take(&mut reader, 1).await, ["1-4"]);
    assert!(timeout(LONG, reader.next()).await.is_err());
    reader.declare_lost(NodeSet::from_iter([place(0)]));
    assert!(timeout(LONG, reader.next()).await.is_err(), "the second copy may come back");
    let ReadProgress::Blocked(blocked) = progress.borrow().clone() else { panic!("blocked") };
    let waited_for: Vec<NodeId> = blocked.missing.iter().map(|missing| missing.node).collect();
    assert_eq!(waited_for, [cluster.params.nodeset.members()[1].node]);
    // It does, and nothing was lost.
    cluster.change(2, |copy| copy.down = false);
    assert_eq!(all(&mut reader).await, ["4-7", "7-10"]);
}

#[tokio::test(start_paused = true)]
async fn a_range_that_was_denied_is_asked_for_again() {
    let cluster = Cluster::new(2, &NINE);
    cluster.change(1, |copy| drop(copy.batches.remove(&4)));
    cluster.change(2, |copy| copy.down = true);
    let (_owner, mut reader) = open(&cluster, decided(10));
    assert_eq!(take(&mut reader, 1).await, ["1-4"]);
    assert!(timeout(LONG, reader.next()).await.is_err());
    cluster.change(1, |copy| drop(copy.batches.insert(4, batch_at(4, 3))));
    assert_eq!(all(&mut reader).await, ["4-7", "7-10"], "repaired on the copy that denied it");
}

#[tokio::test(start_paused = true)]
async fn a_bounded_read_stops_at_its_limit_of_bytes() {
    let cluster = Cluster::new(3, &NINE);
    let read = |from: LogletOffset, bytes_max: usize| {
        let peers: Arc<dyn Peers> = Arc::<Cluster>::clone(&cluster);
        let params = cluster.params.clone();
        read_range(params, from, offset(9), KeyFilter::Any, ReadOptions::default(), peers, bytes_max)
    };
    let some = read(offset(2), 1).await.unwrap();
    assert_eq!((some.items.iter().map(short).collect::<Vec<_>>(), some.end), (vec!["2-4".to_owned()], offset(4)));
    let rest = read(some.end, usize::MAX).await.unwrap();
    assert_eq!(rest.items.iter().map(short).collect::<Vec<_>>(), ["4-7", "7-9"]);
    assert_eq!(rest.end, offset(9));
}

/// What happens to a cluster while it is read.
#[derive(Debug, Clone)]
enum Fault {
    Down(usize),
    Up(usize),
    Mute(usize),
    Unmute(usize),
    Break(usize, u32),
    Announce,
    Commit(usize),
}

fn fault() -> impl Strategy<Value = Fault> {
    let node = 1..=3_usize;
    prop_oneof![
        node.clone().prop_map(Fault::Down),
        node.clone().prop_map(Fault::Up),
        node.clone().prop_map(Fault::Mute),
        node.clone().prop_map(Fault::Unmute),
        (node.clone(), 0..4_u32).prop_map(|(node, after)| Fault::Break(node, after)),
        Just(Fault::Announce),
        node.prop_map(Fault::Commit),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is missing, damaged, late, dead or mute: what is delivered is the committed sequence, each offset once,
    /// in order, nothing beyond the decided tail, and the end is reached once the faults stop.
    #[test]
    fn the_committed_sequence_is_delivered_exactly(
        sizes in prop::collection::vec(1..4_u64, 1..12),
        copies in prop::collection::vec((1..8_u8, 0..8_u8), 12),
        committed in prop::collection::vec(0..12_usize, 3),
        faults in prop::collection::vec((0..4_usize, fault()), 0..24),
        credit in prop_oneof![Just(1_u64), Just(500), Just(1 << 20)],
        spread in 0..3_u64,
    ) {
        let mut batches = Vec::new();
        let mut end = 1;
        for size in sizes {
            batches.push((end, size));
            end += size;
        }
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let mut stored = batches.clone();
            // Beyond the tail lies what was never committed.
            stored.push((end, 2));
            let cluster = Cluster::new(3, &stored);
            for node in 1..=3 {
                cluster.change(node, |copy| {
                    for ((first, _), (held, rotten)) in batches.iter().zip(&copies) {
                        // At least one copy has the batch, undamaged.
                        let bit = 1_u8 << (node - 1);
                        if held & bit == 0 {
                            copy.batches.remove(first);
                        } else if rotten & bit != 0 && held & !rotten != 0 {
                            copy.rotten.insert(*first);
                        }
                    }
                    copy.committed = offset(batches.get(committed[node - 1]).map_or(end, |(first, _)| *first));
                });
            }
            let credit_bytes = NonZeroU64::new(credit).unwrap();
            let options = ReadOptions { credit_bytes, spread, ..ReadOptions::default() };
            let (owner, mut reader) = open_with(&cluster, options, KeyFilter::Any, Readable::UNKNOWN);
            let mut next = 1;
            let mut see = |item: Item| match item {
                Item::Batch { from, end, .. } => {
                    short(&item);
                    assert_eq!(from.get(), next, "no gap, no repeat");
                    next = end.get();
                }
                Item::CaughtUp { tail } => assert_eq!(tail.get(), next),
                Item::Filtered { .. } | Item::Gap { .. } => panic!("{item:?} was not asked for"),
            };
            for (items, fault) in faults {
                for _ in 0..items {
                    if let Ok(item) = timeout(Duration::from_millis(150), reader.next()).await {
                        see(item.unwrap().unwrap());
                    }
                }
                match fault {
                    Fault::Down(node) => cluster.change(node, |copy| copy.down = true),
                    Fault::Up(node) => cluster.change(node, |copy| copy.down = false),
                    Fault::Mute(node) => cluster.change(node, |copy| copy.mute = true),
                    Fault::Unmute(node) => cluster.change(node, |copy| copy.mute = false),
                    Fault::Break(node, after) => cluster.change(node, |copy| copy.break_after = Some(after)),
                    Fault::Announce => drop(owner.send_replace(readable(end))),
                    Fault::Commit(node) => cluster.change(node, |copy| copy.committed = offset(end)),
                }
            }
            for node in 1..=3 {
                cluster.change(node, |copy| {
                    (copy.down, copy.mute, copy.break_after) = (false, false, None);
                });
            }
            owner.send_replace(decided(end));
            while let Some(item) = timeout(LONG, reader.next()).await.expect("live once the faults stop") {
                see(item.unwrap());
            }
            assert_eq!(next, end);
        });
    }
}
