//! Processes of `bifrost server` that stop, fall silent and die while others append: what a client sees of it.

use std::num::NonZeroU8;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bifrost::{Bifrost, Log, Lsn, OpId, ReadEvent, ReadOptions, fresh_op};
use bifrost_types::{
    Actor, Chain, CloseReason, Member, NodeGeneration, NodeRecord, Nodeset, ReplicationProperty, SegmentState,
    Successor,
};
use futures_util::{StreamExt, stream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, block_in_place};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::support::server::Cluster;

/// Only a cluster that does not go on gets here.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at something that will be so.
const LOOK: Duration = Duration::from_millis(20);
/// Far above what any of this takes, on a machine that does other things as well: the figures are printed.
const NOT_LONG: Duration = Duration::from_secs(8);

async fn connect(cluster: &Cluster, nodes: &[usize]) -> Bifrost {
    Bifrost::connect(nodes.iter().map(|index| cluster.address(*index))).await.expect("they answer")
}

/// All nodes, two copies, and this sequencer.
fn successor(bifrost: &Bifrost, sequencer: NodeGeneration) -> Successor {
    let member = |record: NodeRecord| Member {
        node: record.id.node,
        disk: record.disk.expect("a node that runs has a disk"),
        location: record.location,
    };
    Successor {
        nodeset: Nodeset::new(bifrost.nodes().into_iter().map(member).collect()).expect("some nodes"),
        replication: ReplicationProperty::nodes(NonZeroU8::new(2).expect("not 0")),
        sequencer,
    }
}

/// The present life of a node by its place.
fn life(cluster: &Cluster, bifrost: &Bifrost, index: usize) -> NodeGeneration {
    let name = cluster.server(index).ready["node"].as_str().expect("it has a number").to_owned();
    let record = bifrost.nodes().into_iter().find(|node| node.id.node.to_string() == name);
    record.expect("it is known").id
}

/// A log whose sequencer is the node at this place.
async fn log_on(cluster: &Cluster, bifrost: &Bifrost, name: &str, index: usize) -> Log {
    let first = successor(bifrost, life(cluster, bifrost, index));
    let made = bifrost.catalog().create_log(Some(name), fresh_op(), &first).await.expect("it is made");
    bifrost.log_by_id(made.chain.log).await.expect("it is there")
}

/// One client that appends one record after the other.
struct Load {
    stop: CancellationToken,
    /// How many appends are acknowledged.
    acknowledged: watch::Receiver<usize>,
    running: JoinHandle<Seen>,
}

/// What it saw.
struct Seen {
    lsns: Vec<Lsn>,
    /// The longest time between two acknowledgements.
    gap: Duration,
}

impl Load {
    fn start(log: &Log) -> Self {
        let (stop, appender) = (CancellationToken::new(), log.appender());
        let (stopped, (count, acknowledged)) = (stop.clone(), watch::channel(0));
        let running = tokio::spawn(async move {
            let (mut lsns, mut gap, mut last) = (Vec::new(), Duration::ZERO, Instant::now());
            while !stopped.is_cancelled() {
                let number = lsns.len().to_string();
                lsns.push(appender.append(number).await.expect("neither refused nor unknown"));
                gap = gap.max(last.elapsed());
                last = Instant::now();
                count.send_replace(lsns.len());
            }
            Seen { lsns, gap }
        });
        Self { stop, acknowledged, running }
    }

    /// Waits until some more appends are acknowledged.
    async fn goes_on(&mut self) {
        let enough = *self.acknowledged.borrow() + 20;
        let waiting = self.acknowledged.wait_for(|count| *count >= enough);
        timeout(PATIENCE, waiting).await.expect("appends go on").expect("no append failed");
    }

    async fn end(self) -> Seen {
        self.stop.cancel();
        timeout(PATIENCE, self.running).await.expect("appends go on").expect("no append failed")
    }
}

/// Each record once, in order, and every acknowledged one at its LSN.
async fn check(log: &Log, seen: &Seen) {
    let last = seen.lsns.last().expect("some were appended");
    let until = Some(last.advance(1).expect("few records"));
    let mut reader = log.read(ReadOptions { until, ..ReadOptions::default() });
    let mut read = Vec::new();
    while let Some(event) = timeout(PATIENCE, reader.next()).await.expect("it can be read") {
        if let ReadEvent::Record(record) = event.expect("nothing is lost") {
            let number = String::from_utf8(record.payload.to_vec()).expect("a number");
            read.push((number.parse::<usize>().expect("a number"), record.lsn));
        }
    }
    assert_eq!(read.len(), seen.lsns.len());
    for ((number, at), (expected, lsn)) in read.into_iter().zip(seen.lsns.iter().enumerate()) {
        assert_eq!((number, at), (expected, *lsn));
    }
}

/// Waits until the chain is like this.
async fn until(log: &Log, what: &str, is_so: impl Fn(&Chain) -> bool) -> Chain {
    let waiting = async {
        loop {
            match log.describe().await {
                Ok(chain) if is_so(&chain) => return chain,
                _ => sleep(LOOK).await,
            }
        }
    };
    timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("not {what} for {PATIENCE:?}"))
}

