//! The nodes as an operator sees them: what is known of each, whether it answers, and what names it.
//!
//! Reading order: [`needs`] (what of a chain depends on a node, and what it would cost to lose it), [`transition`] (which
//! storage state leads to which), [`change`] (the transactions), then this file.

mod change;
mod needs;
mod transition;

use std::collections::BTreeMap;

use bifrost_types::{Chain, NodeId, NodeRecord};
use bifrost_wire::node::NodeStatus;
use futures_util::future::join_all;

use crate::catalog::CatalogError;
use crate::cluster::{Cluster, status_of};
use crate::handle::Bifrost;

pub use self::change::{NodeRemoved, RemoveNodeError, SetStorageError, StorageChanged};
pub use self::needs::{Cost, NEEDS_MAX, Need, Needs, Why};
pub use self::transition::{Transition, TransitionRefused, transition};

/// One node, as far as it can be told now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeView {
    /// The node.
    pub node: NodeId,
    /// Its record; `None` once it was removed, while a chain still names it.
    pub record: Option<NodeRecord>,
    /// What it says about itself; `None` if it does not answer.
    pub status: Option<NodeStatus>,
    /// What names it.
    pub mentions: Mentions,
}

impl NodeView {
    /// Whether the node answers, and its log server serves the disk of the record if there is one.
    pub fn answers(&self) -> bool {
        let (Some(record), Some(status)) = (&self.record, &self.status) else { return false };
        record.disk.is_none() || status.disk.map(|disk| disk.disk) == record.disk
    }
}

/// How often chains name a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Mentions {
    /// Open segments with the node in their nodeset.
    pub open_segments: u64,
    /// Closed segments with the node in their nodeset.
    pub closed_segments: u64,
    /// Logs whose appends the node numbers.
    pub sequenced_logs: u64,
}

impl Bifrost {
    /// All nodes by id: those that the cluster knows, and those that were removed and are still named by a chain. Asks
    /// every node whether it answers, and waits for a second at most for that.
    ///
    /// A chain that cannot be understood is passed over.
    ///
    /// # Errors
    /// [`CatalogError`] when metadata cannot be read.
    ///
    /// # Cancel safety
    /// Safe: it only asks.
    pub async fn node_views(&self) -> Result<Vec<NodeView>, CatalogError> {
        let cluster = self.cluster();
        let (records, mentions) = tokio::join!(known_nodes(cluster), mentions(cluster));
        let mut views = BTreeMap::new();
        for (node, mentions) in mentions? {
            views.insert(node, NodeView { node, record: None, status: None, mentions });
        }
        for (record, status) in records? {
            let node = record.id.node;
            let mentions = views.get(&node).map(|view| view.mentions).unwrap_or_default();
            views.insert(node, NodeView { node, record: Some(record), status, mentions });
        }
        Ok(views.into_values().collect())
    }

    /// The segments that need a node, known or removed, and what it would cost each to lose it.
    ///
    /// # Errors
    /// [`CatalogError`] when metadata cannot be read; [`CatalogError::Damaged`] when there is a chain that nobody can
    /// understand, because it may need the node.
    ///
    /// # Cancel safety
    /// Safe: it only reads.
    pub async fn node_needs(&self, node: NodeId) -> Result<Needs, CatalogError> {
        Needs::find(&self.cluster().catalog, node).await
    }
}

async fn known_nodes(cluster: &Cluster) -> Result<Vec<(NodeRecord, Option<NodeStatus>)>, CatalogError> {
    cluster.directory.refresh().await?;
    let (records, _) = cluster.catalog.nodes().await?;
    let asked = records.into_iter().map(async |record| {
        let status = status_of(&cluster.directory, record.id.node).await;
        (record, status)
    });
    Ok(join_all(asked).await)
}

async fn mentions(cluster: &Cluster) -> Result<BTreeMap<NodeId, Mentions>, CatalogError> {
    let mut mentions = BTreeMap::new();
    cluster.catalog.visit_chains(|stored| count(&stored.chain, &mut mentions)).await?;
    Ok(mentions)
}

fn count(chain: &Chain, mentions: &mut BTreeMap<NodeId, Mentions>) {
    for segment in &chain.segments {
        let open = segment.decided_tail().is_none();
        for member in segment.params.nodeset.members() {
            let mentioned = mentions.entry(member.node).or_default();
            let segments = if open { &mut mentioned.open_segments } else { &mut mentioned.closed_segments };
            *segments += 1;
        }
        let sequencer = mentions.entry(segment.params.sequencer.node).or_default();
        sequencer.sequenced_logs += u64::from(open);
    }
}

#[cfg(test)]
mod tests;
