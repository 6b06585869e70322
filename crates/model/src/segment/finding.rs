//! The finders' side: their clocks, their calls to servers and the answers, and the transaction that decides.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bifrost::reconfigure::{Candidate, Reconfigured, Step};
use bifrost_loglet::close::{CloseError, Closed, Effect, Event};
use bifrost_logserver::copy::RepairFacts;
use bifrost_sequencer::core::Event::Stop;
use bifrost_types::plant::{self, Plant};
use bifrost_types::{Chain, NodeIndex, Timings};
use bifrost_wire::sequencer::SequencerError;

use super::call::{Answer, Call, Stage as CallStage, What, read};
use super::server::{Waiting, at};
use super::step::{NOW, RINGS};
use super::{Decided, Life, Segment, State};
use crate::witness::Witness;

impl Segment {
    /// The clock of a finder rings.
    pub(super) fn ring(&self, state: &mut State, finder: usize) {
        if let Some(finder) = state.finders.get_mut(finder) {
            finder.retry = false;
        }
        self.step_finder(state, finder, RINGS, Event::RetryDue);
    }

    /// The sequencer ends, and a finder hears how far it came.
    pub(super) fn last_word(&self, state: &mut State, finder: usize) {
        state.left.last_words -= 1;
        let Some(op) = state.finders.get(finder).map(|finder| finder.op) else { return };
        let op = self.stage.ops.get(usize::from(op)).copied().expect("an operation of the scope");
        let word = state.sequencer.as_ref().map(|sequencer| sequencer.tails().committed_tail);
        if !plant::is(Plant::LastWordTooSoon) {
            self.step_sequencer(state, Stop { why: SequencerError::Sealed { op } });
        }
        self.seen.note(Witness::LastWord);
        self.step_finder(state, finder, NOW, Event::SequencerEnded(word));
    }

    /// Runs a finder's core, and puts its calls on the way; those that are answered at once lead to further steps.
    fn step_finder(&self, state: &mut State, number: usize, now: Duration, event: Event) {
        let mut events = VecDeque::from([(now, event)]);
        while let Some((now, event)) = events.pop_front() {
            let Some(finder) = state.finders.get_mut(number) else { return };
            if finder.life != Life::Working {
                return;
            }
            let mut out = Vec::new();
            Arc::make_mut(&mut finder.core).step(now, event, &mut out);
            let op = finder.op;
            for effect in out {
                match effect {
                    Effect::RetryAt { .. } => {
                        if let Some(finder) = state.finders.get_mut(number) {
                            finder.retry = true;
                        }
                    }
                    // No operator gives a disk up here, and the sequencer may be asked at any moment.
                    Effect::Blocked(_) | Effect::AskWhoIsLost | Effect::EndSequencer => {}
                    Effect::Done(closed) => self.closed(state, number, &closed),
                    Effect::Failed(CloseError::Superseded { .. }) => {
                        self.seen.note(Witness::Superseded);
                        self.end_finder(state, number, Life::Superseded);
                    }
                    Effect::Failed(error) => state.broken = Some(error.to_string()),
                    Effect::Seal { .. } | Effect::Read { .. } | Effect::Repair { .. } => {
                        if let Some((kept_at, call)) = Call::of(number as u8, op, &effect) {
                            events.extend(self.send(state, kept_at, call).map(|event| (NOW, event)));
                        }
                    }
                }
            }
        }
    }

    /// Puts a call on the way, or gives its answer when that is known at once.
    fn send(&self, state: &mut State, kept_at: NodeIndex, call: Call) -> Option<Event> {
        let number = kept_at.get();
        if let What::Read { source, from, until } = call.what
            && !self.scope().late_reads
        {
            let server = state.servers.get(source.get())?;
            let answer = read(server, from, until);
            return Some(call.event(kept_at, &answer));
        }
        let server = state.servers.get_mut(number)?;
        if let (Err(error), What::Seal | What::Repair { .. }) = (server.check_disk(), &call.what) {
            self.seen.note(Witness::WrongDisk);
            return Some(call.event(kept_at, &Answer::State(Err(error))));
        }
        server.calls.push(call);
        None
    }

