#![allow(clippy::unwrap_used, clippy::panic)]

mod rows;
mod world;

use bifrost_types::{Generation, Location, NodeGeneration, Roles, StorageState};
use bifrost_wire::metadata_admin::{KnownMember, MemberRole, MemberStatus, MetadataMember};

use self::world::World;
use super::*;

const OWN: &str = "own:2438";
const FIRST_MEMBER: &str = "first:2438";

fn cluster(number: u128) -> ClusterId {
    ClusterId::try_from(number).unwrap()
}

fn node(number: u32) -> NodeId {
    NodeId::try_from(number).unwrap()
}

fn disk(number: u128) -> Option<DiskId> {
    Some(DiskId::try_from(number).unwrap())
}

/// A node that wants nothing but to go on.
fn wanted() -> Wanted {
    Wanted {
        name: "three".to_owned(),
        address: "own:2437".to_owned(),
        member: None,
        make: None,
        join: false,
        etcd: None,
        directory: PathBuf::from("data"),
    }
}

fn with_member() -> Wanted {
    Wanted { member: Some(OWN.to_owned()), ..wanted() }
}

fn in_etcd() -> Wanted {
    Wanted { etcd: Some("bifrost".to_owned()), ..wanted() }
}

/// Of a node that joined, and has its number.
fn joined() -> NodeState {
    NodeState {
        cluster: cluster(7),
        begun: Begun::Join,
        name: "three".to_owned(),
        node: Some(node(3)),
        engine: Engine::Raft,
        member: None,
        metadata: vec![FIRST_MEMBER.to_owned()],
    }
}

fn member(address: &str, voter: bool) -> Option<MemberState> {
    Some(MemberState { address: address.to_owned(), voter, moved: false })
}

fn record(number: u32, disk: Option<DiskId>) -> NodeRecord {
    let storage = if disk.is_some() { StorageState::ReadWrite } else { StorageState::Provisioning };
    NodeRecord {
        id: NodeGeneration::new(node(number), Generation::FIRST),
        name: "three".to_owned(),
        address: "own:2437".to_owned(),
        location: Location::default(),
        disk,
        storage,
        declared_lost: false,
        roles: Roles::DATA,
    }
}

/// What a member says of a group of these nodes, the group being of this number and going on in place of those.
fn says(members: &[(u32, &str)], group: u64, replaced: &[u64]) -> MemberStatus {
    let known = |(number, address): &(u32, &str)| KnownMember {
        member: MetadataMember { node: node(*number), address: (*address).to_owned() },
        voter: true,
    };
    MemberStatus {
        cluster: cluster(7),
        node: node(1),
        role: MemberRole::Leader,
        term: 1,
        leader: Some(node(1)),
        members: members.iter().map(known).collect(),
        last_log: Some(1),
        applied: Some(1),
        group,
        replaced_groups: replaced.to_vec(),
    }
}

fn view(members: &[(u32, &str)], group: u64, replaced: &[u64]) -> View {
    View::new([(FIRST_MEMBER.to_owned(), says(members, group, replaced))])
}

/// From these options and this world to a node that serves.
struct Journey {
    what: &'static str,
    wanted: Wanted,
    world: World,
    /// Whether a start with neither `--bootstrap` nor `--join` goes on as soon as there is a `node.json`.
    known_then: bool,
}

