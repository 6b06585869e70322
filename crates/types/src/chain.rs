//! The chain of a log: its ordered segments and the reconfiguration in progress, one versioned metadata value per log.
//! These are nouns; the transitions are in `bifrost::chain`.

use std::fmt;

use crate::id::{LogId, NodeGeneration, OpId, SegmentIndex};
use crate::loglet::LogletParams;
use crate::position::{LogletOffset, Lsn};
use crate::topology::{Nodeset, ReplicationProperty};

/// Who asked for a reconfiguration.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Actor {
    /// A person or a tool.
    Operator,
    /// An appender that met a dead or fenced sequencer.
    Appender,
    /// The controller.
    Controller,
    /// A node that hands its sequencers over.
    Node(NodeGeneration),
}

/// Why a segment was closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CloseReason {
    /// Asked for.
    Requested,
    /// The sequencer was gone.
    SequencerGone,
    /// Servers were found sealed with nothing pending in the chain.
    OrphanedSeal,
    /// Nodeset or replication should change.
    Placement,
    /// The segment reached its limit of offsets or bytes.
    Full,
    /// The sequencer's node stops in good order.
    HandOver,
    /// The log is being deleted.
    Deleted,
}

/// How long the steps of a reconfiguration took, by the clock of the actor that decided. Information only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Timings {
    /// Until an f-majority was sealed, in microseconds.
    pub seal_micros: u64,
    /// Copying what was not on a write quorum, in microseconds.
    pub repair_micros: u64,
    /// From the announcement to the decision, in microseconds.
    pub total_micros: u64,
}

/// Life of a segment.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum SegmentState {
    /// Takes appends; always the last segment, and only that one.
    Open,
    /// Closed for ever by the one transaction that decided its tail (C1).
    Sealed {
        /// The decided tail: first offset that is not part of the segment.
        tail: LogletOffset,
        /// From here to the tail nothing was found: so many disks were declared lost that nobody could say where the
        /// segment ended, and the tail is the end of its range. `None` when the end is known.
        lost_from: Option<LogletOffset>,
        /// The reconfiguration that closed it.
        op: OpId,
        /// Who asked for it.
        actor: Actor,
        /// Why.
        reason: CloseReason,
        /// How long it took.
        timings: Timings,
    },
}

/// One link of the chain.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Segment {
    /// LSN of offset 1.
    pub base_lsn: Lsn,
    /// Its loglet; `params.id.segment` is the segment's index.
    pub params: LogletParams,
    /// Open or sealed.
    pub state: SegmentState,
}

impl Segment {
    /// The segment's index.
    pub const fn index(&self) -> SegmentIndex {
        self.params.id.segment
    }

    /// The decided tail, or `None` while open.
    pub const fn decided_tail(&self) -> Option<LogletOffset> {
        match self.state {
            SegmentState::Open => None,
            SegmentState::Sealed { tail, .. } => Some(tail),
        }
    }

    /// Where what copies may hold ends: the decided tail unless the end of the segment is lost. `None` while open.
    pub fn held_tail(&self) -> Option<LogletOffset> {
        match self.state {
            SegmentState::Open => None,
            SegmentState::Sealed { tail, lost_from, .. } => Some(lost_from.unwrap_or(tail)),
        }
    }
}

/// What the segment after the closing one should be. The loglet id is allocated by the deciding transaction (C2).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Successor {
    /// Its nodeset.
    pub nodeset: Nodeset,
    /// Its replication property.
    pub replication: ReplicationProperty,
    /// Its sequencer.
    pub sequencer: NodeGeneration,
}

/// A reconfiguration that was announced and is not decided yet (T1).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Reconfiguration {
    /// Its identity.
    pub op: OpId,
    /// The open segment that it closes.
    pub segment: SegmentIndex,
    /// Who asked.
    pub actor: Actor,
    /// Why.
    pub reason: CloseReason,
    /// What comes after, or `None` to close the log for good.
    pub successor: Option<Successor>,
    /// Grows when the successor is replaced under the same `OpId` (T1').
    pub attempt: u32,
    /// When it was announced, in milliseconds since the Unix epoch by the announcer's clock. Information only.
    pub opened_at_millis: u64,
}

/// Outcome of a reconfiguration, kept so that a lost reply can be recognised (M2, C4).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Finished {
    /// Which one.
    pub op: OpId,
    /// The segment that it closed.
    pub segment: SegmentIndex,
    /// Where it ended.
    pub tail: LogletOffset,
    /// The segment that it opened, or `None` if it closed the log for good.
    pub successor: Option<SegmentIndex>,
}

/// The whole chain. Pointer order: segments are in order of index and contiguous in LSN; all but the last are sealed;
/// every index is below `next_segment`. Segments before the first of them were closed, wholly trimmed, and have left.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Chain {
    /// The log.
    pub log: LogId,
    /// Its name, if it has one.
    pub name: Option<String>,
    /// Grows by one with each change (C3).
    pub version: u64,
    /// Ordered, never empty.
    pub segments: Vec<Segment>,
    /// The next index to allocate.
    pub next_segment: SegmentIndex,
    /// What is being done.
    pub pending: Option<Reconfiguration>,
    /// The last few outcomes, newest last.
    pub finished: Vec<Finished>,
    /// Last trimmed LSN, or `None` if nothing was trimmed. Only grows.
    pub trim_point: Option<Lsn>,
}

impl Chain {
    /// The last segment.
    pub fn last(&self) -> Option<&Segment> {
        self.segments.last()
    }

    /// The segment with this index.
    pub fn segment(&self, index: SegmentIndex) -> Option<&Segment> {
        let place = self.segments.binary_search_by_key(&index, Segment::index).ok()?;
        self.segments.get(place)
    }

    /// The segment after the one with this index.
    pub fn segment_after(&self, index: SegmentIndex) -> Option<&Segment> {
        self.segments.get(self.segments.partition_point(|segment| segment.index() <= index))
    }

    /// Whether a segment of this index was closed, and has left the chain since, wholly trimmed.
    pub fn has_left(&self, index: SegmentIndex) -> bool {
        self.segments.first().is_some_and(|first| index < first.index())
    }

    /// The segment that holds `lsn`, the open one included: `None` before the first segment or beyond a closed end.
    pub fn segment_at(&self, lsn: Lsn) -> Option<&Segment> {
        let following = self.segments.partition_point(|segment| segment.base_lsn <= lsn);
        // Empty segments share their base with their successor: the last of equal bases is the one that can hold it.
        let segment = self.segments.get(following.checked_sub(1)?)?;
        match segment.decided_tail() {
            None => Some(segment),
            Some(tail) => (LogletOffset::from_lsn(lsn, segment.base_lsn)? < tail).then_some(segment),
        }
    }

    /// What is known of an operation that is over, if it is among the last few.
    pub fn outcome(&self, op: OpId) -> Option<&Finished> {
        self.finished.iter().find(|finished| finished.op == op)
    }
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Operator => f.write_str("operator"),
            Self::Appender => f.write_str("appender"),
            Self::Controller => f.write_str("controller"),
            Self::Node(node) => write!(f, "{node}"),
        }
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Requested => "requested",
            Self::SequencerGone => "sequencer gone",
            Self::OrphanedSeal => "orphaned seal",
            Self::Placement => "placement",
            Self::Full => "segment full",
            Self::HandOver => "hand-over",
            Self::Deleted => "deleted",
        })
    }
}
