//! The service of logs: records on their way in and out.

use std::num::NonZeroU64;

use bifrost_types::limits::{BATCH_BYTES_MAX, BATCH_RECORDS_MAX, RECORD_BYTES_MAX};
use bifrost_types::{AppendId, KeyFilter, Keys, LogId, Lsn, Record};

use super::logs::log;
use super::{DecodeError, at_most, non_zero, optional, required};
use crate::logs::{
    APPEND_ID_BYTES_MAX, AppendOutcome, AppendRecords, CommittedAt, GapKind, LogEvent, LogRef, LogRefusal, NewRecord,
    NotAppended, ReadLog, ReadRecord, ResolvedAppend,
};
use crate::pb;
use pb::append_records_response::{Committed, Outcome, Unknown};
use pb::append_stream_request::Message as StreamRequest;
use pb::append_stream_response::Message as StreamResponse;
use pb::not_appended::Why;
use pb::read_log_response::Event;

fn keys(keys: Keys) -> Option<pb::RecordKeys> {
    use pb::record_keys as k;
    let keys = match keys {
        Keys::None => return None,
        Keys::Single(key) => k::Keys::Single(k::Single { key }),
        Keys::Pair(first, second) => k::Keys::Pair(k::Pair { first, second }),
        Keys::Range(first, last) => k::Keys::Range(k::Range { first, last }),
    };
    Some(pb::RecordKeys { keys: Some(keys) })
}

fn keys_of(keys: Option<pb::RecordKeys>) -> Result<Keys, DecodeError> {
    use pb::record_keys as k;
    let Some(keys) = keys else { return Ok(Keys::None) };
    // Whether a range is inverted is for the service to say: it names the record.
    Ok(match required("RecordKeys.keys", keys.keys)? {
        k::Keys::Single(single) => Keys::Single(single.key),
        k::Keys::Pair(pair) => Keys::Pair(pair.first, pair.second),
        k::Keys::Range(range) => Keys::Range(range.first, range.last),
    })
}

impl From<NewRecord> for pb::NewRecord {
    fn from(new: NewRecord) -> Self {
        let NewRecord { record, payload_crc32c } = new;
        Self { payload: record.payload, keys: keys(record.keys), payload_crc32c }
    }
}

impl TryFrom<pb::NewRecord> for NewRecord {
    type Error = DecodeError;

    fn try_from(new: pb::NewRecord) -> Result<Self, DecodeError> {
        let pb::NewRecord { payload, keys, payload_crc32c } = new;
        Ok(Self { record: Record { payload, keys: keys_of(keys)? }, payload_crc32c })
    }
}

/// Limits of a batch are for the service to say; the message itself is bounded.
fn new_records(records: Vec<pb::NewRecord>) -> Result<Vec<NewRecord>, DecodeError> {
    records.into_iter().map(TryInto::try_into).collect()
}

impl From<AppendRecords> for pb::AppendRecordsRequest {
    fn from(request: AppendRecords) -> Self {
        Self { log: Some(request.log.into()), records: request.records.into_iter().map(Into::into).collect() }
    }
}

impl TryFrom<pb::AppendRecordsRequest> for AppendRecords {
    type Error = DecodeError;

    fn try_from(request: pb::AppendRecordsRequest) -> Result<Self, DecodeError> {
        Ok(Self { log: log("AppendRecordsRequest.log", request.log)?, records: new_records(request.records)? })
    }
}

impl From<CommittedAt> for Committed {
    fn from(at: CommittedAt) -> Self {
        Self { first_lsn: at.first_lsn.get(), last_lsn: at.last_lsn.get() }
    }
}

impl TryFrom<Committed> for CommittedAt {
    type Error = DecodeError;

    fn try_from(committed: Committed) -> Result<Self, DecodeError> {
        let first_lsn = non_zero("Committed.first_lsn", committed.first_lsn)?;
        let last_lsn = non_zero("Committed.last_lsn", committed.last_lsn)?;
        if last_lsn < first_lsn {
            return Err(DecodeError::Inconsistent { field: "Committed.last_lsn" });
        }
        Ok(Self { first_lsn, last_lsn })
    }
}

