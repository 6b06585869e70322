//! Long random schedules of one reader over three copies that lag, have holes and damage, break off and lie about the order
//! of parts, while records are committed, trimmed and at last decided, and copies are declared lost. At the end every copy
//! that was not declared lost answers, and the reader must reach the decided tail.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Action {
    Commit(u8),
    Learn(usize),
    TellOwner,
    Trim(u64),
    Decide,
    Serve,
    ServeLate(usize),
    Nonsense(usize),
    Break { stream: usize, passing: bool },
    Down(usize),
    Up(usize),
    Declare(usize),
    Wait(u64),
}

fn action() -> impl Strategy<Value = Action> {
    let copy = || 0..3_usize;
    prop_oneof![
        8 => any::<u8>().prop_map(Action::Commit),
        8 => copy().prop_map(Action::Learn),
        4 => Just(Action::TellOwner),
        1 => (0..40_u64).prop_map(Action::Trim),
        1 => prop::bool::weighted(0.2).prop_map(|decide| if decide { Action::Decide } else { Action::TellOwner }),
        40 => Just(Action::Serve),
        1 => any::<usize>().prop_map(Action::ServeLate),
        1 => any::<usize>().prop_map(Action::Nonsense),
        2 => (any::<usize>(), any::<bool>()).prop_map(|(stream, passing)| Action::Break { stream, passing }),
        1 => copy().prop_map(Action::Down),
        2 => copy().prop_map(Action::Up),
        1 => (0..12_usize).prop_map(Action::Declare),
        12 => (0..300_u64).prop_map(Action::Wait),
    ]
}

/// One batch and where it is.
#[derive(Debug, Clone)]
struct Batch {
    first: u64,
    end: u64,
    on: [bool; 3],
    damaged: [bool; 3],
    filtered: bool,
}

#[derive(Debug)]
struct Stream {
    node: usize,
    at: u64,
    watch: bool,
    credit: i64,
    readable: u64,
    told: u64,
}

struct World {
    plan: ReadPlan,
    now: u64,
    batches: Vec<Batch>,
    /// The committed tail, which nobody may read beyond (R1).
    committed: u64,
    decided: Option<u64>,
    trim_point: u64,
    copies_know: [u64; 3],
    up: [bool; 3],
    /// Declared lost by an operator: it is down for ever.
    lost: [bool; 3],
    streams: BTreeMap<u64, Stream>,
    closed: BTreeSet<u64>,
    /// What the reader has delivered ends here.
    position: u64,
    ended: bool,
}

impl World {
    fn new(until: Option<u64>) -> Self {
        let options = ReadOptions { credit_bytes: NonZeroU64::new(100).unwrap(), ..ReadOptions::default() };
        let mut world = Self {
            plan: ReadPlan::new(params(), LogletOffset::FIRST, until.map(offset), options),
            now: 0,
            batches: Vec::new(),
            committed: 1,
            decided: None,
            trim_point: 0,
            copies_know: [1; 3],
            up: [true; 3],
            lost: [false; 3],
            streams: BTreeMap::new(),
            closed: BTreeSet::new(),
            position: 1,
            ended: false,
        };
        world.tell_owner();
        world
    }

    fn act(&mut self, action: &Action) {
        match *action {
            Action::Commit(dice) => self.commit(dice),
            Action::Learn(copy) => self.copies_know[copy] = self.committed,
            Action::TellOwner => self.tell_owner(),
            Action::Trim(point) => self.trim_point = self.trim_point.max(point.min(self.committed - 1)),
            Action::Decide => {
                self.decided.get_or_insert(self.committed);
                self.tell_owner();
            }
            Action::Serve => {
                self.serve_what_is_polled();
            }
            Action::ServeLate(pick) => {
                if let Some(stream) = nth(self.closed.iter(), pick).copied() {
                    let part = self.part_at(1, 0, 9);
                    self.step(Event::Part { stream: StreamId(stream), part });
                    self.step(Event::Ended { stream: StreamId(stream), passing: true });
                }
            }
            Action::Nonsense(pick) => {
                if let Some((&stream, at)) = nth(self.streams.iter(), pick).map(|(id, stream)| (id, stream.at))
                    && at < u64::MAX
                {
                    let (from, end) = if pick.is_multiple_of(2) { (at + 1, at + 2) } else { (at, at) };
                    let part = Part { from: offset(from), end: offset(end), kind: PartKind::Batch, bytes: 10 };
                    self.step(Event::Part { stream: StreamId(stream), part });
                    assert!(!self.streams.contains_key(&stream), "a peer that speaks nonsense is still listened to");
                }
            }
            Action::Break { stream, passing } => {
                if let Some(&stream) = nth(self.streams.keys(), stream) {
                    self.end_stream(stream, passing);
                }
            }
            Action::Down(copy) => {
                self.up[copy] = false;
                self.end_streams_of_the_dead();
            }
            Action::Up(copy) => self.up[copy] = !self.lost[copy],
            // Most of the draw is nothing: a word is rare, and for ever. Of a decided loglet only.
            Action::Declare(copy) if copy < 3 && self.decided.is_some() => self.declare_lost(copy),
            Action::Declare(_) => {}
            Action::Wait(millis) => self.wait(millis),
        }
    }

