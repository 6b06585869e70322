//! The service of logs: naming, making, describing, listing, deleting, trimming. Records are in `records`.

use std::num::NonZeroUsize;

use bifrost_types::{LogId, Lsn};

use super::chain::check_segments;
use super::topology::{counts, replication};
use super::{DecodeError, non_zero, optional, required};
use crate::logs::{
    CreateLog, ListLogs, LogDescription, LogPage, LogRef, LogRefusal, LogSummary, LogTail, PAGE_SIZE_DEFAULT,
    PAGE_SIZE_MAX, TailKind,
};
use crate::pb;
use pb::log_error::Error as Kind;

impl From<LogRef> for pb::LogRef {
    fn from(log: LogRef) -> Self {
        use pb::log_ref::Log;
        Self {
            log: Some(match log {
                LogRef::Name(name) => Log::Name(name),
                LogRef::Id(id) => Log::Id(id.get()),
            }),
        }
    }
}

impl TryFrom<pb::LogRef> for LogRef {
    type Error = DecodeError;

    fn try_from(log: pb::LogRef) -> Result<Self, DecodeError> {
        use pb::log_ref::Log;
        // Whether the name is a legal one is for the service to say: it has a refusal for that.
        Ok(match required("LogRef.log", log.log)? {
            Log::Name(name) => Self::Name(name),
            Log::Id(id) => Self::Id(non_zero("LogRef.id", id)?),
        })
    }
}

/// The log that a request is about.
pub(super) fn log(field: &'static str, log: Option<pb::LogRef>) -> Result<LogRef, DecodeError> {
    required(field, log)?.try_into()
}

impl From<LogRefusal> for pb::LogError {
    fn from(refusal: LogRefusal) -> Self {
        use pb::log_error as e;
        let kind = match refusal {
            LogRefusal::UnknownLog => Kind::UnknownLog(e::UnknownLog {}),
            LogRefusal::NameTaken { log } => Kind::NameTaken(e::NameTaken { log: log.get() }),
            LogRefusal::InvalidName => Kind::InvalidName(e::InvalidName {}),
            LogRefusal::NoPlacement => Kind::NoPlacement(e::NoPlacement {}),
            LogRefusal::BeyondTail { tail } => Kind::BeyondTail(e::BeyondTail { tail: tail.get() }),
            LogRefusal::Closed => Kind::Closed(e::Closed {}),
            LogRefusal::MetadataUnavailable => Kind::MetadataUnavailable(e::MetadataUnavailable {}),
            LogRefusal::Damaged => Kind::Damaged(e::Damaged {}),
            LogRefusal::Exhausted => Kind::Exhausted(e::Exhausted {}),
        };
        Self { error: Some(kind) }
    }
}

impl TryFrom<pb::LogError> for LogRefusal {
    type Error = DecodeError;

    fn try_from(error: pb::LogError) -> Result<Self, DecodeError> {
        Ok(match required("LogError.error", error.error)? {
            Kind::UnknownLog(_) => Self::UnknownLog,
            Kind::NameTaken(taken) => Self::NameTaken { log: non_zero("LogError.NameTaken.log", taken.log)? },
            Kind::InvalidName(_) => Self::InvalidName,
            Kind::NoPlacement(_) => Self::NoPlacement,
            Kind::BeyondTail(beyond) => Self::BeyondTail { tail: non_zero("LogError.BeyondTail.tail", beyond.tail)? },
            Kind::Closed(_) => Self::Closed,
            Kind::MetadataUnavailable(_) => Self::MetadataUnavailable,
            Kind::Damaged(_) => Self::Damaged,
            Kind::Exhausted(_) => Self::Exhausted,
        })
    }
}

impl From<CreateLog> for pb::CreateLogRequest {
    fn from(request: CreateLog) -> Self {
        Self { name: request.name, replication: request.replication.as_ref().map(counts).unwrap_or_default() }
    }
}

impl TryFrom<pb::CreateLogRequest> for CreateLog {
    type Error = DecodeError;

    fn try_from(request: pb::CreateLogRequest) -> Result<Self, DecodeError> {
        let pb::CreateLogRequest { name, replication: counts } = request;
        let wanted = !counts.is_empty();
        let replication = wanted.then(|| replication("CreateLogRequest.replication", counts)).transpose()?;
        Ok(Self { name, replication })
    }
}

impl From<LogDescription> for pb::LogDescription {
    fn from(description: LogDescription) -> Self {
        let LogDescription { log, name, version, segments, pending, trim_point } = description;
        Self {
            log: log.get(),
            name,
            version,
            segments: segments.iter().map(Into::into).collect(),
            pending: pending.as_ref().map(Into::into),
            trim_point: trim_point.map(Lsn::get),
        }
    }
}

