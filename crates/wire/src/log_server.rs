//! The service of a log server: keep one copy of many loglets, obey seals.

use std::fmt;

use bifrost_types::{DiskId, KeyFilter, LogletId, LogletOffset, NodeGeneration, OpId};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use thiserror::Error;
use tokio::sync::mpsc;

use crate::account::Ahead;
use crate::error::RpcError;

/// Store these batches of a loglet, in order, without a hole between them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreRequest {
    /// Which loglet.
    pub loglet: LogletId,
    /// The disk that the nodeset names (W2).
    pub disk: DiskId,
    /// Who numbers the loglet; the first store binds it (L5).
    pub sequencer: NodeGeneration,
    /// The sequencer's committed tail when it sent this.
    pub committed_tail: LogletOffset,
    /// Offset of the first record of the first batch.
    pub first_offset: LogletOffset,
    /// Encoded [batches](crate::batch); none only to tell the committed tail.
    pub batches: Vec<Bytes>,
}

/// The answer to [`StoreRequest`]s, in the order of the requests of one loglet. Answers are cumulative: one with the
/// state after a group commit answers every earlier request of that loglet on the stream. A request without batches
/// is answered only when it is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreReply {
    /// Which loglet.
    pub loglet: LogletId,
    /// The copy's tails once everything in the request is durable (L2), or why nothing of it was stored. `None` if this
    /// answers no request and only says that somebody began to follow.
    pub outcome: Option<Result<CopyState, CopyError>>,
    /// Whether somebody followed this copy when this was said: then news of the committed tail is wanted at once. Decides
    /// when it is sent and nothing else.
    pub followed: bool,
}

/// What one copy knows about itself, all of it durable except `committed_tail`.
/// Pointer order: offsets in `[committed_tail, local_tail)` are all here; holes lie below `committed_tail` only (L1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CopyState {
    /// First offset that is not durable here.
    pub local_tail: LogletOffset,
    /// First offset that this copy does not know to be on a write quorum.
    pub committed_tail: LogletOffset,
    /// The seal, and by which operation.
    pub sealed: Option<OpId>,
    /// The decided tail, once it was told.
    pub decided_tail: Option<LogletOffset>,
    /// Last trimmed offset.
    pub trim_point: Option<LogletOffset>,
}

/// Why a copy did nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Error)]
pub enum CopyError {
    /// The request named another disk; this one is not a member and never votes (W2).
    #[error("this server's disk is {actual}")]
    WrongDisk {
        /// The disk that is here.
        actual: DiskId,
    },
    /// The loglet takes no more stores from its sequencer (L3).
    #[error("the loglet was sealed by {op}")]
    Sealed {
        /// The operation that sealed it.
        op: OpId,
    },
    /// A repair came without a seal of its operation before it (L3).
    #[error("the loglet is not sealed by the operation that repairs it")]
    NotSealed,
    /// Another sequencer is bound to the loglet (L5).
    #[error("the loglet is bound to sequencer {bound}")]
    OtherSequencer {
        /// Who is bound.
        bound: NodeGeneration,
    },
    /// The store would leave a hole above the committed tail (L1); start again at `expected`.
    #[error("the store would leave a hole before it, expected {expected}")]
    Hole {
        /// The highest first offset that is taken.
        expected: LogletOffset,
    },
    /// Other bytes are stored there (L4). Never overwritten.
    #[error("other bytes are stored at {offset}")]
    Conflict {
        /// The first offset in question.
        offset: LogletOffset,
    },
    /// The bytes are no batch, or a record's checksum does not match.
    #[error("the bytes at {offset} are not a valid batch")]
    BadBatch {
        /// Where it should have gone.
        offset: LogletOffset,
    },
    /// The positions run out, or lie above the decided tail.
    #[error("the positions are out of range")]
    OutOfRange,
    /// No room on the disk; nothing was stored.
    #[error("the disk is full")]
    DiskFull,
    /// Too much waits in front of the disk; nothing was stored.
    #[error("the server is overloaded")]
    Overloaded,
    /// The server stops, or its disk failed; whether anything was stored is unknown.
    #[error("the server is stopping")]
    Stopping,
    /// The server keeps as many loglets as it may, and does not know this one; nothing was stored.
    #[error("the server keeps as many loglets as it may")]
    TooManyLoglets,
}

/// What a call to one copy can end with besides its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum CallError {
    /// The connection failed; the outcome may be unknown.
    #[error(transparent)]
    Rpc(#[from] RpcError),
    /// The server answered, and did nothing.
    #[error(transparent)]
    Copy(#[from] CopyError),
}

/// Promise to take no more appends for a loglet (L3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SealRequest {
    /// Which loglet; one that this server never saw is sealed empty.
    pub loglet: LogletId,
    /// The disk that the nodeset names.
    pub disk: DiskId,
    /// The operation. A loglet that is sealed stays so; the newest operation is the one that may repair.
    pub op: OpId,
}

/// Ask a copy about itself; changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StateRequest {
    /// Which loglet.
    pub loglet: LogletId,
    /// The disk that the nodeset names.
    pub disk: DiskId,
}

/// Store copies below the candidate tail of a sealed loglet (S3). Idempotent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepairRequest {
    /// Which loglet.
    pub loglet: LogletId,
    /// The disk that the nodeset names.
    pub disk: DiskId,
    /// The operation that sealed it here.
    pub op: OpId,
    /// The highest committed tail that any sealed copy reported: it came from the sequencer. Never the candidate (S4).
    pub committed_tail: LogletOffset,
    /// Offset of the first record of the first batch.
    pub first_offset: LogletOffset,
    /// Encoded batches, contiguous.
    pub batches: Vec<Bytes>,
}

