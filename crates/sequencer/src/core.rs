//! Every decision of a sequencer, as a plain struct: no async, clock, channel or lock.
//!
//! The driver feeds [`Event`]s and runs the [`Effect`]s; what to send to a copy is pulled with
//! [`next_store`](Core::next_store) when there is room on its pipe, so a slow copy costs no memory beyond the window (A4).

#[cfg(feature = "test-util")]
mod view;

use std::collections::BTreeMap;

use bifrost_loglet::quorum::{Quorum, QuorumError};
use bifrost_types::limits::{RETAINED_BYTES, SEGMENT_BYTES_MAX, SEGMENT_OFFSETS_MAX, STORE_MESSAGE_BYTES};
use bifrost_types::plant::{self, Plant};
use bifrost_types::{LogletOffset, LogletParams, NodeIndex, WriterId};
use bifrost_wire::log_server::{CopyError, CopyState, StoreRequest};
use bifrost_wire::sequencer::{SequencerError, SequencerTails};
use bytes::Bytes;

use crate::spread::{CopyLink, Link};
use crate::window::Window;

/// One append stream of a writer, numbered by the driver; never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u64);

/// What happens to a sequencer. `P` is what an append carries until it is committed: its room in the window.
#[derive(Debug)]
pub enum Event<P> {
    /// A writer opened a stream.
    StreamOpened {
        /// The stream.
        stream: StreamId,
        /// Whose it is.
        writer: WriterId,
        /// Grows with each stream of the writer.
        incarnation: u64,
    },
    /// A stream ended; nothing of it follows.
    StreamEnded {
        /// The stream.
        stream: StreamId,
    },
    /// A verified batch of a stream.
    Append {
        /// The stream.
        stream: StreamId,
        /// How many offsets it takes, at least 1.
        records: u32,
        /// The encoded batch.
        batch: Bytes,
        /// Its room in the window.
        room: P,
    },
    /// The pipe to a copy is connected.
    CopyUp {
        /// The copy.
        index: NodeIndex,
        /// Which connection; grows.
        connection: u64,
    },
    /// That connection broke.
    CopyDown {
        /// The copy.
        index: NodeIndex,
        /// Which connection.
        connection: u64,
    },
    /// A copy answered.
    Stored {
        /// The copy.
        index: NodeIndex,
        /// On which connection.
        connection: u64,
        /// What it said.
        outcome: Result<CopyState, CopyError>,
    },
    /// A copy said whether somebody follows it.
    Followed {
        /// The copy.
        index: NodeIndex,
        /// On which connection.
        connection: u64,
        /// Whether news of the committed tail is wanted at once.
        followed: bool,
    },
    /// A stretch that a copy lacked was stored there.
    Backfilled {
        /// The copy.
        index: NodeIndex,
        /// Up to here.
        until: LogletOffset,
    },
    /// Pauses may be over, and news of the committed tail may have waited long enough.
    Tick,
    /// No append any more; what is in flight may still be committed by nobody.
    Stop {
        /// What writers are told.
        why: SequencerError,
    },
}

/// What the driver must do, in order.
#[derive(Debug, PartialEq, Eq)]
pub enum Effect {
    /// Answer the opening of a stream.
    Opened {
        /// The stream.
        stream: StreamId,
        /// The tails now.
        tails: SequencerTails,
    },
    /// A batch of the stream is committed (A3). Effects of one stream are in the order of its batches.
    Committed {
        /// The stream.
        stream: StreamId,
        /// Where the batch begins.
        first_offset: LogletOffset,
    },
    /// End a stream with this reason.
    Close {
        /// The stream.
        stream: StreamId,
        /// Why.
        error: SequencerError,
    },
    /// A copy contradicts the protocol, or what is sent to it arrives damaged: report it.
    Alarm {
        /// The copy.
        index: NodeIndex,
        /// What it said.
        error: CopyError,
    },
}

/// Whether appends are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Yes.
    Running,
    /// Never again, for this reason.
    Ended(SequencerError),
}

#[derive(Debug, Clone)]
struct Stream {
    writer: WriterId,
    incarnation: u64,
}

#[derive(Debug, Clone)]
struct Waiter<P> {
    stream: StreamId,
    /// Held until the batch is committed, then dropped: that gives the room back.
    _room: P,
}

/// The sequencer of one loglet. Pointer order: see [`Window`] and [`CopyLink`]; a copy's `stored_tail` is at most the
/// window's `next_offset`.
#[derive(Debug, Clone)]
pub struct Core<P> {
    params: LogletParams,
    quorum: Quorum,
    window: Window<Waiter<P>>,
    copies: Vec<CopyLink>,
    /// Scratch for the quorum: what each copy has, `None` if it does not count.
    stored_tails: Vec<Option<LogletOffset>>,
    /// The newest stream of each writer that has one. Bounded by the streams that are open.
    writers: BTreeMap<WriterId, StreamId>,
    streams: BTreeMap<StreamId, Stream>,
    phase: Phase,
    bytes: u64,
    limits: SegmentLimits,
}

