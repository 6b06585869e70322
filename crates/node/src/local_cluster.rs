//! Several nodes in this process, each behind its own listener on loopback: `bifrost dev`, the demo, tests and benchmarks.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bifrost::catalog::{Catalog, CatalogError};
use bifrost::catch_up::CatchUpOptions;
use bifrost::controller::ControllerOptions;
use bifrost::local_node::Storage;
use bifrost::membership::Identity;
use bifrost::{Bifrost, Options, StartError};
use bifrost_logserver::RocksOptions;
use bifrost_metadata::{LocalMetadata, MemoryMetadata, OpenError};
use bifrost_sequencer::core::SegmentLimits;
use bifrost_types::{Location, NodeGeneration, NodeId, Roles};
use bifrost_wire::grpc::{ClientOptions, ServerLimits};
use bifrost_wire::metadata::MetadataStore;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::Mutex;

use crate::gateway::GatewayOptions;
use crate::server::{Interpose, Node, NodeOptions, ServerError};

const LOOPBACK: &str = "127.0.0.1";

/// What a local cluster is made of.
#[derive(Debug, Clone)]
pub struct LocalClusterOptions {
    /// How many nodes. Default 3.
    pub nodes: usize,
    /// Where they keep their copies and the metadata; `None` (default) for memory.
    pub directory: Option<PathBuf>,
    /// Where the first node listens; the others at the ports after it. `None` (default): where each of them listened
    /// last if that is free, else at any free port.
    pub first_port: Option<u16>,
    /// Settings of RocksDB, for each node.
    pub rocks: RocksOptions,
    /// When a segment counts as full.
    pub segments: SegmentLimits,
    /// Limits of the listeners.
    pub server: ServerLimits,
    /// Options of connections from node to node.
    pub client: ClientOptions,
    /// Limits of the doors for thin clients.
    pub gateway: GatewayOptions,
    /// For tests.
    pub interpose: Option<Arc<dyn Interpose>>,
}

impl Default for LocalClusterOptions {
    fn default() -> Self {
        Self {
            nodes: 3,
            directory: None,
            first_port: None,
            rocks: RocksOptions::default(),
            segments: SegmentLimits::default(),
            server: ServerLimits::default(),
            client: ClientOptions::default(),
            gateway: GatewayOptions::default(),
            interpose: None,
        }
    }
}

