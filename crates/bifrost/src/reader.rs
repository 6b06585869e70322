//! The reader of a log: one loglet reader after the other along the chain, as one stream.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bifrost_loglet::read::{
    Blocked, GapKind, Item, LogletReader, MissingDisk, ReadOptions as LogletReadOptions, ReadProgress, ReadRange,
};
use bifrost_types::{Keys, LogletOffset, Lsn, NodeId, NodeSet, Segment, SegmentIndex, Sequence, WriterId};
use bifrost_wire::metadata::Revision;
use bytes::Bytes;
use futures_core::Stream;
use futures_util::stream::{BoxStream, StreamExt, unfold};
use tokio::sync::watch;

use crate::catalog::StoredChain;
use crate::chain::ChainError;
use crate::declared_lost::words;
use crate::error::ReadError;
use crate::log_state::{LogState, is_being_deleted};
use crate::options::ReadOptions;

/// A record as it was appended, and where it is. Its checksum was verified (R2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogRecord {
    /// Its position.
    pub lsn: Lsn,
    /// Its keys.
    pub keys: Keys,
    /// The appender's bytes. They share memory with the batch that they came in: copy what is kept for long.
    pub payload: Bytes,
    /// The appender's clock, in milliseconds since the Unix epoch.
    pub created_at_millis: u64,
    /// The appender.
    pub writer: WriterId,
    /// The appender's number of the record, from 1.
    pub sequence: Sequence,
}

/// What a reader delivers. Records and gaps are in order of LSN, without repeat; what a key filter excludes is silently
/// passed over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReadEvent {
    /// A record.
    Record(LogRecord),
    /// There is nothing to deliver in `[from, end)`, for this reason.
    Gap {
        /// First LSN of the gap.
        from: Lsn,
        /// First LSN after it.
        end: Lsn,
        /// Trimmed, or lost.
        kind: GapKind,
    },
    /// Everything below `tail` was delivered, and no more is known of. Comes each time the reader reaches the end.
    CaughtUp {
        /// The tail as this reader knows it.
        tail: Lsn,
    },
}

/// A stream of [`ReadEvent`]s. Ends at `until`, at the end of a log that is closed for good, when its
/// [`Bifrost`](crate::Bifrost) is shut down, or after an error: [`ReadError::Deleted`] when the log was deleted. Reads ahead of its caller by a bounded number of bytes;
/// has no task of its own, so it works while it is polled. Dropping it cancels everything at the servers.
///
/// # Cancel safety
/// `next` is cancel safe: what has arrived is kept for the next call.
pub struct Reader {
    events: BoxStream<'static, Result<ReadEvent, ReadError>>,
    waits_for: watch::Receiver<Option<WaitsFor>>,
}

/// Records that no copy has which can be reached now. The reader goes on by itself when one of the missing disks is back,
/// or when an operator has declared all of them lost: `bifrost node set-state N3 data-loss`. Then they are a gap
/// ([`GapKind::Lost`]).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitsFor {
    /// First LSN that is waited for.
    pub from: Lsn,
    /// First LSN after the range; equal to `from` when nothing is known to be readable and no copy can be reached.
    pub end: Lsn,
    /// The disks that may have the records and do not answer.
    pub missing: Vec<MissingDisk>,
    /// The nodes whose disks answer that they have not the first of them.
    pub denied: Vec<NodeId>,
}

impl fmt::Display for WaitsFor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LSN {} is on no copy that can be reached; waiting for", self.from)?;
        for (place, MissingDisk { node, disk }) in self.missing.iter().enumerate() {
            let comma = if place == 0 { "" } else { "," };
            write!(f, "{comma} {node} (disk {disk})")?;
        }
        if self.missing.is_empty() { f.write_str(" a retry") } else { Ok(()) }
    }
}

