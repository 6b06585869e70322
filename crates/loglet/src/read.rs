//! Reading one loglet from all of its copies (R1–R3).
//!
//! ```text
//!  owner (chain, tail watching) ──Readable──▶ LogletReader ──Item──▶ caller
//!                                               │    ▲
//!                                          ReadPlan (core)
//!                                               │    ▲
//!                                    open, grant▼    │parts, news of the tail
//!                                          log servers of the nodeset
//! ```
//!
//! The reader has no task: it works while its caller waits in [`LogletReader::next`]. Servers push ahead of the caller
//! as far as the credit goes. In the healthy case one copy pushes everything, without a round trip per batch.
//!
//! Reading order: `item` (what goes in and out), `options`, `plan` (the core), `lane` and `copies` (its parts),
//! `streams` (what the driver polls).

mod copies;
mod item;
mod lane;
mod metrics;
mod options;
mod plan;
mod streams;

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use bifrost_types::{KeyFilter, LogletOffset, LogletParams, NodeSet};
use bifrost_wire::RpcError;
use bifrost_wire::batch::Batch;
use bifrost_wire::log_server::{CallError, CopyError, ReadGrant, ReadReply, ReadRequest};
use tokio::sync::watch;
use tokio::time::Instant;

pub use item::{Blocked, GapKind, Item, MissingDisk, ReadAdvice, ReadError, ReadProgress, Readable};
pub use options::ReadOptions;

use crate::alarm::Alarm;
use crate::peers::Peers;
use lane::{Part, PartKind, StreamId};
use plan::{Delivery, Effect, Event, Open, ReadPlan};
use streams::{Arrival, Streams};

/// What to read of a loglet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadRange {
    /// First wanted offset.
    pub from: LogletOffset,
    /// First offset that is not wanted, or `None` to read to the decided tail and wait for it.
    pub until: Option<LogletOffset>,
    /// Which records; evaluated at the log servers.
    pub filter: KeyFilter,
}

/// A reader of one loglet. It yields every committed record of its range once and in order, from whatever copies have
/// it, and nothing at or above the tail that holds (R1). Dropping it cancels everything at the servers.
///
/// Memory: at most the credit of its options, one batch more per stream, and the item at hand.
pub struct LogletReader {
    params: LogletParams,
    filter: KeyFilter,
    peers: Arc<dyn Peers>,
    plan: ReadPlan,
    streams: Streams,
    /// `None` once the owner is gone: then its last word holds.
    owner: Option<watch::Receiver<Readable>>,
    progress: watch::Sender<ReadProgress>,
    /// What one event brought: a batch at most, and gaps.
    ready: VecDeque<Result<Item, ReadError>>,
    effects: Vec<Effect>,
    opened: Instant,
    alarm: Alarm,
    ended: bool,
}

/// What one wait brought.
enum Happened {
    Owner(Option<Readable>),
    Stream(StreamId, Arrival),
    TimePassed,
}

impl LogletReader {
    /// Opens a reader. Nothing is sent before the first [`next`](Self::next).
    ///
    /// `owner` says how far may be read, and is the only one to say where a closed loglet ends. If it is dropped, its
    /// last word and the log servers' news go on to count.
    pub fn open(
        params: LogletParams,
        range: ReadRange,
        options: ReadOptions,
        peers: Arc<dyn Peers>,
        mut owner: watch::Receiver<Readable>,
    ) -> Self {
        metrics::describe();
        let readable = *owner.borrow_and_update();
        let mut reader = Self {
            plan: ReadPlan::new(params.clone(), range.from, range.until, options),
            params,
            filter: range.filter,
            peers,
            streams: Streams::default(),
            owner: Some(owner),
            progress: watch::Sender::new(ReadProgress::Flowing),
            ready: VecDeque::new(),
            effects: Vec::new(),
            opened: Instant::now(),
            alarm: Alarm::default(),
            ended: false,
        };
        reader.apply(Event::Readable(readable), None);
        reader
    }

    /// The next item, or `None` after the end of the range, the decided tail, or an error.
    ///
    /// # Errors
    /// [`ReadError`], once, when a promise was found broken. Copies that fail are retried without end; whoever wants
    /// to give up looks at [`progress`](Self::progress) or sets a deadline.
    ///
    /// # Cancel safety
    /// Safe. What arrived is kept for the next call.
    pub async fn next(&mut self) -> Option<Result<Item, ReadError>> {
        loop {
            if let Some(item) = self.ready.pop_front() {
                return Some(item);
            }
            if self.ended {
                return None;
            }
            match self.wait().await {
                Happened::Owner(Some(readable)) => self.apply(Event::Readable(readable), None),
                Happened::Owner(None) => self.owner = None,
                Happened::Stream(stream, Arrival::Reply(reply)) => self.on_reply(stream, reply),
                Happened::Stream(stream, Arrival::Ended(error)) => self.on_ended(stream, error),
                Happened::TimePassed => self.apply(Event::TimePassed, None),
            }
        }
    }

