use std::collections::BTreeMap;
use std::time::Duration;

use bifrost_types::{DiskId, Generation, Location, LogId, LogletId, NodeGeneration, Roles, SegmentIndex};
use bifrost_wire::node::{DiskSpace, DiskStatus, Fullness, NodeLoad};
use proptest::prelude::*;

use super::*;

const GIB: u64 = 1 << 30;

fn id(number: u32) -> NodeId {
    NodeId::try_from(number).expect("non-zero")
}

fn node(number: u32, zone: &str) -> NodeRecord {
    NodeRecord {
        id: NodeGeneration::new(id(number), Generation::FIRST),
        name: format!("n{number}"),
        address: String::new(),
        location: Location { region: "".into(), zone: zone.into() },
        disk: DiskId::try_from(u128::from(number)).ok(),
        storage: StorageState::ReadWrite,
        declared_lost: false,
        roles: Roles::DATA,
    }
}

fn status(record: &NodeRecord) -> NodeStatus {
    NodeStatus {
        id: record.id,
        roles: record.roles,
        disk: record.disk.map(|disk| DiskStatus { disk, fullness: Fullness::Ample, space: None }),
        load: NodeLoad::default(),
        uptime: Duration::ZERO,
        leaving: false,
        catch_up: None,
    }
}

fn statuses(nodes: &[NodeRecord]) -> Vec<NodeStatus> {
    nodes.iter().map(status).collect()
}

fn situation<'a>(nodes: &'a [NodeRecord], answers: &'a [NodeStatus]) -> Situation<'a> {
    Situation { nodes, answers, present: None, leave: Leave::Stay, pin: None, preferred: None, seed: 7, nodeset_max: 5 }
}

fn property(text: &str) -> ReplicationProperty {
    text.parse().expect("a property")
}

fn members(placed: &Successor) -> Vec<u32> {
    placed.nodeset.members().iter().map(|member| member.node.get()).collect()
}

/// The segment that a placement led to.
fn segment(placed: &Successor) -> LogletParams {
    LogletParams {
        id: LogletId::new(LogId::try_from(7).expect("non-zero"), SegmentIndex::FIRST),
        nodeset: placed.nodeset.clone(),
        replication: placed.replication.clone(),
        sequencer: placed.sequencer,
    }
}

fn disk(status: &mut NodeStatus) -> &mut DiskStatus {
    status.disk.as_mut().expect("it has a disk")
}

fn space(free_gib: u64) -> Option<DiskSpace> {
    Some(DiskSpace {
        total_bytes: 100 * GIB,
        free_bytes: free_gib * GIB,
        soft_mark_bytes: 3 * GIB,
        hard_mark_bytes: 2 * GIB,
    })
}

#[test]
fn a_nodeset_spreads_over_zones_and_prefers_those_who_answer() {
    let nodes = [node(1, "a"), node(2, "a"), node(3, "b"), node(4, "c")];
    let answers = statuses(&nodes[1..]);
    let small = Situation { nodeset_max: 3, ..situation(&nodes, &answers) };
    let placed = place(small, &property("{zone: 2, node: 3}")).expect("three zones");
    assert_eq!(members(&placed), [2, 3, 4]);
    // A zone that does not answer is taken only if nothing else will do.
    let one_zone = statuses(&nodes[..2]);
    let one_zone = Situation { nodeset_max: 2, ..situation(&nodes, &one_zone) };
    assert_eq!(members(&place(one_zone, &property("2")).expect("two nodes")), [1, 2]);
    assert_ne!(members(&place(one_zone, &property("{zone: 2}")).expect("two zones")), [1, 2]);
}

