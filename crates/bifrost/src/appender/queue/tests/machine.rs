//! Long random schedules of one queue against a log of many segments: streams break, segments are closed in the middle of
//! what is in flight, parts of the log cannot be read any more, and appends are given up.

use std::collections::{BTreeMap, VecDeque};

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Action {
    Push { records: u64, bytes: usize },
    Refused,
    Barrier,
    Take(usize),
    Land,
    Acknowledge(usize),
    AcknowledgeWhatWasNotSent,
    Lose,
    Close { kept: usize },
    Go { gaps: bool, hidden: u64 },
    GiveUp,
}

fn action() -> impl Strategy<Value = Action> {
    // A few fill a shared batch; the largest goes alone.
    let bytes = prop_oneof![20 => 0..40_usize, 4 => Just(20_000_usize), 1 => Just(SHARED_BATCH_BYTES)];
    let go = (prop::bool::weighted(0.03), any::<u64>());
    prop_oneof![
        24 => (1..4_u64, bytes).prop_map(|(records, bytes)| Action::Push { records, bytes }),
        1 => Just(Action::Refused),
        3 => Just(Action::Barrier),
        12 => (1..200_000_usize).prop_map(Action::Take),
        20 => Just(Action::Land),
        10 => (1..4_usize).prop_map(Action::Acknowledge),
        1 => Just(Action::AcknowledgeWhatWasNotSent),
        3 => Just(Action::Lose),
        2 => any::<usize>().prop_map(|kept| Action::Close { kept }),
        12 => go.prop_map(|(gaps, hidden)| Action::Go { gaps, hidden }),
        1 => Just(Action::GiveUp),
    ]
}

/// What has become of an append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Committed,
    InDoubt,
    NotAppended,
}

/// The sequence numbers of the records in a segment by offset, counted from 0, and where its batches begin.
#[derive(Debug, Default)]
struct Log {
    records: Vec<u64>,
    batches: Vec<usize>,
}

impl Log {
    fn tail(&self) -> LogletOffset {
        offset(self.records.len() as u64 + 1)
    }
}

struct World {
    queue: Queue<u64>,
    /// The last one is open.
    segments: Vec<Log>,
    /// On its way to the sequencer of the last segment.
    wire: VecDeque<Bytes>,
    /// Landed in the attempt at hand and not acknowledged: where the batches begin.
    unanswered: VecDeque<LogletOffset>,
    /// So many records of the last segment stay if it is closed.
    acknowledged: usize,
    streaming: bool,
    /// Every append by its ticket, with its first sequence number and how many records it has.
    appends: BTreeMap<u64, (u64, u64)>,
    next_sequence: u64,
    /// The sequence number with which the next batch to be sent begins.
    next_sent: u64,
    /// Everything that was ever sent, by its first sequence number.
    sent: BTreeMap<u64, Bytes>,
    told: BTreeMap<u64, Told>,
    /// Each barrier with the number of appends before it.
    barriers: VecDeque<(u64, u64)>,
}

const BARRIERS: u64 = 1 << 32;

impl World {
    fn new() -> Self {
        Self {
            queue: Queue::new(writer()),
            segments: vec![Log::default()],
            wire: VecDeque::new(),
            unanswered: VecDeque::new(),
            acknowledged: 0,
            streaming: false,
            appends: BTreeMap::new(),
            next_sequence: 1,
            next_sent: 1,
            sent: BTreeMap::new(),
            told: BTreeMap::new(),
            barriers: VecDeque::new(),
        }
    }

