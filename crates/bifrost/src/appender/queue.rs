//! The core of an appender: what waits, what is in flight, and what a closed attempt left open (A7).
//!
//! Appends that wait share a batch. The open one is behind everything else and takes what comes; it is closed when it is
//! taken to be sent, when an append does not fit into it, and when a barrier comes behind it. A closed batch never changes,
//! it is what is sent again, and it is in the log as a whole or not at all.
//!
//! An *attempt* is one stream to one sequencer. Batches leave it acknowledged, in order, or unsettled when it ends. What
//! is unsettled is looked up by reading, up to an offset beyond which nothing of the attempt can appear: the decided tail
//! of the segment, or the next offset that the sequencer gave when a newer stream of the writer was opened. Only then is
//! the rest sent again, in order.

use std::collections::{BTreeMap, VecDeque};
use std::num::NonZeroU32;

use bifrost_types::limits::{BATCH_RECORDS_MAX, SHARED_BATCH_BYTES};
use bifrost_types::{LogletOffset, Record, SegmentIndex, Sequence, WriterId};
use bifrost_wire::batch::{BatchBuilder, EncodeError};
use bytes::Bytes;

/// One append. `T` is whom to tell.
#[derive(Debug)]
struct Append<T> {
    sequence: Sequence,
    records: NonZeroU32,
    ticket: T,
}

/// The batch that takes appends. It was never sent.
#[derive(Debug)]
struct OpenBatch<T> {
    /// Of the first record.
    sequence: Sequence,
    builder: BatchBuilder,
    appends: Vec<Append<T>>,
}

impl<T> OpenBatch<T> {
    /// Whether an append comes into it, or begins the next one.
    fn takes(&self, records: &[Record]) -> bool {
        let count = u32::try_from(records.len()).unwrap_or(u32::MAX);
        self.builder.records().saturating_add(count) <= BATCH_RECORDS_MAX
            && self.builder.bytes_with(records) <= SHARED_BATCH_BYTES
    }

    fn close(self) -> Batch<T> {
        let Self { sequence, builder, appends } = self;
        Batch { sequence, records: builder.records(), bytes: builder.finish(), appends }
    }
}

/// A batch that takes nothing any more.
#[derive(Debug)]
struct Batch<T> {
    /// Of the first record; names the batch among those of its writer.
    sequence: Sequence,
    /// Of all appends together.
    records: u32,
    bytes: Bytes,
    /// At least one, in order, without a hole between their sequence numbers.
    appends: Vec<Append<T>>,
}

impl<T> Batch<T> {
    fn committed(self, batch_offset: LogletOffset, out: &mut Vec<Resolution<T>>) {
        let first = self.sequence.get();
        out.extend(self.appends.into_iter().map(|Append { sequence, records, ticket }| {
            let index = sequence.get() - first;
            Resolution::Committed { ticket, sequence, records, batch_offset, index }
        }));
    }

    fn in_doubt(self, attempt: Attempt, out: &mut Vec<Resolution<T>>) {
        out.extend(self.appends.into_iter().map(|Append { sequence, records, ticket }| Resolution::InDoubt {
            ticket,
            sequence,
            records,
            attempt,
        }));
    }
}

/// A closed batch, or a barrier between two.
#[derive(Debug)]
enum Entry<T> {
    Batch(Batch<T>),
    Barrier(T),
}

impl<T> Entry<T> {
    const fn batch(&self) -> Option<&Batch<T>> {
        match self {
            Self::Batch(batch) => Some(batch),
            Self::Barrier(_) => None,
        }
    }
}

/// Where the appends at the front of the queue may lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Attempt {
    /// The segment whose sequencer has, or had, the stream.
    pub(crate) segment: SegmentIndex,
    /// Which stream of the writer.
    pub(crate) incarnation: u64,
    /// No append of this attempt that is not acknowledged lies below.
    pub(crate) from: LogletOffset,
}

/// What the queue is told that it should do with what it holds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Resolution<T> {
    /// An append is in the segment of the attempt: its first record is number `index` of the batch at `batch_offset`.
    Committed { ticket: T, sequence: Sequence, records: NonZeroU32, batch_offset: LogletOffset, index: u64 },
    /// An append was sent in this attempt, and nobody can say any more whether it landed.
    InDoubt { ticket: T, sequence: Sequence, records: NonZeroU32, attempt: Attempt },
    /// Everything before the barrier is resolved.
    Passed(T),
}

/// An append that the queue did not take. Nothing was changed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NotTaken<T> {
    pub(crate) error: EncodeError,
    pub(crate) ticket: T,
}

/// Pointer order: the first `sent` entries were sent in the attempt at hand; the others were not sent since they were
/// known not to be in the log. The open batch comes after all entries.
#[derive(Debug)]
pub(crate) struct Queue<T> {
    writer: WriterId,
    next_sequence: Sequence,
    entries: VecDeque<Entry<T>>,
    open: Option<OpenBatch<T>>,
    sent: usize,
    attempt: Option<Attempt>,
    /// Whether the attempt has ended with appends unsettled.
    unsettled: bool,
}

