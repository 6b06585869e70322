//! Read streams: parts of one copy, in order, as far as may be read and as fast as the reader gives credit.
//!
//! [`Cursor`] decides what comes next and turns what the store found into parts; [`ReadTask`] moves them. A reader is
//! woken by the published state and by its own grants, never by a clock.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use bifrost_types::plant::{self, Plant};
use bifrost_types::{KeyFilter, LogletId, LogletOffset};
use bifrost_wire::RpcError;
use bifrost_wire::account::Ahead;
use bifrost_wire::batch::{Batch, Filtered};
use bifrost_wire::log_server::{CallError, CopyError, CopyState, ReadGrant, ReadReply, ReadRequest};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::sync::{Semaphore, SemaphorePermit, mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;
use crate::published::Shown;
use crate::store::{Chunk, LogStore, PlacedBatch, StoreError, Stored};

/// Bytes read from the store at once.
const CHUNK_BYTES: u64 = 1 << 20;

/// The reading half of a store, without its type.
pub(crate) trait ReadStore: Send + Sync {
    fn read(
        &self,
        loglet: LogletId,
        from: LogletOffset,
        until: LogletOffset,
        max_bytes: usize,
    ) -> BoxFuture<'_, Result<Chunk, StoreError>>;
}

impl<S: LogStore> ReadStore for S {
    fn read(
        &self,
        loglet: LogletId,
        from: LogletOffset,
        until: LogletOffset,
        max_bytes: usize,
    ) -> BoxFuture<'_, Result<Chunk, StoreError>> {
        Box::pin(LogStore::read(self, loglet, from, until, max_bytes))
    }
}

/// What a read does next.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    /// Everything was sent.
    Done,
    /// Send this and ask again.
    Send(ReadReply),
    /// Read `[from, until)` and hand over what is found.
    Read { from: LogletOffset, until: LogletOffset, max_bytes: usize },
    /// Nothing until a grant or another state.
    Wait,
}

/// Where a read stands. Parts are contiguous: `filtered_from <= at`, and everything below both was sent.
#[derive(Debug)]
struct Cursor {
    until: Option<LogletOffset>,
    filter: KeyFilter,
    /// Where the next part starts.
    at: LogletOffset,
    /// Start of a run of parts that the filter excluded, ending at `at`.
    filtered_from: Option<LogletOffset>,
    credit_bytes: u64,
    readable_tail: LogletOffset,
    /// A batch at `at` ends here; it is not readable before all of it is.
    held_until: Option<LogletOffset>,
    told: Option<CopyState>,
}

impl Cursor {
    const fn new(request: &ReadRequest) -> Self {
        Self {
            until: request.until,
            filter: request.filter,
            at: request.from,
            filtered_from: None,
            credit_bytes: request.credit_bytes,
            readable_tail: request.readable_tail,
            held_until: None,
            told: None,
        }
    }

    fn on_grant(&mut self, grant: ReadGrant) {
        self.credit_bytes = self.credit_bytes.saturating_add(grant.credit_bytes);
        self.readable_tail = self.readable_tail.max(grant.readable_tail);
    }

    /// R1: one owner of "how far may I read". Once the decided tail is known nothing else counts.
    fn readable(&self, state: &CopyState) -> LogletOffset {
        let here = if plant::is(Plant::UncommittedIsRead) { state.local_tail } else { state.committed_tail };
        state.decided_tail.unwrap_or_else(|| here.max(self.readable_tail))
    }

    fn next(&mut self, state: &CopyState) -> Next {
        if self.until.is_some_and(|until| self.at >= until) {
            return self.flush().map_or(Next::Done, Next::Send);
        }
        if self.told.is_none() {
            return self.tell(state);
        }
        if state.trim_point.is_some_and(|point| point >= self.at) {
            return Next::Send(self.flush().unwrap_or_else(|| self.trimmed(state)));
        }
        let readable = self.readable(state);
        let until = self.until.map_or(readable, |until| until.min(readable));
        let held = self.held_until.is_some_and(|held| readable < held);
        if self.at < until && !held {
            if self.credit_bytes > 0 {
                let max_bytes = self.credit_bytes.min(CHUNK_BYTES) as usize;
                return Next::Read { from: self.at, until, max_bytes };
            }
            return self.flush().map_or(Next::Wait, Next::Send);
        }
        if let Some(filtered) = self.flush() {
            return Next::Send(filtered);
        }
        if self.told.as_ref() == Some(state) { Next::Wait } else { self.tell(state) }
    }

