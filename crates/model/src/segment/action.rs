//! What can happen next.

use bifrost_types::LogletOffset;

use super::call::{Stage as CallStage, What};
use super::server::at;
use super::{Life, Segment, State};

/// One step. Servers, finders and calls are named by their places.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// The writer appends a batch.
    Append,
    /// The writer's stream breaks with its next batch under way; it opens another one.
    StreamBreaks,
    /// What the older stream carried reaches the sequencer.
    LateAppend,
    /// The end of the older stream reaches the sequencer.
    StreamEnds,
    /// The next store of the sequencer reaches a server.
    Store { server: usize },
    /// The next store of the sequencer is under way to a server when the connection breaks; another one is made.
    StoreLost { server: usize },
    /// A store of a broken connection arrives.
    LateStore { server: usize, store: usize },
    /// The next answer of a server reaches the sequencer.
    Answer { server: usize },
    /// The sequencer is gone.
    SequencerDies,
    /// The sequencer ends, and a finder hears its last word.
    LastWord { finder: usize },
    /// The clock of a finder rings.
    Retry { finder: usize },
    /// A call of a finder arrives.
    Call { server: usize, call: usize },
    /// The answer to a call arrives.
    Reply { server: usize, call: usize },
    /// A finder gives up on a call.
    GiveUp { server: usize, call: usize },
    /// A call is carried out, and will be once more.
    Double { server: usize, call: usize },
    /// The transaction of a finder with a candidate.
    Decide { finder: usize },
    /// A server is told the decided tail.
    Settle { server: usize },
    /// The group of a server becomes durable.
    Commit { server: usize },
    /// A server stops and comes back.
    Crash { server: usize },
    /// A server comes back with an empty disk.
    LoseDisk { server: usize },
    /// A store of another sequencer arrives.
    ForeignStore { server: usize },
    /// A store with other bytes than are there arrives, as if from the copy's own sequencer.
    OtherBytes { server: usize },
    /// The disk of a server is full: the group leaves no trace.
    Full { server: usize },
    /// A server is asked to trim up to and including an offset.
    Trim { server: usize, trim_point: LogletOffset },
    /// Somebody asks for the linearizable tail.
    AskTail,
    /// A server tells its state to whoever asked for the tail.
    TailState { server: usize },
    /// The sequencer tells its tails.
    TailSequencer,
    /// The successor acknowledges a record.
    SuccessorAppends,
}

impl Segment {
    /// What can happen next, in an order that depends on the state only.
    pub(super) fn possible(&self, state: &State, actions: &mut Vec<Action>) {
        if state.broken.is_some() {
            return;
        }
        let left = &state.left;
        if let Some(sequencer) = &state.sequencer {
            self.possible_for_writer(state, actions);
            for (server, index) in self.stage.params.nodeset.indexes().enumerate() {
                if sequencer.wants_store(index) {
                    actions.push(Action::Store { server });
                    if left.stores_lost > 0 {
                        actions.push(Action::StoreLost { server });
                    }
                }
            }
            if left.sequencer_dies > 0 {
                actions.push(Action::SequencerDies);
            }
        }
        for (number, finder) in state.finders.iter().enumerate() {
            match finder.life {
                Life::Working => {
                    if finder.retry {
                        actions.push(Action::Retry { finder: number });
                    }
                    if left.last_words > 0 && state.sequencer.is_some() {
                        actions.push(Action::LastWord { finder: number });
                    }
                }
                Life::Candidate(_) => actions.push(Action::Decide { finder: number }),
                Life::Over | Life::Superseded => {}
            }
        }
        for (number, server) in state.servers.iter().enumerate() {
            self.possible_at(state, number, server, actions);
        }
        if left.tails > 0 && state.probe.is_none() {
            actions.push(Action::AskTail);
        }
        if let Some(probe) = &state.probe {
            probe.possible(actions);
        }
        // It matters to who asks after it only.
        if left.tails > 0 && state.decided.is_some() && !state.successor_acknowledged {
            actions.push(Action::SuccessorAppends);
        }
    }

    fn possible_at(&self, state: &State, number: usize, server: &super::Server, actions: &mut Vec<Action>) {
        let left = &state.left;
        if state.sequencer.is_some() && !server.answers.is_empty() {
            actions.push(Action::Answer { server: number });
        }
        actions.extend((0..server.late.len()).map(|store| Action::LateStore { server: number, store }));
        for (place, call) in server.calls.iter().enumerate() {
            match &call.stage {
                CallStage::Sent => {
                    actions.push(Action::Call { server: number, call: place });
                    if left.calls_doubled > 0 && !matches!(call.what, What::Read { .. }) {
                        actions.push(Action::Double { server: number, call: place });
                    }
                }
                CallStage::InGroup => {}
                CallStage::Answered(_) => actions.push(Action::Reply { server: number, call: place }),
            }
            if left.calls_lost > 0 && call.finder.is_some() {
                actions.push(Action::GiveUp { server: number, call: place });
            }
        }
        if self.scope().groups && (server.dirty || !server.group.is_empty()) {
            actions.push(Action::Commit { server: number });
        }
        if self.scope().settles && state.decided.is_some() && !server.settled {
            actions.push(Action::Settle { server: number });
        }
        if left.crashes > 0 {
            actions.push(Action::Crash { server: number });
        }
        let lost_here = self.scope().lost_in.is_none_or(|zone| zone == server.zone);
        if left.disks_lost > 0 && lost_here && server.disk == server.named {
            actions.push(Action::LoseDisk { server: number });
        }
        if left.foreign_stores > 0 && server.core.staged().bound == Some(self.stage.params.sequencer) {
            actions.push(Action::ForeignStore { server: number });
        }
        if left.other_bytes > 0 && server.held(at(1)) != 0 {
            actions.push(Action::OtherBytes { server: number });
        }
        if left.full > 0 && server.dirty {
            actions.push(Action::Full { server: number });
        }
        if left.trims > 0 {
            let offsets = 1..=u64::from(state.appended);
            actions.extend(offsets.map(|point| Action::Trim { server: number, trim_point: at(point) }));
        }
    }
}