#[test]
fn who_is_away_is_kept_a_place_and_who_is_full_is_not() {
    let nodes = [node(1, "a"), node(2, "a"), node(3, "a")];
    let mut answers = statuses(&nodes[..2]);
    assert_eq!(members(&place(situation(&nodes, &answers), &property("2")).expect("two answer")), [1, 2, 3]);
    answers.push(NodeStatus { leaving: true, ..status(&nodes[2]) });
    assert_eq!(members(&place(situation(&nodes, &answers), &property("2")).expect("two stay")), [1, 2, 3]);
    answers[2] = status(&nodes[2]);
    disk(&mut answers[2]).fullness = Fullness::Low;
    assert_eq!(members(&place(situation(&nodes, &answers), &property("2")).expect("two have room")), [1, 2]);
    assert_eq!(members(&place(situation(&nodes, &answers), &property("3")).expect("nothing else")), [1, 2, 3]);
}

#[test]
fn a_segment_is_left_only_for_one_that_takes_appends_and_only_if_it_can_be_closed() {
    let nodes = [node(1, "a"), node(2, "a"), node(3, "a"), node(4, "a")];
    let all = statuses(&nodes);
    let placed = place(situation(&nodes[..3], &all[..3]), &property("3")).expect("three nodes");
    let open = segment(&placed);
    let gains = |answers: &[NodeStatus]| {
        let follows = Situation { present: Some(&open), ..situation(&nodes, answers) };
        place(follows, &property("3")).is_some_and(|next| takes_appends_again(answers, &open, &next))
    };
    assert!(!gains(&all), "all three answer");
    assert!(gains(&all[1..]), "the fourth one can take the place of the first");
    assert!(!gains(&all[..2]), "nobody can take the place of the third");
    assert!(!gains(&all[2..]), "three copies need three nodes");
    assert!(!gains(&all[3..]), "nobody is left to be sealed");
    let mut full = all.clone();
    disk(&mut full[0]).fullness = Fullness::Full;
    assert!(gains(&full), "the first one has no room");
    disk(&mut full[0]).fullness = Fullness::Low;
    assert!(!gains(&full), "it has room for what it has begun");
    disk(&mut full[0]).fullness = Fullness::Full;
    disk(&mut full[3]).fullness = Fullness::Low;
    assert!(!gains(&full), "the fourth has none either");
    // A disk that was replaced is not the one that the nodeset names (W2).
    let mut replaced = all;
    disk(&mut replaced[0]).disk = DiskId::try_from(99).expect("non-zero");
    assert!(gains(&replaced));
    replaced[1].leaving = true;
    disk(&mut replaced[0]).disk = DiskId::try_from(1).expect("non-zero");
    assert!(!gains(&replaced), "who is about to stop takes appends still");
}

#[test]
fn a_segment_leaves_a_disk_that_became_low_and_comes_to_a_node_that_is_new() {
    let nodes = [node(1, "a"), node(2, "a"), node(3, "a"), node(4, "a")];
    let mut answers = statuses(&nodes[..3]);
    let placed = place(situation(&nodes[..3], &answers), &property("2")).expect("three nodes");
    let present = segment(&placed);
    let follows = |answers, nodes| Situation { present: Some(&present), ..situation(nodes, answers) };
    disk(&mut answers[1]).fullness = Fullness::Low;
    let moved = place(follows(&answers, &nodes[..3]), &property("2")).expect("two have room");
    assert_eq!(members(&moved), [1, 3]);
    let answers = statuses(&nodes);
    let grown = place(follows(&answers, &nodes), &property("2")).expect("four nodes");
    assert_eq!(members(&grown), [1, 2, 3, 4]);
}

#[test]
fn a_tight_disk_comes_after_others_and_a_little_less_room_is_no_reason() {
    let nodes = [node(1, "a"), node(2, "a"), node(3, "a")];
    let two = |free: [u64; 3], present: Option<&LogletParams>| {
        let mut answers = statuses(&nodes);
        answers.iter_mut().zip(free).for_each(|(answer, free)| disk(answer).space = space(free));
        let now = Situation { nodeset_max: 2, present, ..situation(&nodes, &answers) };
        place(now, &property("2")).expect("three nodes")
    };
    assert_eq!(members(&two([90, 5, 50], None)), [1, 3]);
    let present = segment(&two([90, 5, 50], None));
    assert_eq!(members(&two([30, 99, 20], Some(&present))), [1, 3], "both have room enough");
    assert_eq!(members(&two([30, 99, 4], Some(&present))), [1, 2], "one of them is nearly full");
}

