//! Operations that change chains, and how they ended.

use std::collections::BTreeMap;

use bifrost_types::{Finished, LogId, OpId, SegmentIndex};

use crate::breach::{EventNumber, Judge};
use crate::event::ReconfigureOutcome;
use crate::rule::Rule;

#[derive(Debug, Default)]
struct Operation {
    finished: Option<(LogId, Finished, EventNumber)>,
    /// The segment that another operation closed instead, and who was told when.
    superseded: Option<(SegmentIndex, EventNumber)>,
}

/// All operations of a history.
#[derive(Debug, Default)]
pub(crate) struct Operations {
    known: BTreeMap<OpId, Operation>,
}

impl Operations {
    /// An operation ended so, says a chain or an answer (C4).
    pub(crate) fn finished(&mut self, judge: &mut Judge, log: LogId, finished: &Finished) {
        let known = self.known.entry(finished.op).or_default();
        match &known.finished {
            Some((other_log, other, event)) => {
                let holds = (*other_log, other) == (log, finished);
                judge.require(Rule::OneOutcome, holds, [*event], || {
                    format!("an operation of log {log} ended as {finished:?}, and as {other:?} of log {other_log}")
                });
            }
            None => {
                if let Some((segment, event)) = known.superseded {
                    judge.require(Rule::OneOutcome, segment != finished.segment, [event], || {
                        format!("operation {} closed segment {segment}, and was told that another one did", finished.op)
                    });
                }
                known.finished = Some((log, finished.clone(), judge.now()));
            }
        }
    }

    /// Whoever asked for an operation is told how it ended.
    pub(crate) fn told(&mut self, judge: &mut Judge, log: LogId, op: OpId, outcome: &ReconfigureOutcome) {
        match outcome {
            ReconfigureOutcome::Done(finished) => {
                judge.require(Rule::OneOutcome, finished.op == op, [], || {
                    format!("operation {op} is told that it is done, as {finished:?}")
                });
                self.finished(judge, log, finished);
            }
            ReconfigureOutcome::Superseded(by) => {
                judge.require(Rule::OneOutcome, by.op != op, [], || format!("{op} is told that it superseded itself"));
                self.finished(judge, log, by);
                let mine = self.known.entry(op).or_default();
                let done = mine.finished.as_ref();
                // One that was superseded may be asked for again, and then is about the segment that is open by then.
                judge.require(Rule::OneOutcome, done.is_none(), done.map(|(_, _, event)| *event), || {
                    format!("operation {op} is done, and is told that {} superseded it", by.op)
                });
                mine.superseded.get_or_insert((by.segment, judge.now()));
            }
            ReconfigureOutcome::Unknown => {}
        }
    }
}
