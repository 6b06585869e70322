//! Proving that a loglet was still open: the half of a linearizable tail that its sequencer cannot give (R4).
//!
//! A sequencer that was fenced without knowing it still answers, so its committed tail alone proves nothing. Suppose a
//! write quorum answers "not sealed" to questions asked after the call began. A seal is for ever (L3), so at the moment
//! the call began none of them was sealed; every f-majority meets them (W1), so no f-majority was sealed then, no tail
//! can have been decided, and nobody but this sequencer can have acknowledged anything before the call. Its committed
//! tail, asked for after the call began too, is then at least every append that was acknowledged before.
//!
//! If so many are sealed that no write quorum of unsealed ones is left, which is just when the sealed ones are an
//! f-majority, the loglet is fenced and the chain will tell its end.

mod driver;
#[cfg(feature = "test-util")]
mod view;

use bifrost_types::{DiskId, LogletOffset, LogletParams, NodeId, NodeIndex, NodeSet, OpId};
use bifrost_wire::log_server::CopyState;

pub use self::driver::confirm_open;
use crate::close::{MissingDisk, Why};
use crate::peers::MemberError;
use crate::quorum::{Quorum, QuorumError};

/// Whether a loglet was open after the call began.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OpenCheck {
    /// A write quorum answered "not sealed": the committed tail that its sequencer gives is linearizable if it was
    /// asked for after this call began.
    Confirmed {
        /// The highest committed tail that a copy reported; the sequencer's is at least this.
        committed_tail: LogletOffset,
    },
    /// No append can be acknowledged any more; the chain tells the end, or a reconfiguration has to be finished.
    Fenced {
        /// An operation that sealed it.
        op: OpId,
        /// The highest committed tail that a copy reported.
        committed_tail: LogletOffset,
        /// The end, if a copy was told already.
        decided_tail: Option<LogletOffset>,
    },
    /// Neither could be proved: at the deadline, or before when a seal was seen and nobody is left who did not answer.
    Undecided {
        /// An operation that sealed some copies: a reconfiguration is under way, or stuck and wants help.
        sealed_by: Option<OpId>,
        /// The members that did not answer.
        missing: Vec<MissingDisk>,
    },
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A member told its state.
    Answered {
        /// The member.
        index: NodeIndex,
        /// Its state, as of after the call began.
        state: CopyState,
    },
    /// A member did not.
    Failed {
        /// The member.
        index: NodeIndex,
        /// Why.
        error: MemberError,
    },
    /// Time is up.
    DeadlinePassed,
}

#[derive(Debug, Clone, Copy)]
enum Answer {
    None(Why),
    Open,
    Sealed,
}

/// The core of one check: counts the answers to questions that were asked after the call began.
#[derive(Debug, Clone)]
pub struct ConfirmOpen {
    quorum: Quorum,
    disks: Vec<(NodeId, DiskId)>,
    answers: Vec<Answer>,
    committed_tail: LogletOffset,
    sealed_by: Option<OpId>,
}

impl ConfirmOpen {
    /// A check to which nobody answered yet.
    ///
    /// # Errors
    /// [`QuorumError`] when the parameters contradict each other.
    pub fn new(params: &LogletParams) -> Result<Self, QuorumError> {
        let members = params.nodeset.members();
        Ok(Self {
            quorum: Quorum::new(&params.nodeset, &params.replication)?,
            disks: members.iter().map(|member| (member.node, member.disk)).collect(),
            answers: vec![Answer::None(Why::NoAnswer); members.len()],
            committed_tail: LogletOffset::FIRST,
            sealed_by: None,
        })
    }

    /// Takes an event; the result once there is one. A member that failed may be asked again.
    pub fn step(&mut self, event: Event) -> Option<OpenCheck> {
        match event {
            Event::Answered { index, state } => self.on_answered(index, &state),
            Event::Failed { index, error } => self.on_failed(index, error),
            Event::DeadlinePassed => Some(self.undecided()),
        }
    }

    fn on_answered(&mut self, index: NodeIndex, state: &CopyState) -> Option<OpenCheck> {
        self.committed_tail = self.committed_tail.max(state.committed_tail);
        self.sealed_by = self.sealed_by.or(state.sealed);
        let answer = self.answers.get_mut(index.get())?;
        *answer = if state.sealed.is_some() { Answer::Sealed } else { Answer::Open };
        if let Some(op) = self.sealed_by {
            let sealed = self.which(|answer| matches!(answer, Answer::Sealed));
            // A decided tail says that an f-majority was sealed, by whoever decided.
            if state.decided_tail.is_some() || self.quorum.is_f_majority(sealed) {
                return Some(OpenCheck::Fenced {
                    op,
                    committed_tail: self.committed_tail,
                    decided_tail: state.decided_tail,
                });
            }
        }
        if self.quorum.is_write_quorum(self.which(|answer| matches!(answer, Answer::Open))) {
            return Some(OpenCheck::Confirmed { committed_tail: self.committed_tail });
        }
        self.undecided_early()
    }

    fn on_failed(&mut self, index: NodeIndex, error: MemberError) -> Option<OpenCheck> {
        if let Some(answer @ Answer::None(_)) = self.answers.get_mut(index.get()) {
            *answer = Answer::None(Why::Failed(error));
        }
        self.undecided_early()
    }

    /// With a seal seen, a caller that can help should not wait for servers that were asked and failed.
    fn undecided_early(&self) -> Option<OpenCheck> {
        self.sealed_by?;
        let waiting = |answer: &Answer| matches!(answer, Answer::None(Why::NoAnswer));
        self.which(waiting).is_empty().then(|| self.undecided())
    }

    fn undecided(&self) -> OpenCheck {
        let missing = self.disks.iter().zip(&self.answers).filter_map(|(&(node, disk), answer)| match answer {
            Answer::None(why) => Some(MissingDisk { node, disk, why: *why }),
            Answer::Open | Answer::Sealed => None,
        });
        OpenCheck::Undecided { sealed_by: self.sealed_by, missing: missing.collect() }
    }

    fn which(&self, keep: impl Fn(&Answer) -> bool) -> NodeSet {
        self.quorum.all().iter().zip(&self.answers).filter(|(_, answer)| keep(answer)).map(|(index, _)| index).collect()
    }
}

#[cfg(test)]
mod tests;
