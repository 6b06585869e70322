//! Where a new segment goes: a pure choice from the node records and from who answers now.

use std::num::NonZeroU8;

use bifrost_loglet::quorum::{Quorum, QuorumError};
use bifrost_types::{
    Member, NodeGeneration, NodeId, NodeRecord, Nodeset, NodesetError, ReplicationProperty, Scope, StorageState,
    Successor,
};
use thiserror::Error;

/// What is known when a segment is placed.
#[derive(Debug, Clone, Copy)]
pub struct Situation<'a> {
    /// All node records.
    pub nodes: &'a [NodeRecord],
    /// The nodes that answered a moment ago, fastest first; only they can sequence.
    pub answering: &'a [NodeId],
    /// The sequencer to leave, if any.
    pub avoid: Option<NodeGeneration>,
    /// Whether another sequencer is wanted even if the present one is well.
    pub rotate: bool,
    /// The largest nodeset.
    pub nodeset_max: usize,
}

/// The replication of a log whose creator did not say: two nodes, or one if there is only one.
pub fn default_replication(nodes: &[NodeRecord]) -> ReplicationProperty {
    let usable = nodes.iter().filter(|node| is_usable(node)).count();
    let copies = if usable >= 2 { 2 } else { 1 };
    ReplicationProperty::nodes(NonZeroU8::new(copies).unwrap_or(NonZeroU8::MIN))
}

/// Chooses nodeset and sequencer, or `None` when no set of usable nodes meets the property or none that answers can
/// sequence. Nodes that answer come first, domains are spread, and the same situation gives the same choice.
pub fn place(situation: Situation<'_>, replication: &ReplicationProperty) -> Option<Successor> {
    let mut usable: Vec<&NodeRecord> = situation.nodes.iter().filter(|node| is_usable(node)).collect();
    usable.sort_by_key(|node| (!situation.answering.contains(&node.id.node), node.id.node));
    let members = spread(&usable, situation.nodeset_max.max(usize::from(replication.copies().get())));
    let nodeset = Nodeset::new(members).ok()?;
    Quorum::new(&nodeset, replication).ok()?;
    let sequencer = sequencer(situation)?;
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
    let record = |id: NodeId| {
        let found = situation.nodes.iter().find(|record| record.id.node == id);
        found.ok_or(PlanError::UnknownNode { node: id })
    };
    let sequencer_of = |answering: &[NodeId]| match wish.sequencer {
        Some(node) => {
            let record = record(node)?;
            if !may_sequence(record) {
                return Err(PlanError::NotWritable { node, storage: record.storage });
            }
            answering.contains(&node).then_some(record.id).ok_or(PlanError::SequencerSilent { node })
        }
        None => sequencer(Situation { answering, ..situation }).ok_or(PlanError::NoPlacement),
    };
    let Some(nodes) = &wish.nodes else {
        let sequencer = sequencer_of(situation.answering)?;
        let placed = place(situation, replication).ok_or(PlanError::NoPlacement)?;
        return Ok(Successor { sequencer, ..placed });
    };
    let member = |node: &NodeId| {
        let record = record(*node)?;
        let not_writable = PlanError::NotWritable { node: *node, storage: record.storage };
        let disk = record.disk.filter(|_| is_usable(record)).ok_or(not_writable)?;
        Ok(Member { node: *node, disk, location: record.location.clone() })
    };
    let nodeset = Nodeset::new(nodes.iter().map(member).collect::<Result<_, PlanError>>()?)?;
    Quorum::new(&nodeset, replication)?;
    // Rather one that holds copies, which saves a hop.
    let mut answering: Vec<NodeId> = situation.answering.to_vec();
    answering.sort_by_key(|node| nodeset.index_of(*node).is_none());
    let within: Vec<NodeId> = answering.iter().copied().filter(|node| nodeset.index_of(*node).is_some()).collect();
    let sequencer = match wish.sequencer {
        None if !within.is_empty() => sequencer_of(&within)?,
        _ => sequencer_of(&answering)?,
    };
    Ok(Successor { nodeset, replication: replication.clone(), sequencer })
}

fn is_usable(node: &NodeRecord) -> bool {
    node.storage == StorageState::ReadWrite && node.disk.is_some()
}

