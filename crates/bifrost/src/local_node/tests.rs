#![allow(clippy::unwrap_used, clippy::panic)]

use bifrost_logserver::{Marker, MemoryStore, WriterRuntime};
use bifrost_metadata::MemoryMetadata;
use bifrost_types::{Location, LogId, NodeId, SegmentIndex};
use bifrost_wire::log_server::{SealRequest, StateRequest};
use parking_lot::Mutex;

use super::*;
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
    catalog: Catalog,
    disk: Arc<NotingDisk>,
}

impl Place {
    fn new() -> Self {
        Self { catalog: Catalog::new(Arc::new(MemoryMetadata::new())), disk: Arc::default() }
    }

    async fn start(&self, name: &str) -> Result<LocalNode, NodeError> {
        let directory = Directory::new(self.catalog.clone(), Arc::new(LocalConnect::default()));
        let identity = Identity { name: name.to_owned(), address: String::new(), location: Location::default() };
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
    assert_eq!(place.disk.steps(), ["check", "read", "open", "read", "write", "read", "read"]);
    let disk = node.record().disk.unwrap();
    assert_eq!(place.disk.marker.lock().map(|marker| marker.disk), Some(disk));
    let op = fresh_op();
    node.services().log_server.seal(SealRequest { loglet: loglet(), disk, op }).await.unwrap();
    node.shutdown().await;

    let again = place.start("n1").await.unwrap();
    assert_eq!(place.disk.steps(), ["check", "read", "open", "read"]);
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
    let marker = Marker { cluster, node: NodeId::try_from(9).unwrap(), disk: DiskId::try_from(4).unwrap() };
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
