//! What appenders send, and appenders whose sequencer falls silent, on the paused clock: it moves only when nothing else is
//! left to do.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]

use std::sync::Arc;
use std::time::Duration;

use bifrost_metadata::{Call, CallKind, Fault, LossyMetadata};
use bifrost_types::{
    Actor, AppendId, Chain, CloseReason, Keys, LogId, LogletId, Lsn, NodeGeneration, OpId, Reconfiguration, Record,
    SegmentState,
};
use bifrost_wire::batch::{Batch, EncodeError};
use bifrost_wire::log_server::SealRequest;
use bifrost_wire::metadata::MetadataError;
use bifrost_wire::sequencer::{
    AppendOpen, AppendReply, AppendRequest, AppendStream, EndRequest, SequencerCallError, SequencerTails, Sequencers,
};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::poll_fn;
use futures_util::{Stream, StreamExt};
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::chain::{Announce, announce};
use crate::connect::NodeServices;
use crate::test_world::World;
use crate::{AppendError, Appender, Bifrost, NotAppended, Options, ReconfigureOptions, Resolved, TailKind, Ticket};

/// What happens without anybody waiting for a timer.
const AT_ONCE: Duration = Duration::from_millis(50);

/// A sequencer whose node can be paused: it takes connections and requests, and answers nothing. It may also be muted: then
/// only what it says to appends is held back.
#[derive(Debug)]
struct Pausable {
    inner: Arc<dyn Sequencers>,
    paused: watch::Receiver<bool>,
    muted: watch::Receiver<bool>,
    /// Every batch that it was sent.
    sent: Arc<Mutex<Vec<Bytes>>>,
}

impl Sequencers for Pausable {
    fn open_append(&self, open: AppendOpen) -> BoxFuture<'_, Result<AppendStream, SequencerCallError>> {
        Box::pin(async move {
            runs(&mut self.paused.clone()).await;
            let AppendStream { opened, requests, replies } = self.inner.open_append(open).await?;
            let (request_sender, mut request_queue) = mpsc::channel(8);
            let taken = poll_fn(move |cx| request_queue.poll_recv(cx));
            let (reply_sender, reply_queue) = mpsc::channel(8);
            let sent = self.sent.clone();
            let note = move |request: &AppendRequest| sent.lock().extend(request.batches.iter().cloned());
            tokio::spawn(pass_on(taken, requests, vec![self.paused.clone()], note));
            let held_back = vec![self.paused.clone(), self.muted.clone()];
            tokio::spawn(pass_on(replies, reply_sender, held_back, |_: &AppendReply| {}));
            Ok(AppendStream { opened, requests: request_sender, replies: reply_queue.into() })
        })
    }

    fn tails(
        &self,
        loglet: LogletId,
        sequencer: NodeGeneration,
    ) -> BoxFuture<'_, Result<SequencerTails, SequencerCallError>> {
        Box::pin(async move {
            runs(&mut self.paused.clone()).await;
            self.inner.tails(loglet, sequencer).await
        })
    }

    fn end(&self, request: EndRequest) -> BoxFuture<'_, Result<SequencerTails, SequencerCallError>> {
        Box::pin(async move {
            runs(&mut self.paused.clone()).await;
            self.inner.end(request).await
        })
    }
}

async fn pass_on<T>(
    mut from: impl Stream<Item = T> + Unpin,
    to: mpsc::Sender<T>,
    mut held_back: Vec<watch::Receiver<bool>>,
    note: impl Fn(&T),
) {
    while let Some(item) = from.next().await {
        for paused in &mut held_back {
            runs(paused).await;
        }
        note(&item);
        if to.send(item).await.is_err() {
            return;
        }
    }
}

async fn runs(paused: &mut watch::Receiver<bool>) {
    let _over = paused.wait_for(|paused| !paused).await;
}

