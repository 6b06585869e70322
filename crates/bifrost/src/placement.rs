//! Where a new segment goes: a pure choice from the node records and from who answers now.

use std::num::NonZeroU8;

use bifrost_loglet::quorum::Quorum;
use bifrost_types::{
    Member, NodeGeneration, NodeId, NodeRecord, Nodeset, ReplicationProperty, Scope, StorageState, Successor,
};

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

fn is_usable(node: &NodeRecord) -> bool {
    node.storage == StorageState::ReadWrite && node.disk.is_some()
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
    let answering = |node: &&NodeRecord| situation.answering.contains(&node.id.node);
    let candidates: Vec<NodeGeneration> = situation.nodes.iter().filter(answering).map(|node| node.id).collect();
    let Some(avoid) = situation.avoid else {
        let fastest = situation.answering.first()?;
        return candidates.into_iter().find(|candidate| candidate.node == *fastest);
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
    use bifrost_types::{DiskId, Generation, Location};

    use super::*;

    fn node(id: u32, zone: &str) -> NodeRecord {
        NodeRecord {
            id: NodeGeneration::new(NodeId::try_from(id).expect("non-zero"), Generation::FIRST),
            name: format!("n{id}"),
            address: String::new(),
            location: Location { region: String::new(), zone: zone.to_owned() },
            disk: DiskId::try_from(u128::from(id)).ok(),
            storage: StorageState::ReadWrite,
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
