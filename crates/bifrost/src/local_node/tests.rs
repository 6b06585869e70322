#![allow(clippy::unwrap_used, clippy::panic)]

use std::sync::atomic::{AtomicUsize, Ordering};

use bifrost_logserver::{Marker, MemoryStore, WriterRuntime};
use bifrost_metadata::{Call, CallKind, Fault, LossyMetadata, MemoryMetadata};
use bifrost_types::{
    Actor, CloseReason, Generation, Location, LogId, LogletOffset, Member, NodeId, Nodeset, Reconfiguration, Roles,
    SegmentIndex, Successor, Timings, WriterId,
};
use bifrost_wire::RpcError;
use bifrost_wire::log_server::{SealRequest, StateRequest};
use bifrost_wire::metadata::{MetadataStore, Page, Txn, TxnOutcome, Versioned, WatchStream};
use bifrost_wire::sequencer::{AppendOpen, AppendReply, AppendStream};
use parking_lot::Mutex;

use super::*;
use crate::catalog::StoredChain;
use crate::chain::{self, Announce, Decide};
use crate::cluster::fresh_op;
use crate::connect::LocalConnect;

/// Survives its node, and notes what is done with it.
#[derive(Debug, Default)]
struct NotingDisk {
    marker: Mutex<Option<Marker>>,
    store: Mutex<Arc<MemoryStore>>,
    steps: Mutex<Vec<&'static str>>,
}

impl NotingDisk {
    fn note(&self, step: &'static str) {
        self.steps.lock().push(step);
    }

    fn steps(&self) -> Vec<&'static str> {
        std::mem::take(&mut self.steps.lock())
    }
}

impl Disk for NotingDisk {
    fn check(&self) -> BoxFuture<'_, Result<(), NodeError>> {
        self.note("check");
        Box::pin(async { Ok(()) })
    }

    fn read_marker(&self) -> BoxFuture<'_, Result<Option<Marker>, MarkerError>> {
        self.note("read");
        Box::pin(async { Ok(*self.marker.lock()) })
    }

    fn write_marker(&self, marker: Marker) -> BoxFuture<'_, Result<(), MarkerError>> {
        self.note("write");
        *self.marker.lock() = Some(marker);
        Box::pin(async { Ok(()) })
    }

    fn open(&self) -> BoxFuture<'_, Result<OpenStore, NodeError>> {
        self.note("open");
        Box::pin(async { Ok(OpenStore::new(self.store.lock().clone(), WriterRuntime::Task)) })
    }
}

struct Place {
    metadata: MemoryMetadata,
    catalog: Catalog,
    disk: Arc<NotingDisk>,
}

impl Place {
    fn new() -> Self {
        let metadata = MemoryMetadata::new();
        Self { catalog: Catalog::new(Arc::new(metadata.clone())), metadata, disk: Arc::default() }
    }

    async fn start(&self, name: &str) -> Result<LocalNode, NodeError> {
        let directory = Directory::new(self.catalog.clone(), Arc::new(LocalConnect::default()));
        let identity = Identity {
            name: name.to_owned(),
            address: String::new(),
            location: Location::default(),
            roles: Roles::DATA,
        };
        let storage = Storage::Given(self.disk.clone());
        LocalNode::start(self.catalog.clone(), directory, &identity, storage, SegmentLimits::default()).await
    }
}

fn loglet() -> LogletId {
    LogletId::new(LogId::try_from(7).unwrap(), SegmentIndex::FIRST)
}

#[tokio::test]
async fn a_given_disk_is_looked_at_then_opened_and_then_marked() {
    let place = Place::new();
    let node = place.start("n1").await.unwrap();
    assert_eq!(place.disk.steps(), ["check", "read", "open", "read", "write", "read"]);
    let disk = node.record().disk.unwrap();
    assert_eq!(place.disk.marker.lock().map(|marker| marker.disk), Some(disk));
    let op = fresh_op();
    node.services().log_server.seal(SealRequest { loglet: loglet(), disk, op }).await.unwrap();
    node.shutdown().await;

    let again = place.start("n1").await.unwrap();
    assert_eq!(place.disk.steps(), ["check", "read", "open", "read", "write", "read"]);
    assert_eq!((again.id().node, again.record().disk), (node.id().node, Some(disk)));
    assert!(again.id().generation > node.id().generation);
    let state = again.services().log_server.state(StateRequest { loglet: loglet(), disk }).await.unwrap();
    assert_eq!(state.sealed, Some(op), "the store is the one from before");
    again.shutdown().await;
}

