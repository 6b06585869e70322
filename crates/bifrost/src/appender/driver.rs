//! The task of one appender: finds the open segment, settles what the last attempt left open, opens a stream, sends and
//! takes answers until the stream ends, and begins again.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use bifrost_loglet::Alarm;
use bifrost_types::limits::{LSN_RESERVE, STORE_MESSAGE_BYTES};
use bifrost_types::plant::{self, Plant};
use bifrost_types::{
    Actor, AppendId, Chain, CloseReason, LogletOffset, LogletParams, Lsn, OutOfPositions, Segment, SegmentIndex,
    Sequence,
};
use bifrost_wire::RpcError;
use bifrost_wire::sequencer::{
    AppendOpen, AppendReplies, AppendReply, AppendRequest, AppendStream, SequencerCallError, SequencerError,
};
use futures_util::future::OptionFuture;
use tokio::task::yield_now;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};

use super::look::Look;
use super::probe::Probe;
use super::queue::{Attempt, GivenUp, Resolution};
use super::{DELETED, Inbox, SHUT_DOWN, Shared, Waiter};
use crate::back_off::BackOff;
use crate::error::{AppendError, NotAppended};
use crate::log_state::{LogState, is_being_deleted, is_closed};
use crate::settle::{Found, scan, scan_closed};

/// How long an announced reconfiguration may stay undecided while nothing is acknowledged, before an appender joins it:
/// most are over by then, and so not every process that appends takes part in each.
const JOIN_AFTER: Duration = Duration::from_millis(200);

/// Why a stream ended or could not be opened, by what is to be done about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum StreamEnd {
    /// Open another one to the same sequencer.
    Reconnect,
    /// The same, but after a pause.
    Busy,
    /// The segment must be closed, for this reason, by whoever is first.
    Close(CloseReason),
    /// The chain known here may be old: read it, and if it is not, the sequencer is gone.
    Doubt,
    /// No write quorum has room; it may have, later.
    DiskFull,
    /// Nothing was acknowledged for too long.
    NoProgress,
}

/// How a round of the task ended.
enum Round {
    Again(StreamEnd),
    LogClosed,
    LogDeleted,
    LogExhausted,
    Finished,
}

/// Dropping it, also by aborting its task, tells every waiter an outcome.
pub(super) struct Driver {
    state: Arc<LogState>,
    shared: Arc<Shared>,
    give_up_after: Duration,
    /// Cancelled when the last handle is gone.
    dropped: CancellationToken,
    incarnation: u64,
    /// When the log last made progress, or there was nothing to wait for.
    progressed: Instant,
    /// Whether full disks were why there was none since.
    disk_full: bool,
    resolutions: Vec<Resolution<Waiter>>,
}

impl Driver {
    pub(super) fn new(
        state: Arc<LogState>,
        shared: Arc<Shared>,
        give_up_after: Duration,
        dropped: CancellationToken,
    ) -> Self {
        let progressed = Instant::now();
        Self {
            state,
            shared,
            give_up_after,
            dropped,
            incarnation: 0,
            progressed,
            disk_full: false,
            resolutions: Vec::new(),
        }
    }

    pub(super) async fn run(mut self) {
        let state = self.state.clone();
        tokio::select! {
            biased;
            () = state.cluster.stop.cancelled() => {}
            () = state.deleted.cancelled() => {
                self.shared.inbox.lock().queue.lost();
                self.give_up(NotAppended::Deleted);
                self.close(DELETED);
            }
            () = self.serve() => {}
        }
    }

