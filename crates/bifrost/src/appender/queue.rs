//! The core of an appender: what waits, what is in flight, and what a closed attempt left open (A7).
//!
//! An *attempt* is one stream to one sequencer. Appends leave it acknowledged, in order, or unsettled when it ends. What
//! is unsettled is looked up by reading, up to an offset beyond which nothing of the attempt can appear: the decided tail
//! of the segment, or the next offset that the sequencer gave when a newer stream of the writer was opened. Only then is
//! the rest sent again, in order.

use std::collections::{BTreeMap, VecDeque};
use std::num::NonZeroU32;

use bifrost_types::{LogletOffset, OutOfPositions, SegmentIndex, Sequence};
use bytes::Bytes;

/// One append. `T` is whom to tell.
#[derive(Debug)]
pub(crate) struct Pending<T> {
    pub(crate) sequence: Sequence,
    pub(crate) records: NonZeroU32,
    pub(crate) batch: Bytes,
    pub(crate) ticket: T,
}

impl<T> Pending<T> {
    fn committed(self, first_offset: LogletOffset) -> Resolution<T> {
        let Self { ticket, sequence, records, .. } = self;
        Resolution::Committed { ticket, sequence, records, first_offset }
    }
}

/// An append, or a barrier between two.
#[derive(Debug)]
enum Entry<T> {
    Append(Pending<T>),
    Barrier(T),
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
    /// An append is in the segment of the attempt, from this offset on.
    Committed { ticket: T, sequence: Sequence, records: NonZeroU32, first_offset: LogletOffset },
    /// An append was sent in this attempt, and nobody can say any more whether it landed.
    InDoubt { ticket: T, sequence: Sequence, records: NonZeroU32, attempt: Attempt },
    /// Everything before the barrier is resolved.
    Passed(T),
}

/// Pointer order: the first `sent` entries were sent in the attempt at hand; the others were not sent since they were
/// known not to be in the log.
#[derive(Debug)]
pub(crate) struct Queue<T> {
    entries: VecDeque<Entry<T>>,
    sent: usize,
    attempt: Option<Attempt>,
    /// Whether the attempt has ended with appends unsettled.
    unsettled: bool,
}

impl<T> Queue<T> {
    pub(crate) const fn new() -> Self {
        Self { entries: VecDeque::new(), sent: 0, attempt: None, unsettled: false }
    }

    pub(crate) fn push(&mut self, pending: Pending<T>) {
        self.entries.push_back(Entry::Append(pending));
    }

