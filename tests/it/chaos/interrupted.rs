//! An operator and the metadata leader die together between the announcement of a reconfiguration (T1) and its decision
//! (T2).

use std::time::{Duration, Instant};

use bifrost::{Log, Lsn, ReadEvent, ReadOptions, TailKind};
use bifrost_types::{CloseReason, OpId, SegmentState};
use bytes::Bytes;
use futures_util::StreamExt;

use super::load::make_log;
use super::stage::Stage;
use crate::support::cluster::{Cluster, PATIENCE};
use crate::support::net::Host;
use crate::support::tool::command;

/// On a log that nobody touches, so that nobody but a controller can come across what is left behind. The operator reaches
/// the leader's node only: it can announce, and seal that one copy, and gets no further.
pub fn leader_dies_between_announcement_and_decision(stage: &mut Stage) {
    let runtime = stage.load.runtime().handle().clone();
    let leader = runtime.block_on(stage.cluster.leader());
    let size = stage.cluster.size();
    let sequencer = stage.cluster.id((leader + 1) % size);
    let quiet = runtime.block_on(make_log(stage.load.client(), "quiet", sequencer));
    runtime.block_on(append(&quiet, &["before"]));
    let closed = quiet.chain().last().expect("a segment").index();
    let others: Vec<Host> = (0..size).filter(|node| *node != leader).map(Host::Node).collect();
    for other in &others {
        stage.cluster.net().cut(Host::Operator, *other);
    }
    let mut operator = stage.cluster.net().namespace(Host::Operator).enter(|| {
        let mut command = command(["reconfigure", "quiet"]);
        command.env("BIFROST_ADDRESS", Cluster::address(leader)).spawn().expect("the binary starts")
    });
    let op = announced(&quiet);
    let dead = stage.load.mark();
    stage.cluster.kill(leader);
    operator.kill().expect("it waits for the others");
    operator.wait().expect("it ends");
    println!("chaos: {op} was announced and the leader is dead");
    let begun = Instant::now();
    while decided(&quiet, op).is_none() {
        assert!(begun.elapsed() < PATIENCE, "nobody finishes {op}: {:?}", quiet.chain());
        runtime.block_on(async { quiet.describe().await.map(drop).ok() });
        std::thread::sleep(Duration::from_millis(5));
    }
    println!("chaos: somebody else finished {op} {:.0?} after the leader and the operator died", begun.elapsed());
    let chain = quiet.chain();
    let next = chain.last().map(|last| stage.cluster.node(last.params.sequencer.node));
    assert_ne!(next, Some(leader), "the operator knew only the dead one as a successor");
    let by = chain.segment(closed).map(|segment| segment.state.clone());
    assert!(
        matches!(by, Some(SegmentState::Sealed { op: by, reason: CloseReason::Requested, .. }) if by == op),
        "the segment was closed by the operation that was announced: {by:?}"
    );
    stage.load.await_progress(&dead, "while the metadata leader is dead");
    stage.cluster.net().rejoin(Host::Operator);
    stage.cluster.start(leader);
    runtime.block_on(append(&quiet, &["after"]));
    assert_eq!(runtime.block_on(read(&quiet)), ["before", "after"]);
}

/// Waits for T1.
fn announced(log: &Log) -> OpId {
    let begun = Instant::now();
    loop {
        // The handle follows the chain.
        if let Some(pending) = log.chain().pending {
            return pending.op;
        }
        assert!(begun.elapsed() < PATIENCE, "the operator announces nothing");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn decided(log: &Log, op: OpId) -> Option<Lsn> {
    let chain = log.chain();
    chain.outcome(op)?;
    (chain.pending.is_none()).then(|| chain.last().map(|last| last.base_lsn))?
}

async fn append(log: &Log, payloads: &[&'static str]) {
    let appender = log.appender();
    for payload in payloads {
        appender.append(Bytes::from_static(payload.as_bytes())).await.expect("a log that takes appends");
    }
}

async fn read(log: &Log) -> Vec<String> {
    let tail = log.find_tail(TailKind::Linearizable).await.expect("a tail").lsn;
    let mut reader = log.read(ReadOptions { until: Some(tail), ..ReadOptions::default() });
    let mut payloads = Vec::new();
    while let Some(event) = reader.next().await {
        match event.expect("a log that can be read") {
            ReadEvent::Record(record) => payloads.push(String::from_utf8_lossy(&record.payload).into_owned()),
            ReadEvent::Gap { from, end, kind } => panic!("a gap {kind:?} in [{from}, {end})"),
            ReadEvent::CaughtUp { .. } => {}
        }
    }
    payloads
}