impl Reader {
    pub(crate) fn open(state: Arc<LogState>, options: ReadOptions) -> Self {
        let stop = state.cluster.stop.clone();
        let (waits, waits_for) = watch::channel(None);
        let cursor = Cursor {
            chain: state.watch_chain(),
            number: state.reader_number(),
            state,
            at: options.from,
            options,
            segment: None,
            waits,
            ready: VecDeque::new(),
            ended: false,
        };
        let events = unfold(cursor, |mut cursor| async move { cursor.next().await.map(|event| (event, cursor)) });
        Self { events: events.take_until(stop.cancelled_owned()).boxed(), waits_for }
    }

    /// Whom the reader waits for, as of when it was polled last; `None` while it gets on or has nothing to read.
    pub fn waits_for(&self) -> watch::Receiver<Option<WaitsFor>> {
        self.waits_for.clone()
    }
}

impl Stream for Reader {
    type Item = Result<ReadEvent, ReadError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.events.poll_next_unpin(context)
    }
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").finish_non_exhaustive()
    }
}

/// The segment that is being read.
struct Current {
    index: SegmentIndex,
    base_lsn: Lsn,
    reader: LogletReader,
    progress: watch::Receiver<ReadProgress>,
    /// What operators say of its disks.
    words: BoxStream<'static, NodeSet>,
}

/// Everything below `at` was delivered or is in `ready`.
struct Cursor {
    state: Arc<LogState>,
    number: u64,
    chain: watch::Receiver<Arc<StoredChain>>,
    options: ReadOptions,
    at: Lsn,
    segment: Option<Current>,
    waits: watch::Sender<Option<WaitsFor>>,
    ready: VecDeque<Result<ReadEvent, ReadError>>,
    ended: bool,
}

/// Where the next LSN is, by the chain.
enum Place {
    Segment(Segment),
    Trimmed {
        end: Lsn,
    },
    /// Beyond what the chain has now.
    NotYet,
    /// The log is closed for good before it.
    Never,
    /// The same, because it is being deleted.
    BeingDeleted,
}