impl TryFrom<pb::LogDescription> for LogDescription {
    type Error = DecodeError;

    fn try_from(description: pb::LogDescription) -> Result<Self, DecodeError> {
        let log = non_zero("LogDescription.log", description.log)?;
        let segments: Vec<_> = description.segments.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?;
        check_segments("LogDescription.segments", log, &segments)?;
        Ok(Self {
            log,
            name: description.name,
            version: description.version,
            segments,
            pending: description.pending.map(TryInto::try_into).transpose()?,
            trim_point: optional("LogDescription.trim_point", description.trim_point)?,
        })
    }
}

impl From<ListLogs> for pb::ListLogsRequest {
    fn from(request: ListLogs) -> Self {
        let page_size = u32::try_from(request.page_size.get()).unwrap_or(u32::MAX);
        Self { after: request.after.map(LogId::get), page_size }
    }
}

impl TryFrom<pb::ListLogsRequest> for ListLogs {
    type Error = DecodeError;

    fn try_from(request: pb::ListLogsRequest) -> Result<Self, DecodeError> {
        let field = "ListLogsRequest.page_size";
        let page_size = usize::try_from(request.page_size).map_err(|_| DecodeError::OutOfRange { field })?;
        if page_size > PAGE_SIZE_MAX {
            return Err(DecodeError::OutOfRange { field });
        }
        Ok(Self {
            after: optional("ListLogsRequest.after", request.after)?,
            page_size: NonZeroUsize::new(page_size).unwrap_or(PAGE_SIZE_DEFAULT),
        })
    }
}

impl From<LogSummary> for pb::LogSummary {
    fn from(summary: LogSummary) -> Self {
        let LogSummary { log, name, segments, closed, pending, trim_point } = summary;
        Self { log: log.get(), name, segments, closed, pending, trim_point: trim_point.map(Lsn::get) }
    }
}

impl TryFrom<pb::LogSummary> for LogSummary {
    type Error = DecodeError;

    fn try_from(summary: pb::LogSummary) -> Result<Self, DecodeError> {
        let pb::LogSummary { log, name, segments, closed, pending, trim_point } = summary;
        let trim_point = optional("LogSummary.trim_point", trim_point)?;
        Ok(Self { log: non_zero("LogSummary.log", log)?, name, segments, closed, pending, trim_point })
    }
}

impl From<LogPage> for pb::LogPage {
    fn from(page: LogPage) -> Self {
        let logs = page.logs.into_iter().map(Into::into).collect();
        Self { logs, next_after: page.next_after.map(LogId::get) }
    }
}

impl TryFrom<pb::LogPage> for LogPage {
    type Error = DecodeError;

    fn try_from(page: pb::LogPage) -> Result<Self, DecodeError> {
        super::at_most("LogPage.logs", page.logs.len(), PAGE_SIZE_MAX)?;
        Ok(Self {
            logs: page.logs.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
            next_after: optional("LogPage.next_after", page.next_after)?,
        })
    }
}

fn tail_kind(kind: TailKind) -> i32 {
    match kind {
        TailKind::Cached => pb::TailKind::Cached,
        TailKind::Linearizable => pb::TailKind::Linearizable,
    }
    .into()
}

fn tail_kind_of(field: &'static str, value: i32) -> Result<TailKind, DecodeError> {
    match pb::TailKind::try_from(value) {
        Ok(pb::TailKind::Cached) => Ok(TailKind::Cached),
        Ok(pb::TailKind::Linearizable) => Ok(TailKind::Linearizable),
        Ok(pb::TailKind::Unspecified) | Err(_) => Err(DecodeError::UnknownValue { field, value }),
    }
}

/// Which tail is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FindTail {
    pub(crate) log: LogRef,
    pub(crate) kind: TailKind,
}

impl From<FindTail> for pb::FindTailRequest {
    fn from(request: FindTail) -> Self {
        Self { log: Some(request.log.into()), kind: tail_kind(request.kind) }
    }
}

impl TryFrom<pb::FindTailRequest> for FindTail {
    type Error = DecodeError;

    fn try_from(request: pb::FindTailRequest) -> Result<Self, DecodeError> {
        Ok(Self {
            log: log("FindTailRequest.log", request.log)?,
            kind: tail_kind_of("FindTailRequest.kind", request.kind)?,
        })
    }
}