/// When a segment counts as full, and how much of it its sequencer keeps in memory. A segment takes at least one batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentLimits {
    /// Offsets.
    pub offsets_max: u64,
    /// Bytes of encoded batches.
    pub bytes_max: u64,
    /// Bytes of committed batches that wait for copies that are behind; what is older is backfilled (A4).
    pub retained_bytes_max: usize,
}

impl Default for SegmentLimits {
    fn default() -> Self {
        Self { offsets_max: SEGMENT_OFFSETS_MAX, bytes_max: SEGMENT_BYTES_MAX, retained_bytes_max: RETAINED_BYTES }
    }
}

impl<P> Core<P> {
    /// The sequencer of a loglet that nobody appended to yet.
    ///
    /// # Errors
    /// [`QuorumError`] when the nodeset can never meet the replication property.
    pub fn new(params: LogletParams, limits: SegmentLimits) -> Result<Self, QuorumError> {
        let quorum = Quorum::new(&params.nodeset, &params.replication)?;
        let copies: Vec<_> = params.nodeset.iter().map(|(index, member)| CopyLink::new(index, member.disk)).collect();
        let stored_tails = vec![None; copies.len()];
        Ok(Self {
            params,
            quorum,
            window: Window::new(limits.retained_bytes_max),
            copies,
            stored_tails,
            writers: BTreeMap::new(),
            streams: BTreeMap::new(),
            phase: Phase::Running,
            bytes: 0,
            limits,
        })
    }

    /// How far it is.
    pub const fn tails(&self) -> SequencerTails {
        SequencerTails { committed_tail: self.window.committed_tail(), next_offset: self.window.next_offset() }
    }

    /// Whether it takes appends.
    pub const fn phase(&self) -> Phase {
        self.phase
    }

    /// The copies and where they stand.
    pub fn copies(&self) -> &[CopyLink] {
        &self.copies
    }

    /// Takes one event.
    pub fn step(&mut self, now_millis: u64, event: Event<P>, out: &mut Vec<Effect>) {
        match event {
            Event::StreamOpened { stream, writer, incarnation } => {
                self.on_stream_opened(stream, writer, incarnation, out);
            }
            Event::StreamEnded { stream } => self.forget_stream(stream),
            Event::Append { stream, records, batch, room } => self.on_append(stream, records, batch, room, out),
            Event::CopyUp { index, connection } => {
                if let Some(copy) = self.copies.get_mut(index.get()) {
                    copy.up(connection);
                }
            }
            Event::CopyDown { index, connection } => {
                if let Some(copy) = self.copies.get_mut(index.get()) {
                    copy.down(connection);
                }
            }
            Event::Stored { index, connection, outcome } => {
                self.on_stored(now_millis, index, connection, outcome, out);
            }
            Event::Followed { index, connection, followed } => {
                if let Some(copy) = self.copies.get_mut(index.get()) {
                    copy.followed(connection, followed);
                }
            }
            Event::Backfilled { index, until } => {
                if let Some(copy) = self.copies.get_mut(index.get()) {
                    copy.backfilled(until);
                }
            }
            Event::Tick => {
                for copy in &mut self.copies {
                    copy.tick(now_millis);
                }
            }
            Event::Stop { why } => self.end(why, out),
        }
    }

    /// What to send to a copy now, or `None`. Taking it counts as sent: the caller must put it on the pipe.
    ///
    /// A5: a copy that is new or was behind gets a contiguous run from the first uncommitted batch on, or earlier; what
    /// the window no longer holds lies below the committed tail and is left to backfill.
    pub fn next_store(&mut self, index: NodeIndex) -> Option<StoreRequest> {
        if !self.wants_store(index) {
            return None;
        }
        let committed_tail = self.window.committed_tail();
        let copy = self.copies.get_mut(index.get())?;
        if copy.sent_tail < self.window.front() {
            copy.skip(copy.sent_tail, self.window.front());
            copy.sent_tail = self.window.front();
        }
        let first_offset = copy.sent_tail;
        let mut batches = Vec::new();
        let (mut bytes, mut end) = (0, first_offset);
        for entry in self.window.from(first_offset) {
            if bytes > 0 && bytes + entry.batch.len() > STORE_MESSAGE_BYTES {
                break;
            }
            bytes += entry.batch.len();
            batches.push(entry.batch.clone());
            end = entry.end;
        }
        if !batches.is_empty() {
            copy.sent(end, bytes);
        }
        copy.told(committed_tail);
        Some(StoreRequest {
            loglet: self.params.id,
            disk: copy.disk,
            sequencer: self.params.sequencer,
            committed_tail,
            first_offset,
            batches,
        })
    }

