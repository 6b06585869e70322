use bifrost::catalog::Catalog;
use bifrost::connect::{Connect, LocalConnect, NodeServices};
use bifrost_checker::event::Event;
use bifrost_logserver::{LogServerHandle, ServerOptions, WriterRuntime};
use bifrost_metadata::MemoryMetadata;
use bifrost_types::{
    ClusterId, DiskId, Generation, Location, LogId, LogletId, LogletOffset, NodeGeneration, NodeId, NodeRecord, OpId,
    Record, Roles, SegmentIndex, Sequence, StorageState, WriterId,
};
use bifrost_wire::RpcError;
use bifrost_wire::log_server::{
    CallError, CopyState, LogServer, ReadRequest, ReadStream, RepairRequest, SealRequest, SettleRequest, StateRequest,
    StoreReply, StoreRequest, StoreStream, TrimRequest,
};
use bifrost_wire::metadata::{MetadataError, MetadataStore, Precondition, Txn, TxnOutcome};
use bifrost_wire::node::{NodeService, NodeStatus};
use bifrost_wire::sequencer::{
    AppendOpen, AppendStream, EndRequest, SequencerCallError, SequencerError, SequencerTails, Sequencers,
};
use futures_util::future::{BoxFuture, join_all};
use tokio::time::sleep;

use super::*;
use crate::disk::{Disk, DiskLatency};
use crate::history::What;
use crate::truth::Truth;

const LATE: Rates = Rates {
    refuse: 0,
    delay: 0,
    delay_max: Duration::ZERO,
    lose_reply: 0,
    duplicate: 0,
    late: 100,
    late_max: Duration::from_secs(10),
};

fn node() -> NodeGeneration {
    NodeGeneration::new(NodeId::try_from(1).expect("non-zero"), Generation::FIRST)
}

fn disk_id() -> DiskId {
    DiskId::try_from(0xd15c).expect("non-zero")
}

fn loglet() -> LogletId {
    LogletId::new(LogId::try_from(7).expect("non-zero"), SegmentIndex::new(0))
}

fn at(offset: u64) -> LogletOffset {
    LogletOffset::new(offset).expect("non-zero")
}

fn record() -> NodeRecord {
    NodeRecord {
        id: node(),
        name: "n1".to_owned(),
        address: String::new(),
        location: Location::default(),
        disk: Some(disk_id()),
        storage: StorageState::ReadWrite,
        declared_lost: false,
        roles: Roles::DATA,
    }
}

fn seal() -> SealRequest {
    SealRequest { loglet: loglet(), disk: disk_id(), op: OpId::try_from(9).expect("non-zero") }
}

/// A log server that counts what it is asked to do.
#[derive(Debug, Clone)]
struct Counting {
    inner: LogServerHandle,
    calls: Arc<Mutex<Vec<&'static str>>>,
}

impl Counting {
    fn count(&self, call: &'static str) -> &LogServerHandle {
        self.calls.lock().push(call);
        &self.inner
    }
}

impl LogServer for Counting {
    fn open_store(&self) -> BoxFuture<'_, Result<StoreStream, RpcError>> {
        self.count("open_store").open_store()
    }

    fn seal(&self, request: SealRequest) -> BoxFuture<'_, Result<CopyState, CallError>> {
        self.count("seal").seal(request)
    }

    fn state(&self, request: StateRequest) -> BoxFuture<'_, Result<CopyState, CallError>> {
        self.count("state").state(request)
    }

    fn repair(&self, request: RepairRequest) -> BoxFuture<'_, Result<CopyState, CallError>> {
        self.count("repair").repair(request)
    }

    fn settle(&self, request: SettleRequest) -> BoxFuture<'_, Result<CopyState, CallError>> {
        self.count("settle").settle(request)
    }

    fn trim(&self, request: TrimRequest) -> BoxFuture<'_, Result<CopyState, CallError>> {
        self.count("trim").trim(request)
    }

    fn read(&self, request: ReadRequest) -> BoxFuture<'_, Result<ReadStream, CallError>> {
        self.count("read").read(request)
    }
}

/// No sequencer at all.
#[derive(Debug)]
struct Nobody;

impl NodeService for Nobody {
    fn status(&self) -> BoxFuture<'_, Result<NodeStatus, RpcError>> {
        Box::pin(std::future::ready(Err(RpcError::Unreachable)))
    }
}