/// A log whose sequencer, on the first node, can be paused, and an appender with one record in it.
struct Bench {
    world: World,
    log: LogId,
    pause: watch::Sender<bool>,
    mute: watch::Sender<bool>,
    sent: Arc<Mutex<Vec<Bytes>>>,
    client: Bifrost,
    appender: Appender,
}

impl Bench {
    async fn new() -> Self {
        let world = World::new().await;
        let log = world.idle_log("orders", 0).await;
        let (pause, paused) = watch::channel(false);
        let (mute, muted) = watch::channel(false);
        let sent = Arc::default();
        let services = world.nodes[0].services();
        let sequencers = Arc::new(Pausable { inner: services.sequencers, paused, muted, sent: Arc::clone(&sent) });
        world.connect.insert(world.nodes[0].id().node, NodeServices { sequencers, ..services });
        let client = world.client().await;
        let appender = client.log_by_id(log).await.unwrap().appender();
        assert_eq!(appender.append("four").await.unwrap().get(), 4);
        Self { world, log, pause, mute, sent, client, appender }
    }

    /// How many records each batch had that the sequencer was sent.
    fn sent(&self) -> Vec<u32> {
        let records = |bytes: &Bytes| Batch::decode(bytes.clone()).unwrap().header().records.get();
        self.sent.lock().iter().map(records).collect()
    }

    /// Sends that many records as one append.
    async fn send(&self, records: usize) -> Ticket {
        let permit = self.appender.reserve_batch(100 * records, records).await.unwrap();
        permit.send_batch(vec![Record::new(vec![7; 100]); records])
    }