    fn act(&mut self, action: &Action) {
        let mut out = Vec::new();
        match *action {
            Action::Push { records, bytes } => {
                let ticket = self.next_ticket();
                let payload = vec![Record::new(vec![7; bytes]); records as usize];
                assert_eq!(self.queue.push(ticket, &payload, ticket), Ok(()));
                self.appends.insert(ticket, (self.next_sequence, records));
                self.next_sequence += records;
            }
            Action::Refused => {
                let records = [Record::new("fine"), inverted()];
                let refused = NotTaken { error: EncodeError::InvertedKeys, ticket: 0 };
                assert_eq!(self.queue.push(0, &records, 0), Err(refused));
            }
            Action::Barrier => {
                let ticket = BARRIERS + self.barriers.len() as u64 + self.next_ticket();
                self.queue.push_barrier(ticket);
                self.barriers.push_back((ticket, self.next_ticket()));
            }
            Action::Take(bytes) => {
                if self.streaming {
                    self.take(bytes);
                }
            }
            Action::Land => {
                if let Some(batch) = self.wire.pop_front() {
                    let open = self.segments.last_mut().expect("one is open");
                    self.unanswered.push_back(open.tail());
                    open.batches.push(open.records.len());
                    open.records.extend(sequences(&batch));
                }
            }
            Action::Acknowledge(count) => {
                let count = count.min(self.unanswered.len());
                if self.streaming && count > 0 {
                    let offsets: Vec<_> = self.unanswered.drain(..count).collect();
                    assert!(self.queue.committed(&offsets, &mut out), "what was sent is believed");
                    let open = self.segments.last().expect("one is open");
                    let next = self.unanswered.front().copied().unwrap_or(open.tail());
                    self.acknowledged = next.get() as usize - 1;
                }
            }
            Action::AcknowledgeWhatWasNotSent => {
                if self.streaming && !self.queue.in_flight() {
                    assert!(!self.queue.committed(&[offset(1)], &mut out), "nothing was sent");
                    self.lose();
                }
            }
            Action::Lose => self.lose(),
            Action::Close { kept } => {
                // What is acknowledged stays; of the rest a part does, in whole batches.
                let open = self.segments.last_mut().expect("one is open");
                let mut ends: Vec<usize> = open.batches.iter().copied().chain([open.records.len()]).collect();
                ends.retain(|end| *end >= self.acknowledged);
                let end = ends[kept % ends.len()];
                open.records.truncate(end);
                open.batches.retain(|first| *first < end);
                self.lose();
                self.segments.push(Log::default());
                self.acknowledged = 0;
            }
            Action::Go { gaps, hidden } => self.go(gaps.then_some(hidden), &mut out),
            Action::GiveUp => self.give_up(),
        }
        self.queue.pass_barriers(&mut out);
        self.queue.check();
        self.resolved(out);
    }

    fn next_ticket(&self) -> u64 {
        self.appends.len() as u64 + 1
    }

    fn take(&mut self, bytes_max: usize) {
        let batches = self.queue.take_unsent(bytes_max);
        let bytes: usize = batches.iter().map(Bytes::len).sum();
        assert!(bytes <= bytes_max || batches.len() == 1, "{bytes} bytes in place of {bytes_max}");
        for batch in batches {
            let sequences = sequences(&batch);
            assert_eq!(sequences.first(), Some(&self.next_sent), "in order, and nothing is left out");
            let of_it = |first: &u64| sequences.binary_search(first).is_ok();
            let appends: Vec<(u64, u64)> = self.appends.values().copied().filter(|(first, _)| of_it(first)).collect();
            let records: u64 = appends.iter().map(|(_, records)| records).sum();
            assert_eq!(records, sequences.len() as u64, "a batch is made of whole appends");
            assert!(batch.len() <= SHARED_BATCH_BYTES || appends.len() == 1, "a large batch is shared");
            self.next_sent += records;
            let before = self.sent.insert(sequences[0], batch.clone());
            assert!(before.is_none_or(|before| before == batch), "A7: other bytes than those that were sent before");
            self.wire.push_back(batch);
        }
    }

    fn lose(&mut self) {
        self.queue.lost();
        self.streaming = false;
        self.wire.clear();
        self.unanswered.clear();
    }

    /// Settles what is unsettled, by reading from where the attempt says, and opens the next stream. Of what is there, some
    /// batches may be hidden.
    fn go(&mut self, hidden: Option<u64>, out: &mut Vec<Resolution<u64>>) {
        if self.streaming {
            return;
        }
        if let Some(attempt) = self.queue.unsettled() {
            let wanted = self.queue.unsettled_sequences();
            let log = &self.segments[attempt.segment.get() as usize];
            let is_readable = |first: usize| hidden.is_none_or(|hidden| hidden >> (first % 64) & 1 == 0);
            let readable = log.batches.iter().filter(|first| offset(**first as u64 + 1) >= attempt.from);
            let found = readable.filter(|first| is_readable(**first)).map(|first| {
                let sequence = Sequence::try_from(log.records[*first]).expect("non-zero");
                (sequence, offset(*first as u64 + 1))
            });
            let found = found.filter(|(sequence, _)| wanted.contains(sequence)).collect();
            self.queue.settle(&found, hidden.is_some(), out);
            self.queue.check();
            if attempt.segment.get() as usize + 1 == self.segments.len() {
                // Only what is committed can be read.
                self.acknowledged = self.segments.last().map_or(0, |open| open.records.len());
            }
        }
        let resolved: Vec<u64> = out.iter().filter_map(ticket).collect();
        let mut open = self.appends.iter().filter(|(it, _)| !self.told.contains_key(it) && !resolved.contains(it));
        self.next_sent = open.next().map_or(self.next_sequence, |(_, (first, _))| *first);
        let segment = self.segments.len() - 1;
        let next_offset = self.segments[segment].tail();
        let segment = SegmentIndex::new(u32::try_from(segment).expect("few"));
        self.queue.begin(Attempt { segment, incarnation: 1, from: next_offset });
        self.streaming = true;
    }

