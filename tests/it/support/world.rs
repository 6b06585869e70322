//! A cluster whose log servers stand behind a [`Network`], and actors that reach it in ways of their own.

use std::num::NonZeroU8;
use std::path::Path;
use std::sync::Arc;

use bifrost::catalog::Catalog;
use bifrost::connect::{Connect, GrpcConnect, LocalConnect};
use bifrost::directory::Directory;
use bifrost::local_node::{LocalNode, Storage};
use bifrost::membership::Identity;
use bifrost::reconfigure::Reconfigurer;
use bifrost::{Bifrost, LogId, OpId, Options, ReplicationProperty};
use bifrost_loglet::peers::Peers;
use bifrost_metadata::MemoryMetadata;
use bifrost_node::local_cluster::{LocalCluster, LocalClusterOptions};
use bifrost_node::server::Interpose;
use bifrost_sequencer::core::SegmentLimits;
use bifrost_types::{Location, LogletOffset, LogletParams, Lsn, Member, NodeId, NodeRecord, Nodeset, Roles, Successor};
use bifrost_wire::log_server::{LogServer, SealRequest, SettleRequest};
use bifrost_wire::metadata::MetadataStore;

use super::interpose::{Network, Tap, TappedConnect};

/// What runs the nodes.
#[derive(Debug)]
enum Nodes {
    /// In this process, without sockets, copies in memory.
    Memory { nodes: Vec<LocalNode>, metadata: MemoryMetadata },
    /// Behind listeners on loopback, copies on disk.
    Cluster(Box<LocalCluster>),
}

/// Nodes, their metadata, and the network in front of their log servers.
#[derive(Debug)]
pub struct World {
    pub network: Network,
    pub metadata: Arc<dyn MetadataStore>,
    pub connect: Arc<dyn Connect>,
    records: Vec<NodeRecord>,
    nodes: Nodes,
}

impl World {
    /// Nodes of this process: no thread, no socket and no disk takes part, so a schedule repeats itself.
    pub async fn in_memory(size: usize) -> Self {
        Self::in_memory_through(size, |metadata| Arc::new(metadata)).await
    }

    /// The same, with something between the nodes and metadata.
    pub async fn in_memory_through(size: usize, seen: impl FnOnce(MemoryMetadata) -> Arc<dyn MetadataStore>) -> Self {
        let metadata = MemoryMetadata::new();
        let network = Network::default();
        let catalog = Catalog::new(seen(metadata.clone()));
        let connect = LocalConnect::default();
        let directory = Directory::new(catalog.clone(), Arc::new(connect.clone()));
        let mut nodes = Vec::new();
        for place in 1..=size {
            let identity = Identity {
                name: format!("n{place}"),
                address: String::new(),
                location: Location::default(),
                roles: Roles::DATA,
            };
            let starting = LocalNode::start(
                catalog.clone(),
                directory.clone(),
                &identity,
                Storage::Memory,
                SegmentLimits::default(),
            );
            let node = starting.await.expect("a node in memory");
            let mut services = node.services();
            services.log_server = network.log_server(node.id().node, services.log_server);
            connect.insert(node.id().node, services);
            nodes.push(node);
        }
        directory.refresh().await.expect("memory never fails");
        let records = directory.records();
        let nodes = Nodes::Memory { nodes, metadata: metadata.clone() };
        Self { network, metadata: Arc::new(metadata), connect: Arc::new(connect), records, nodes }
    }

    /// Nodes behind gRPC on loopback with RocksDB in `directory`.
    pub async fn on_disk(size: usize, directory: &Path) -> anyhow::Result<Self> {
        let network = Network::default();
        let options = LocalClusterOptions {
            nodes: size,
            directory: Some(directory.to_owned()),
            interpose: Some(Arc::new(network.clone())),
            ..LocalClusterOptions::default()
        };
        let cluster = LocalCluster::start(options).await?;
        let metadata = cluster.metadata();
        let (records, _) = Catalog::new(metadata.clone()).nodes().await?;
        let connect: Arc<dyn Connect> = Arc::new(GrpcConnect::default());
        Ok(Self { network, metadata, connect, records, nodes: Nodes::Cluster(Box::new(cluster)) })
    }

    /// The metadata of a world in memory, to put something in front of it.
    pub fn memory_metadata(&self) -> MemoryMetadata {
        match &self.nodes {
            Nodes::Memory { metadata, .. } => metadata.clone(),
            Nodes::Cluster(_) => panic!("this world is on disk"),
        }
    }

    /// The id of a node by its place, from 0.
    pub fn node(&self, place: usize) -> NodeId {
        self.records[place].id.node
    }

