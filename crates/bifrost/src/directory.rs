//! The nodes of the cluster as something to call, kept up to date from metadata.

use std::collections::BTreeMap;
use std::sync::Arc;

use bifrost_loglet::peers::Peers;
use bifrost_types::{NodeGeneration, NodeId, NodeRecord};
use bifrost_wire::codec::decode_node_record;
use bifrost_wire::log_server::LogServer;
use bifrost_wire::metadata::{Changes, MetadataError, Revision};
use bifrost_wire::sequencer::Sequencers;
use parking_lot::RwLock;
use tracing::{debug, warn};

use crate::back_off::BackOff;
use crate::catalog::{Catalog, CatalogError};
use crate::connect::{Connect, NodeServices};

#[derive(Debug)]
struct Entry {
    record: NodeRecord,
    services: Option<NodeServices>,
}

/// The nodes and their services. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Directory {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    catalog: Catalog,
    connect: Arc<dyn Connect>,
    nodes: RwLock<BTreeMap<NodeId, Entry>>,
}

impl Directory {
    /// An empty directory; [`refresh`](Self::refresh) or [`follow`](Self::follow) fills it.
    pub fn new(catalog: Catalog, connect: Arc<dyn Connect>) -> Self {
        Self { inner: Arc::new(Inner { catalog, connect, nodes: RwLock::new(BTreeMap::new()) }) }
    }

    /// The records of all nodes, by id.
    pub fn records(&self) -> Vec<NodeRecord> {
        self.inner.nodes.read().values().map(|entry| entry.record.clone()).collect()
    }

    /// The sequencers of this life of a node, or `None` if the node is unknown or lives another life (A6).
    pub fn sequencers(&self, node: NodeGeneration) -> Option<Arc<dyn Sequencers>> {
        let nodes = self.inner.nodes.read();
        let entry = nodes.get(&node.node)?;
        // A record that is older than the asked-for life is only late: let the node itself answer.
        if entry.record.id.generation > node.generation {
            return None;
        }
        entry.services.as_ref().map(|services| services.sequencers.clone())
    }

    /// Reads all records, linearizably; returns the revision to follow from.
    ///
    /// # Errors
    /// [`CatalogError`] when metadata cannot be read.
    ///
    /// # Cancel safety
    /// Safe: nothing changes before the read is complete.
    pub async fn refresh(&self) -> Result<Revision, CatalogError> {
        let (records, revision) = self.inner.catalog.nodes().await?;
        for record in records {
            self.learn(record);
        }
        Ok(revision)
    }

    /// Follows the records for ever; run it as a task.
    ///
    /// # Cancel safety
    /// Safe: it only reads.
    pub async fn follow(&self, from: Option<Revision>) {
        let mut seen = from;
        let mut back_off = BackOff::new();
        loop {
            let before = seen;
            if let Err(error) = self.follow_once(&mut seen).await {
                debug!(%error, "node records are not followed");
                if matches!(error, CatalogError::Metadata(MetadataError::Compacted { .. })) {
                    seen = None;
                }
            }
            if before != seen {
                back_off.reset();
            }
            back_off.pause().await;
        }
    }

    /// Returns when the watch ends; `seen` is where to resume.
    async fn follow_once(&self, seen: &mut Option<Revision>) -> Result<(), CatalogError> {
        let after = match *seen {
            Some(revision) => revision,
            None => *seen.insert(self.refresh().await?),
        };
        let mut watch = self.inner.catalog.watch_nodes(after).await?;
        while let Some(changes) = watch.recv().await {
            let Changes { revision, changes } = changes?;
            for change in changes {
                match change.value.map(|value| decode_node_record(&value)) {
                    Some(Ok(record)) => self.learn(record),
                    Some(Err(error)) => warn!(key = change.key, %error, "a node record cannot be read"),
                    None => self.forget(&change.key),
                }
            }
            *seen = Some(revision);
        }
        Ok(())
    }

    fn learn(&self, record: NodeRecord) {
        let mut nodes = self.inner.nodes.write();
        if let Some(known) = nodes.get_mut(&record.id.node) {
            if known.record.id.generation > record.id.generation {
                return;
            }
            let same_life = known.record.id == record.id && known.record.address == record.address;
            if same_life && known.services.is_some() {
                known.record = record;
                return;
            }
        }
        let services = self.inner.connect.connect(&record);
        nodes.insert(record.id.node, Entry { record, services });
    }

    fn forget(&self, key: &str) {
        let mut nodes = self.inner.nodes.write();
        if let Some(node) = key.rsplit('/').next().and_then(|id| id.trim_start_matches('0').parse().ok()) {
            nodes.remove(&node);
        }
    }
}

impl Peers for Directory {
    fn log_server(&self, node: NodeId) -> Option<Arc<dyn LogServer>> {
        let nodes = self.inner.nodes.read();
        nodes.get(&node)?.services.as_ref().map(|services| services.log_server.clone())
    }
}
