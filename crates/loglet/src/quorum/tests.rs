//! Brute force over all subsets of random topologies, and the cases that people get wrong.

use std::collections::BTreeSet;
use std::num::NonZeroU8;

use bifrost_types::{DiskId, Location, LogletParams, Member, NodeId};
use proptest::prelude::*;

use super::*;
use crate::script;

/// Members with (region, zone), and the wanted (nodes, zones, regions); 0 leaves a scope out.
type Topology = (Vec<(u8, u8)>, [u8; 3]);

fn nodeset(places: &[(u8, u8)]) -> Nodeset {
    let members = places.iter().zip(1_u32..).map(|(&(region, zone), node)| Member {
        node: NodeId::try_from(node).expect("counted from 1"),
        disk: DiskId::try_from(u128::from(node)).expect("counted from 1"),
        location: Location { region: format!("r{region}").into(), zone: format!("z{zone}").into() },
    });
    Nodeset::new(members.collect()).expect("1 to 7 distinct nodes")
}

fn property([nodes, zones, regions]: [u8; 3]) -> Option<ReplicationProperty> {
    let counts = [(Scope::Node, nodes), (Scope::Zone, zones), (Scope::Region, regions)];
    ReplicationProperty::new(
        counts.into_iter().filter_map(|(scope, count)| NonZeroU8::new(count).map(|count| (scope, count))),
    )
    .ok()
}

/// The definition, word for word.
fn covers(places: &[(u8, u8)], wanted: [u8; 3], set: NodeSet) -> bool {
    let inside: Vec<(u8, u8)> = places
        .iter()
        .enumerate()
        .filter(|(at, _)| set.iter().any(|index| index.get() == *at))
        .map(|(_, p)| *p)
        .collect();
    let zones: BTreeSet<(u8, u8)> = inside.iter().copied().collect();
    let regions: BTreeSet<u8> = inside.iter().map(|place| place.0).collect();
    let nodes_wanted = wanted.into_iter().max().unwrap_or(0);
    inside.len() >= usize::from(nodes_wanted)
        && zones.len() >= usize::from(wanted[1])
        && regions.len() >= usize::from(wanted[2])
}

fn subsets(nodeset: &Nodeset) -> Vec<NodeSet> {
    let indexes: Vec<NodeIndex> = nodeset.indexes().collect();
    (0..1_u32 << indexes.len())
        .map(|bits| indexes.iter().copied().filter(|index| bits & (1 << index.get()) != 0).collect())
        .collect()
}

fn topology(nodes_max: usize) -> impl Strategy<Value = Topology> {
    (prop::collection::vec((0..3_u8, 0..3_u8), 1..=nodes_max), (1..5_u8, 0..4_u8, 0..3_u8))
        .prop_map(|(places, (nodes, zones, regions))| (places, [nodes, zones, regions]))
        .prop_filter("the counts shrink as the scopes grow", |(_, wanted)| property(*wanted).is_some())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    /// W1 in both directions, and a write quorum is what its definition says.
    #[test]
    fn an_f_majority_is_exactly_a_set_that_meets_every_write_quorum((places, wanted) in topology(7)) {
        let nodeset = nodeset(&places);
        let subsets = subsets(&nodeset);
        let all = nodeset.indexes().collect();
        let quorum = match Quorum::new(&nodeset, &property(wanted).expect("filtered")) {
            Ok(quorum) => quorum,
            Err(error) => {
                prop_assert!(!covers(&places, wanted, all), "{error}");
                return Ok(());
            }
        };
        prop_assert!(covers(&places, wanted, all));
        let write_quorums: Vec<NodeSet> =
            subsets.iter().copied().filter(|set| covers(&places, wanted, *set)).collect();
        for set in subsets {
            prop_assert_eq!(quorum.is_write_quorum(set), covers(&places, wanted, set), "write quorum {:?}", set);
            let meets_all = write_quorums.iter().all(|write| !write.intersection(set).is_empty());
            prop_assert_eq!(quorum.is_f_majority(set), meets_all, "f-majority {:?}", set);
            prop_assert_eq!(quorum.is_f_majority(set), !quorum.is_write_quorum(quorum.complement(set)));
        }
    }

    #[test]
    fn the_best_committed_tail_is_the_highest_one_that_a_write_quorum_reaches(
        (places, wanted) in topology(7),
        tails in prop::collection::vec(prop::option::of(1..6_u64), 7),
    ) {
        let nodeset = nodeset(&places);
        let Ok(quorum) = Quorum::new(&nodeset, &property(wanted).expect("filtered")) else { return Ok(()) };
        let tails: Vec<Option<LogletOffset>> =
            tails.into_iter().take(places.len()).map(|tail| tail.and_then(LogletOffset::new)).collect();
        let known = |keep: &dyn Fn(LogletOffset) -> bool| -> NodeSet {
            nodeset.indexes().filter(|index| tails[index.get()].is_some_and(keep)).collect()
        };
        let levels = || (1..6_u64).filter_map(LogletOffset::new);
        let best = levels().filter(|level| quorum.is_write_quorum(known(&|tail| tail >= *level))).max();
        prop_assert_eq!(quorum.best_committed(&tails), best);
        let lowest = levels().find(|level| quorum.is_f_majority(known(&|tail| tail <= *level)));
        prop_assert_eq!(quorum.lowest_safe(&tails), lowest);
    }

    /// Explanations are exact: the least number is enough for some choice, one less is not for any.
    #[test]
    fn what_is_missing_is_the_fewest_members_that_do(
        (places, wanted) in topology(6),
        answered in any::<u8>(),
        possible in any::<u8>(),
    ) {
        let nodeset = nodeset(&places);
        let Ok(quorum) = Quorum::new(&nodeset, &property(wanted).expect("filtered")) else { return Ok(()) };
        let pick = |bits: u8| -> NodeSet { nodeset.indexes().filter(|index| bits & (1 << index.get()) != 0).collect() };
        let (answered, possible) = (pick(answered), pick(possible));
        for f_majority in [false, true] {
            let holds = |set| if f_majority { quorum.is_f_majority(set) } else { quorum.is_write_quorum(set) };
            let missing = if f_majority {
                quorum.missing_for_f_majority(answered, possible)
            } else {
                quorum.missing_for_write_quorum(answered, possible)
            };
            let Some(missing) = missing else {
                prop_assert!(holds(answered));
                continue;
            };
            prop_assert_eq!(missing.within_reach, holds(union(answered, possible)));
            let from = if missing.within_reach { possible } else { quorum.all() };
            let fewest = subsets(&nodeset)
                .into_iter()
                .filter(|more| more.intersection(from) == *more && holds(union(answered, *more)))
                .map(NodeSet::count)
                .min();
            prop_assert_eq!(Some(missing.at_least), fewest);
            prop_assert!(missing.of.count() >= missing.at_least);
            prop_assert!(missing.of.intersection(answered).is_empty());
        }
    }
}

