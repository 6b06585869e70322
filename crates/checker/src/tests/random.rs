//! Random histories of a reference log, which is a list and nothing else, are never reported; the same with one thing that
//! cannot be are always.

use std::collections::{BTreeMap, VecDeque};

use bifrost_types::Chain;
use proptest::prelude::*;

use crate::event::{AppendOutcome, AppenderId, CallId, CopyFacts, Event, Gap, ReaderId, Value};
use crate::testing::{
    announced, created, decided, disk, facts, life, log_id, loglet, lsn, node, offset, sealed, trimmed,
};
use crate::{Checker, End, Rule};

const APPENDERS: u64 = 3;
const DISKS: u64 = 3;
const FINAL_SCAN: ReaderId = ReaderId(1_000_000);

/// An append of the reference.
#[derive(Debug, Clone, Copy)]
struct Attempt {
    call: CallId,
    value: u64,
    /// Its place in the log from 1, once it landed.
    landed: Option<u64>,
    ended: Option<Ended>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    ForGood,
    Unknown,
}

/// The log as it should be, and the events of what happens to it.
struct Reference {
    events: Vec<Event>,
    log: Vec<u64>,
    chain: Chain,
    attempts: Vec<Attempt>,
    /// What each appender sent and did not land yet, by index, in order.
    queues: BTreeMap<u64, VecDeque<usize>>,
    readers: Vec<u64>,
    tails: Vec<CallId>,
    /// The first offset of the open segment that each disk lacks.
    ends: [u64; DISKS as usize],
    next: u64,
}

impl Reference {
    fn new() -> Self {
        let chain = created(3, "2");
        let mut events = Vec::new();
        for number in 1..=3 {
            events.push(Event::NodeStarted { node: life(number, 1), disk: disk(number) });
        }
        events.push(Event::ChainWritten { chain: chain.clone() });
        let (queues, attempts) = (BTreeMap::new(), Vec::new());
        Self { events, log: vec![], chain, attempts, queues, readers: vec![], tails: vec![], ends: [1; 3], next: 1 }
    }