impl From<NotAppended> for pb::NotAppended {
    fn from(cause: NotAppended) -> Self {
        use pb::not_appended as n;
        let wide = |limit: usize| u64::try_from(limit).unwrap_or(u64::MAX);
        let why = match cause {
            NotAppended::EmptyBatch => Why::EmptyBatch(n::EmptyBatch {}),
            NotAppended::RecordTooLarge { record, bytes } => {
                Why::RecordTooLarge(n::RecordTooLarge { record, bytes, bytes_max: wide(RECORD_BYTES_MAX) })
            }
            NotAppended::BatchTooLarge { bytes } => {
                Why::BatchTooLarge(n::BatchTooLarge { bytes, bytes_max: wide(BATCH_BYTES_MAX) })
            }
            NotAppended::TooManyRecords { records } => {
                Why::TooManyRecords(n::TooManyRecords { records, records_max: u64::from(BATCH_RECORDS_MAX) })
            }
            NotAppended::InvertedKeys { record } => Why::InvertedKeys(n::InvertedKeys { record }),
            NotAppended::BadChecksum { record, actual } => Why::BadChecksum(n::BadChecksum { record, actual }),
            NotAppended::NoProgress => Why::NoProgress(n::NoProgress {}),
            NotAppended::DiskFull => Why::DiskFull(n::DiskFull {}),
            NotAppended::Refused(refusal) => Why::Refused(refusal.into()),
        };
        Self { why: Some(why) }
    }
}

impl TryFrom<pb::NotAppended> for NotAppended {
    type Error = DecodeError;

    fn try_from(cause: pb::NotAppended) -> Result<Self, DecodeError> {
        Ok(match required("NotAppended.why", cause.why)? {
            Why::EmptyBatch(_) => Self::EmptyBatch,
            Why::RecordTooLarge(why) => Self::RecordTooLarge { record: why.record, bytes: why.bytes },
            Why::BatchTooLarge(why) => Self::BatchTooLarge { bytes: why.bytes },
            Why::TooManyRecords(why) => Self::TooManyRecords { records: why.records },
            Why::InvertedKeys(why) => Self::InvertedKeys { record: why.record },
            Why::BadChecksum(why) => Self::BadChecksum { record: why.record, actual: why.actual },
            Why::NoProgress(_) => Self::NoProgress,
            Why::DiskFull(_) => Self::DiskFull,
            Why::Refused(error) => Self::Refused(error.try_into()?),
        })
    }
}

fn append_id(field: &'static str, text: &str) -> Result<AppendId, DecodeError> {
    at_most(field, text.len(), APPEND_ID_BYTES_MAX)?;
    let id: AppendId = text.parse().map_err(|_| DecodeError::NotAnId { field })?;
    // The life after that of the attempt must have a number, and the last record a sequence number and an LSN.
    let records = u64::from(id.records.get());
    let in_range = id.incarnation < u64::MAX
        && id.sequence.checked_add(records).is_some()
        && NonZeroU64::new(id.from.get()).and_then(|from| from.checked_add(records)).is_some();
    if in_range { Ok(id) } else { Err(DecodeError::OutOfRange { field }) }
}

impl From<AppendOutcome> for pb::AppendRecordsResponse {
    fn from(outcome: AppendOutcome) -> Self {
        Self {
            outcome: Some(match outcome {
                AppendOutcome::Committed(at) => Outcome::Committed(at.into()),
                AppendOutcome::NotAppended(cause) => Outcome::NotAppended(cause.into()),
                AppendOutcome::Unknown(id) => Outcome::Unknown(Unknown { append_id: id.map(|id| id.to_string()) }),
            }),
        }
    }
}

impl TryFrom<pb::AppendRecordsResponse> for AppendOutcome {
    type Error = DecodeError;

    fn try_from(response: pb::AppendRecordsResponse) -> Result<Self, DecodeError> {
        Ok(match required("AppendRecordsResponse.outcome", response.outcome)? {
            Outcome::Committed(at) => Self::Committed(at.try_into()?),
            Outcome::NotAppended(cause) => Self::NotAppended(cause.try_into()?),
            Outcome::Unknown(Unknown { append_id: None }) => Self::Unknown(None),
            Outcome::Unknown(Unknown { append_id: Some(id) }) => {
                Self::Unknown(Some(append_id("AppendRecordsResponse.Unknown.append_id", &id)?))
            }
        })
    }
}

/// A request of the append stream, its opening included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LogAppendMessage {
    /// Opens the stream to a log.
    Open(LogRef),
    /// A batch.
    Append(Vec<NewRecord>),
}

impl LogAppendMessage {
    /// What the first message must be.
    pub(crate) fn opening(self) -> Result<LogRef, DecodeError> {
        match self {
            Self::Open(log) => Ok(log),
            Self::Append(_) => Err(DecodeError::Unexpected { field: "AppendStreamRequest.append" }),
        }
    }

