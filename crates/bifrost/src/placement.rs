//! Where a new segment goes: a pure choice from the node records and from what the nodes that answer say of themselves.
//!
//! Of members: domains are spread first; a disk below its soft mark is taken only if nothing else can hold the segment;
//! then come those that answer and stay, then those with room, then those with little to do, in buckets so coarse that a
//! small change moves nothing. A present nodeset that is as good as the best one is kept.
//!
//! Of sequencers: the operator's pin, then the node that the log is appended from (`preferred`), then the present one if it
//! is well, then one that holds copies and has little to do. What is equal is decided by log and node, so that the logs
//! of a node that died spread over all others.
//!
//! Reading order: this file, `members`, `sequencer`, `weight` (what the buckets are).

mod members;
mod sequencer;
#[cfg(test)]
mod tests;
mod weight;

use std::num::NonZeroU8;

use bifrost_loglet::quorum::{Quorum, QuorumError};
use bifrost_types::{
    LogletParams, Member, NodeId, NodeRecord, NodeSet, Nodeset, NodesetError, ReplicationProperty, Role, Scope,
    StorageState, Successor,
};
use bifrost_wire::node::{DiskStatus, Fullness, NodeStatus};
use thiserror::Error;

use self::weight::{Fitness, fitness};

/// What is known when a segment is placed.
#[derive(Debug, Clone, Copy)]
pub struct Situation<'a> {
    /// All node records.
    pub nodes: &'a [NodeRecord],
    /// What the nodes that answered a moment ago said; only they can sequence. The order does not matter.
    pub answers: &'a [NodeStatus],
    /// The segment that the new one follows, if there is one.
    pub present: Option<&'a LogletParams>,
    /// What is to become of its sequencer.
    pub leave: Leave,
    /// The node that an operator pinned the sequencer to.
    pub pin: Option<NodeId>,
    /// The node that the log is appended from.
    pub preferred: Option<NodeId>,
    /// Decides between equals: the number of the log, or any other number before it has one.
    pub seed: u64,
    /// The largest nodeset.
    pub nodeset_max: usize,
}

/// What is to become of the present sequencer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leave {
    /// It stays where it is if its node is well.
    Stay,
    /// Another one takes over if there is one.
    Rotate,
    /// It is gone: this life of its node must not be chosen again.
    Gone,
}

/// The members of a nodeset of whose disks an answer is so.
fn members_that<'a>(
    answers: &'a [NodeStatus],
    nodeset: &Nodeset,
    is_so: impl Fn(&'a NodeStatus, &'a DiskStatus) -> bool,
) -> NodeSet {
    let found = |member: &Member| {
        let of_node = answers.iter().filter(|status| status.id.node == member.node);
        let mut disks = of_node.filter_map(|status| Some((status, status.disk.as_ref()?)));
        disks.any(|(status, disk)| disk.disk == member.disk && is_so(status, disk))
    };
    nodeset.iter().filter(|(_, member)| found(member)).map(|(index, _)| index).collect()
}

/// Whether those who answer can commit appends to a loglet. Who is about to stop takes them still.
pub fn takes_appends(answers: &[NodeStatus], LogletParams { nodeset, replication, .. }: &LogletParams) -> bool {
    let with_room = members_that(answers, nodeset, |_, disk| disk.fullness < Fullness::Full);
    Quorum::new(nodeset, replication).is_ok_and(|quorum| quorum.is_write_quorum(with_room))
}

/// Whether `next` would take appends with those who answer now, where the open segment takes none and can be closed. Who has
/// no room can be sealed.
pub fn takes_appends_again(answers: &[NodeStatus], open: &LogletParams, next: &Successor) -> bool {
    let answer = members_that(answers, &open.nodeset, |_, _| true);
    let well = members_that(answers, &next.nodeset, |status, _| fitness(Some(status)) == Fitness::Well);
    !takes_appends(answers, open)
        && Quorum::new(&open.nodeset, &open.replication).is_ok_and(|quorum| quorum.is_f_majority(answer))
        && Quorum::new(&next.nodeset, &next.replication).is_ok_and(|quorum| quorum.is_write_quorum(well))
}

/// The replication of a log whose creator did not say: two nodes, or one if there is only one.
pub fn default_replication(nodes: &[NodeRecord]) -> ReplicationProperty {
    let usable = nodes.iter().filter(|node| is_usable(node)).count();
    let copies = if usable >= 2 { 2 } else { 1 };
    ReplicationProperty::nodes(NonZeroU8::new(copies).unwrap_or(NonZeroU8::MIN))
}

/// Chooses nodeset and sequencer, or `None` when no set of usable nodes meets the property or none that answers can
/// sequence. The same situation gives the same choice.
pub fn place(situation: Situation<'_>, replication: &ReplicationProperty) -> Option<Successor> {
    let nodeset = members::choose(situation, replication)?;
    let sequencer = sequencer::choose(situation, &nodeset)?;
    Some(Successor { nodeset, replication: replication.clone(), sequencer })
}

/// What somebody wants of the next segment; what is `None` is left to placement.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Wish {
    /// The nodes that may hold its records; the order does not matter.
    pub nodes: Option<Vec<NodeId>>,
    /// Its replication property.
    pub replication: Option<ReplicationProperty>,
    /// The node of its sequencer.
    pub sequencer: Option<NodeId>,
}