    /// All nodes, two copies, and the sequencer at this place.
    pub fn successor(&self, sequencer: usize) -> Successor {
        let member = |record: &NodeRecord| Member {
            node: record.id.node,
            disk: record.disk.expect("a node that runs has a disk"),
            location: record.location.clone(),
        };
        Successor {
            nodeset: Nodeset::new(self.records.iter().map(member).collect()).expect("some nodes"),
            replication: ReplicationProperty::nodes(NonZeroU8::new(2).expect("not 0")),
            sequencer: self.records[sequencer].id,
        }
    }

    /// Makes a log on all nodes with two copies and the sequencer at this place.
    pub async fn create_log(&self, name: &str, sequencer: usize) -> LogId {
        let catalog = Catalog::new(self.metadata.clone());
        let made = catalog.create_log(Some(name), bifrost::fresh_op(), &self.successor(sequencer)).await;
        made.expect("a log").chain.log
    }

    /// A client that sees the world as it is.
    pub async fn client(&self) -> Bifrost {
        self.client_through(self.metadata.clone(), None).await
    }

    /// A client with something between it and the world.
    pub async fn client_through(&self, metadata: Arc<dyn MetadataStore>, tap: Option<Arc<dyn Tap>>) -> Bifrost {
        let connect = self.connect_through(tap);
        Bifrost::from_parts(metadata, connect, Options::default()).await.expect("a client")
    }

    /// Drives intents of one actor, and the log servers as it sees them.
    pub async fn reconfigurer(
        &self,
        log: LogId,
        metadata: Arc<dyn MetadataStore>,
        tap: Option<Arc<dyn Tap>>,
    ) -> (Reconfigurer, Arc<dyn Peers>) {
        // Who the nodes are is known to the actor before it begins.
        let directory = Directory::new(Catalog::new(self.metadata.clone()), self.connect_through(tap));
        directory.refresh().await.expect("metadata that is well");
        let peers: Arc<dyn Peers> = Arc::new(directory);
        (Reconfigurer::new(log, Catalog::new(metadata), peers.clone()), peers)
    }

    fn connect_through(&self, tap: Option<Arc<dyn Tap>>) -> Arc<dyn Connect> {
        match tap {
            Some(tap) => Arc::new(TappedConnect { inner: self.connect.clone(), tap }),
            None => self.connect.clone(),
        }
    }

    /// A raw client of one log server.
    pub fn log_server(&self, place: usize) -> Arc<dyn LogServer> {
        self.connect.connect(&self.records[place]).expect("a node of this world").log_server
    }

    /// The sequencers of one node, asked without anybody's knowledge of the chain.
    pub fn sequencers(&self, place: usize) -> Arc<dyn bifrost_wire::sequencer::Sequencers> {
        self.connect.connect(&self.records[place]).expect("a node of this world").sequencers
    }

    /// Seals one copy out of band: an operation that no chain knows.
    pub async fn seal(&self, place: usize, params: &LogletParams, op: OpId) {
        let member = params.nodeset.members().iter().find(|member| member.node == self.node(place));
        let disk = member.expect("a member of the nodeset").disk;
        let sealed = self.log_server(place).seal(SealRequest { loglet: params.id, disk, op }).await;
        assert_eq!(sealed.expect("the server is well").sealed, Some(op));
    }

    /// Tells one copy where its loglet ended, whatever it has.
    pub async fn settle(&self, place: usize, params: &LogletParams, op: OpId, decided_tail: LogletOffset) {
        let member = params.nodeset.members().iter().find(|member| member.node == self.node(place));
        let disk = member.expect("a member of the nodeset").disk;
        let request = SettleRequest { loglet: params.id, disk, op, decided_tail };
        let settled = self.log_server(place).settle(request).await;
        assert_eq!(settled.expect("the server is well").decided_tail, Some(decided_tail));
    }

    /// Stops everything.
    pub async fn shutdown(&self) {
        match &self.nodes {
            Nodes::Memory { nodes, .. } => {
                for node in nodes {
                    node.shutdown().await;
                }
            }
            Nodes::Cluster(cluster) => cluster.shutdown().await,
        }
    }
}

/// An operation with this number.
pub fn op(number: u128) -> OpId {
    OpId::try_from(number).expect("not 0")
}

/// An LSN.
pub fn lsn(number: u64) -> Lsn {
    Lsn::new(number).expect("not 0")
}

/// An offset.
pub fn offset(number: u64) -> LogletOffset {
    LogletOffset::new(number).expect("not 0")
}