impl<T> Queue<T> {
    pub(crate) const fn new(writer: WriterId) -> Self {
        Self {
            writer,
            next_sequence: Sequence::FIRST,
            entries: VecDeque::new(),
            open: None,
            sent: 0,
            attempt: None,
            unsettled: false,
        }
    }

    /// Takes an append, made at `created_at_millis`, behind everything else. Its records are never spread over two batches.
    ///
    /// # Errors
    /// [`NotTaken`] when the records make no batch.
    pub(crate) fn push(&mut self, created_at_millis: u64, records: &[Record], ticket: T) -> Result<(), NotTaken<T>> {
        let sequence = self.next_sequence;
        let encoded = match &mut self.open {
            Some(open) if open.takes(records) => open.builder.push(created_at_millis, records),
            Some(_) | None => BatchBuilder::new(self.writer, sequence, created_at_millis, records).map(|builder| {
                self.close_batch();
                self.open = Some(OpenBatch { sequence, builder, appends: Vec::with_capacity(1) });
            }),
        };
        if let Err(error) = encoded {
            return Err(NotTaken { error, ticket });
        }
        let records = u32::try_from(records.len()).ok().and_then(NonZeroU32::new);
        let records = records.expect("what was encoded has between 1 and 2^16 records");
        self.next_sequence =
            sequence.checked_add(u64::from(records.get())).expect("a batch that runs out of sequences is not encoded");
        let open = self.open.as_mut().expect("the append is in it");
        open.appends.push(Append { sequence, records, ticket });
        Ok(())
    }

    pub(crate) fn push_barrier(&mut self, ticket: T) {
        self.close_batch();
        self.entries.push_back(Entry::Barrier(ticket));
    }

    fn close_batch(&mut self) {
        self.entries.extend(self.open.take().map(|open| Entry::Batch(open.close())));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.open.is_none()
    }

    /// The attempt that must be settled before anything is sent.
    pub(crate) const fn unsettled(&self) -> Option<Attempt> {
        if self.unsettled { self.attempt } else { None }
    }

    /// The attempt at hand, or the one that is unsettled.
    pub(crate) const fn attempt(&self) -> Option<Attempt> {
        self.attempt
    }

    /// Whether something waits to be sent in the attempt at hand.
    pub(crate) fn has_unsent(&self) -> bool {
        !self.unsettled && (self.sent < self.entries.len() || self.open.is_some())
    }

    /// Whether something was sent in the attempt at hand and is not resolved.
    pub(crate) const fn in_flight(&self) -> bool {
        self.sent > 0
    }

    /// Begins an attempt. The one before must be settled.
    pub(crate) fn begin(&mut self, attempt: Attempt) {
        debug_assert!(!self.unsettled, "A7: settle before sending again");
        self.attempt = Some(attempt);
        self.sent = 0;
    }

    /// Nothing below `offset` is given to appends any more. While nothing is in flight, that bounds from below where the
    /// next ones can be, so that an appender that was idle for long does not read all that others wrote meanwhile.
    pub(crate) fn raise_floor(&mut self, offset: LogletOffset) {
        if self.sent == 0
            && let Some(attempt) = &mut self.attempt
        {
            attempt.from = attempt.from.max(offset);
        }
    }

    /// Takes batches to send, in order, up to about `bytes_max` bytes and at least one if there is any. The open one is
    /// closed with it when its turn comes.
    pub(crate) fn take_unsent(&mut self, bytes_max: usize) -> Vec<Bytes> {
        let mut batches = Vec::new();
        if self.unsettled {
            return batches;
        }
        let mut bytes = 0_usize;
        loop {
            if self.sent == self.entries.len()
                && self.open.as_ref().is_some_and(|open| bytes == 0 || bytes + open.builder.bytes() <= bytes_max)
            {
                self.close_batch();
            }
            match self.entries.get(self.sent) {
                Some(Entry::Batch(batch)) => {
                    if bytes > 0 && bytes + batch.bytes.len() > bytes_max {
                        break;
                    }
                    bytes += batch.bytes.len();
                    batches.push(batch.bytes.clone());
                }
                Some(Entry::Barrier(_)) => {}
                None => break,
            }
            self.sent += 1;
        }
        batches
    }

    /// The next batches of the attempt are committed at these offsets. `false` when the sequencer acknowledged more than
    /// it was sent, or positions run out: it cannot be trusted any more.
    pub(crate) fn committed(&mut self, batch_offsets: &[LogletOffset], out: &mut Vec<Resolution<T>>) -> bool {
        for batch_offset in batch_offsets {
            self.pass_barriers(out);
            let Some(Entry::Batch(batch)) = self.entries.front() else { return false };
            let Ok(end) = batch_offset.advance(u64::from(batch.records)) else { return false };
            if self.sent == 0 {
                return false;
            }
            self.sent -= 1;
            if let Some(attempt) = &mut self.attempt {
                attempt.from = attempt.from.max(end);
            }
            if let Some(Entry::Batch(batch)) = self.entries.pop_front() {
                batch.committed(*batch_offset, out);
            }
        }
        self.pass_barriers(out);
        true
    }