    /// Whether [`next_store`](Self::next_store) has something for a copy: batches, or news of the committed tail.
    ///
    /// News travels alone only to a copy that has answered everything: under load it rides on the next batches, and the
    /// copy's own answer, which brings the driver back here, bounds how long it waits for them. And only to a copy that
    /// somebody follows, or when nothing took it along for [`NEWS_MILLIS`](crate::spread::NEWS_MILLIS): a writer with one
    /// append in flight would pay for it with each.
    pub fn wants_store(&self, index: NodeIndex) -> bool {
        let Some(copy) = self.copies.get(index.get()) else { return false };
        let takes = self.phase == Phase::Running && matches!(copy.link, Link::Up { .. }) && copy.has_room();
        let news = copy.has_answered_all() && copy.wants_news(self.window.committed_tail());
        takes && (copy.sent_tail < self.window.next_offset() || news)
    }

    /// When the next pause ends or news has waited long enough, in milliseconds of the driver's clock.
    pub fn wake_at(&self) -> Option<u64> {
        self.copies.iter().filter_map(CopyLink::wake_at).min()
    }

    fn on_stream_opened(&mut self, stream: StreamId, writer: WriterId, incarnation: u64, out: &mut Vec<Effect>) {
        if let Phase::Ended(error) = self.phase {
            out.push(Effect::Close { stream, error });
            return;
        }
        let older = self.writers.get(&writer).copied();
        if let Some(older) = older
            && self.streams.get(&older).is_some_and(|known| known.incarnation >= incarnation)
        {
            out.push(Effect::Close { stream, error: SequencerError::Superseded });
            return;
        }
        if let Some(older) = older {
            // A7: from here on nothing that the older stream still carries gets an offset, so the tails answered
            // below bound everything that it carried.
            if !plant::is(Plant::OlderStreamNotFenced) {
                self.forget_stream(older);
            }
            out.push(Effect::Close { stream: older, error: SequencerError::Superseded });
        }
        self.writers.insert(writer, stream);
        self.streams.insert(stream, Stream { writer, incarnation });
        out.push(Effect::Opened { stream, tails: self.tails() });
    }

    fn forget_stream(&mut self, stream: StreamId) {
        if let Some(known) = self.streams.remove(&stream)
            && self.writers.get(&known.writer) == Some(&stream)
        {
            self.writers.remove(&known.writer);
        }
    }

    fn on_append(&mut self, stream: StreamId, records: u32, batch: Bytes, room: P, out: &mut Vec<Effect>) {
        if !self.streams.contains_key(&stream) {
            return; // superseded or closed: it was told, and this gets no offset
        }
        if self.is_starved() {
            // No offset for what nobody has room for: an append without one is not in the log, and its writer can say
            // so. What has one is sent again until there is room, and thereby finds out when.
            self.forget_stream(stream);
            out.push(Effect::Close { stream, error: SequencerError::DiskFull });
            return;
        }
        let length = u64::try_from(batch.len()).unwrap_or(u64::MAX);
        let offsets = self.window.next_offset().get() - 1 + u64::from(records);
        // An empty segment takes any batch: what is too large for one would be for all that follow.
        let full = self.bytes > 0
            && (offsets > self.limits.offsets_max || self.bytes.saturating_add(length) > self.limits.bytes_max);
        let waiter = Waiter { stream, _room: room };
        if full || self.window.push(u64::from(records), batch, waiter).is_err() {
            // Only this stream hears of it now; the others as they append. What is in flight still commits.
            self.forget_stream(stream);
            out.push(Effect::Close { stream, error: SequencerError::Full });
            return;
        }
        self.bytes = self.bytes.saturating_add(length);
    }

    /// Whether something waits to be committed that the copies with room cannot commit.
    fn is_starved(&self) -> bool {
        if self.window.is_settled() || self.copies.iter().all(|copy| !copy.full) {
            return false;
        }
        let with_room = self.copies.iter().filter(|copy| !copy.full && copy.link != Link::Lost);
        !self.quorum.is_write_quorum(with_room.map(|copy| copy.index).collect())
    }