    /// What all others must be.
    pub(crate) fn append(self) -> Result<Vec<NewRecord>, DecodeError> {
        match self {
            Self::Append(records) => Ok(records),
            Self::Open(_) => Err(DecodeError::Unexpected { field: "AppendStreamRequest.open" }),
        }
    }
}

impl From<LogAppendMessage> for pb::AppendStreamRequest {
    fn from(message: LogAppendMessage) -> Self {
        use pb::append_stream_request as r;
        let message = match message {
            LogAppendMessage::Open(log) => StreamRequest::Open(r::Open { log: Some(log.into()) }),
            LogAppendMessage::Append(records) => {
                StreamRequest::Append(r::Append { records: records.into_iter().map(Into::into).collect() })
            }
        };
        Self { message: Some(message) }
    }
}

impl TryFrom<pb::AppendStreamRequest> for LogAppendMessage {
    type Error = DecodeError;

    fn try_from(request: pb::AppendStreamRequest) -> Result<Self, DecodeError> {
        Ok(match required("AppendStreamRequest.message", request.message)? {
            StreamRequest::Open(open) => Self::Open(log("AppendStreamRequest.Open.log", open.log)?),
            StreamRequest::Append(append) => Self::Append(new_records(append.records)?),
        })
    }
}

/// A response of the append stream, its opening included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LogAppendReply {
    /// The stream to this log is open.
    Opened(LogId),
    /// How an append ended.
    Appended(AppendOutcome),
    /// The stream was not opened.
    Refused(LogRefusal),
}

impl From<LogAppendReply> for pb::AppendStreamResponse {
    fn from(reply: LogAppendReply) -> Self {
        use pb::append_stream_response as r;
        let message = match reply {
            LogAppendReply::Opened(log) => StreamResponse::Opened(r::Opened { log: log.get() }),
            LogAppendReply::Appended(outcome) => StreamResponse::Appended(outcome.into()),
            LogAppendReply::Refused(refusal) => StreamResponse::Refused(refusal.into()),
        };
        Self { message: Some(message) }
    }
}

impl TryFrom<pb::AppendStreamResponse> for LogAppendReply {
    type Error = DecodeError;

    fn try_from(response: pb::AppendStreamResponse) -> Result<Self, DecodeError> {
        Ok(match required("AppendStreamResponse.message", response.message)? {
            StreamResponse::Opened(opened) => Self::Opened(non_zero("AppendStreamResponse.Opened.log", opened.log)?),
            StreamResponse::Appended(outcome) => Self::Appended(outcome.try_into()?),
            StreamResponse::Refused(error) => Self::Refused(error.try_into()?),
        })
    }
}

impl From<ReadLog> for pb::ReadLogRequest {
    fn from(request: ReadLog) -> Self {
        Self {
            log: Some(request.log.into()),
            from: request.from.map(Lsn::get),
            until: request.until.map(Lsn::get),
            filter: Some(request.filter.into()),
        }
    }
}

impl TryFrom<pb::ReadLogRequest> for ReadLog {
    type Error = DecodeError;

    fn try_from(request: pb::ReadLogRequest) -> Result<Self, DecodeError> {
        let from = optional("ReadLogRequest.from", request.from)?;
        let until = optional("ReadLogRequest.until", request.until)?;
        if let (Some(from), Some(until)) = (from, until)
            && until < from
        {
            return Err(DecodeError::Inconsistent { field: "ReadLogRequest.until" });
        }
        let filter = request.filter.map_or(Ok(KeyFilter::Any), TryInto::try_into)?;
        if let KeyFilter::Range(first, last) = filter
            && last < first
        {
            return Err(DecodeError::Inconsistent { field: "ReadLogRequest.filter" });
        }
        Ok(Self { log: log("ReadLogRequest.log", request.log)?, from, until, filter })
    }
}

impl From<ReadRecord> for pb::LogRecord {
    fn from(read: ReadRecord) -> Self {
        let ReadRecord { lsn, record, payload_crc32c, created_at_millis } = read;
        Self { lsn: lsn.get(), payload: record.payload, keys: keys(record.keys), payload_crc32c, created_at_millis }
    }
}

impl TryFrom<pb::LogRecord> for ReadRecord {
    type Error = DecodeError;

    fn try_from(read: pb::LogRecord) -> Result<Self, DecodeError> {
        let pb::LogRecord { lsn, payload, keys, payload_crc32c, created_at_millis } = read;
        let record = Record { payload, keys: keys_of(keys)? };
        Ok(Self { lsn: non_zero("LogRecord.lsn", lsn)?, record, payload_crc32c, created_at_millis })
    }
}

