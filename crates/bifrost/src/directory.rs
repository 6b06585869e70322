//! The nodes of the cluster as something to call, kept up to date from metadata.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bifrost_loglet::peers::Peers;
use bifrost_types::{LogletId, LogletOffset, NodeGeneration, NodeId, NodeRecord, NodeSet, Nodeset, OpId, Successor};
use bifrost_wire::codec::decode_node_record;
use bifrost_wire::log_server::LogServer;
use bifrost_wire::metadata::{Changes, Revision};
use bifrost_wire::node::NodeService;
use bifrost_wire::sequencer::{EndRequest, Sequencers};
use futures_util::future::BoxFuture;
use parking_lot::RwLock;
use tokio::sync::{Mutex as AsyncMutex, watch};
use tracing::{debug, warn};

use crate::catalog::{Catalog, CatalogError, Roster};
use crate::connect::{Connect, NodeServices};
use crate::declared_lost::{Known as Heard, declared_lost};
use crate::placement::{self, PlanError};
use crate::resume::Bookmark;

#[derive(Debug)]
struct Entry {
    record: NodeRecord,
    /// Of the record: an older one that comes late changes nothing.
    revision: Revision,
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
    known: RwLock<Known>,
    /// Rung after each change of what is known.
    changes: watch::Sender<()>,
    /// Refreshes that were begun so far.
    begun: AtomicU64,
    /// The number of the last refresh that ended, and its end. Who holds it refreshes, on behalf of all who wait.
    refreshed: AsyncMutex<Option<(u64, Result<Revision, CatalogError>)>>,
}

#[derive(Debug)]
struct Known {
    /// The records are at least as new as this.
    roster: Roster,
    /// All records were read at this revision, or later.
    as_of: Option<Revision>,
    nodes: BTreeMap<NodeId, Entry>,
}

impl Directory {
    /// An empty directory; [`refresh`](Self::refresh) or [`follow`](Self::follow) fills it.
    pub fn new(catalog: Catalog, connect: Arc<dyn Connect>) -> Self {
        let known = RwLock::new(Known { roster: Roster::UNREAD, as_of: None, nodes: BTreeMap::new() });
        let (begun, refreshed) = (AtomicU64::new(0), AsyncMutex::new(None));
        let changes = watch::Sender::new(());
        Self { inner: Arc::new(Inner { catalog, connect, known, changes, begun, refreshed }) }
    }

    /// The records of all nodes, by id.
    pub fn records(&self) -> Vec<NodeRecord> {
        self.inner.known.read().nodes.values().map(|entry| entry.record.clone()).collect()
    }

    /// The record of a node, as last read.
    pub fn record(&self, node: NodeId) -> Option<NodeRecord> {
        self.inner.known.read().nodes.get(&node).map(|entry| entry.record.clone())
    }

    /// The members whose disks an operator gave up (R3), and whether a node is not known that a newer reading may know.
    /// `named_at` is the revision of the chain that names the nodeset.
    pub(crate) fn declared_lost(&self, nodeset: &Nodeset, named_at: Revision) -> (NodeSet, bool) {
        let known = self.inner.known.read();
        let as_new = known.as_of.is_some_and(|as_of| as_of >= named_at);
        let of = |node: NodeId| Heard::read(known.nodes.get(&node).map(|entry| &entry.record), as_new);
        let unheard = nodeset.members().iter().any(|member| of(member.node) == Heard::Unheard);
        (declared_lost(nodeset, |member| of(member.node)), unheard)
    }