/// Tell a copy where its loglet ended (S5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SettleRequest {
    /// Which loglet.
    pub loglet: LogletId,
    /// The disk that the nodeset names.
    pub disk: DiskId,
    /// The operation that decided.
    pub op: OpId,
    /// The decided tail: copies at and above it are dropped.
    pub decided_tail: LogletOffset,
}

/// Drop records up to and including a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrimRequest {
    /// Which loglet.
    pub loglet: LogletId,
    /// The disk that the nodeset names.
    pub disk: DiskId,
    /// Last offset to drop; must lie below the committed or decided tail.
    pub trim_point: LogletOffset,
}

/// Send records of `[from, until)`, as far as they may be read, then go on as more may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadRequest {
    /// Which loglet.
    pub loglet: LogletId,
    /// The disk that the nodeset names.
    pub disk: DiskId,
    /// First wanted offset.
    pub from: LogletOffset,
    /// First offset that is not wanted any more, or `None` to follow.
    pub until: Option<LogletOffset>,
    /// Which records.
    pub filter: KeyFilter,
    /// Bytes that may be sent before the first grant.
    pub credit_bytes: u64,
    /// What the reader itself knows about how far it may read. The server sends up to this or to what it knows
    /// itself, whichever is higher; what it should have below and has not, it reports as missing.
    pub readable_tail: LogletOffset,
}

/// More credit, or news of the tail, for a read in progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadGrant {
    /// Bytes added to the credit.
    pub credit_bytes: u64,
    /// See [`ReadRequest::readable_tail`]; only grows.
    pub readable_tail: LogletOffset,
}

/// A part of the answer to a read. Parts are in order and without a gap between them: each starts where the last ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReadReply {
    /// `[first_offset, end)` is covered by this encoded batch. It may lack records that the filter excludes, and may
    /// reach below the wanted offset: batches are never cut by offset.
    Batch {
        /// Offset of the batch's record 0.
        first_offset: LogletOffset,
        /// Where the next part starts.
        end: LogletOffset,
        /// The encoded batch.
        batch: Bytes,
    },
    /// Nothing in `[from, end)` passes the filter.
    Filtered {
        /// Where it starts.
        from: LogletOffset,
        /// Where the next part starts.
        end: LogletOffset,
    },
    /// `[from, end)` was trimmed.
    Trimmed {
        /// Where it starts.
        from: LogletOffset,
        /// Where the next part starts.
        end: LogletOffset,
    },
    /// This copy has nothing of `[from, end)`, or what it has is damaged; another copy has it.
    Missing {
        /// Where it starts.
        from: LogletOffset,
        /// Where the next part starts.
        end: LogletOffset,
        /// Whether bytes were there and failed their checksum.
        corrupt: bool,
    },
    /// News of how far may be read; sent at once, and when it moves while there is nothing to send.
    Tail(CopyState),
}

/// An ordered stream of stores to one server, of any number of loglets. Bounded in both directions; either half being
/// dropped closes it. A closed reply half says that the connection is gone: what was sent and not answered is unknown.
#[derive(Debug)]
pub struct StoreStream {
    /// Where to send.
    pub requests: mpsc::Sender<StoreRequest>,
    /// Where answers arrive.
    pub replies: mpsc::Receiver<StoreReply>,
}

/// A read in progress. Dropping it cancels it at the server.
#[derive(Debug)]
pub struct ReadStream {
    /// Where credit is given.
    pub grants: mpsc::Sender<ReadGrant>,
    /// The parts of the answer; ends after `until` was reached, or with an error.
    pub replies: mpsc::Receiver<Result<ReadReply, CallError>>,
}

/// One log server, in this process or behind a network.
///
/// # Cancel safety
/// Dropping any returned future leaves the call either done or not done; each call may be repeated.
pub trait LogServer: Send + Sync + fmt::Debug {
    /// Opens the ordered store stream of one sequencer node.
    fn open_store(&self) -> BoxFuture<'_, Result<StoreStream, RpcError>>;

    /// Seals; the answer comes after the seal is durable (L3). Repeating it is success.
    fn seal(&self, request: SealRequest) -> BoxFuture<'_, Result<CopyState, CallError>>;

    /// Reports the copy's state as of after the call began.
    fn state(&self, request: StateRequest) -> BoxFuture<'_, Result<CopyState, CallError>>;

    /// Stores copies of a sealed loglet; the answer comes after they are durable.
    fn repair(&self, request: RepairRequest) -> BoxFuture<'_, Result<CopyState, CallError>>;

    /// Tells the decided tail; durable when answered.
    fn settle(&self, request: SettleRequest) -> BoxFuture<'_, Result<CopyState, CallError>>;

    /// Trims; the answer holds the trim point that now holds.
    fn trim(&self, request: TrimRequest) -> BoxFuture<'_, Result<CopyState, CallError>>;

    /// Starts a read.
    fn read(&self, request: ReadRequest) -> BoxFuture<'_, Result<ReadStream, CallError>>;

    /// Starts a read for a peer that may take nothing: batches are counted with `ahead` from when they were read until
    /// the caller took them from the stream, and while it has no room nothing is read.
    fn read_ahead(&self, request: ReadRequest, ahead: Ahead) -> BoxFuture<'_, Result<ReadStream, CallError>> {
        // A service that only passes reads on holds nothing for long.
        drop(ahead);
        self.read(request)
    }
}