#[tokio::test]
async fn a_given_disk_of_somebody_else_is_not_opened() {
    let place = Place::new();
    let cluster = place.catalog.ensure_cluster_id().await.unwrap();
    let marker =
        Marker { cluster, node: NodeId::try_from(9).unwrap(), disk: DiskId::try_from(4).unwrap(), generation: None };
    *place.disk.marker.lock() = Some(marker);
    let refused = place.start("n1").await.unwrap_err();
    assert!(matches!(refused, NodeError::Refused(Refusal::OthersDisk { .. })), "{refused}");
    assert_eq!(place.disk.steps(), ["check", "read"]);
    assert!(place.catalog.node_by_name("n1").await.unwrap().is_none(), "no life was begun");
}

#[tokio::test]
async fn a_given_disk_that_was_emptied_is_lost_and_not_opened() {
    let place = Place::new();
    place.start("n1").await.unwrap().shutdown().await;
    place.disk.steps();
    *place.disk.marker.lock() = None;
    let refused = place.start("n1").await.unwrap_err();
    assert!(matches!(refused, NodeError::Refused(Refusal::DiskLost { .. })), "{refused}");
    assert_eq!(place.disk.steps(), ["check", "read"]);
    let (record, _) = place.catalog.node_by_name("n1").await.unwrap().unwrap();
    assert_eq!(record.storage, StorageState::DataLoss);
}

fn identity(name: &str, address: &str) -> Identity {
    Identity { name: name.to_owned(), address: address.to_owned(), location: Location::default(), roles: Roles::DATA }
}

async fn start(
    catalog: &Catalog,
    connect: &LocalConnect,
    who: &Identity,
    disk: Storage,
) -> Result<LocalNode, NodeError> {
    let directory = Directory::new(catalog.clone(), Arc::new(connect.clone()));
    let node = LocalNode::start(catalog.clone(), directory, who, disk, SegmentLimits::default()).await?;
    connect.insert(node.id().node, node.services());
    Ok(node)
}

/// Starts a node until it runs, as whoever supervises the process does.
async fn start_in_the_end(catalog: &Catalog, disk: &Arc<NotingDisk>) -> LocalNode {
    for _ in 0..4 {
        let connect = LocalConnect::default();
        match start(catalog, &connect, &identity("n1", ""), Storage::Given(disk.clone())).await {
            Ok(node) => return node,
            Err(NodeError::Catalog(error)) => assert!(error.is_passing(), "{error}"),
            Err(error) => panic!("{error}"),
        }
    }
    panic!("it does not start")
}

#[tokio::test]
async fn the_reply_of_each_metadata_write_of_first_boot_may_be_lost() {
    // The cluster id, the record, the state; and none of a fourth.
    for lost in 0..4 {
        let metadata = MemoryMetadata::new();
        let script = move |call: &Call| match call.kind {
            CallKind::Txn if call.nth == lost => Fault::LoseReply,
            _ => Fault::None,
        };
        let lossy = LossyMetadata::new(metadata.clone(), Arc::new(script));
        let disk = Arc::new(NotingDisk::default());
        let node = start_in_the_end(&Catalog::new(Arc::new(lossy)), &disk).await;
        let (records, _) = Catalog::new(Arc::new(metadata)).nodes().await.unwrap();
        assert_eq!(records, [node.record().clone()], "one node, {lost}");
        assert_eq!(records[0].storage, StorageState::ReadWrite);
        assert_eq!(
            disk.marker.lock().map(|marker| (marker.node, Some(marker.disk))),
            Some((records[0].id.node, records[0].disk))
        );
        node.shutdown().await;
    }
}

