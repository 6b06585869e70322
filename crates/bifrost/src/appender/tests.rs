//! Appenders whose sequencer falls silent, on the paused clock: it moves only when nothing else is left to do.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]

use std::sync::Arc;
use std::time::Duration;

use bifrost_metadata::{Call, CallKind, Fault, LossyMetadata};
use bifrost_types::{Actor, Chain, CloseReason, LogId, LogletId, NodeGeneration, OpId, Reconfiguration, SegmentState};
use bifrost_wire::log_server::SealRequest;
use bifrost_wire::metadata::MetadataError;
use bifrost_wire::sequencer::{AppendOpen, AppendStream, SequencerCallError, SequencerTails, Sequencers};
use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::chain::{Announce, announce};
use crate::connect::NodeServices;
use crate::test_world::World;
use crate::{Appender, Bifrost, Options, ReconfigureOptions};

/// What happens without anybody waiting for a timer.
const AT_ONCE: Duration = Duration::from_millis(50);

/// A sequencer whose node can be paused: it takes connections and requests, and answers nothing.
#[derive(Debug)]
struct Pausable {
    inner: Arc<dyn Sequencers>,
    paused: watch::Receiver<bool>,
}

impl Sequencers for Pausable {
    fn open_append(&self, open: AppendOpen) -> BoxFuture<'_, Result<AppendStream, SequencerCallError>> {
        Box::pin(async move {
            runs(&mut self.paused.clone()).await;
            let AppendStream { opened, requests, replies } = self.inner.open_append(open).await?;
            let (request_sender, request_queue) = mpsc::channel(8);
            let (reply_sender, reply_queue) = mpsc::channel(8);
            tokio::spawn(pass_on(request_queue, requests, self.paused.clone()));
            tokio::spawn(pass_on(replies, reply_sender, self.paused.clone()));
            Ok(AppendStream { opened, requests: request_sender, replies: reply_queue })
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
}

async fn pass_on<T>(mut from: mpsc::Receiver<T>, to: mpsc::Sender<T>, mut paused: watch::Receiver<bool>) {
    while let Some(item) = from.recv().await {
        runs(&mut paused).await;
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
    client: Bifrost,
    appender: Appender,
}

impl Bench {
    async fn new() -> Self {
        let world = World::new().await;
        let log = world.idle_log("orders", 0).await;
        let (pause, paused) = watch::channel(false);
        let services = world.nodes[0].services();
        let sequencers = Arc::new(Pausable { inner: services.sequencers, paused });
        world.connect.insert(world.nodes[0].id().node, NodeServices { sequencers, ..services });
        let client = world.client().await;
        let appender = client.log_by_id(log).await.unwrap().appender();
        assert_eq!(appender.append("four").await.unwrap().get(), 4);
        Self { world, log, pause, client, appender }
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