impl Sequencers for Nobody {
    fn open_append(&self, _: AppendOpen) -> BoxFuture<'_, Result<AppendStream, SequencerCallError>> {
        Box::pin(async { Err(SequencerError::NotSequencer.into()) })
    }

    fn tails(&self, _: LogletId, _: NodeGeneration) -> BoxFuture<'_, Result<SequencerTails, SequencerCallError>> {
        Box::pin(async { Err(SequencerError::NotSequencer.into()) })
    }

    fn end(&self, _: EndRequest) -> BoxFuture<'_, Result<SequencerTails, SequencerCallError>> {
        Box::pin(async { Err(SequencerError::NotSequencer.into()) })
    }
}

/// One node on one disk, and the client `c1` that calls it.
struct Place {
    disk: Disk,
    connect: LocalConnect,
    server: Counting,
    history: History,
    faults: Faults,
}

impl Place {
    async fn new(seed: u64) -> Self {
        let history = History::new(|| 0);
        let disk = Disk::new("n1", seed, 1 << 26, history.clone());
        disk.set_latency(DiskLatency::NONE);
        let connect = LocalConnect::default();
        let server = start(&disk, &connect).await;
        let faults = Faults::new(seed, history.clone());
        Self { disk, connect, server, history, faults }
    }

    fn client(&self, rates: Rates) -> Arc<dyn LogServer> {
        self.faults.set("c1", "n1", rates);
        let connect = FaultyConnect::new("c1", Arc::new(self.connect.clone()), self.faults.clone());
        connect.connect(&record()).expect("is known").log_server
    }

    /// Another life of the node, at the same address.
    async fn restart(&mut self) {
        self.server.inner.shutdown().await;
        self.disk.crash();
        self.server = start(&self.disk, &self.connect).await;
    }

    async fn is_sealed(&self) -> bool {
        let state = self.server.inner.state(StateRequest { loglet: loglet(), disk: disk_id() }).await;
        state.expect("is up").sealed.is_some()
    }

    fn calls(&self) -> Vec<&'static str> {
        self.server.calls.lock().clone()
    }

    fn notes(&self) -> Vec<String> {
        let lines = self.history.lines().into_iter();
        let notes = lines.filter_map(|line| match line.what {
            What::Note(note) => Some(note),
            What::Event(_) => None,
        });
        notes.collect()
    }
}

async fn start(disk: &Disk, connect: &LocalConnect) -> Counting {
    let options = ServerOptions::new(node().node, disk_id());
    let inner = LogServerHandle::start(Arc::new(disk.open()), options, WriterRuntime::Task).await.expect("starts");
    let server = Counting { inner, calls: Arc::default() };
    connect.insert(
        node().node,
        NodeServices { log_server: Arc::new(server.clone()), sequencers: Arc::new(Nobody), node: Arc::new(Nobody) },
    );
    server
}

/// What a copy has, if it took what it was sent.
fn local_tail(reply: &StoreReply) -> Option<LogletOffset> {
    Some(reply.outcome?.ok()?.local_tail)
}

fn store(first_offset: u64) -> StoreRequest {
    let writer = WriterId::try_from(1).expect("non-zero");
    let sequence = Sequence::try_from(first_offset).expect("non-zero");
    let batch = bifrost_wire::batch::encode(writer, sequence, 0, &[Record::new("payload")]).expect("a small record");
    StoreRequest {
        loglet: loglet(),
        disk: disk_id(),
        sequencer: node(),
        committed_tail: LogletOffset::FIRST,
        first_offset: at(first_offset),
        batches: vec![batch],
    }
}

#[tokio::test(start_paused = true)]
async fn without_faults_a_call_is_what_it_was() {
    let place = Place::new(1).await;
    let client = place.client(Rates::default());
    assert!(client.seal(seal()).await.is_ok_and(|state| state.sealed.is_some()));
    assert_eq!((place.calls(), place.notes().len()), (vec!["seal"], 0));
}

#[tokio::test(start_paused = true)]
async fn a_refused_request_was_not_carried_out() {
    let place = Place::new(1).await;
    let client = place.client(Rates { refuse: 100, ..Rates::default() });
    assert_eq!(client.seal(seal()).await, Err(RpcError::Unreachable.into()));
    assert!(!place.is_sealed().await);
}

