//! Shortening over three nodes in memory, on the paused clock: interrupted anywhere, with lost replies, with a server that is
//! away, beside readers and reconfigurations, and a thousand times.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use bifrost_loglet::read::GapKind;
use bifrost_metadata::{Call, CallKind, Fault, LossyMetadata};
use bifrost_types::limits::METADATA_VALUE_BYTES_MAX;
use bifrost_types::{Actor, CloseReason, LogletOffset, Lsn, NodeId, OpId, SegmentState, StorageState, Timings};
use bifrost_wire::codec::encode_chain;
use bifrost_wire::log_server::{CopyState, LogServer, StateRequest};
use bifrost_wire::metadata::{MetadataError, MetadataStore};
use futures_util::StreamExt;
use parking_lot::Mutex;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::catalog::StoredChain;
use crate::chain::raise_trim_point;
use crate::directory::Directory;
use crate::log::ReconfigureOptions;
use crate::reader::{ReadEvent, Reader};
use crate::test_world::{PATIENCE, World};
use crate::{Bifrost, ReadOptions, TailKind, fresh_op};

/// Records in each segment of a log of these tests.
const RECORDS: u64 = 3;

fn lsn(number: u64) -> Lsn {
    Lsn::new(number).unwrap()
}

/// A log with so many closed segments and an open one, with records in each.
async fn filled(world: &World, closed: u64) -> LogId {
    let log = world.catalog().create_log(None, fresh_op(), &world.successor(0)).await.unwrap().chain.log;
    let client = world.client().await;
    let handle = client.log_by_id(log).await.unwrap();
    let appender = handle.appender();
    for segment in 0..=closed {
        for record in 0..RECORDS {
            let at = appender.append(format!("{segment}/{record}")).await.unwrap();
            assert_eq!(at, lsn(segment * RECORDS + record + 1));
        }
        if segment < closed {
            handle.reconfigure(ReconfigureOptions::default()).await.unwrap();
        }
    }
    client.shutdown().await;
    log
}

/// Trims whole segments, and leaves everything else to others.
async fn trim(world: &World, log: LogId, segments: u64) -> StoredChain {
    let read = world.catalog().chain(log).await.unwrap();
    let next = raise_trim_point(&read.chain, lsn(segments * RECORDS)).unwrap().unwrap();
    world.catalog().replace(&read, next).await.unwrap()
}

fn shortener(world: &World, log: LogId, catalog: Catalog) -> Shortener {
    Shortener::new(log, catalog, Arc::new(world.directory.clone()))
}

async fn shorten(world: &World, log: LogId) -> Owed {
    shortener(world, log, world.catalog()).drive(&|_: &StoredChain| {}, &Given::default()).await.unwrap()
}

async fn states(world: &World, segment: &Segment) -> Vec<CopyState> {
    let mut states = Vec::new();
    for (node, member) in world.nodes.iter().zip(segment.params.nodeset.members()) {
        let request = StateRequest { loglet: segment.params.id, disk: member.disk };
        states.push(node.services().log_server.state(request).await.unwrap());
    }
    states
}

/// Whatever left was given back by everybody, and keeps late stores out; what stays is what it was.
async fn assert_in_order(world: &World, before: &Chain, after: &Chain) {
    crate::chain::validate(after).unwrap();
    let first = after.segments.first().unwrap().index();
    assert_eq!(after.next_segment, before.next_segment);
    for segment in &before.segments {
        if segment.index() >= first {
            assert_eq!(after.segment(segment.index()), Some(segment));
            continue;
        }
        for state in states(world, segment).await {
            assert_eq!(state.decided_tail, segment.decided_tail(), "{}", segment.params.id);
            assert_eq!(state.trim_point, LogletOffset::new(RECORDS), "{}", segment.params.id);
            assert!(state.sealed.is_some());
        }
    }
}

