//! What a copy answers: its state, or why it refused.

use bifrost_types::LogletOffset;

use super::{DecodeError, id128, id128_bytes, non_zero, optional, required};
use crate::log_server::{CopyError, CopyState};
use crate::pb;
use pb::copy_error::Error as Kind;
use pb::copy_outcome::Outcome;

impl From<CopyState> for pb::CopyState {
    fn from(state: CopyState) -> Self {
        Self {
            local_tail: state.local_tail.get(),
            committed_tail: state.committed_tail.get(),
            sealed_by: state.sealed.map(|op| id128_bytes(op.get())),
            decided_tail: state.decided_tail.map(LogletOffset::get),
            trim_point: state.trim_point.map(LogletOffset::get),
        }
    }
}

impl TryFrom<pb::CopyState> for CopyState {
    type Error = DecodeError;

    fn try_from(state: pb::CopyState) -> Result<Self, DecodeError> {
        Ok(Self {
            local_tail: non_zero("CopyState.local_tail", state.local_tail)?,
            committed_tail: non_zero("CopyState.committed_tail", state.committed_tail)?,
            sealed: state.sealed_by.map(|op| id128("CopyState.sealed_by", &op)).transpose()?,
            decided_tail: optional("CopyState.decided_tail", state.decided_tail)?,
            trim_point: optional("CopyState.trim_point", state.trim_point)?,
        })
    }
}

impl From<CopyError> for pb::CopyError {
    fn from(error: CopyError) -> Self {
        use pb::copy_error as e;
        let kind = match error {
            CopyError::WrongDisk { actual } => Kind::WrongDisk(e::WrongDisk { actual: id128_bytes(actual.get()) }),
            CopyError::Sealed { op } => Kind::Sealed(e::Sealed { op: id128_bytes(op.get()) }),
            CopyError::NotSealed => Kind::NotSealed(e::NotSealed {}),
            CopyError::OtherSequencer { bound } => {
                Kind::OtherSequencer(e::OtherSequencer { bound: Some(bound.into()) })
            }
            CopyError::Hole { expected } => Kind::Hole(e::Hole { expected: expected.get() }),
            CopyError::Conflict { offset } => Kind::Conflict(e::Conflict { offset: offset.get() }),
            CopyError::BadBatch { offset } => Kind::BadBatch(e::BadBatch { offset: offset.get() }),
            CopyError::OutOfRange => Kind::OutOfRange(e::OutOfRange {}),
            CopyError::DiskFull => Kind::DiskFull(e::DiskFull {}),
            CopyError::Overloaded => Kind::Overloaded(e::Overloaded {}),
            CopyError::Stopping => Kind::Stopping(e::Stopping {}),
            CopyError::TooManyLoglets => Kind::TooManyLoglets(e::TooManyLoglets {}),
        };
        Self { error: Some(kind) }
    }
}

impl TryFrom<pb::CopyError> for CopyError {
    type Error = DecodeError;

    fn try_from(error: pb::CopyError) -> Result<Self, DecodeError> {
        Ok(match required("CopyError.error", error.error)? {
            Kind::WrongDisk(error) => Self::WrongDisk { actual: id128("CopyError.WrongDisk.actual", &error.actual)? },
            Kind::Sealed(error) => Self::Sealed { op: id128("CopyError.Sealed.op", &error.op)? },
            Kind::NotSealed(_) => Self::NotSealed,
            Kind::OtherSequencer(error) => {
                Self::OtherSequencer { bound: required("CopyError.OtherSequencer.bound", error.bound)?.try_into()? }
            }
            Kind::Hole(error) => Self::Hole { expected: non_zero("CopyError.Hole.expected", error.expected)? },
            Kind::Conflict(error) => Self::Conflict { offset: non_zero("CopyError.Conflict.offset", error.offset)? },
            Kind::BadBatch(error) => Self::BadBatch { offset: non_zero("CopyError.BadBatch.offset", error.offset)? },
            Kind::OutOfRange(_) => Self::OutOfRange,
            Kind::DiskFull(_) => Self::DiskFull,
            Kind::Overloaded(_) => Self::Overloaded,
            Kind::Stopping(_) => Self::Stopping,
            Kind::TooManyLoglets(_) => Self::TooManyLoglets,
        })
    }
}

impl From<Result<CopyState, CopyError>> for pb::CopyOutcome {
    fn from(outcome: Result<CopyState, CopyError>) -> Self {
        let outcome = match outcome {
            Ok(state) => Outcome::State(state.into()),
            Err(error) => Outcome::Refused(error.into()),
        };
        Self { outcome: Some(outcome) }
    }
}

impl TryFrom<pb::CopyOutcome> for Result<CopyState, CopyError> {
    type Error = DecodeError;

    fn try_from(outcome: pb::CopyOutcome) -> Result<Self, DecodeError> {
        Ok(match required("CopyOutcome.outcome", outcome.outcome)? {
            Outcome::State(state) => Ok(state.try_into()?),
            Outcome::Refused(error) => Err(error.try_into()?),
        })
    }
}
