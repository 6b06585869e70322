//! The host, its streams and pipes over fake log servers that store in memory. Time is paused: it moves only when
//! nothing else can, so no test waits for a clock.
#![allow(clippy::panic)]

mod fake;

use std::num::NonZeroU8;
use std::time::Duration;

use bifrost_types::limits::{WINDOW_BATCHES, WINDOW_BYTES};
use bifrost_types::{
    DiskId, Generation, Location, LogletOffset, Member, Nodeset, OpId, Record, ReplicationProperty, Sequence, WriterId,
};
use bifrost_wire::batch::encode;
use bifrost_wire::log_server::CopyError;
use bifrost_wire::sequencer::{AppendReply, AppendRequest};
use bytes::Bytes;
use tokio::time::timeout;

use super::*;
use fake::FakeServers;

#[derive(Debug)]
struct Source(LogletParams);

impl LogletSource for Source {
    /// The first segment and the one after it: whichever is asked for is the open one.
    fn open_loglet(&self, loglet: LogletId) -> BoxFuture<'_, Result<LogletParams, SequencerError>> {
        let known = loglet.log == self.0.id.log && loglet <= next_loglet();
        let known = known.then(|| LogletParams { id: loglet, ..self.0.clone() }).ok_or(SequencerError::NotOpen);
        Box::pin(async move { known })
    }
}

fn loglet() -> LogletId {
    LogletId::new(LogId::try_from(7).expect("non-zero"), SegmentIndex::FIRST)
}

fn next_loglet() -> LogletId {
    LogletId { segment: SegmentIndex::new(loglet().segment.get() + 1), ..loglet() }
}

fn me() -> NodeGeneration {
    NodeGeneration::new(NodeId::try_from(1).expect("non-zero"), Generation::FIRST)
}

fn params() -> LogletParams {
    let member = |node: u32| Member {
        node: NodeId::try_from(node).expect("non-zero"),
        disk: DiskId::try_from(u128::from(node)).expect("non-zero"),
        location: Location::default(),
    };
    LogletParams {
        id: loglet(),
        nodeset: Nodeset::new((1..=3).map(member).collect()).expect("three nodes"),
        replication: ReplicationProperty::nodes(NonZeroU8::new(2).expect("non-zero")),
        sequencer: me(),
    }
}

fn start() -> (SequencerHost, FakeServers) {
    let servers = FakeServers::new(3);
    let peers = Arc::new(servers.clone());
    (SequencerHost::new(me(), Arc::new(Source(params())), peers, SegmentLimits::default()), servers)
}

fn writer(value: u128) -> WriterId {
    WriterId::try_from(value).expect("non-zero")
}

fn open(writer_id: u128, incarnation: u64) -> AppendOpen {
    AppendOpen { loglet: loglet(), sequencer: me(), writer: writer(writer_id), incarnation }
}

fn batch(writer_id: u128, sequence: u64, bytes: usize) -> Bytes {
    let sequence = Sequence::try_from(sequence).expect("non-zero");
    encode(writer(writer_id), sequence, 0, &[Record::new(vec![7; bytes])]).expect("within the limits")
}

async fn send(stream: &AppendStream, batches: Vec<Bytes>) {
    stream.requests.send(AppendRequest { batches }).await.expect("the stream is open");
}

/// The next answers until `count` batches are committed.
async fn committed(stream: &mut AppendStream, count: usize) -> Vec<u64> {
    let mut offsets = Vec::new();
    while offsets.len() < count {
        match stream.replies.recv().await {
            Some(AppendReply::Committed { first_offsets, .. }) => {
                offsets.extend(first_offsets.into_iter().map(LogletOffset::get));
            }
            other => panic!("{other:?} after {offsets:?}"),
        }
    }
    offsets
}