#[test]
fn a_nodeset_that_lost_a_member_takes_a_new_one_however_little_room_there_is() {
    let nodes = [node(1, "a"), node(2, "a"), node(3, "a")];
    let mut answers = statuses(&nodes);
    answers.iter_mut().for_each(|answer| disk(answer).space = space(5));
    let placed = place(situation(&nodes[..2], &answers[..2]), &property("2")).expect("two nodes");
    let present = segment(&placed);
    assert_eq!(members(&placed), [1, 2]);
    let follows = |answers| Situation { present: Some(&present), ..situation(&nodes, answers) };
    assert_eq!(members(&place(follows(answers.as_slice()), &property("2")).expect("three nodes")), [1, 2, 3]);
    let two = [answers[0].clone(), answers[2].clone()];
    assert_eq!(members(&place(follows(two.as_slice()), &property("2")).expect("two answer")), [1, 2, 3]);
}

#[test]
fn what_no_nodeset_can_meet_is_not_placed() {
    let nodes = [node(1, "a"), node(2, "a")];
    let answers = statuses(&nodes);
    assert_eq!(place(situation(&nodes, &answers), &property("3")), None);
    assert_eq!(place(situation(&nodes, &answers), &property("{zone: 2}")), None);
    assert_eq!(place(situation(&nodes, &[]), &property("2")), None, "nobody can sequence");
}

#[test]
fn roles_say_who_holds_copies_and_who_numbers() {
    let mut nodes = [node(1, "a"), node(2, "a"), node(3, "a"), node(4, "a")];
    nodes[0].roles = Roles::new([Role::LogServer]).expect("one");
    nodes[1].roles = nodes[0].roles;
    nodes[2].roles = Roles::new([Role::Sequencer]).expect("one");
    (nodes[2].disk, nodes[2].storage) = (None, StorageState::Provisioning);
    nodes[3].roles = Roles::new([Role::Metadata]).expect("one");
    (nodes[3].disk, nodes[3].storage) = (None, StorageState::Provisioning);
    let answers = statuses(&nodes);
    let now = situation(&nodes, &answers);
    let placed = place(now, &property("2")).expect("two disks and a sequencer");
    assert_eq!((members(&placed), placed.sequencer), (vec![1, 2], nodes[2].id));
    assert_eq!(default_replication(&nodes), property("2"));
    let wish = |sequencer, members: &[u32]| Wish {
        sequencer: Some(id(sequencer)),
        nodes: Some(members.iter().copied().map(id).collect()),
        replication: None,
    };
    let refused = plan(now, &wish(1, &[1, 2]), &property("2"));
    assert_eq!(refused, Err(PlanError::NoRole { node: id(1), role: Role::Sequencer }));
    let refused = plan(now, &wish(3, &[1, 3]), &property("2"));
    assert_eq!(refused, Err(PlanError::NoRole { node: id(3), role: Role::LogServer }));
    let record_of = |wanted: NodeId| nodes.iter().find(|record| record.id.node == wanted);
    assert_eq!(admit(&placed, record_of), Ok(()));
    let wrong = Successor { sequencer: nodes[3].id, ..placed };
    assert_eq!(admit(&wrong, record_of), Err(PlanError::NoRole { node: id(4), role: Role::Sequencer }));
}

