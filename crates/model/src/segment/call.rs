//! Calls of finders to servers. A finder has at most one under way for each server that its answer is about; calls that
//! nobody waits for any more may still be carried out.

use bifrost_loglet::MemberError;
use bifrost_loglet::close::{Chunk, Effect, Event, ReadFailure};
use bifrost_types::{LogletOffset, NodeIndex};
use bifrost_wire::RpcError;
use bifrost_wire::log_server::{CopyError, CopyState};

use super::server::{Records, Server, at, batch, record_at, run_of};

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum What {
    /// Promise to take no more stores.
    Seal,
    /// Give the records `[from, until)` for the server where this call is kept.
    Read { source: NodeIndex, from: LogletOffset, until: LogletOffset },
    /// Take these records.
    Repair { committed_tail: LogletOffset, records: Vec<(LogletOffset, u8)> },
}

/// How far a call is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Stage {
    /// On its way.
    Sent,
    /// Carried out; the group is not durable yet.
    InGroup,
    /// The answer is on its way.
    Answered(Answer),
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Answer {
    /// Of a seal or a repair.
    State(Result<CopyState, CopyError>),
    /// Of a read: what is there in a row from its start; if nothing is, where the next record may be.
    Records(Result<Vec<(LogletOffset, u8)>, LogletOffset>),
    /// Of a read: the source refused.
    Refused(CopyError),
    /// The caller gave up, or the connection broke.
    Lost,
}

/// One call.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Call {
    /// Who waits for the answer, or nobody.
    pub(crate) finder: Option<u8>,
    /// For which operation, by its place in the scope.
    pub(crate) op: u8,
    pub(crate) what: What,
    pub(crate) stage: Stage,
}

impl Call {
    /// The server that carries it out, and where the call is kept.
    pub(crate) fn of(finder: u8, op: u8, effect: &Effect) -> Option<(NodeIndex, Self)> {
        let (kept_at, what) = match effect {
            Effect::Seal { index } => (*index, What::Seal),
            Effect::Read { target, source, from, until } => {
                (*target, What::Read { source: *source, from: *from, until: *until })
            }
            Effect::Repair { target, committed_tail, chunk } => {
                let offsets = chunk.first_offset.get()..chunk.end.get();
                let bytes = chunk.batches.iter().map(|batch| batch.first().copied().unwrap_or(0));
                let records = offsets.map(at).zip(bytes).collect();
                (*target, What::Repair { committed_tail: *committed_tail, records })
            }
            Effect::RetryAt { .. }
            | Effect::Blocked(_)
            | Effect::AskWhoIsLost
            | Effect::EndSequencer
            | Effect::Done(_)
            | Effect::Failed(_) => return None,
        };
        Some((kept_at, Self { finder: Some(finder), op, what, stage: Stage::Sent }))
    }

    /// The event that an answer is for the finder.
    pub(crate) fn event(&self, kept_at: NodeIndex, answer: &Answer) -> Event {
        let error = match answer {
            Answer::State(Err(error)) | Answer::Refused(error) => MemberError::Call((*error).into()),
            Answer::State(Ok(_)) | Answer::Records(_) | Answer::Lost => RpcError::DeadlinePassed.into(),
        };
        match (&self.what, answer) {
            (What::Seal, Answer::State(Ok(state))) => Event::Sealed { index: kept_at, state: *state },
            (What::Seal, _) => Event::SealFailed { index: kept_at, error },
            (What::Repair { .. }, Answer::State(Ok(state))) => Event::Repaired { target: kept_at, state: *state },
            (What::Repair { .. }, _) => Event::RepairFailed { target: kept_at, error },
            (What::Read { source, from, .. }, Answer::Records(Ok(records))) => {
                let first_offset = records.first().map_or(*from, |(offset, _)| *offset);
                let end = at(first_offset.get() + records.len() as u64);
                let batches = records.iter().map(|(_, record)| batch(*record)).collect();
                let chunk = Chunk { first_offset, end, batches };
                Event::Read { target: kept_at, source: *source, from: *from, chunk }
            }
            (What::Read { source, from, .. }, answer) => {
                let failure = match answer {
                    Answer::Records(Err(end)) => ReadFailure::Absent { end: *end },
                    _ => ReadFailure::Member(error),
                };
                Event::ReadFailed { target: kept_at, source: *source, from: *from, failure }
            }
        }
    }
}

/// What a read of a copy gives.
pub(crate) fn read(server: &Server, from: LogletOffset, until: LogletOffset) -> Answer {
    if let Err(error) = server.check_disk() {
        return Answer::Refused(error);
    }
    let records: &Records = &server.records;
    let found = run_of(records, from, until);
    if found.is_empty() {
        let next = (from.get()..until.get()).map(at).find(|offset| record_at(records, *offset) != 0);
        return Answer::Records(Err(next.unwrap_or(until)));
    }
    Answer::Records(Ok(found))
}