    /// What the store found in `[self.at, ..)` below `until`, as of a moment before `state`.
    fn on_chunk(&mut self, state: &CopyState, until: LogletOffset, chunk: Chunk, out: &mut Vec<ReadReply>) {
        let readable = self.readable(state);
        for part in chunk.parts {
            if self.at >= until {
                return;
            }
            if part.end() <= self.at {
                continue;
            }
            self.skip_to(part.first_offset().min(until), state, out);
            match part {
                Stored::Batch(batch) => {
                    if batch.end > readable && state.decided_tail.is_none() {
                        self.held_until = Some(batch.end);
                        return;
                    }
                    self.on_batch(batch, readable, out);
                }
                Stored::Damaged { end, .. } => self.damaged(end.min(until), out),
            }
        }
        self.skip_to(chunk.covered_until.min(until), state, out);
    }

    fn on_batch(&mut self, placed: PlacedBatch, readable: LogletOffset, out: &mut Vec<ReadReply>) {
        let PlacedBatch { first_offset, end, .. } = placed;
        // A batch across the decided tail has records that the chain decided away: none of it is delivered (S5).
        let filtered = if end > readable { None } else { intact(first_offset, end, placed.into_bytes(), self.filter) };
        let batch = match filtered {
            None => return self.damaged(end.min(readable), out),
            Some(None) => {
                self.filtered_from.get_or_insert(self.at);
                self.at = end;
                return;
            }
            Some(Some(batch)) => batch,
        };
        out.extend(self.flush());
        self.credit_bytes = self.credit_bytes.saturating_sub(batch.len() as u64);
        self.at = end;
        self.held_until = None;
        out.push(ReadReply::Batch { first_offset, end, batch });
    }

    fn damaged(&mut self, end: LogletOffset, out: &mut Vec<ReadReply>) {
        out.extend(self.flush());
        out.push(ReadReply::Missing { from: self.at, end, corrupt: true });
        self.at = end;
    }

    /// Nothing is stored in `[self.at, end)`: trimmed, or not here.
    fn skip_to(&mut self, end: LogletOffset, state: &CopyState, out: &mut Vec<ReadReply>) {
        if self.at >= end {
            return;
        }
        out.extend(self.flush());
        if state.trim_point.is_some_and(|point| point >= self.at) {
            out.push(self.trimmed(state));
        }
        if self.at < end {
            out.push(ReadReply::Missing { from: self.at, end, corrupt: false });
            self.at = end;
        }
    }

    fn trimmed(&mut self, state: &CopyState) -> ReadReply {
        let from = self.at;
        let after = state.trim_point.and_then(|point| point.advance(1).ok()).unwrap_or(from);
        let end = self.until.map_or(after, |until| until.min(after));
        self.at = end;
        ReadReply::Trimmed { from, end }
    }

    fn flush(&mut self) -> Option<ReadReply> {
        self.filtered_from.take().map(|from| ReadReply::Filtered { from, end: self.at })
    }

    const fn tell(&mut self, state: &CopyState) -> Next {
        self.told = Some(*state);
        Next::Send(ReadReply::Tail(*state))
    }
}

/// The part of a batch that the reader wants (`Some(None)`: none of it), or `None` if it is not what was appended (R2).
fn intact(first_offset: LogletOffset, end: LogletOffset, bytes: Bytes, filter: KeyFilter) -> Option<Option<Bytes>> {
    let batch = Batch::decode(bytes).ok()?;
    let records = u64::from(batch.header().records.get());
    if !batch.is_complete() || first_offset.advance(records) != Ok(end) || batch.verify().is_err() {
        return None;
    }
    Some(match batch.filter(filter) {
        Filtered::All => Some(batch.into_bytes()),
        Filtered::Some(bytes) => Some(bytes),
        Filtered::None => None,
    })
}