    fn on_stored(
        &mut self,
        now_millis: u64,
        index: NodeIndex,
        connection: u64,
        outcome: Result<CopyState, CopyError>,
        out: &mut Vec<Effect>,
    ) {
        let next_offset = self.window.next_offset();
        let Some(copy) = self.copies.get_mut(index.get()) else { return };
        if copy.link == Link::Lost {
            return;
        }
        match outcome {
            Ok(state) => {
                // Durable is durable: an answer of an older connection counts as well. Offsets above `next_offset`
                // were never given, so a copy that claims them is not believed that far.
                copy.stored(state.local_tail.min(next_offset));
                copy.doubt_refused(connection, self.window.committed_tail());
                if let Some(op) = state.sealed {
                    if plant::is(Plant::StoreRacesSeal) {
                        self.commit(now_millis, out);
                    }
                    self.end(SequencerError::Sealed { op }, out);
                    return;
                }
                self.commit(now_millis, out);
            }
            Err(_) if !copy.is_current(connection) => copy.refused(),
            Err(CopyError::Sealed { op }) => self.end(SequencerError::Sealed { op }, out),
            Err(CopyError::OtherSequencer { .. }) => {
                self.end(SequencerError::NotSequencer, out);
            }
            Err(CopyError::Overloaded | CopyError::Stopping) => copy.pause(now_millis),
            Err(CopyError::DiskFull) => {
                copy.full = true;
                copy.pause(now_millis);
            }
            // Damaged on its way, since it was verified when it came in; or the server keeps too many loglets. Worth a
            // report, and sent again.
            Err(error @ (CopyError::BadBatch { .. } | CopyError::TooManyLoglets)) => {
                copy.pause(now_millis);
                out.push(Effect::Alarm { index, error });
            }
            // It did not get what was sent before: start again where it says.
            Err(CopyError::Hole { expected }) if expected >= copy.stored_tail => {
                copy.rewind(expected.min(copy.sent_tail));
            }
            // A hole below what it answered means that it forgot something durable.
            Err(
                error @ (CopyError::Hole { .. }
                | CopyError::WrongDisk { .. }
                | CopyError::Conflict { .. }
                | CopyError::OutOfRange
                | CopyError::NotSealed),
            ) => {
                copy.link = Link::Lost;
                out.push(Effect::Alarm { index, error });
            }
        }
    }

    /// A2: the committed tail is the highest offset below which every batch is on a write quorum. A copy has no hole
    /// at or above the committed tail (L1), so its durable tail says all.
    fn commit(&mut self, now_millis: u64, out: &mut Vec<Effect>) {
        if !self.window.is_settled()
            && let Some(tail) = self.on_write_quorum()
        {
            let (before, acknowledged) = (self.window.committed_tail(), out.len());
            self.window.commit(tail, |first_offset, waiter| {
                out.push(Effect::Committed { stream: waiter.stream, first_offset });
            });
            if plant::is(Plant::CommittedOutOfOrder) {
                out[acknowledged..].reverse();
            }
            if before < self.window.committed_tail() {
                self.copies.iter_mut().for_each(|copy| copy.committed(now_millis, before));
            }
        }
        let following = self.copies.iter().filter(|copy| copy.link != Link::Lost).map(|copy| copy.stored_tail);
        let needed = following.min().unwrap_or(self.window.committed_tail());
        self.window.release(needed);
    }

    /// The highest offset below which a write quorum has everything above the holes.
    fn on_write_quorum(&mut self) -> Option<LogletOffset> {
        let twice = plant::is(Plant::AnswerCountedTwice);
        let answered_before = if twice { self.stored_tails.iter().copied().max().flatten() } else { None };
        for (slot, copy) in self.stored_tails.iter_mut().zip(&self.copies) {
            *slot = (copy.link != Link::Lost).then_some(copy.stored_tail);
        }
        if twice && let Some(slot) = self.stored_tails.iter_mut().min() {
            *slot = (*slot).max(answered_before);
        }
        let tail = self.quorum.best_committed(&self.stored_tails)?;
        if plant::is(Plant::CommittedAhead) && self.window.committed_tail() < tail {
            return self.stored_tails.iter().copied().max().flatten();
        }
        Some(tail)
    }

    /// No append any more. What is in flight is settled by whoever closes the loglet: its decided tail says.
    fn end(&mut self, error: SequencerError, out: &mut Vec<Effect>) {
        if self.phase != Phase::Running {
            return;
        }
        self.phase = Phase::Ended(error);
        for stream in std::mem::take(&mut self.streams).into_keys() {
            out.push(Effect::Close { stream, error });
        }
        self.writers.clear();
        self.window.drain().for_each(drop);
    }

    /// Asserts the pointer order of all parts. For tests.
    ///
    /// # Panics
    /// When it does not hold.
    pub fn check(&self) {
        if self.phase == Phase::Running {
            self.window.check();
        }
        for copy in &self.copies {
            assert!(copy.stored_tail <= copy.sent_tail, "a copy has what it was not sent");
            assert!(copy.sent_tail <= self.window.next_offset(), "sent what has no offset");
            assert!(copy.told_tail <= self.window.committed_tail(), "told a tail that is not committed");
        }
        assert_eq!(self.writers.len(), self.streams.len(), "each open stream is its writer's newest");
    }
}

#[cfg(test)]
mod tests;