    async fn serve(&mut self) {
        let mut back_off = BackOff::new();
        while self.wait_for_work().await {
            let before = self.progressed;
            let stored = self.state.chain();
            let last = stored.chain.last();
            let round = match last {
                Some(last) => self.round(&stored.chain, last).await,
                None => Round::Again(StreamEnd::Busy),
            };
            self.shared.inbox.lock().queue.lost();
            let end = match round {
                Round::Again(end) => end,
                Round::LogDeleted => return self.close(DELETED),
                Round::LogExhausted => {
                    self.give_up(NotAppended::Exhausted);
                    return self.close(AppendError::NotAppended { cause: NotAppended::Exhausted });
                }
                Round::LogClosed => return self.close(AppendError::Closed { log: self.shared.log }),
                Round::Finished => return,
            };
            debug!(log = %self.shared.log, writer = %self.shared.writer, ?end, "append stream ended");
            if before < self.progressed {
                self.disk_full = false;
                back_off.reset();
            }
            if let (StreamEnd::DiskFull, Some(last)) = (end, last) {
                self.disk_full = true;
                self.take_back(last).await;
            }
            if !self.prepare_next(last, end).await {
                back_off.pause().await;
            }
            if self.progressed.elapsed() >= self.give_up_after {
                self.give_up(if self.disk_full { NotAppended::DiskFull } else { NotAppended::NoProgress });
            }
        }
    }

    /// After a stream that ended for want of room: if nothing of it got an offset, nothing of it is open. Then it waits
    /// here, and can be given up as not appended.
    async fn take_back(&mut self, last: &Segment) {
        let Some(attempt) = self.shared.inbox.lock().queue.unsettled() else { return };
        if let Ok(stream) = self.open(last).await
            && stream.opened.next_offset <= attempt.from
        {
            self.shared.inbox.lock().queue.settle(&BTreeMap::new(), false, &mut self.resolutions);
            self.deliver(Some(last));
        }
    }

    /// Waits until there is something to do; `false` when there never will be.
    async fn wait_for_work(&mut self) -> bool {
        loop {
            self.shared.inbox.lock().queue.pass_barriers(&mut self.resolutions);
            self.deliver(None);
            if !self.shared.inbox.lock().queue.is_empty() {
                return true;
            }
            self.progressed = Instant::now();
            tokio::select! {
                biased;
                () = self.shared.bell.notified() => {}
                () = self.dropped.cancelled() => {
                    if self.shared.inbox.lock().queue.is_empty() {
                        return false;
                    }
                }
            }
        }
    }

    /// Does what the end of a stream to `tried` asks for; `false` when a pause should follow. The chain may have moved on
    /// since, and what was found about one segment says nothing about the next: closing whatever is last now would
    /// close a healthy one, once for each appender that is late.
    async fn prepare_next(&mut self, tried: Option<&Segment>, end: StreamEnd) -> bool {
        let Some(tried) = tried else { return false };
        let close = match end {
            StreamEnd::Reconnect => return true,
            StreamEnd::Busy | StreamEnd::NoProgress => return false,
            StreamEnd::DiskFull => return self.leave_full_disks(tried).await,
            StreamEnd::Close(reason) => reason,
            StreamEnd::Doubt => match self.state.refresh().await {
                Ok(stored) if is_closed(&stored.chain, tried.index()) => return true,
                Ok(_) => CloseReason::SequencerGone,
                Err(error) => {
                    debug!(log = %self.shared.log, %error, "chain not read");
                    return false;
                }
            },
        };
        let state = self.state.clone();
        match self.patiently(state.close_segment(tried.params.id, close, Actor::Appender)).await {
            Some(Ok(())) => true,
            Some(Err(error)) => {
                warn!(log = %self.shared.log, %error, "segment not closed");
                false
            }
            None => false,
        }
    }

    /// Moves the log to disks with room, if there are enough of them; whether it did.
    async fn leave_full_disks(&self, tried: &Segment) -> bool {
        let state = self.state.clone();
        match self.patiently(state.leave_unwritable(tried, Actor::Appender)).await {
            Some(Ok(left)) => left,
            Some(Err(error)) => {
                warn!(log = %self.shared.log, %error, "segment not moved to disks with room");
                false
            }
            None => false,
        }
    }

