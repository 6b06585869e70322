//! The sequencer's side: what it is told, what it sends, and who is acknowledged.

use std::sync::Arc;

use bifrost_sequencer::core::{Core, Effect, Event, Phase};
use bifrost_sequencer::spread::Link;
use bifrost_types::NodeIndex;
use bifrost_wire::log_server::{CopyError, CopyState, StoreRequest};

use super::server::{Store, StoreFactsView, at};
use super::step::RINGS;
use super::{Segment, State};
use crate::witness::Witness;

impl Segment {
    /// Runs the sequencer's core, and takes its acknowledgements.
    pub(super) fn step_sequencer(&self, state: &mut State, event: Event<()>) {
        let Some(sequencer) = &mut state.sequencer else { return };
        let sequencer = Arc::make_mut(sequencer);
        let mut out = Vec::new();
        sequencer.step(0, event, &mut out);
        sequencer.check();
        let ended = sequencer.phase() != Phase::Running;
        for effect in out {
            match effect {
                Effect::Committed { first_offset, .. } => {
                    self.seen.note(Witness::Acknowledged);
                    if state.decided.is_some() {
                        self.seen.note(Witness::AcknowledgedLate);
                    }
                    assert_eq!(first_offset, state.acknowledged, "A2: acknowledged out of order");
                    state.acknowledged = at(first_offset.get() + 1);
                }
                Effect::Alarm { error: CopyError::Conflict { offset }, .. } => {
                    assert!(self.scope().budget.foreign_stores > 0, "L4: a copy has other bytes at {offset}");
                }
                Effect::Opened { .. } | Effect::Close { .. } | Effect::Alarm { .. } => {}
            }
        }
        if ended {
            end_sequencer(state);
        }
    }

    /// The next store for a server, as it is put on the way.
    pub(super) fn next_store(&self, state: &mut State, server: usize) -> Option<Store> {
        let index = self.index(server);
        let sequencer = Arc::make_mut(state.sequencer.as_mut()?);
        let connection = connection_of(sequencer, index);
        let StoreRequest { sequencer: by, committed_tail, first_offset, batches, .. } = sequencer.next_store(index)?;
        sequencer.check();
        let bytes = batches.iter().map(|batch| batch.first().copied().unwrap_or(0));
        let records = (first_offset.get()..).map(at).zip(bytes).collect();
        Some(Store { connection, facts: StoreFactsView { sequencer: by, committed_tail }, records })
    }

    pub(super) fn answer(&self, state: &mut State, number: usize) {
        let Some(server) = state.servers.get_mut(number) else { return };
        let (connection, outcome) = server.answers.remove(0);
        let (index, connection) = (self.index(number), u64::from(connection));
        self.step_sequencer(state, Event::Stored { index, connection, outcome });
        if outcome == Err(CopyError::DiskFull)
            && let Some(sequencer) = &mut state.sequencer
        {
            // A pause is over as soon as one likes.
            Arc::make_mut(sequencer).step(RINGS.as_millis() as u64, Event::Tick, &mut Vec::new());
        }
        if !hears(state, self.index(number))
            && let Some(server) = state.servers.get_mut(number)
        {
            server.answers.clear();
        }
    }

    /// Every answer that is on its way arrives.
    pub(super) fn answer_all(&self, state: &mut State) {
        for number in 0..state.servers.len() {
            while state.servers.get(number).is_some_and(|server| !server.answers.is_empty()) {
                self.answer(state, number);
            }
        }
    }

    /// The connection of the sequencer breaks and is made anew. Answers of the old one may still arrive.
    pub(super) fn reconnect(&self, state: &mut State, number: usize) {
        let Some(sequencer) = &state.sequencer else { return };
        let index = self.index(number);
        let connection = u64::from(connection_of(sequencer, index));
        self.step_sequencer(state, Event::CopyDown { index, connection });
        self.step_sequencer(state, Event::CopyUp { index, connection: connection + 1 });
        self.step_sequencer(state, followed(index, connection + 1));
    }
}

/// Somebody follows every copy, so news of the committed tail may be sent at any moment. That it may also wait takes no
/// schedule away: a message is sent when the model likes.
pub(super) fn followed<P>(index: NodeIndex, connection: u64) -> Event<P> {
    Event::Followed { index, connection, followed: true }
}

/// Whether the sequencer still looks at what a server says. What nobody looks at is not kept, so that no run is longer
/// for it.
pub(super) fn hears(state: &State, server: NodeIndex) -> bool {
    let copies = state.sequencer.as_ref().map_or(&[][..], |sequencer| sequencer.copies());
    copies.get(server.get()).is_some_and(|copy| copy.link != Link::Lost)
}

/// The sequencer is gone, and nobody takes its answers any more.
pub(super) fn end_sequencer(state: &mut State) {
    state.sequencer = None;
    for server in &mut state.servers {
        server.answers.clear();
    }
}

/// Answers are cumulative: of two that wait and say how far a copy is, the later one says all.
pub(super) fn push_answer(
    answers: &mut Vec<(u8, Result<CopyState, CopyError>)>,
    connection: u8,
    answer: Result<CopyState, CopyError>,
) {
    match answers.last_mut() {
        Some((known, last @ Ok(_))) if *known == connection && answer.is_ok() => *last = answer,
        _ => answers.push((connection, answer)),
    }
}

/// The connection in use; 0 when there is none.
pub(super) fn connection_of(sequencer: &Core<()>, server: NodeIndex) -> u8 {
    let link = sequencer.copies().get(server.get()).map(|copy| copy.link);
    match link {
        Some(Link::Up { connection } | Link::Paused { connection, .. }) => connection as u8,
        Some(Link::Down | Link::Lost) | None => 0,
    }
}
