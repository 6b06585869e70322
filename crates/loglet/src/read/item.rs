//! What a reader of one loglet is told by its owner, and what it tells its caller.

use std::fmt;

use bifrost_types::{DiskId, LogletOffset, NodeId};
use bifrost_wire::batch::Batch;
use thiserror::Error;

/// How far may be read, said by the owner of the reader, who knows the chain (R1).
/// Pointer order: `trim_point < tail <= decided`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Readable {
    /// Committed tail as far as the owner knows. A lower bound of the truth, like what log servers say; only grows.
    pub tail: LogletOffset,
    /// The decided tail, once the chain has it. From then on it alone says how far may be read.
    pub decided: Option<LogletOffset>,
    /// Last trimmed offset, inclusive. Only grows.
    pub trim_point: Option<LogletOffset>,
}

impl Readable {
    /// Nothing is known yet of an open loglet.
    pub const UNKNOWN: Self = Self { tail: LogletOffset::FIRST, decided: None, trim_point: None };
}

/// Why there are no records in a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GapKind {
    /// They were trimmed.
    Trimmed,
    /// Every disk of the nodeset either denies them or was declared lost (R3).
    Lost,
}

/// What a reader yields. Items that name a range are in order, without gap or repeat: each `from` is the last `end`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// A batch whose records were all verified against their checksums (R2).
    Batch {
        /// Offset of the batch's record 0. May lie below `from`.
        first_offset: LogletOffset,
        /// First offset that this item stands for; records of the batch below it are not part of the answer.
        from: LogletOffset,
        /// First offset that this item does not stand for. May lie below the end of the batch: the rest lies beyond
        /// `until` or the decided tail, and is not part of the answer (R1).
        end: LogletOffset,
        /// The batch, uncut. It lacks the records that the filter excludes.
        batch: Batch,
    },
    /// No record of `[from, end)` passes the filter.
    Filtered {
        /// First offset.
        from: LogletOffset,
        /// First offset beyond.
        end: LogletOffset,
    },
    /// The records of `[from, end)` cannot be delivered.
    Gap {
        /// First offset.
        from: LogletOffset,
        /// First offset beyond.
        end: LogletOffset,
        /// Why.
        kind: GapKind,
    },
    /// Everything below `tail` was yielded, a copy or the owner confirmed that tail, and nobody told of more. Said at
    /// the first such moment and after each burst of records; only of an undecided loglet.
    CaughtUp {
        /// The highest tail that is known.
        tail: LogletOffset,
    },
}

/// Why a reader ends early. Copies that fail are no errors: the reader goes on to the next, and retries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ReadError {
    /// The owner named two decided tails; the first was `first`. One of them breaks C1.
    #[error("the decided tail was {first} and is now said to be {second}")]
    DecidedTwice {
        /// What was said first.
        first: LogletOffset,
        /// What was said then.
        second: LogletOffset,
    },
    /// A log server gave out, as committed, records that the decision dropped. Breaks promise 2.
    #[error("read up to {end}, beyond the decided tail {decided}")]
    BeyondDecided {
        /// End of what was yielded.
        end: LogletOffset,
        /// The decided tail.
        decided: LogletOffset,
    },
}

/// What to do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ReadAdvice {
    /// An invariant is broken: stop, keep the evidence, call an engineer. A retry would hide it.
    GiveUp,
}

impl ReadError {
    /// What to do next. A read never writes, so nothing can be half-done.
    pub const fn advice(&self) -> ReadAdvice {
        match self {
            Self::DecidedTwice { .. } | Self::BeyondDecided { .. } => ReadAdvice::GiveUp,
        }
    }
}

/// A disk that neither has answered for a range nor was declared lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MissingDisk {
    /// Its node, by the nodeset.
    pub node: NodeId,
    /// The disk, by the nodeset (W2).
    pub disk: DiskId,
}

/// A range that no copy which can be reached has. Retried with back-off until one has it, or the missing disks are
/// declared lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blocked {
    /// First wanted offset.
    pub from: LogletOffset,
    /// First offset beyond the range; equal to `from` when nothing is known to be readable and no copy can be reached.
    pub end: LogletOffset,
    /// The disks that are waited for, by node id.
    pub missing: Vec<MissingDisk>,
    /// The nodes whose disks deny the start of the range, by node id.
    pub denied: Vec<NodeId>,
}

/// Whether a reader gets on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ReadProgress {
    /// Records come, or there are none to read.
    #[default]
    Flowing,
    /// Nothing can be delivered now. Stays until something is.
    Blocked(Blocked),
}

impl fmt::Display for Blocked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}, {}) is on no copy that can be reached; waiting for", self.from, self.end)?;
        for (place, MissingDisk { node, disk }) in self.missing.iter().enumerate() {
            let comma = if place == 0 { "" } else { "," };
            write!(f, "{comma} {node} (disk {disk})")?;
        }
        if self.missing.is_empty() { f.write_str(" a retry") } else { Ok(()) }
    }
}