/// Whether a node may number the appends of new segments: a disk that is out of service takes its node with it.
const fn may_sequence(node: &NodeRecord) -> bool {
    match node.storage {
        StorageState::Provisioning | StorageState::ReadWrite | StorageState::ReadOnly => true,
        StorageState::DataLoss | StorageState::Retired => false,
    }
}

/// Whether all nodes of a successor may take a new segment, by these records.
///
/// # Errors
/// [`PlanError::UnknownNode`] or [`PlanError::NotWritable`], for the first that may not.
pub fn admit<'a>(successor: &Successor, record_of: impl Fn(NodeId) -> Option<&'a NodeRecord>) -> Result<(), PlanError> {
    let record = |node: NodeId| record_of(node).ok_or(PlanError::UnknownNode { node });
    for member in successor.nodeset.members() {
        let record = record(member.node)?;
        if !is_usable(record) || record.disk != Some(member.disk) {
            return Err(PlanError::NotWritable { node: member.node, storage: record.storage });
        }
    }
    let sequencer = record(successor.sequencer.node)?;
    if may_sequence(sequencer) {
        Ok(())
    } else {
        Err(PlanError::NotWritable { node: successor.sequencer.node, storage: sequencer.storage })
    }
}

/// Takes one node of each zone in turn, so that a nodeset smaller than the cluster covers as many zones as it can.
fn spread(usable: &[&NodeRecord], size: usize) -> Vec<Member> {
    let mut taken: Vec<&NodeRecord> = Vec::new();
    let mut rest: Vec<&NodeRecord> = usable.to_vec();
    while taken.len() < size && !rest.is_empty() {
        let mut zones = Vec::new();
        let mut later = Vec::new();
        for node in rest {
            if zones.contains(&&node.location) || taken.len() == size {
                later.push(node);
            } else {
                zones.push(&node.location);
                taken.push(node);
            }
        }
        rest = later;
    }
    let member = |node: &NodeRecord| {
        let disk = node.disk?;
        Some(Member { node: node.id.node, disk, location: node.location.clone() })
    };
    taken.into_iter().filter_map(member).collect()
}

/// The node after the avoided one, in order of ids, among those that answer; the avoided node itself only in another
/// life, or when nobody else answers and it is only to be rotated away from.
fn sequencer(situation: Situation<'_>) -> Option<NodeGeneration> {
    let fit = |node: &&NodeRecord| situation.answering.contains(&node.id.node) && may_sequence(node);
    let candidates: Vec<NodeGeneration> = situation.nodes.iter().filter(fit).map(|node| node.id).collect();
    let Some(avoid) = situation.avoid else {
        let place = |candidate: &NodeGeneration| situation.answering.iter().position(|node| *node == candidate.node);
        return candidates.into_iter().min_by_key(place);
    };
    let mut others: Vec<NodeGeneration> = candidates.iter().copied().filter(|node| *node != avoid).collect();
    others.sort_by_key(|candidate| (candidate.node <= avoid.node, candidate.node));
    let present = candidates.contains(&avoid).then_some(avoid);
    if situation.rotate { others.first().copied().or(present) } else { others.first().copied() }
}

/// The scopes that a property names beyond nodes; a nodeset must know them for its members.
pub fn needs_locations(replication: &ReplicationProperty) -> bool {
    replication.counts().any(|(scope, count)| scope != Scope::Node && count.get() > 1)
}

#[cfg(test)]
mod tests {
    use bifrost_types::{DiskId, Generation, Location, Roles};

    use super::*;

    fn node(id: u32, zone: &str) -> NodeRecord {
        NodeRecord {
            id: NodeGeneration::new(NodeId::try_from(id).expect("non-zero"), Generation::FIRST),
            name: format!("n{id}"),
            address: String::new(),
            location: Location { region: String::new(), zone: zone.to_owned() },
            disk: DiskId::try_from(u128::from(id)).ok(),
            storage: StorageState::ReadWrite,
            roles: Roles::DATA,
        }
    }

    fn ids(nodes: &[NodeRecord]) -> Vec<NodeId> {
        nodes.iter().map(|node| node.id.node).collect()
    }