    /// Lets barriers through that have nothing before them.
    pub(crate) fn pass_barriers(&mut self, out: &mut Vec<Resolution<T>>) {
        while let Some(Entry::Barrier(_)) = self.entries.front() {
            if let Some(Entry::Barrier(ticket)) = self.entries.pop_front() {
                self.sent = self.sent.saturating_sub(1);
                out.push(Resolution::Passed(ticket));
            }
        }
    }

    /// The stream of the attempt is gone: what was sent and not answered is unsettled.
    pub(crate) fn lost(&mut self) {
        if self.sent == 0 {
            self.attempt = None;
        } else {
            self.unsettled = true;
        }
    }

    /// The sequence numbers of the first records of the batches that are unsettled, ascending.
    pub(crate) fn unsettled_sequences(&self) -> Vec<Sequence> {
        if !self.unsettled {
            return Vec::new();
        }
        self.entries.iter().take(self.sent).filter_map(Entry::batch).map(|batch| batch.sequence).collect()
    }

    /// Every batch of the attempt that is in its segment is in `found`, by the sequence number of its first record. The
    /// rest is not there and never will be; it stays at the front and is sent in the next attempt. With `gaps` the rest
    /// may be where nobody can look any more, so it is in doubt. What was found, and what was not sent in the attempt, is
    /// not touched by that.
    pub(crate) fn settle(
        &mut self,
        found: &BTreeMap<Sequence, LogletOffset>,
        gaps: bool,
        out: &mut Vec<Resolution<T>>,
    ) {
        let attempt = self.attempt.filter(|_| gaps);
        let rest = self.entries.split_off(self.sent);
        let mut again = VecDeque::new();
        for entry in std::mem::replace(&mut self.entries, rest) {
            match entry {
                Entry::Batch(batch) => match (found.get(&batch.sequence), attempt) {
                    (Some(batch_offset), _) => batch.committed(*batch_offset, out),
                    (None, Some(attempt)) => batch.in_doubt(attempt, out),
                    (None, None) => again.push_back(Entry::Batch(batch)),
                },
                Entry::Barrier(ticket) if again.is_empty() => out.push(Resolution::Passed(ticket)),
                Entry::Barrier(ticket) => again.push_back(Entry::Barrier(ticket)),
            }
        }
        again.append(&mut self.entries);
        self.entries = again;
        self.sent = 0;
        self.attempt = None;
        self.unsettled = false;
    }

    /// Gives everything up, in order; with each append, the attempt in which it may have landed.
    pub(crate) fn give_up(&mut self, mut each: impl FnMut(GivenUp<T>)) {
        let sent = std::mem::take(&mut self.sent);
        for (place, entry) in std::mem::take(&mut self.entries).into_iter().enumerate() {
            match entry {
                Entry::Batch(batch) => give_up_appends(batch.appends, self.attempt.filter(|_| place < sent), &mut each),
                Entry::Barrier(ticket) => each(GivenUp::Barrier(ticket)),
            }
        }
        if let Some(open) = self.open.take() {
            give_up_appends(open.appends, None, &mut each);
        }
        self.unsettled = false;
    }

    /// Asserts the pointer order.
    #[cfg(test)]
    fn check(&self) {
        assert!(self.sent <= self.entries.len(), "more was sent than there is");
        assert!(self.sent == 0 || self.attempt.is_some(), "sent in no attempt");
        assert!(!self.unsettled || self.attempt.is_some(), "nobody knows where to look");
        let mut next = None;
        let batches = self.entries.iter().filter_map(Entry::batch);
        let closed = batches.map(|batch| (batch.sequence, batch.records, &batch.appends));
        let open = self.open.iter().map(|open| (open.sequence, open.builder.records(), &open.appends));
        for (sequence, records, appends) in closed.chain(open) {
            assert!(next.is_none_or(|next| next <= sequence), "batches out of order");
            next = Some(sequence);
            for append in appends {
                assert_eq!(Some(append.sequence), next, "a hole between the appends of a batch");
                next = append.sequence.checked_add(u64::from(append.records.get()));
            }
            assert_eq!(next, sequence.checked_add(u64::from(records)), "a batch of other records than its appends'");
        }
        assert!(next.is_none_or(|next| next <= self.next_sequence), "a sequence number is given twice");
    }
}

fn give_up_appends<T>(appends: Vec<Append<T>>, attempt: Option<Attempt>, each: &mut impl FnMut(GivenUp<T>)) {
    for Append { sequence, records, ticket } in appends {
        each(GivenUp::Append { sequence, records, ticket, attempt });
    }
}

/// What a queue gave up.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum GivenUp<T> {
    /// An append.
    Append {
        sequence: Sequence,
        records: NonZeroU32,
        ticket: T,
        /// Where it may have landed, or `None` if it did not.
        attempt: Option<Attempt>,
    },
    /// A barrier.
    Barrier(T),
}

#[cfg(test)]
mod tests;