#[tokio::test]
async fn a_process_that_died_between_marker_and_state_goes_on_with_the_same_disk() {
    let metadata = MemoryMetadata::new();
    // The write of the state never arrives: cluster id, record, state.
    let script = |call: &Call| match call.kind {
        CallKind::Txn if call.nth == 2 => Fault::FailBefore(MetadataError::Unavailable),
        _ => Fault::None,
    };
    let lossy = Catalog::new(Arc::new(LossyMetadata::new(metadata.clone(), Arc::new(script))));
    let disk = Arc::new(NotingDisk::default());
    let connect = LocalConnect::default();
    let died = start(&lossy, &connect, &identity("n1", ""), Storage::Given(disk.clone())).await.unwrap_err();
    assert!(matches!(died, NodeError::Catalog(error) if error.is_passing()), "{died}");
    let catalog = Catalog::new(Arc::new(metadata));
    let (record, _) = catalog.node_by_name("n1").await.unwrap().unwrap();
    assert_eq!((record.storage, record.disk), (StorageState::Provisioning, None));
    let marker = disk.marker.lock().unwrap();
    let node = start(&catalog, &connect, &identity("n1", ""), Storage::Given(disk.clone())).await.unwrap();
    assert_eq!((node.record().disk, node.record().storage), (Some(marker.disk), StorageState::ReadWrite));
    assert_eq!(node.id().generation, Generation::FIRST.next().unwrap());
    node.shutdown().await;
}

#[tokio::test]
async fn a_process_that_died_between_marker_and_life_goes_on_and_its_copy_is_old() {
    let place = Place::new();
    place.start("n1").await.unwrap().shutdown().await;
    let copy = place.disk.marker.lock().unwrap();
    // The write of the next life never arrives.
    let script = |call: &Call| match call.kind {
        CallKind::Txn if call.nth == 0 => Fault::FailBefore(MetadataError::Unavailable),
        _ => Fault::None,
    };
    let lossy = LossyMetadata::new(place.metadata.clone(), Arc::new(script));
    let connect = LocalConnect::default();
    let catalog = Catalog::new(Arc::new(lossy));
    let died = start(&catalog, &connect, &identity("n1", ""), Storage::Given(place.disk.clone())).await.unwrap_err();
    assert!(matches!(died, NodeError::Catalog(error) if error.is_passing()), "{died}");
    let ahead = place.disk.marker.lock().unwrap();
    assert!(ahead.generation > copy.generation);
    let node = place.start("n1").await.unwrap();
    let marker = place.disk.marker.lock().unwrap();
    assert_eq!(marker.generation, Some(node.id().generation));
    assert!(marker.generation > ahead.generation, "a life that was not begun is not begun by another start");
    node.shutdown().await;

    for old in [copy, ahead] {
        *place.disk.marker.lock() = Some(old);
        place.disk.steps();
        let refused = place.start("n1").await.unwrap_err();
        assert!(matches!(refused, NodeError::Refused(Refusal::OldCopy { .. })), "{refused}");
        assert_eq!(place.disk.steps(), ["check", "read"], "it is not opened");
    }
    *place.disk.marker.lock() = Some(marker);
    place.start("n1").await.unwrap().shutdown().await;
}

#[tokio::test]
async fn a_second_process_of_the_same_name_is_refused_and_takes_no_disk_from_the_first() {
    let catalog = Catalog::new(Arc::new(MemoryMetadata::new()));
    let connect = LocalConnect::default();
    let first = start(&catalog, &connect, &identity("n1", "a:1"), Storage::Memory).await.unwrap();
    let disk = first.record().disk.unwrap();
    let second = start(&catalog, &connect, &identity("n1", "b:1"), Storage::Memory).await.unwrap_err();
    let expected = Refusal::NameInUse { node: first.id().node, disk };
    assert!(matches!(second, NodeError::Refused(refused) if refused == expected), "{second}");
    let (record, _) = catalog.node_by_name("n1").await.unwrap().unwrap();
    assert_eq!(&record, first.record(), "nothing was changed");
    // One that cannot be asked, or is too slow to answer, is no less alive.
    let nobody = LocalConnect::default();
    let second = start(&catalog, &nobody, &identity("n1", "b:1"), Storage::Memory).await.unwrap_err();
    let expected = Refusal::DiskElsewhere { node: first.id().node, disk };
    assert!(matches!(second, NodeError::Refused(refused) if refused == expected), "{second}");
    let (record, _) = catalog.node_by_name("n1").await.unwrap().unwrap();
    assert_eq!(&record, first.record(), "nothing was changed");
    // At the first one's own address nobody else can run: there the disk is gone.
    let roster = catalog.roster().await.unwrap();
    let wiped = start(&catalog, &connect, &identity("n1", "a:1"), Storage::Memory).await.unwrap_err();
    assert!(matches!(wiped, NodeError::Refused(Refusal::DiskLost { lost }) if lost == disk), "{wiped}");
    assert_ne!(catalog.roster().await.unwrap(), roster, "whoever chose it before looks again");
    first.shutdown().await;
}