    /// Waits, but not longer than the log may go without progress.
    async fn patiently<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        timeout_at(self.progressed + self.give_up_after, future).await.ok()
    }

    async fn round(&mut self, chain: &Chain, last: &Segment) -> Round {
        let unsettled = self.shared.inbox.lock().queue.unsettled();
        let ended = unsettled.filter(|attempt| is_closed(chain, attempt.segment));
        let is_open = last.decided_tail().is_none();
        // The decided tail bounds what an attempt in a closed segment could leave. The next sequencer is asked meanwhile, and
        // sent nothing before that is settled.
        let opening = is_open.then(|| self.open(last));
        let settling = async {
            let Some(attempt) = ended else { return Ok(()) };
            let Some(segment) = chain.segment(attempt.segment) else {
                self.give_up(NotAppended::NoProgress);
                return Err(StreamEnd::Reconnect);
            };
            if self.settle(segment, attempt, None).await { Ok(()) } else { Err(StreamEnd::NoProgress) }
        };
        let (settled, opened) = tokio::join!(settling, OptionFuture::from(opening));
        match (settled, opened) {
            (Err(end), _) | (Ok(()), Some(Err(end))) => Round::Again(end),
            (Ok(()), Some(Ok(stream))) => self.converse(last, stream).await,
            (Ok(()), None) if is_being_deleted(chain) => Round::LogDeleted,
            (Ok(()), None) => Round::LogClosed,
        }
    }

    /// Looks up what the attempt left open; `false` if that could not be done in time.
    async fn settle(&mut self, segment: &Segment, attempt: Attempt, until: Option<LogletOffset>) -> bool {
        let began = Instant::now();
        let wanted = self.shared.inbox.lock().queue.unsettled_sequences();
        let state = self.state.clone();
        let writer = self.shared.writer;
        let looking = async {
            match (until, segment.decided_tail()) {
                (None, Some(decided)) => scan_closed(&state, segment, decided, attempt.from, writer, &wanted).await,
                (until, _) => scan(&state, segment, attempt.from, until, writer, &wanted).await,
            }
        };
        let found = match self.patiently(looking).await {
            Some(Ok(found)) => found,
            Some(Err(broken)) => {
                error!(log = %self.shared.log, error = %broken, "appends cannot be settled");
                return false;
            }
            None => return false,
        };
        let found = if plant::is(Plant::OpenAppendSentAgain) { Found::default() } else { found };
        // What was trimmed or lost before we looked cannot be told apart from what never landed.
        debug!(log = %self.shared.log, %writer, found = found.offsets.len(), took = ?began.elapsed(), "appends settled");
        self.shared.inbox.lock().queue.settle(&found.offsets, found.gaps, &mut self.resolutions);
        self.deliver(Some(segment));
        true
    }

    /// A stream to the sequencer of `last`. What is returned does not hold on to the driver.
    fn open(&mut self, last: &Segment) -> impl Future<Output = Result<AppendStream, StreamEnd>> + use<> {
        self.incarnation += 1;
        let LogletParams { id: loglet, sequencer, .. } = last.params;
        let open = AppendOpen { loglet, sequencer, writer: self.shared.writer, incarnation: self.incarnation };
        let state = self.state.clone();
        async move {
            let began = Instant::now();
            // No services, or a later life of the node: this one is gone (A6).
            let sequencers = state.cluster.directory.sequencers(sequencer).ok_or(StreamEnd::Doubt)?;
            let opened = tokio::select! {
                biased;
                // Nobody needs the answer of a sequencer whose segment somebody else closed.
                () = state.until_closed(loglet.segment) => return Err(StreamEnd::Reconnect),
                opened = timeout(state.cluster.options.call_deadline, sequencers.open_append(open)) => opened,
            };
            match opened {
                Ok(Ok(stream)) => {
                    debug!(%loglet, %sequencer, took = ?began.elapsed(), "append stream opened");
                    Ok(stream)
                }
                Ok(Err(SequencerCallError::Refused(error))) => Err(after_refusal(error)),
                Ok(Err(SequencerCallError::Rpc(RpcError::Overloaded))) => Err(StreamEnd::Busy),
                Ok(Err(SequencerCallError::Rpc(error))) => {
                    debug!(%sequencer, %error, "sequencer cannot be reached");
                    Err(StreamEnd::Doubt)
                }
                Err(_) => Err(StreamEnd::Doubt),
            }
        }
    }

    /// Sends and takes answers until the stream ends, or the chain says that the segment did: a sequencer that is silent
    /// tells nobody that it was replaced.
    async fn converse(&mut self, segment: &Segment, stream: AppendStream) -> Round {
        let AppendStream { opened, requests, mut replies } = stream;
        let unsettled = self.shared.inbox.lock().queue.unsettled();
        if let Some(attempt) = unsettled {
            // Same segment, or it would be settled: what the older stream carried lies below the next offset now.
            if !self.settle(segment, attempt, Some(opened.next_offset)).await {
                return Round::Again(StreamEnd::NoProgress);
            }
        }
        let attempt = Attempt { segment: segment.index(), incarnation: self.incarnation, from: opened.next_offset };
        if !has_room(opened.next_offset, segment.base_lsn) {
            return Round::LogExhausted;
        }
        self.shared.inbox.lock().queue.begin(attempt);
        self.state.learn_committed(segment.index(), opened.committed_tail);
        let mut chain = self.state.watch_chain();
        let mut announced = None;
        let mut look = Look::new(self.state.clone());
        let mut probe = Probe::new(self.state.clone(), segment.clone());
        let (mut joining, mut losing_patience) = (Alarm::default(), Alarm::default());
        loop {
            {
                let stored = chain.borrow_and_update();
                if is_closed(&stored.chain, segment.index()) {
                    return Round::Again(StreamEnd::Reconnect);
                }
                announced = stored.chain.pending.as_ref().and(announced.or_else(|| Some(Instant::now())));
            }
            let (has_unsent, in_flight, is_empty) = {
                let inbox = self.shared.inbox.lock();
                (inbox.queue.has_unsent(), inbox.queue.in_flight(), inbox.queue.is_empty())
            };
            let has_room = has_room(self.state.committed(segment.index()), segment.base_lsn);
            if has_unsent && !has_room && !in_flight {
                return Round::LogExhausted;
            }
            if is_empty {
                self.progressed = Instant::now();
            }
            let patience = self.progressed + self.give_up_after;
            let join = announced.map(|announced| announced.max(self.progressed) + JOIN_AFTER);
            tokio::select! {
                biased;
                reply = replies.recv() => match reply {
                    Some(AppendReply::Committed { first_offsets, committed_tail }) => {
                        if !self.on_committed(segment, &first_offsets, committed_tail) {
                            error!(loglet = %segment.params.id, "the sequencer acknowledged what it was not sent");
                            return Round::Again(StreamEnd::Reconnect);
                        }
                    }
                    Some(AppendReply::Closed(error)) => return Round::Again(after_refusal(error)),
                    None => return Round::Again(StreamEnd::Reconnect),
                },
                room = requests.reserve(), if has_unsent && has_room => match room {
                    Ok(room) => {
                        if in_flight {
                            // Whoever heard of an acknowledgement is about to append again. Those that can run do so
                            // first, and share the batch; nobody is waited for.
                            yield_now().await;
                        }
                        let committed = self.state.committed(segment.index());
                        let batches = {
                            let queue = &mut self.shared.inbox.lock().queue;
                            queue.raise_floor(committed);
                            queue.take_unsent(STORE_MESSAGE_BYTES)
                        };
                        if !batches.is_empty() {
                            room.send(AppendRequest { batches });
                        }
                    }
                    // Its answers tell why.
                    Err(_) => return Round::Again(drain(&mut replies).await),
                },
                Ok(()) = chain.changed() => {}
                () = look.at(self.progressed), if !is_empty => {}
                () = probe.unanswered(self.progressed), if !is_empty => return Round::Again(StreamEnd::Doubt),
                () = self.shared.bell.notified(), if !has_unsent => {}
                () = self.dropped.cancelled(), if is_empty => return Round::Finished,
                () = joining.at(join.unwrap_or(patience)), if join.is_some() && !is_empty => {
                    // What is pending is joined as it is; the reason stands in the chain already.
                    return Round::Again(StreamEnd::Close(CloseReason::SequencerGone));
                }
                () = losing_patience.at(patience), if !is_empty => return Round::Again(StreamEnd::NoProgress),
            }
            self.shared.inbox.lock().queue.pass_barriers(&mut self.resolutions);
            self.deliver(Some(segment));
        }
    }

    fn on_committed(&mut self, segment: &Segment, batch_offsets: &[LogletOffset], tail: LogletOffset) -> bool {
        let believed = self.shared.inbox.lock().queue.committed(batch_offsets, &mut self.resolutions);
        self.deliver(Some(segment));
        if believed {
            self.progressed = Instant::now();
            self.state.learn_committed(segment.index(), tail);
        }
        believed
    }

    /// Tells what was resolved.
    fn deliver(&mut self, segment: Option<&Segment>) {
        if self.resolutions.is_empty() {
            return;
        }
        let base_lsn = segment.map_or(Lsn::FIRST, |segment| segment.base_lsn);
        let mut resolutions = std::mem::take(&mut self.resolutions);
        for resolution in resolutions.drain(..) {
            match resolution {
                Resolution::Committed {
                    ticket: Waiter::Append { outcome, .. },
                    sequence,
                    records,
                    batch_offset,
                    index,
                } => {
                    let told = lsn_of(batch_offset, index, records, base_lsn).map_err(|_| {
                        // It is durable, and no reader has a name for it: neither appended nor not.
                        let segment = segment.map_or(SegmentIndex::FIRST, Segment::index);
                        let attempt = Attempt { segment, incarnation: self.incarnation, from: LogletOffset::FIRST };
                        self.unknown(base_lsn, sequence, records, attempt)
                    });
                    let _gone = outcome.send(told);
                }
                Resolution::InDoubt { ticket: Waiter::Append { outcome, .. }, sequence, records, attempt } => {
                    let _gone = outcome.send(Err(self.unknown(base_lsn, sequence, records, attempt)));
                }
                Resolution::Passed(Waiter::Barrier { outcome }) => {
                    let failed = self.shared.inbox.lock().failed.take();
                    let _gone = outcome.send(failed.map_or(Ok(()), Err));
                }
                // Appends are resolved and barriers pass; the queue keeps them apart.
                Resolution::Committed { ticket: Waiter::Barrier { .. }, .. }
                | Resolution::InDoubt { ticket: Waiter::Barrier { .. }, .. }
                | Resolution::Passed(Waiter::Append { .. }) => {}
            }
        }
        // Its memory serves the next ones.
        self.resolutions = resolutions;
    }

    /// The error of an append whose outcome cannot be told now; the next barrier hears of it too.
    fn unknown(&self, base_lsn: Lsn, sequence: Sequence, records: NonZeroU32, attempt: Attempt) -> AppendError {
        let error = unknown(&self.shared, base_lsn, sequence, records, attempt);
        self.shared.inbox.lock().failed.get_or_insert(error);
        error
    }

    /// Gives up everything that waits, and goes on with what comes.
    fn give_up(&mut self, cause: NotAppended) {
        let base_lsn = self.base_lsn_of_attempt();
        let mut inbox = self.shared.inbox.lock();
        let Inbox { queue, failed, .. } = &mut *inbox;
        queue.give_up(|given_up| tell_given_up(&self.shared, base_lsn, cause, given_up, failed));
        drop(inbox);
        self.progressed = Instant::now();
    }

    fn base_lsn_of_attempt(&self) -> Lsn {
        let stored = self.state.chain();
        let last = stored.chain.last().map(|last| last.base_lsn);
        let attempt = self.shared.inbox.lock().queue.attempt();
        let segment = attempt.and_then(|attempt| stored.chain.segment(attempt.segment));
        segment.map(|segment| segment.base_lsn).or(last).unwrap_or(Lsn::FIRST)
    }

    /// Takes nothing any more.
    fn close(&self, error: AppendError) {
        let mut inbox = self.shared.inbox.lock();
        inbox.closed.get_or_insert(error);
        let Inbox { queue, failed, .. } = &mut *inbox;
        queue.give_up(|given_up| match given_up {
            GivenUp::Append { ticket: Waiter::Append { outcome, .. }, .. } => {
                failed.get_or_insert(error);
                let _gone = outcome.send(Err(error));
            }
            GivenUp::Append { ticket: Waiter::Barrier { outcome }, .. }
            | GivenUp::Barrier(Waiter::Barrier { outcome }) => {
                let _gone = outcome.send(Err(failed.take().unwrap_or(error)));
            }
            GivenUp::Barrier(Waiter::Append { outcome, .. }) => {
                let _gone = outcome.send(Err(error));
            }
        });
        drop(inbox);
        self.shared.room.close();
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.shared.inbox.lock().queue.lost();
        self.give_up(NotAppended::ShutDown);
        self.close(SHUT_DOWN);
    }
}