    fn situation<'a>(nodes: &'a [NodeRecord], answering: &'a [NodeId]) -> Situation<'a> {
        Situation { nodes, answering, avoid: None, rotate: false, nodeset_max: 5 }
    }

    fn property(text: &str) -> ReplicationProperty {
        text.parse().expect("a property")
    }

    #[test]
    fn a_nodeset_spreads_over_zones_and_prefers_those_who_answer() {
        let nodes = [node(1, "a"), node(2, "a"), node(3, "b"), node(4, "c")];
        let answering = ids(&nodes[1..]);
        let small = Situation { nodeset_max: 3, ..situation(&nodes, &answering) };
        let placed = place(small, &property("{zone: 2, node: 3}")).expect("three zones");
        let members: Vec<u32> = placed.nodeset.members().iter().map(|member| member.node.get()).collect();
        assert_eq!(members, [2, 3, 4]);
    }

    #[test]
    fn what_no_nodeset_can_meet_is_not_placed() {
        let nodes = [node(1, "a"), node(2, "a")];
        let answering = ids(&nodes);
        assert_eq!(place(situation(&nodes, &answering), &property("3")), None);
        assert_eq!(place(situation(&nodes, &answering), &property("{zone: 2}")), None);
        assert_eq!(place(situation(&nodes, &[]), &property("2")), None, "nobody can sequence");
    }

    #[test]
    fn a_wish_is_met_or_refused_by_name() {
        let mut nodes = [node(1, "a"), node(2, "a"), node(3, "b"), node(4, "b")];
        nodes[3].storage = StorageState::ReadOnly;
        let all = ids(&nodes);
        let now = situation(&nodes, &all[..2]);
        let id = |number: u32| NodeId::try_from(number).expect("non-zero");
        let of = |numbers: &[u32]| Wish { nodes: Some(numbers.iter().copied().map(id).collect()), ..Wish::default() };
        let two = property("2");
        let planned = plan(now, &of(&[3, 1]), &two).expect("both are well");
        assert_eq!((planned.nodeset.size(), planned.sequencer), (2, nodes[0].id));
        assert_eq!(plan(now, &of(&[1, 9]), &two), Err(PlanError::UnknownNode { node: id(9) }));
        let storage = StorageState::ReadOnly;
        assert_eq!(plan(now, &of(&[1, 4]), &two), Err(PlanError::NotWritable { node: id(4), storage }));
        assert_eq!(plan(now, &of(&[1, 1]), &two), Err(NodesetError::Duplicate { node: id(1) }.into()));
        let too_few = QuorumError { scope: Scope::Node, wanted: 2, present: 1 };
        assert_eq!(plan(now, &of(&[1]), &two), Err(too_few.into()));
        let one_zone = QuorumError { scope: Scope::Zone, wanted: 2, present: 1 };
        let zones = Wish { replication: Some(property("{zone: 2}")), ..of(&[1, 2]) };
        assert_eq!(plan(now, &zones, &two), Err(one_zone.into()));
        let by = |number| Wish { sequencer: Some(id(number)), ..Wish::default() };
        assert_eq!(plan(now, &by(2), &two).map(|planned| planned.sequencer), Ok(nodes[1].id));
        assert_eq!(plan(now, &by(3), &two), Err(PlanError::SequencerSilent { node: id(3) }));
        assert_eq!(plan(now, &by(9), &two), Err(PlanError::UnknownNode { node: id(9) }));
    }

    #[test]
    fn a_sequencer_that_is_gone_is_left_and_one_that_is_well_can_be_rotated() {
        let nodes = [node(1, "a"), node(2, "a"), node(3, "a")];
        let answering = ids(&nodes);
        let avoid = Some(nodes[2].id);
        let gone = Situation { avoid, ..situation(&nodes, &answering) };
        assert_eq!(place(gone, &property("2")).map(|placed| placed.sequencer), Some(nodes[0].id));
        let alone = Situation { avoid, answering: &answering[2..], ..situation(&nodes, &answering) };
        assert_eq!(place(alone, &property("2")), None);
        let rotated = Situation { rotate: true, ..alone };
        assert_eq!(place(rotated, &property("2")).map(|placed| placed.sequencer), Some(nodes[2].id));
    }
}