#[tokio::test]
async fn a_node_without_a_disk_numbers_appends_and_has_no_log_server() {
    let catalog = Catalog::new(Arc::new(MemoryMetadata::new()));
    let connect = LocalConnect::default();
    let with = |roles: &[Role]| Identity { roles: Roles::new(roles.iter().copied()).unwrap(), ..identity("n1", "a:1") };
    let sequencer = with(&[Role::Sequencer]);
    let first = start(&catalog, &connect, &sequencer, Storage::Memory).await.unwrap();
    assert_eq!((first.record().disk, first.record().storage), (None, StorageState::Provisioning));
    let status = first.services().node.status().await.unwrap();
    assert_eq!((status.disk, status.roles), (None, sequencer.roles));
    let asked = StateRequest { loglet: loglet(), disk: DiskId::try_from(7).unwrap() };
    let refused = first.services().log_server.state(asked).await;
    assert_eq!(refused, Err(RpcError::NotOffered.into()));
    first.shutdown().await;
    assert_eq!(first.services().node.status().await, Err(RpcError::ShuttingDown));
    // Its next life may have a disk, and from then on it keeps the role.
    let second = start(&catalog, &connect, &with(&[Role::LogServer]), Storage::Memory).await.unwrap();
    assert_eq!((second.id().node, second.id().generation), (first.id().node, Generation::FIRST.next().unwrap()));
    let tails = second.services().sequencers.tails(loglet(), second.id()).await;
    assert_eq!(tails.unwrap_err(), RpcError::NotOffered.into());
    let third = start(&catalog, &connect, &sequencer, Storage::Memory).await.unwrap_err();
    assert!(matches!(third, NodeError::Refused(Refusal::HoldsCopies { .. })), "{third}");
    second.shutdown().await;
}

/// Metadata with a replica in the process that is old, and that counts who asks for the real thing.
#[derive(Debug)]
struct Replicated {
    store: MemoryMetadata,
    replica: Mutex<Option<Versioned>>,
    asked: AtomicUsize,
}

impl MetadataStore for Replicated {
    fn get(&self, key: String) -> BoxFuture<'_, Result<Option<Versioned>, MetadataError>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        self.store.get(key)
    }

    fn list(&self, prefix: String, after: Option<String>, limit: usize) -> BoxFuture<'_, Result<Page, MetadataError>> {
        self.store.list(prefix, after, limit)
    }

    fn txn(&self, txn: Txn) -> BoxFuture<'_, Result<TxnOutcome, MetadataError>> {
        self.store.txn(txn)
    }

    fn watch(&self, prefix: String, after: Revision) -> BoxFuture<'_, Result<WatchStream, MetadataError>> {
        self.store.watch(prefix, after)
    }

    fn seen(&self, _: &str) -> Option<Versioned> {
        self.replica.lock().clone()
    }
}

/// Closes the open segment of a log, without asking anybody, and opens the next one.
async fn move_on(catalog: &Catalog, read: &StoredChain, successor: Option<Successor>) -> StoredChain {
    let op = fresh_op();
    let wanted = Reconfiguration {
        op,
        segment: read.chain.last().unwrap().index(),
        actor: Actor::Operator,
        reason: CloseReason::Requested,
        successor,
        attempt: 1,
        opened_at_millis: 0,
    };
    let Announce::Write(announced) = chain::announce(&read.chain, &wanted).unwrap() else {
        panic!("nothing is pending")
    };
    let read = catalog.replace(read, announced).await.unwrap();
    let decided = chain::decide(&read.chain, op, LogletOffset::FIRST.into(), Timings::default()).unwrap();
    let Decide::Write(decided) = decided else { panic!("it is pending") };
    catalog.replace(&read, decided).await.unwrap()
}