fn tell_given_up(
    shared: &Shared,
    base_lsn: Lsn,
    cause: NotAppended,
    given_up: GivenUp<Waiter>,
    failed: &mut Option<AppendError>,
) {
    match given_up {
        GivenUp::Append { sequence, records, ticket, attempt } => {
            let attempt = attempt.filter(|_| !plant::is(Plant::UnknownToldAsNotAppended));
            let error = match attempt {
                None => AppendError::NotAppended { cause },
                Some(attempt) => unknown(shared, base_lsn, sequence, records, attempt),
            };
            failed.get_or_insert(error);
            if let Waiter::Append { outcome, .. } = ticket {
                let _gone = outcome.send(Err(error));
            }
        }
        GivenUp::Barrier(Waiter::Barrier { outcome }) => {
            let _gone = outcome.send(failed.take().map_or(Ok(()), Err));
        }
        GivenUp::Barrier(Waiter::Append { .. }) => {}
    }
}

fn unknown(shared: &Shared, base_lsn: Lsn, sequence: Sequence, records: NonZeroU32, attempt: Attempt) -> AppendError {
    let Attempt { segment, incarnation, from } = attempt;
    let from = from.to_lsn(base_lsn).unwrap_or(base_lsn);
    let (log, writer) = (shared.log, shared.writer);
    AppendError::Unknown { id: AppendId { log, writer, sequence, records, segment, from, incarnation } }
}

