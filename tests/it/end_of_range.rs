//! Logs whose LSNs run out: chains that are doctored to begin near 2^64.

use std::num::NonZeroU32;

use bifrost::catalog::Catalog;
use bifrost::chain::ChainError;
use bifrost::{
    AppendError, GapKind, Log, LogError, LogId, Lsn, NotAppended, ReadError, ReadEvent, ReadOptions,
    ReconfigureOptions, Resolved, TailKind,
};
use bifrost_types::limits::LSN_RESERVE;
use bifrost_types::{
    Actor, AppendId, Chain, CloseReason, LogletId, LogletParams, Record, Segment, SegmentIndex, SegmentState, Sequence,
    Timings, WriterId,
};
use bifrost_wire::batch::encode;
use bifrost_wire::sequencer::{AppendOpen, AppendReply, AppendRequest};
use futures_util::StreamExt;

use super::support::world::{World, lsn, offset, op};

/// Puts a closed segment of `records` that nobody ever wrote before a fresh open one, so that the open one begins at LSN
/// `records + 1`.
async fn doctored(world: &World, name: &str, records: u64) -> LogId {
    let log = world.create_log(name, 0).await;
    let catalog = Catalog::new(world.metadata.clone());
    let read = catalog.chain(log).await.expect("it was made");
    let mut next = read.chain.clone();
    let closed = &mut next.segments[0];
    closed.state = SegmentState::Sealed {
        tail: offset(records + 1),
        lost_from: None,
        op: op(1),
        actor: Actor::Operator,
        reason: CloseReason::Requested,
        timings: Timings::default(),
    };
    let index = SegmentIndex::new(1);
    let params = LogletParams { id: LogletId::new(log, index), ..closed.params.clone() };
    next.segments.push(Segment { base_lsn: lsn(records + 1), params, state: SegmentState::Open });
    next.next_segment = SegmentIndex::new(2);
    next = Chain { version: next.version + 1, ..next };
    catalog.replace(&read, next).await.expect("nobody else is here");
    // The copies know their end, too, so that nobody waits for records that there never were.
    for place in 0..3 {
        world.settle(place, &read.chain.segments[0].params, op(1), offset(records + 1)).await;
    }
    log
}

async fn next(reader: &mut bifrost::Reader) -> Option<Result<ReadEvent, ReadError>> {
    loop {
        match reader.next().await {
            Some(Ok(ReadEvent::CaughtUp { .. })) => {}
            other => return other,
        }
    }
}

async fn assert_answers(log: &Log, tail: Lsn) {
    assert_eq!(log.find_tail(TailKind::Linearizable).await.map(|found| found.lsn), Ok(tail));
    assert_eq!(log.peek_tail().await, Ok(tail));
    assert_eq!(log.trim(tail).await, Err(LogError::BeyondTail { asked: tail, tail }));
    assert_eq!(log.trim(Lsn::MAX).await, Err(LogError::BeyondTail { asked: Lsn::MAX, tail }));
}