/// Why the next segment cannot be as somebody wants it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum PlanError {
    /// The cluster does not know the node, or not any more.
    #[error("{node} is not a node of this cluster")]
    UnknownNode {
        /// The node.
        node: NodeId,
    },
    /// The node takes no new segments.
    #[error("{node} takes no new segments: its storage is {storage}")]
    NotWritable {
        /// The node.
        node: NodeId,
        /// What its record says.
        storage: StorageState,
    },
    /// The nodes are no nodeset.
    #[error(transparent)]
    Nodeset(#[from] NodesetError),
    /// The nodes cannot hold a single record as the property wants it.
    #[error(transparent)]
    Quorum(#[from] QuorumError),
    /// The node has not the role.
    #[error("{node} has not the role {role}")]
    NoRole {
        /// The node.
        node: NodeId,
        /// Which role.
        role: Role,
    },
    /// The sequencer's node does not answer now.
    #[error("{node} does not answer, so it cannot number appends")]
    SequencerSilent {
        /// The node.
        node: NodeId,
    },
    /// Nothing is wrong with the wish, and no set of nodes can meet it now.
    #[error("no set of nodes can hold the log with its replication property now")]
    NoPlacement,
}

/// Like [`place`], as far as the wish leaves room. Only nodes that answer can sequence.
///
/// # Errors
/// [`PlanError`]; it names the node or the domain that is in the way.
pub fn plan(situation: Situation<'_>, wish: &Wish, replication: &ReplicationProperty) -> Result<Successor, PlanError> {
    let replication = wish.replication.as_ref().unwrap_or(replication);
    // What is wrong with the wish is said before what is wrong with the cluster.
    let wished = wish.sequencer.map(|node| sequencer::wished(situation, node)).transpose()?;
    let nodeset = match &wish.nodes {
        Some(nodes) => wished_nodeset(situation, nodes, replication)?,
        None => members::choose(situation, replication).ok_or(PlanError::NoPlacement)?,
    };
    let sequencer = wished.or_else(|| sequencer::choose(situation, &nodeset)).ok_or(PlanError::NoPlacement)?;
    Ok(Successor { nodeset, replication: replication.clone(), sequencer })
}

fn wished_nodeset(
    situation: Situation<'_>,
    nodes: &[NodeId],
    replication: &ReplicationProperty,
) -> Result<Nodeset, PlanError> {
    let member = |node: &NodeId| {
        let record = situation.nodes.iter().find(|record| record.id.node == *node);
        let record = record.ok_or(PlanError::UnknownNode { node: *node })?;
        holds_copies(record)?;
        member(record).ok_or(PlanError::NotWritable { node: *node, storage: record.storage })
    };
    let nodeset = Nodeset::new(nodes.iter().map(member).collect::<Result<_, PlanError>>()?)?;
    Quorum::new(&nodeset, replication)?;
    Ok(nodeset)
}

/// The place of a node in a nodeset, if it has a disk.
fn member(record: &NodeRecord) -> Option<Member> {
    Some(Member { node: record.id.node, disk: record.disk?, location: record.location.clone() })
}

fn is_usable(node: &NodeRecord) -> bool {
    holds_copies(node).is_ok()
}

/// Whether a node may hold the copies of new segments.
fn holds_copies(record: &NodeRecord) -> Result<(), PlanError> {
    let node = record.id.node;
    if !record.roles.has(Role::LogServer) {
        return Err(PlanError::NoRole { node, role: Role::LogServer });
    }
    if record.storage != StorageState::ReadWrite || record.disk.is_none() {
        return Err(PlanError::NotWritable { node, storage: record.storage });
    }
    Ok(())
}

/// Whether a node may number the appends of new segments: a disk that is out of service takes its node with it.
const fn may_sequence(record: &NodeRecord) -> Result<(), PlanError> {
    let node = record.id.node;
    if !record.roles.has(Role::Sequencer) {
        return Err(PlanError::NoRole { node, role: Role::Sequencer });
    }
    match record.storage {
        StorageState::Provisioning | StorageState::ReadWrite | StorageState::ReadOnly => Ok(()),
        StorageState::DataLoss | StorageState::Retired => Err(PlanError::NotWritable { node, storage: record.storage }),
    }
}

/// Whether all nodes of a successor may take a new segment, by these records.
///
/// # Errors
/// [`PlanError::UnknownNode`], [`PlanError::NoRole`] or [`PlanError::NotWritable`], for the first that may not.
pub fn admit<'a>(successor: &Successor, record_of: impl Fn(NodeId) -> Option<&'a NodeRecord>) -> Result<(), PlanError> {
    let record = |node: NodeId| record_of(node).ok_or(PlanError::UnknownNode { node });
    for member in successor.nodeset.members() {
        let record = record(member.node)?;
        holds_copies(record)?;
        if record.disk != Some(member.disk) {
            return Err(PlanError::NotWritable { node: member.node, storage: record.storage });
        }
    }
    may_sequence(record(successor.sequencer.node)?)
}

/// The scopes that a property names beyond nodes; a nodeset must know them for its members.
pub fn needs_locations(replication: &ReplicationProperty) -> bool {
    replication.counts().any(|(scope, count)| scope != Scope::Node && count.get() > 1)
}
