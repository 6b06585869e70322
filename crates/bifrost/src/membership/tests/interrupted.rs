//! A start that dies anywhere, carried out what it was about or not, and is repeated, ends in the same place; and an operator
//! who changes the state at any moment is obeyed. A start goes by what it sees and not by replies, so that a lost one is
//! nothing to it.

use super::*;
use crate::nodes::{Transition, transition};

/// What outlives a process.
#[derive(Debug, Clone, Default)]
struct World {
    record: Option<NodeRecord>,
    marker: Option<Marker>,
    starts: u128,
}

/// What goes wrong with a start, at its step of this number.
#[derive(Debug, Clone, Copy)]
enum Trouble {
    DiesBefore(usize),
    DiesAfter(usize),
    /// What it wrote did not arrive: it looks, and goes on.
    WritesInVain(usize),
    Operator(usize, StorageState),
}

#[derive(Debug, PartialEq, Eq)]
enum Ended {
    Died,
    Serves,
    Refused(Refusal),
}

impl World {
    fn start(&mut self, roles: Roles, trouble: Option<Trouble>) -> Ended {
        self.starts += 1;
        let mut boot = Boot::new(cluster(1), Identity { roles, ..identity() }, disk(70 + self.starts));
        for number in 0..20 {
            match trouble {
                Some(Trouble::DiesBefore(at)) if at == number => return Ended::Died,
                Some(Trouble::Operator(at, state)) if at == number => self.operator(state),
                _ => {}
            }
            match boot.next(self.record.as_ref(), self.marker) {
                BootStep::OpenDisk => boot.opened(),
                BootStep::Serve => return Ended::Serves,
                BootStep::Refuse(refusal) => return Ended::Refused(refusal),
                _ if matches!(trouble, Some(Trouble::WritesInVain(at)) if at == number) => {}
                // A second one conflicts with the first, which is found.
                BootStep::Reserve => _ = self.record.get_or_insert(boot.identity().first_record(node())),
                BootStep::WriteMarker(marker) => self.marker = Some(marker),
                BootStep::WriteRecord(next) => self.write(next),
                step @ (BootStep::AskWhoServes(..) | BootStep::Superseded) => panic!("nobody else is there: {step:?}"),
            }
            if matches!(trouble, Some(Trouble::DiesAfter(at)) if at == number) {
                return Ended::Died;
            }
        }
        panic!("it does not end: {self:?}")
    }

    fn write(&mut self, next: NodeRecord) {
        if let Some(record) = &self.record {
            assert!(next.id.generation >= record.id.generation, "a life never goes back");
            let known = self.marker.and_then(|marker| marker.generation);
            let on_disk = next.roles.has(Role::LogServer) && next.storage != StorageState::DataLoss;
            assert!(!on_disk || known >= Some(next.id.generation), "W2: the marker is not behind the record");
        }
        self.record = Some(next);
    }

    /// Changes the state if the table allows it, in a transaction of its own.
    fn operator(&mut self, state: StorageState) {
        if let Some(record) = &mut self.record
            && matches!(transition(record, state), Ok(Transition::Write | Transition::WriteIfUnneeded))
        {
            record.storage = state;
        }
    }

    /// All but how many lives it took.
    fn place(&self) -> (Option<StorageState>, bool, bool) {
        let record = self.record.as_ref();
        let (of_record, of_marker) = (record.map(|record| record.id.generation), self.marker);
        let same_life = of_marker.is_none_or(|marker| marker.generation == of_record);
        let same_disk = of_marker.map(|marker| marker.disk) == record.and_then(|record| record.disk);
        (record.map(|record| record.storage), same_life, same_disk)
    }
}

fn troubles() -> Vec<Trouble> {
    let states = [StorageState::ReadWrite, StorageState::ReadOnly, StorageState::DataLoss, StorageState::Retired];
    let deaths = (0..8).flat_map(|at| [Trouble::DiesBefore(at), Trouble::DiesAfter(at), Trouble::WritesInVain(at)]);
    deaths.chain((0..8).flat_map(|at| states.map(|state| Trouble::Operator(at, state)))).collect()
}

/// A node that nobody knows, one that is known, and one that an operator closed.
fn worlds() -> Vec<World> {
    let known = |storage| World {
        record: Some(record(storage, Some(disk(7)))),
        marker: Some(marker(7, 4)),
        ..World::default()
    };
    vec![World::default(), known(StorageState::ReadWrite), known(StorageState::ReadOnly)]
}

#[test]
fn a_start_after_two_that_had_trouble_anywhere_ends_in_the_same_place_or_as_the_operator_wants() {
    for world in worlds() {
        let mut expected = world.clone();
        assert_eq!(expected.start(Roles::DATA, None), Ended::Serves);
        for first in troubles() {
            for second in troubles() {
                let mut tried = world.clone();
                for trouble in [first, second] {
                    tried.start(Roles::DATA, Some(trouble));
                }
                let wanted = tried.record.as_ref().map(|record| record.storage);
                let ended = tried.start(Roles::DATA, None);
                match wanted {
                    Some(state @ (StorageState::DataLoss | StorageState::Retired)) => {
                        assert_eq!(ended, Ended::Refused(Refusal::OutOfService { state }), "{first:?}, {second:?}");
                        continue;
                    }
                    Some(StorageState::Provisioning) | None => {}
                    Some(state) => assert_eq!(tried.place().0, Some(state), "{first:?}, {second:?}"),
                }
                assert_eq!(ended, Ended::Serves, "{first:?}, {second:?}");
                let (storage, same_life, same_disk) = tried.place();
                assert!(same_life && same_disk, "{first:?}, {second:?}: {tried:?}");
                let by_operator = [first, second].iter().any(|trouble| matches!(trouble, Trouble::Operator(..)));
                assert!(by_operator || storage == expected.place().0, "{first:?}, {second:?}: {tried:?}");
            }
        }
    }
}

#[test]
fn a_node_without_a_disk_that_dies_anywhere_goes_on_in_a_later_life() {
    let roles = Roles::new([Role::Sequencer]).unwrap();
    for first in troubles() {
        for second in troubles() {
            let mut world = World::default();
            let lives = [Some(first), Some(second), None].map(|trouble| {
                let ended = world.start(roles, trouble);
                (ended, world.record.as_ref().map(|record| record.id.generation))
            });
            assert_eq!(lives[2].0, Ended::Serves, "{first:?}, {second:?}");
            assert!(lives[0].0 != Ended::Serves || lives[1].1 > lives[0].1 || lives[1].0 == Ended::Died);
            assert_eq!(world.marker, None);
        }
    }
}

#[test]
fn a_disk_that_is_gone_is_marked_and_never_served_whatever_goes_wrong() {
    for first in troubles() {
        for second in troubles() {
            let mut world = World { record: Some(record(StorageState::ReadWrite, Some(disk(7)))), ..World::default() };
            for trouble in [Some(first), Some(second), None] {
                assert_ne!(world.start(Roles::DATA, trouble), Ended::Serves, "{first:?}, {second:?}");
            }
            let storage = world.record.map(|record| record.storage);
            assert!(matches!(storage, Some(StorageState::DataLoss | StorageState::Retired)), "{storage:?}");
            assert_eq!(world.marker, None);
        }
    }
}
