//! Quorum algebra: which sets of members make a record durable, and which meet all of those.
//!
//! A **write quorum** holds at least as many nodes, zones and regions as the replication property asks for. An
//! **f-majority** meets every write quorum. Both only get truer as a set grows, and a write quorum is defined by counts
//! alone, so there is no need to look at pairs of sets: a set meets every write quorum exactly when what is left outside
//! of it is none. Outside of it there is none exactly when one count falls short there. That is W1, and the tests below
//! compare it with brute force over all subsets of random topologies.
//!
//! A zone belongs to its region: `eu.a` and `us.a` are two zones.

use std::collections::BTreeMap;

use bifrost_types::plant::{self, Plant};
use bifrost_types::{LogletOffset, NodeIndex, NodeSet, Nodeset, ReplicationProperty, Scope};
use thiserror::Error;

/// The nodeset cannot hold a single record as the property wants it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the nodeset has {present} of the {wanted} distinct domains of scope {scope} that a record must reach")]
pub struct QuorumError {
    /// The scope that falls short, the smallest if several do.
    pub scope: Scope,
    /// Domains wanted.
    pub wanted: usize,
    /// Domains in the nodeset.
    pub present: usize,
}

/// What a set lacks to become a quorum: `at_least` more members, and only members of `of` help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Missing {
    /// The fewest further members that could do, at least 1.
    pub at_least: usize,
    /// The members that could help; more than `at_least` when there is a choice.
    pub of: NodeSet,
    /// Whether the members that were called possible suffice. If not, `of` and `at_least` speak of the whole nodeset:
    /// some that were called impossible must come back.
    pub within_reach: bool,
}

/// The domains of one scope, and how many of them a record must reach.
#[derive(Debug, Clone)]
struct Domains {
    wanted: usize,
    members: Vec<NodeSet>,
}

impl Domains {
    /// How many domains have a member in `set`.
    fn reached_by(&self, set: NodeSet) -> usize {
        self.members.iter().filter(|domain| !domain.intersection(set).is_empty()).count()
    }

    /// How many domains have a member outside of `set`.
    fn left_by(&self, set: NodeSet) -> usize {
        self.members.iter().filter(|domain| domain.intersection(set).count() < domain.count()).count()
    }

    /// The fewest members of `possible` that, added to `set`, leave fewer than `wanted` domains outside.
    fn cheapest_cut(&self, set: NodeSet, possible: NodeSet) -> Option<usize> {
        let excess = (self.left_by(set) + 1).checked_sub(self.wanted)?;
        let mut costs: Vec<usize> = self
            .members
            .iter()
            .filter_map(|domain| {
                let outside = domain.count() - domain.intersection(set).count();
                let takeable = domain.iter().filter(|index| !set.contains(*index) && possible.contains(*index)).count();
                // A domain leaves the outside only as a whole.
                (outside > 0 && takeable == outside).then_some(outside)
            })
            .collect();
        costs.sort_unstable();
        (costs.len() >= excess).then(|| costs.iter().take(excess).sum())
    }
}

/// The quorums of one loglet. Immutable, cheap to ask: a few population counts, no allocation.
#[derive(Debug, Clone)]
pub struct Quorum {
    indexes: Vec<NodeIndex>,
    all: NodeSet,
    nodes_wanted: usize,
    /// Only the scopes larger than a node that the property names.
    larger: Vec<Domains>,
}

impl Quorum {
    /// The quorums of a nodeset under a replication property.
    ///
    /// # Errors
    /// [`QuorumError`] when not even the whole nodeset is a write quorum: such a loglet could never take a record.
    pub fn new(nodeset: &Nodeset, replication: &ReplicationProperty) -> Result<Self, QuorumError> {
        let indexes: Vec<NodeIndex> = nodeset.indexes().collect();
        let all: NodeSet = indexes.iter().copied().collect();
        let nodes_wanted = usize::from(replication.copies().get());
        let mut larger = Vec::new();
        for (scope, wanted) in replication.counts() {
            let wanted = usize::from(wanted.get());
            let present = match scope {
                Scope::Node => nodeset.size(),
                Scope::Zone | Scope::Region => {
                    let members = domains(nodeset, scope);
                    let present = members.len();
                    larger.push(Domains { wanted, members });
                    present
                }
            };
            if present < wanted {
                return Err(QuorumError { scope, wanted, present });
            }
        }
        Ok(Self { indexes, all, nodes_wanted, larger })
    }

    /// All members.
    pub const fn all(&self) -> NodeSet {
        self.all
    }

    /// The members that are not in `set`.
    #[must_use]
    pub fn complement(&self, set: NodeSet) -> NodeSet {
        self.indexes.iter().copied().filter(|index| !set.contains(*index)).collect()
    }

    /// Whether a record that is durable on `set` may be acknowledged.
    pub fn is_write_quorum(&self, set: NodeSet) -> bool {
        let set = set.intersection(self.all);
        let nodes_only = plant::is(Plant::ZonesIgnored);
        set.count() >= self.nodes_wanted
            && (nodes_only || self.larger.iter().all(|domains| domains.reached_by(set) >= domains.wanted))
    }

    /// Whether `set` meets every write quorum (W1). Also: whether the members outside of it are no write quorum.
    pub fn is_f_majority(&self, set: NodeSet) -> bool {
        let set = set.intersection(self.all);
        self.all.count() - set.count() < self.nodes_wanted
            || self.larger.iter().any(|domains| domains.left_by(set) < domains.wanted)
    }

