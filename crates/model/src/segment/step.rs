//! One step: moves one thing, runs the core that it comes to, and puts on the way what the core wants.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use bifrost_types::{LogletOffset, NodeIndex};
use bifrost_wire::log_server::CopyError;

use super::action::Action;
use super::call::Answer;
use super::sequencing::{end_sequencer, hears, push_answer};
use super::server::{Released, Store, StoreFactsView, Waiting, at, record_at};
use super::{Segment, State};
use crate::witness::Witness;

/// No time passes, except that every back-off is over when the clock rings.
pub(super) const NOW: Duration = Duration::ZERO;
pub(super) const RINGS: Duration = Duration::from_secs(3600);

impl Segment {
    /// The state after an action; `None` when it changes nothing.
    pub(super) fn take(&self, before: &State, action: &Action) -> Option<State> {
        let mut state = before.clone();
        // Cores assert what they know. A failed assert is a finding like any other.
        let outcome = catch_unwind(AssertUnwindSafe(|| self.act(&mut state, action)));
        match outcome {
            Ok(true) => {}
            Ok(false) => return None,
            Err(panic) => {
                let text = panic.downcast_ref::<String>().map(String::as_str);
                let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a core panicked");
                state.broken = Some(text.to_owned());
            }
        }
        self.show(&mut state);
        Some(state)
    }

    /// Whether anything changed.
    fn act(&self, state: &mut State, action: &Action) -> bool {
        match action {
            Action::Append => self.append(state),
            Action::StreamBreaks => self.stream_breaks(state),
            Action::LateAppend => self.late_append(state),
            Action::StreamEnds => self.stream_ends(state),
            Action::Store { server } => self.store(state, *server),
            Action::StoreLost { server } => self.store_lost(state, *server),
            Action::LateStore { server, store } => self.late_store(state, *server, *store),
            Action::Answer { server } => self.answer(state, *server),
            Action::SequencerDies => {
                state.left.sequencer_dies -= 1;
                end_sequencer(state);
            }
            Action::LastWord { finder } => self.last_word(state, *finder),
            Action::Retry { finder } => {
                let digest = crate::digest::digest_of(state);
                self.ring(state, *finder);
                // A finder that only hears the same refusals again changes nothing: without this no run would end.
                return digest != crate::digest::digest_of(state);
            }
            Action::Call { server, call } => self.call(state, *server, *call, false),
            Action::Double { server, call } => {
                state.left.calls_doubled -= 1;
                self.call(state, *server, *call, true);
            }
            Action::Reply { server, call } => self.reply(state, *server, *call),
            Action::GiveUp { server, call } => self.give_up(state, *server, *call),
            Action::Decide { finder } => self.decide(state, *finder),
            Action::Settle { server } => self.settle(state, *server),
            Action::Commit { server } => self.commit(state, *server, Vec::new()),
            Action::Crash { server } => {
                state.left.crashes -= 1;
                self.restart(state, *server, false);
            }
            Action::LoseDisk { server } => {
                state.left.disks_lost -= 1;
                self.restart(state, *server, true);
            }
            Action::ForeignStore { server } => self.foreign_store(state, *server),
            Action::OtherBytes { server } => self.other_bytes(state, *server),
            Action::Full { server } => {
                state.left.full -= 1;
                self.seen.note(Witness::Full);
                let mut released = Vec::new();
                if let Some(known) = state.servers.get_mut(*server) {
                    known.refuse(&mut released);
                }
                self.release(state, *server, released);
            }
            Action::Trim { server, trim_point } => self.trim(state, *server, *trim_point),
            Action::AskTail => self.ask_tail(state),
            Action::TailState { server } => self.tail_state(state, *server),
            Action::TailSequencer => self.tail_sequencer(state),
            Action::SuccessorAppends => state.successor_acknowledged = true,
        }
        if !self.scope().answers {
            self.answer_all(state);
        }
        true
    }

    fn store(&self, state: &mut State, server: usize) {
        if let Some(store) = self.next_store(state, server) {
            self.store_arrives(state, server, &store);
        }
    }

    fn store_lost(&self, state: &mut State, server: usize) {
        state.left.stores_lost -= 1;
        if let Some(store) = self.next_store(state, server)
            && let Some(known) = state.servers.get_mut(server)
        {
            known.late.push(store);
        }
        self.reconnect(state, server);
    }

    fn late_store(&self, state: &mut State, server: usize, store: usize) {
        let Some(known) = state.servers.get_mut(server) else { return };
        let store = known.late.remove(store);
        self.seen.note(Witness::LateStore);
        self.store_arrives(state, server, &store);
    }

    fn store_arrives(&self, state: &mut State, number: usize, store: &Store) {
        let heard = hears(state, self.index(number));
        let Some(server) = state.servers.get_mut(number) else { return };
        let mut released = Vec::new();
        let (sealed_before, staged_before) = (server.core.staged().seal, server.staged);
        let waiting = server.store(store, &mut released);
        if sealed_before.is_some() && server.named == server.disk {
            self.seen.note(Witness::StoreAfterSeal);
            assert_eq!(server.staged, staged_before, "L3: a sealed copy took a store");
        }
        if server.durable.seal.is_none() && server.core.staged().seal.is_some() && server.group.len() > 1 {
            self.seen.note(Witness::StoreRacedSeal);
        }
        match waiting {
            // A refused disk is answered before any group.
            Some(Waiting::Sequencer { connection, outcome: Err(error @ CopyError::WrongDisk { .. }) }) => {
                self.seen.note(Witness::WrongDisk);
                if heard {
                    server.answers.push((connection, Err(error)));
                }
            }
            Some(waiting) => server.group.push(waiting),
            None => {}
        }
        if server.core.staged().committed_tail > at(1)
            && (1..server.core.staged().committed_tail.get().min(server.core.staged().local_tail.get()))
                .any(|offset| server.held(at(offset)) == 0 && record_at(&server.staged, at(offset)) == 0)
        {
            self.seen.note(Witness::Hole);
        }
        self.group_built(state, number, released);
    }