impl Cursor {
    async fn next(&mut self) -> Option<Result<ReadEvent, ReadError>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            if self.ended || self.options.until.is_some_and(|until| self.at >= until) {
                return None;
            }
            if let Err(error) = self.advance().await {
                // After what was found before it.
                self.ready.push_back(Err(error));
                self.ended = true;
            }
        }
    }

    /// Waits for one thing to happen and takes note of it.
    async fn advance(&mut self) -> Result<(), ReadError> {
        let state = self.state.clone();
        tokio::select! {
            biased;
            () = state.deleted.cancelled() => Err(ReadError::Deleted { log: state.log }),
            advanced = self.advance_while_there() => advanced,
        }
    }

    async fn advance_while_there(&mut self) -> Result<(), ReadError> {
        let Some(current) = &mut self.segment else { return self.enter().await };
        let next = tokio::select! {
            biased;
            Ok(()) = current.progress.changed() => {
                let waits_for = waits_for(&current.progress.borrow_and_update(), current.base_lsn)?;
                self.waits.send_replace(waits_for);
                return Ok(());
            }
            next = current.reader.next() => next,
            // Only of use to a reader that has nothing.
            Some(lost) = current.words.next() => {
                current.reader.declare_lost(lost);
                return Ok(());
            }
        };
        match next {
            Some(Ok(item)) => self.on_item(item)?,
            Some(Err(cause)) => return Err(ReadError::Broken { log: self.state.log, cause }),
            // The decided tail, or `until`: the chain says what follows.
            None => {
                self.segment = None;
                self.waits.send_replace(None);
            }
        }
        Ok(())
    }

    /// Finds the segment of the next LSN, and waits for the chain if it has none yet.
    async fn enter(&mut self) -> Result<(), ReadError> {
        let (place, revision) = {
            let stored = self.chain.borrow_and_update();
            (place(&stored, self.at), stored.revision)
        };
        match place {
            Place::Segment(segment) => self.open(&segment, revision)?,
            Place::Trimmed { end } => {
                let end = self.options.until.map_or(end, |until| end.min(until));
                self.gap(end, GapKind::Trimmed);
            }
            Place::BeingDeleted => return Err(ReadError::Deleted { log: self.state.log }),
            Place::Never => self.ended = true,
            Place::NotYet => {
                // The state, which this cursor holds, has the sender.
                let _never_closed = self.chain.changed().await;
            }
        }
        Ok(())
    }

    fn open(&mut self, segment: &Segment, named_at: Revision) -> Result<(), ReadError> {
        let from = LogletOffset::from_lsn(self.at, segment.base_lsn).ok_or(ChainError::Damaged)?;
        let until = self.options.until.and_then(|until| LogletOffset::from_lsn(until, segment.base_lsn));
        let range = ReadRange { from, until, filter: self.options.filter };
        let options = LogletReadOptions {
            credit_bytes: self.options.credit_bytes,
            spread: u64::from(segment.index().get()).wrapping_add(self.number),
            ..LogletReadOptions::default()
        };
        let readable = self.state.readable(segment);
        let cluster = &self.state.cluster;
        let reader = LogletReader::open(segment.params.clone(), range, options, cluster.peers(), readable.clone());
        let progress = reader.progress();
        let nodeset = segment.params.nodeset.clone();
        let words = words(cluster.directory.clone(), nodeset, named_at, readable, progress.clone());
        self.segment = Some(Current { index: segment.index(), base_lsn: segment.base_lsn, reader, progress, words });
        Ok(())
    }

    fn on_item(&mut self, item: Item) -> Result<(), ReadError> {
        let Some(Current { index, base_lsn, .. }) = self.segment else { return Ok(()) };
        let lsn = |offset: LogletOffset| offset.to_lsn(base_lsn).map_err(ChainError::from);
        match item {
            Item::Batch { first_offset, from, end, batch } => {
                let header = batch.header();
                for record in batch.records() {
                    let offset = first_offset.advance(u64::from(record.index)).map_err(ChainError::from)?;
                    if from <= offset && offset < end {
                        self.ready.push_back(Ok(ReadEvent::Record(LogRecord {
                            lsn: lsn(offset)?,
                            keys: record.keys,
                            payload: record.payload,
                            created_at_millis: record.created_at_millis,
                            writer: header.writer,
                            sequence: record.sequence,
                        })));
                    }
                }
                self.at = lsn(end)?;
                self.state.learn_committed(index, end);
            }
            Item::Filtered { end, .. } => self.at = lsn(end)?,
            Item::Gap { end, kind, .. } => self.gap(lsn(end)?, kind),
            Item::CaughtUp { tail } => {
                let tail = lsn(tail)?;
                self.state.learn_committed(index, LogletOffset::from_lsn(tail, base_lsn).ok_or(ChainError::Damaged)?);
                self.ready.push_back(Ok(ReadEvent::CaughtUp { tail }));
            }
        }
        Ok(())
    }

    fn gap(&mut self, end: Lsn, kind: GapKind) {
        if self.at < end {
            self.ready.push_back(Ok(ReadEvent::Gap { from: self.at, end, kind }));
            self.at = end;
        }
    }
}

/// What a reader of a loglet waits for, in the positions of its log.
fn waits_for(progress: &ReadProgress, base_lsn: Lsn) -> Result<Option<WaitsFor>, ReadError> {
    let ReadProgress::Blocked(Blocked { from, end, missing, denied }) = progress else { return Ok(None) };
    let lsn = |offset: LogletOffset| offset.to_lsn(base_lsn).map_err(ChainError::from);
    let (from, end) = (lsn(*from)?, lsn(*end)?);
    Ok(Some(WaitsFor { from, end, missing: missing.clone(), denied: denied.clone() }))
}

fn place(stored: &StoredChain, at: Lsn) -> Place {
    let chain = &stored.chain;
    if let Some(trim_point) = chain.trim_point
        && at <= trim_point
    {
        return trim_point.advance(1).map_or(Place::Never, |end| Place::Trimmed { end });
    }
    if let Some(segment) = chain.segment_at(at) {
        return Place::Segment(segment.clone());
    }
    match chain.last() {
        Some(last) if last.decided_tail().is_none() => Place::NotYet,
        _ if is_being_deleted(chain) => Place::BeingDeleted,
        _ => Place::Never,
    }
}