#[test]
fn zones_of_two_regions_with_one_name_are_two_zones() {
    let nodeset = nodeset(&[(0, 0), (1, 0)]);
    let quorum = Quorum::new(&nodeset, &property([2, 2, 0]).expect("a property")).expect("two zones");
    assert!(quorum.is_write_quorum(quorum.all()));
}

#[test]
fn a_nodeset_that_cannot_hold_a_record_is_refused() {
    let one_zone = nodeset(&[(0, 0), (0, 0), (0, 0)]);
    assert_eq!(
        Quorum::new(&one_zone, &property([3, 2, 0]).expect("a property")).map(|_| ()),
        Err(QuorumError { scope: Scope::Zone, wanted: 2, present: 1 })
    );
    assert_eq!(
        Quorum::new(&one_zone, &property([4, 0, 0]).expect("a property")).map(|_| ()),
        Err(QuorumError { scope: Scope::Node, wanted: 4, present: 3 })
    );
}

#[test]
fn quorums_follow_their_scripts() {
    script::run("quorum", |state: &mut Option<(LogletParams, Quorum)>, command| {
        if command.name == "loglet" {
            let params = crate::fake::params(&command.list("nodes"), &command.get::<String>("replication"));
            return match Quorum::new(&params.nodeset, &params.replication) {
                Ok(quorum) => {
                    *state = Some((params, quorum));
                    Vec::new()
                }
                Err(error) => vec![error.to_string()],
            };
        }
        let (params, quorum) = state.as_ref().expect("a script begins with loglet");
        let index = |node: &String| params.nodeset.index_of(node.parse().expect("a node")).expect("a member");
        if command.name == "best" {
            let tails: Vec<Option<LogletOffset>> = command.list("tails").iter().map(|tail| tail.parse().ok()).collect();
            return vec![format!(
                "committed={:?} safe={:?}",
                quorum.best_committed(&tails),
                quorum.lowest_safe(&tails)
            )];
        }
        let set = command.list("set").iter().map(index).collect();
        let dead: NodeSet = command.list("dead").iter().map(index).collect();
        let possible = quorum.complement(dead);
        let print = |missing: Option<Missing>| match missing {
            None => "yes".to_owned(),
            Some(missing) => {
                let of: Vec<String> = missing
                    .of
                    .iter()
                    .filter_map(|index| params.nodeset.member(index))
                    .map(|member| member.node.to_string())
                    .collect();
                let reach = if missing.within_reach { "" } else { " out of reach" };
                format!("no, wants {} of ({}){reach}", missing.at_least, of.join(","))
            }
        };
        vec![
            format!("write quorum: {}", print(quorum.missing_for_write_quorum(set, possible))),
            format!("f-majority: {}", print(quorum.missing_for_f_majority(set, possible))),
        ]
    });
}
