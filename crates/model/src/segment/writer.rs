//! The writer's side: what it appends, and what becomes of a stream of its that breaks (A7).
//!
//! What travels on a stream keeps its order, so what was appended and arrives before the stream breaks is an append
//! like any other. What is told here is one that arrives after the writer opened its next stream.

use bifrost_sequencer::core::{Event, StreamId};
use bifrost_types::{LogletOffset, WriterId};

use super::action::Action;
use super::server::batch;
use super::{Segment, State};
use crate::witness::Witness;

/// What the writer has open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Writer {
    /// Its newest stream, and the number of it among its streams.
    stream: u8,
    /// The record that the stream before it still carries, which arrives late or never.
    late: Option<u8>,
    /// The sequencer was not told yet that the stream before it ended.
    ends: bool,
}

impl Writer {
    /// Has its first stream open.
    pub(super) const FIRST: Self = Self { stream: 1, late: None, ends: false };

    fn opens(self) -> Event<()> {
        let writer = WriterId::try_from(1).expect("not 0");
        Event::StreamOpened { stream: self.newest(), writer, incarnation: u64::from(self.stream) }
    }

    fn newest(self) -> StreamId {
        StreamId(u64::from(self.stream))
    }

    fn older(self) -> StreamId {
        StreamId(u64::from(self.stream) - 1)
    }
}

impl Segment {
    /// What the writer, and what is left of its older stream, may do next while there is a sequencer.
    pub(super) fn possible_for_writer(&self, state: &State, actions: &mut Vec<Action>) {
        if state.appended < self.scope().appends {
            actions.push(Action::Append);
            if state.left.streams_broken > 0 {
                actions.push(Action::StreamBreaks);
            }
        }
        if state.writer.late.is_some() {
            actions.push(Action::LateAppend);
        }
        if state.writer.ends {
            actions.push(Action::StreamEnds);
        }
    }

    /// The writer opens its first stream.
    pub(super) fn open_first_stream(&self, state: &mut State) {
        self.step_sequencer(state, state.writer.opens());
    }

    pub(super) fn append(&self, state: &mut State) {
        state.appended += 1;
        self.step_sequencer(state, append(state.writer.newest(), state.appended));
        // A stream that is closed without an offset is closed aloud; only a full disk does that here.
        let taken = next_offset(state).is_none_or(|next| next.get() > u64::from(state.appended));
        assert!(taken || self.scope().budget.full > 0, "promise 4: an append got neither an offset nor an answer");
    }

    /// The stream breaks with the next record under way. The writer opens another one, learns the fence, finds that the
    /// record is not below it, and will append it again.
    pub(super) fn stream_breaks(&self, state: &mut State) {
        state.left.streams_broken -= 1;
        let stream = state.writer.stream + 1;
        state.writer = Writer { stream, late: Some(state.appended + 1), ends: true };
        self.step_sequencer(state, state.writer.opens());
    }

    /// The record that the older stream carried arrives.
    pub(super) fn late_append(&self, state: &mut State) {
        let Some(record) = state.writer.late.take() else { return };
        self.seen.note(Witness::LateAppend);
        let fence = next_offset(state);
        self.step_sequencer(state, append(state.writer.older(), record));
        assert_eq!(fence, next_offset(state), "A7: what an older stream carried got an offset behind the fence");
    }

    /// The sequencer hears that the older stream ended.
    pub(super) fn stream_ends(&self, state: &mut State) {
        // What it carried was before its end, or is lost.
        state.writer = Writer { late: None, ends: false, ..state.writer };
        self.step_sequencer(state, Event::StreamEnded { stream: state.writer.older() });
    }
}

fn append(stream: StreamId, record: u8) -> Event<()> {
    Event::Append { stream, records: 1, batch: batch(record), room: () }
}

fn next_offset(state: &State) -> Option<LogletOffset> {
    state.sequencer.as_ref().map(|sequencer| sequencer.tails().next_offset)
}
