//! One step of an actor or of the metadata store.

use std::sync::Arc;

use bifrost::chain::{raise_trim_point, replace_successor, validate};
use bifrost::reconfigure::{Candidate, Intent, Reconfigured, Step};
use bifrost_types::{Actor as Who, Chain, CloseReason, LogletOffset, SegmentIndex, Timings};

use super::{Action, Actor, Chains, State, Txn, Wanted};
use crate::witness::Witness;

impl Chains {
    pub(super) fn possible(&self, state: &State, actions: &mut Vec<Action>) {
        if state.broken.is_some() {
            return;
        }
        for (number, actor) in state.actors.iter().enumerate() {
            if actor.done {
                if state.left.repeats > 0 {
                    actions.push(Action::Repeat { actor: number });
                }
                continue;
            }
            match &actor.look {
                None if !actor.waits => actions.push(Action::Look { actor: number }),
                None if state.left.replies_lost > 0 => actions.push(Action::ReplyLost { actor: number }),
                None => {}
                Some(_) => match self.next_step(state, number) {
                    Some(Ok(Step::Close { .. })) => actions
                        .extend(self.scope.candidates.iter().map(|tail| Action::Close { actor: number, tail: *tail })),
                    Some(Ok(Step::Decide { .. })) if state.left.replacements > 0 => {
                        actions.push(Action::Act { actor: number });
                        actions.push(Action::Replace { actor: number });
                    }
                    _ => actions.push(Action::Act { actor: number }),
                },
            }
            if state.left.crashes > 0 {
                actions.push(Action::Crash { actor: number });
            }
        }
        actions.extend((0..state.txns.len()).map(|txn| Action::Arrive { txn }));
    }

    /// The next step of an actor on what it saw; `None` for one that trims.
    fn next_step(&self, state: &State, number: usize) -> Option<Result<Step, bifrost::chain::ChainError>> {
        let (actor, wanted) = (state.actors.get(number)?, self.scope.actors.get(number)?);
        let (Wanted::Close { op, successor }, Some((_, chain))) = (wanted, &actor.look) else { return None };
        let intent = Intent {
            op: *op,
            segment: actor.segment?,
            actor: Who::Operator,
            reason: CloseReason::Requested,
            successor: successor.clone(),
        };
        let candidate =
            actor.candidate.map(|(op, tail)| Candidate { op, end: tail.into(), timings: Timings::default() });
        Some(intent.next_step(chain, candidate, 0))
    }

    pub(super) fn take(&self, before: &State, action: &Action) -> State {
        let mut state = before.clone();
        match action {
            Action::Look { actor } => {
                let seen = (state.revision, Arc::clone(&state.chain));
                let last = state.chain.last().map(|segment| segment.index());
                if let Some(actor) = state.actors.get_mut(*actor) {
                    actor.segment = actor.segment.or(last).or(Some(SegmentIndex::FIRST));
                    actor.look = Some(seen);
                }
            }
            Action::Act { actor } => self.act(&mut state, *actor),
            Action::Close { actor, tail } => {
                if let (Some(Ok(Step::Close { op, .. })), Some(actor), Some(tail)) =
                    (self.next_step(before, *actor), state.actors.get_mut(*actor), LogletOffset::new(*tail))
                {
                    actor.candidate = Some((op, tail));
                    actor.look = None;
                }
            }
            Action::Replace { actor } => {
                state.left.replacements -= 1;
                self.replace(&mut state, *actor);
            }
            Action::Arrive { txn } => self.arrive(&mut state, *txn),
            Action::ReplyLost { actor } => {
                state.left.replies_lost -= 1;
                forget_reply(&mut state, *actor);
            }
            Action::Crash { actor } => {
                state.left.crashes -= 1;
                forget_reply(&mut state, *actor);
                if let Some(actor) = state.actors.get_mut(*actor) {
                    *actor = Actor { segment: actor.segment, look: None, candidate: None, waits: false, done: false };
                }
                self.seen.note(Witness::ActorDied);
            }
            Action::Repeat { actor } => {
                state.left.repeats -= 1;
                if let Some(actor) = state.actors.get_mut(*actor) {
                    *actor = Actor { segment: None, look: None, candidate: None, waits: false, done: false };
                }
                self.seen.note(Witness::Repeated);
            }
        }
        // Who is first in the queue does not matter.
        state.txns.sort_by_cached_key(crate::digest::digest_of);
        state
    }