    /// Whether `index` brings `set` nearer to a write quorum: it is new, and a node or a domain is still wanted that
    /// it adds.
    pub fn advances(&self, set: NodeSet, index: NodeIndex) -> bool {
        let set = set.intersection(self.all);
        if set.contains(index) || !self.all.contains(index) {
            return false;
        }
        set.count() < self.nodes_wanted
            || self.larger.iter().any(|domains| {
                domains.reached_by(set) < domains.wanted
                    && domains
                        .members
                        .iter()
                        .any(|domain| domain.contains(index) && domain.intersection(set).is_empty())
            })
    }

    /// The highest offset `T` such that the members whose local tail is at least `T` are a write quorum: everything
    /// below `T` is durable on one. `local_tails[i]` belongs to the member of index `i`; `None` or absent means that
    /// nothing is known of it. `None` when too few are known.
    ///
    /// The sequencer asks this after every answer (A2). It takes one pass over the tails for each distinct tail down
    /// to the result, which is about as many as there are copies, and allocates nothing.
    pub fn best_committed(&self, local_tails: &[Option<LogletOffset>]) -> Option<LogletOffset> {
        let mut reached = NodeSet::EMPTY;
        let mut below: Option<LogletOffset> = None;
        loop {
            let level = local_tails
                .iter()
                .zip(&self.indexes)
                .filter_map(|(tail, _)| *tail)
                .filter(|tail| below.is_none_or(|below| *tail < below))
                .max()?;
            for (tail, index) in local_tails.iter().zip(&self.indexes) {
                if *tail == Some(level) {
                    reached.insert(*index);
                }
            }
            if self.is_write_quorum(reached) {
                return Some(level);
            }
            below = Some(level);
        }
    }

    /// The lowest offset `T` such that the members whose tail is at most `T` are an f-majority: when these are local
    /// tails of sealed copies, nothing at or above `T` can be committed, ever (S1, S2). `None` when too few are known.
    /// The argument is as in [`best_committed`](Self::best_committed).
    pub fn lowest_safe(&self, sealed_tails: &[Option<LogletOffset>]) -> Option<LogletOffset> {
        let mut reached = NodeSet::EMPTY;
        let mut above: Option<LogletOffset> = None;
        loop {
            let level = sealed_tails
                .iter()
                .zip(&self.indexes)
                .filter_map(|(tail, _)| *tail)
                .filter(|tail| above.is_none_or(|above| *tail > above))
                .min()?;
            for (tail, index) in sealed_tails.iter().zip(&self.indexes) {
                if *tail == Some(level) {
                    reached.insert(*index);
                }
            }
            let one_short = |index| self.is_f_majority(union(reached, NodeSet::from_iter([index])));
            if plant::is(Plant::SealedByTooFew) && self.complement(reached).iter().any(one_short) {
                return Some(level);
            }
            if self.is_f_majority(reached) {
                return Some(level);
            }
            above = Some(level);
        }
    }

    /// What `answered` lacks to be a write quorum when only members of `possible` can still join, or `None` if it is
    /// one already.
    pub fn missing_for_write_quorum(&self, answered: NodeSet, possible: NodeSet) -> Option<Missing> {
        let answered = answered.intersection(self.all);
        if self.is_write_quorum(answered) {
            return None;
        }
        let within_reach = self.is_write_quorum(union(answered, possible));
        let candidates = if within_reach { possible } else { self.all };
        let of = candidates.iter().filter(|index| self.advances(answered, *index)).collect();
        // One member may bring a node, a zone and a region at once, so the largest shortfall is the bound, and it is
        // reached: new regions first (they are new zones too), then new zones, then any node.
        let nodes_short = self.nodes_wanted.saturating_sub(answered.count());
        let domains_short =
            self.larger.iter().map(|domains| domains.wanted.saturating_sub(domains.reached_by(answered))).max();
        Some(Missing { at_least: nodes_short.max(domains_short.unwrap_or(0)), of, within_reach })
    }

    /// What `answered` lacks to be an f-majority when only members of `possible` can still join, or `None` if it is
    /// one already.
    pub fn missing_for_f_majority(&self, answered: NodeSet, possible: NodeSet) -> Option<Missing> {
        let answered = answered.intersection(self.all);
        if self.is_f_majority(answered) {
            return None;
        }
        let within_reach = self.is_f_majority(union(answered, possible));
        let candidates = if within_reach { possible.intersection(self.all) } else { self.all };
        let of: NodeSet = candidates.iter().filter(|index| !answered.contains(*index)).collect();
        let nodes = (self.all.count() - answered.count() + 1).saturating_sub(self.nodes_wanted);
        let by_nodes = (of.count() >= nodes).then_some(nodes);
        let by_domains = self.larger.iter().filter_map(|domains| domains.cheapest_cut(answered, candidates)).min();
        let at_least = by_nodes.into_iter().chain(by_domains).min().unwrap_or(of.count());
        Some(Missing { at_least, of, within_reach })
    }
}

fn union(one: NodeSet, other: NodeSet) -> NodeSet {
    one.iter().chain(other.iter()).collect()
}

fn domains(nodeset: &Nodeset, scope: Scope) -> Vec<NodeSet> {
    let mut members: BTreeMap<(&str, &str), NodeSet> = BTreeMap::new();
    for (index, member) in nodeset.iter() {
        let zone = if scope == Scope::Region { "" } else { &*member.location.zone };
        members.entry((&*member.location.region, zone)).or_default().insert(index);
    }
    members.into_values().collect()
}

#[cfg(test)]
mod tests;