/// Why a local cluster, or a node of it, did not start.
#[derive(Debug, Error)]
pub enum LocalClusterError {
    /// There is no such node.
    #[error("there is no node with index {index}")]
    NoSuchNode {
        /// Which one.
        index: usize,
    },
    /// The ports after the first are not enough.
    #[error("there are no {nodes} ports from {first_port} on")]
    Ports {
        /// The first one.
        first_port: u16,
        /// How many were wanted.
        nodes: usize,
    },
    /// A node cannot listen where it should.
    #[error("cannot listen at {address}")]
    Listen {
        /// Where.
        address: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The metadata cannot be opened.
    #[error("the metadata of the cluster cannot be opened")]
    Metadata(#[from] OpenError),
    /// The metadata cannot be read.
    #[error("the metadata of the cluster cannot be read")]
    Catalog(#[from] CatalogError),
    /// A node did not start.
    #[error("node {name} did not start")]
    Node {
        /// Its name.
        name: String,
        /// Why.
        #[source]
        source: ServerError,
    },
}

/// Nodes of this process on loopback.
#[derive(Debug)]
pub struct LocalCluster {
    options: LocalClusterOptions,
    metadata: Arc<dyn MetadataStore>,
    on_disk: Option<LocalMetadata>,
    slots: Vec<Mutex<Slot>>,
}

#[derive(Debug)]
struct Slot {
    /// Where it listens, or did.
    address: String,
    node: Option<Node>,
}

impl LocalCluster {
    /// Starts all nodes. The ports are taken before anything else is touched.
    ///
    /// # Errors
    /// [`LocalClusterError`]: a port is taken, a directory is in use, or a node refuses its disk. Nothing runs then.
    pub async fn start(options: LocalClusterOptions) -> Result<Self, LocalClusterError> {
        let mut listeners = Vec::new();
        for index in 0..options.nodes {
            listeners.push(match options.first_port {
                Some(first_port) => Some(listen_at(first_port, index, options.nodes).await?),
                None => None,
            });
        }
        let on_disk = match &options.directory {
            Some(directory) => Some(LocalMetadata::open(directory.join("metadata")).await?),
            None => None,
        };
        let metadata: Arc<dyn MetadataStore> = match &on_disk {
            Some(metadata) => Arc::new(metadata.clone()),
            None => Arc::new(MemoryMetadata::new()),
        };
        let vacant = || Mutex::new(Slot { address: format!("{LOOPBACK}:0"), node: None });
        let slots = (0..options.nodes).map(|_| vacant()).collect();
        let cluster = Self { options, metadata, on_disk, slots };
        for (index, listener) in listeners.into_iter().enumerate() {
            if let Err(error) = cluster.start_first(index, listener).await {
                cluster.shutdown().await;
                return Err(error);
            }
        }
        Ok(cluster)
    }

    /// How many nodes there are, running or not.
    pub fn size(&self) -> usize {
        self.slots.len()
    }

    /// The metadata store that all nodes use.
    pub fn metadata(&self) -> Arc<dyn MetadataStore> {
        self.metadata.clone()
    }

    /// The directory of a node, if the cluster is on disk.
    pub fn directory_of(&self, index: usize) -> Option<PathBuf> {
        self.options.directory.as_deref().map(|directory| node_directory(directory, index))
    }

    /// Where the nodes listen, by index; a stopped one listened there.
    pub async fn addresses(&self) -> Vec<String> {
        let mut addresses = Vec::new();
        for slot in &self.slots {
            addresses.push(slot.lock().await.address.clone());
        }
        addresses
    }

    /// The id of a node, while it runs.
    pub async fn node_id(&self, index: usize) -> Option<NodeId> {
        self.slots.get(index)?.lock().await.node.as_ref().map(|node| node.id().node)
    }

    /// The present life of a node, while it runs.
    pub async fn generation(&self, index: usize) -> Option<NodeGeneration> {
        self.slots.get(index)?.lock().await.node.as_ref().map(Node::id)
    }

    /// A client through the network.
    ///
    /// # Errors
    /// When no node answers.
    pub async fn connect(&self) -> Result<Bifrost, StartError> {
        Bifrost::connect(self.addresses().await).await
    }

    /// Starts a node for the first time in this process.
    async fn start_first(&self, index: usize, listener: Option<TcpListener>) -> Result<(), LocalClusterError> {
        let Some(listener) = listener else {
            // Clients and scripts know the old address.
            if let Some((record, _)) = Catalog::new(self.metadata()).node_by_name(&node_name(index)).await?
                && let Some(slot) = self.slots.get(index)
                && record.address.starts_with(LOOPBACK)
            {
                slot.lock().await.address = record.address;
            }
            return self.start_node(index).await;
        };
        let slot = self.slots.get(index).ok_or(LocalClusterError::NoSuchNode { index })?;
        self.run_node(index, &mut *slot.lock().await, listener).await
    }

    /// Starts a node that does not run, at its old address; if that is taken, at another one, unless the ports are
    /// fixed.
    ///
    /// # Errors
    /// [`LocalClusterError`]: there is no such node, its port is taken, its directory is in use, or it refuses its disk.
    pub async fn start_node(&self, index: usize) -> Result<(), LocalClusterError> {
        let slot = self.slots.get(index).ok_or(LocalClusterError::NoSuchNode { index })?;
        let mut slot = slot.lock().await;
        if slot.node.is_some() {
            return Ok(());
        }
        let listener = match listen(&slot.address).await {
            Ok(listener) => listener,
            Err(error) if self.options.first_port.is_some() => return Err(error),
            Err(_) => listen(&format!("{LOOPBACK}:0")).await?,
        };
        self.run_node(index, &mut slot, listener).await
    }

    async fn run_node(&self, index: usize, slot: &mut Slot, listener: TcpListener) -> Result<(), LocalClusterError> {
        let address = listener.local_addr();
        let failed = |source| LocalClusterError::Listen { address: LOOPBACK.to_owned(), source };
        slot.address = address.map_err(failed)?.to_string();
        let storage = match self.directory_of(index) {
            Some(directory) => Storage::Disk { directory, options: self.options.rocks.clone() },
            None => Storage::Memory,
        };
        let name = node_name(index);
        let identity =
            Identity { name: name.clone(), address: String::new(), location: Location::default(), roles: Roles::DATA };
        let options = NodeOptions {
            identity,
            storage,
            metadata: self.metadata.clone(),
            segments: self.options.segments,
            catch_up: CatchUpOptions::default(),
            server: self.options.server.clone(),
            client: self.options.client.clone(),
            gateway: self.options.gateway.clone(),
            logs: Options::default(),
            controller: ControllerOptions::default(),
            detector: None,
            liveness: None,
            interpose: self.options.interpose.clone(),
        };
        let started = Node::start(options, listener).await;
        slot.node = Some(started.map_err(|source| LocalClusterError::Node { name, source })?);
        Ok(())
    }

    /// Stops a node in good order and frees its storage. Its sequencers are not handed over: whoever appends opens the next
    /// segments, as after a crash. It is the process of one node that hands over.
    pub async fn stop_node(&self, index: usize) {
        if let Some(slot) = self.slots.get(index) {
            let mut slot = slot.lock().await;
            if let Some(node) = slot.node.take() {
                node.shutdown().await;
            }
        }
    }

    /// Stops everything. No sequencer is handed over: with all nodes in one process nobody is left to take it, and each
    /// hand-over would only cost a segment. Who starts the cluster again and appends opens the next segments.
    pub async fn shutdown(&self) {
        for index in 0..self.slots.len() {
            self.stop_node(index).await;
        }
        if let Some(metadata) = &self.on_disk {
            metadata.shutdown().await;
        }
    }
}

/// How many nodes have left data in the directory of a cluster: they are numbered without holes.
pub fn nodes_in(directory: &Path) -> usize {
    (0..).take_while(|index| node_directory(directory, *index).is_dir()).count()
}

fn node_name(index: usize) -> String {
    format!("n{}", index + 1)
}

fn node_directory(directory: &Path, index: usize) -> PathBuf {
    directory.join(node_name(index))
}

async fn listen_at(first_port: u16, index: usize, nodes: usize) -> Result<TcpListener, LocalClusterError> {
    let port = u16::try_from(index).ok().and_then(|index| first_port.checked_add(index));
    let port = port.ok_or(LocalClusterError::Ports { first_port, nodes })?;
    listen(&format!("{LOOPBACK}:{port}")).await
}

async fn listen(address: &str) -> Result<TcpListener, LocalClusterError> {
    let listener = TcpListener::bind(address).await;
    listener.map_err(|source| LocalClusterError::Listen { address: address.to_owned(), source })
}
