//! What the public calls can end with. Each error says what to do next.

use bifrost_types::{AppendId, LogId, Lsn};
use bifrost_wire::batch::EncodeError;
use thiserror::Error;

use crate::catalog::CatalogError;
use crate::chain::ChainError;
use crate::placement::PlanError;
use crate::reconfigure::ReconfigureError;

/// What to do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Advice {
    /// Call again, after a pause.
    Retry,
    /// Ask for the outcome first, with [`Log::resolve`](crate::Log::resolve).
    Resolve,
    /// Change the request; the same one fails again.
    Fix,
    /// Stop: the log is closed, or an invariant is broken and a person must look.
    GiveUp,
}

/// How an append ended that was not acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum AppendError {
    /// It is not in the log and never will be: safe to append again.
    #[error("not appended")]
    NotAppended {
        /// Why.
        #[source]
        cause: NotAppended,
    },
    /// It may be in the log. [`Log::resolve`](crate::Log::resolve) with this id tells later; a blind retry may append it
    /// twice.
    #[error("the outcome of append {id} is unknown")]
    Unknown {
        /// Names the append.
        id: AppendId,
    },
    /// The log is closed for good, and the append is not in it.
    #[error("log {log} is closed")]
    Closed {
        /// The log.
        log: LogId,
    },
}

/// Why an append was not made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum NotAppended {
    /// The records are over a limit or not well-formed.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// More bytes than were reserved.
    #[error("{needed} bytes are more than the {reserved} that were reserved")]
    BeyondReservation {
        /// Payload bytes that were reserved.
        reserved: usize,
        /// Payload bytes that were sent.
        needed: usize,
    },
    /// The log made no progress for as long as the appender's options allow.
    #[error("the log made no progress in time")]
    NoProgress,
    /// For as long as the appender's options allow, no write quorum of the log's disks had room. Appends go on by
    /// themselves once space is freed there, for example by a trim.
    #[error("the disks of the log are full")]
    DiskFull,
    /// The appender, or its `Bifrost`, was shut down before the append was tried.
    #[error("the appender was shut down")]
    ShutDown,
    /// The log has no positions left for records.
    #[error("the log has no positions left")]
    Exhausted,
    /// The log was deleted. Its name may be another log's by now: open it anew to append there.
    #[error("the log was deleted")]
    Deleted,
}

impl AppendError {
    /// What to do next.
    pub const fn advice(&self) -> Advice {
        match self {
            Self::NotAppended { cause } => match cause {
                NotAppended::Encode(_) | NotAppended::BeyondReservation { .. } => Advice::Fix,
                NotAppended::NoProgress | NotAppended::DiskFull | NotAppended::ShutDown => Advice::Retry,
                NotAppended::Exhausted | NotAppended::Deleted => Advice::GiveUp,
            },
            Self::Unknown { .. } => Advice::Resolve,
            Self::Closed { .. } => Advice::GiveUp,
        }
    }
}

/// Why no room was reserved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ReserveError {
    /// More than the appender may ever hold.
    #[error("{bytes} bytes are more than the appender's limit of {bytes_max}")]
    TooLarge {
        /// Asked for.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// The appender was shut down, or its log is closed for good or deleted.
    #[error("the appender takes no more records")]
    Closed,
}

/// Why a log could not be made, found or changed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LogError {
    /// Metadata gave no answer, or refused.
    #[error(transparent)]
    Catalog(CatalogError),
    /// The log was deleted. Its name may be another log's by now.
    #[error("log {log} was deleted")]
    Deleted {
        /// The log.
        log: LogId,
    },
    /// The log cannot take the change.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// The reconfiguration stopped; whoever drives the log next goes on with it.
    #[error(transparent)]
    Reconfigure(ReconfigureError),
    /// No set of nodes can hold the log with its replication property now.
    #[error("no set of nodes can hold the log with its replication property now")]
    NoPlacement,
    /// The next segment cannot be as it is wanted.
    #[error(transparent)]
    Plan(PlanError),
    /// Only what was written can be trimmed.
    #[error("cannot trim up to {asked}: the tail is {tail}")]
    BeyondTail {
        /// The last LSN that was to be trimmed.
        asked: Lsn,
        /// The tail now.
        tail: Lsn,
    },
    /// The `Bifrost` was shut down.
    #[error("the Bifrost was shut down")]
    ShutDown,
}

impl From<CatalogError> for LogError {
    fn from(error: CatalogError) -> Self {
        match error {
            CatalogError::Deleted { log } => Self::Deleted { log },
            error => Self::Catalog(error),
        }
    }
}

impl From<PlanError> for LogError {
    fn from(error: PlanError) -> Self {
        match error {
            PlanError::NoPlacement => Self::NoPlacement,
            error => Self::Plan(error),
        }
    }
}

impl From<ReconfigureError> for LogError {
    fn from(error: ReconfigureError) -> Self {
        match error {
            ReconfigureError::Catalog(error) => error.into(),
            ReconfigureError::NotAdmitted(error) => error.into(),
            error => Self::Reconfigure(error),
        }
    }
}

impl LogError {
    /// What to do next.
    pub const fn advice(&self) -> Advice {
        match self {
            Self::Catalog(error) | Self::Reconfigure(ReconfigureError::Catalog(error)) => {
                if error.is_passing() {
                    Advice::Retry
                } else {
                    Advice::Fix
                }
            }
            Self::NoPlacement | Self::Reconfigure(ReconfigureError::NoPlacement) => Advice::Retry,
            Self::Plan(_) | Self::BeyondTail { .. } => Advice::Fix,
            Self::Chain(_) | Self::Reconfigure(_) | Self::ShutDown | Self::Deleted { .. } => Advice::GiveUp,
        }
    }
}

/// Why a reader ends early. A copy that fails is no error: the reader goes on with the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ReadError {
    /// A promise was found broken; the cause says which.
    #[error("reading log {log} stopped")]
    Broken {
        /// The log.
        log: LogId,
        /// What was found.
        #[source]
        cause: bifrost_loglet::read::ReadError,
    },
    /// The chain is damaged, or positions run out.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// The log was deleted. Its name may be another log's by now.
    #[error("log {log} was deleted")]
    Deleted {
        /// The log.
        log: LogId,
    },
}

impl ReadError {
    /// What to do next.
    pub const fn advice(&self) -> Advice {
        match self {
            Self::Broken { .. } | Self::Chain(_) | Self::Deleted { .. } => Advice::GiveUp,
        }
    }
}

/// What became of an append whose outcome was unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resolved {
    /// It is in the log; its first record has this LSN.
    Committed(Lsn),
    /// It is not in the log and never will be.
    NotAppended,
    /// Where it would be has been trimmed or lost, so nobody can say any more.
    Unknowable,
}
