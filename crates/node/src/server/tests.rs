//! Nodes as they are, on a network of pipes, without a disk.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use bifrost::catch_up::CatchUpOptions;
use bifrost::{Log, LogOptions, Lsn, ReadEvent, ReadOptions, TailKind};
use bifrost_metadata::MemoryMetadata;
use bifrost_types::{Location, Roles};
use bifrost_wire::grpc::pipes::Pipes;
use futures_util::StreamExt as _;
use parking_lot::Mutex;
use tokio::runtime::Builder;

use super::*;

const NODES: u8 = 3;

fn address(node: u8) -> SocketAddr {
    ([10, 0, 0, node], 2437).into()
}

fn name(node: u8) -> String {
    format!("n{node}")
}

/// Counts the connections that nodes ask for to others.
#[derive(Debug, Default)]
struct Asked {
    by: Mutex<Vec<String>>,
    times: Arc<AtomicUsize>,
    /// Who asked for a connection to whom.
    pairs: Arc<Mutex<Vec<(String, String)>>>,
}

#[derive(Debug)]
struct Counted {
    inner: Arc<dyn Connect>,
    from: String,
    times: Arc<AtomicUsize>,
    pairs: Arc<Mutex<Vec<(String, String)>>>,
}

impl Interpose for Asked {
    fn log_server(&self, _: NodeId, inner: Arc<dyn LogServer>) -> Arc<dyn LogServer> {
        inner
    }

    fn connect(&self, node: &Identity, inner: Arc<dyn Connect>) -> Arc<dyn Connect> {
        self.by.lock().push(node.name.clone());
        let (from, times, pairs) = (node.name.clone(), self.times.clone(), self.pairs.clone());
        Arc::new(Counted { inner, from, times, pairs })
    }
}

impl Connect for Counted {
    fn connect(&self, node: &NodeRecord) -> Option<NodeServices> {
        self.times.fetch_add(1, Ordering::Relaxed);
        self.pairs.lock().push((self.from.clone(), node.name.clone()));
        self.inner.connect(node)
    }
}

struct Place {
    pipes: Pipes,
    metadata: Arc<MemoryMetadata>,
    asked: Arc<Asked>,
}

impl Place {
    fn new() -> Self {
        Self { pipes: Pipes::default(), metadata: Arc::default(), asked: Arc::default() }
    }

    fn client(&self) -> ClientOptions {
        ClientOptions { dial: Some(Arc::new(self.pipes.clone())), ..ClientOptions::default() }
    }

    async fn start(&self, node: u8) -> Node {
        let options = NodeOptions {
            identity: Identity {
                name: name(node),
                address: String::new(),
                location: Location::default(),
                roles: Roles::DATA,
            },
            storage: Storage::Memory,
            metadata: self.metadata.clone(),
            segments: SegmentLimits::default(),
            catch_up: CatchUpOptions::default(),
            server: ServerLimits::default(),
            client: self.client(),
            gateway: GatewayOptions::default(),
            logs: BifrostOptions::default(),
            controller: ControllerOptions::default(),
            detector: None,
            liveness: None,
            interpose: Some(self.asked.clone()),
        };
        Node::start(options, self.pipes.listen(address(node))).await.unwrap()
    }

    async fn connect(&self) -> Bifrost {
        let addresses = (1..=NODES).map(|node| address(node).to_string());
        Bifrost::connect_with(addresses, BifrostOptions::default(), self.client()).await.unwrap()
    }
}

async fn read_all(log: &Log) -> Vec<String> {
    let until = Some(log.find_tail(TailKind::Linearizable).await.unwrap().lsn);
    let mut reader = log.read(ReadOptions { until, ..ReadOptions::default() });
    let mut payloads = Vec::new();
    while let Some(event) = reader.next().await {
        if let ReadEvent::Record(record) = event.unwrap() {
            payloads.push(String::from_utf8(record.payload.to_vec()).unwrap());
        }
    }
    payloads
}

async fn a_log_outlives_a_node() {
    let place = Place::new();
    let mut nodes = Vec::new();
    for node in 1..=NODES {
        nodes.push(place.start(node).await);
    }
    assert_eq!(*place.asked.by.lock(), (1..=NODES).map(name).collect::<Vec<_>>());
    let bifrost = place.connect().await;
    let log = bifrost.open_log("orders", LogOptions::default()).await.unwrap();
    let appender = log.appender();
    let mut expected = Vec::new();
    for number in 0..10 {
        let payload = format!("before {number}");
        let lsn = appender.append(payload.clone()).await.unwrap();
        assert_eq!(lsn, Lsn::FIRST.advance(number).unwrap());
        expected.push(payload);
    }
    assert!(place.asked.times.load(Ordering::Relaxed) > 0, "a sequencer reaches other nodes");

    // The first address is gone too: metadata goes on through the next.
    nodes.remove(0).shutdown().await;
    for number in 0..10 {
        let payload = format!("after {number}");
        appender.append(payload.clone()).await.unwrap();
        expected.push(payload);
    }
    assert_eq!(read_all(&log).await, expected);
    bifrost.shutdown().await;
    for node in nodes {
        node.shutdown().await;
    }
}

#[test]
fn a_cluster_in_memory_needs_no_socket_and_no_thread() {
    let threads = Arc::new(AtomicUsize::new(0));
    let started = threads.clone();
    // Without IO: whatever asks for a socket panics.
    let runtime = Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .on_thread_start(move || {
            started.fetch_add(1, Ordering::Relaxed);
        })
        .build()
        .unwrap();
    runtime.block_on(a_log_outlives_a_node());
    assert_eq!(threads.load(Ordering::Relaxed), 0, "something blocks");
}

#[tokio::test(start_paused = true)]
async fn an_append_through_the_handle_of_a_node_crosses_the_network_once() {
    let place = Place::new();
    let mut nodes = Vec::new();
    for node in 1..=NODES {
        nodes.push(place.start(node).await);
    }
    for (node, name) in nodes.iter().zip((1..=NODES).map(name)) {
        let handle = node.handle(BifrostOptions::default()).await.unwrap();
        let log = handle.create_log(&name, LogOptions::default()).await.unwrap();
        log.appender().append("here").await.unwrap();
        // The one who appends is the one who numbers, so what crosses the network is the store and its answer, ...
        assert_eq!(log.chain().last().unwrap().params.sequencer, node.id());
        assert!(node.local.status().now().load.sequenced_bytes > 0);
        handle.shutdown().await;
    }
    let pairs = place.asked.pairs.lock().clone();
    // ... and nobody goes through the network to itself.
    assert!(pairs.iter().any(|(from, to)| from == "n1" && to == "n2"), "{pairs:?}");
    assert!(pairs.iter().all(|(from, to)| from != to), "{pairs:?}");
    for node in nodes {
        node.shutdown().await;
    }
}
