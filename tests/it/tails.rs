//! Tails that cannot be stale, trim points that never go back, and appends whose outcome was not told.

use std::sync::Arc;
use std::time::Duration;

use bifrost::{
    AppendError, AppendId, Bifrost, GapKind, Log, LogError, LogOptions, Lsn, ReadEvent, ReadOptions,
    ReconfigureOptions, Reconfigured, Resolved, TailKind,
};
use bifrost_metadata::MemoryMetadata;
use bifrost_metadata::lossy::{Call, CallKind, Fault, LossyMetadata};
use bifrost_node::local_cluster::{LocalCluster, LocalClusterOptions};
use bifrost_types::{LogletId, SegmentIndex};
use bifrost_wire::metadata::MetadataStore;
use futures_util::{FutureExt, StreamExt};
use parking_lot::Mutex;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::support::world::{World, lsn, offset, op};

/// Far above any healthy run; only a run that hangs meets it.
const PATIENCE: Duration = Duration::from_secs(60);

/// The calls of one client to metadata: watches never come, reads come while `reads` is none, or when it is cancelled.
#[derive(Debug, Clone, Default)]
struct Blindfold {
    reads: Arc<Mutex<Option<CancellationToken>>>,
    /// Watches work until this is set.
    on: Arc<Mutex<bool>>,
}

impl Blindfold {
    fn over(&self, metadata: MemoryMetadata) -> Arc<dyn MetadataStore> {
        let blindfold = self.clone();
        let never = CancellationToken::new();
        let script = move |call: &Call| match call.kind {
            CallKind::Watch => Fault::HangBefore(never.clone()),
            CallKind::Get | CallKind::List if *blindfold.on.lock() => match &*blindfold.reads.lock() {
                Some(released) => Fault::HangBefore(released.clone()),
                None => Fault::None,
            },
            CallKind::Get | CallKind::List | CallKind::Txn => Fault::None,
        };
        Arc::new(LossyMetadata::new(metadata, Arc::new(script)))
    }
}

/// Three nodes that hear nothing of metadata by themselves.
async fn deaf_world() -> World {
    World::in_memory_through(3, |metadata| Blindfold::default().over(metadata)).await
}

/// A log with five records, a first client that hears nothing of metadata by itself, and a second one that has moved the
/// log away behind its back and appended three more.
async fn fence_behind_the_back(world: &World, blindfold: &Blindfold) -> (Bifrost, Log, Bifrost) {
    let id = world.create_log("fenced", 0).await;
    let loglet = LogletId::new(id, SegmentIndex::FIRST);
    let first = world.client_through(blindfold.over(world.memory_metadata()), None).await;
    let log = first.log_by_id(id).await.expect("the log was made");
    let appender = log.appender();
    for number in 1..=5 {
        assert_eq!(appender.append("before").await, Ok(lsn(number)));
    }
    for place in 0..3 {
        world.network.stored(world.node(place), loglet, offset(6)).await;
        // From here on the sequencer hears nothing of its copies, not even of their seals.
        world.network.hold(world.node(place), loglet);
    }
    let params = log.chain().segments[0].params.clone();
    world.seal(1, &params, op(0x5ea1)).await;
    world.seal(2, &params, op(0x5ea1)).await;
    let second = world.client().await;
    let moved = second.log_by_id(id).await.expect("the log was made");
    let successor = Some(world.successor(1));
    let outcome = moved.reconfigure(ReconfigureOptions { successor, ..ReconfigureOptions::default() }).await;
    assert!(matches!(outcome, Ok(Reconfigured::Done(_))), "{outcome:?}");
    for number in 6..=8 {
        assert_eq!(moved.appender().append("after").await, Ok(lsn(number)));
    }
    // The premise: the first client does not know, nor does the sequencer, which still answers.
    assert_eq!(log.chain().segments.len(), 1);
    let tails = world.sequencers(0).tails(loglet, params.sequencer).await.expect("it believes to be the sequencer");
    assert_eq!(tails.committed_tail, offset(6));
    (first, log, second)
}