    /// Waits until everything below `tail` is committed.
    async fn committed(&self, tail: u64) {
        let log = self.client.log_by_id(self.log).await.unwrap();
        while log.find_tail(TailKind::Linearizable).await.unwrap().lsn.get() < tail {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// What a dead actor left: an announcement, of a successor on the second node.
    async fn announce(&self) -> OpId {
        let op = OpId::try_from(66_u128).unwrap();
        let stored = self.world.catalog().chain(self.log).await.unwrap();
        let wanted = Reconfiguration {
            op,
            segment: stored.chain.last().unwrap().index(),
            actor: Actor::Operator,
            reason: CloseReason::Requested,
            successor: Some(self.world.successor(1)),
            attempt: 1,
            opened_at_millis: 0,
        };
        let Announce::Write(announced) = announce(&stored.chain, &wanted).unwrap() else {
            panic!("nothing was pending")
        };
        self.world.catalog().replace(&stored, announced).await.unwrap();
        op
    }

    /// Somebody else, who does not need the sequencer, moves the log.
    async fn move_log(&self) {
        let operator = self.world.client().await;
        operator.log_by_id(self.log).await.unwrap().reconfigure(ReconfigureOptions::default()).await.unwrap();
        operator.shutdown().await;
    }

    async fn chain(&self) -> Chain {
        self.world.chain(self.log).await
    }

    async fn shutdown(self) {
        self.client.shutdown().await;
        self.world.shutdown().await;
    }
}

async fn lsns(tickets: Vec<Ticket>) -> Vec<u64> {
    let mut lsns = Vec::new();
    for ticket in tickets {
        lsns.push(ticket.await.unwrap().get());
    }
    lsns
}

#[tokio::test(start_paused = true)]
async fn appends_one_after_the_other_are_batches_of_their_own() {
    let bench = Bench::new().await;
    for lsn in 5..10 {
        assert_eq!(bench.appender.append("more").await.unwrap().get(), lsn);
    }
    assert_eq!(bench.sent(), [1; 6]);
    bench.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_burst_of_appends_shares_a_batch_and_each_is_told_its_own_lsn() {
    let bench = Bench::new().await;
    let (mut tickets, mut expected) = (Vec::new(), Vec::new());
    for first in (5..).step_by(3).take(20) {
        tickets.push(bench.send(1).await);
        let inverted = Record::new("x").with_keys(Keys::Range(2, 1));
        let refused = bench.appender.reserve(1).await.unwrap().send(inverted);
        let cause = NotAppended::Encode(EncodeError::InvertedKeys);
        assert_eq!(refused.await, Err(AppendError::NotAppended { cause }), "and it fails alone");
        tickets.push(bench.send(2).await);
        expected.extend([first, first + 1]);
    }
    assert_eq!(lsns(tickets).await, expected);
    assert_eq!(bench.sent(), [1, 60]);
    bench.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn an_atomic_append_is_not_split_where_a_batch_is_full() {
    let bench = Bench::new().await;
    let mut tickets = Vec::new();
    for _ in 0..4 {
        // 31 KiB each: two of them share a batch, a third does not fit.
        tickets.push(bench.send(256).await);
    }
    tickets.push(bench.send(1_000).await);
    tickets.push(bench.send(1).await);
    assert_eq!(lsns(tickets).await, [5, 261, 517, 773, 1_029, 2_029]);
    assert_eq!(bench.sent(), [1, 512, 512, 1_000, 1]);
    bench.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_a_silent_sequencer_shares_batches_and_goes_on_in_the_next_segment() {
    let bench = Bench::new().await;
    bench.pause.send_replace(true);
    let mut tickets = vec![bench.send(2).await];
    tokio::task::yield_now().await;
    for _ in 0..3 {
        tickets.push(bench.send(1).await);
    }
    bench.move_log().await;
    assert_eq!(lsns(tickets).await, [5, 7, 8, 9]);
    bench.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_landed_unanswered_settles_all_its_appends() {
    let bench = Bench::new().await;
    bench.mute.send_replace(true);
    let tickets = vec![bench.send(1).await, bench.send(2).await, bench.send(1).await];
    bench.committed(9).await;
    bench.move_log().await;
    assert_eq!(lsns(tickets).await, [5, 6, 8], "found by reading");
    assert_eq!(bench.sent(), [1, 4]);
    assert_eq!(bench.appender.append("nine").await.unwrap().get(), 9, "nothing was sent again");
    bench.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn each_append_of_a_batch_in_doubt_is_resolved_by_its_own_id() {
    let bench = Bench::new().await;
    bench.mute.send_replace(true);
    let tickets = vec![bench.send(1).await, bench.send(2).await, bench.send(1).await];
    bench.committed(9).await;
    bench.client.shutdown().await;
    let other = bench.world.client().await;
    let log = other.log_by_id(bench.log).await.unwrap();
    let named = [(2, 1, 5), (3, 2, 6), (5, 1, 8)];
    for (ticket, (sequence, records, lsn)) in tickets.into_iter().zip(named) {
        let Err(AppendError::Unknown { id }) = ticket.await else { panic!("nobody can know yet") };
        assert_eq!((id.sequence.get(), id.records.get()), (sequence, records));
        assert_eq!(log.resolve(id).await.unwrap(), Resolved::Committed(Lsn::new(lsn).unwrap()));
        let AppendId { sequence, .. } = id;
        let late = AppendId { sequence: sequence.checked_add(10).unwrap(), ..id };
        assert_eq!(log.resolve(late).await.unwrap(), Resolved::NotAppended, "behind all that was sent");
    }
    other.shutdown().await;
    bench.world.shutdown().await;
}

fn closed_by(chain: &Chain) -> OpId {
    let SegmentState::Sealed { op, .. } = chain.segments[0].state else { panic!("still open: {chain:?}") };
    op
}

#[tokio::test(start_paused = true)]
async fn an_append_in_flight_to_a_silent_sequencer_goes_on_as_soon_as_somebody_moved_the_log() {
    let bench = Bench::new().await;
    bench.pause.send_replace(true);
    let ticket = bench.appender.reserve(4).await.unwrap().send("five");
    bench.move_log().await;
    let begun = Instant::now();
    assert_eq!(ticket.await.unwrap().get(), 5, "settled as not in the old segment, and appended once to the new one");
    assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
    assert_eq!(bench.chain().await.segments.len(), 2, "moved once");
    bench.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_a_silent_sequencer_to_take_a_stream_once_the_log_was_moved() {
    let bench = Bench::new().await;
    bench.pause.send_replace(true);
    let late = bench.client.log_by_id(bench.log).await.unwrap().appender();
    let ticket = late.reserve(4).await.unwrap().send("five");
    tokio::task::yield_now().await;
    let begun = Instant::now();
    bench.move_log().await;
    assert_eq!(ticket.await.unwrap().get(), 5);
    assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
    bench.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn what_a_dead_actor_announced_is_joined_by_an_appender_that_makes_no_progress() {
    let bench = Bench::new().await;
    bench.pause.send_replace(true);
    let op = bench.announce().await;
    let begun = Instant::now();
    assert_eq!(bench.appender.append("five").await.unwrap().get(), 5);
    assert!(begun.elapsed() < Duration::from_millis(300), "{:?}", begun.elapsed());
    assert_eq!(closed_by(&bench.chain().await), op);
    bench.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn an_announcement_alone_disturbs_no_appends() {
    let bench = Bench::new().await;
    let op = bench.announce().await;
    for lsn in 5..105 {
        assert_eq!(bench.appender.append("more").await.unwrap().get(), lsn);
    }
    assert_eq!(bench.chain().await.pending.map(|pending| pending.op), Some(op), "its actor has time");
    bench.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn an_appender_that_meets_a_seal_joins_the_operation_behind_it_at_once() {
    let bench = Bench::new().await;
    let op = bench.announce().await;
    let params = bench.chain().await.segments[0].params.clone();
    for (node, member) in bench.world.nodes.iter().zip(params.nodeset.members()) {
        let seal = SealRequest { loglet: params.id, disk: member.disk, op };
        node.services().log_server.seal(seal).await.unwrap();
    }
    let begun = Instant::now();
    assert_eq!(bench.appender.append("five").await.unwrap().get(), 5);
    assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
    assert_eq!(closed_by(&bench.chain().await), op);
    bench.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_log_without_progress_is_looked_up_when_its_watch_says_nothing() {
    let mut bench = Bench::new().await;
    let script = Arc::new(|call: &Call| match call.kind {
        CallKind::Watch => Fault::FailBefore(MetadataError::Unavailable),
        _ => Fault::None,
    });
    let metadata = Arc::new(LossyMetadata::new(bench.world.metadata.clone(), script));
    let deaf = bench.world.client_over(metadata).await;
    bench.appender = deaf.log_by_id(bench.log).await.unwrap().appender();
    bench.appender.append("five").await.unwrap();
    bench.pause.send_replace(true);
    let ticket = bench.appender.reserve(3).await.unwrap().send("six");
    bench.move_log().await;
    let begun = Instant::now();
    assert_eq!(ticket.await.unwrap().get(), 6);
    assert!(begun.elapsed() < Duration::from_millis(600), "{:?}", begun.elapsed());
    deaf.shutdown().await;
    bench.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn an_appender_that_gets_no_answers_moves_the_log_although_nobody_calls_its_sequencer_silent() {
    let bench = Bench::new().await;
    bench.pause.send_replace(true);
    let begun = Instant::now();
    assert_eq!(bench.appender.append("five").await.unwrap().get(), 5);
    let bound = Duration::from_secs(1) + Options::default().call_deadline + AT_ONCE;
    assert!(begun.elapsed() < bound, "{:?}", begun.elapsed());
    let chain = bench.chain().await;
    let SegmentState::Sealed { reason, .. } = chain.segments[0].state else { panic!("still open: {chain:?}") };
    assert_eq!((chain.segments.len(), reason), (2, CloseReason::SequencerGone));
    bench.shutdown().await;
}