fn journeys() -> Vec<Journey> {
    let to = |what, wanted, world| Journey { what, wanted, world, known_then: true };
    let group = World::with_group;
    let first = NodeState { begun: Begun::Bootstrap, node: Some(FIRST), ..joined() };
    let as_member = NodeState { member: member(OWN, true), ..joined() };
    vec![
        to("makes a cluster", Wanted { make: Some(cluster(7)), ..with_member() }, World::default()),
        to("joins with a member", Wanted { join: true, ..with_member() }, group()),
        to("joins without a member", Wanted { join: true, ..wanted() }, group()),
        to("makes a cluster in etcd", Wanted { make: Some(cluster(7)), ..in_etcd() }, World::default()),
        to("joins in etcd", in_etcd(), World::default().with_etcd()),
        to("goes on", wanted(), group().of(joined())),
        to("gets a member later", with_member(), group().of(joined())),
        to("goes on as a member", with_member(), group().member(3, OWN).of(as_member.clone()).with_log()),
        to(
            "goes on as the first",
            with_member(),
            World::default().member(1, OWN).of(NodeState { member: member(OWN, true), ..first.clone() }).with_log(),
        ),
        to(
            "its member moves",
            with_member(),
            group().member(3, "old:1").with_log().of(NodeState {
                member: member("old:1", true),
                metadata: vec![FIRST_MEMBER.to_owned(), "old:1".to_owned()],
                ..joined()
            }),
        ),
        to("was removed as a member and lost its log", with_member(), group().of(as_member.clone())),
        to(
            "moves into etcd",
            Wanted { member: None, ..in_etcd() },
            group().member(3, OWN).of(as_member).with_log().with_etcd(),
        ),
        Journey {
            known_then: false,
            ..to(
                "moves out of etcd",
                Wanted { join: true, ..with_member() },
                group().of(NodeState { engine: Engine::Etcd, metadata: Vec::new(), ..joined() }),
            )
        },
    ]
}

/// Before which step a process dies, and how much of that step it carries out before.
type Death = (usize, usize);

/// Runs a start until it dies, or to its end. `None` when it got to its end before that.
fn run(world: &mut World, wanted: &Wanted, death: Option<Death>) -> Option<Step> {
    world.new_life();
    let mut order = Order::new(wanted.clone(), world.file.clone());
    for number in 0..40 {
        let step = order.next().unwrap_or_else(|refused| panic!("{refused}"))?;
        if let Some((at, parts)) = death
            && at == number
        {
            world.take_parts(&step, wanted, parts);
            return Some(step);
        }
        let outcome = world.take(&step, wanted);
        order.learn(outcome);
    }
    panic!("it does not end: {:?}", order.next())
}

/// Every place in which a start from this world can die.
fn deaths(world: &World, wanted: &Wanted) -> Vec<Death> {
    let mut found = Vec::new();
    for at in 0.. {
        match run(&mut world.clone(), wanted, Some((at, 0))) {
            Some(step) => found.extend((0..=World::parts(&step)).map(|parts| (at, parts))),
            None => return found,
        }
    }
    found
}

/// What whoever starts the process again says: the same, or nothing of making and joining if it is known.
fn said_again(journey: &Journey, world: &World) -> Vec<Wanted> {
    // Ids are made anew by each start; that of `node.json` is kept.
    let make = journey.wanted.make.map(|id| if world.file.is_some() { cluster(99) } else { id });
    let same = Wanted { make, ..journey.wanted.clone() };
    let known = Wanted { make: None, join: false, ..journey.wanted.clone() };
    let is_known = world.file.is_some() && journey.known_then;
    [Some(same), is_known.then_some(known)].into_iter().flatten().collect()
}

#[test]
fn a_start_that_dies_twice_anywhere_ends_in_the_same_place() {
    for journey in journeys() {
        let mut expected = journey.world.clone();
        assert_eq!(run(&mut expected, &journey.wanted, None), None);
        assert!(expected.serves, "{}", journey.what);
        let mut tried = 0;
        for first in deaths(&journey.world, &journey.wanted) {
            let mut once = journey.world.clone();
            run(&mut once, &journey.wanted, Some(first));
            for wanted in said_again(&journey, &once) {
                for second in deaths(&once, &wanted) {
                    let mut twice = once.clone();
                    run(&mut twice, &wanted, Some(second));
                    for wanted in said_again(&journey, &twice) {
                        let mut world = twice.clone();
                        assert_eq!(run(&mut world, &wanted, None), None);
                        assert_eq!(world, expected, "{}, after {first:?} and {second:?}", journey.what);
                        tried += 1;
                    }
                }
            }
        }
        assert!(tried >= 20, "{}: {tried}", journey.what);
    }
}

#[test]
fn a_start_that_is_ready_changes_nothing_when_it_is_repeated() {
    for journey in journeys() {
        let mut world = journey.world.clone();
        run(&mut world, &journey.wanted, None);
        let after = world.clone();
        for wanted in said_again(&journey, &after) {
            run(&mut world, &wanted, None);
            assert_eq!(world, after, "{}", journey.what);
        }
    }
}
