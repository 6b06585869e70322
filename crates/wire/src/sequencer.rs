//! The service of a sequencer: number, replicate and acknowledge the appends of one loglet.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bifrost_types::{LogletId, LogletOffset, NodeGeneration, OpId, WriterId};
use bytes::Bytes;
use futures_core::Stream;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use thiserror::Error;
use tokio::sync::mpsc;

use crate::error::RpcError;

/// Opens a stream of appends of one writer to one loglet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AppendOpen {
    /// Which loglet.
    pub loglet: LogletId,
    /// The life of the node that must be its sequencer (A6).
    pub sequencer: NodeGeneration,
    /// The appender.
    pub writer: WriterId,
    /// Grows with each stream of this writer to this loglet. Once a stream is open, nothing that an older one still
    /// carries gets an offset any more, so what it carried can be settled by reading (A7).
    pub incarnation: u64,
}

/// Append these encoded batches, in order. Each is atomic and contiguous.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppendRequest {
    /// Encoded [batches](crate::batch), at least one.
    pub batches: Vec<Bytes>,
}

/// Answers, in the order of the batches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AppendReply {
    /// The next batches of the stream are committed; `first_offsets[i]` is where the i-th of them begins.
    Committed {
        /// One offset for each batch.
        first_offsets: Vec<LogletOffset>,
        /// First offset not committed, after these.
        committed_tail: LogletOffset,
    },
    /// The stream ends. What was not answered before is settled by the loglet's decided tail, or by a new stream of
    /// the writer and the tail that it opens with.
    Closed(SequencerError),
}

/// How far a sequencer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SequencerTails {
    /// First offset not committed.
    pub committed_tail: LogletOffset,
    /// The next offset to give: every append taken so far lies below.
    pub next_offset: LogletOffset,
}

/// Ends a sequencer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndRequest {
    /// Which loglet.
    pub loglet: LogletId,
    /// The life of the node that must be its sequencer.
    pub sequencer: NodeGeneration,
    /// The operation that sealed the loglet: its writers are told.
    pub op: OpId,
}

/// Why a sequencer takes no append.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SequencerError {
    /// The loglet is sealed: a reconfiguration is under way or over.
    #[error("the loglet was sealed by {op}")]
    Sealed {
        /// The operation that sealed it.
        op: OpId,
    },
    /// This node, in this life, is not the loglet's sequencer.
    #[error("this node is not the sequencer of the loglet")]
    NotSequencer,
    /// The chain does not know the loglet, or it is not open.
    #[error("the loglet is not open")]
    NotOpen,
    /// The loglet's offsets or bytes are used up; it wants a successor.
    #[error("the loglet is full")]
    Full,
    /// A newer stream of the same writer was opened.
    #[error("a newer stream of the writer was opened")]
    Superseded,
    /// The bytes are no valid batch of this writer. The stream ends before that batch.
    #[error("the bytes are not a valid batch of this writer")]
    BadBatch,
    /// Too many streams, or too many bytes in flight on a stream that does not wait for its window.
    #[error("the sequencer is overloaded")]
    Overloaded,
    /// The node stops.
    #[error("the sequencer is stopping")]
    Stopping,
    /// So many disks of the nodeset are full that no write quorum has room. The stream ends before the first batch that
    /// got no offset; what got one is committed when there is room.
    #[error("the disks of the nodeset are full")]
    DiskFull,
}

/// What a call to a sequencer can end with besides its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SequencerCallError {
    /// The connection failed.
    #[error(transparent)]
    Rpc(#[from] RpcError),
    /// The sequencer refused.
    #[error(transparent)]
    Refused(#[from] SequencerError),
}

/// An open stream of appends. Sending waits for room in the sequencer's window. A closed reply half says that the
/// connection is gone; what was not answered is unknown until settled.
#[derive(Debug)]
pub struct AppendStream {
    /// The tails when the stream was opened.
    pub opened: SequencerTails,
    /// Where to send.
    pub requests: mpsc::Sender<AppendRequest>,
    /// Where answers arrive.
    pub replies: AppendReplies,
}

/// The answers of a stream of appends, from a queue of this process or straight from a connection. Dropping it ends the stream.
#[derive(Debug)]
pub struct AppendReplies(Source);

enum Source {
    Queue(mpsc::Receiver<AppendReply>),
    Connection(BoxStream<'static, AppendReply>),
}

impl AppendReplies {
    /// What a connection carries: no task between it and whoever takes the answers.
    pub fn of_connection(replies: impl Stream<Item = AppendReply> + Send + 'static) -> Self {
        Self(Source::Connection(replies.fuse().boxed()))
    }

    /// The next one; `None` when there are no more.
    ///
    /// # Cancel safety
    /// Safe: none is lost.
    pub async fn recv(&mut self) -> Option<AppendReply> {
        self.next().await
    }

    /// One that waits in the queue, if that is where they come from.
    pub fn try_recv(&mut self) -> Option<AppendReply> {
        match &mut self.0 {
            Source::Queue(queue) => queue.try_recv().ok(),
            Source::Connection(_) => None,
        }
    }
}

impl Stream for AppendReplies {
    type Item = AppendReply;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<AppendReply>> {
        match &mut self.get_mut().0 {
            Source::Queue(queue) => queue.poll_recv(cx),
            Source::Connection(replies) => replies.as_mut().poll_next(cx),
        }
    }
}

impl From<mpsc::Receiver<AppendReply>> for AppendReplies {
    fn from(queue: mpsc::Receiver<AppendReply>) -> Self {
        Self(Source::Queue(queue))
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Queue(_) => "Queue",
            Self::Connection(_) => "Connection",
        })
    }
}

/// All sequencers of one node, in this process or behind a network.
///
/// # Cancel safety
/// Dropping a returned future changes nothing but perhaps having opened a stream that is closed again.
pub trait Sequencers: Send + Sync + fmt::Debug {
    /// Opens a stream of appends; the sequencer starts with the first one.
    fn open_append(&self, open: AppendOpen) -> BoxFuture<'_, Result<AppendStream, SequencerCallError>>;

    /// The sequencer's tails as of after the call began. A sequencer that was fenced without knowing it still
    /// answers: whoever needs a linearizable tail asks a write quorum too (R4).
    fn tails(
        &self,
        loglet: LogletId,
        sequencer: NodeGeneration,
    ) -> BoxFuture<'_, Result<SequencerTails, SequencerCallError>>;

    /// Ends the sequencer for good, as the seal does that it has not heard of, and answers with the tails that it ended with:
    /// its last word. Nothing at or above the committed tail was or ever will be acknowledged. Asked again, it says the same.
    fn end(&self, request: EndRequest) -> BoxFuture<'_, Result<SequencerTails, SequencerCallError>>;
}
