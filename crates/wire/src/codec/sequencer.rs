//! The append stream and the tails of a sequencer.

use bifrost_types::LogletOffset;
use bifrost_types::limits::WINDOW_BATCHES;
use bifrost_types::{LogletId, NodeGeneration};

use super::{DecodeError, at_most, batches, id128, id128_bytes, non_zero, required};
use crate::pb;
use crate::sequencer::{AppendOpen, AppendReply, AppendRequest, EndRequest, SequencerError, SequencerTails};
use pb::append_request::Message as Request;
use pb::append_response::Message as Response;
use pb::sequencer_error::Error as Kind;
use pb::tails_response::Outcome;

impl From<AppendOpen> for pb::AppendRequest {
    fn from(open: AppendOpen) -> Self {
        Self {
            message: Some(Request::Open(pb::AppendOpen {
                loglet: Some(open.loglet.into()),
                sequencer: Some(open.sequencer.into()),
                writer: id128_bytes(open.writer.get()),
                incarnation: open.incarnation,
            })),
        }
    }
}

impl TryFrom<pb::AppendRequest> for AppendOpen {
    type Error = DecodeError;

    fn try_from(request: pb::AppendRequest) -> Result<Self, DecodeError> {
        match required("AppendRequest.message", request.message)? {
            Request::Open(open) => Ok(Self {
                loglet: required("AppendOpen.loglet", open.loglet)?.try_into()?,
                sequencer: required("AppendOpen.sequencer", open.sequencer)?.try_into()?,
                writer: id128("AppendOpen.writer", &open.writer)?,
                incarnation: open.incarnation,
            }),
            Request::Append(_) => Err(DecodeError::Unexpected { field: "AppendRequest.append" }),
        }
    }
}

impl From<AppendRequest> for pb::AppendRequest {
    fn from(request: AppendRequest) -> Self {
        Self { message: Some(Request::Append(pb::AppendBatches { batches: request.batches })) }
    }
}

impl TryFrom<pb::AppendRequest> for AppendRequest {
    type Error = DecodeError;

    fn try_from(request: pb::AppendRequest) -> Result<Self, DecodeError> {
        match required("AppendRequest.message", request.message)? {
            Request::Append(append) => {
                if append.batches.is_empty() {
                    return Err(DecodeError::Missing { field: "AppendBatches.batches" });
                }
                Ok(Self { batches: batches("AppendBatches.batches", append.batches)? })
            }
            Request::Open(_) => Err(DecodeError::Unexpected { field: "AppendRequest.open" }),
        }
    }
}

impl From<SequencerTails> for pb::SequencerTails {
    fn from(tails: SequencerTails) -> Self {
        Self { committed_tail: tails.committed_tail.get(), next_offset: tails.next_offset.get() }
    }
}

impl TryFrom<pb::SequencerTails> for SequencerTails {
    type Error = DecodeError;

    fn try_from(tails: pb::SequencerTails) -> Result<Self, DecodeError> {
        Ok(Self {
            committed_tail: non_zero("SequencerTails.committed_tail", tails.committed_tail)?,
            next_offset: non_zero("SequencerTails.next_offset", tails.next_offset)?,
        })
    }
}

impl From<SequencerError> for pb::SequencerError {
    fn from(error: SequencerError) -> Self {
        use pb::sequencer_error as e;
        let kind = match error {
            SequencerError::Sealed { op } => Kind::Sealed(e::Sealed { op: id128_bytes(op.get()) }),
            SequencerError::NotSequencer => Kind::NotSequencer(e::NotSequencer {}),
            SequencerError::NotOpen => Kind::NotOpen(e::NotOpen {}),
            SequencerError::Full => Kind::Full(e::Full {}),
            SequencerError::Superseded => Kind::Superseded(e::Superseded {}),
            SequencerError::BadBatch => Kind::BadBatch(e::BadBatch {}),
            SequencerError::Overloaded => Kind::Overloaded(e::Overloaded {}),
            SequencerError::Stopping => Kind::Stopping(e::Stopping {}),
            SequencerError::DiskFull => Kind::DiskFull(e::DiskFull {}),
        };
        Self { error: Some(kind) }
    }
}

impl TryFrom<pb::SequencerError> for SequencerError {
    type Error = DecodeError;