impl From<LogTail> for pb::find_tail_response::Tail {
    fn from(tail: LogTail) -> Self {
        Self { lsn: tail.lsn.get(), kind: tail_kind(tail.kind) }
    }
}

impl TryFrom<pb::find_tail_response::Tail> for LogTail {
    type Error = DecodeError;

    fn try_from(tail: pb::find_tail_response::Tail) -> Result<Self, DecodeError> {
        Ok(Self {
            lsn: non_zero("FindTailResponse.Tail.lsn", tail.lsn)?,
            kind: tail_kind_of("FindTailResponse.Tail.kind", tail.kind)?,
        })
    }
}

/// Which log is trimmed, and how far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TrimLog {
    pub(crate) log: LogRef,
    pub(crate) up_to: Lsn,
}

impl From<TrimLog> for pb::TrimLogRequest {
    fn from(request: TrimLog) -> Self {
        Self { log: Some(request.log.into()), up_to: request.up_to.get() }
    }
}

impl TryFrom<pb::TrimLogRequest> for TrimLog {
    type Error = DecodeError;

    fn try_from(request: pb::TrimLogRequest) -> Result<Self, DecodeError> {
        Ok(Self {
            log: log("TrimLogRequest.log", request.log)?,
            up_to: non_zero("TrimLogRequest.up_to", request.up_to)?,
        })
    }
}

/// Which log is described or deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OfLog(pub(crate) LogRef);

macro_rules! of_log {
    ($message:ident, $field:literal) => {
        impl From<OfLog> for pb::$message {
            fn from(OfLog(log): OfLog) -> Self {
                Self { log: Some(log.into()) }
            }
        }

        impl TryFrom<pb::$message> for OfLog {
            type Error = DecodeError;

            fn try_from(request: pb::$message) -> Result<Self, DecodeError> {
                Ok(Self(log($field, request.log)?))
            }
        }
    };
}

of_log!(GetLogRequest, "GetLogRequest.log");
of_log!(DeleteLogRequest, "DeleteLogRequest.log");

/// A response that is an answer or a refusal, both ways.
macro_rules! answered {
    ($response:ident, $outcome:ident :: $variant:ident, $field:literal, $answer:ty, $to:expr, $from:expr) => {
        impl From<Result<$answer, LogRefusal>> for pb::$response {
            fn from(outcome: Result<$answer, LogRefusal>) -> Self {
                use pb::$outcome::Outcome;
                let to: fn($answer) -> _ = $to;
                Self {
                    outcome: Some(match outcome {
                        Ok(answer) => Outcome::$variant(to(answer)),
                        Err(refusal) => Outcome::Refused(refusal.into()),
                    }),
                }
            }
        }

        impl TryFrom<pb::$response> for Result<$answer, LogRefusal> {
            type Error = DecodeError;

            fn try_from(response: pb::$response) -> Result<Self, DecodeError> {
                use pb::$outcome::Outcome;
                let from: fn(_) -> Result<$answer, DecodeError> = $from;
                Ok(match required($field, response.outcome)? {
                    Outcome::$variant(answer) => Ok(from(answer)?),
                    Outcome::Refused(error) => Err(error.try_into()?),
                })
            }
        }
    };
}

answered!(
    CreateLogResponse,
    create_log_response::Created,
    "CreateLogResponse.outcome",
    LogDescription,
    Into::into,
    TryInto::try_into
);
answered!(
    GetLogResponse,
    get_log_response::Log,
    "GetLogResponse.outcome",
    LogDescription,
    Into::into,
    TryInto::try_into
);
answered!(
    ListLogsResponse,
    list_logs_response::Page,
    "ListLogsResponse.outcome",
    LogPage,
    Into::into,
    TryInto::try_into
);
answered!(
    DeleteLogResponse,
    delete_log_response::Deleted,
    "DeleteLogResponse.outcome",
    LogId,
    |log| pb::delete_log_response::Deleted { log: log.get() },
    |deleted: pb::delete_log_response::Deleted| non_zero("DeleteLogResponse.Deleted.log", deleted.log)
);
answered!(
    FindTailResponse,
    find_tail_response::Tail,
    "FindTailResponse.outcome",
    LogTail,
    Into::into,
    TryInto::try_into
);
answered!(
    TrimLogResponse,
    trim_log_response::Trimmed,
    "TrimLogResponse.outcome",
    Lsn,
    |trim_point| pb::trim_log_response::Trimmed { trim_point: trim_point.get() },
    |trimmed: pb::trim_log_response::Trimmed| non_zero("TrimLogResponse.Trimmed.trim_point", trimmed.trim_point)
);