    /// A call arrives. One that is doubled stays on its way as well.
    pub(super) fn call(&self, state: &mut State, number: usize, place: usize, doubled: bool) {
        let Some(call) = state.servers.get(number).and_then(|server| server.calls.get(place)).cloned() else { return };
        let op = self.stage.ops.get(usize::from(call.op)).copied().expect("an operation of the scope");
        if call.finder.is_none() {
            self.seen.note(Witness::LateRequest);
        }
        let waits = if doubled { None } else { call.finder };
        let gone = !doubled && call.finder.is_none();
        let Some(server) = state.servers.get_mut(number) else { return };
        if gone {
            server.calls.remove(place);
        }
        let mut released = Vec::new();
        let outcome = match &call.what {
            What::Read { source, from, until } => {
                let answer = state.servers.get(source.get()).map(|server| read(server, *from, *until));
                if let (Some(finder), Some(answer)) = (waits, answer) {
                    self.answered(state, number, finder, answer);
                }
                return;
            }
            What::Seal => {
                if server.core.staged().local_tail != server.durable.local_tail {
                    self.seen.note(Witness::StoreRacedSeal);
                }
                server.seal(op)
            }
            What::Repair { committed_tail, records } => {
                let facts = RepairFacts { op, committed_tail: *committed_tail };
                let outcome = server.repair(facts, records, &mut released);
                if outcome.is_ok() {
                    self.seen.note(Witness::Repaired);
                }
                outcome
            }
        };
        if let (Some(finder), Some(call)) = (waits, server.calls.get_mut(place)) {
            call.stage = CallStage::InGroup;
            server.group.push(Waiting::Finder { finder, outcome });
        }
        self.group_built(state, number, released);
    }

    /// The answer to the call of a finder that is kept at a server is ready.
    pub(super) fn answered(&self, state: &mut State, number: usize, finder: u8, answer: Answer) {
        let Some(server) = state.servers.get_mut(number) else { return };
        let Some(place) = server.calls.iter().position(|call| call.finder == Some(finder)) else { return };
        if self.scope().late_answers && answer != Answer::Lost {
            if let Some(call) = server.calls.get_mut(place) {
                call.stage = CallStage::Answered(answer);
            }
            return;
        }
        let call = server.calls.remove(place);
        let event = call.event(self.index(number), &answer);
        self.step_finder(state, usize::from(finder), NOW, event);
    }

    pub(super) fn reply(&self, state: &mut State, number: usize, place: usize) {
        let Some(server) = state.servers.get_mut(number) else { return };
        let call = server.calls.remove(place);
        if let (CallStage::Answered(answer), Some(finder)) = (&call.stage, call.finder) {
            let event = call.event(self.index(number), answer);
            self.step_finder(state, usize::from(finder), NOW, event);
        }
    }

    pub(super) fn give_up(&self, state: &mut State, number: usize, place: usize) {
        state.left.calls_lost -= 1;
        let Some(server) = state.servers.get_mut(number) else { return };
        let call = server.calls.remove(place);
        let Some(finder) = call.finder else { return };
        server.group.retain(|waiting| !matches!(waiting, Waiting::Finder { finder: who, .. } if *who == finder));
        let event = call.event(self.index(number), &Answer::Lost);
        if call.stage == CallStage::Sent && !matches!(call.what, What::Read { .. }) {
            server.calls.push(Call { finder: None, ..call });
        }
        self.step_finder(state, usize::from(finder), NOW, event);
    }

