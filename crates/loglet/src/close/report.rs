//! What closing a loglet tells its caller: progress, what it waits for, how it ended.

use std::fmt;
use std::time::Duration;

use bifrost_types::{DiskId, LogletOffset, NodeId, NodeSet, OpId};
use thiserror::Error;

use crate::peers::MemberError;
use crate::quorum::QuorumError;

/// A loglet that is ready for the deciding transaction. Nothing is decided yet: two finders may hold different
/// candidates, and the transaction picks one (S4).
/// Pointer order: `committed_tail <= candidate_tail`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Closed {
    /// The proposal for the decided tail: at least every acknowledged offset + 1 (S2), and everything in
    /// `[committed_tail, candidate_tail)` is on a write quorum (S3). Equal to `decided_tail` when that is known.
    pub candidate_tail: LogletOffset,
    /// From here to the candidate nothing was found: too many disks were declared lost to know where the loglet ended, so
    /// the candidate is the end of its range.
    pub lost_from: Option<LogletOffset>,
    /// The highest committed tail that a sealed copy reported.
    pub committed_tail: LogletOffset,
    /// Where the loglet ended, if a copy was told already: another actor's transaction came first, read the chain.
    pub decided_tail: Option<LogletOffset>,
    /// The members that answered with a durable seal.
    pub sealed: NodeSet,
    /// From the beginning until an f-majority was sealed, or until a decided tail was heard of.
    pub seal_time: Duration,
    /// From then until everything was on a write quorum; zero when nothing was to be copied.
    pub repair_time: Duration,
    /// Bytes of batches that were copied.
    pub repaired_bytes: u64,
}

/// Why a loglet could not be closed. Everything else is waited for, see [`Blocked`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum CloseError {
    /// The parameters contradict each other; no retry helps.
    #[error(transparent)]
    Quorum(#[from] QuorumError),
    /// A newer operation sealed this server, so this one may not repair there any more (L3). Read the chain: join what
    /// is pending there, or close again if it still is this operation.
    #[error("{node} was sealed by a newer operation than {op}")]
    Superseded {
        /// The operation that was carried out here.
        op: OpId,
        /// The server that said so.
        node: NodeId,
    },
    /// S2 is broken: a copy knows of committed offsets that an f-majority of sealed copies never had. Acknowledged
    /// records were lost, and a person must look before anything is decided.
    #[error("offsets below {committed_tail} were committed but an f-majority of sealed copies ends at {sealed_tail}")]
    CommittedBeyondSealed {
        /// The highest committed tail that was reported.
        committed_tail: LogletOffset,
        /// The tail that the sealed copies, or the decision, allow.
        sealed_tail: LogletOffset,
    },
}

/// How far the closing of a loglet is. Published after every step that changes it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CloseProgress {
    /// The members that answered with a durable seal.
    pub sealed: NodeSet,
    /// The highest committed tail that a sealed copy reported.
    pub committed_tail: Option<LogletOffset>,
    /// The lowest tail that may be proposed; `None` until an f-majority is sealed. It may still fall.
    pub candidate_tail: Option<LogletOffset>,
    /// Offsets below the candidate that are not on a write quorum yet.
    pub records_left: u64,
    /// Bytes of batches that were copied so far.
    pub repaired_bytes: u64,
    /// When an answer last brought it further, since the beginning.
    pub moved_at: Duration,
    /// What it cannot go on without, if it is known to wait.
    pub blocked: Option<Blocked>,
}

/// What a closing waits for although everybody who can answer did. It is retried with back-off for ever.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blocked {
    /// What is wanted.
    pub wanted: Wanted,
    /// How many of the disks must come back, at least 1.
    pub at_least: usize,
    /// The disks that would help, by node id.
    pub missing: Vec<MissingDisk>,
}

/// The quorum that a closing lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// An f-majority of sealed copies (S1).
    Seals,
    /// The seal of every disk that is not declared lost: of the others there can be no f-majority any more.
    EveryoneLeft,
    /// A write quorum that holds everything below the candidate tail (S3).
    Copies {
        /// The candidate tail.
        candidate_tail: LogletOffset,
    },
}

/// A disk that is waited for, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MissingDisk {
    /// Its node.
    pub node: NodeId,
    /// The disk that the nodeset names.
    pub disk: DiskId,
    /// What it did at the last attempt.
    pub why: Why,
}

/// What a missing disk did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// It was asked and has not answered yet.
    NoAnswer,
    /// The last call ended like this.
    Failed(MemberError),
    /// It would take a copy, but nobody who answers can give the records at this offset.
    NoSource {
        /// The first offset that cannot be had.
        offset: LogletOffset,
    },
}

impl fmt::Display for Blocked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.wanted {
            Wanted::Seals => f.write_str("sealing waits")?,
            Wanted::EveryoneLeft => f.write_str("sealing what is left waits")?,
            Wanted::Copies { candidate_tail } => write!(f, "repair up to {candidate_tail} waits")?,
        }
        write!(f, " for {} of:", self.at_least)?;
        for (place, missing) in self.missing.iter().enumerate() {
            let comma = if place == 0 { "" } else { "," };
            write!(f, "{comma} {} ({})", missing.node, missing.why)?;
        }
        Ok(())
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoAnswer => f.write_str("no answer yet"),
            Self::Failed(error) => fmt::Display::fmt(error, f),
            Self::NoSource { offset } => write!(f, "nobody can give it offset {offset}"),
        }
    }
}