    fn try_from(error: pb::SequencerError) -> Result<Self, DecodeError> {
        Ok(match required("SequencerError.error", error.error)? {
            Kind::Sealed(error) => Self::Sealed { op: id128("SequencerError.Sealed.op", &error.op)? },
            Kind::NotSequencer(_) => Self::NotSequencer,
            Kind::NotOpen(_) => Self::NotOpen,
            Kind::Full(_) => Self::Full,
            Kind::Superseded(_) => Self::Superseded,
            Kind::BadBatch(_) => Self::BadBatch,
            Kind::Overloaded(_) => Self::Overloaded,
            Kind::Stopping(_) => Self::Stopping,
            Kind::DiskFull(_) => Self::DiskFull,
        })
    }
}

/// A response of the append stream, its opening included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum AppendMessage {
    /// The stream is open.
    Opened(SequencerTails),
    /// An answer.
    Reply(AppendReply),
}

impl From<AppendMessage> for pb::AppendResponse {
    fn from(message: AppendMessage) -> Self {
        let message = match message {
            AppendMessage::Opened(tails) => Response::Opened(tails.into()),
            AppendMessage::Reply(AppendReply::Committed { first_offsets, committed_tail }) => {
                Response::Committed(pb::AppendCommitted {
                    first_offsets: first_offsets.into_iter().map(LogletOffset::get).collect(),
                    committed_tail: committed_tail.get(),
                })
            }
            AppendMessage::Reply(AppendReply::Closed(error)) => Response::Closed(error.into()),
        };
        Self { message: Some(message) }
    }
}

impl TryFrom<pb::AppendResponse> for AppendMessage {
    type Error = DecodeError;

    fn try_from(response: pb::AppendResponse) -> Result<Self, DecodeError> {
        Ok(match required("AppendResponse.message", response.message)? {
            Response::Opened(tails) => Self::Opened(tails.try_into()?),
            Response::Closed(error) => Self::Reply(AppendReply::Closed(error.try_into()?)),
            Response::Committed(committed) => {
                at_most("AppendCommitted.first_offsets", committed.first_offsets.len(), WINDOW_BATCHES)?;
                let first_offsets = committed
                    .first_offsets
                    .into_iter()
                    .map(|offset| non_zero("AppendCommitted.first_offsets", offset))
                    .collect::<Result<_, _>>()?;
                let committed_tail = non_zero("AppendCommitted.committed_tail", committed.committed_tail)?;
                Self::Reply(AppendReply::Committed { first_offsets, committed_tail })
            }
        })
    }
}

impl From<(LogletId, NodeGeneration)> for pb::TailsRequest {
    fn from((loglet, sequencer): (LogletId, NodeGeneration)) -> Self {
        Self { loglet: Some(loglet.into()), sequencer: Some(sequencer.into()) }
    }
}

impl TryFrom<pb::TailsRequest> for (LogletId, NodeGeneration) {
    type Error = DecodeError;

    fn try_from(request: pb::TailsRequest) -> Result<Self, DecodeError> {
        Ok((
            required("TailsRequest.loglet", request.loglet)?.try_into()?,
            required("TailsRequest.sequencer", request.sequencer)?.try_into()?,
        ))
    }
}

impl From<EndRequest> for pb::EndRequest {
    fn from(request: EndRequest) -> Self {
        let EndRequest { loglet, sequencer, op } = request;
        Self { loglet: Some(loglet.into()), sequencer: Some(sequencer.into()), op: id128_bytes(op.get()) }
    }
}

impl TryFrom<pb::EndRequest> for EndRequest {
    type Error = DecodeError;

    fn try_from(request: pb::EndRequest) -> Result<Self, DecodeError> {
        Ok(Self {
            loglet: required("EndRequest.loglet", request.loglet)?.try_into()?,
            sequencer: required("EndRequest.sequencer", request.sequencer)?.try_into()?,
            op: id128("EndRequest.op", &request.op)?,
        })
    }
}

impl From<Result<SequencerTails, SequencerError>> for pb::TailsResponse {
    fn from(outcome: Result<SequencerTails, SequencerError>) -> Self {
        let outcome = match outcome {
            Ok(tails) => Outcome::Tails(tails.into()),
            Err(error) => Outcome::Refused(error.into()),
        };
        Self { outcome: Some(outcome) }
    }
}

impl TryFrom<pb::TailsResponse> for Result<SequencerTails, SequencerError> {
    type Error = DecodeError;

    fn try_from(response: pb::TailsResponse) -> Result<Self, DecodeError> {
        Ok(match required("TailsResponse.outcome", response.outcome)? {
            Outcome::Tails(tails) => Ok(tails.try_into()?),
            Outcome::Refused(error) => Err(error.try_into()?),
        })
    }
}