    fn closed(&self, state: &mut State, number: usize, closed: &Closed) {
        let candidate = closed.candidate_tail;
        assert!(state.acknowledged <= candidate, "S2: candidate {candidate} drops what was acknowledged");
        assert!(
            closed.committed_tail <= state.acknowledged.max(state.decided.map_or(at(1), |decided| decided.tail)),
            "S4: a committed tail that no sequencer told"
        );
        let others = state.finders.iter();
        if others.map(|finder| finder.life).any(|life| matches!(life, Life::Candidate(other) if other != candidate)) {
            self.seen.note(Witness::Disagreed);
        }
        match state.decided {
            Some(decided) => {
                assert!(closed.decided_tail.is_none_or(|tail| tail == decided.tail), "C1: two decided tails");
                if decided.tail != candidate {
                    self.seen.note(Witness::Disagreed);
                }
            }
            None => assert_eq!(closed.decided_tail, None, "C1: a decided tail before the decision"),
        }
        self.end_finder(state, number, Life::Candidate(candidate));
        if state.decided.is_some() {
            // It has only to learn what was decided.
            self.decide(state, number);
        }
    }

    /// The finder steps no more. Its requests that are under way still arrive, or are lost, as the scope says.
    fn end_finder(&self, state: &mut State, number: usize, life: Life) {
        if let Some(finder) = state.finders.get_mut(number) {
            finder.life = life;
            finder.retry = false;
        }
        let whose = Some(number as u8);
        for server in &mut state.servers {
            server.group.retain(|waiting| !matches!(waiting, Waiting::Finder { finder, .. } if Some(*finder) == whose));
            let calls = std::mem::take(&mut server.calls);
            server.calls = calls
                .into_iter()
                .filter_map(|call| {
                    if call.finder != whose {
                        return Some(call);
                    }
                    let late = self.scope().late_requests
                        && call.stage == CallStage::Sent
                        && !matches!(call.what, What::Read { .. });
                    late.then_some(Call { finder: None, ..call })
                })
                .collect();
        }
    }

    /// What the driver of a reconfiguration does with a candidate: it looks at the chain, and takes the next step. The
    /// first decides (T2), the others learn what was decided.
    pub(super) fn decide(&self, state: &mut State, number: usize) {
        let Some(finder) = state.finders.get_mut(number) else { return };
        let Life::Candidate(candidate) = finder.life else { return };
        finder.life = Life::Over;
        let place = usize::from(finder.op);
        let op = finder.op;
        let (Some(announced), Some(intent)) = (self.stage.announced.get(place), self.stage.intents.get(place)) else {
            return;
        };
        let chain = state.chain.as_deref().unwrap_or(announced);
        let candidate = Candidate { op: intent.op, end: candidate.into(), timings: Timings::default() };
        match (intent.next_step(chain, Some(candidate), 0), state.decided) {
            (Ok(Step::Decide { decided: next, .. }), None) => self.decided(state, op, next),
            (Ok(Step::Tell { outcome, .. }), Some(decided)) => {
                let finished = outcome.finished();
                assert_eq!(finished.tail, decided.tail, "C1: another decided tail than the first");
                let mine = matches!(outcome, Reconfigured::Done(_));
                assert_eq!(mine, op == decided.op, "C4: told of another operation's end");
            }
            (other, _) => state.broken = Some(format!("C1: a candidate leads to {other:?}")),
        }
    }

    /// The transaction that decides is committed.
    fn decided(&self, state: &mut State, op: u8, next: Chain) {
        let closed = next.segment(self.stage.params.id.segment).and_then(|segment| segment.decided_tail());
        let tail = closed.expect("a decision that is written closes the segment");
        let base = next.last().map(|segment| segment.base_lsn.get());
        assert_eq!(base, Some(tail.get()), "C1: the successor begins where the segment ended");
        state.decided = Some(Decided { op, tail });
        state.chain = Some(Arc::new(next));
        let stored = |offset| state.servers.iter().any(|server| server.held(offset) != 0);
        if (tail.get()..=u64::from(state.appended)).map(at).any(stored) {
            self.seen.note(Witness::Dropped);
        }
        if state.acknowledged < tail {
            self.seen.note(Witness::Kept);
        }
    }
}