/// Why a stream of appends ended.
async fn ending(stream: &mut AppendStream) -> SequencerError {
    loop {
        match stream.replies.recv().await {
            Some(AppendReply::Closed(error)) => return error,
            Some(AppendReply::Committed { .. }) => {}
            None => panic!("the stream ended without a word"),
        }
    }
}

#[tokio::test]
async fn a_sequencer_that_nobody_appends_to_ends_when_its_log_moves_closes_or_is_deleted() {
    let metadata = MemoryMetadata::new();
    let catalog = Catalog::new(Arc::new(metadata.clone()));
    let connect = LocalConnect::default();
    let node = start(&catalog, &connect, &identity("n1", "a:1"), Storage::Memory).await.unwrap();
    let member = Member { node: node.id().node, disk: node.record().disk.unwrap(), location: Location::default() };
    let here = Successor {
        nodeset: Nodeset::new(vec![member]).unwrap(),
        replication: "{node: 1}".parse().unwrap(),
        sequencer: node.id(),
    };
    let elsewhere =
        Successor { sequencer: NodeGeneration::new(NodeId::try_from(9).unwrap(), Generation::FIRST), ..here.clone() };
    let mut streams = Vec::new();
    for number in 1..=4 {
        let log = catalog.create_log(None, fresh_op(), &here).await.unwrap();
        let loglet = log.chain.last().unwrap().params.id;
        let open =
            AppendOpen { loglet, sequencer: node.id(), writer: WriterId::try_from(number).unwrap(), incarnation: 1 };
        let stream = node.services().sequencers.open_append(open).await.unwrap();
        streams.push((log, loglet, stream));
    }
    let [(moved, _, moved_stream), (closed, _, closed_stream), (deleted, _, deleted_stream), (_, stays, _)] =
        streams.as_mut_slice()
    else {
        panic!("four logs")
    };
    move_on(&catalog, moved, Some(elsewhere)).await;
    move_on(&catalog, closed, None).await;
    let deleted = format!("logs/{:020}", deleted.chain.log.get());
    metadata.txn(Txn::new().delete(deleted)).await.unwrap();
    for stream in [moved_stream, closed_stream, deleted_stream] {
        assert_eq!(ending(stream).await, SequencerError::NotOpen);
    }
    assert_eq!(node.sequencers().running(), [*stays]);
    node.shutdown().await;
}

#[tokio::test]
async fn a_loglet_that_the_replica_knows_is_not_asked_for_and_any_other_one_is() {
    let store = MemoryMetadata::new();
    let world = Catalog::new(Arc::new(store.clone()));
    let node = NodeId::try_from(1).unwrap();
    let member = Member { node, disk: DiskId::try_from(4).unwrap(), location: Location::default() };
    let successor = Successor {
        nodeset: Nodeset::new(vec![member]).unwrap(),
        replication: "{node: 1}".parse().unwrap(),
        sequencer: NodeGeneration::new(node, Generation::FIRST),
    };
    let first = world.create_log(None, fresh_op(), &successor).await.unwrap();
    let near = Arc::new(Replicated { store: store.clone(), replica: Mutex::default(), asked: AtomicUsize::new(0) });
    let source = CatalogSource { catalog: Catalog::new(near.clone()) };
    let key = format!("logs/{:020}", first.chain.log.get());
    let open = first.chain.last().unwrap().params.clone();
    assert_eq!(source.open_loglet(open.id).await.as_ref(), Ok(&open));
    assert_eq!(near.asked.load(Ordering::Relaxed), 1, "the replica has nothing yet");
    *near.replica.lock() = store.get(key).await.unwrap();
    assert_eq!(source.open_loglet(open.id).await.as_ref(), Ok(&open));
    assert_eq!(near.asked.load(Ordering::Relaxed), 1);
    // The replica falls behind: the segment is closed, and there is a next one.
    let next = move_on(&world, &first, Some(successor)).await.chain.last().unwrap().params.clone();
    assert_eq!(source.open_loglet(next.id).await.as_ref(), Ok(&next));
    assert_eq!(near.asked.load(Ordering::Relaxed), 2, "metadata knows what the replica does not");
    let unknown = LogletId::new(next.id.log, next.id.segment.next().unwrap());
    assert_eq!(source.open_loglet(unknown).await, Err(SequencerError::NotOpen));
}