/// Everything from the start on: where the gap at the beginning ends, and how many records follow, each at its place.
async fn read_all(client: &Bifrost, log: LogId) -> (Option<Lsn>, u64) {
    let handle = client.log_by_id(log).await.unwrap();
    let tail = handle.find_tail(TailKind::Linearizable).await.unwrap().lsn;
    let mut reader = handle.read(ReadOptions { until: Some(tail), ..ReadOptions::default() });
    let (mut at, mut trimmed, mut records) = (Lsn::FIRST, None, 0);
    while let Some(event) = timeout(PATIENCE, reader.next()).await.expect("it goes on") {
        match event.unwrap() {
            ReadEvent::Record(record) => {
                assert_eq!(record.lsn, at);
                at = at.advance(1).unwrap();
                records += 1;
            }
            ReadEvent::Gap { from, end, kind } => {
                assert_eq!((from, kind), (at, GapKind::Trimmed));
                (at, trimmed) = (end, Some(end));
            }
            ReadEvent::CaughtUp { .. } => {}
        }
    }
    assert_eq!(at, tail);
    (trimmed, records)
}

#[tokio::test(start_paused = true)]
async fn trimmed_segments_leave_the_chain_after_their_servers_gave_the_space_back() {
    let world = World::new().await;
    let log = filled(&world, 5).await;
    let before = trim(&world, log, 4).await.chain;
    assert_eq!(shorten(&world, log).await, Owed::default());
    let after = world.chain(log).await;
    assert_in_order(&world, &before, &after).await;
    let left: Vec<u32> = after.segments.iter().map(|segment| segment.index().get()).collect();
    assert_eq!((left, after.version), (vec![4, 5], before.version + 1));
    let client = world.client().await;
    assert_eq!(read_all(&client, log).await, (Some(lsn(4 * RECORDS + 1)), 2 * RECORDS));
    let appended = client.log_by_id(log).await.unwrap().appender().append("more").await.unwrap();
    assert_eq!(appended, lsn(6 * RECORDS + 1), "no LSN moved");
    assert_eq!(shorten(&world, log).await, Owed::default());
    assert_eq!(world.chain(log).await, after, "there is nothing left to do");
    client.shutdown().await;
    world.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_lost_reply_to_any_call_of_metadata_changes_nothing_about_the_end() {
    let world = World::new().await;
    for carried_out in [true, false] {
        for cut in 0.. {
            let log = filled(&world, 4).await;
            let before = trim(&world, log, 3).await.chain;
            let script = Arc::new(move |call: &Call| match (call.index == cut, call.kind, carried_out) {
                (true, CallKind::Txn, true) => Fault::LoseReply,
                (true, CallKind::Txn, false) => Fault::FailBefore(MetadataError::Unknown),
                (true, _, _) => Fault::FailBefore(MetadataError::Unavailable),
                (false, _, _) => Fault::None,
            });
            let lossy = LossyMetadata::new(world.metadata.clone(), script);
            let disturbed = shortener(&world, log, Catalog::new(Arc::new(lossy.clone())));
            let outcome = disturbed.drive(&|_: &StoredChain| {}, &Given::default()).await;
            assert_in_order(&world, &before, &world.chain(log).await).await;
            match outcome {
                Ok(owed) => assert_eq!(owed, Owed::default()),
                // What could not be read is told; the next one goes on.
                Err(error) => {
                    assert_eq!(error, CatalogError::Metadata(MetadataError::Unavailable).into());
                    assert_eq!(shorten(&world, log).await, Owed::default());
                }
            }
            let after = world.chain(log).await;
            assert_eq!((after.segments.len(), after.version), (2, before.version + 1), "{cut}");
            if lossy.calls() <= cut {
                assert!(cut > 3, "reads and the write were disturbed");
                break;
            }
        }
    }
    world.shutdown().await;
}

/// The output of a future that is dropped after so many polls, if it comes before.
async fn polled<T>(future: impl Future<Output = T>, mut polls: u32) -> Option<T> {
    let mut future = pin!(future);
    poll_fn(move |context| match future.as_mut().poll(context) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending if polls == 0 => Poll::Ready(None),
        Poll::Pending => {
            polls -= 1;
            Poll::Pending
        }
    })
    .await
}

