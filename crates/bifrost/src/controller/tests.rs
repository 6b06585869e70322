//! Controllers over nodes in memory, on the paused clock: it moves only when nothing else is left to do.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]

use std::num::NonZeroU8;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bifrost_metadata::{Call, CallKind, Fault, LossyMetadata};
use bifrost_types::{
    Actor, Chain, CloseReason, LogId, NodeGeneration, Nodeset, OpId, Reconfiguration, ReplicationProperty,
    SegmentState, Successor,
};
use bifrost_wire::liveness::Beat;
use bifrost_wire::log_server::{SealRequest, StateRequest};
use bifrost_wire::metadata::MetadataError;
use futures_util::StreamExt;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::{Instant, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::chain::{Announce, announce};
use crate::liveness::core::Lead;
use crate::liveness::{Detector, LivenessOptions};
use crate::test_world::{PATIENCE, World};
use crate::{Bifrost, HandOverOptions, HandedOver, fresh_op};

/// Long enough for whatever is still to happen.
const HOUR: Duration = Duration::from_secs(3600);

impl World {
    /// Announces an operation that wants the sequencer at this place, and dies.
    async fn announce(&self, log: LogId, number: u128, place: usize) {
        let stored = self.catalog().chain(log).await.unwrap();
        let announced = announced(&stored.chain, number, Some(self.successor(place)));
        self.catalog().replace(&stored, announced).await.unwrap();
    }
}

fn op(number: u128) -> OpId {
    OpId::try_from(number).unwrap()
}

fn announced(chain: &Chain, number: u128, successor: Option<Successor>) -> Chain {
    let wanted = Reconfiguration {
        op: op(number),
        segment: chain.last().unwrap().index(),
        actor: Actor::Operator,
        reason: CloseReason::Requested,
        successor,
        attempt: 1,
        opened_at_millis: 0,
    };
    let Announce::Write(announced) = announce(chain, &wanted).unwrap() else { panic!("something was pending") };
    announced
}

/// Who closed the first segment, why, and where.
fn closed(chain: &Chain) -> (OpId, Actor, CloseReason, u64) {
    let SegmentState::Sealed { tail, op, actor, reason, .. } = chain.segments[0].state.clone() else {
        panic!("still open: {chain:?}")
    };
    (op, actor, reason, tail.get())
}

/// What a call is about, for counting.
fn count(calls: &Mutex<Vec<Call>>, kind: CallKind) -> usize {
    calls.lock().iter().filter(|call| call.kind == kind).count()
}

#[tokio::test(start_paused = true)]
async fn what_a_dead_actor_announced_is_finished_under_its_operation() {
    let world = World::new().await;
    let log = world.idle_log("orders", 0).await;
    let controller = world.controller(None).await;
    let begun = Instant::now();
    world.announce(log, 66, 1).await;
    let chain = world.until(log, |chain| chain.outcome(op(66)).is_some()).await;
    let took = begun.elapsed();
    assert!(took >= Duration::from_secs(5) && took < Duration::from_secs(6), "{took:?}");
    assert_eq!(closed(&chain), (op(66), Actor::Operator, CloseReason::Requested, 4));
    assert_eq!((chain.segments.len(), chain.version), (2, 3), "announced, decided");
    assert_eq!(chain.segments[1].params.sequencer, world.nodes[1].id(), "as it was announced");
    controller.shutdown().await;
    world.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_segment_that_was_sealed_before_its_actor_died_gets_its_successor() {
    let world = World::new().await;
    let log = world.idle_log("orders", 0).await;
    world.announce(log, 66, 1).await;
    let params = world.chain(log).await.segments[0].params.clone();
    for (node, member) in world.nodes.iter().zip(params.nodeset.members()) {
        let seal = SealRequest { loglet: params.id, disk: member.disk, op: op(66) };
        node.services().log_server.seal(seal).await.unwrap();
    }
    let controller = world.controller(Some(world.nodes[2].id().node)).await;
    let chain = world.until(log, |chain| chain.outcome(op(66)).is_some()).await;
    assert_eq!(closed(&chain), (op(66), Actor::Operator, CloseReason::Requested, 4));
    controller.shutdown().await;
    // The log takes appends again, at once and in that segment.
    let client = world.client().await;
    let lsn = client.log_by_id(log).await.unwrap().appender().append("four").await.unwrap();
    assert_eq!((lsn.get(), world.chain(log).await.segments.len()), (4, 2));
    client.shutdown().await;
    world.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_successor_whose_node_is_gone_is_replaced_under_the_operation_of_the_dead_actor() {
    let mut world = World::new().await;
    let log = world.idle_log("orders", 0).await;
    world.announce(log, 66, 1).await;
    world.restart(1).await;
    let controller = world.controller(None).await;
    let chain = world.until(log, |chain| chain.outcome(op(66)).is_some()).await;
    assert_eq!((chain.segments.len(), chain.version), (2, 4), "announced, replaced, decided");
    let sequencer = chain.segments[1].params.sequencer;
    assert!(world.nodes.iter().any(|node| node.id() == sequencer), "{sequencer} lives");
    controller.shutdown().await;
    world.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn the_sequencer_of_an_idle_log_is_replaced_when_its_node_begins_another_life() {
    let mut world = World::new().await;
    let log = world.idle_log("orders", 0).await;
    let other = world.idle_log("other", 1).await;
    let controller = world.controller(None).await;
    let gone = world.nodes[0].id();
    let begun = Instant::now();
    world.restart(0).await;
    let chain = world.until(log, |chain| chain.segments.len() == 2).await;
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    let (_, actor, reason, tail) = closed(&chain);
    assert_eq!((actor, reason, tail), (Actor::Controller, CloseReason::SequencerGone, 4));
    let sequencer = chain.segments[1].params.sequencer;
    assert!(sequencer != gone && world.nodes.iter().any(|node| node.id() == sequencer), "{sequencer} lives");
    sleep(HOUR).await;
    assert_eq!(world.chain(log).await, chain, "and that was all");
    assert_eq!(world.chain(other).await.version, 1);
    controller.shutdown().await;
    world.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn many_idle_logs_of_a_node_are_all_moved() {
    let mut world = World::new().await;
    let mut logs = Vec::new();
    for number in 0..40 {
        logs.push(world.idle_log(&format!("log-{number}"), number % 2).await);
    }
    let controllers = [world.controller(None).await, world.controller(Some(world.nodes[2].id().node)).await];
    world.restart(0).await;
    world.restart(1).await;
    for log in logs {
        let chain = world.until(log, |chain| chain.segments.len() > 1).await;
        assert_eq!(closed(&chain).3, 4);
    }
    for controller in controllers {
        controller.shutdown().await;
    }
    world.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_cluster_in_order_is_listed_once_and_then_only_watched() {
    let world = World::new().await;
    let mut logs = Vec::new();
    for number in 0..10 {
        logs.push(world.idle_log(&format!("log-{number}"), number % 3).await);
    }
    let calls = Arc::new(Mutex::new(Vec::new()));
    let noted = calls.clone();
    let script = Arc::new(move |call: &Call| {
        noted.lock().push(call.clone());
        Fault::None
    });
    let bifrost = world.client_over(Arc::new(LossyMetadata::new(world.metadata.clone(), script))).await;
    // The handle itself knows the nodes.
    sleep(Duration::from_secs(60)).await;
    let before = calls.lock().len();
    bifrost.start_controller(None, ControllerOptions::default());
    sleep(HOUR).await;
    let asked: Vec<(CallKind, String)> =
        calls.lock().iter().skip(before).map(|call| (call.kind, call.keys.concat())).collect();
    let all = [
        (CallKind::List, "logs/".to_owned()),
        (CallKind::List, "nodes/".to_owned()),
        (CallKind::Watch, "nodes/".to_owned()),
        (CallKind::Watch, "logs/".to_owned()),
    ];
    assert_eq!(asked, all);
    // Nor is anything asked because somebody reconfigures a log in good order.
    let client = world.client().await;
    let log = client.log_by_id(logs[0]).await.unwrap();
    log.reconfigure(crate::ReconfigureOptions::default()).await.unwrap();
    sleep(HOUR).await;
    assert_eq!(calls.lock().len(), before + all.len());
    client.shutdown().await;
    bifrost.shutdown().await;
    world.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn controllers_that_begin_at_once_come_to_one_outcome() {
    let mut world = World::new().await;
    let pending = world.idle_log("pending", 1).await;
    let gone = world.idle_log("gone", 0).await;
    world.announce(pending, 66, 2).await;
    world.restart(0).await;
    // Without a place among the nodes nobody lets anybody go first.
    let mut controllers = Vec::new();
    for _ in 0..3 {
        controllers.push(world.controller(None).await);
    }
    let chain = world.until(pending, |chain| chain.pending.is_none()).await;
    assert_eq!((closed(&chain).0, chain.segments.len(), chain.version), (op(66), 2, 3));
    sleep(HOUR).await;
    assert_eq!(world.chain(pending).await, chain);
    let chain = world.chain(gone).await;
    assert_eq!((closed(&chain).2, chain.segments.len()), (CloseReason::SequencerGone, 2));
    assert_eq!(chain.version, 3, "announced once, decided once");
    for controller in controllers {
        controller.shutdown().await;
    }
    world.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_log_without_an_f_majority_is_asked_for_seldom_and_helped_when_its_servers_are_back() {
    let mut world = World::new().await;
    let log = world.idle_log("orders", 0).await;
    world.announce(log, 66, 0).await;
    world.nodes[1].shutdown().await;
    world.nodes[2].shutdown().await;
    let calls = Arc::new(Mutex::new(Vec::new()));
    let noted = calls.clone();
    let script = Arc::new(move |call: &Call| {
        noted.lock().push(call.clone());
        Fault::None
    });
    let bifrost = world.client_over(Arc::new(LossyMetadata::new(world.metadata.clone(), script))).await;
    bifrost.start_controller(None, ControllerOptions::default());
    sleep(HOUR).await;
    // Half a minute at it, half a minute of pause: and of each attempt a few reads of one chain.
    let (reads, writes) = (count(&calls, CallKind::Get), count(&calls, CallKind::Txn));
    assert!((60..400).contains(&reads), "{reads} reads in an hour");
    assert_eq!((writes, count(&calls, CallKind::List)), (0, 3), "the nodes twice, the chains once");
    let begun = Instant::now();
    world.nodes[1] = world.begin_life(1).await;
    let chain = world.until(log, |chain| chain.outcome(op(66)).is_some()).await;
    assert!(begun.elapsed() < Duration::from_secs(7), "{:?}", begun.elapsed());
    assert_eq!(closed(&chain).3, 4);
    bifrost.shutdown().await;
    world.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_breaks_is_resumed_and_one_that_missed_something_begins_anew() {
    let world = World::new().await;
    let log = world.idle_log("orders", 0).await;
    let calls = Arc::new(Mutex::new(Vec::new()));
    let noted = calls.clone();
    let script = Arc::new(move |call: &Call| {
        let watches_chains = |call: &Call| call.kind == CallKind::Watch && call.keys == ["logs/"];
        let before = noted.lock().iter().filter(|call| watches_chains(call)).count();
        noted.lock().push(call.clone());
        match (watches_chains(call), before) {
            (true, 0 | 1) => Fault::FailBefore(MetadataError::Unavailable),
            (true, 2) => Fault::FailBefore(MetadataError::Compacted { oldest: 1 }),
            _ => Fault::None,
        }
    });
    let bifrost = world.client_over(Arc::new(LossyMetadata::new(world.metadata.clone(), script))).await;
    bifrost.start_controller(None, ControllerOptions::default());
    sleep(Duration::from_secs(60)).await;
    let listed = calls.lock().iter().filter(|call| call.kind == CallKind::List && call.keys == ["logs/"]).count();
    assert_eq!(listed, 2, "at first, and when history was gone");
    world.announce(log, 66, 1).await;
    world.until(log, |chain| chain.outcome(op(66)).is_some()).await;
    bifrost.shutdown().await;
    world.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_lost_reply_costs_an_attempt_a_look_and_nothing_else() {
    let world = World::new().await;
    let log = world.idle_log("orders", 0).await;
    world.announce(log, 66, 1).await;
    let script = Arc::new(|call: &Call| match call.kind {
        CallKind::Txn if call.nth == 0 => Fault::LoseReply,
        _ => Fault::None,
    });
    let bifrost = world.client_over(Arc::new(LossyMetadata::new(world.metadata.clone(), script))).await;
    bifrost.start_controller(None, ControllerOptions::default());
    world.until(log, |chain| chain.outcome(op(66)).is_some()).await;
    sleep(HOUR).await;
    let chain = world.chain(log).await;
    assert_eq!((chain.segments.len(), chain.version), (2, 3));
    bifrost.shutdown().await;
    world.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn an_embedded_back_end_finishes_what_is_pending_and_leaves_what_is_well() {
    let bifrost = Bifrost::in_memory().await.unwrap();
    let log = bifrost.create_log("orders", crate::LogOptions::default()).await.unwrap();
    let well = bifrost.create_log("well", crate::LogOptions::default()).await.unwrap();
    log.appender().append("one").await.unwrap();
    let stored = bifrost.catalog().chain(log.id()).await.unwrap();
    let last = stored.chain.last().unwrap().params.clone();
    let same = Successor { nodeset: last.nodeset, replication: last.replication, sequencer: last.sequencer };
    bifrost.catalog().replace(&stored, announced(&stored.chain, 66, Some(same))).await.unwrap();
    sleep(Duration::from_secs(10)).await;
    let chain = log.describe().await.unwrap();
    assert_eq!((closed(&chain).0, chain.segments.len()), (op(66), 2));
    assert_eq!(well.describe().await.unwrap().version, 1);
    bifrost.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_controller_ends_with_the_last_handle() {
    let world = World::new().await;
    let bifrost = world.controller(None).await;
    let log = world.idle_log("orders", 0).await;
    drop(bifrost);
    world.announce(log, 66, 1).await;
    sleep(HOUR).await;
    assert!(world.chain(log).await.pending.is_some(), "nobody is there");
    world.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_reader_of_an_idle_log_sees_what_was_acknowledged_before_its_only_node_restarted() {
    let mut world = World::new().await;
    let first = world.successor(0);
    let alone = Successor {
        nodeset: Nodeset::new(vec![first.nodeset.members()[0].clone()]).unwrap(),
        replication: ReplicationProperty::nodes(NonZeroU8::MIN),
        sequencer: first.sequencer,
    };
    let log = world.catalog().create_log(Some("alone"), fresh_op(), &alone).await.unwrap().chain.log;
    let client = world.client().await;
    client.log_by_id(log).await.unwrap().appender().append("kept").await.unwrap();
    client.shutdown().await;
    world.restart(0).await;
    let client = world.client().await;
    let mut reader = client.log_by_id(log).await.unwrap().read(crate::ReadOptions::default());
    let mut seen = async || loop {
        if let Some(Ok(crate::ReadEvent::Record(record))) = reader.next().await {
            return record.payload;
        }
    };
    // Nobody is left who could say that it is committed (R1), and a reader closes nothing.
    assert!(timeout(HOUR, seen()).await.is_err());
    let controller = world.controller(None).await;
    assert_eq!(timeout(PATIENCE, seen()).await.unwrap(), "kept");
    controller.shutdown().await;
    client.shutdown().await;
    world.shutdown().await;
}

/// A controller beside a detector that hears these nodes, until the returned token is cancelled.
async fn hearing(world: &World, heard: watch::Receiver<Vec<NodeGeneration>>) -> (Bifrost, CancellationToken) {
    let bifrost = world.client().await;
    let detector = Detector::new(LivenessOptions::default());
    bifrost.use_detector(detector.clone());
    bifrost.start_controller(Some(world.nodes[2].id().node), ControllerOptions::default());
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    tokio::spawn(stopped.run_until_cancelled_owned(async move {
        let mut beats = interval(Duration::from_millis(50));
        detector.lead(Some(Lead::of(1)));
        loop {
            beats.tick().await;
            detector.tick();
            for node in heard.borrow().iter() {
                detector.beat(Beat { node: *node, last: false }).unwrap();
            }
        }
    }));
    (bifrost, stop)
}

#[tokio::test(start_paused = true)]
async fn the_logs_of_a_node_that_falls_silent_are_moved_as_soon_as_that_is_known_and_not_to_it() {
    let world = World::new().await;
    let mut logs = Vec::new();
    for number in 0..100 {
        logs.push(world.idle_log(&format!("log-{number}"), 0).await);
    }
    let other = world.idle_log("other", 1).await;
    let lives: Vec<NodeGeneration> = world.nodes.iter().map(|node| node.id()).collect();
    let (hear, heard) = watch::channel(lives.clone());
    let (controller, stop) = hearing(&world, heard).await;
    sleep(Duration::from_secs(60)).await;
    for log in &logs {
        assert_eq!(world.chain(*log).await.version, 1, "everybody is heard");
    }
    // It answers everybody but the metadata leader: a probe of it would succeed.
    hear.send_replace(lives[1..].to_vec());
    let begun = Instant::now();
    for log in &logs {
        let chain = world.until(*log, |chain| chain.segments.len() == 2).await;
        assert_eq!(closed(&chain).2, CloseReason::SequencerGone);
        assert_ne!(chain.segments[1].params.sequencer, lives[0]);
    }
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(550) && took < Duration::from_millis(800), "{took:?}");
    sleep(HOUR).await;
    assert_eq!(world.chain(logs[0]).await.version, 3, "announced, decided, and left alone");
    assert_eq!(world.chain(other).await.version, 1);
    stop.cancel();
    controller.shutdown().await;
    world.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_controller_that_cannot_announce_seals_nothing_and_appends_go_on() {
    let world = World::new().await;
    let log = world.idle_log("orders", 0).await;
    let client = world.client().await;
    let appender = client.log_by_id(log).await.unwrap().appender();
    appender.append("four").await.unwrap();
    // It takes itself for the leader, does not hear the sequencer, and its metadata refuses every write.
    let writes = Arc::new(AtomicU32::new(0));
    let counted = writes.clone();
    let script = Arc::new(move |call: &Call| match call.kind {
        CallKind::Txn => {
            counted.fetch_add(1, Ordering::Relaxed);
            Fault::FailBefore(MetadataError::Unavailable)
        }
        _ => Fault::None,
    });
    let cut_off = world.client_over(Arc::new(LossyMetadata::new(world.metadata.clone(), script))).await;
    let detector = Detector::new(LivenessOptions::default());
    cut_off.use_detector(detector.clone());
    cut_off.start_controller(None, ControllerOptions::default());
    detector.lead(Some(Lead::of(1)));
    let mut ticks = interval(Duration::from_millis(50));
    for lsn in 5..2000 {
        ticks.tick().await;
        detector.tick();
        for node in &world.nodes[1..] {
            detector.beat(Beat { node: node.id(), last: false }).unwrap();
        }
        assert_eq!(appender.append("more").await.unwrap().get(), lsn);
    }
    assert!(writes.load(Ordering::Relaxed) > 10, "it tried to announce");
    let chain = world.chain(log).await;
    assert_eq!((chain.version, chain.pending), (1, None));
    for (node, member) in world.nodes.iter().zip(chain.segments[0].params.nodeset.members()) {
        let state = StateRequest { loglet: chain.segments[0].params.id, disk: member.disk };
        assert_eq!(node.services().log_server.state(state).await.unwrap().sealed, None);
    }
    cut_off.shutdown().await;
    client.shutdown().await;
    world.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_stops_hands_its_logs_over_and_appends_go_on_elsewhere() {
    let world = World::new().await;
    let mut logs = Vec::new();
    for number in 0..20 {
        logs.push(world.idle_log(&format!("log-{number}"), 0).await);
    }
    let other = world.idle_log("other", 1).await;
    let client = world.client().await;
    let appender = client.log_by_id(logs[0]).await.unwrap().appender();
    appender.append("four").await.unwrap();
    let me = world.nodes[0].id();
    let node = world.client().await;
    let handed_over = node.hand_over(me, &HandOverOptions::default()).await;
    assert_eq!(handed_over, HandedOver { closed: 20, left: 0 });
    assert_eq!(appender.append("five").await.unwrap().get(), 5);
    for log in &logs {
        let chain = world.chain(*log).await;
        let (_, actor, reason, _) = closed(&chain);
        assert_eq!((actor, reason), (Actor::Node(me), CloseReason::HandOver));
        assert_ne!(chain.segments[1].params.sequencer, me);
    }
    assert_eq!(world.chain(other).await.version, 1, "it is somebody else's");
    assert_eq!(node.hand_over(me, &HandOverOptions::default()).await, HandedOver::default(), "nothing is left");
    node.shutdown().await;
    client.shutdown().await;
    world.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_alone_stops_without_handing_over() {
    let world = World::new().await;
    let log = world.idle_log("orders", 0).await;
    let me = world.nodes[0].id();
    let begun = Instant::now();
    let node = world.client().await;
    for other in &world.nodes[1..] {
        other.status().leave();
        other.shutdown().await;
    }
    assert_eq!(node.hand_over(me, &HandOverOptions::default()).await, HandedOver::default());
    assert_eq!(world.chain(log).await.version, 1);
    node.shutdown().await;
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    world.nodes[0].shutdown().await;
}