/// The LSN of an append's first record, number `index` of its batch, if its last one has an LSN too and there is one after
/// it for the tail.
fn lsn_of(batch_offset: LogletOffset, index: u64, records: NonZeroU32, base_lsn: Lsn) -> Result<Lsn, OutOfPositions> {
    let first = batch_offset.to_lsn(base_lsn)?.advance(index)?;
    first.advance(u64::from(records.get()))?;
    if plant::is(Plant::OffsetMappedWrongly) && base_lsn > Lsn::FIRST {
        return Ok(first.previous().unwrap_or(first));
    }
    Ok(first)
}

/// Whether records after `tail` would have LSNs, also after everything that may be in flight.
fn has_room(tail: LogletOffset, base_lsn: Lsn) -> bool {
    tail.to_lsn(base_lsn).and_then(|tail| tail.advance(LSN_RESERVE)).is_ok()
}

/// What to do after a sequencer's refusal.
const fn after_refusal(error: SequencerError) -> StreamEnd {
    match error {
        // Sealed, and by whom the chain says: help at once instead of waiting for a timer.
        SequencerError::Sealed { .. } => StreamEnd::Close(CloseReason::OrphanedSeal),
        SequencerError::Full => StreamEnd::Close(CloseReason::Full),
        SequencerError::Stopping => StreamEnd::Close(CloseReason::SequencerGone),
        SequencerError::NotSequencer | SequencerError::NotOpen => StreamEnd::Doubt,
        SequencerError::Superseded | SequencerError::BadBatch => StreamEnd::Reconnect,
        SequencerError::Overloaded => StreamEnd::Busy,
        SequencerError::DiskFull => StreamEnd::DiskFull,
    }
}

/// The reason of a stream whose request half is closed, from what is left of its answers.
async fn drain(replies: &mut AppendReplies) -> StreamEnd {
    while let Some(reply) = replies.recv().await {
        if let AppendReply::Closed(error) = reply {
            return after_refusal(error);
        }
    }
    StreamEnd::Reconnect
}