#[test]
fn a_wish_is_met_or_refused_by_name() {
    let mut nodes = [node(1, "a"), node(2, "a"), node(3, "b"), node(4, "b")];
    nodes[3].storage = StorageState::ReadOnly;
    let answers = statuses(&nodes[..2]);
    let now = situation(&nodes, &answers);
    let of = |numbers: &[u32]| Wish { nodes: Some(numbers.iter().copied().map(id).collect()), ..Wish::default() };
    let two = property("2");
    let planned = plan(now, &of(&[3, 1]), &two).expect("both are well");
    assert_eq!((planned.nodeset.size(), planned.sequencer), (2, nodes[0].id), "one that holds copies and answers");
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
fn a_sequencer_goes_to_the_pin_then_to_the_hint_then_stays_then_to_who_has_little_to_do() {
    let nodes = [node(1, "a"), node(2, "a"), node(3, "a"), node(4, "a")];
    let answers = statuses(&nodes);
    let placed = plan(situation(&nodes, &answers), &Wish { sequencer: Some(id(2)), ..Wish::default() }, &property("2"));
    let present = segment(&placed.expect("all answer"));
    let stays = Situation { present: Some(&present), ..situation(&nodes, &answers) };
    let number = |now| place(now, &property("2")).map(|placed| placed.sequencer.node.get());
    assert_eq!(number(stays), Some(2));
    assert_eq!(number(Situation { preferred: Some(id(3)), ..stays }), Some(3));
    assert_eq!(number(Situation { preferred: Some(id(3)), pin: Some(id(4)), ..stays }), Some(4));
    let rotates = Situation { leave: Leave::Rotate, ..stays };
    assert_eq!(number(rotates), Some(3), "the next one");
    assert_eq!(number(Situation { preferred: Some(id(2)), ..rotates }), Some(3), "another one was asked for");
    assert_eq!(number(Situation { pin: Some(id(2)), ..rotates }), Some(2), "a pin holds");
    // Who does not answer, or is about to stop, is passed over, whatever was hoped for.
    let mut fewer = answers[..3].to_vec();
    fewer[2].leaving = true;
    let stays = Situation { answers: &fewer, ..stays };
    assert_eq!(number(Situation { preferred: Some(id(3)), pin: Some(id(4)), ..stays }), Some(2));
    assert_eq!(number(Situation { leave: Leave::Gone, ..stays }), Some(1));
    let mut none = fewer.clone();
    none.iter_mut().for_each(|answer| answer.leaving = true);
    let left = Situation { answers: &none, leave: Leave::Gone, ..stays };
    assert!(matches!(number(left), Some(1 | 3)), "better one that is about to stop than none");
}

#[test]
fn a_sequencer_that_is_gone_is_left_and_one_that_is_alone_can_be_rotated() {
    let nodes = [node(1, "a"), node(2, "a"), node(3, "a")];
    let answers = statuses(&nodes);
    let placed = plan(situation(&nodes, &answers), &Wish { sequencer: Some(id(3)), ..Wish::default() }, &property("2"));
    let present = segment(&placed.expect("all answer"));
    let alone = Situation { present: Some(&present), answers: &answers[2..], ..situation(&nodes, &answers) };
    let gone = Situation { leave: Leave::Gone, ..alone };
    assert_eq!(place(gone, &property("2")), None);
    let rotated = Situation { leave: Leave::Rotate, ..alone };
    assert_eq!(place(rotated, &property("2")).map(|placed| placed.sequencer), Some(nodes[2].id));
    // Another life of the same node is another sequencer.
    let next = NodeGeneration::new(id(3), Generation::FIRST.next().expect("not the last"));
    let answers = [NodeStatus { id: next, ..status(&nodes[2]) }];
    let again = Situation { answers: &answers, ..gone };
    assert_eq!(place(again, &property("2")).map(|placed| placed.sequencer), Some(next));
}

#[test]
fn the_logs_of_a_dead_node_spread_over_all_others() {
    let nodes = [node(1, "a"), node(2, "a"), node(3, "a"), node(4, "a")];
    let mut answers = statuses(&nodes[1..]);
    // Not the same, and not far from each other: all take part.
    for (answer, open) in answers.iter_mut().zip([0, 7, 15]) {
        answer.load.open_sequencers = open;
    }
    let placed =
        plan(situation(&nodes, &statuses(&nodes)), &Wish { sequencer: Some(id(1)), ..Wish::default() }, &property("2"));
    let present = segment(&placed.expect("all answer"));
    let count = |answers: &[NodeStatus]| {
        let mut logs: BTreeMap<u32, u32> = BTreeMap::new();
        for seed in 1..=1000 {
            let dead = Situation { present: Some(&present), leave: Leave::Gone, seed, ..situation(&nodes, answers) };
            let sequencer = place(dead, &property("2")).expect("three answer").sequencer;
            *logs.entry(sequencer.node.get()).or_default() += 1;
        }
        logs
    };
    let logs = count(&answers);
    assert!(logs.len() == 3 && logs.values().all(|logs| (250..=420).contains(logs)), "{logs:?}");
    answers[2].load.open_sequencers = 1000;
    let logs = count(&answers);
    assert!(logs.len() == 2 && !logs.contains_key(&4), "{logs:?}");
}

fn clusters() -> impl Strategy<Value = Vec<NodeRecord>> {
    proptest::collection::vec(0_u8..3, 2..9).prop_map(|zones| {
        let name = |zone: u8| ["a", "b", "c"][usize::from(zone)];
        (1..).zip(zones).map(|(number, zone)| node(number, name(zone))).collect()
    })
}

proptest! {
    #[test]
    fn small_changes_move_nothing(
        nodes in clusters(),
        free in proptest::collection::vec((50_u64..90, 0_u64..5), 8),
        load in proptest::collection::vec((0_u64..10, 0_u64..500), 8),
        turned in 0_usize..8,
        nodeset_max in 2_usize..6,
    ) {
        let mut answers = statuses(&nodes);
        for (answer, (free, _)) in answers.iter_mut().zip(&free) {
            disk(answer).space = space(*free);
        }
        let before = Situation { nodeset_max, ..situation(&nodes, &answers) };
        let placed = place(before, &property("2")).expect("two nodes at least");
        let present = segment(&placed);
        let mut later = answers.clone();
        for ((answer, (_, written)), (open, loglets)) in later.iter_mut().zip(&free).zip(&load) {
            let DiskStatus { space, .. } = disk(answer);
            if let Some(space) = space {
                space.free_bytes -= written * GIB;
            }
            answer.load = NodeLoad { open_sequencers: *open, loglets: *loglets, ..NodeLoad::default() };
        }
        let count = later.len();
        later.rotate_left(turned % count);
        let after = Situation { answers: &later, present: Some(&present), ..before };
        prop_assert_eq!(place(after, &property("2")), Some(placed));
    }

    #[test]
    fn what_is_placed_meets_the_property_and_can_be_admitted(
        nodes in clusters(),
        silent in proptest::collection::vec(any::<bool>(), 8),
        low in proptest::collection::vec(any::<bool>(), 8),
        seed in any::<u64>(),
    ) {
        let mut answers = statuses(&nodes);
        for (answer, low) in answers.iter_mut().zip(low) {
            disk(answer).fullness = if low { Fullness::Low } else { Fullness::Ample };
        }
        let mut silent = silent.into_iter();
        answers.retain(|_| !silent.next().unwrap_or(false));
        for wanted in ["1", "2", "{zone: 2}"] {
            let wanted = property(wanted);
            let now = Situation { seed, ..situation(&nodes, &answers) };
            let Some(placed) = place(now, &wanted) else { continue };
            prop_assert!(Quorum::new(&placed.nodeset, &wanted).is_ok());
            prop_assert!(answers.iter().any(|answer| answer.id == placed.sequencer));
            let record_of = |wanted: NodeId| nodes.iter().find(|record| record.id.node == wanted);
            prop_assert_eq!(admit(&placed, record_of), Ok(()));
        }
    }
}
