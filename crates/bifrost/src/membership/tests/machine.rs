//! Long random schedules of one node and its disk: starts that die at each step or lose a reply, writes of the record that
//! arrive late, an operator who changes the state, copies that are taken and put back. What is served is never less than
//! what was acknowledged, but for a copy of the same life; and the disk itself is always served.

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone, Copy)]
enum Action {
    /// Begins a life and dies before the step of this number, if there are so many.
    Start {
        dies_before: usize,
        lose_reply: bool,
    },
    /// What an earlier start sent, and thought lost, arrives.
    ArriveLate,
    Acknowledge,
    Copy,
    PutBack(usize),
    PutTheDiskBack,
    Operator(StorageState),
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        6 => (prop_oneof![3 => Just(usize::MAX), 2 => 0..5_usize], prop::bool::weighted(0.2))
            .prop_map(|(dies_before, lose_reply)| Action::Start { dies_before, lose_reply }),
        1 => Just(Action::ArriveLate),
        4 => Just(Action::Acknowledge),
        2 => Just(Action::Copy),
        2 => any::<usize>().prop_map(Action::PutBack),
        2 => Just(Action::PutTheDiskBack),
        1 => prop_oneof![Just(StorageState::ReadOnly), Just(StorageState::ReadWrite)].prop_map(Action::Operator),
    ]
}

/// What lies in a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Contents {
    marker: Option<Marker>,
    /// How much was acknowledged with it.
    records: u64,
}

struct World {
    record: NodeRecord,
    revision: u64,
    directory: Contents,
    /// The disk itself while a copy lies in its place.
    aside: Option<Contents>,
    copies: Vec<Contents>,
    acknowledged: u64,
    serving: bool,
    late: Option<(u64, NodeRecord)>,
}

impl World {
    fn new() -> Self {
        Self {
            record: of_life(&record(StorageState::Provisioning, None), 1),
            revision: 1,
            directory: Contents::default(),
            aside: None,
            copies: Vec::new(),
            acknowledged: 0,
            serving: false,
            late: None,
        }
    }

    fn replace(&mut self, revision: u64, next: NodeRecord) -> bool {
        let fits = self.revision == revision;
        if fits {
            self.record = next;
            self.revision += 1;
        }
        fits
    }

    fn start(&mut self, dies_before: usize, lose_reply: bool) {
        self.serving = false;
        let true_disk = self.aside.is_none();
        let before = self.record.id.generation;
        let found = self.directory.marker;
        let mut boot = boot();
        for step in 0.. {
            if step == dies_before {
                return;
            }
            match boot.next(Some(&self.record), self.directory.marker) {
                BootStep::OpenDisk => boot.opened(),
                BootStep::WriteMarker(marker) => self.directory.marker = Some(marker),
                BootStep::WriteRecord(next) => {
                    let begins = next.id.generation > self.record.id.generation;
                    if begins && lose_reply {
                        self.late = Some((self.revision, next));
                        return;
                    }
                    assert!(self.replace(self.revision, next));
                    if begins {
                        self.is_the_disk_now(found, before);
                    }
                }
                BootStep::Serve => return self.serve(),
                BootStep::Refuse(Refusal::OldCopy { .. }) => {
                    assert!(!true_disk, "the disk itself is refused");
                    return;
                }
                step => panic!("there always are a record and a marker by then: {step:?}"),
            }
        }
    }

    /// W2: what begins a life has everything that was acknowledged, unless a copy was put back in the life that it is of.
    fn is_the_disk_now(&mut self, found: Option<Marker>, before: Generation) {
        let of_this_life = found.and_then(|marker| marker.generation) >= Some(before);
        assert!(
            self.directory.records == self.acknowledged || of_this_life,
            "an old copy is served: {} of {}",
            self.directory.records,
            self.acknowledged
        );
        self.acknowledged = self.directory.records;
        self.aside = None;
    }

    fn serve(&mut self) {
        assert_eq!(self.directory.marker.map(|marker| marker.disk), self.record.disk);
        let known = self.directory.marker.and_then(|marker| marker.generation);
        assert_eq!(known, Some(self.record.id.generation));
        self.serving = true;
    }

    /// Something else lies in the directory. What a start with the one before sent does not arrive any more: whoever puts
    /// a copy back in the life that it is of has two disks of one name, and nobody can say which one is meant.
    fn lay(&mut self, contents: Contents) {
        self.serving = false;
        self.late = None;
        self.directory = contents;
    }

    fn step(&mut self, action: Action) {
        match action {
            Action::Start { dies_before, lose_reply } => self.start(dies_before, lose_reply),
            Action::ArriveLate => {
                if let Some((revision, next)) = self.late.take()
                    && self.replace(revision, next)
                {
                    self.serving = false;
                    // Whatever lies there began that life; it was not refused.
                    self.acknowledged = self.directory.records;
                    self.aside = None;
                }
            }
            Action::Acknowledge => {
                if self.serving {
                    self.directory.records += 1;
                    self.acknowledged += 1;
                }
            }
            Action::Copy => self.copies.extend(self.directory.marker.is_some().then_some(self.directory)),
            Action::PutBack(which) => {
                if let Some(copy) = self.copies.get(which % self.copies.len().max(1)).copied() {
                    self.aside.get_or_insert(self.directory);
                    self.lay(copy);
                }
            }
            Action::PutTheDiskBack => {
                if let Some(disk) = self.aside.take() {
                    self.lay(disk);
                }
            }
            Action::Operator(storage) => {
                if self.record.storage != StorageState::Provisioning {
                    self.record.storage = storage;
                    self.revision += 1;
                }
            }
        }
    }
}

proptest! {
    #[test]
    fn no_schedule_serves_an_old_copy_or_refuses_the_disk(schedule in prop::collection::vec(action(), 1..80)) {
        #[cfg(bifrost_plant)]
        plant::set_from_env();
        let mut world = World::new();
        for action in schedule {
            world.step(action);
        }
        world.step(Action::PutTheDiskBack);
        world.step(Action::Start { dies_before: usize::MAX, lose_reply: false });
        prop_assert!(world.serving);
    }
}
