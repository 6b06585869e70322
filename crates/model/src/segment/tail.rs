//! Somebody asks for the linearizable tail: the real core, the servers that it asks, and the sequencer that it asks at
//! the same time (R4).

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use bifrost_loglet::tail::{ConfirmOpen, Event, OpenCheck};
use bifrost_types::LogletOffset;

use super::action::Action;
use super::server::at;
use super::{Segment, State};
use crate::witness::Witness;

/// One question in progress.
#[derive(Debug, Clone)]
pub(super) struct Probe {
    pub(super) core: Arc<ConfirmOpen>,
    /// The servers that have not answered.
    pub(super) asked: Vec<bool>,
    /// What the sequencer said.
    pub(super) sequencer: Said,
    /// The tail of all that was acknowledged before the question, here and in the successor.
    pub(super) acknowledged_before: LogletOffset,
    pub(super) check: Option<Checked>,
}

/// What the sequencer said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Said {
    Nothing,
    /// It is gone.
    Gone,
    Committed(LogletOffset),
}

/// What the core said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Checked {
    Confirmed,
    Fenced,
    Undecided,
}

impl Probe {
    pub(super) fn possible(&self, actions: &mut Vec<Action>) {
        if self.wants_states() {
            let asked = self.asked.iter().enumerate().filter(|(_, asked)| **asked);
            actions.extend(asked.map(|(server, _)| Action::TailState { server }));
        }
        if !self.is_over() && self.sequencer == Said::Nothing {
            actions.push(Action::TailSequencer);
        }
    }

    /// Whether the caller was told a tail, or will not be told one.
    fn is_over(&self) -> bool {
        matches!(self.check, Some(Checked::Fenced | Checked::Undecided))
            || self.sequencer == Said::Gone
            || self.answer().is_some()
    }

    /// Whether what a server says may still change the answer.
    pub(super) fn wants_states(&self) -> bool {
        !self.is_over() && self.check.is_none()
    }

    /// What may still become of the question, apart from what the servers said, when the sequencer would answer
    /// `committed_tail`. How much the caller may not miss counts as long as it may be missed: the committed tail of a
    /// sequencer only grows.
    pub(super) fn hash_rest<H: Hasher>(&self, committed_tail: Option<LogletOffset>, hasher: &mut H) {
        let told = match self.sequencer {
            Said::Nothing => committed_tail,
            Said::Gone => None,
            Said::Committed(tail) => Some(tail),
        };
        let misses = told.is_some_and(|tail| tail < self.acknowledged_before).then_some(self.acknowledged_before);
        if self.is_over() {
            (1_u8, self.answer().is_some() && misses.is_some()).hash(hasher);
            return;
        }
        (2_u8, self.sequencer == Said::Nothing, self.check, misses).hash(hasher);
        if self.check.is_none() {
            self.core.hash_rest(hasher);
        }
    }

    /// The tail that the caller is told, if it is told one.
    pub(super) fn answer(&self) -> Option<LogletOffset> {
        match (self.check, self.sequencer) {
            (Some(Checked::Confirmed), Said::Committed(tail)) => Some(tail),
            _ => None,
        }
    }
}

impl Segment {
    pub(super) fn ask_tail(&self, state: &mut State) {
        state.left.tails -= 1;
        let acknowledged_before = match state.decided {
            Some(decided) if state.successor_acknowledged => at(decided.tail.get() + 1),
            _ => state.acknowledged,
        };
        state.probe = Some(Probe {
            core: Arc::new(ConfirmOpen::new(&self.stage.params).expect("a scope that can take records")),
            asked: vec![true; state.servers.len()],
            sequencer: Said::Nothing,
            acknowledged_before,
            check: None,
        });
    }

    pub(super) fn tail_state(&self, state: &mut State, number: usize) {
        let (Some(server), Some(probe)) = (state.servers.get(number), &mut state.probe) else { return };
        let index = server.index;
        if let Some(asked) = probe.asked.get_mut(number) {
            *asked = false;
        }
        let event = match server.check_disk() {
            Ok(()) => Event::Answered { index, state: server.core.state() },
            Err(error) => Event::Failed { index, error: bifrost_loglet::MemberError::Call(error.into()) },
        };
        let check = Arc::make_mut(&mut probe.core).step(event);
        probe.check = check.map(|check| match check {
            OpenCheck::Confirmed { .. } => Checked::Confirmed,
            OpenCheck::Fenced { .. } => Checked::Fenced,
            OpenCheck::Undecided { .. } => Checked::Undecided,
        });
        if probe.check == Some(Checked::Fenced) {
            self.seen.note(Witness::Fenced);
        }
        self.tail_answered(state);
    }

    pub(super) fn tail_sequencer(&self, state: &mut State) {
        let fenced = state.decided.is_some();
        let Some(probe) = &mut state.probe else { return };
        probe.sequencer = match &state.sequencer {
            Some(sequencer) => Said::Committed(sequencer.tails().committed_tail),
            None => Said::Gone,
        };
        if fenced && probe.sequencer != Said::Gone {
            self.seen.note(Witness::FencedAsked);
        }
        self.tail_answered(state);
    }

    fn tail_answered(&self, state: &State) {
        if state.probe.as_ref().is_some_and(|probe| probe.answer().is_some()) {
            self.seen.note(Witness::Confirmed);
        }
    }
}
