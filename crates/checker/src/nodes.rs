//! Lives of nodes, and the disks that they serve.

use std::collections::{BTreeMap, BTreeSet};

use bifrost_types::{DiskId, Generation, NodeGeneration, NodeId, NodeRecord, StorageState};

use crate::breach::{EventNumber, Judge};
use crate::rule::Rule;

#[derive(Debug, Default)]
struct Node {
    /// The latest life that metadata names, and when it was written.
    written: Option<(Generation, EventNumber)>,
    /// The latest life that served, and since when.
    started: Option<(Generation, EventNumber)>,
    /// The latest life that is over, and since when.
    stopped: Option<(Generation, EventNumber)>,
}

/// All nodes and disks of a history.
#[derive(Debug, Default)]
pub(crate) struct Nodes {
    nodes: BTreeMap<NodeId, Node>,
    owners: BTreeMap<DiskId, (NodeId, EventNumber)>,
    lost: BTreeMap<DiskId, EventNumber>,
    /// By an operator, for good.
    given_up: BTreeSet<DiskId>,
}

impl Nodes {
    pub(crate) fn written(&mut self, judge: &mut Judge, record: &NodeRecord) {
        let NodeGeneration { node, generation } = record.id;
        let known = self.nodes.entry(node).or_default();
        if let Some((before, event)) = known.written {
            judge.require(Rule::LivesGrow, before <= generation, [event], || {
                format!("metadata names {}, after generation {before}", record.id)
            });
        }
        known.written = Some((generation, judge.now()));
        if let Some(disk) = record.disk {
            self.owned(judge, node, disk);
            let lost = record.storage == StorageState::DataLoss && record.declared_lost;
            if lost || record.storage == StorageState::Retired {
                self.given_up.insert(disk);
            }
        }
    }

    pub(crate) fn started(&mut self, judge: &mut Judge, life: NodeGeneration, disk: DiskId) {
        let known = self.nodes.entry(life.node).or_default();
        if let Some((before, event)) = known.started.max(known.stopped) {
            judge.require(Rule::LivesGrow, before < life.generation, [event], || {
                format!("{life} serves after generation {before} of it did")
            });
        }
        if let Some((written, event)) = known.written {
            judge.require(Rule::LivesGrow, life.generation <= written, [event], || {
                format!("{life} serves, and metadata knows its generation {written} only")
            });
        }
        known.started = Some((life.generation, judge.now()));
        self.owned(judge, life.node, disk);
        self.alive(judge, disk);
    }

    /// Also a life that never came to serve.
    pub(crate) fn stopped(&mut self, judge: &Judge, life: NodeGeneration) {
        let known = self.nodes.entry(life.node).or_default();
        known.stopped = known.stopped.max(Some((life.generation, judge.now())));
    }

    pub(crate) fn lost(&mut self, judge: &Judge, disk: DiskId) {
        self.lost.entry(disk).or_insert(judge.now());
    }

    /// Whether an operator gave a disk up: nobody waits for it.
    pub(crate) fn is_given_up(&self, disk: DiskId) -> bool {
        self.given_up.contains(&disk)
    }

    /// A disk changes or serves: it must not have been lost (W2).
    pub(crate) fn alive(&self, judge: &mut Judge, disk: DiskId) {
        let lost = self.lost.get(&disk).copied();
        judge
            .require(Rule::OnlyNamedDisks, lost.is_none(), lost, || format!("disk {disk} was lost and is there again"));
    }

    /// A disk belongs to one node (W2).
    pub(crate) fn owned(&mut self, judge: &mut Judge, node: NodeId, disk: DiskId) {
        let (owner, event) = *self.owners.entry(disk).or_insert((node, judge.now()));
        judge.require(Rule::OnlyNamedDisks, owner == node, [event], || {
            format!("disk {disk} is served by {node} and belongs to {owner}")
        });
    }
}