#[tokio::test(start_paused = true)]
async fn a_request_whose_reply_is_lost_was_carried_out() {
    let place = Place::new(1).await;
    let client = place.client(Rates { lose_reply: 100, ..Rates::default() });
    assert_eq!(client.seal(seal()).await, Err(RpcError::Unreachable.into()));
    assert!(place.is_sealed().await);
    assert_eq!(place.notes(), ["seal of c1 to n1: the reply is lost"]);
}

#[tokio::test(start_paused = true)]
async fn faults_are_of_one_direction() {
    let place = Place::new(1).await;
    place.faults.set("n1", "c1", Rates { refuse: 100, ..Rates::default() });
    assert!(place.client(Rates::default()).seal(seal()).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn faults_are_of_hosts_whatever_their_nodes_are_called() {
    let place = Place::new(1).await;
    place.faults.set("c1", "host of n1", Rates { refuse: 100, ..Rates::default() });
    let connect = FaultyConnect::new("c1", Arc::new(place.connect.clone()), place.faults.clone());
    let client = connect.hosts(|name| format!("host of {name}")).connect(&record()).expect("is known").log_server;
    assert!(client.seal(seal()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_duplicate_is_carried_out_twice() {
    for seed in 0..8 {
        let place = Place::new(seed).await;
        let client = place.client(Rates { duplicate: 100, delay_max: Duration::from_secs(1), ..Rates::default() });
        assert!(client.seal(seal()).await.is_ok());
        sleep(Duration::from_secs(2)).await;
        assert_eq!(place.calls(), ["seal", "seal"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_late_request_reaches_the_next_life_of_its_target() {
    let (mut only_then, mut again) = (0, 0);
    for seed in 0..16 {
        let mut place = Place::new(seed).await;
        let answer = place.client(LATE).seal(seal()).await;
        match answer {
            Ok(_) => again += 1,
            Err(_) => only_then += 1,
        }
        assert_eq!(place.is_sealed().await, answer.is_ok());
        place.restart().await;
        assert_eq!(place.calls(), [""; 0]);
        sleep(Duration::from_secs(11)).await;
        assert_eq!(place.calls(), ["seal"]);
        assert!(place.is_sealed().await);
    }
    assert!(only_then > 0 && again > 0, "{only_then} arrived once, {again} twice");
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_to_a_store_ends_the_stream_and_not_the_store() {
    let place = Place::new(1).await;
    let client = place.client(Rates::default());
    let mut stream = client.open_store().await.expect("is up");
    stream.requests.send(store(1)).await.expect("is open");
    assert_eq!(local_tail(&stream.replies.recv().await.expect("an answer")), Some(at(2)));
    place.faults.set("c1", "n1", Rates { lose_reply: 100, ..Rates::default() });
    stream.requests.send(store(2)).await.expect("is open");
    assert!(stream.replies.recv().await.is_none(), "lost");
    stream.requests.closed().await;
    let state = place.server.inner.state(StateRequest { loglet: loglet(), disk: disk_id() }).await;
    assert_eq!(state.map(|state| state.local_tail), Ok(at(3)));
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_sent_twice_is_answered_twice_and_stored_once() {
    let place = Place::new(1).await;
    let client = place.client(Rates { duplicate: 100, ..Rates::default() });
    let mut stream = client.open_store().await.expect("is up");
    stream.requests.send(store(1)).await.expect("is open");
    for _ in 0..2 {
        let reply = stream.replies.recv().await.expect("an answer");
        assert_eq!(local_tail(&reply), Some(at(2)));
    }
    assert_eq!(place.disk.batches(), [(loglet(), at(1))]);
}

#[tokio::test(start_paused = true)]
async fn a_late_store_arrives_on_a_stream_of_its_own() {
    let mut place = Place::new(1).await;
    let client = place.client(LATE);
    let mut stream = client.open_store().await.expect("is up");
    stream.requests.send(store(1)).await.expect("is open");
    assert!(local_tail(&stream.replies.recv().await.expect("an answer")).is_some());
    place.restart().await;
    sleep(Duration::from_secs(11)).await;
    assert_eq!(place.calls(), ["open_store"]);
    assert!(place.notes().iter().any(|note| note.contains("arrives")), "{:?}", place.notes());
}

#[tokio::test(start_paused = true)]
async fn one_seed_draws_one_run() {
    async fn run(seed: u64) -> u64 {
        let place = Place::new(seed).await;
        let client = place.client(Rates { refuse: 20, lose_reply: 20, duplicate: 20, late: 20, ..LATE });
        for _ in 0..50 {
            let _any = client.seal(seal()).await;
        }
        sleep(Duration::from_secs(20)).await;
        place.history.fingerprint()
    }
    assert_eq!(run(3).await, run(3).await);
    assert_ne!(run(3).await, run(4).await);
}

fn door(name: &str, truth: &Truth, history: &History) -> ObservedMetadata {
    ObservedMetadata::new(name, truth.clone(), history.clone(), 1)
}

fn truth() -> Truth {
    Truth::new(History::new(|| 0))
}

#[tokio::test]
async fn observed_metadata_is_metadata() {
    bifrost_metadata::conformance::conformance(async || {
        let door = door("m1", &truth(), &History::new(|| 0));
        door.lead();
        door
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_metadata_commits_is_told_in_order() {
    let history = History::new(|| 0);
    let door = door("m1", &Truth::new(history.clone()), &history);
    door.lead();
    let catalog = Catalog::new(Arc::new(door));
    let (written, revision) = catalog
        .create_node("n1", |id| NodeRecord { id: NodeGeneration::new(id, Generation::FIRST), ..record() })
        .await
        .expect("is up");
    let next = NodeRecord { storage: StorageState::ReadOnly, ..written.clone() };
    catalog.replace_node(revision, &next).await.expect("is up");
    assert!(catalog.replace_node(revision, &written).await.is_err(), "a conflict writes nothing");
    catalog.cluster_id(ClusterId::try_from(1).expect("non-zero")).await.expect("is up");
    let lines = history.lines().into_iter();
    let events: Vec<Event> = lines
        .filter_map(|line| match line.what {
            What::Event(event) => Some(event),
            What::Note(_) => None,
        })
        .collect();
    assert_eq!(events, [Event::NodeWritten { record: written }, Event::NodeWritten { record: next }]);
}

#[tokio::test(start_paused = true)]
async fn a_change_of_leader_leaves_open_what_was_under_way() {
    let history = History::new(|| 0);
    let truth = truth();
    let (old, new) = (door("m1", &truth, &history), door("m2", &truth, &history));
    old.lead();
    old.set_latency(Duration::from_millis(100));
    let mut watch = old.watch(String::new(), 0).await.expect("leads");
    let calls = (0..100).map(|key| {
        let old = old.clone();
        async move { old.txn(Txn::new().put(format!("{key:03}"), "value")).await }
    });
    let (outcomes, ()) = tokio::join!(join_all(calls), async {
        sleep(Duration::from_millis(90)).await;
        old.step_down();
        new.lead();
    });
    let (mut committed, mut lost, mut dropped) = (0, 0, 0);
    for (key, outcome) in outcomes.into_iter().enumerate() {
        let there = new.get(format!("{key:03}")).await.expect("leads").is_some();
        match (outcome, there) {
            (Ok(TxnOutcome::Committed(_)), true) => committed += 1,
            (Err(MetadataError::Unknown), true) => lost += 1,
            (Err(MetadataError::Unknown), false) => dropped += 1,
            (outcome, there) => panic!("{outcome:?}, written: {there}"),
        }
    }
    assert!(committed > 0 && lost > 0 && dropped > 0, "{committed} {lost} {dropped}");
    assert_eq!(old.get("a".to_owned()).await, Err(MetadataError::Unavailable));
    while watch.recv().await.is_some() {}
}

#[tokio::test(start_paused = true)]
async fn a_transaction_arrives_again_only_if_it_commits_once() {
    let keyspace = MemoryMetadata::new();
    keyspace.txn(Txn::new().put("a", "0")).await.expect("memory never fails");
    let faults = Faults::new(1, History::new(|| 0));
    faults.set("c1", "m1", Rates { duplicate: 100, delay_max: Duration::from_secs(1), ..Rates::default() });
    let client = FaultyMetadata::new("c1", "m1", Arc::new(keyspace.clone()), &faults);
    let demanding = Txn::new().expect("a", Precondition::Revision(1)).put("a", "1");
    assert_eq!(client.txn(demanding).await, Ok(TxnOutcome::Committed(2)), "the answer to the first one");
    assert_eq!(client.txn(Txn::new().put("a", "2")).await, Ok(TxnOutcome::Committed(3)));
    sleep(Duration::from_secs(2)).await;
    assert_eq!(keyspace.get("a".to_owned()).await.map(|value| value.map(|value| value.revision)), Ok(Some(3)));
}
