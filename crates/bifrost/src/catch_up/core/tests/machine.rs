//! Long random schedules: segments that close, are trimmed and deleted, copies with any holes, steps that fail, disks that
//! run full or leave service. Once all is well again, every copy becomes whole, and nothing is done any more.

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Action {
    Close { of: u64, has: Vec<bool> },
    Trim { of: u64, records: u64 },
    Delete { of: u64 },
    End { works: bool, some: u64 },
    Wait(u64),
    InService(bool),
    Room(bool),
    Peers,
    ListAgain,
}

const LOGS: u64 = 3;

fn action() -> impl Strategy<Value = Action> {
    let of = || 1..=LOGS;
    prop_oneof![
        4 => (of(), prop::collection::vec(any::<bool>(), 1..12)).prop_map(|(of, has)| Action::Close { of, has }),
        2 => (of(), 1..8_u64).prop_map(|(of, records)| Action::Trim { of, records }),
        1 => of().prop_map(|of| Action::Delete { of }),
        20 => (prop::bool::weighted(0.8), 1..6_u64).prop_map(|(works, some)| Action::End { works, some }),
        8 => (0..3000_u64).prop_map(Action::Wait),
        1 => prop::bool::weighted(0.7).prop_map(Action::InService),
        1 => prop::bool::weighted(0.7).prop_map(Action::Room),
        1 => Just(Action::Peers),
        1 => Just(Action::ListAgain),
    ]
}

/// One copy as the disk has it: which offsets are there, and what is attested.
#[derive(Debug)]
struct Copy {
    share: Share,
    has: Vec<bool>,
    whole_tail: u64,
}

#[derive(Debug)]
struct World {
    core: Core,
    now: Duration,
    revision: Revision,
    copies: BTreeMap<LogletId, Copy>,
    next_segment: u32,
    step: Option<Step>,
}

impl World {
    fn shares(&self, of: u64) -> Vec<Share> {
        let of_log = self.copies.values().filter(|copy| copy.share.params.id.log == log(of));
        of_log.map(|copy| copy.share.clone()).filter(|share| share.from < share.decided_tail).collect()
    }

    fn tell(&mut self, event: Event) {
        let begun = self.core.step(self.now, event);
        self.core.check();
        if let Some(step) = begun {
            assert!(self.step.replace(step).is_none(), "two steps at once");
        }
    }

    fn tell_of(&mut self, of: u64) {
        self.revision += 1;
        let (log, revision, shares) = (log(of), self.revision, self.shares(of));
        self.tell(Event::LogSeen { log, revision, shares });
    }

    fn end(&mut self, works: bool, some: u64) {
        let Some(step) = self.step.take() else { return };
        let loglet = step.share().params.id;
        let failed = match &step {
            Step::Copy { hole, .. } => CatchUpError::NoSource { loglet, from: hole.0 },
            Step::Prepare(_) | Step::Look { .. } | Step::Attest(_) => CatchUpError::DeadlinePassed { loglet },
        };
        let outcome = match self.copies.get_mut(&loglet) {
            Some(copy) if works => copy.carry_out(&step, some),
            _ => Outcome::Failed(failed),
        };
        self.tell(Event::Ended { loglet, outcome });
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Close { of, has } => {
                let share = share(of, self.next_segment, has.len() as u64 + 1);
                self.next_segment += 1;
                self.copies.insert(share.params.id, Copy { share, has, whole_tail: 1 });
                self.tell_of(of);
            }
            Action::Trim { of, records } => {
                for copy in self.copies.values_mut().filter(|copy| copy.share.params.id.log == log(of)) {
                    let from = copy.share.from.advance(records).unwrap();
                    copy.share.from = from.min(copy.share.decided_tail);
                }
                self.tell_of(of);
            }
            Action::Delete { of } => {
                self.copies.retain(|loglet, _| loglet.log != log(of));
                self.tell(Event::LogGone { log: log(of) });
            }
            Action::End { works, some } => self.end(works, some),
            Action::Wait(millis) => {
                self.now += Duration::from_millis(millis);
                if self.core.wake_at().is_some_and(|due| due <= self.now) {
                    self.tell(Event::Woken);
                }
            }
            Action::InService(in_service) => self.tell(Event::InService(in_service)),
            Action::Room(room) => self.tell(Event::Room(room)),
            Action::Peers => self.tell(Event::PeersChanged),
            Action::ListAgain => {
                let logs = (1..=LOGS).map(|of| (log(of), (self.revision, self.shares(of)))).collect();
                self.tell(Event::Listed { logs });
            }
        }
    }
}

impl Copy {
    fn carry_out(&mut self, step: &Step, some: u64) -> Outcome {
        match step {
            Step::Prepare(_) => Outcome::Prepared { whole_tail: at(self.whole_tail) },
            Step::Look { share, from } => {
                let until = from.advance(some).unwrap().min(share.decided_tail);
                let missing = (from.get()..until.get()).filter(|offset| !self.has[*offset as usize - 1]);
                let holes = missing.map(|offset| (at(offset), at(offset + 1))).collect();
                Outcome::Looked { until, holes, bytes: some }
            }
            Step::Copy { hole, .. } => {
                let until = hole.0.advance(some).unwrap().min(hole.1);
                for offset in hole.0.get()..until.get() {
                    self.has[offset as usize - 1] = true;
                }
                Outcome::Copied { until, bytes: some, lost: false }
            }
            Step::Attest(share) => {
                assert!(self.is_whole(), "{self:?} is attested and has holes");
                self.whole_tail = share.decided_tail.get();
                Outcome::Attested
            }
        }
    }

    fn is_whole(&self) -> bool {
        let from = self.share.from.get() as usize - 1;
        self.has.iter().skip(from).all(|has| *has)
    }
}

proptest! {
    #[test]
    fn every_copy_becomes_whole_whatever_came_between(schedule in prop::collection::vec(action(), 1..200)) {
        let core = Core::new(options());
        let mut world =
            World { core, now: Duration::ZERO, revision: 1, copies: BTreeMap::new(), next_segment: 0, step: None };
        for action in schedule {
            world.act(action);
        }
        world.act(Action::InService(true));
        world.act(Action::Room(true));
        world.act(Action::ListAgain);
        for _ in 0..2000 {
            match (world.step.is_some(), world.core.wake_at()) {
                (true, _) => world.end(true, 4),
                (false, Some(due)) => {
                    world.now = world.now.max(due);
                    world.tell(Event::Woken);
                }
                (false, None) => break,
            }
        }
        prop_assert_eq!(world.core.progress().state, CatchUpState::Idle);
        prop_assert!(world.copies.values().all(Copy::is_whole), "{:?}", world.copies);
    }
}
