//! What a write quorum and an f-majority are, by definition and without cleverness: the protocol's own algebra is judged by
//! this one and must not be shared with it.

use std::collections::BTreeSet;

use bifrost_types::{LogletParams, Member, NodeId, NodeIndex, NodeSet, Scope};

/// Something that fails as a whole.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Domain<'a> {
    Node(NodeId),
    Zone(&'a str, &'a str),
    Region(&'a str),
}

fn domain(member: &Member, scope: Scope) -> Domain<'_> {
    match scope {
        Scope::Node => Domain::Node(member.node),
        Scope::Zone => Domain::Zone(&member.location.region, &member.location.zone),
        Scope::Region => Domain::Region(&member.location.region),
    }
}

/// Whether the members for which `has` holds are as many distinct domains of each scope as a record must reach.
fn suffices(params: &LogletParams, has: impl Fn(NodeIndex) -> bool) -> bool {
    params.replication.counts().all(|(scope, wanted)| {
        let members = params.nodeset.iter().filter(|(index, _)| has(*index));
        let domains: BTreeSet<Domain<'_>> = members.map(|(_, member)| domain(member, scope)).collect();
        domains.len() >= usize::from(wanted.get())
    })
}

/// Whether a record on these members may be acknowledged.
pub(crate) fn is_write_quorum(params: &LogletParams, set: NodeSet) -> bool {
    suffices(params, |index| set.contains(index))
}

/// Whether these members meet every write quorum: what is left without them is none.
pub(crate) fn is_f_majority(params: &LogletParams, set: NodeSet) -> bool {
    !suffices(params, |index| !set.contains(index))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::params;

    fn sets(params: &LogletParams) -> Vec<NodeSet> {
        let all: Vec<NodeIndex> = params.nodeset.indexes().collect();
        let chosen = |bits: u32| all.iter().filter(move |index| bits >> index.get() & 1 == 1).copied().collect();
        (0..1_u32 << all.len()).map(chosen).collect()
    }

    #[test]
    fn an_f_majority_meets_every_write_quorum_and_nothing_else_does() {
        for (nodes, property) in
            [(3, "2"), (4, "3"), (5, "3"), (5, "{zone: 2, node: 3}"), (6, "{region: 2, zone: 2, node: 3}"), (2, "3")]
        {
            let params = params(0, nodes, property);
            let sets = sets(&params);
            for set in &sets {
                let quorums = sets.iter().filter(|other| is_write_quorum(&params, **other));
                let meets = quorums.into_iter().all(|other| !other.intersection(*set).is_empty());
                assert_eq!(is_f_majority(&params, *set), meets, "{nodes} nodes, {property}, {set:?}");
            }
        }
    }

    #[test]
    fn domains_of_a_larger_scope_count_once() {
        // The first and the third node stand in one zone.
        let params = params(0, 3, "{zone: 2, node: 2}");
        let all: Vec<NodeIndex> = params.nodeset.indexes().collect();
        assert!(!is_write_quorum(&params, [all[0], all[2]].into_iter().collect()));
        assert!(is_write_quorum(&params, [all[0], all[1]].into_iter().collect()));
        // Without the second one a zone is missing.
        assert!(is_f_majority(&params, [all[1]].into_iter().collect()));
        assert!(!is_f_majority(&params, [all[0]].into_iter().collect()));
    }
}