    /// Without groups every request is durable at once.
    pub(super) fn group_built(&self, state: &mut State, number: usize, released: Vec<Released>) {
        if self.scope().groups {
            self.release(state, number, released);
        } else {
            self.commit(state, number, released);
        }
    }

    fn commit(&self, state: &mut State, number: usize, mut released: Vec<Released>) {
        let Some(server) = state.servers.get_mut(number) else { return };
        server.commit(&mut released);
        self.release(state, number, released);
    }

    /// Whoever waited for a group is told.
    pub(super) fn release(&self, state: &mut State, number: usize, released: Vec<Released>) {
        for Released { waiting, state: now } in released {
            match waiting {
                Waiting::Sequencer { connection, outcome } => {
                    let answer = outcome.map(|()| now);
                    if hears(state, self.index(number))
                        && let Some(server) = state.servers.get_mut(number)
                    {
                        push_answer(&mut server.answers, connection, answer);
                    }
                }
                Waiting::Finder { finder, outcome } => {
                    self.answered(state, number, finder, Answer::State(outcome.map(|()| now)));
                }
            }
        }
    }

    fn settle(&self, state: &mut State, number: usize) {
        let (Some(server), Some(decided)) = (state.servers.get_mut(number), state.decided) else { return };
        let op = self.stage.ops.get(usize::from(decided.op)).copied().expect("an operation of the scope");
        server.settled = true;
        match server.settle(op, decided.tail) {
            Ok(()) | Err(CopyError::WrongDisk { .. }) => {}
            Err(error) => {
                state.broken = Some(format!("S5: a copy contradicts the decided tail {}: {error}", decided.tail));
                return;
            }
        }
        self.group_built(state, number, Vec::new());
    }

    /// A server comes back, with its disk or with another one.
    fn restart(&self, state: &mut State, number: usize, lost: bool) {
        let Some(server) = state.servers.get_mut(number) else { return };
        if server.dirty {
            self.seen.note(Witness::GroupLost);
        }
        let waited = if lost { server.lose_disk(self.stage.other_disk) } else { server.restart() };
        server.core.check();
        for waiting in waited {
            if let Waiting::Finder { finder, .. } = waiting {
                self.answered(state, number, finder, Answer::Lost);
            }
        }
        self.reconnect(state, number);
    }

    fn foreign_store(&self, state: &mut State, number: usize) {
        state.left.foreign_stores -= 1;
        let Some(server) = state.servers.get_mut(number) else { return };
        let offset = server.core.staged().local_tail;
        let facts = StoreFactsView { sequencer: self.stage.foreign, committed_tail: at(1) };
        let store = Store { connection: 0, facts, records: vec![(offset, 100 + offset.get() as u8)] };
        let mut released = Vec::new();
        if let Some(Waiting::Sequencer { outcome: Err(_), .. }) = server.store(&store, &mut released) {
            self.seen.note(Witness::ForeignRefused);
        }
        self.group_built(state, number, released);
    }

    fn other_bytes(&self, state: &mut State, number: usize) {
        state.left.other_bytes -= 1;
        let Some(server) = state.servers.get_mut(number) else { return };
        let facts = StoreFactsView { sequencer: self.stage.params.sequencer, committed_tail: at(1) };
        let mut released = Vec::new();
        let store = Store { connection: 0, facts, records: vec![(at(1), 101)] };
        if let Some(Waiting::Sequencer { outcome: Err(CopyError::Conflict { .. }), .. }) =
            server.store(&store, &mut released)
        {
            self.seen.note(Witness::OtherBytesRefused);
        }
        self.group_built(state, number, released);
    }

    fn trim(&self, state: &mut State, number: usize, trim_point: LogletOffset) {
        state.left.trims -= 1;
        let Some(server) = state.servers.get_mut(number) else { return };
        let before = server.core.staged().trim_point;
        match server.trim(trim_point) {
            Ok(_) => self.seen.note(Witness::Trimmed),
            Err(_) => self.seen.note(Witness::TrimRefused),
        }
        let after = server.core.staged().trim_point;
        assert!(before <= after, "trim: the trim point went back from {before:?} to {after:?}");
        self.group_built(state, number, Vec::new());
    }

    /// What readers can see now (R1).
    fn show(&self, state: &mut State) {
        let copies = state.servers.iter().map(|server| server.core.state().committed_tail).max();
        let sequencer = state.sequencer.as_ref().map(|sequencer| sequencer.tails().committed_tail);
        state.shown = state.shown.max(copies.unwrap_or(state.shown)).max(sequencer.unwrap_or(state.shown));
    }

    pub(super) fn index(&self, server: usize) -> NodeIndex {
        self.stage.params.nodeset.indexes().nth(server).expect("a server is a member")
    }
}