fn first_end(chain: &Chain) -> (Actor, CloseReason) {
    let SegmentState::Sealed { actor, reason, .. } = chain.segments[0].state.clone() else { panic!("still open") };
    (actor, reason)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_stopped_under_load_hands_its_logs_over_and_nobody_sees_more_than_a_pause() {
    let mut cluster = block_in_place(|| Cluster::of(3));
    let bifrost = connect(&cluster, &[0, 1, 2]).await;
    // The first node leads the metadata, the second one does not.
    for index in [1, 0] {
        let me = life(&cluster, &bifrost, index);
        let log = log_on(&cluster, &bifrost, &format!("log-{index}"), index).await;
        let idle = log_on(&cluster, &bifrost, &format!("idle-{index}"), index).await;
        let mut load = Load::start(&log);
        load.goes_on().await;
        let begun = Instant::now();
        assert_eq!(block_in_place(|| cluster.stop(index)), 0);
        let took = begun.elapsed();
        let seen = load.end().await;
        println!("planned stop of {me}: {took:?} to stop, longest gap between acknowledgements {:?}", seen.gap);
        assert!(seen.gap < NOT_LONG && took < NOT_LONG + NOT_LONG, "{:?} {took:?}", seen.gap);
        for log in [&log, &idle] {
            let chain = log.describe().await.expect("metadata goes on");
            assert_eq!(first_end(&chain), (Actor::Node(me), CloseReason::HandOver));
            assert_ne!(chain.segments[1].params.sequencer, me);
        }
        check(&log, &seen).await;
        block_in_place(|| cluster.start(index));
    }
    bifrost.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn appends_go_on_past_a_sequencer_that_is_paused_and_it_does_no_harm_when_it_wakes_up() {
    let cluster = block_in_place(|| Cluster::of(3));
    let bifrost = connect(&cluster, &[0, 1, 2]).await;
    let log = log_on(&cluster, &bifrost, "orders", 1).await;
    let idle = log_on(&cluster, &bifrost, "idle", 1).await;
    let mut load = Load::start(&log);
    load.goes_on().await;
    cluster.signal(1, "STOP");
    let begun = Instant::now();
    until(&log, "moved off the paused node", |chain| chain.segments.len() > 1).await;
    let idle_chain = until(&idle, "moved off the paused node", |chain| chain.segments.len() > 1).await;
    println!("both logs were moved {:?} after the pause began", begun.elapsed());
    assert_eq!(first_end(&idle_chain), (Actor::Controller, CloseReason::SequencerGone));
    load.goes_on().await;
    cluster.signal(1, "CONT");
    load.goes_on().await;
    let seen = load.end().await;
    println!("paused sequencer: longest gap between acknowledgements {:?}", seen.gap);
    assert!(seen.gap < NOT_LONG, "{:?}", seen.gap);
    check(&log, &seen).await;
    bifrost.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_idle_logs_of_a_killed_node_are_all_moved() {
    let mut cluster = block_in_place(|| Cluster::of(3));
    let bifrost = connect(&cluster, &[0, 1]).await;
    // A figure with a thousand: BIFROST_TEST_LOGS=1000.
    let count = std::env::var("BIFROST_TEST_LOGS").ok().and_then(|count| count.parse().ok()).unwrap_or(150_usize);
    let gone = life(&cluster, &bifrost, 2);
    let first = Arc::new(successor(&bifrost, gone));
    let create = |number: usize| {
        let (bifrost, first) = (bifrost.clone(), first.clone());
        async move {
            let made = bifrost.catalog().create_log(Some(&format!("log-{number}")), fresh_op(), &first).await;
            bifrost.log_by_id(made.expect("it is made").chain.log).await.expect("it is there")
        }
    };
    let logs: Vec<Log> = stream::iter((0..count).map(create)).buffer_unordered(32).collect().await;
    let killed = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    cluster.kill(2);
    let (mut moved, mut micros) = (Vec::new(), (0, 0));
    let mut sequencers = std::collections::BTreeMap::<String, usize>::new();
    for log in &logs {
        let chain = until(log, "moved off the killed node", |chain| chain.segments.len() > 1).await;
        let SegmentState::Sealed { op, actor, timings, .. } = chain.segments[0].state.clone() else {
            panic!("it is followed by another segment")
        };
        assert_eq!(actor, Actor::Controller);
        assert_ne!(chain.segments[1].params.sequencer, gone);
        *sequencers.entry(chain.segments[1].params.sequencer.to_string()).or_default() += 1;
        micros = (micros.0 + timings.seal_micros, micros.1 + timings.total_micros);
        moved.push(begun_at(op) + Duration::from_micros(timings.total_micros));
    }
    moved.sort();
    let after = |place: usize| moved[place].saturating_sub(killed);
    let mean = |micros: u64| Duration::from_micros(micros / u64::try_from(count).expect("a count"));
    println!(
        "{count} idle logs of a killed node: first moved after {:?}, half after {:?}, all after {:?}; to {sequencers:?}; \
         a reconfiguration took {:?} on average, of which {:?} until it was sealed",
        after(0),
        after(count / 2),
        after(count - 1),
        mean(micros.1),
        mean(micros.0),
    );
    assert_eq!(logs[0].appender().append("goes on").await.expect("it takes appends"), Lsn::FIRST);
    bifrost.shutdown().await;
}

/// When an operation was begun: its id has the time in front.
fn begun_at(op: OpId) -> Duration {
    Duration::from_millis(u64::try_from(op.get() >> 80).expect("48 bits"))
}
