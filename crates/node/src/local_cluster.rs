//! Several nodes in this process, each behind its own listener on loopback: the demo, tests and benchmarks.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use bifrost::Bifrost;
use bifrost::local_node::Storage;
use bifrost::membership::Identity;
use bifrost_logserver::RocksOptions;
use bifrost_metadata::{LocalMetadata, MemoryMetadata};
use bifrost_sequencer::core::SegmentLimits;
use bifrost_types::{Location, NodeId};
use bifrost_wire::grpc::{ClientOptions, ServerLimits};
use bifrost_wire::metadata::MetadataStore;
use tokio::net::TcpListener;
use tokio::sync::Mutex;

use crate::server::{Interpose, Node, NodeOptions};

/// What a local cluster is made of.
#[derive(Debug, Clone)]
pub struct LocalClusterOptions {
    /// How many nodes. Default 3.
    pub nodes: usize,
    /// Where they keep their copies and the metadata; `None` (default) for memory.
    pub directory: Option<PathBuf>,
    /// Settings of RocksDB, for each node.
    pub rocks: RocksOptions,
    /// When a segment counts as full.
    pub segments: SegmentLimits,
    /// For tests.
    pub interpose: Option<Arc<dyn Interpose>>,
}

impl Default for LocalClusterOptions {
    fn default() -> Self {
        Self {
            nodes: 3,
            directory: None,
            rocks: RocksOptions::default(),
            segments: SegmentLimits::default(),
            interpose: None,
        }
    }
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
    /// Starts all nodes.
    ///
    /// # Errors
    /// When a directory is in use, or a node refuses its disk.
    pub async fn start(options: LocalClusterOptions) -> anyhow::Result<Self> {
        let on_disk = match &options.directory {
            Some(directory) => Some(LocalMetadata::open(directory.join("metadata")).await?),
            None => None,
        };
        let metadata: Arc<dyn MetadataStore> = match &on_disk {
            Some(metadata) => Arc::new(metadata.clone()),
            None => Arc::new(MemoryMetadata::new()),
        };
        let vacant = || Mutex::new(Slot { address: "127.0.0.1:0".to_owned(), node: None });
        let slots = (0..options.nodes).map(|_| vacant()).collect();
        let cluster = Self { options, metadata, on_disk, slots };
        for index in 0..cluster.slots.len() {
            if let Err(error) = cluster.start_node(index).await {
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

    /// A client through the network.
    ///
    /// # Errors
    /// When no node answers.
    pub async fn connect(&self) -> anyhow::Result<Bifrost> {
        Ok(Bifrost::connect(self.addresses().await).await?)
    }

    /// Starts a node that does not run, at its old address if that is free.
    ///
    /// # Errors
    /// When there is no such node, its directory is in use, or it refuses its disk.
    pub async fn start_node(&self, index: usize) -> anyhow::Result<()> {
        let slot = self.slots.get(index).context("no such node")?;
        let mut slot = slot.lock().await;
        if slot.node.is_some() {
            return Ok(());
        }
        let listener = match TcpListener::bind(&slot.address).await {
            Ok(listener) => listener,
            Err(_) => TcpListener::bind("127.0.0.1:0").await.context("no free port on loopback")?,
        };
        slot.address = listener.local_addr()?.to_string();
        let storage = match self.directory_of(index) {
            Some(directory) => Storage::Disk { directory, options: self.options.rocks.clone() },
            None => Storage::Memory,
        };
        let identity =
            Identity { name: format!("n{}", index + 1), address: String::new(), location: Location::default() };
        let options = NodeOptions {
            identity,
            storage,
            metadata: self.metadata.clone(),
            segments: self.options.segments,
            server: ServerLimits::default(),
            client: ClientOptions::default(),
            interpose: self.options.interpose.clone(),
        };
        slot.node = Some(Node::start(options, listener).await?);
        Ok(())
    }

    /// Stops a node in good order and frees its storage.
    pub async fn stop_node(&self, index: usize) {
        if let Some(slot) = self.slots.get(index) {
            let mut slot = slot.lock().await;
            if let Some(node) = slot.node.take() {
                node.shutdown().await;
            }
        }
    }

    /// Stops everything.
    pub async fn shutdown(&self) {
        for index in 0..self.slots.len() {
            self.stop_node(index).await;
        }
        if let Some(metadata) = &self.on_disk {
            metadata.shutdown().await;
        }
    }
}

fn node_directory(directory: &Path, index: usize) -> PathBuf {
    directory.join(format!("n{}", index + 1))
}