    /// Rings after each change of what is known of the nodes.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.inner.changes.subscribe()
    }

    /// The sequencers of this life of a node, or `None` if the node is unknown or lives another life (A6).
    pub fn sequencers(&self, node: NodeGeneration) -> Option<Arc<dyn Sequencers>> {
        let known = self.inner.known.read();
        let entry = known.nodes.get(&node.node)?;
        // A record that is older than the asked-for life is only late: let the node itself answer.
        if entry.record.id.generation > node.generation {
            return None;
        }
        entry.services.as_ref().map(|services| services.sequencers.clone())
    }

    /// What a node says about itself, or `None` if the node is unknown or cannot be reached by any means.
    pub fn node(&self, node: NodeId) -> Option<Arc<dyn NodeService>> {
        let known = self.inner.known.read();
        known.nodes.get(&node)?.services.as_ref().map(|services| services.node.clone())
    }

    /// Reads all records, linearizably; returns the revision to follow from. Who asks at the same time shares one reading
    /// that began after all of them asked: the controller of a dead node's logs asks for each of them.
    ///
    /// # Errors
    /// [`CatalogError`] when metadata cannot be read.
    ///
    /// # Cancel safety
    /// Safe: nothing changes before the read is complete.
    pub async fn refresh(&self) -> Result<Revision, CatalogError> {
        let asked = self.inner.begun.load(Ordering::SeqCst);
        let mut last = self.inner.refreshed.lock().await;
        if let Some((number, end)) = *last
            && number > asked
        {
            return end;
        }
        let number = self.inner.begun.fetch_add(1, Ordering::SeqCst) + 1;
        let end = self.read_all().await;
        *last = Some((number, end));
        end
    }

    async fn read_all(&self) -> Result<Revision, CatalogError> {
        // In this order, and learnt in one step: the records are never older than the roster beside them.
        let roster = self.inner.catalog.roster().await?;
        let (records, revision) = self.inner.catalog.stored_nodes().await?;
        let mut known = self.inner.known.write();
        let listed: BTreeSet<NodeId> = records.iter().map(|(record, _)| record.id.node).collect();
        for (record, revision) in records {
            self.learn(&mut known, record, revision);
        }
        // What is newer than the list was learnt from a watch meanwhile.
        known.nodes.retain(|node, entry| listed.contains(node) || entry.revision > revision);
        known.roster = roster;
        known.as_of = known.as_of.max(Some(revision));
        drop(known);
        self.inner.changes.send_replace(());
        Ok(revision)
    }

    /// Whether all nodes of a successor may take a new segment, as far as this directory knows, and under which roster.
    ///
    /// # Errors
    /// [`PlanError`] for the first node that may not.
    pub(crate) fn admit(&self, successor: &Successor) -> Result<Roster, PlanError> {
        let known = self.inner.known.read();
        placement::admit(successor, |node| known.nodes.get(&node).map(|entry| &entry.record))?;
        Ok(known.roster)
    }

    /// Follows the records for ever; run it as a task.
    ///
    /// # Cancel safety
    /// Safe: it only reads.
    pub async fn follow(&self, from: Option<Revision>) {
        let mut bookmark = Bookmark::new("node records", from);
        loop {
            let ended = self.follow_once(&mut bookmark.seen).await;
            bookmark.pause_after(ended).await;
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
                match change.value.as_ref().map(|value| decode_node_record(value)) {
                    Some(Ok(record)) => self.learn(&mut self.inner.known.write(), record, change.revision),
                    Some(Err(error)) => warn!(key = change.key, %error, "a node record cannot be read"),
                    None => self.forget(&change.key, change.revision),
                }
            }
            {
                let mut known = self.inner.known.write();
                known.as_of = known.as_of.max(Some(revision));
            }
            self.inner.changes.send_replace(());
            *seen = Some(revision);
        }
        Ok(())
    }

    fn learn(&self, known: &mut Known, record: NodeRecord, revision: Revision) {
        if let Some(entry) = known.nodes.get_mut(&record.id.node) {
            if entry.revision > revision {
                return;
            }
            let same_life = entry.record.id == record.id && entry.record.address == record.address;
            entry.revision = revision;
            if same_life && entry.services.is_some() {
                entry.record = record;
                return;
            }
        }
        let services = self.inner.connect.connect(&record);
        known.nodes.insert(record.id.node, Entry { record, revision, services });
    }

    fn forget(&self, key: &str, revision: Revision) {
        let mut known = self.inner.known.write();
        if let Some(node) = Catalog::node_of(key)
            && known.nodes.get(&node).is_some_and(|entry| entry.revision < revision)
        {
            known.nodes.remove(&node);
        }
    }
}

impl Peers for Directory {
    fn log_server(&self, node: NodeId) -> Option<Arc<dyn LogServer>> {
        let known = self.inner.known.read();
        known.nodes.get(&node)?.services.as_ref().map(|services| services.log_server.clone())
    }

    fn who_is_lost(&self, nodeset: &Nodeset) -> BoxFuture<'static, Option<NodeSet>> {
        let (directory, nodeset) = (self.clone(), nodeset.clone());
        Box::pin(async move {
            // The word is for ever, so an old record that has it is as good as a new one, and news comes by the watch. Only of
            // whom nobody knows the records are read: no reading is as new as that.
            let (lost, unheard) = directory.declared_lost(&nodeset, Revision::MAX);
            if !unheard {
                return Some(lost);
            }
            // The nodeset was read from a chain before this began, so what is read now is no older.
            let as_of =
                directory.refresh().await.inspect_err(|error| debug!(%error, "nobody can say who is lost")).ok()?;
            Some(directory.declared_lost(&nodeset, as_of).0)
        })
    }

    fn end_sequencer(
        &self,
        loglet: LogletId,
        sequencer: NodeGeneration,
        op: OpId,
    ) -> BoxFuture<'static, Option<LogletOffset>> {
        let sequencers = self.sequencers(sequencer);
        Box::pin(async move {
            let ended = sequencers?.end(EndRequest { loglet, sequencer, op }).await;
            let ended =
                ended.inspect_err(|error| debug!(%loglet, %sequencer, %error, "it does not say how far it came"));
            Some(ended.ok()?.committed_tail)
        })
    }
}
