//! Which node numbers the appends.

use bifrost_types::{NodeGeneration, NodeId, NodeRecord, Nodeset, StorageState};
use bifrost_wire::node::NodeStatus;

use super::weight::{is_busy_sequencer, turn};
use super::{Leave, PlanError, Situation, may_sequence};

/// The sequencer that somebody asked for by name.
pub(super) fn wished(situation: Situation<'_>, node: NodeId) -> Result<NodeGeneration, PlanError> {
    let record = situation.nodes.iter().find(|record| record.id.node == node);
    let record = record.ok_or(PlanError::UnknownNode { node })?;
    may_sequence(record)?;
    let answer = situation.answers.iter().find(|status| status.id.node == node);
    answer.map(|status| life(record, status)).ok_or(PlanError::SequencerSilent { node })
}

/// The life that will number: a record may be older than what the node says itself, and the other way round.
fn life(record: &NodeRecord, status: &NodeStatus) -> NodeGeneration {
    NodeGeneration::new(record.id.node, record.id.generation.max(status.id.generation))
}

#[derive(Debug, Clone, Copy)]
struct Candidate<'a> {
    id: NodeGeneration,
    status: &'a NodeStatus,
    /// It is about to stop, or its disk is on its way out of service and the node probably with it.
    departs: bool,
}

/// Chooses among the nodes that answer; `None` when none of them can.
pub(super) fn choose(situation: Situation<'_>, nodeset: &Nodeset) -> Option<NodeGeneration> {
    let present = situation.present.map(|present| present.sequencer);
    let gone = |id: NodeGeneration| situation.leave == Leave::Gone && Some(id) == present;
    let candidates: Vec<Candidate<'_>> = situation
        .nodes
        .iter()
        .filter(|record| may_sequence(record).is_ok())
        .filter_map(|record| {
            let status = situation.answers.iter().find(|status| status.id.node == record.id.node)?;
            let departs = status.leaving || record.storage == StorageState::ReadOnly;
            Some(Candidate { id: life(record, status), status, departs })
        })
        .filter(|candidate| !gone(candidate.id))
        .collect();
    // Such a node is left alone while there is another one.
    let staying: Vec<_> = candidates.iter().copied().filter(|candidate| !candidate.departs).collect();
    let candidates = if staying.is_empty() { candidates } else { staying };
    let named = |node: Option<NodeId>| candidates.iter().find(|candidate| Some(candidate.id.node) == node);
    let here = |id: NodeGeneration| Some(id) == present;
    let wanted = match situation.leave {
        Leave::Stay | Leave::Gone => named(situation.pin).or_else(|| named(situation.preferred)),
        // Whoever asks for another one does not mean the one that is there, but an operator's pin holds.
        Leave::Rotate => {
            named(situation.pin).or_else(|| named(situation.preferred).filter(|candidate| !here(candidate.id)))
        }
    };
    if let Some(wanted) = wanted {
        return Some(wanted.id);
    }
    if let Some(stays) = candidates.iter().find(|candidate| situation.leave == Leave::Stay && here(candidate.id)) {
        return Some(stays.id);
    }
    let least = candidates.iter().map(|candidate| candidate.status.load.open_sequencers).min()?;
    let order = |node: NodeId| match (situation.leave, present) {
        // In a ring, so that whoever rotates a log again and again comes to every node.
        (Leave::Rotate, Some(present)) => u64::from(node <= present.node),
        (Leave::Stay | Leave::Rotate | Leave::Gone, _) => turn(situation.seed, node),
    };
    let rank = |candidate: &&Candidate<'_>| {
        let node = candidate.id.node;
        let busy = is_busy_sequencer(candidate.status.load.open_sequencers, least);
        // One that holds copies saves a hop.
        (here(candidate.id), nodeset.index_of(node).is_none(), busy, order(node), node)
    };
    candidates.iter().min_by_key(rank).map(|candidate| candidate.id)
}