async fn closed(stream: &mut AppendStream) -> SequencerError {
    loop {
        match stream.replies.recv().await {
            Some(AppendReply::Committed { .. }) => {}
            Some(AppendReply::Closed(error)) => return error,
            None => panic!("the stream ended without a reason"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn appends_of_two_writers_get_one_order_and_reach_every_copy() {
    let (host, servers) = start();
    let mut one = host.open_append(open(1, 1)).await.expect("the loglet is open");
    let mut two = host.open_append(open(2, 1)).await.expect("the loglet is open");
    send(&one, vec![batch(1, 1, 10), batch(1, 2, 10)]).await;
    send(&two, vec![batch(2, 1, 10)]).await;
    let mut offsets = committed(&mut one, 2).await;
    offsets.extend(committed(&mut two, 1).await);
    offsets.sort_unstable();
    assert_eq!(offsets, [1, 2, 3]);
    for node in 1..=3 {
        servers.until_stored(node, 4).await;
    }
    let tails = host.tails(loglet(), me()).await.expect("it runs");
    assert_eq!((tails.committed_tail.get(), tails.next_offset.get()), (4, 4));
    host.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_silent_copy_holds_nobody_up_and_gets_the_rest_when_it_is_back() {
    let (host, servers) = start();
    servers.set_down(3, true);
    let mut stream = host.open_append(open(1, 1)).await.expect("the loglet is open");
    send(&stream, (1..=5).map(|sequence| batch(1, sequence, 10)).collect()).await;
    assert_eq!(committed(&mut stream, 5).await, [1, 2, 3, 4, 5]);
    servers.set_down(3, false);
    servers.until_stored(3, 6).await;
    host.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_broken_connection_is_made_again_and_what_was_not_answered_is_sent_again() {
    let (host, servers) = start();
    servers.lose_replies(1, true);
    servers.lose_replies(2, true);
    let mut stream = host.open_append(open(1, 1)).await.expect("the loglet is open");
    send(&stream, vec![batch(1, 1, 10)]).await;
    servers.until_stored(1, 2).await;
    servers.until_stored(2, 2).await;
    servers.lose_replies(1, false);
    servers.lose_replies(2, false);
    servers.break_streams(1);
    servers.break_streams(2);
    assert_eq!(committed(&mut stream, 1).await, [1]);
    host.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn without_a_write_quorum_appends_wait_and_memory_is_bounded() {
    let (host, servers) = start();
    servers.set_down(2, true);
    servers.set_down(3, true);
    let stream = host.open_append(open(1, 1)).await.expect("the loglet is open");
    let mut taken = 0_u64;
    let large = 4 << 20;
    // The window, the queue of the stream and the batch in hand; then sending waits.
    while timeout(Duration::from_secs(60), send(&stream, vec![batch(1, taken + 1, large)])).await.is_ok() {
        taken += 1;
    }
    let window = (WINDOW_BYTES / large) as u64;
    let bound = window + STREAM_REQUESTS as u64 + 2;
    assert!((window - 1..=bound).contains(&taken), "{taken} batches were taken, the window has room for {window}");
    let tails = host.tails(loglet(), me()).await.expect("it runs");
    assert_eq!(tails.committed_tail, LogletOffset::FIRST);
    assert!(tails.next_offset.get() <= window + 1);
    const { assert!(WINDOW_BATCHES > 8, "bytes are the limit here") };
    host.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_seal_ends_every_stream_and_the_loglet_never_starts_again() {
    let (host, servers) = start();
    let mut one = host.open_append(open(1, 1)).await.expect("the loglet is open");
    let mut two = host.open_append(open(2, 1)).await.expect("the loglet is open");
    send(&one, vec![batch(1, 1, 10)]).await;
    committed(&mut one, 1).await;
    let op = OpId::try_from(9).expect("non-zero");
    for node in 1..=3 {
        servers.refuse(node, Some(CopyError::Sealed { op }));
    }
    send(&one, vec![batch(1, 2, 10)]).await;
    let sealed = SequencerError::Sealed { op };
    assert_eq!(closed(&mut one).await, sealed);
    assert_eq!(closed(&mut two).await, sealed);
    for node in 1..=3 {
        servers.refuse(node, None);
    }
    let again = host.open_append(open(3, 1)).await;
    assert!(matches!(again, Err(SequencerCallError::Refused(error)) if error == sealed), "{again:?}");
    assert_eq!(host.tails(loglet(), me()).await, Err(SequencerCallError::Refused(sealed)));
    host.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn its_last_word_ends_a_sequencer_and_stays_the_same_whatever_its_copies_answer_later() {
    let (host, servers) = start();
    let op = OpId::try_from(9).expect("non-zero");
    let end = EndRequest { loglet: loglet(), sequencer: me(), op };
    let mut stream = host.open_append(open(1, 1)).await.expect("opens");
    send(&stream, vec![batch(1, 1, 10)]).await;
    committed(&mut stream, 1).await;
    // A write quorum stores the second batch, and nobody hears of it.
    for node in 1..=3 {
        servers.lose_replies(node, true);
    }
    send(&stream, vec![batch(1, 2, 10)]).await;
    servers.until_stored(1, 3).await;
    servers.until_stored(2, 3).await;
    let word = host.end(end).await.expect("it is its own");
    assert_eq!((word.committed_tail.get(), word.next_offset.get()), (2, 3));
    assert_eq!(closed(&mut stream).await, SequencerError::Sealed { op });
    for node in 1..=3 {
        servers.lose_replies(node, false);
        servers.break_streams(node);
    }
    assert_eq!(host.end(end).await, Ok(word));
    assert_eq!(host.running(), []);
    let again = host.open_append(open(1, 2)).await;
    assert!(matches!(again, Err(SequencerCallError::Refused(SequencerError::Sealed { .. }))), "{again:?}");
    host.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn the_last_word_of_a_sequencer_that_never_ran_is_its_beginning_and_it_never_runs() {
    let (host, _servers) = start();
    let op = OpId::try_from(9).expect("non-zero");
    let end = EndRequest { loglet: loglet(), sequencer: me(), op };
    let other = NodeGeneration { generation: me().generation.next().expect("far from the end"), ..me() };
    let of_another_life = host.end(EndRequest { sequencer: other, ..end }).await;
    assert_eq!(of_another_life, Err(SequencerCallError::Refused(SequencerError::NotSequencer)));
    let word = host.end(end).await.expect("it is its own");
    assert_eq!((word.committed_tail, word.next_offset), (LogletOffset::FIRST, LogletOffset::FIRST));
    assert!(host.open_append(open(1, 1)).await.is_err());
    let next = AppendOpen { loglet: next_loglet(), ..open(1, 1) };
    let _next = host.open_append(next).await.expect("opens");
    let late = host.end(end).await;
    assert_eq!(late, Err(SequencerCallError::Refused(SequencerError::NotOpen)), "its segment is long closed");
    host.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn the_next_segment_of_a_log_ends_the_one_before_it_even_if_that_is_idle() {
    let (host, _servers) = start();
    let mut stream = host.open_append(open(1, 1)).await.expect("opens");
    let next = AppendOpen { loglet: next_loglet(), ..open(1, 1) };
    let _next = host.open_append(next).await.expect("opens");
    assert_eq!(closed(&mut stream).await, SequencerError::NotOpen);
    assert_eq!(host.running(), [next_loglet()]);
    assert!(host.open_append(open(1, 2)).await.is_err(), "a segment runs once");
    host.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_segment_that_the_chain_left_behind_ends_even_if_it_is_idle_and_never_starts_again() {
    let (host, servers) = start();
    let mut stream = host.open_append(open(1, 1)).await.expect("opens");
    host.end_before(loglet().log, loglet().segment);
    send(&stream, vec![batch(1, 1, 10)]).await;
    assert_eq!(committed(&mut stream, 1).await, [1], "it is the open one");
    host.end_before(loglet().log, next_loglet().segment);
    assert_eq!(closed(&mut stream).await, SequencerError::NotOpen);
    assert_eq!(host.running(), []);
    let again = host.open_append(open(1, 2)).await;
    assert!(matches!(again, Err(SequencerCallError::Refused(SequencerError::NotOpen))), "{again:?}");
    drop(servers);
    host.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_newer_stream_of_a_writer_bounds_what_the_older_one_left() {
    let (host, servers) = start();
    for node in 1..=3 {
        servers.set_down(node, true);
    }
    let mut old = host.open_append(open(1, 1)).await.expect("the loglet is open");
    send(&old, vec![batch(1, 1, 10)]).await;
    // The stream has its own task: wait until the append has its offset.
    while host.tails(loglet(), me()).await.expect("it runs").next_offset.get() == 1 {
        tokio::task::yield_now().await;
    }
    let new = host.open_append(open(1, 2)).await.expect("newer");
    assert_eq!(new.opened.next_offset.get(), 2);
    assert_eq!(closed(&mut old).await, SequencerError::Superseded);
    let older = host.open_append(open(1, 1)).await;
    assert!(matches!(older, Err(SequencerCallError::Refused(SequencerError::Superseded))), "{older:?}");
    host.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn bytes_that_are_no_batch_of_the_writer_end_its_stream_and_nothing_else() {
    let (host, _servers) = start();
    let mut bad = host.open_append(open(1, 1)).await.expect("the loglet is open");
    let mut good = host.open_append(open(2, 1)).await.expect("the loglet is open");
    let mut damaged = batch(1, 2, 10).to_vec();
    if let Some(last) = damaged.last_mut() {
        *last ^= 1;
    }
    send(&bad, vec![batch(1, 1, 10), damaged.into(), batch(1, 3, 10)]).await;
    assert_eq!(closed(&mut bad).await, SequencerError::BadBatch);
    let mut foreign = host.open_append(open(3, 1)).await.expect("the loglet is open");
    send(&foreign, vec![batch(4, 1, 10)]).await;
    assert_eq!(closed(&mut foreign).await, SequencerError::BadBatch);
    send(&good, vec![batch(2, 1, 10)]).await;
    assert_eq!(committed(&mut good, 1).await, [2], "one batch of the bad stream came before its damaged one");
    host.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn another_life_and_unknown_loglets_are_refused() {
    let (host, _servers) = start();
    let second = Generation::FIRST.next().expect("there is a second");
    let other_life = AppendOpen { sequencer: NodeGeneration::new(me().node, second), ..open(1, 1) };
    let refused = host.open_append(other_life).await;
    assert!(matches!(refused, Err(SequencerCallError::Refused(SequencerError::NotSequencer))), "{refused:?}");
    let segment = SegmentIndex::new(5);
    let unknown = AppendOpen { loglet: LogletId::new(loglet().log, segment), ..open(1, 1) };
    let refused = host.open_append(unknown).await;
    assert!(matches!(refused, Err(SequencerCallError::Refused(SequencerError::NotOpen))), "{refused:?}");
    host.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_stop_ends_streams_with_a_reason() {
    let (host, servers) = start();
    for node in 1..=3 {
        servers.set_down(node, true);
    }
    let mut stream = host.open_append(open(1, 1)).await.expect("the loglet is open");
    send(&stream, vec![batch(1, 1, 10)]).await;
    host.shutdown().await;
    assert_eq!(closed(&mut stream).await, SequencerError::Stopping);
    assert!(host.open_append(open(2, 1)).await.is_err());
}

/// The first segment of every log is open.
#[derive(Debug)]
struct ManyLogs;

impl LogletSource for ManyLogs {
    fn open_loglet(&self, loglet: LogletId) -> BoxFuture<'_, Result<LogletParams, SequencerError>> {
        Box::pin(async move { Ok(LogletParams { id: loglet, ..params() }) })
    }
}

#[tokio::test(start_paused = true)]
async fn many_loglets_that_wait_for_one_full_pipe_all_get_through() {
    let servers = FakeServers::new(3);
    let host = SequencerHost::new(me(), Arc::new(ManyLogs), Arc::new(servers.clone()), SegmentLimits::default());
    let mut streams = Vec::new();
    for log in 1..=40 {
        let loglet = LogletId::new(LogId::try_from(log).expect("non-zero"), SegmentIndex::FIRST);
        streams.push(host.open_append(AppendOpen { loglet, ..open(u128::from(log), 1) }).await.expect("it is open"));
    }
    // Ten times as many as a pipe has room for, all at once.
    for (stream, writer) in streams.iter().zip(1..) {
        stream.requests.try_send(AppendRequest { batches: vec![batch(writer, 1, 10)] }).expect("there is room");
    }
    let mut waiting: Vec<_> = streams.iter_mut().collect();
    for _ in 0..10_000 {
        // Not a wait: tasks that go round in circles would never let the clock move.
        tokio::task::yield_now().await;
        waiting.retain_mut(|stream| stream.replies.try_recv().is_none());
    }
    assert!(waiting.is_empty(), "{} of 40 are not acknowledged", waiting.len());
    host.shutdown().await;
}
