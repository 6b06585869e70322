//! What a history is made of: calls of clients, what readers saw, and what was seen inside of the cluster.
//!
//! Events come in the order of one clock that all observers share. A call that has no end yet may take effect at any later
//! time, and so may one that ended as unknown, each at most once.

use std::fmt;

use bifrost_types::{
    Chain, DiskId, Finished, LogId, LogletId, LogletOffset, Lsn, NodeGeneration, NodeId, NodeRecord, OpId,
};

/// Microseconds on the clock of the history.
pub type Micros = u64;

/// One call of a client; never used twice in a history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(pub u64);

/// One reader; never used twice in a history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReaderId(pub u64);

/// One appender handle; never used twice in a history. It sends in the order of its invocations. Calls that have no order
/// among themselves have an appender each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AppenderId(pub u64);

/// What a record holds, in short. Each append of a history has a value of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Value(pub u64);

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "value {:x}", self.0)
    }
}

/// How an append ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AppendOutcome {
    /// It is in the log, here, for ever.
    Committed(Lsn),
    /// It is not in the log and never will be.
    NotAppended,
    /// It may be in the log, or come to be.
    Unknown,
}

/// How a reconfiguration ended for the one who asked for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReconfigureOutcome {
    /// It is done.
    Done(Finished),
    /// Another one closed the segment.
    Superseded(Finished),
    /// It failed, or nobody knows.
    Unknown,
}

/// Why a reader skips records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gap {
    /// They were trimmed.
    Trimmed,
    /// They are lost, and somebody said so.
    Lost,
}

/// What a copy promises, as it is on its disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CopyFacts {
    /// The sequencer whose stores it takes.
    pub bound: Option<NodeGeneration>,
    /// First offset that is not there.
    pub local_tail: LogletOffset,
    /// First offset not known there to be on a write quorum.
    pub committed_tail: LogletOffset,
    /// The operation that sealed it last.
    pub sealed: Option<OpId>,
    /// Where the loglet ended.
    pub decided_tail: Option<LogletOffset>,
    /// Last trimmed offset.
    pub trim_point: Option<LogletOffset>,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A client begins an append of one record. The records of an atomic batch are one call each, in their order.
    AppendInvoked {
        /// The call.
        call: CallId,
        /// By this appender.
        appender: AppenderId,
        /// To this log.
        log: LogId,
        /// Of this record.
        value: Value,
    },
    /// It learns the outcome. Once more after [`AppendOutcome::Unknown`], if somebody finds out what became of it.
    AppendEnded {
        /// The call.
        call: CallId,
        /// How it ended.
        outcome: AppendOutcome,
    },
    /// A client asks for a linearizable tail.
    TailInvoked {
        /// The call.
        call: CallId,
        /// Of this log.
        log: LogId,
    },
    /// It is answered; `None` if the call failed.
    TailEnded {
        /// The call.
        call: CallId,
        /// First LSN that is not written.
        tail: Option<Lsn>,
    },
    /// A client trims.
    TrimInvoked {
        /// The call.
        call: CallId,
        /// This log.
        log: LogId,
        /// Up to here, inclusive.
        up_to: Lsn,
    },
    /// The trim point that holds now; `None` if the call failed or its outcome is unknown.
    TrimEnded {
        /// The call.
        call: CallId,
        /// Last trimmed LSN.
        trim_point: Option<Lsn>,
    },
    /// A client reconfigures.
    ReconfigureInvoked {
        /// The call.
        call: CallId,
        /// This log.
        log: LogId,
        /// Under this operation.
        op: OpId,
    },
    /// It is told how that ended.
    ReconfigureEnded {
        /// The call.
        call: CallId,
        /// How.
        outcome: ReconfigureOutcome,
    },
    /// A reader without a filter begins.
    ReaderOpened {
        /// The reader.
        reader: ReaderId,
        /// Of this log.
        log: LogId,
        /// At this LSN.
        from: Lsn,
    },
    /// It is given a record.
    Delivered {
        /// The reader.
        reader: ReaderId,
        /// Where the record lies.
        lsn: Lsn,
        /// What it holds.
        value: Value,
    },
    /// It is told that records are missing.
    Skipped {
        /// The reader.
        reader: ReaderId,
        /// First missing LSN.
        from: Lsn,
        /// First LSN after them.
        until: Lsn,
        /// Why.
        gap: Gap,
    },
    /// It is told that it has everything that there is.
    CaughtUp {
        /// The reader.
        reader: ReaderId,
        /// First LSN that is not written, as far as it knows.
        tail: Lsn,
    },
    /// It ends, wherever it is.
    ReaderClosed {
        /// The reader.
        reader: ReaderId,
    },
    /// The metadata store took a chain. In the order of the store, and before anybody can know of it. Every one of them,
    /// or none.
    ChainWritten {
        /// The whole chain.
        chain: Chain,
    },
    /// Somebody read a chain, new or old. For histories that cannot see each write.
    ChainRead {
        /// The whole chain.
        chain: Chain,
    },
    /// The metadata store dropped a chain.
    ChainDeleted {
        /// Whose.
        log: LogId,
    },
    /// The metadata store took a node's record.
    NodeWritten {
        /// The record.
        record: NodeRecord,
    },
    /// A life of a node serves.
    NodeStarted {
        /// The life.
        node: NodeGeneration,
        /// The disk that it serves.
        disk: DiskId,
    },
    /// A life of a node is over, in whatever way.
    NodeStopped {
        /// The life.
        node: NodeGeneration,
    },
    /// A batch became durable on a disk. Of one group these come before the states of its copies.
    Stored {
        /// The node.
        node: NodeId,
        /// The disk.
        disk: DiskId,
        /// Of this loglet.
        loglet: LogletId,
        /// Offset of the first record.
        first_offset: LogletOffset,
        /// First offset after the last record.
        end: LogletOffset,
        /// What was stored, in short.
        bytes: Value,
    },
    /// The state of a copy became durable on a disk. Of one group, the last state of each loglet.
    CopyWritten {
        /// The node.
        node: NodeId,
        /// The disk.
        disk: DiskId,
        /// Of this loglet.
        loglet: LogletId,
        /// The state.
        facts: CopyFacts,
    },
    /// Nothing on this disk will ever be read again: it was wiped, or its machine never comes back.
    DiskLost {
        /// The disk.
        disk: DiskId,
    },
    /// One stored batch became unreadable.
    BatchDamaged {
        /// The disk.
        disk: DiskId,
        /// Of this loglet.
        loglet: LogletId,
        /// Offset of its first record.
        first_offset: LogletOffset,
    },
    /// From here on enough of the cluster is well, and every promise of progress is due within a bound.
    Healed,
}