    /// Takes an operator's word that the disks of these members will not come back (R3): they are not asked any more, and
    /// what all the others deny is a gap. The word must have been given, and of a loglet that is decided: the sequencer of
    /// an open one may still have what it will give to the others.
    pub fn declare_lost(&mut self, lost: NodeSet) {
        self.apply(Event::DeclaredLost(lost), None);
    }

    /// Tells whether the reader gets on, and if not, on whom it waits.
    pub fn progress(&self) -> watch::Receiver<ReadProgress> {
        self.progress.subscribe()
    }

    /// Waits for one event; changes nothing but what it takes.
    async fn wait(&mut self) -> Happened {
        let Self { plan, streams, owner, opened, alarm, .. } = self;
        let wake_at = plan.wake_at(opened.elapsed()).map(|at| *opened + at);
        tokio::select! {
            biased;
            readable = owner_news(owner) => Happened::Owner(readable),
            // Before the time: a copy was silent only if it has nothing here.
            (stream, arrival) = streams.next(plan.wanted(), |stream| plan.is_watch(stream)) => {
                Happened::Stream(stream, arrival)
            }
            () = alarm.at_any(wake_at) => Happened::TimePassed,
        }
    }

    fn on_reply(&mut self, stream: StreamId, reply: ReadReply) {
        let part = |from, end, kind| Part { from, end, kind, bytes: 0 };
        let (part, batch) = match reply {
            ReadReply::Batch { first_offset, end, batch } => {
                let bytes = u64::try_from(batch.len()).unwrap_or(u64::MAX);
                // A watch gave no credit: what it gets all the same is not worth a checksum.
                let batch =
                    if self.plan.is_watch(stream) { None } else { verified(batch, first_offset, end, self.filter) };
                let kind = if batch.is_some() { PartKind::Batch } else { PartKind::Corrupt };
                (Part { from: first_offset, end, kind, bytes }, batch)
            }
            ReadReply::Filtered { from, end } => (part(from, end, PartKind::Filtered), None),
            ReadReply::Trimmed { from, end } => (part(from, end, PartKind::Trimmed), None),
            ReadReply::Missing { from, end, corrupt: false } => (part(from, end, PartKind::Missing), None),
            ReadReply::Missing { from, end, corrupt: true } => (part(from, end, PartKind::Corrupt), None),
            ReadReply::Tail(state) => {
                // Both are lower bounds of what may be read; where the loglet ends is the owner's word alone (R1).
                let tail = state.decided_tail.map_or(state.committed_tail, |decided| decided.max(state.committed_tail));
                return self.apply(Event::Tail { stream, tail }, None);
            }
        };
        self.apply(Event::Part { stream, part }, batch);
    }

    fn on_ended(&mut self, stream: StreamId, error: Option<CallError>) {
        self.streams.close(stream);
        if let Some(error) = error {
            tracing::debug!(loglet = %self.params.id, %error, "a read stream ended");
        }
        self.apply(Event::Ended { stream, passing: error.is_none_or(is_passing) }, None);
    }

    fn apply(&mut self, event: Event, mut batch: Option<(LogletOffset, Batch)>) {
        let mut effects = std::mem::take(&mut self.effects);
        self.plan.step(self.opened.elapsed(), event, &mut effects);
        for effect in effects.drain(..) {
            match effect {
                Effect::Open(open) => self.open_stream(open),
                Effect::Close(stream) => self.streams.close(stream),
                Effect::Grant { stream, credit_bytes, readable_tail } => {
                    self.streams.grant(stream, ReadGrant { credit_bytes, readable_tail });
                }
                Effect::Deliver(delivery) => self.ready.extend(item(delivery, &mut batch).map(Ok)),
                Effect::Damaged { node, from, end } => {
                    metrics::corrupt();
                    let node = self.params.nodeset.member(node).map(|member| member.node);
                    tracing::error!(loglet = %self.params.id, ?node, %from, %end, "a copy is damaged");
                }
                Effect::Lagging { node } => {
                    metrics::lagging();
                    let node = self.params.nodeset.member(node).map(|member| member.node);
                    tracing::debug!(loglet = %self.params.id, ?node, "a copy is silent, reading from another one");
                }
                Effect::Progress(progress) => {
                    if let ReadProgress::Blocked(blocked) = &progress {
                        tracing::debug!(loglet = %self.params.id, %blocked, "reading is blocked");
                    }
                    self.progress.send_replace(progress);
                }
                Effect::Fail(error) => {
                    self.ended = true;
                    self.ready.push_back(Err(error));
                }
                Effect::End => self.ended = true,
            }
        }
        self.effects = effects;
    }