#[tokio::test]
async fn appends_stop_with_an_error_before_the_range_ends_and_reads_go_up_to_there() {
    let world = World::in_memory(3).await;
    // Room for two records before the reserve.
    let first = u64::MAX - LSN_RESERVE - 1;
    let log = doctored(&world, "orders", first - 1).await;
    let client = world.client().await;
    let handle = client.log_by_id(log).await.expect("it was made");
    let appender = handle.appender();
    assert_eq!(appender.append("one").await, Ok(lsn(first)));
    assert_eq!(appender.append("two").await, Ok(lsn(first + 1)));
    let exhausted = AppendError::NotAppended { cause: NotAppended::Exhausted };
    assert_eq!(appender.append("three").await, Err(exhausted));
    assert_eq!(appender.append("four").await, Err(exhausted), "for good");
    assert_eq!(handle.appender().append("five").await, Err(exhausted), "for every appender");
    assert_answers(&handle, lsn(first + 2)).await;

    let from = ReadOptions { from: lsn(first - 2), until: Some(lsn(first + 2)), ..ReadOptions::default() };
    let mut reader = handle.read(from);
    let gap = Some(Ok(ReadEvent::Gap { from: lsn(first - 2), end: lsn(first), kind: GapKind::Lost }));
    assert_eq!(next(&mut reader).await, gap, "nobody ever had them");
    for (at, payload) in [(first, "one"), (first + 1, "two")] {
        let Some(Ok(ReadEvent::Record(record))) = next(&mut reader).await else { panic!("a record at {at}") };
        assert_eq!((record.lsn, &record.payload[..]), (lsn(at), payload.as_bytes()));
    }
    assert_eq!(next(&mut reader).await, None);
    // Moving the log is possible as long as its tail has a name, and brings no room.
    handle.reconfigure(ReconfigureOptions::default()).await.expect("all is well");
    assert_eq!(handle.appender().append("six").await, Err(exhausted));
    assert_eq!(handle.trim(lsn(first)).await, Ok(lsn(first)));
    client.shutdown().await;
    world.shutdown().await;
}

/// A client that does not know of the reserve commits records that have no LSN.
#[tokio::test]
async fn records_beyond_the_last_position_are_an_error_of_the_reader_and_no_panic() {
    let world = World::in_memory(3).await;
    let first = u64::MAX - 2;
    let log = doctored(&world, "orders", first - 1).await;
    let client = world.client().await;
    let handle = client.log_by_id(log).await.expect("it was made");
    assert_answers(&handle, lsn(first)).await;
    let exhausted = AppendError::NotAppended { cause: NotAppended::Exhausted };
    assert_eq!(handle.appender().append("one").await, Err(exhausted));

    let params = handle.chain().segments[1].params.clone();
    let writer = WriterId::try_from(5).expect("not 0");
    let open = AppendOpen { loglet: params.id, sequencer: params.sequencer, writer, incarnation: 1 };
    let mut stream = world.sequencers(0).open_append(open).await.expect("the sequencer is well");
    for sequence in [1, 3] {
        let records = [Record::new("raw"), Record::new("raw")];
        let sequence = Sequence::try_from(sequence).expect("not 0");
        let batch = encode(writer, sequence, 0, &records).expect("a small batch");
        stream.requests.send(AppendRequest { batches: vec![batch] }).await.expect("the stream is open");
        let reply = stream.replies.recv().await.expect("the stream is open");
        assert!(matches!(reply, AppendReply::Committed { .. }), "{reply:?}");
    }

    // Two records have an LSN, the third has the last one, the fourth has none.
    let mut reader = handle.read(ReadOptions { from: lsn(first), ..ReadOptions::default() });
    for at in [first, first + 1, first + 2] {
        let Some(Ok(ReadEvent::Record(record))) = next(&mut reader).await else { panic!("a record at {at}") };
        assert_eq!(record.lsn, lsn(at));
    }
    assert_eq!(next(&mut reader).await, Some(Err(ReadError::Chain(ChainError::Exhausted))));
    assert_eq!(next(&mut reader).await, None);
    let exhausted = Err(LogError::Chain(ChainError::Exhausted));
    assert_eq!(handle.find_tail(TailKind::Linearizable).await.map(drop), exhausted);
    assert!(handle.peek_tail().await.is_err());
    assert_eq!(handle.trim(lsn(first)).await, Ok(lsn(first)));
    let id = |sequence| AppendId {
        log,
        writer,
        sequence: Sequence::try_from(sequence).expect("not 0"),
        records: NonZeroU32::new(2).expect("not 0"),
        segment: SegmentIndex::new(1),
        from: lsn(first),
        incarnation: 1,
    };
    assert!(matches!(handle.resolve(id(3)).await, Ok(Resolved::Committed(_) | Resolved::Unknowable)));
    // Closing the segment would need a name for its end.
    let moved = handle.reconfigure(ReconfigureOptions::default()).await;
    assert!(moved.is_err(), "{moved:?}");
    client.shutdown().await;
    world.shutdown().await;
}
