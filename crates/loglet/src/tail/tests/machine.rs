//! Random answers, late ones among them, from servers that are being sealed meanwhile.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Action {
    Seal(usize),
    Raise(usize, u64),
    Decide,
    /// The server looks at its state now.
    Look(usize),
    /// The oldest look arrives.
    Arrive,
    Fail(usize),
    Deadline,
}

fn action() -> impl Strategy<Value = Action> {
    let server = || 0..5_usize;
    prop_oneof![
        2 => server().prop_map(Action::Seal),
        2 => (server(), 1..9_u64).prop_map(|(server, tail)| Action::Raise(server, tail)),
        1 => Just(Action::Decide),
        8 => server().prop_map(Action::Look),
        8 => Just(Action::Arrive),
        4 => server().prop_map(Action::Fail),
        1 => prop::bool::weighted(0.1).prop_map(|passed| if passed { Action::Deadline } else { Action::Arrive }),
    ]
}

struct World {
    core: ConfirmOpen,
    wanted: usize,
    states: Vec<CopyState>,
    /// Whether each was sealed when the call began.
    sealed_before: Vec<bool>,
    on_the_way: VecDeque<(NodeIndex, CopyState)>,
    answered: Vec<bool>,
    highest_told: u64,
}

impl World {
    fn new(members: usize, copies: usize, sealed_before: &[bool]) -> Self {
        let (params, _) = cluster(&vec![(1, 1); members], &copies.to_string());
        let state = |sealed: bool| CopyState {
            local_tail: offset(9),
            committed_tail: offset(1),
            sealed: sealed.then(|| op(4)),
            decided_tail: None,
            trim_point: None,
        };
        let sealed_before: Vec<bool> = sealed_before.iter().copied().take(members).collect();
        Self {
            core: ConfirmOpen::new(&params).expect("enough members"),
            wanted: copies,
            states: sealed_before.iter().map(|sealed| state(*sealed)).collect(),
            sealed_before,
            on_the_way: VecDeque::new(),
            answered: vec![false; members],
            highest_told: 1,
        }
    }

    fn sealed(&self) -> usize {
        self.states.iter().filter(|state| state.sealed.is_some()).count()
    }

    fn fenced(&self) -> bool {
        self.states.len() - self.sealed() < self.wanted
    }

    fn act(&mut self, action: &Action) -> Option<OpenCheck> {
        let members = self.states.len();
        let index = |server: usize| self.core.quorum.all().iter().nth(server % members).expect("a member");
        match *action {
            Action::Seal(server) => self.states[server % members].sealed = Some(op(5)),
            Action::Raise(server, tail) => {
                let state = &mut self.states[server % members];
                state.committed_tail = state.committed_tail.max(offset(tail));
            }
            Action::Decide if self.fenced() => {
                let told = self.states.iter_mut().find(|state| state.sealed.is_some() && state.decided_tail.is_none());
                told.into_iter().for_each(|state| state.decided_tail = Some(offset(9)));
            }
            Action::Decide => {}
            Action::Look(server) => self.on_the_way.push_back((index(server), self.states[server % members])),
            Action::Arrive => {
                let (index, state) = self.on_the_way.pop_front()?;
                self.answered[index.get()] = true;
                self.highest_told = self.highest_told.max(state.committed_tail.get());
                return self.core.step(Event::Answered { index, state });
            }
            Action::Fail(server) => {
                let error = MemberError::AddressUnknown;
                return self.core.step(Event::Failed { index: index(server), error });
            }
            Action::Deadline => return self.core.step(Event::DeadlinePassed),
        }
        None
    }

    fn judge(&self, result: &OpenCheck, by_time: bool) {
        match result {
            OpenCheck::Confirmed { committed_tail } => {
                let open_then = self.sealed_before.iter().filter(|sealed| !**sealed).count();
                assert!(open_then >= self.wanted, "R4: it was fenced before the call began");
                assert_eq!(committed_tail.get(), self.highest_told);
            }
            OpenCheck::Fenced { op: by, decided_tail, .. } => {
                assert!(self.fenced(), "appends may still be acknowledged");
                assert!([op(4), op(5)].contains(by));
                assert!(decided_tail.is_none_or(|tail| tail == offset(9)));
            }
            OpenCheck::Undecided { sealed_by, missing } => {
                assert!(by_time || sealed_by.is_some(), "given up although nobody is known to help");
                let silent = self.answered.iter().filter(|answered| !**answered).count();
                assert_eq!(missing.len(), silent, "who did not answer is named");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_said_of_a_loglet_is_true_and_enough_answers_say_it(
        (members, copies) in prop_oneof![Just((3, 2)), Just((4, 3)), Just((5, 2)), Just((5, 3)), Just((3, 3)), Just((1, 1))],
        sealed_before in prop::collection::vec(prop::bool::weighted(0.3), 5),
        actions in prop::collection::vec(action(), 0..200),
    ) {
        #[cfg(bifrost_plant)]
        bifrost_types::plant::set_from_env();
        let mut world = World::new(members, copies, &sealed_before);
        for action in &actions {
            if let Some(result) = world.act(action) {
                world.judge(&result, matches!(action, Action::Deadline));
                return Ok(());
            }
        }
        let everybody = (0..members).map(Action::Look).chain((0..500).map(|_| Action::Arrive));
        let result = everybody.collect::<Vec<_>>().iter().find_map(|action| world.act(action));
        world.judge(&result.expect("everybody answered, and nothing is said"), false);
    }
}