#[tokio::test]
async fn a_sequencer_that_was_fenced_without_knowing_it_cannot_answer_a_linearizable_tail() {
    let world = deaf_world().await;
    let blindfold = Blindfold::default();
    let (first, log, second) = fence_behind_the_back(&world, &blindfold).await;
    let cached = log.find_tail(TailKind::Cached).await.expect("it asks nobody");
    assert_eq!((cached.lsn, cached.kind), (lsn(6), TailKind::Cached), "old, and it says so");
    let tail = timeout(PATIENCE, log.find_tail(TailKind::Linearizable)).await.expect("it hangs").expect("all is well");
    assert_eq!((tail.lsn, tail.kind), (lsn(9), TailKind::Linearizable));
    assert_eq!(log.chain().segments.len(), 2, "it learned the chain on the way and closed nothing");
    first.shutdown().await;
    second.shutdown().await;
    world.shutdown().await;
}

#[tokio::test]
async fn a_linearizable_tail_waits_for_metadata_rather_than_be_stale() {
    let world = deaf_world().await;
    let blindfold = Blindfold::default();
    let (first, log, second) = fence_behind_the_back(&world, &blindfold).await;
    let released = CancellationToken::new();
    *blindfold.reads.lock() = Some(released.clone());
    *blindfold.on.lock() = true;
    let mut asked = Box::pin(log.find_tail(TailKind::Linearizable));
    // Long enough for everything that does not wait for metadata: another client gets its answer meanwhile, twice.
    for _ in 0..2 {
        assert!((&mut asked).now_or_never().is_none());
        let known = second.log_by_id(log.id()).await.expect("the log was made");
        assert_eq!(known.find_tail(TailKind::Linearizable).await.expect("all is well").lsn, lsn(9));
    }
    assert!((&mut asked).now_or_never().is_none());
    released.cancel();
    assert_eq!(timeout(PATIENCE, asked).await.expect("it hangs").expect("all is well").lsn, lsn(9));
    first.shutdown().await;
    second.shutdown().await;
    world.shutdown().await;
}

