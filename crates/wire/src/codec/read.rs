//! The read stream: an opening and grants one way, parts the other.

use bifrost_types::limits::BATCH_BYTES_MAX;
use bifrost_types::{KeyFilter, LogletOffset};

use super::{DecodeError, at_most, id128, id128_bytes, non_zero, optional, required};
use crate::log_server::{CopyError, ReadGrant, ReadReply, ReadRequest};
use crate::pb;
use pb::key_filter::Filter;
use pb::read_request::Message;
use pb::read_response::Part;

impl From<KeyFilter> for pb::KeyFilter {
    fn from(filter: KeyFilter) -> Self {
        use pb::key_filter as f;
        let filter = match filter {
            KeyFilter::Any => Filter::Any(f::Any {}),
            KeyFilter::Key(key) => Filter::Key(f::Key { key }),
            KeyFilter::Range(first, last) => Filter::Range(f::Range { first, last }),
        };
        Self { filter: Some(filter) }
    }
}

impl TryFrom<pb::KeyFilter> for KeyFilter {
    type Error = DecodeError;

    fn try_from(filter: pb::KeyFilter) -> Result<Self, DecodeError> {
        Ok(match required("KeyFilter.filter", filter.filter)? {
            Filter::Any(_) => Self::Any,
            Filter::Key(key) => Self::Key(key.key),
            Filter::Range(range) => Self::Range(range.first, range.last),
        })
    }
}

impl From<ReadRequest> for pb::ReadRequest {
    fn from(request: ReadRequest) -> Self {
        Self {
            message: Some(Message::Open(pb::ReadOpen {
                loglet: Some(request.loglet.into()),
                disk: id128_bytes(request.disk.get()),
                from: request.from.get(),
                until: request.until.map(LogletOffset::get),
                filter: Some(request.filter.into()),
                credit_bytes: request.credit_bytes,
                readable_tail: request.readable_tail.get(),
            })),
        }
    }
}

impl TryFrom<pb::ReadRequest> for ReadRequest {
    type Error = DecodeError;

    fn try_from(request: pb::ReadRequest) -> Result<Self, DecodeError> {
        match required("ReadRequest.message", request.message)? {
            Message::Open(open) => Ok(Self {
                loglet: required("ReadOpen.loglet", open.loglet)?.try_into()?,
                disk: id128("ReadOpen.disk", &open.disk)?,
                from: non_zero("ReadOpen.from", open.from)?,
                until: optional("ReadOpen.until", open.until)?,
                filter: required("ReadOpen.filter", open.filter)?.try_into()?,
                credit_bytes: open.credit_bytes,
                readable_tail: non_zero("ReadOpen.readable_tail", open.readable_tail)?,
            }),
            Message::Grant(_) => Err(DecodeError::Unexpected { field: "ReadRequest.grant" }),
        }
    }
}

impl From<ReadGrant> for pb::ReadRequest {
    fn from(grant: ReadGrant) -> Self {
        Self {
            message: Some(Message::Grant(pb::ReadGrant {
                credit_bytes: grant.credit_bytes,
                readable_tail: grant.readable_tail.get(),
            })),
        }
    }
}

impl TryFrom<pb::ReadRequest> for ReadGrant {
    type Error = DecodeError;

    fn try_from(request: pb::ReadRequest) -> Result<Self, DecodeError> {
        match required("ReadRequest.message", request.message)? {
            Message::Grant(grant) => Ok(Self {
                credit_bytes: grant.credit_bytes,
                readable_tail: non_zero("ReadGrant.readable_tail", grant.readable_tail)?,
            }),
            Message::Open(_) => Err(DecodeError::Unexpected { field: "ReadRequest.open" }),
        }
    }
}

/// A response of the read stream, its opening included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ReadMessage {
    /// The read began.
    Opened,
    /// A part.
    Reply(ReadReply),
    /// The read ends.
    Refused(CopyError),
}

fn range(from: LogletOffset, end: LogletOffset) -> pb::read_response::Range {
    pb::read_response::Range { from: from.get(), end: end.get() }
}

fn range_of(range: &pb::read_response::Range) -> Result<(LogletOffset, LogletOffset), DecodeError> {
    let from = non_zero("ReadResponse.Range.from", range.from)?;
    let end = non_zero("ReadResponse.Range.end", range.end)?;
    forward("ReadResponse.Range.end", from, end)?;
    Ok((from, end))
}

/// A part may be empty but never lead backwards: a reader that believed it would deliver a record twice.
fn forward(field: &'static str, from: LogletOffset, end: LogletOffset) -> Result<(), DecodeError> {
    if end < from { Err(DecodeError::Inconsistent { field }) } else { Ok(()) }
}

impl From<ReadMessage> for pb::ReadResponse {
    fn from(message: ReadMessage) -> Self {
        use pb::read_response as r;
        let part = match message {
            ReadMessage::Opened => Part::Opened(r::Opened {}),
            ReadMessage::Refused(error) => Part::Refused(error.into()),
            ReadMessage::Reply(ReadReply::Batch { first_offset, end, batch }) => {
                Part::Batch(r::Batch { first_offset: first_offset.get(), end: end.get(), batch })
            }
            ReadMessage::Reply(ReadReply::Filtered { from, end }) => Part::Filtered(range(from, end)),
            ReadMessage::Reply(ReadReply::Trimmed { from, end }) => Part::Trimmed(range(from, end)),
            ReadMessage::Reply(ReadReply::Missing { from, end, corrupt }) => {
                Part::Missing(r::Missing { from: from.get(), end: end.get(), corrupt })
            }
            ReadMessage::Reply(ReadReply::Tail(state)) => Part::Tail(state.into()),
        };
        Self { part: Some(part) }
    }
}

impl TryFrom<pb::ReadResponse> for ReadMessage {
    type Error = DecodeError;

    fn try_from(response: pb::ReadResponse) -> Result<Self, DecodeError> {
        let reply = match required("ReadResponse.part", response.part)? {
            Part::Opened(_) => return Ok(Self::Opened),
            Part::Refused(error) => return Ok(Self::Refused(error.try_into()?)),
            Part::Batch(part) => {
                at_most("ReadResponse.Batch.batch", part.batch.len(), BATCH_BYTES_MAX)?;
                let first_offset = non_zero("ReadResponse.Batch.first_offset", part.first_offset)?;
                let end = non_zero("ReadResponse.Batch.end", part.end)?;
                forward("ReadResponse.Batch.end", first_offset, end)?;
                ReadReply::Batch { first_offset, end, batch: part.batch }
            }
            Part::Filtered(part) => {
                let (from, end) = range_of(&part)?;
                ReadReply::Filtered { from, end }
            }
            Part::Trimmed(part) => {
                let (from, end) = range_of(&part)?;
                ReadReply::Trimmed { from, end }
            }
            Part::Missing(part) => {
                let from = non_zero("ReadResponse.Missing.from", part.from)?;
                let end = non_zero("ReadResponse.Missing.end", part.end)?;
                forward("ReadResponse.Missing.end", from, end)?;
                ReadReply::Missing { from, end, corrupt: part.corrupt }
            }
            Part::Tail(state) => ReadReply::Tail(state.try_into()?),
        };
        Ok(Self::Reply(reply))
    }
}
