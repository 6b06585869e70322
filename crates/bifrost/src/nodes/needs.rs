//! What of the logs depends on one node, and what it would cost to lose it: a pure look at chains.

use bifrost_loglet::quorum::Quorum;
use bifrost_types::{Chain, LogletId, LogletOffset, LogletParams, Member, NodeId, NodeSet, Nodeset, Segment};

use crate::catalog::{Catalog, CatalogError};
use crate::declared_lost::{Known, declared_lost};

/// So many needs are listed; more are only counted.
pub const NEEDS_MAX: usize = 1000;

/// Everything that needs a node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Needs {
    /// In the order of logs and segments, [`NEEDS_MAX`] at most.
    pub listed: Vec<Need>,
    /// Those that were only counted.
    pub more: u64,
}

/// One segment that needs a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Need {
    /// The segment.
    pub loglet: LogletId,
    /// The name of its log.
    pub name: Option<String>,
    /// What for.
    pub why: Why,
    /// What follows if the node never comes back.
    pub cost: Cost,
}

/// What a segment needs a node for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// It is open, and the node numbers its appends.
    Sequencer,
    /// It is open, and the node is in its nodeset.
    OpenCopy,
    /// It is closed and has records that are not trimmed, and the node is in its nodeset.
    ClosedCopy,
    /// It is to be opened by a reconfiguration that is pending, on this node. The segment is the one that is closing.
    Pending,
}

/// What follows for a segment if a node never comes back, and nobody else is lost but whom an operator gave up. Ordered
/// from least to most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cost {
    /// Another node must take over.
    Moves,
    /// Every record is on another node of the nodeset; there is one copy less of some.
    FewerCopies,
    /// It takes no more appends until it was reconfigured.
    NoAppends,
    /// Records may have been on this node only: they are lost then, and an open segment cannot be closed before an operator
    /// has given the disk up.
    MayLoseRecords,
}

impl Needs {
    /// Reads all chains, linearizably.
    pub(super) async fn find(catalog: &Catalog, node: NodeId) -> Result<Self, CatalogError> {
        let mut needs = Self::default();
        let (records, as_of) = catalog.nodes().await?;
        let visit = catalog.visit_every_chain(|stored| {
            let record_of = |node| records.iter().find(|record| record.id.node == node);
            let as_new = stored.revision <= as_of;
            let lost = |nodeset: &Nodeset| declared_lost(nodeset, |member| Known::read(record_of(member.node), as_new));
            needs.add(&stored.chain, node, lost);
        });
        visit.await?;
        Ok(needs)
    }

    /// Whether nothing needs the node.
    pub const fn is_empty(&self) -> bool {
        self.listed.is_empty()
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.more.saturating_add(u64::try_from(self.listed.len()).unwrap_or(u64::MAX))
    }

    fn add(&mut self, chain: &Chain, node: NodeId, lost: impl Fn(&Nodeset) -> NodeSet) {
        let mut push = |loglet, why, cost| {
            if self.listed.len() < NEEDS_MAX {
                self.listed.push(Need { loglet, name: chain.name.clone(), why, cost });
            } else {
                self.more = self.more.saturating_add(1);
            }
        };
        for segment in &chain.segments {
            let params = &segment.params;
            let open = segment.decided_tail().is_none();
            if open && params.sequencer.node == node {
                push(params.id, Why::Sequencer, Cost::Moves);
            }
            if params.nodeset.index_of(node).is_some() && (open || has_records(chain, segment)) {
                let why = if open { Why::OpenCopy } else { Why::ClosedCopy };
                push(params.id, why, cost(params, node, lost(&params.nodeset), open));
            }
        }
        let pending = chain.pending.as_ref();
        if let Some((pending, successor)) = pending.and_then(|pending| Some((pending, pending.successor.as_ref()?)))
            && (successor.sequencer.node == node || successor.nodeset.index_of(node).is_some())
        {
            push(LogletId::new(chain.log, pending.segment), Why::Pending, Cost::Moves);
        }
    }
}

/// Whether a closed segment has records that are not trimmed.
fn has_records(chain: &Chain, segment: &Segment) -> bool {
    let Some(tail) = segment.held_tail() else { return true };
    let trimmed = chain.trim_point.and_then(|point| LogletOffset::from_lsn(point, segment.base_lsn));
    let first = match trimmed {
        None => Some(LogletOffset::FIRST),
        Some(trimmed) => trimmed.advance(1).ok(),
    };
    first.is_some_and(|first| first < tail)
}