#[tokio::test]
async fn copies_that_were_sealed_and_nothing_more_lead_to_a_closed_segment_and_its_tail() {
    let world = World::in_memory(3).await;
    let client = world.client().await;
    let log = client.log_by_id(world.create_log("orphan", 0).await).await.expect("the log was made");
    assert_eq!(log.appender().append("before").await, Ok(lsn(1)));
    let params = log.chain().segments[0].params.clone();
    world.seal(1, &params, op(0x5ea1)).await;
    world.seal(2, &params, op(0x5ea1)).await;
    let tail = timeout(PATIENCE, log.find_tail(TailKind::Linearizable)).await.expect("it hangs").expect("all is well");
    assert_eq!(tail.lsn, lsn(2));
    assert_eq!(log.chain().segments.len(), 2);
    client.shutdown().await;
    world.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_linearizable_tail_is_found_although_the_sequencers_node_has_stopped() -> anyhow::Result<()> {
    let cluster = LocalCluster::start(LocalClusterOptions::default()).await?;
    let writer = cluster.connect().await?;
    let log = writer.create_log("stopped", LogOptions::default()).await?;
    for number in 1..=5 {
        assert_eq!(log.appender().append("before").await?, lsn(number));
    }
    let sequencer = log.chain().segments[0].params.sequencer.node;
    for place in 0..cluster.size() {
        if cluster.node_id(place).await == Some(sequencer) {
            cluster.stop_node(place).await;
        }
    }
    let reader = cluster.connect().await?;
    let known = reader.log("stopped").await?;
    assert_eq!(known.find_tail(TailKind::Cached).await?.lsn, Lsn::FIRST, "nobody told this client anything");
    assert_eq!(timeout(PATIENCE, known.find_tail(TailKind::Linearizable)).await??.lsn, lsn(6));
    assert_eq!(timeout(PATIENCE, log.appender().append("after")).await??, lsn(6));
    writer.shutdown().await;
    reader.shutdown().await;
    cluster.shutdown().await;
    Ok(())
}

#[tokio::test]
async fn a_trim_point_never_goes_back_and_readers_are_told_of_the_gap() {
    let world = World::in_memory(3).await;
    let client = world.client().await;
    let log = client.log_by_id(world.create_log("trimmed", 0).await).await.expect("the log was made");
    for number in 1..=10 {
        assert_eq!(log.appender().append(format!("{number}")).await, Ok(lsn(number)));
        if number == 4 {
            log.reconfigure(ReconfigureOptions::default()).await.expect("all is well");
        }
    }
    for (asked, holds) in [(3, 3), (2, 3), (6, 6), (6, 6), (1, 6), (9, 9)] {
        assert_eq!(log.trim(lsn(asked)).await, Ok(lsn(holds)), "trim up to {asked}");
    }
    for asked in [11, 12, u64::MAX] {
        assert_eq!(log.trim(lsn(asked)).await, Err(LogError::BeyondTail { asked: lsn(asked), tail: lsn(11) }));
    }
    // Also for a client that has never heard of the tail, and one record before it is no limit.
    let other = world.client().await;
    let same = other.log_by_id(log.id()).await.expect("the log was made");
    let beyond = Err(LogError::BeyondTail { asked: lsn(11), tail: lsn(11) });
    assert_eq!(same.trim(lsn(11)).await, beyond);
    for (from, gap_end) in [(1, 10), (5, 10), (9, 10)] {
        let options = ReadOptions { from: lsn(from), until: Some(lsn(11)), ..ReadOptions::default() };
        let mut reader = same.read(options);
        let gap = ReadEvent::Gap { from: lsn(from), end: lsn(gap_end), kind: GapKind::Trimmed };
        assert_eq!(reader.next().await, Some(Ok(gap)), "from {from}");
        let rest: Vec<_> =
            reader.filter_map(async |event| record_lsn(event.expect("nothing is broken"))).collect().await;
        assert_eq!(rest, [lsn(10)]);
    }
    assert_eq!(same.trim(lsn(10)).await, Ok(lsn(10)));
    assert_eq!(log.trim(lsn(1)).await, Ok(lsn(10)));
    assert_eq!(log.appender().append("goes on").await, Ok(lsn(11)));
    client.shutdown().await;
    other.shutdown().await;
    world.shutdown().await;
}

fn record_lsn(event: ReadEvent) -> Option<Lsn> {
    match event {
        ReadEvent::Record(record) => Some(record.lsn),
        ReadEvent::Gap { .. } | ReadEvent::CaughtUp { .. } => None,
    }
}

/// An append that reaches `copies` of three copies, and whose client is shut down before their answers arrive.
async fn append_cut_short(world: &World, copies: usize) -> (AppendId, Log, Bifrost) {
    let id = world.create_log("cut-short", 0).await;
    let loglet = LogletId::new(id, SegmentIndex::FIRST);
    let client = world.client().await;
    let log = client.log_by_id(id).await.expect("the log was made");
    let appender = log.appender();
    assert_eq!(appender.append("before").await, Ok(lsn(1)));
    for place in 0..3 {
        world.network.stored(world.node(place), loglet, offset(2)).await;
        if place >= copies {
            world.network.hold(world.node(place), loglet);
        }
    }
    world.network.mute(loglet);
    let ticket = appender.reserve(16).await.expect("there is room").send("in flight");
    for place in 0..copies {
        world.network.stored(world.node(place), loglet, offset(3)).await;
    }
    if copies == 0 {
        // Until the sequencer has given it an offset, which is all that it can do.
        let sequencer = log.chain().segments[0].params.sequencer;
        let sequencers = world.sequencers(0);
        while sequencers.tails(loglet, sequencer).await.expect("it runs").next_offset < offset(3) {
            tokio::task::yield_now().await;
        }
    }
    client.shutdown().await;
    let id = match ticket.await {
        Err(error @ AppendError::Unknown { id }) => {
            assert_eq!(error.advice(), bifrost::Advice::Resolve);
            id
        }
        outcome => panic!("nobody can know yet: {outcome:?}"),
    };
    assert_eq!(id.to_string().parse::<AppendId>(), Ok(id), "it survives being written down");
    let other = world.client().await;
    let log = other.log_by_id(id.log).await.expect("the log was made");
    (id, log, other)
}

/// What reading everything says about an append.
async fn scan(log: &Log, id: AppendId) -> Vec<Lsn> {
    let tail = log.find_tail(TailKind::Linearizable).await.expect("the log is well").lsn;
    let reader = log.read(ReadOptions { until: Some(tail), ..ReadOptions::default() });
    let is_it = async |event: Result<ReadEvent, _>| match event.expect("nothing is broken") {
        ReadEvent::Record(record) if (record.writer, record.sequence) == (id.writer, id.sequence) => Some(record.lsn),
        ReadEvent::Record(_) | ReadEvent::Gap { .. } | ReadEvent::CaughtUp { .. } => None,
    };
    reader.filter_map(is_it).collect().await
}

async fn resolve(log: &Log, id: AppendId) -> Resolved {
    timeout(PATIENCE, log.resolve(id)).await.expect("it hangs").expect("the log is well")
}

#[tokio::test]
async fn an_append_cut_short_that_lands_is_resolved_as_committed() {
    // On no copy, one copy, a write quorum, all copies: in an open segment the sequencer commits them all.
    for copies in 0..=3 {
        let world = World::in_memory(3).await;
        let (id, log, client) = append_cut_short(&world, copies).await;
        world.network.release();
        assert_eq!(resolve(&log, id).await, Resolved::Committed(lsn(2)), "on {copies} copies");
        assert_eq!(log.chain().segments.len(), 1, "nothing had to be closed for it");
        assert_eq!(scan(&log, id).await, [lsn(2)]);
        assert_eq!(resolve(&log, id).await, Resolved::Committed(lsn(2)), "the same answer again");
        client.shutdown().await;
        world.shutdown().await;
    }
}

#[tokio::test]
async fn an_append_cut_short_that_a_closed_segment_lacks_is_resolved_as_not_appended() {
    for copies in 0..=3 {
        let world = World::in_memory(3).await;
        let (id, log, client) = append_cut_short(&world, copies).await;
        let resolving = resolve(&log, id);
        let closing = log.reconfigure(ReconfigureOptions::default());
        let (resolved, closed) = tokio::join!(resolving, closing);
        assert!(matches!(closed, Ok(Reconfigured::Done(_))), "{closed:?}");
        world.network.release();
        let found = scan(&log, id).await;
        println!("on {copies} copies: {resolved:?}");
        match resolved {
            Resolved::NotAppended => assert_eq!(found, [], "on {copies} copies"),
            Resolved::Committed(at) => assert_eq!(found, [at], "on {copies} copies"),
            Resolved::Unknowable => panic!("nothing was trimmed or lost"),
        }
        match copies {
            0 => assert_eq!(resolved, Resolved::NotAppended, "no copy has it"),
            2.. => assert_eq!(resolved, Resolved::Committed(lsn(2)), "it may have been acknowledged"),
            _ => {} // one copy may be among the first that answer, or not
        }
        // What was not appended may be appended again, once.
        if resolved == Resolved::NotAppended {
            assert_eq!(log.appender().append("in flight").await, Ok(lsn(2)));
            assert_eq!(resolve(&log, id).await, Resolved::NotAppended);
        }
        client.shutdown().await;
        world.shutdown().await;
    }
}

#[tokio::test]
async fn an_append_cut_short_whose_place_was_trimmed_cannot_be_resolved() {
    let world = World::in_memory(3).await;
    let (id, log, client) = append_cut_short(&world, 2).await;
    world.network.release();
    log.find_tail(TailKind::Linearizable).await.expect("the log is well");
    assert_eq!(resolve(&log, id).await, Resolved::Committed(lsn(2)));
    assert_eq!(log.appender().append("after").await, Ok(lsn(3)));
    assert_eq!(log.trim(lsn(2)).await, Ok(lsn(2)));
    assert_eq!(resolve(&log, id).await, Resolved::Unknowable);
    client.shutdown().await;
    world.shutdown().await;
}