    pub(crate) fn push_barrier(&mut self, ticket: T) {
        self.entries.push_back(Entry::Barrier(ticket));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
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
        !self.unsettled && self.sent < self.entries.len()
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

    /// Takes batches to send, in order, up to about `bytes_max` bytes and at least one if there is any.
    pub(crate) fn take_unsent(&mut self, bytes_max: usize) -> Vec<Bytes> {
        let mut batches = Vec::new();
        if self.unsettled {
            return batches;
        }
        let mut bytes = 0_usize;
        while let Some(entry) = self.entries.get(self.sent) {
            if let Entry::Append(pending) = entry {
                if bytes > 0 && bytes + pending.batch.len() > bytes_max {
                    break;
                }
                bytes += pending.batch.len();
                batches.push(pending.batch.clone());
            }
            self.sent += 1;
        }
        batches
    }

    /// The next batches of the attempt are committed at these offsets. `false` when the sequencer acknowledged more than
    /// it was sent, or positions run out: it cannot be trusted any more.
    pub(crate) fn committed(&mut self, first_offsets: &[LogletOffset], out: &mut Vec<Resolution<T>>) -> bool {
        for first_offset in first_offsets {
            self.pass_barriers(out);
            if self.sent == 0 {
                return false;
            }
            let Some(Entry::Append(pending)) = self.entries.pop_front() else { return false };
            self.sent -= 1;
            let end = first_offset.advance(u64::from(pending.records.get()));
            if self.raise_from(end).is_err() {
                return false;
            }
            out.push(pending.committed(*first_offset));
        }
        self.pass_barriers(out);
        true
    }

    fn raise_from(&mut self, end: Result<LogletOffset, OutOfPositions>) -> Result<(), OutOfPositions> {
        let end = end?;
        if let Some(attempt) = &mut self.attempt {
            attempt.from = attempt.from.max(end);
        }
        Ok(())
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

    /// The sequence numbers of the first records of what is unsettled, ascending.
    pub(crate) fn unsettled_sequences(&self) -> Vec<Sequence> {
        if !self.unsettled {
            return Vec::new();
        }
        let sent = self.entries.iter().take(self.sent);
        sent.filter_map(|entry| match entry {
            Entry::Append(pending) => Some(pending.sequence),
            Entry::Barrier(_) => None,
        })
        .collect()
    }

    /// Everything of the attempt that is in its segment is in `found`, by sequence number. The rest is not there and
    /// never will be; it stays at the front and is sent in the next attempt. With `gaps` the rest may be where nobody can
    /// look any more, so it is in doubt. What was found, and what was not sent in the attempt, is not touched by that.
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
                Entry::Append(pending) => match (found.get(&pending.sequence), attempt) {
                    (Some(first_offset), _) => out.push(pending.committed(*first_offset)),
                    (None, Some(attempt)) => {
                        let Pending { ticket, sequence, records, .. } = pending;
                        out.push(Resolution::InDoubt { ticket, sequence, records, attempt });
                    }
                    (None, None) => again.push_back(Entry::Append(pending)),
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
        let attempt = self.attempt;
        for (place, entry) in std::mem::take(&mut self.entries).into_iter().enumerate() {
            each(match entry {
                Entry::Append(pending) => GivenUp::Append {
                    sequence: pending.sequence,
                    records: pending.records,
                    ticket: pending.ticket,
                    attempt: attempt.filter(|_| place < sent),
                },
                Entry::Barrier(ticket) => GivenUp::Barrier(ticket),
            });
        }
        self.unsettled = false;
    }

    /// Asserts the pointer order.
    #[cfg(test)]
    fn check(&self) {
        assert!(self.sent <= self.entries.len(), "more was sent than there is");
        assert!(self.sent == 0 || self.attempt.is_some(), "sent in no attempt");
        assert!(!self.unsettled || self.attempt.is_some(), "nobody knows where to look");
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
mod tests {
    mod machine;

    use proptest::prelude::*;

    use super::*;

    fn offset(value: u64) -> LogletOffset {
        LogletOffset::new(value).expect("non-zero")
    }

    fn attempt(segment: u32) -> Attempt {
        Attempt { segment: SegmentIndex::new(segment), incarnation: 1, from: LogletOffset::FIRST }
    }

    fn pending(sequence: u64) -> Pending<u64> {
        Pending {
            sequence: Sequence::try_from(sequence).expect("non-zero"),
            records: NonZeroU32::MIN,
            batch: Bytes::from_static(b"0123456789"),
            ticket: sequence,
        }
    }

    fn committed(ticket: u64, first_offset: u64) -> Resolution<u64> {
        pending(ticket).committed(offset(first_offset))
    }

    #[test]
    fn appends_leave_in_order_and_barriers_wait_for_those_before_them() {
        let mut queue = Queue::new();
        queue.push(pending(1));
        queue.push_barrier(99);
        queue.push(pending(2));
        queue.begin(attempt(0));
        assert_eq!(queue.take_unsent(15).len(), 1);
        assert_eq!(queue.take_unsent(15).len(), 1);
        assert!(!queue.has_unsent());
        let mut out = Vec::new();
        assert!(queue.committed(&[offset(5)], &mut out));
        assert_eq!(out, [committed(1, 5), Resolution::Passed(99)]);
        assert!(queue.committed(&[offset(9)], &mut out));
        assert!(queue.is_empty());
        assert!(!queue.committed(&[offset(10)], &mut out), "more was acknowledged than sent");
    }

    #[test]
    fn what_a_lost_stream_carried_is_settled_before_anything_is_sent_again() {
        let mut queue = Queue::new();
        for sequence in 1..=4 {
            queue.push(pending(sequence));
        }
        queue.begin(attempt(0));
        assert_eq!(queue.take_unsent(30).len(), 3);
        let mut out = Vec::new();
        queue.committed(&[offset(1)], &mut out);
        queue.lost();
        assert_eq!(queue.take_unsent(100), Vec::<Bytes>::new());
        assert_eq!(queue.unsettled().map(|attempt| attempt.from), Some(offset(2)));
        let found = BTreeMap::from([(pending(2).sequence, offset(7))]);
        out.clear();
        queue.settle(&found, false, &mut out);
        assert_eq!(out, [committed(2, 7)]);
        queue.begin(attempt(1));
        assert_eq!(queue.take_unsent(100).len(), 2, "the third again, then the fourth");
    }

    #[test]
    fn a_gap_puts_only_what_was_sent_and_not_found_in_doubt() {
        let mut queue = Queue::new();
        for sequence in 1..=4 {
            queue.push(pending(sequence));
        }
        queue.push_barrier(99);
        queue.begin(attempt(0));
        assert_eq!(queue.take_unsent(30).len(), 3);
        queue.lost();
        let mut out = Vec::new();
        queue.settle(&BTreeMap::from([(pending(2).sequence, offset(7))]), true, &mut out);
        let in_doubt = |number| {
            let Pending { ticket, sequence, records, .. } = pending(number);
            Resolution::InDoubt { ticket, sequence, records, attempt: attempt(0) }
        };
        assert_eq!(out, [in_doubt(1), committed(2, 7), in_doubt(3)]);
        queue.begin(attempt(1));
        assert_eq!(queue.take_unsent(100).len(), 1, "the fourth was never sent");
        out.clear();
        assert!(queue.committed(&[offset(1)], &mut out));
        assert_eq!(out, [committed(4, 1), Resolution::Passed(99)]);
    }

    #[test]
    fn only_what_was_sent_is_given_up_as_unknown() {
        let mut queue = Queue::new();
        queue.push(pending(1));
        queue.push(pending(2));
        queue.begin(attempt(3));
        queue.take_unsent(10);
        queue.lost();
        let mut given_up = Vec::new();
        queue.give_up(|each| match each {
            GivenUp::Append { ticket, attempt, .. } => given_up.push((ticket, attempt.is_some())),
            GivenUp::Barrier(_) => {}
        });
        assert_eq!(given_up, [(1, true), (2, false)]);
    }

    proptest! {
        /// Random sends, acknowledgements, losses and settlements against a log that takes a prefix of what was sent.
        #[test]
        fn each_append_lands_exactly_once_and_in_order(steps in prop::collection::vec(0..6_u8, 1..200)) {
            let mut queue: Queue<u64> = Queue::new();
            let mut log: Vec<u64> = Vec::new(); // sequence numbers in the order in which they landed
            let mut wire: VecDeque<u64> = VecDeque::new(); // sent, not landed yet
            let mut unanswered: VecDeque<u64> = VecDeque::new(); // offsets to acknowledge
            let mut next = 1;
            let mut next_sent = 1;
            let mut resolved = Vec::new();
            queue.begin(attempt(0));
            for step in steps {
                let mut out = Vec::new();
                match step {
                    0 | 1 => {
                        queue.push(pending(next));
                        next += 1;
                    }
                    2 => for _ in queue.take_unsent(25) {
                        wire.push_back(next_sent);
                        next_sent += 1;
                    },
                    3 => if let Some(sequence) = wire.pop_front() {
                        log.push(sequence);
                        unanswered.push_back(log.len() as u64);
                    },
                    4 => if let Some(at) = unanswered.pop_front() {
                        prop_assert!(queue.committed(&[offset(at)], &mut out));
                    },
                    _ => {
                        queue.lost();
                        wire.clear();
                        unanswered.clear();
                        let wanted = queue.unsettled_sequences();
                        let place = |wanted: &Sequence| log.iter().position(|landed| *landed == wanted.get());
                        let found = wanted.iter().filter_map(|sequence| Some((*sequence, offset(place(sequence)? as u64 + 1))));
                        let found: BTreeMap<_, _> = found.collect();
                        queue.settle(&found, false, &mut out);
                        next_sent = log.len() as u64 + 1;
                        queue.begin(attempt(0));
                    }
                }
                for resolution in out {
                    let Resolution::Committed { ticket, first_offset, .. } = resolution else { continue };
                    prop_assert_eq!(log[first_offset.get() as usize - 1], ticket);
                    resolved.push(ticket);
                }
            }
            let in_order: Vec<u64> = (1..=log.len() as u64).collect();
            prop_assert_eq!(&log, &in_order, "landed once each, in order");
            prop_assert_eq!(&resolved[..], &in_order[..resolved.len()]);
        }
    }
}