    fn fresh(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn tail(&self) -> u64 {
        self.log.len() as u64 + 1
    }

    /// First offset of the open segment that is not written.
    fn offset(&self) -> u64 {
        self.tail() - self.chain.segments.last().unwrap().base_lsn.get() + 1
    }

    fn segment(&self) -> u32 {
        self.chain.segments.last().unwrap().index().get()
    }

    fn write(&mut self, chain: Chain) {
        self.events.push(Event::ChainWritten { chain: chain.clone() });
        self.chain = chain;
    }

    fn store(&mut self, place: u64, at: u64, value: u64) {
        let (number, segment) = (u32::try_from(place + 1).unwrap(), self.segment());
        let range = (offset(at), offset(at + 1));
        self.events.push(Event::Stored {
            node: node(number),
            disk: disk(number),
            loglet: loglet(segment),
            first_offset: range.0,
            end: range.1,
            bytes: Value(value + 1_000_000),
        });
        self.ends[place as usize] = at + 1;
    }

    fn put(&mut self, place: u64, segment: u32, facts: CopyFacts) {
        let number = u32::try_from(place + 1).unwrap();
        self.events.push(Event::CopyWritten { node: node(number), disk: disk(number), loglet: loglet(segment), facts });
    }

    fn invoke(&mut self, pick: u64) -> usize {
        let (value, appender) = (self.fresh(), pick % APPENDERS);
        let call = CallId(value);
        let value_of = Value(value);
        self.events.push(Event::AppendInvoked { call, appender: AppenderId(appender), log: log_id(), value: value_of });
        self.attempts.push(Attempt { call, value, landed: None, ended: None });
        let index = self.attempts.len() - 1;
        self.queues.entry(appender).or_default().push_back(index);
        index
    }

    /// The first record of an appender that did not land yet lands on two of the three disks.
    fn land(&mut self, pick: u64) {
        let Some(index) = self.queues.get_mut(&(pick % APPENDERS)).and_then(VecDeque::pop_front) else { return };
        let at = self.offset();
        let value = self.attempts[index].value;
        for place in (0..DISKS).filter(|place| *place != pick / APPENDERS % DISKS) {
            self.store(place, at, value);
            self.put(place, self.segment(), facts(at + 1, at));
        }
        self.attempts[index].landed = Some(self.tail());
        self.log.push(value);
    }

    fn end(&mut self, pick: u64) {
        let open: Vec<usize> =
            (0..self.attempts.len()).filter(|index| self.attempts[*index].ended != Some(Ended::ForGood)).collect();
        let Some(index) = open.get(pick as usize % open.len().max(1)).copied() else { return };
        let Attempt { call, landed, ended, .. } = self.attempts[index];
        // Every other one is given up, once; it may land later.
        let outcome = match (pick / 64 % 2, ended, landed) {
            (0, None, _) => AppendOutcome::Unknown,
            (_, _, Some(at)) => AppendOutcome::Committed(lsn(at)),
            (_, _, None) => {
                self.queues.values_mut().for_each(|queue| queue.retain(|queued| *queued != index));
                AppendOutcome::NotAppended
            }
        };
        let for_good = outcome != AppendOutcome::Unknown;
        self.attempts[index].ended = Some(if for_good { Ended::ForGood } else { Ended::Unknown });
        self.events.push(Event::AppendEnded { call, outcome });
    }

    fn open_reader(&mut self, pick: u64) {
        let from = pick % self.tail() + 1;
        let reader = ReaderId(self.readers.len() as u64);
        self.events.push(Event::ReaderOpened { reader, log: log_id(), from: lsn(from) });
        self.readers.push(from);
    }

    /// A reader is given what comes next.
    fn read(&mut self, pick: u64) {
        let Some(index) = (pick as usize).checked_rem(self.readers.len()) else { return };
        let reader = ReaderId(index as u64);
        self.readers[index] = self.give(reader, self.readers[index]);
    }

    fn give(&mut self, reader: ReaderId, next: u64) -> u64 {
        let trimmed = self.chain.trim_point.map_or(0, |point| point.get());
        if next <= trimmed {
            let (from, until) = (lsn(next), lsn(trimmed + 1));
            self.events.push(Event::Skipped { reader, from, until, gap: Gap::Trimmed });
            return trimmed + 1;
        }
        match self.log.get(next as usize - 1) {
            Some(value) => {
                self.events.push(Event::Delivered { reader, lsn: lsn(next), value: Value(*value) });
                next + 1
            }
            None => {
                let tail = lsn(next);
                self.events.extend((next == self.tail()).then_some(Event::CaughtUp { reader, tail }));
                next
            }
        }
    }

    fn ask_for_tail(&mut self) {
        let call = CallId(self.fresh());
        self.events.push(Event::TailInvoked { call, log: log_id() });
        self.tails.push(call);
    }

    fn answer_tail(&mut self, pick: u64) {
        if self.tails.is_empty() {
            return;
        }
        let call = self.tails.swap_remove(pick as usize % self.tails.len());
        self.events.push(Event::TailEnded { call, tail: Some(lsn(self.tail())) });
    }

    fn trim(&mut self, pick: u64) {
        if self.log.is_empty() {
            return;
        }
        let (call, up_to) = (CallId(self.fresh()), pick % self.log.len() as u64 + 1);
        self.events.push(Event::TrimInvoked { call, log: log_id(), up_to: lsn(up_to) });
        if self.chain.trim_point < Some(lsn(up_to)) {
            self.write(trimmed(&self.chain, up_to));
        }
        self.events.push(Event::TrimEnded { call, trim_point: self.chain.trim_point });
    }

    /// Closes the segment; with garbage behind its end on a disk that was not asked.
    fn reconfigure(&mut self, pick: u64) {
        let (tail, segment) = (self.offset(), self.segment());
        let number = u128::from(self.fresh());
        self.write(announced(&self.chain, number));
        let left_out = pick % DISKS;
        if (pick / DISKS).is_multiple_of(2) && self.ends[left_out as usize] == tail {
            let value = self.fresh();
            self.store(left_out, tail, value);
        }
        let bound = CopyFacts { bound: (tail > 1).then(|| life(1, 1)), ..facts(1, 1) };
        let copy = |end: u64| CopyFacts { local_tail: offset(end), ..sealed(bound) };
        for place in (0..DISKS).filter(|place| *place != left_out) {
            // What it was told of the committed tail is durable with what came after it.
            let end = self.ends[place as usize];
            let committed_tail = offset(end.saturating_sub(1).max(1));
            self.put(place, segment, CopyFacts { committed_tail, ..copy(end) });
        }
        self.write(decided(&self.chain, tail));
        let place = (left_out + 1) % DISKS;
        let settled = CopyFacts {
            committed_tail: offset(tail),
            decided_tail: Some(offset(tail)),
            ..copy(self.ends[place as usize])
        };
        self.put(place, segment, settled);
        self.ends = [1; 3];
    }

    fn act(&mut self, action: u8, pick: u64) {
        match action {
            0..=3 => drop(self.invoke(pick)),
            4..=7 => self.land(pick),
            8..=10 => self.end(pick),
            11 => self.open_reader(pick),
            12..=15 => self.read(pick),
            16 => self.ask_for_tail(),
            17 => self.answer_tail(pick),
            18 => self.trim(pick),
            _ => self.reconfigure(pick),
        }
    }

    /// All ends well: what is open is ended, everything that is due after the heal is done, a fresh reader reads all.
    fn finish(mut self) -> Vec<Event> {
        self.events.push(Event::Healed);
        // By an appender that has nothing in doubt.
        let last = self.invoke(APPENDERS * 7);
        while self.attempts[last].landed.is_none() {
            self.land(APPENDERS * 7);
        }
        let (call, at) = (self.attempts[last].call, self.attempts[last].landed.unwrap());
        self.events.push(Event::AppendEnded { call, outcome: AppendOutcome::Committed(lsn(at)) });
        self.ask_for_tail();
        while !self.tails.is_empty() {
            self.answer_tail(0);
        }
        for index in 0..self.readers.len() {
            while self.readers[index] < self.tail() {
                self.read(index as u64);
            }
        }
        self.events.push(Event::ReaderOpened { reader: FINAL_SCAN, log: log_id(), from: lsn(1) });
        let mut next = 1;
        while next < self.tail() {
            next = self.give(FINAL_SCAN, next);
        }
        self.events
    }
}

fn history(actions: &[(u8, u64)]) -> Vec<Event> {
    let mut reference = Reference::new();
    for (action, pick) in actions {
        reference.act(*action, *pick);
    }
    reference.finish()
}

fn judged(events: &[Event]) -> Checker {
    let mut checker = Checker::new();
    checker.expect_disks();
    checker.expect_progress(1_000_000);
    for (event, at) in events.iter().zip(0..) {
        checker.observe(at, event);
    }
    checker.finish(&End { at: events.len() as u64, scanned: true, ..End::default() });
    checker
}

/// One thing that cannot be.
#[derive(Debug, Clone, Copy)]
enum Lie {
    /// A reader is not given a record.
    LoseDelivery,
    /// A reader is given a record twice.
    RepeatDelivery,
    /// A reader is given a record that nobody sent.
    ChangeDelivery,
    /// The final scan is given two records the other way round, at least one of which was acknowledged.
    SwapDeliveries,
    /// The last tail is one too low.
    LowerTail,
    /// A tail is one too high.
    RaiseTail,
    /// An append is acknowledged at the next LSN.
    MoveAcknowledgement,
    /// An append is said not to have been, and was acknowledged.
    DenyAcknowledged,
    /// A record is on one disk instead of two.
    LoseCopy,
    /// A disk has other bytes than the others.
    ChangeCopy,
    /// A disk that must be sealed is not.
    LoseSeal,
    /// A write of the chain is missing.
    LoseChainWrite,
    /// A record that somebody acknowledged or read is above the decided tail.
    LowerDecidedTail,
    /// A gap is longer than what was trimmed.
    LongerGap,
    /// An append is sent twice.
    SendAgain,
}

const LIES: &[Lie] = &[
    Lie::LoseDelivery,
    Lie::RepeatDelivery,
    Lie::ChangeDelivery,
    Lie::SwapDeliveries,
    Lie::LowerTail,
    Lie::RaiseTail,
    Lie::MoveAcknowledgement,
    Lie::DenyAcknowledged,
    Lie::LoseCopy,
    Lie::ChangeCopy,
    Lie::LoseSeal,
    Lie::LoseChainWrite,
    Lie::LowerDecidedTail,
    Lie::LongerGap,
    Lie::SendAgain,
];

/// Tells a lie at one of the events where it can be told. `false` if there is none.
fn lie(events: &mut Vec<Event>, lie: Lie, pick: usize) -> bool {
    let places: Vec<usize> = (0..events.len()).filter(|place| can_lie(events, lie, *place)).collect();
    let Some(place) = pick.checked_rem(places.len()).and_then(|index| places.get(index)).copied() else { return false };
    match (lie, &mut events[place]) {
        (Lie::LoseDelivery | Lie::LoseCopy | Lie::LoseSeal | Lie::LoseChainWrite, _) => drop(events.remove(place)),
        (Lie::RepeatDelivery | Lie::SendAgain, event) => {
            let again = event.clone();
            events.insert(place, again);
        }
        (Lie::ChangeDelivery, Event::Delivered { value, .. }) => *value = Value(u64::MAX),
        (Lie::ChangeCopy, Event::Stored { bytes, .. }) => *bytes = Value(u64::MAX),
        (Lie::SwapDeliveries, _) => {
            let (before, after) = events.split_at_mut(place + 1);
            if let (Some(Event::Delivered { value: one, .. }), Some(Event::Delivered { value: two, .. })) =
                (before.last_mut(), after.first_mut())
            {
                std::mem::swap(one, two);
            }
        }
        (Lie::LowerTail, Event::TailEnded { tail, .. }) => *tail = tail.and_then(|tail| tail.previous()),
        (Lie::RaiseTail, Event::TailEnded { tail, .. }) => *tail = tail.and_then(|tail| tail.advance(1).ok()),
        (Lie::MoveAcknowledgement, Event::AppendEnded { outcome: AppendOutcome::Committed(at), .. }) => {
            *at = at.advance(1).unwrap();
        }
        (Lie::DenyAcknowledged, Event::AppendEnded { call, .. }) => {
            let denied = Event::AppendEnded { call: *call, outcome: AppendOutcome::NotAppended };
            events.insert(place + 1, denied);
        }
        (Lie::LowerDecidedTail, Event::ChainWritten { chain }) => {
            let tail = chain.segments.iter().rev().nth(1).and_then(bifrost_types::Segment::decided_tail).unwrap();
            let mut before = chain.clone();
            before.segments.pop();
            before.finished.pop();
            let closed = before.segments.last_mut().unwrap();
            let bifrost_types::SegmentState::Sealed { op, .. } = closed.state else { return false };
            closed.state = bifrost_types::SegmentState::Open;
            before.next_segment = bifrost_types::SegmentIndex::new(chain.next_segment.get() - 1);
            before.version -= 2;
            *chain = decided(&announced(&before, op.get()), tail.get() - 1);
        }
        (Lie::LongerGap, Event::Skipped { until, .. }) => *until = until.advance(1).unwrap(),
        _ => return false,
    }
    true
}

/// Whether an event can be turned into this lie so that it must be noticed.
fn can_lie(events: &[Event], lie: Lie, place: usize) -> bool {
    let acknowledged = |at: bifrost_types::Lsn| {
        let committed = AppendOutcome::Committed(at);
        events.iter().any(|event| matches!(event, Event::AppendEnded { outcome, .. } if *outcome == committed))
    };
    let after = &events[place + 1..];
    match (lie, &events[place]) {
        (Lie::LoseDelivery | Lie::RepeatDelivery | Lie::ChangeDelivery, Event::Delivered { .. })
        | (Lie::RaiseTail, Event::TailEnded { .. })
        | (Lie::LongerGap, Event::Skipped { .. })
        | (Lie::SendAgain, Event::AppendInvoked { .. })
        | (Lie::DenyAcknowledged, Event::AppendEnded { outcome: AppendOutcome::Committed(_), .. }) => true,
        // Nobody knows where it was if it is trimmed before it was read.
        (Lie::MoveAcknowledgement, Event::AppendEnded { outcome: AppendOutcome::Committed(at), .. }) => {
            events.iter().any(|event| matches!(event, Event::Delivered { lsn, .. } if lsn == at))
        }
        // A batch that no other disk has is what it is.
        (Lie::ChangeCopy, Event::Stored { loglet, first_offset, .. }) => copies(events, *loglet, *first_offset) > 1,
        (Lie::SwapDeliveries, Event::Delivered { reader, lsn, .. }) => {
            let next = matches!(after.first(), Some(Event::Delivered { .. }));
            *reader == FINAL_SCAN && next && (acknowledged(*lsn) || lsn.advance(1).is_ok_and(acknowledged))
        }
        // Only the one that was asked for after the last acknowledgement.
        (Lie::LowerTail, Event::TailEnded { call: ended, .. }) => {
            let asked = |event: &Event| matches!(event, Event::TailInvoked { call, .. } if call == ended);
            events.iter().position(asked) > events.iter().position(|event| *event == Event::Healed)
        }
        (Lie::LoseCopy, Event::Stored { loglet, first_offset, .. }) => copies(events, *loglet, *first_offset) == 2,
        (Lie::LoseSeal, Event::CopyWritten { facts, .. }) => facts.sealed.is_some() && facts.decided_tail.is_none(),
        // The very first one only shows who came later.
        (Lie::LoseChainWrite, Event::ChainWritten { chain }) => {
            chain.version > 1 && after.iter().any(|event| matches!(event, Event::ChainWritten { .. }))
        }
        (Lie::LowerDecidedTail, Event::ChainWritten { chain }) => {
            let end = chain.segments.last().unwrap().base_lsn;
            let closes = chain.pending.is_none()
                && chain.segments.len() > 1
                && matches!(&events[place - 1], Event::CopyWritten { facts, .. } if facts.sealed.is_some());
            let empty = chain.segments.iter().rev().nth(1).is_some_and(|segment| segment.base_lsn == end);
            let last = end.previous();
            let known = events[..place].iter().any(|event| match event {
                Event::AppendEnded { outcome: AppendOutcome::Committed(at), .. } => Some(*at) == last,
                Event::Delivered { lsn, .. } => Some(*lsn) == last,
                _ => false,
            });
            closes && !empty && known
        }
        _ => false,
    }
}

fn copies(events: &[Event], wanted: bifrost_types::LogletId, at: bifrost_types::LogletOffset) -> usize {
    let here = |event: &&Event| matches!(event, Event::Stored { loglet, first_offset, .. } if (*loglet, *first_offset) == (wanted, at));
    events.iter().filter(here).count()
}

fn actions() -> impl Strategy<Value = Vec<(u8, u64)>> {
    prop::collection::vec((0..20_u8, 0..10_000_u64), 0..150)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn a_history_of_the_reference_is_never_reported(actions in actions()) {
        let checker = judged(&history(&actions));
        prop_assert_eq!(checker.breaches(), []);
    }

    #[test]
    fn a_history_with_one_lie_is_always_reported(actions in actions(), which in 0..LIES.len(), pick in 0..10_000_usize) {
        let mut events = history(&actions);
        if lie(&mut events, LIES[which], pick) {
            prop_assert!(judged(&events).breach_count() > 0, "{:?} was not noticed in {:#?}", LIES[which], events);
        }
    }
}

/// A history in which everything happens, so that no lie goes untold by chance.
fn eventful() -> Vec<Event> {
    let mut actions = Vec::new();
    for round in 0..60_u64 {
        for action in [0, 1, 4, 5, 8 + (round % 3) as u8, 12, 13] {
            actions.push((action, round * 31 + u64::from(action) * 7));
        }
        actions
            .extend([(11, round), (16, 0), (17, round), (18, round / 2), (19, round)].iter().skip(round as usize % 5));
    }
    history(&actions)
}

#[test]
fn every_lie_is_told_and_found_wherever_it_is_told() {
    let truth = eventful();
    assert_eq!(judged(&truth).breaches(), []);
    for which in LIES {
        let mut told = 0;
        for pick in 0..12 {
            let mut events = truth.clone();
            if lie(&mut events, *which, pick * 17) {
                told += 1;
                assert!(judged(&events).breach_count() > 0, "{which:?} number {pick} was not noticed");
            }
        }
        assert!(told > 0, "{which:?} was never told");
    }
}

#[test]
fn the_reference_puts_the_rules_to_the_test() {
    let never: Vec<Rule> = judged(&eventful()).summary().never_checked().collect();
    let elsewhere = [
        Rule::IdleIsQuiet,
        Rule::WritersGoOn,
        Rule::LossIsAllowed,
        Rule::LossIsTold,
        Rule::LivesGrow,
        Rule::GarbageGoes,
    ];
    assert!(never.iter().all(|rule| elsewhere.contains(rule)), "{never:?}");
}