    fn give_up(&mut self) {
        self.lose();
        let (told, barriers, appends) = (&mut self.told, &mut self.barriers, &self.appends);
        self.queue.give_up(|given_up| match given_up {
            GivenUp::Append { ticket, sequence, records, attempt } => {
                assert_eq!(appends[&ticket], (sequence.get(), u64::from(records.get())));
                let fate = if attempt.is_some() { Told::InDoubt } else { Told::NotAppended };
                assert_eq!(told.insert(ticket, fate), None, "{ticket} is told twice");
            }
            GivenUp::Barrier(ticket) => {
                assert_eq!(barriers.pop_front().map(|(first, _)| first), Some(ticket));
            }
        });
        self.next_sent = self.next_sequence;
        self.queue.check();
        assert!(self.queue.is_empty());
    }

    fn resolved(&mut self, out: Vec<Resolution<u64>>) {
        for resolution in out {
            match resolution {
                Resolution::Committed { ticket, sequence, records, batch_offset, index } => {
                    let (first, count) = self.appends[&ticket];
                    assert_eq!((sequence.get(), u64::from(records.get())), (first, count));
                    let at = (batch_offset.get() - 1 + index) as usize;
                    let its: Vec<u64> = (first..first + count).collect();
                    let lies = |log: &Log| log.records.get(at..at + its.len()) == Some(&its[..]);
                    assert!(self.segments.iter().any(lies), "{ticket} is not at {at} of any segment");
                    assert_eq!(self.told.insert(ticket, Told::Committed), None, "{ticket} is told twice");
                }
                Resolution::InDoubt { ticket, sequence, records, .. } => {
                    assert_eq!(self.appends[&ticket], (sequence.get(), u64::from(records.get())));
                    assert_eq!(self.told.insert(ticket, Told::InDoubt), None, "{ticket} is told twice");
                }
                Resolution::Passed(ticket) => {
                    let (first, before) = self.barriers.pop_front().expect("a barrier");
                    assert_eq!(first, ticket, "barriers pass in order");
                    let open = (1..before).find(|append| !self.told.contains_key(append));
                    assert_eq!(open, None, "a barrier passed what has no outcome");
                }
            }
        }
    }

    /// The log as it is at the end.
    fn judge(&self) {
        let log: Vec<u64> = self.segments.iter().flat_map(|segment| &segment.records).copied().collect();
        assert!(log.is_sorted_by(|one, next| one < next), "A7: twice, or out of order: {log:?}");
        for (append, told) in &self.told {
            let (first, count) = self.appends[append];
            let there = (first..first + count).filter(|sequence| log.binary_search(sequence).is_ok()).count() as u64;
            match told {
                Told::Committed => assert_eq!(there, count, "{append} was acknowledged"),
                Told::NotAppended => assert_eq!(there, 0, "{append} was told as not appended"),
                Told::InDoubt => assert!(there == 0 || there == count, "a part of {append} is there"),
            }
        }
    }
}

fn ticket(resolution: &Resolution<u64>) -> Option<u64> {
    match resolution {
        Resolution::Committed { ticket, .. } | Resolution::InDoubt { ticket, .. } => Some(*ticket),
        Resolution::Passed(_) => None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn each_append_has_one_outcome_and_it_is_true(actions in prop::collection::vec(action(), 1..500)) {
        #[cfg(bifrost_plant)]
        bifrost_types::plant::set_from_env();
        let mut world = World::new();
        for action in &actions {
            world.act(action);
        }
        world.give_up();
        assert_eq!(world.told.len(), world.appends.len(), "an append without an outcome");
        world.judge();
    }
}