    fn declare_lost(&mut self, copy: usize) {
        (self.up[copy], self.lost[copy]) = (false, true);
        let lost = params().nodeset.indexes().zip(self.lost).filter(|(_, lost)| *lost).map(|(index, _)| index);
        self.step(Event::DeclaredLost(lost.collect()));
        let asked = self.streams.values().any(|stream| stream.node == copy);
        assert!(!asked, "a disk that was declared lost is asked");
    }

    /// Whether some copy that was not declared lost has an offset undamaged.
    fn may_come_back(&self, at: u64) -> bool {
        let batch = self.batches.iter().find(|batch| batch.first <= at && at < batch.end);
        batch.is_some_and(|batch| (0..3).any(|copy| batch.on[copy] && !batch.damaged[copy] && !self.lost[copy]))
    }

    /// One more batch, on two or three copies, of which at least one has it undamaged.
    fn commit(&mut self, dice: u8) {
        if self.decided.is_some() || self.batches.len() >= 60 {
            return;
        }
        let missing = usize::from(dice % 6);
        let damaged = usize::from(dice / 6 % 12);
        let on = [0, 1, 2].map(|copy| copy != missing);
        self.batches.push(Batch {
            first: self.committed,
            end: self.committed + 1 + u64::from(dice % 3),
            on,
            damaged: [0, 1, 2].map(|copy| copy == damaged && on[copy]),
            filtered: dice > 230,
        });
        self.committed += 1 + u64::from(dice % 3);
    }

    fn tell_owner(&mut self) {
        let trim_point = LogletOffset::new(self.trim_point);
        let decided = self.decided.map(offset);
        self.step(Event::Readable(Readable { tail: offset(self.committed), decided, trim_point }));
    }

    /// What a copy says of `at`, knowing that it may give out what lies below `readable`; `None` if it waits.
    fn answer(&self, node: usize, at: u64, readable: u64) -> Option<Part> {
        if at <= self.trim_point {
            let (from, end) = (offset(at), offset(self.trim_point + 1));
            return Some(Part { from, end, kind: PartKind::Trimmed, bytes: 0 });
        }
        (at < readable).then(|| self.part_at(at, node, readable))
    }

    fn part_at(&self, at: u64, node: usize, readable: u64) -> Part {
        let Some(batch) = self.batches.iter().find(|batch| batch.first <= at && at < batch.end) else {
            return Part { from: offset(at), end: offset(readable.max(at + 1)), kind: PartKind::Missing, bytes: 0 };
        };
        let (kind, from, bytes) = match (batch.on[node], batch.damaged[node], batch.filtered) {
            (false, ..) => (PartKind::Missing, at, 0),
            (true, true, _) => (PartKind::Corrupt, at, 10),
            (true, false, true) => (PartKind::Filtered, at, 0),
            (true, false, false) => (PartKind::Batch, batch.first, 10),
        };
        Part { from: offset(from), end: offset(batch.end), kind, bytes }
    }

    /// What the driver does: the stream that is wanted, and the watches. Otherwise time passes.
    fn serve_what_is_polled(&mut self) -> bool {
        let wanted = self.plan.wanted();
        let polled: Vec<u64> = wanted.map(|stream| stream.0).into_iter().chain(self.watches()).collect();
        for id in polled {
            let (decided, know) = (self.decided, self.copies_know);
            let Some(stream) = self.streams.get(&id) else { continue };
            let (node, at) = (stream.node, stream.at);
            let readable = decided.unwrap_or_else(|| know[node].max(stream.readable));
            let part = if stream.watch || stream.credit <= 0 { None } else { self.answer(node, at, readable) };
            if let Some(part) = part {
                let stream = self.streams.get_mut(&id).unwrap();
                stream.at = part.end.get();
                stream.credit -= i64::try_from(part.bytes).unwrap();
                self.step(Event::Part { stream: StreamId(id), part });
                return true;
            }
            let news = decided.unwrap_or(know[node]);
            if stream.told < news {
                self.streams.get_mut(&id).unwrap().told = news;
                self.step(Event::Tail { stream: StreamId(id), tail: offset(news) });
                return true;
            }
        }
        false
    }

    fn watches(&self) -> Vec<u64> {
        self.streams.iter().filter(|(_, stream)| stream.watch).map(|(id, _)| *id).collect()
    }

    fn wait(&mut self, longest: u64) {
        let wake = self.plan.wake_at(millis(self.now)).map(|at| u64::try_from(at.as_millis()).unwrap());
        self.now = wake.map_or(self.now + longest, |wake| wake.clamp(self.now, self.now + longest));
        if wake.is_some_and(|wake| wake <= self.now) {
            self.step(Event::TimePassed);
        }
    }

