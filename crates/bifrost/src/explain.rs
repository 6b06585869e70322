//! What a log is doing or waits for, in one sentence, with the evidence. It works while the cluster is broken; that is
//! when it is needed.
//!
//! ```text
//!  metadata ─┐
//!  members  ─┼─► evidence (asked all at once, each with a deadline) ─► diagnose: a pure function ─► Diagnosis
//!  sequencer ┘                                                                                        │
//!                                                     one sentence, lines of evidence, next command ◄─┘
//! ```
//!
//! It changes nothing, except that an open segment's sequencer may start a little earlier than with the first append.

mod diagnosis;
mod evidence;
mod report;

use std::fmt;

use bifrost_loglet::peers::MemberError;
use bifrost_types::{
    Actor, Chain, CloseReason, DiskId, LogId, LogletOffset, Lsn, NodeGeneration, NodeId, NodeRecord, OpId, Tombstone,
};
use bifrost_wire::log_server::CopyState;
use bifrost_wire::sequencer::{SequencerCallError, SequencerTails};

use crate::catalog::CatalogError;
use crate::clock::now_millis;

pub use self::diagnosis::diagnose;
pub(crate) use self::evidence::{gather, in_time};
pub use self::report::{Line, node_label};

/// What a person called the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// By its id.
    Id(LogId),
    /// By its name.
    Name(String),
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(log) => write!(f, "{log}"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// The answer to "what is this log doing?". Prints as the sentence, the evidence and what to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// The log, as it was asked for.
    pub asked: Asked,
    /// What it is doing or waits for.
    pub diagnosis: Diagnosis,
    /// Why that is believed.
    pub evidence: Evidence,
}

impl Explanation {
    /// Draws the conclusion.
    pub fn of(asked: Asked, evidence: Evidence) -> Self {
        Self { asked, diagnosis: diagnose(&evidence), evidence }
    }

    /// What can be said when nobody could be asked: metadata was not there, or does not know the log.
    pub fn without_evidence(asked: Asked, metadata: MetadataView) -> Self {
        let evidence = Evidence {
            taken_at_millis: now_millis(),
            metadata,
            nodes: Vec::new(),
            members: Vec::new(),
            sequencer: None,
            successor: Vec::new(),
            pin: None,
        };
        Self::of(asked, evidence)
    }
}

/// What was found out, all of it within a few seconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    /// When it was gathered, in milliseconds since the Unix epoch. Only for saying how long ago something was.
    pub taken_at_millis: u64,
    /// What metadata says about the log.
    pub metadata: MetadataView,
    /// The node records as last seen; empty when metadata was never read.
    pub nodes: Vec<NodeRecord>,
    /// What the members of the last segment answered, in the order of its nodeset.
    pub members: Vec<MemberView>,
    /// What the sequencer of the last segment answered, if the segment is open.
    pub sequencer: Option<SequencerView>,
    /// Whether the members of a pending successor answer.
    pub successor: Vec<MemberView>,
    /// Where an operator wants the sequencer, if that is known.
    pub pin: Option<NodeId>,
}

/// What metadata says about a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MetadataView {
    /// There it is.
    Chain(Chain),
    /// There it is, and somebody began to delete it.
    Deleting {
        /// The chain, still there.
        chain: Chain,
        /// The intent.
        tombstone: Tombstone,
    },
    /// It was deleted, and space is still to be given back.
    Removed(Tombstone),
    /// There is none.
    NoSuchLog,
    /// Metadata gave no answer.
    NoAnswer {
        /// What happened in place of an answer.
        error: CatalogError,
        /// The addresses that were tried, with what happened there; empty if the caller does not know.
        tried: Vec<(String, String)>,
        /// The chain as this process saw it last.
        last_seen: Option<Chain>,
    },
}

impl MetadataView {
    /// The chain, however old.
    pub const fn chain(&self) -> Option<&Chain> {
        match self {
            Self::Chain(chain) | Self::Deleting { chain, .. } => Some(chain),
            Self::Removed(tombstone) => tombstone.removed.as_ref(),
            Self::NoAnswer { last_seen, .. } => last_seen.as_ref(),
            Self::NoSuchLog => None,
        }
    }
}

/// What one member answered when it was asked for its copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemberView {
    /// The node.
    pub node: NodeId,
    /// The disk that the nodeset names.
    pub disk: DiskId,
    /// Its copy, or why there is no answer.
    pub answer: Result<CopyState, MemberError>,
}

