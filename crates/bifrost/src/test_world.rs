//! Three nodes in memory for tests on the paused clock: it moves only when nothing else is left to do.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::num::NonZeroU8;
use std::sync::Arc;
use std::time::Duration;

use bifrost_logserver::{Marker, MarkerError, MemoryStore, WriterRuntime};
use bifrost_metadata::MemoryMetadata;
use bifrost_sequencer::core::SegmentLimits;
use bifrost_types::{
    Chain, Location, LogId, Member, NodeId, NodeRecord, Nodeset, ReplicationProperty, Roles, Successor,
};
use bifrost_wire::metadata::MetadataStore;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::time::timeout;

use crate::catalog::Catalog;
use crate::connect::{Connect, LocalConnect};
use crate::controller::ControllerOptions;
use crate::directory::Directory;
use crate::local_node::{Disk, LocalNode, NodeError, OpenStore, Storage};
use crate::membership::Identity;
use crate::{Bifrost, Options, fresh_op};

/// Only what hangs meets it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(600);
/// Keeps what it has from one life of its node to the next.
#[derive(Debug, Default)]
pub(crate) struct KeptDisk {
    marker: Mutex<Option<Marker>>,
    store: Arc<MemoryStore>,
}

impl Disk for KeptDisk {
    fn check(&self) -> BoxFuture<'_, Result<(), NodeError>> {
        Box::pin(async { Ok(()) })
    }

    fn read_marker(&self) -> BoxFuture<'_, Result<Option<Marker>, MarkerError>> {
        Box::pin(async { Ok(*self.marker.lock()) })
    }

    fn write_marker(&self, marker: Marker) -> BoxFuture<'_, Result<(), MarkerError>> {
        *self.marker.lock() = Some(marker);
        Box::pin(async { Ok(()) })
    }

    fn open(&self) -> BoxFuture<'_, Result<OpenStore, NodeError>> {
        Box::pin(async { Ok(OpenStore::new(self.store.clone(), WriterRuntime::Task)) })
    }
}

/// Three nodes, their metadata, and no controller but those that a test starts.
pub(crate) struct World {
    pub(crate) metadata: MemoryMetadata,
    pub(crate) connect: LocalConnect,
    /// What the nodes know of each other.
    pub(crate) directory: Directory,
    pub(crate) disks: Vec<Arc<KeptDisk>>,
    pub(crate) nodes: Vec<LocalNode>,
}

impl World {
    pub(crate) async fn new() -> Self {
        let disks = (0..3).map(|_| Arc::<KeptDisk>::default()).collect();
        let (metadata, connect) = (MemoryMetadata::new(), LocalConnect::default());
        let directory = Directory::new(Catalog::new(Arc::new(metadata.clone())), Arc::new(connect.clone()));
        let mut world = Self { metadata, connect, directory, disks, nodes: Vec::new() };
        for place in 0..3 {
            let node = world.begin_life(place).await;
            world.nodes.push(node);
        }
        world
    }

    pub(crate) async fn begin_life(&self, place: usize) -> LocalNode {
        self.begin_life_with(place, SegmentLimits::default()).await
    }

    pub(crate) async fn begin_life_with(&self, place: usize, limits: SegmentLimits) -> LocalNode {
        let name = format!("n{}", place + 1);
        let identity = Identity { name, address: String::new(), location: Location::default(), roles: Roles::DATA };
        let storage = Storage::Given(self.disks[place].clone());
        let directory = self.directory.clone();
        let node = LocalNode::start(self.catalog(), directory, &identity, storage, limits).await.unwrap();
        self.connect.insert(node.id().node, node.services());
        self.directory.refresh().await.unwrap();
        node
    }

    pub(crate) async fn restart(&mut self, place: usize) {
        self.nodes[place].shutdown().await;
        self.nodes[place] = self.begin_life(place).await;
    }

    pub(crate) fn catalog(&self) -> Catalog {
        Catalog::new(Arc::new(self.metadata.clone()))
    }

    pub(crate) async fn client(&self) -> Bifrost {
        self.client_over(Arc::new(self.metadata.clone())).await
    }

    pub(crate) async fn client_over(&self, metadata: Arc<dyn MetadataStore>) -> Bifrost {
        let connect: Arc<dyn Connect> = Arc::new(self.connect.clone());
        Bifrost::from_parts(metadata, connect, Options::default()).await.unwrap()
    }

    pub(crate) async fn controller(&self, me: Option<NodeId>) -> Bifrost {
        let bifrost = self.client().await;
        bifrost.start_controller(me, ControllerOptions::default());
        bifrost
    }

    /// All nodes, two copies, and the sequencer at this place.
    pub(crate) fn successor(&self, place: usize) -> Successor {
        let member = |record: &NodeRecord| Member {
            node: record.id.node,
            disk: record.disk.unwrap(),
            location: record.location.clone(),
        };
        Successor {
            nodeset: Nodeset::new(self.nodes.iter().map(|node| member(node.record())).collect()).unwrap(),
            replication: ReplicationProperty::nodes(NonZeroU8::new(2).unwrap()),
            sequencer: self.nodes[place].id(),
        }
    }

    /// A log with three records whose sequencer is at this place, and that nobody has open any more.
    pub(crate) async fn idle_log(&self, name: &str, place: usize) -> LogId {
        let made = self.catalog().create_log(Some(name), fresh_op(), &self.successor(place)).await.unwrap();
        let client = self.client().await;
        let appender = client.log_by_id(made.chain.log).await.unwrap().appender();
        for payload in ["one", "two", "three"] {
            appender.append(payload).await.unwrap();
        }
        client.shutdown().await;
        made.chain.log
    }

    pub(crate) async fn chain(&self, log: LogId) -> Chain {
        self.catalog().chain(log).await.unwrap().chain
    }

    /// Waits until the chain is like this, and returns it.
    pub(crate) async fn until(&self, log: LogId, is_so: impl Fn(&Chain) -> bool) -> Chain {
        let stored = self.catalog().chain(log).await.unwrap();
        let mut watch = self.catalog().watch_chain(log, stored.revision).await.unwrap();
        let waiting = async {
            let mut chain = stored.chain;
            while !is_so(&chain) {
                watch.recv().await.unwrap().unwrap();
                chain = self.chain(log).await;
            }
            chain
        };
        timeout(PATIENCE, waiting).await.expect("it becomes so")
    }

    pub(crate) async fn shutdown(&self) {
        for node in &self.nodes {
            node.shutdown().await;
        }
    }
}