    fn act(&self, state: &mut State, number: usize) {
        if let Some(Wanted::Trim { trim_point }) = self.scope.actors.get(number) {
            let Some((_, seen)) = state.actors.get_mut(number).and_then(|actor| actor.look.clone()) else { return };
            match raise_trim_point(&seen, *trim_point) {
                Ok(Some(next)) => send(state, number, next),
                Ok(None) => end(state, number),
                Err(error) => state.broken = Some(error.to_string()),
            }
            return;
        }
        match self.next_step(state, number) {
            Some(Ok(Step::Write(next) | Step::Decide { decided: next, .. })) => send(state, number, next),
            Some(Ok(Step::Tell { outcome, .. })) => {
                if matches!(outcome, Reconfigured::Superseded { .. }) {
                    self.seen.note(Witness::Superseded);
                }
                if let Some(breach) = state.history.told(outcome.finished()) {
                    state.broken = Some(breach);
                }
                if let (Reconfigured::Done(finished), Some(Wanted::Close { op, .. })) =
                    (&outcome, self.scope.actors.get(number))
                    && finished.op != *op
                {
                    state.broken = Some("C4: told of another operation's end as its own".to_owned());
                }
                end(state, number);
            }
            // A log that was closed for good takes nothing more; whoever asks is told so.
            Some(Err(bifrost::chain::ChainError::Closed)) => end(state, number),
            Some(Err(error)) => state.broken = Some(error.to_string()),
            Some(Ok(Step::Close { .. })) | None => {}
        }
    }

    fn replace(&self, state: &mut State, number: usize) {
        let Some(Ok(Step::Decide { pending, .. })) = self.next_step(state, number) else { return };
        let Some((_, seen)) = state.actors.get(number).and_then(|actor| actor.look.clone()) else { return };
        match replace_successor(&seen, pending.op, self.replacement.clone()) {
            Ok(Some(next)) => {
                self.seen.note(Witness::Replaced);
                send(state, number, next);
            }
            Ok(None) => state.broken = Some("T1': nothing to replace, although it is pending".to_owned()),
            Err(error) => state.broken = Some(error.to_string()),
        }
    }

    /// Compare-and-set, and the reply if somebody waits for it.
    fn arrive(&self, state: &mut State, number: usize) {
        let Txn { actor, expected, next } = state.txns.remove(number);
        if expected == state.revision {
            if let Some(breach) = state.history.change(&state.chain, &next) {
                state.broken = Some(breach);
            } else if let Err(error) = validate(&next) {
                state.broken = Some(error.to_string());
            }
            if actor.is_none() {
                self.seen.note(Witness::LateRequest);
            }
            state.chain = next;
            state.revision += 1;
        } else {
            self.seen.note(Witness::Conflict);
        }
        if let Some(actor) = actor.and_then(|actor| state.actors.get_mut(usize::from(actor))) {
            actor.waits = false;
        }
    }
}

fn send(state: &mut State, number: usize, next: Chain) {
    let Some(actor) = state.actors.get_mut(number) else { return };
    let Some((expected, _)) = actor.look.take() else { return };
    actor.waits = true;
    state.txns.push(Txn { actor: Some(number as u8), expected, next: Arc::new(next) });
}

fn end(state: &mut State, number: usize) {
    if let Some(actor) = state.actors.get_mut(number) {
        *actor = Actor { segment: actor.segment, look: None, candidate: None, waits: false, done: true };
    }
}

/// Nobody waits for its transaction any more.
fn forget_reply(state: &mut State, number: usize) {
    for txn in &mut state.txns {
        if txn.actor == Some(number as u8) {
            txn.actor = None;
        }
    }
    if let Some(actor) = state.actors.get_mut(number) {
        actor.waits = false;
    }
}