/// What a sequencer answered when it was asked for its tails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SequencerView {
    /// It runs.
    Answered(SequencerTails),
    /// Its node lives another life by now (A6).
    LaterLife {
        /// The node now.
        now: NodeGeneration,
    },
    /// The cluster does not know its node any more.
    Removed,
    /// It refused, or the call failed.
    Failed(SequencerCallError),
}

/// A quorum that is not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lack {
    /// Which one.
    pub quorum: QuorumKind,
    /// How many more nodes must answer, at least 1.
    pub at_least: usize,
    /// The nodes that would help, by id.
    pub of: Vec<NodeId>,
}

/// Kind of quorum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QuorumKind {
    /// Needed to close a segment (S1).
    FMajority,
    /// Needed to acknowledge an append (A2), and to repair before closing (S3).
    Write,
}

/// How far a reconfiguration is, by what its servers answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReconfigurationStep {
    /// In the chain (T1); no server is sealed yet.
    Announced,
    /// Some servers are sealed, fewer than an f-majority.
    Sealing {
        /// The sealed ones.
        sealed: Vec<NodeId>,
    },
    /// Sealed. `[from, until)` has to be copied to a write quorum.
    Repairing {
        /// First offset that is not known to be committed.
        from: LogletOffset,
        /// The lowest tail that may be proposed.
        until: LogletOffset,
    },
    /// Sealed and stored; only the transaction that decides (T2) is missing.
    Deciding {
        /// A tail that may be proposed.
        candidate: LogletOffset,
    },
}

/// What a log is doing or waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Diagnosis {
    /// It takes appends.
    Healthy {
        /// First LSN that is not written.
        tail: Lsn,
        /// Members that did not answer although nothing depends on them now.
        silent: Vec<NodeId>,
    },
    /// It takes appends, and nothing was appended to its last segment yet.
    Idle {
        /// First LSN that is not written.
        tail: Lsn,
        /// Members that did not answer although nothing depends on them now.
        silent: Vec<NodeId>,
    },
    /// A reconfiguration is pending.
    Reconfiguring {
        /// Which one.
        op: OpId,
        /// Who asked.
        actor: Actor,
        /// Why.
        reason: CloseReason,
        /// Whether it closes the log for good.
        for_good: bool,
        /// When it was announced, by the announcer's clock.
        opened_at_millis: u64,
        /// Grows when the successor is replaced.
        attempt: u32,
        /// How far it is.
        step: ReconfigurationStep,
        /// What it cannot go on without.
        lacks: Option<Lack>,
    },
    /// Servers are sealed by an operation that the chain does not know.
    OrphanedSeal {
        /// The operation.
        op: OpId,
        /// The sealed servers.
        sealed: Vec<NodeId>,
        /// Whether they are so many that nothing can be acknowledged any more.
        fenced: bool,
        /// What closing the segment cannot go on without.
        lacks: Option<Lack>,
    },
    /// Nobody numbers appends to the open segment.
    SequencerGone {
        /// Who should.
        sequencer: NodeGeneration,
        /// What closing the segment cannot go on without.
        lacks: Option<Lack>,
    },
    /// The sequencer is there, and cannot acknowledge anything.
    NoWriteQuorum {
        /// What it lacks.
        lacks: Lack,
    },
    /// The sequencer answers, and does not take appends now.
    SequencerBusy {
        /// Who.
        sequencer: NodeGeneration,
        /// What it said.
        error: SequencerCallError,
    },
    /// It takes no appends any more. What is in it can be read.
    ClosedForGood {
        /// First LSN that is not written.
        tail: Lsn,
        /// The operation that closed it.
        op: OpId,
        /// Who asked.
        actor: Actor,
        /// Why.
        reason: CloseReason,
    },
    /// Somebody began to delete it, and it is still there.
    BeingDeleted {
        /// The deletion.
        op: OpId,
        /// When it began, by the clock of whoever began it.
        opened_at_millis: u64,
        /// What closing the log cannot go on without.
        lacks: Option<Lack>,
    },
    /// It was deleted; servers still have space to give back.
    Deleted {
        /// The deletion.
        op: OpId,
        /// Members of its last segment that have not, or did not say so.
        owing: Vec<NodeId>,
    },
    /// There is no such log.
    NoSuchLog,
    /// Metadata gives no answer, so nothing is known for sure.
    NoMetadata,
    /// What metadata says cannot be.
    Damaged,
}