fn cost(params: &LogletParams, node: NodeId, lost: NodeSet, open: bool) -> Cost {
    // Such a loglet could never take a record.
    let Ok(quorum) = Quorum::new(&params.nodeset, &params.replication) else { return Cost::FewerCopies };
    let is_other = |member: &Member, at| member.node != node && !lost.contains(at);
    let others = params.nodeset.iter().filter(|(at, member)| is_other(member, *at));
    let others: NodeSet = others.map(|(at, _)| at).collect();
    if !quorum.is_f_majority(others) {
        Cost::MayLoseRecords
    } else if open && !quorum.is_write_quorum(others) {
        Cost::NoAppends
    } else {
        Cost::FewerCopies
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU8;

    use bifrost_types::{
        Actor, CloseReason, DiskId, Generation, Location, LogId, Lsn, Member, NodeGeneration, Nodeset, OpId,
        Reconfiguration, ReplicationProperty, SegmentIndex, Successor, Timings,
    };

    use super::*;
    use crate::chain::{self, Announce, Decide};

    fn node(number: u32) -> NodeId {
        NodeId::try_from(number).expect("non-zero")
    }

    fn successor(numbers: &[u32], copies: u8) -> Successor {
        let member = |number: &u32| Member {
            node: node(*number),
            disk: DiskId::try_from(u128::from(*number)).expect("non-zero"),
            location: Location::default(),
        };
        Successor {
            nodeset: Nodeset::new(numbers.iter().map(member).collect()).expect("a nodeset"),
            replication: ReplicationProperty::nodes(NonZeroU8::new(copies).expect("non-zero")),
            sequencer: NodeGeneration::new(node(numbers[0]), Generation::FIRST),
        }
    }

    fn op(value: u128) -> OpId {
        OpId::try_from(value).expect("non-zero")
    }

    fn created(first: Successor) -> Chain {
        chain::create(LogId::try_from(7).expect("non-zero"), Some("orders".to_owned()), op(1), first)
    }

    fn announced(chain: &Chain, number: u128, next: Successor) -> Chain {
        let wanted = Reconfiguration {
            op: op(number),
            segment: chain.last().expect("a segment").index(),
            actor: Actor::Operator,
            reason: CloseReason::Requested,
            successor: Some(next),
            attempt: 1,
            opened_at_millis: 0,
        };
        match chain::announce(chain, &wanted) {
            Ok(Announce::Write(chain)) => chain,
            other => unreachable!("{other:?}"),
        }
    }

    fn decided(chain: &Chain, number: u128, records: u32) -> Chain {
        let tail = LogletOffset::FIRST.advance(u64::from(records)).expect("in range");
        match chain::decide(chain, op(number), tail.into(), Timings::default()) {
            Ok(Decide::Write(chain)) => chain,
            other => unreachable!("{other:?}"),
        }
    }

    fn needs(chain: &Chain, number: u32) -> Vec<(u32, Why, Cost)> {
        let mut needs = Needs::default();
        needs.add(chain, node(number), |_| NodeSet::EMPTY);
        needs.listed.iter().map(|need| (need.loglet.segment.get(), need.why, need.cost)).collect()
    }

    #[test]
    fn an_open_segment_needs_its_copies_and_its_sequencer() {
        let chain = created(successor(&[1, 2, 3], 2));
        assert_eq!(needs(&chain, 1), [(0, Why::Sequencer, Cost::Moves), (0, Why::OpenCopy, Cost::FewerCopies)]);
        assert_eq!(needs(&chain, 3), [(0, Why::OpenCopy, Cost::FewerCopies)]);
        assert_eq!(needs(&chain, 4), []);
        let two = created(successor(&[1, 2], 2));
        assert_eq!(needs(&two, 2), [(0, Why::OpenCopy, Cost::NoAppends)]);
        let alone = created(successor(&[2, 3], 1));
        assert_eq!(needs(&alone, 3), [(0, Why::OpenCopy, Cost::MayLoseRecords)]);
    }

    #[test]
    fn a_copy_whose_disk_was_given_up_is_no_other_copy() {
        let chain = created(successor(&[1, 2, 3], 2));
        let cost_without = |lost: &[u32]| {
            let lost = |nodeset: &Nodeset| lost.iter().filter_map(|number| nodeset.index_of(node(*number))).collect();
            let mut needs = Needs::default();
            needs.add(&chain, node(3), lost);
            needs.listed.first().map(|need| need.cost)
        };
        assert_eq!(cost_without(&[]), Some(Cost::FewerCopies));
        assert_eq!(cost_without(&[2]), Some(Cost::MayLoseRecords));
    }

    #[test]
    fn a_pending_reconfiguration_needs_what_it_will_open() {
        let chain = announced(&created(successor(&[1, 2], 2)), 2, successor(&[3, 4], 2));
        assert_eq!(needs(&chain, 4), [(0, Why::Pending, Cost::Moves)]);
        assert_eq!(needs(&chain, 5), []);
    }

    #[test]
    fn a_closed_segment_needs_its_copies_until_all_of_it_is_trimmed() {
        let chain = announced(&created(successor(&[1, 2], 1)), 2, successor(&[3, 4], 2));
        let closed = decided(&chain, 2, 10);
        assert_eq!(closed.segment(SegmentIndex::FIRST).and_then(Segment::decided_tail), LogletOffset::new(11));
        assert_eq!(needs(&closed, 2), [(0, Why::ClosedCopy, Cost::MayLoseRecords)]);
        assert_eq!(needs(&closed, 1), [(0, Why::ClosedCopy, Cost::MayLoseRecords)], "it numbers nothing any more");
        let trimmed = |point| Chain { trim_point: Lsn::try_from(point).ok(), ..closed.clone() };
        assert_eq!(needs(&trimmed(9), 2).len(), 1);
        assert_eq!(needs(&trimmed(10), 2), []);
        assert_eq!(needs(&decided(&chain, 2, 0), 2), [], "it never had a record");
    }

    #[test]
    fn the_list_is_bounded_and_the_rest_is_counted() {
        let chain = created(successor(&[1, 2], 2));
        let mut needs = Needs::default();
        (0..NEEDS_MAX + 3).for_each(|_| needs.add(&chain, node(2), |_| NodeSet::EMPTY));
        assert_eq!((needs.listed.len(), needs.more), (NEEDS_MAX, 3));
        assert_eq!(needs.count(), 1003);
    }
}
