//! How far a disk is with catching up.

use std::time::Duration;

use bifrost_loglet::read::ReadError;
use bifrost_types::{LogletId, LogletOffset};
use bifrost_wire::log_server::CallError;
use thiserror::Error;
use tokio::time::Instant;

/// What a disk is doing about what it misses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CatchUpState {
    /// It has not seen yet what it should have.
    #[default]
    Unknown,
    /// It has all that it should have, as far as anybody knows.
    Idle,
    /// It looks at its copy of a closed segment.
    Looking {
        /// The segment.
        loglet: LogletId,
    },
    /// It gets what it misses of a closed segment.
    CatchingUp {
        /// The segment.
        loglet: LogletId,
    },
    /// It goes on by itself after a pause.
    Pausing,
    /// It goes on by itself when its disk has room.
    NoRoom,
    /// It goes on when its disk is read-write again.
    OutOfService,
}

/// Why a step was in vain. It is tried again, after a pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum CatchUpError {
    /// Nobody who answers has the records.
    #[error("nobody who answers gives offset {from} of {loglet}")]
    NoSource {
        /// The segment.
        loglet: LogletId,
        /// The first offset that is wanted.
        from: LogletOffset,
    },
    /// What others gave contradicts the chain.
    #[error("{loglet} cannot be read")]
    Read {
        /// The segment.
        loglet: LogletId,
        /// Why.
        #[source]
        source: ReadError,
    },
    /// The own copy did not do what it was asked.
    #[error("the copy of {loglet} here refuses")]
    Here {
        /// The segment.
        loglet: LogletId,
        /// Why.
        #[source]
        source: CallError,
    },
    /// The own copy answers, and not with what was asked for.
    #[error("the copy of {loglet} here cannot be looked at")]
    Unreadable {
        /// The segment.
        loglet: LogletId,
    },
    /// The own copy, or everybody else, took too long.
    #[error("{loglet} takes too long")]
    DeadlinePassed {
        /// The segment.
        loglet: LogletId,
    },
}

/// How far it is. Counted since it was last without anything to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// What it does now.
    pub state: CatchUpState,
    /// Closed segments that it has not seen to be whole.
    pub segments_left: u64,
    /// Records that it has got.
    pub records_done: u64,
    /// Records that it is known to miss.
    pub records_left: u64,
    /// Bytes of the batches that it has got.
    pub bytes_done: u64,
    /// Bytes that it is known to miss: an estimate from the mean size of the records that it has seen. `None` before it has
    /// seen any.
    pub bytes_left: Option<u64>,
    /// When it last got something.
    pub last_byte_at: Option<Instant>,
    /// Why the last step was in vain that was.
    pub last_error: Option<CatchUpError>,
}

impl Progress {
    /// Bytes done and left, as far as can be told.
    pub fn bytes_to_do(&self) -> Option<u64> {
        Some(self.bytes_done.saturating_add(self.bytes_left?))
    }

    /// Records done, of those to do; 100 when there is nothing to do.
    pub fn percent(&self) -> u8 {
        let to_do = u128::from(self.records_done) + u128::from(self.records_left);
        let percent = (u128::from(self.records_done) * 100).checked_div(to_do).unwrap_or(100);
        u8::try_from(percent).unwrap_or(100)
    }

    /// How long ago it last got something.
    pub fn since_last_byte(&self) -> Option<Duration> {
        self.last_byte_at.map(|at| at.elapsed())
    }
}