    fn open_stream(&mut self, open: Open) {
        let Open { stream, node, from, until, watch, credit_bytes, readable_tail } = open;
        let Some(member) = self.params.nodeset.member(node) else { return };
        let request = ReadRequest {
            loglet: self.params.id,
            disk: member.disk,
            from,
            until,
            // A watch wants no record; whatever it gets, it must not make the server look for matches.
            filter: if watch { KeyFilter::Any } else { self.filter },
            credit_bytes,
            readable_tail,
        };
        self.streams.open(stream, Arc::clone(&self.peers), member.node, request);
    }
}

impl fmt::Debug for LogletReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogletReader")
            .field("loglet", &self.params.id)
            .field("plan", &self.plan)
            .finish_non_exhaustive()
    }
}

/// What a bounded read gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RangeRead {
    /// Contiguous from the wanted start; never [`Item::CaughtUp`].
    pub items: Vec<Item>,
    /// First offset that was not read: `until`, or less if the limit of bytes was reached. Go on from here.
    pub end: LogletOffset,
}

/// Reads `[from, until)` of which the caller knows that all of it may be read, for example the end of a closed segment
/// to settle appends (A7). Stops after the batch that reaches `bytes_max` bytes of encoded batches.
///
/// `until` should be a tail, so that no batch lies across it: a copy that knows of no higher tail keeps such a batch back.
///
/// # Errors
/// [`ReadError`], see [`LogletReader::next`]. Waits without end while a range is on no copy that can be reached: set a
/// deadline.
///
/// # Cancel safety
/// Safe. Dropping it cancels the read; what was read is gone.
pub async fn read_range(
    params: LogletParams,
    from: LogletOffset,
    until: LogletOffset,
    filter: KeyFilter,
    options: ReadOptions,
    peers: Arc<dyn Peers>,
    bytes_max: usize,
) -> Result<RangeRead, ReadError> {
    let (_owner, readable) = watch::channel(Readable { tail: until, decided: None, trim_point: None });
    let range = ReadRange { from, until: Some(until), filter };
    let mut reader = LogletReader::open(params, range, options, peers, readable);
    let mut read = RangeRead { items: Vec::new(), end: from };
    let mut bytes = 0_usize;
    while bytes < bytes_max
        && let Some(item) = reader.next().await
    {
        let item = item?;
        read.end = match &item {
            Item::Batch { end, batch, .. } => {
                bytes = bytes.saturating_add(batch.bytes().len());
                *end
            }
            Item::Filtered { end, .. } | Item::Gap { end, .. } => *end,
            Item::CaughtUp { .. } => continue,
        };
        read.items.push(item);
    }
    Ok(read)
}

/// The next word of the owner, or `None` when it is gone; for ever pending after that.
async fn owner_news(owner: &mut Option<watch::Receiver<Readable>>) -> Option<Readable> {
    match owner {
        None => std::future::pending().await,
        Some(owner) => owner.changed().await.ok().map(|()| *owner.borrow_and_update()),
    }
}

/// The batch with its first offset, if it is one, is whole up to the filter, takes the offsets that the copy says, and
/// every record is what its appender made (R2).
fn verified(
    bytes: bytes::Bytes,
    first_offset: LogletOffset,
    end: LogletOffset,
    filter: KeyFilter,
) -> Option<(LogletOffset, Batch)> {
    let batch = Batch::decode(bytes).ok()?;
    batch.verify().ok()?;
    let takes = first_offset.advance(u64::from(batch.header().records.get())).ok()?;
    let whole = batch.is_complete() || filter != KeyFilter::Any;
    (takes == end && whole).then_some((first_offset, batch))
}

fn item(delivery: Delivery, batch: &mut Option<(LogletOffset, Batch)>) -> Option<Item> {
    Some(match delivery {
        Delivery::Batch { from, end } => {
            let (first_offset, batch) = batch.take()?;
            Item::Batch { first_offset, from, end, batch }
        }
        Delivery::Filtered { from, end } => Item::Filtered { from, end },
        Delivery::Gap { from, end, kind } => Item::Gap { from, end, kind },
        Delivery::CaughtUp { tail } => Item::CaughtUp { tail },
    })
}

/// Whether asking the same copy again soon can help.
const fn is_passing(error: CallError) -> bool {
    match error {
        CallError::Rpc(error) => match error {
            RpcError::Unreachable | RpcError::DeadlinePassed | RpcError::Overloaded | RpcError::ShuttingDown => true,
            RpcError::OtherCluster { .. } | RpcError::Malformed | RpcError::NotOffered => false,
        },
        CallError::Copy(error) => match error {
            CopyError::Overloaded | CopyError::Stopping => true,
            // W2: another disk is a lost one; nothing but an operator changes that.
            CopyError::WrongDisk { .. } => false,
            CopyError::Sealed { .. }
            | CopyError::NotSealed
            | CopyError::OtherSequencer { .. }
            | CopyError::Hole { .. }
            | CopyError::Conflict { .. }
            | CopyError::BadBatch { .. }
            | CopyError::OutOfRange
            | CopyError::DiskFull
            | CopyError::TooManyLoglets => false,
        },
    }
}

#[cfg(test)]
mod tests;