/// One read in progress.
pub(crate) struct ReadTask {
    pub(crate) store: Arc<dyn ReadStore>,
    pub(crate) request: ReadRequest,
    pub(crate) states: watch::Receiver<Shown>,
    pub(crate) grants: mpsc::Receiver<ReadGrant>,
    pub(crate) replies: mpsc::Sender<Result<ReadReply, CallError>>,
    /// Counts what waits for a reader behind the network.
    pub(crate) ahead: Ahead,
    /// Bounds how many reads may be making something ready at once.
    pub(crate) turns: Arc<Semaphore>,
    pub(crate) metrics: Metrics,
    pub(crate) stop: CancellationToken,
}

/// The reader went away, or the server stops.
struct Over;

impl ReadTask {
    /// Runs until the range is sent, the reader goes away, or the server stops.
    pub(crate) async fn run(mut self) {
        let mut cursor = Cursor::new(&self.request);
        while let Ok(true) = self.step(&mut cursor).await {}
    }

    /// Whether there is more to do.
    async fn step(&mut self, cursor: &mut Cursor) -> Result<bool, Over> {
        while let Ok(grant) = self.grants.try_recv() {
            cursor.on_grant(grant);
        }
        let state = self.states.borrow_and_update().state;
        match cursor.next(&state) {
            Next::Done => return Ok(false),
            Next::Send(reply) => self.send(Ok(reply)).await?,
            Next::Read { from, until, max_bytes } => self.read(cursor, from, until, max_bytes).await?,
            Next::Wait => self.wait(cursor).await?,
        }
        Ok(true)
    }

    async fn read(
        &self,
        cursor: &mut Cursor,
        from: LogletOffset,
        until: LogletOffset,
        max_bytes: usize,
    ) -> Result<(), Over> {
        let loglet = self.request.loglet;
        let turn = self.turn().await?;
        let chunk = match self.store.read(loglet, from, until, max_bytes).await {
            Ok(chunk) => chunk,
            Err(error) => {
                tracing::error!(%loglet, %from, error = &error as &dyn std::error::Error, "a read failed");
                self.send(Err(CopyError::Stopping.into())).await?;
                return Err(Over);
            }
        };
        // After the read: a record that is gone because it was trimmed has its trim point published before.
        let state = self.states.borrow().state;
        let mut parts = Vec::new();
        cursor.on_chunk(&state, until, chunk, &mut parts);
        for part in &parts {
            if let ReadReply::Batch { batch, .. } = part {
                self.ahead.put(batch.len() as u64);
            }
        }
        drop(turn);
        for part in parts {
            self.count(&part);
            self.send(Ok(part)).await?;
        }
        Ok(())
    }

    /// Waits until something may be made ready: bytes are counted only once they are there, so few may be on their way.
    async fn turn(&self) -> Result<SemaphorePermit<'_>, Over> {
        let turn = async {
            loop {
                self.ahead.room().await;
                let turn = self.turns.acquire().await.map_err(|_| Over)?;
                if self.ahead.has_room() {
                    return Ok(turn);
                }
            }
        };
        tokio::select! {
            biased;
            () = self.stop.cancelled() => Err(self.stopping()),
            // The reader went away while it waited.
            () = self.replies.closed() => Err(Over),
            turn = turn => turn,
        }
    }

    async fn wait(&mut self, cursor: &mut Cursor) -> Result<(), Over> {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => Err(self.stopping()),
            grant = self.grants.recv() => {
                cursor.on_grant(grant.ok_or(Over)?);
                Ok(())
            }
            changed = self.states.changed() => changed.map_err(|_| Over),
        }
    }

    async fn send(&self, reply: Result<ReadReply, CallError>) -> Result<(), Over> {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => Err(self.stopping()),
            sent = self.replies.send(reply) => sent.map_err(|_| Over),
        }
    }

    fn stopping(&self) -> Over {
        // If there is no room the closed stream says it.
        let _ = self.replies.try_send(Err(RpcError::ShuttingDown.into()));
        Over
    }

    fn count(&self, part: &ReadReply) {
        match part {
            ReadReply::Batch { batch, .. } => self.metrics.read_bytes.increment(batch.len() as u64),
            ReadReply::Missing { from, end, corrupt: true } => {
                tracing::error!(loglet = %self.request.loglet, %from, %end, "a stored batch is damaged");
                self.metrics.corrupt_batches.increment(1);
            }
            ReadReply::Missing { corrupt: false, .. }
            | ReadReply::Filtered { .. }
            | ReadReply::Trimmed { .. }
            | ReadReply::Tail(_) => {}
        }
    }
}
