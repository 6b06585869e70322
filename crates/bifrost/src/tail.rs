//! What is proved of the tail of an open segment, by what its sequencer and its copies answer together (R4).

use bifrost_loglet::tail::OpenCheck;
use bifrost_types::plant::{self, Plant};
use bifrost_types::{NodeGeneration, NodeId, OpId};
use bifrost_wire::sequencer::SequencerTails;
use thiserror::Error;

use crate::chain::ChainError;

/// Why the tail of an open segment is not known.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TailUnknown {
    /// Its sequencer does not answer, or lives another life.
    #[error("its sequencer {sequencer} does not answer")]
    SequencerGone {
        /// Who.
        sequencer: NodeGeneration,
    },
    /// Its sequencer has too much to do.
    #[error("its sequencer {sequencer} is overloaded")]
    SequencerBusy {
        /// Who.
        sequencer: NodeGeneration,
    },
    /// Servers are sealed: it is being closed.
    #[error("it was sealed by {op} and is not closed yet")]
    Sealed {
        /// The operation.
        op: OpId,
    },
    /// Too few servers said that it is open.
    #[error("no write quorum of its servers answers")]
    NoWriteQuorum {
        /// Those that did not answer.
        missing: Vec<NodeId>,
    },
    /// Positions or quorums contradict each other.
    #[error(transparent)]
    Chain(#[from] ChainError),
}

/// Why a sequencer gives no tail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Doubt {
    /// It does not answer, or lives another life.
    Gone,
    /// It has too much to do.
    Busy,
}

/// What a sequencer says of its tails, if its copies prove that it may. What they say goes first: that they are sealed, whoever
/// else answers; and before a sequencer that is only busy, that they could not acknowledge anything.
pub(crate) fn proved_tails(
    sequencer: NodeGeneration,
    tails: Result<SequencerTails, Doubt>,
    check: OpenCheck,
) -> Result<SequencerTails, TailUnknown> {
    match (check, tails) {
        (_, Ok(tails)) if plant::is(Plant::FencedSequencerAnswers) => Ok(tails),
        (OpenCheck::Fenced { op, .. } | OpenCheck::Undecided { sealed_by: Some(op), .. }, _) => {
            Err(TailUnknown::Sealed { op })
        }
        (OpenCheck::Confirmed { .. } | OpenCheck::Undecided { .. }, Err(Doubt::Gone)) => {
            Err(TailUnknown::SequencerGone { sequencer })
        }
        (OpenCheck::Undecided { missing, .. }, Err(Doubt::Busy) | Ok(_)) => {
            Err(TailUnknown::NoWriteQuorum { missing: missing.iter().map(|missing| missing.node).collect() })
        }
        (OpenCheck::Confirmed { .. }, Err(Doubt::Busy)) => Err(TailUnknown::SequencerBusy { sequencer }),
        (OpenCheck::Confirmed { .. }, Ok(tails)) => Ok(tails),
    }
}

#[cfg(test)]
mod tests {
    use bifrost_types::{Generation, LogletOffset};

    use super::*;

    #[test]
    fn a_tail_takes_a_sequencer_that_answers_and_copies_that_are_open() {
        let node = NodeId::try_from(1).expect("non-zero");
        let sequencer = NodeGeneration { node, generation: Generation::FIRST };
        let op = OpId::try_from(7).expect("non-zero");
        let tails = SequencerTails { committed_tail: LogletOffset::FIRST, next_offset: LogletOffset::FIRST };
        let committed_tail = LogletOffset::FIRST;
        let open = OpenCheck::Confirmed { committed_tail };
        let fenced = OpenCheck::Fenced { op, committed_tail, decided_tail: None };
        let half_sealed = OpenCheck::Undecided { sealed_by: Some(op), missing: Vec::new() };
        let silent = OpenCheck::Undecided { sealed_by: None, missing: Vec::new() };
        let (sealed, gone) = (TailUnknown::Sealed { op }, TailUnknown::SequencerGone { sequencer });
        let (busy, no_quorum) =
            (TailUnknown::SequencerBusy { sequencer }, TailUnknown::NoWriteQuorum { missing: Vec::new() });
        let says = [Ok(tails), Err(Doubt::Busy), Err(Doubt::Gone)];
        for (check, expected) in [
            (open, [Ok(tails), Err(busy), Err(gone.clone())]),
            (silent, [Err(no_quorum.clone()), Err(no_quorum), Err(gone)]),
            (half_sealed, [Err(sealed.clone()), Err(sealed.clone()), Err(sealed.clone())]),
            (fenced, [Err(sealed.clone()), Err(sealed.clone()), Err(sealed)]),
        ] {
            let proved = says.map(|tails| proved_tails(sequencer, tails, check.clone()));
            assert_eq!(proved, expected, "{check:?}");
        }
    }
}