/// A response of the read stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ReadLogMessage {
    /// An event.
    Event(LogEvent),
    /// The read ends early.
    Refused(LogRefusal),
}

impl From<ReadLogMessage> for pb::ReadLogResponse {
    fn from(message: ReadLogMessage) -> Self {
        use pb::read_log_response as r;
        let event = match message {
            ReadLogMessage::Event(LogEvent::Records(records)) => {
                Event::Records(r::Records { records: records.into_iter().map(Into::into).collect() })
            }
            ReadLogMessage::Event(LogEvent::Gap { from, end, kind }) => {
                let kind = match kind {
                    GapKind::Trimmed => pb::GapKind::Trimmed,
                    GapKind::Lost => pb::GapKind::Lost,
                };
                Event::Gap(r::Gap { from: from.get(), end: end.get(), kind: kind.into() })
            }
            ReadLogMessage::Event(LogEvent::CaughtUp { tail }) => Event::CaughtUp(r::CaughtUp { tail: tail.get() }),
            ReadLogMessage::Refused(refusal) => Event::Refused(refusal.into()),
        };
        Self { event: Some(event) }
    }
}

impl TryFrom<pb::ReadLogResponse> for ReadLogMessage {
    type Error = DecodeError;

    fn try_from(response: pb::ReadLogResponse) -> Result<Self, DecodeError> {
        Ok(match required("ReadLogResponse.event", response.event)? {
            Event::Records(records) => {
                if records.records.is_empty() {
                    return Err(DecodeError::Missing { field: "ReadLogResponse.Records.records" });
                }
                let records = records.records.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?;
                Self::Event(LogEvent::Records(records))
            }
            Event::Gap(gap) => {
                let from = non_zero("ReadLogResponse.Gap.from", gap.from)?;
                let end = non_zero("ReadLogResponse.Gap.end", gap.end)?;
                if end <= from {
                    return Err(DecodeError::Inconsistent { field: "ReadLogResponse.Gap.end" });
                }
                let kind = match pb::GapKind::try_from(gap.kind) {
                    Ok(pb::GapKind::Trimmed) => GapKind::Trimmed,
                    Ok(pb::GapKind::Lost) => GapKind::Lost,
                    Ok(pb::GapKind::Unspecified) | Err(_) => {
                        let field = "ReadLogResponse.Gap.kind";
                        return Err(DecodeError::UnknownValue { field, value: gap.kind });
                    }
                };
                Self::Event(LogEvent::Gap { from, end, kind })
            }
            Event::CaughtUp(caught_up) => {
                Self::Event(LogEvent::CaughtUp { tail: non_zero("ReadLogResponse.CaughtUp.tail", caught_up.tail)? })
            }
            Event::Refused(error) => Self::Refused(error.try_into()?),
        })
    }
}

impl From<AppendId> for pb::ResolveRequest {
    fn from(append: AppendId) -> Self {
        Self { append_id: append.to_string() }
    }
}

impl TryFrom<pb::ResolveRequest> for AppendId {
    type Error = DecodeError;

    fn try_from(request: pb::ResolveRequest) -> Result<Self, DecodeError> {
        append_id("ResolveRequest.append_id", &request.append_id)
    }
}

impl From<Result<ResolvedAppend, LogRefusal>> for pb::ResolveResponse {
    fn from(outcome: Result<ResolvedAppend, LogRefusal>) -> Self {
        use pb::resolve_response::{Absent, Outcome, Unknowable};
        let outcome = match outcome {
            Ok(ResolvedAppend::Committed(at)) => Outcome::Committed(at.into()),
            Ok(ResolvedAppend::Absent) => Outcome::Absent(Absent {}),
            Ok(ResolvedAppend::Unknowable) => Outcome::Unknowable(Unknowable {}),
            Err(refusal) => Outcome::Refused(refusal.into()),
        };
        Self { outcome: Some(outcome) }
    }
}

impl TryFrom<pb::ResolveResponse> for Result<ResolvedAppend, LogRefusal> {
    type Error = DecodeError;

    fn try_from(response: pb::ResolveResponse) -> Result<Self, DecodeError> {
        use pb::resolve_response::Outcome;
        Ok(match required("ResolveResponse.outcome", response.outcome)? {
            Outcome::Committed(at) => Ok(ResolvedAppend::Committed(at.try_into()?)),
            Outcome::Absent(_) => Ok(ResolvedAppend::Absent),
            Outcome::Unknowable(_) => Ok(ResolvedAppend::Unknowable),
            Outcome::Refused(error) => Err(error.try_into()?),
        })
    }
}