#[tokio::test(start_paused = true)]
async fn whoever_is_cancelled_at_any_await_leaves_what_the_next_one_finishes() {
    let world = World::new().await;
    let mut partial = 0;
    for polls in 0.. {
        let log = filled(&world, 4).await;
        let before = trim(&world, log, 3).await.chain;
        let first = shortener(&world, log, world.catalog());
        let done = polled(first.drive(&|_: &StoredChain| {}, &Given::default()), polls).await.is_some();
        let between = world.chain(log).await;
        assert_in_order(&world, &before, &between).await;
        partial += u32::from(!done && between == before);
        assert_eq!(shorten(&world, log).await, Owed::default());
        let after = world.chain(log).await;
        assert_eq!((after.segments.len(), after.version), (2, before.version + 1), "{polls}");
        assert_in_order(&world, &before, &after).await;
        if done {
            break;
        }
    }
    assert!(partial > 0, "it was cancelled while servers were told");
    world.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn whoever_is_cancelled_before_or_after_any_call_of_metadata_leaves_what_the_next_one_finishes() {
    let world = World::new().await;
    for carried_out in [false, true] {
        let mut left_undone = 0;
        for cut in 0.. {
            let log = filled(&world, 4).await;
            let before = trim(&world, log, 3).await.chain;
            let never = CancellationToken::new();
            let script = Arc::new(move |call: &Call| match (call.index == cut, carried_out) {
                (true, false) => Fault::HangBefore(never.clone()),
                (true, true) => Fault::HangAfter(never.clone()),
                (false, _) => Fault::None,
            });
            let hanging = LossyMetadata::new(world.metadata.clone(), script);
            let first = shortener(&world, log, Catalog::new(Arc::new(hanging)));
            let done =
                timeout(Duration::from_secs(60), first.drive(&|_: &StoredChain| {}, &Given::default())).await.is_ok();
            let between = world.chain(log).await;
            assert_in_order(&world, &before, &between).await;
            left_undone += u32::from(between == before);
            assert_eq!(shorten(&world, log).await, Owed::default());
            let after = world.chain(log).await;
            assert_eq!((after.segments.len(), after.version), (2, before.version + 1), "{cut}");
            assert_in_order(&world, &before, &after).await;
            if done {
                break;
            }
        }
        assert!(left_undone >= 2, "it was cancelled {left_undone} times before anything left");
    }
    world.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn two_that_shorten_one_chain_while_it_is_moved_and_trimmed_lose_nothing() {
    let world = World::new().await;
    let log = filled(&world, 6).await;
    let before = trim(&world, log, 3).await.chain;
    let client = world.client().await;
    let handle = client.log_by_id(log).await.unwrap();
    let moving = async {
        handle.reconfigure(ReconfigureOptions::default()).await.unwrap();
        handle.trim(lsn(5 * RECORDS)).await.unwrap();
        handle.reconfigure(ReconfigureOptions::default()).await.unwrap();
    };
    let (one, two, ()) = tokio::join!(shorten(&world, log), shorten(&world, log), moving);
    assert_eq!((one, two), (Owed::default(), Owed::default()));
    assert_eq!(shorten(&world, log).await, Owed::default());
    let after = world.until(log, |chain| chain.segments.len() == 4).await;
    assert_eq!(after.segments[0].index(), SegmentIndex::new(5));
    assert_eq!(after.segments[0].base_lsn, before.segments[5].base_lsn);
    assert_eq!(read_all(&client, log).await, (Some(lsn(5 * RECORDS + 1)), 2 * RECORDS));
    client.shutdown().await;
    world.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_server_that_was_away_is_asked_when_it_is_back_and_waited_for_until_then() {
    let mut world = World::new().await;
    let log = filled(&world, 4).await;
    let before = trim(&world, log, 3).await.chain;
    let away = world.nodes[2].id().node;
    world.nodes[2].shutdown().await;
    let owed = shorten(&world, log).await;
    assert_eq!(owed.by.keys().collect::<Vec<_>>(), [&away]);
    assert_eq!(world.chain(log).await, before, "the chain is the list of who owes what");
    let controller = world.controller(None).await;
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert_eq!(world.chain(log).await.segments.len(), before.segments.len());
    let said = controller.explain(log).await.to_string();
    assert!(said.contains(&format!("segments up to {log}_2, in the chain until")), "{said}");
    world.restart(2).await;
    let after = world.until(log, |chain| chain.segments.len() == 2).await;
    assert_in_order(&world, &before, &after).await;
    controller.shutdown().await;
    world.shutdown().await;
}

/// Remembers who was asked.
#[derive(Debug)]
struct Asked {
    peers: Directory,
    nodes: Mutex<Vec<NodeId>>,
}

impl Peers for Asked {
    fn log_server(&self, node: NodeId) -> Option<Arc<dyn LogServer>> {
        self.nodes.lock().push(node);
        self.peers.log_server(node)
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_gave_back_is_not_asked_again_while_another_is_away() {
    let mut world = World::new().await;
    let log = filled(&world, 4).await;
    let before = trim(&world, log, 2).await.chain;
    let ids: Vec<NodeId> = world.nodes.iter().map(|node| node.id().node).collect();
    world.nodes[2].shutdown().await;
    let asked = Arc::new(Asked { peers: world.directory.clone(), nodes: Mutex::default() });
    let shortener = Shortener::new(log, world.catalog(), asked.clone());
    let given = Given::default();
    let attempt = async || {
        let owed = shortener.drive(&|_: &StoredChain| {}, &given).await.unwrap();
        (std::mem::take(&mut *asked.nodes.lock()), owed.by.into_keys().collect::<Vec<_>>())
    };
    assert_eq!(attempt().await, (ids.clone(), vec![ids[2]]));
    assert_eq!(attempt().await, (vec![ids[2]], vec![ids[2]]));
    // What is trimmed meanwhile is asked for of everybody, and nothing else.
    let between = trim(&world, log, 3).await.chain;
    assert_eq!(attempt().await, (ids.clone(), vec![ids[2]]));
    assert_eq!(attempt().await, (vec![ids[2]], vec![ids[2]]));
    assert_eq!(world.chain(log).await, between);
    world.restart(2).await;
    assert_eq!(attempt().await, (vec![ids[2]], vec![]));
    let after = world.chain(log).await;
    assert_eq!(after.segments.len(), 2);
    assert_in_order(&world, &before, &after).await;
    world.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_was_given_up_is_not_waited_for() {
    let world = World::new().await;
    let log = filled(&world, 4).await;
    trim(&world, log, 3).await;
    world.nodes[2].shutdown().await;
    let operator = world.client().await;
    assert!(!shorten(&world, log).await.by.is_empty());
    operator.set_storage_state(world.nodes[2].id().node, StorageState::DataLoss).await.unwrap();
    assert_eq!(shorten(&world, log).await, Owed::default());
    assert_eq!(world.chain(log).await.segments.len(), 2);
    operator.shutdown().await;
    world.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn what_whoever_trimmed_left_behind_is_done_by_a_controller() {
    let world = World::new().await;
    let listed = filled(&world, 3).await;
    let before = trim(&world, listed, 2).await.chain;
    let controller = world.controller(None).await;
    let after = world.until(listed, |chain| chain.segments.len() == 2).await;
    assert_in_order(&world, &before, &after).await;
    // The same of a chain that is watched.
    let watched = filled(&world, 3).await;
    trim(&world, watched, 2).await;
    world.until(watched, |chain| chain.segments.len() == 2).await;
    // And of what becomes spent by a reconfiguration.
    let moved = filled(&world, 1).await;
    trim(&world, moved, 1).await;
    let client = world.client().await;
    client.log_by_id(moved).await.unwrap().reconfigure(ReconfigureOptions::default()).await.unwrap();
    let after = world.until(moved, |chain| chain.segments[0].index() > SegmentIndex::FIRST).await;
    assert_eq!(after.segments.len(), 2);
    client.shutdown().await;
    controller.shutdown().await;
    world.shutdown().await;
}

/// The next record, past gaps, of which the last is returned too.
async fn next_record(reader: &mut Reader) -> (Option<(Lsn, Lsn, GapKind)>, Lsn) {
    let mut last = None;
    loop {
        match timeout(PATIENCE, reader.next()).await.expect("it goes on").unwrap().unwrap() {
            ReadEvent::Record(record) => return (last, record.lsn),
            ReadEvent::Gap { from, end, kind } => last = Some((from, end, kind)),
            ReadEvent::CaughtUp { .. } => {}
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_reader_in_the_middle_of_a_segment_that_leaves_is_told_that_it_is_trimmed() {
    let world = World::new().await;
    let log = filled(&world, 0).await;
    // It sees nothing of the chain between the first version and the last.
    let away = Arc::new(AtomicBool::new(true));
    let is_away = away.clone();
    let script = Arc::new(move |call: &Call| match (call.kind, is_away.load(Ordering::SeqCst)) {
        (CallKind::Watch, true) => Fault::FailBefore(MetadataError::Unavailable),
        (CallKind::Watch, false) => Fault::FailBefore(MetadataError::Compacted { oldest: 1 }),
        _ => Fault::None,
    });
    let behind = world.client_over(Arc::new(LossyMetadata::new(world.metadata.clone(), script))).await;
    let mut reader = behind.log_by_id(log).await.unwrap().read(ReadOptions::default());
    assert_eq!(next_record(&mut reader).await, (None, lsn(1)));
    let client = world.client().await;
    let handle = client.log_by_id(log).await.unwrap();
    let appender = handle.appender();
    for _ in 0..3 {
        handle.reconfigure(ReconfigureOptions::default()).await.unwrap();
        appender.append("later").await.unwrap();
    }
    handle.trim(lsn(RECORDS + 1)).await.unwrap();
    world.until(log, |chain| chain.segments[0].index() == SegmentIndex::new(2)).await;
    away.store(false, Ordering::SeqCst);
    let mut at = lsn(2);
    let mut seen = Vec::new();
    while seen.last() != Some(&lsn(RECORDS + 3)) {
        let (gap, record) = next_record(&mut reader).await;
        if let Some((from, end, kind)) = gap {
            assert_eq!((from, end, kind), (at, lsn(RECORDS + 2), GapKind::Trimmed));
            at = end;
        }
        assert_eq!(record, at, "in order, without repeat");
        at = at.advance(1).unwrap();
        seen.push(record);
    }
    behind.shutdown().await;
    client.shutdown().await;
    world.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_log_that_is_moved_and_trimmed_a_thousand_times_keeps_a_short_chain() {
    let world = World::new().await;
    let log = world.catalog().create_log(None, fresh_op(), &world.successor(0)).await.unwrap().chain.log;
    let (client, controller) = (world.client().await, world.controller(None).await);
    let handle = client.log_by_id(log).await.unwrap();
    let appender = handle.appender();
    let mut longest = 0;
    for round in 1..=1_000 {
        let at = appender.append("record").await.unwrap();
        assert_eq!(at, lsn(round));
        handle.reconfigure(ReconfigureOptions::default()).await.unwrap();
        handle.trim(at).await.unwrap();
        longest = longest.max(handle.chain().segments.len());
    }
    assert!(longest <= 8, "there were {longest} segments");
    let last = appender.append("last").await.unwrap();
    let chain = world.until(log, |chain| chain.segments.len() == 2).await;
    assert_eq!(chain.next_segment, SegmentIndex::new(1_001));
    assert!(encode_chain(&chain).len() < 2_048, "{} bytes", encode_chain(&chain).len());
    assert_eq!(read_all(&client, log).await, (Some(last), 1));
    controller.shutdown().await;
    client.shutdown().await;
    world.shutdown().await;
}

/// The chain of a log after so many segments that were written elsewhere and trimmed.
fn grown(chain: &Chain, closed: u32, world: &World) -> Chain {
    let mut next = chain.clone();
    let open = next.segments.pop().unwrap();
    let mut base_lsn = open.base_lsn;
    let segment = |number: u32, base_lsn, state| {
        let mut params = open.params.clone();
        params.id.segment = SegmentIndex::new(number);
        params.sequencer = world.successor(usize::try_from(number % 3).unwrap()).sequencer;
        Segment { base_lsn, params, state }
    };
    for number in 0..closed {
        let state = SegmentState::Sealed {
            tail: LogletOffset::new(RECORDS + 1).unwrap(),
            lost_from: None,
            op: OpId::try_from(u128::MAX / 3 + u128::from(number)).unwrap(),
            actor: Actor::Controller,
            reason: CloseReason::SequencerGone,
            timings: Timings { seal_micros: 900, repair_micros: 3_000, total_micros: 12_000 },
        };
        next.segments.push(segment(number, base_lsn, state));
        base_lsn = base_lsn.advance(RECORDS).unwrap();
    }
    next.segments.push(segment(closed, base_lsn, SegmentState::Open));
    next.next_segment = SegmentIndex::new(closed + 1);
    next.trim_point = base_lsn.previous();
    next.version += 1;
    next
}

#[tokio::test(start_paused = true)]
async fn a_log_of_ten_thousand_segments_is_moved_read_and_shortened_like_any_other() {
    const CLOSED: u32 = 10_000;
    let world = World::new().await;
    let made = world.catalog().create_log(None, fresh_op(), &world.successor(0)).await.unwrap();
    let log = made.chain.log;
    let written = world.catalog().replace(&made, grown(&made.chain, CLOSED, &world)).await.unwrap();
    let bytes = encode_chain(&written.chain).len();
    assert!(bytes * 2 < METADATA_VALUE_BYTES_MAX, "{bytes} bytes");
    let (calls, client) = counted(&world).await;
    let handle = client.log_by_id(log).await.unwrap();
    let base = lsn(u64::from(CLOSED) * RECORDS + 1);
    assert_eq!(handle.appender().append("one").await.unwrap(), base);
    let before = calls.load(Ordering::SeqCst);
    handle.reconfigure(ReconfigureOptions::default()).await.unwrap();
    let moved = calls.load(Ordering::SeqCst) - before;
    assert!(moved <= 8, "a reconfiguration took {moved} calls of metadata");
    assert_eq!(handle.describe().await.unwrap().segments.len(), 10_002);
    assert_eq!(handle.appender().append("two").await.unwrap(), base.advance(1).unwrap());
    let before = calls.load(Ordering::SeqCst);
    assert_eq!(read_all(&client, log).await, (Some(base), 2));
    let read = calls.load(Ordering::SeqCst) - before;
    assert!(read <= 8, "reading it from the start took {read} calls of metadata");
    handle.trim(base).await.unwrap();
    let after = world.until(log, |chain| chain.segments.len() == 2).await;
    assert_eq!(after.next_segment, SegmentIndex::new(CLOSED + 2));
    assert!(encode_chain(&after).len() < 1_024);
    client.shutdown().await;
    world.shutdown().await;
}

/// A client whose calls of metadata are counted.
async fn counted(world: &World) -> (Arc<AtomicU64>, Bifrost) {
    let calls = Arc::new(AtomicU64::new(0));
    let count = calls.clone();
    let script = Arc::new(move |_: &Call| {
        count.fetch_add(1, Ordering::SeqCst);
        Fault::None
    });
    let metadata: Arc<dyn MetadataStore> = Arc::new(LossyMetadata::new(world.metadata.clone(), script));
    (calls, world.client_over(metadata).await)
}