    fn end_stream(&mut self, stream: u64, passing: bool) {
        self.streams.remove(&stream);
        self.closed.insert(stream);
        self.step(Event::Ended { stream: StreamId(stream), passing });
    }

    fn end_streams_of_the_dead(&mut self) {
        while let Some((&stream, _)) = self.streams.iter().find(|(_, stream)| !self.up[stream.node]) {
            self.end_stream(stream, true);
        }
    }

    fn step(&mut self, event: Event) {
        let mut out = Vec::new();
        self.plan.step(millis(self.now), event, &mut out);
        for effect in out {
            let news = matches!(effect, Effect::Progress(ReadProgress::Flowing));
            assert!(!self.ended || news, "it goes on after its end: {effect:?}");
            match effect {
                Effect::Open(open) => {
                    assert!(open.readable_tail.get() <= self.committed, "R1: more than is committed");
                    let stream = Stream {
                        node: open.node.get(),
                        at: open.from.get(),
                        watch: open.watch,
                        credit: i64::try_from(open.credit_bytes).unwrap(),
                        readable: open.readable_tail.get(),
                        told: 0,
                    };
                    assert!(self.streams.insert(open.stream.0, stream).is_none(), "a stream id is used twice");
                    assert!(!self.closed.contains(&open.stream.0), "a stream id is used again");
                }
                Effect::Close(stream) => {
                    self.streams.remove(&stream.0);
                    assert!(self.closed.insert(stream.0), "closed twice");
                }
                Effect::Grant { stream, credit_bytes, readable_tail } => {
                    assert!(readable_tail.get() <= self.committed, "R1: more than is committed");
                    let stream = self.streams.get_mut(&stream.0).expect("a grant is for an open stream");
                    stream.credit += i64::try_from(credit_bytes).unwrap();
                    stream.readable = stream.readable.max(readable_tail.get());
                }
                Effect::Deliver(delivery) => self.delivered(event, delivery),
                Effect::End => {
                    self.ended = true;
                    assert!(self.streams.is_empty(), "streams are left open");
                }
                Effect::Fail(error) => panic!("{error}"),
                Effect::Damaged { .. } | Effect::Lagging { .. } | Effect::Progress(_) => {}
            }
        }
        self.end_streams_of_the_dead();
    }

    fn delivered(&mut self, event: Event, delivery: Delivery) {
        let (from, end) = match delivery {
            Delivery::CaughtUp { tail } => {
                assert_eq!(tail.get(), self.position, "caught up with something else than was delivered");
                return;
            }
            Delivery::Batch { from, end } | Delivery::Filtered { from, end } => {
                let Event::Part { part, .. } = event else { panic!("records out of nothing") };
                assert!(matches!(part.kind, PartKind::Batch | PartKind::Filtered), "{part:?} as records");
                assert!(part.from <= from && end <= part.end, "records that the part does not have");
                (from, end)
            }
            Delivery::Gap { from, end, kind } => {
                match kind {
                    GapKind::Trimmed => assert!(end.get() <= self.trim_point + 1, "not all of the gap was trimmed"),
                    GapKind::Lost => {
                        let early = (from.get()..end.get()).find(|at| self.may_come_back(*at));
                        assert_eq!(early, None, "R3: lost, and a copy that nobody declared lost has it");
                    }
                }
                (from, end)
            }
        };
        assert_eq!(from.get(), self.position, "a hole in what is delivered, or a repeat");
        assert!(from < end && end.get() <= self.committed, "R1: read beyond the committed tail");
        self.position = end.get();
    }

    /// Every copy that was not declared lost answers, knows what is committed, and the loglet is closed.
    fn heal(&mut self, until: Option<u64>) {
        self.up = self.lost.map(|lost| !lost);
        self.copies_know = [self.committed; 3];
        self.act(&Action::Decide);
        for _ in 0..2_000 {
            if self.ended {
                break;
            }
            if !self.serve_what_is_polled() {
                self.wait(5_000);
            }
        }
        let end = until.map_or(self.committed, |until| until.min(self.committed)).max(1);
        assert!(self.ended, "stuck at {} of {end}: {:?}", self.position, self.plan);
        assert_eq!(self.position, end);
    }
}

fn nth<T>(items: impl ExactSizeIterator<Item = T>, pick: usize) -> Option<T> {
    let count = items.len();
    let mut items = items;
    items.nth(pick.checked_rem(count)?)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_schedule_delivers_what_may_not_be_read_or_gets_stuck(
        actions in prop::collection::vec(action(), 1..500),
        until in prop::option::weighted(0.2, 1..60_u64),
    ) {
        #[cfg(bifrost_plant)]
        bifrost_types::plant::set_from_env();
        let mut world = World::new(until);
        for action in &actions {
            world.act(action);
        }
        world.heal(until);
    }
}
