//! Long random schedules of one queue against a log of many segments: streams break, segments are closed in the middle of
//! what is in flight, parts of the log cannot be read any more, and appends are given up.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Action {
    Push,
    Barrier,
    Take(usize),
    Land,
    Acknowledge(usize),
    AcknowledgeWhatWasNotSent,
    Lose,
    Close { kept: usize },
    Go { gaps: bool },
    GiveUp,
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        20 => Just(Action::Push),
        3 => Just(Action::Barrier),
        16 => (1..50_usize).prop_map(Action::Take),
        20 => Just(Action::Land),
        10 => (1..4_usize).prop_map(Action::Acknowledge),
        1 => Just(Action::AcknowledgeWhatWasNotSent),
        3 => Just(Action::Lose),
        2 => any::<usize>().prop_map(|kept| Action::Close { kept }),
        12 => prop::bool::weighted(0.03).prop_map(|gaps| Action::Go { gaps }),
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

struct World {
    queue: Queue<u64>,
    /// The sequence numbers in each segment, by offset from 1. The last one is open.
    segments: Vec<Vec<u64>>,
    /// On its way to the sequencer of the last segment.
    wire: VecDeque<u64>,
    /// Landed in the attempt at hand and not acknowledged: offsets.
    unanswered: VecDeque<u64>,
    acknowledged: usize,
    streaming: bool,
    next: u64,
    next_sent: VecDeque<u64>,
    told: BTreeMap<u64, Told>,
    /// Each barrier with the number of appends before it.
    barriers: VecDeque<(u64, u64)>,
}

const BARRIERS: u64 = 1 << 32;

impl World {
    fn new() -> Self {
        Self {
            queue: Queue::new(),
            segments: vec![Vec::new()],
            wire: VecDeque::new(),
            unanswered: VecDeque::new(),
            acknowledged: 0,
            streaming: false,
            next: 1,
            next_sent: VecDeque::new(),
            told: BTreeMap::new(),
            barriers: VecDeque::new(),
        }
    }

    fn act(&mut self, action: &Action) {
        let mut out = Vec::new();
        match *action {
            Action::Push => {
                self.queue.push(pending(self.next));
                self.next_sent.push_back(self.next);
                self.next += 1;
            }
            Action::Barrier => {
                let ticket = BARRIERS + self.barriers.len() as u64 + self.next;
                self.queue.push_barrier(ticket);
                self.barriers.push_back((ticket, self.next));
            }
            Action::Take(bytes) => {
                if self.streaming {
                    for _ in self.queue.take_unsent(bytes) {
                        self.wire.extend(self.next_sent.pop_front());
                    }
                }
            }
            Action::Land => {
                if let Some(sequence) = self.wire.pop_front() {
                    let open = self.segments.last_mut().expect("one is open");
                    open.push(sequence);
                    self.unanswered.push_back(open.len() as u64);
                }
            }
            Action::Acknowledge(count) => {
                let count = count.min(self.unanswered.len());
                if self.streaming && count > 0 {
                    let offsets: Vec<_> = self.unanswered.drain(..count).map(offset).collect();
                    assert!(self.queue.committed(&offsets, &mut out), "what was sent is believed");
                    self.acknowledged = offsets.last().map_or(0, |last| last.get() as usize);
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
                // What is acknowledged stays; of the rest a part does.
                let open = self.segments.last_mut().expect("one is open");
                let kept = self.acknowledged + kept % (open.len() - self.acknowledged + 1);
                open.truncate(kept);
                self.lose();
                self.segments.push(Vec::new());
                self.acknowledged = 0;
            }
            Action::Go { gaps } => self.go(gaps, &mut out),
            Action::GiveUp => self.give_up(),
        }
        self.queue.pass_barriers(&mut out);
        self.queue.check();
        self.resolved(out);
    }

    fn lose(&mut self) {
        self.queue.lost();
        self.streaming = false;
        self.wire.clear();
        self.unanswered.clear();
    }

    /// Settles what is unsettled, by reading from where the attempt says, and opens the next stream.
    fn go(&mut self, gaps: bool, out: &mut Vec<Resolution<u64>>) {
        if self.streaming {
            return;
        }
        if let Some(attempt) = self.queue.unsettled() {
            let wanted: BTreeSet<u64> =
                self.queue.unsettled_sequences().iter().map(|sequence| sequence.get()).collect();
            let log = &self.segments[attempt.segment.get() as usize];
            let readable = log.iter().zip(1_u64..).filter(|(_, at)| !gaps && *at >= attempt.from.get());
            let found = readable.filter(|(sequence, _)| wanted.contains(sequence));
            let found = found.map(|(sequence, at)| (pending(*sequence).sequence, offset(at))).collect();
            self.queue.settle(&found, gaps, out);
            self.queue.check();
            if attempt.segment.get() as usize + 1 == self.segments.len() {
                // Only what is committed can be read.
                self.acknowledged = self.segments.last().map_or(0, Vec::len);
            }
        }
        let resolved: BTreeSet<u64> = out.iter().filter_map(ticket).collect();
        self.next_sent = (1..self.next).filter(|it| !self.told.contains_key(it) && !resolved.contains(it)).collect();
        let segment = self.segments.len() - 1;
        let next_offset = offset(self.segments[segment].len() as u64 + 1);
        let segment = SegmentIndex::new(u32::try_from(segment).expect("few"));
        self.queue.begin(Attempt { segment, incarnation: 1, from: next_offset });
        self.streaming = true;
    }

    fn give_up(&mut self) {
        self.lose();
        let (told, barriers) = (&mut self.told, &mut self.barriers);
        self.queue.give_up(|given_up| match given_up {
            GivenUp::Append { ticket, attempt, .. } => {
                let fate = if attempt.is_some() { Told::InDoubt } else { Told::NotAppended };
                assert_eq!(told.insert(ticket, fate), None, "{ticket} is told twice");
            }
            GivenUp::Barrier(ticket) => {
                assert_eq!(barriers.pop_front().map(|(first, _)| first), Some(ticket));
            }
        });
        self.next_sent.clear();
        self.queue.check();
        assert!(self.queue.is_empty());
    }

    fn resolved(&mut self, out: Vec<Resolution<u64>>) {
        for resolution in out {
            match resolution {
                Resolution::Committed { ticket, first_offset, .. } => {
                    let at = first_offset.get() as usize - 1;
                    let there = self.segments.iter().any(|segment| segment.get(at) == Some(&ticket));
                    assert!(there, "{ticket} is not at {first_offset} of any segment");
                    assert_eq!(self.told.insert(ticket, Told::Committed), None, "{ticket} is told twice");
                }
                Resolution::InDoubt { ticket, .. } => {
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
        let log: Vec<u64> = self.segments.iter().flatten().copied().collect();
        assert!(log.is_sorted_by(|one, next| one < next), "A7: twice, or out of order: {log:?}");
        for (append, told) in &self.told {
            match told {
                Told::Committed => assert!(log.contains(append), "{append} was acknowledged"),
                Told::NotAppended => assert!(!log.contains(append), "{append} was told as not appended"),
                Told::InDoubt => {}
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
        world.judge();
    }
}
