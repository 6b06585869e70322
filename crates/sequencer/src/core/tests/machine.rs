//! Long random schedules with everything that may happen to a sequencer: writers that open streams and lose them, copies
//! that break off, refuse, run full, are sealed or wiped, answers that come late and twice, and what was left behind being
//! backfilled. At the end the copies that are left are well, and everything must be acknowledged and caught up.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::*;

/// What a server says to one request instead of storing it.
#[derive(Debug, Clone, Copy)]
enum Refusal {
    Overloaded,
    DiskFull,
    Damaged,
}

#[derive(Debug, Clone)]
enum Action {
    Open { writer: u8 },
    Leave { writer: u8 },
    Append { writer: u8, older: bool, records: u8, bytes: usize },
    Send(usize),
    Serve(usize),
    Refuse(usize, Refusal),
    Answer { copy: usize, again: bool },
    AnswerLate(usize),
    Break { copy: usize, lose: bool },
    Connect(usize),
    Follow { copy: usize, followed: bool },
    Backfill { copy: usize, works: bool },
    Wait(u64),
    Seal(usize),
    Wipe(usize),
}

const WRITERS: u8 = 3;

fn action() -> impl Strategy<Value = Action> {
    let copy = || 0..5_usize;
    let refusal = prop_oneof![Just(Refusal::Overloaded), Just(Refusal::DiskFull), Just(Refusal::Damaged)];
    prop_oneof![
        20 => (0..WRITERS, prop::bool::weighted(0.1), 1..4_u8, 16..40_usize)
            .prop_map(|(writer, older, records, bytes)| Action::Append { writer, older, records, bytes }),
        6 => (0..WRITERS).prop_map(|writer| Action::Open { writer }),
        1 => (0..WRITERS).prop_map(|writer| Action::Leave { writer }),
        24 => copy().prop_map(Action::Send),
        24 => copy().prop_map(Action::Serve),
        3 => (copy(), refusal).prop_map(|(copy, refusal)| Action::Refuse(copy, refusal)),
        24 => (copy(), prop::bool::weighted(0.1)).prop_map(|(copy, again)| Action::Answer { copy, again }),
        2 => copy().prop_map(Action::AnswerLate),
        3 => (copy(), any::<bool>()).prop_map(|(copy, lose)| Action::Break { copy, lose }),
        8 => copy().prop_map(Action::Connect),
        4 => (copy(), any::<bool>()).prop_map(|(copy, followed)| Action::Follow { copy, followed }),
        4 => (copy(), prop::bool::weighted(0.8)).prop_map(|(copy, works)| Action::Backfill { copy, works }),
        4 => (0..200_u64).prop_map(Action::Wait),
        1 => prop::bool::weighted(0.05).prop_flat_map(move |sealed| {
            copy().prop_map(move |copy| if sealed { Action::Seal(copy) } else { Action::Wipe(copy) })
        }),
    ]
}

/// A copy as a log server keeps it, and what is on its way to it and from it.
#[derive(Default)]
struct Server {
    connection: Option<u64>,
    requests: VecDeque<(u64, StoreRequest)>,
    answers: VecDeque<(u64, Result<CopyState, CopyError>)>,
    /// Of connections that broke.
    late: VecDeque<(u64, Result<CopyState, CopyError>)>,
    /// Each offset with its batch.
    has: BTreeMap<u64, Bytes>,
    /// What was durable there once, before the disk was lost.
    had: BTreeSet<u64>,
    tail: u64,
    committed: u64,
    sealed: bool,
    wiped: bool,
}

impl Server {
    fn state(&self) -> CopyState {
        CopyState { committed_tail: offset(self.committed), ..state(self.tail) }
    }

    fn take(&mut self, request: &StoreRequest) -> Result<CopyState, CopyError> {
        if self.wiped {
            return Err(CopyError::WrongDisk { actual: DiskId::try_from(99).expect("non-zero") });
        }
        if self.sealed {
            return Err(CopyError::Sealed { op: op() });
        }
        let first = request.first_offset.get();
        let committed = self.committed.max(request.committed_tail.get());
        if !request.batches.is_empty() && first > self.tail.max(committed) {
            return Err(CopyError::Hole { expected: offset(self.tail.max(committed)) });
        }
        self.committed = committed;
        let mut at = first;
        for batch in &request.batches {
            for place in at..at + u64::from(batch[0]) {
                let known = self.has.entry(place).or_insert_with(|| batch.clone());
                assert_eq!(known, batch, "A1: offset {place} was given twice");
                self.had.insert(place);
            }
            at += u64::from(batch[0]);
        }
        self.tail = self.tail.max(at);
        let hole = (self.committed..self.tail).find(|place| !self.has.contains_key(place));
        assert_eq!(hole, None, "L1: a hole above the committed tail");
        Ok(self.state())
    }
}

/// A batch that was given offsets and is not acknowledged.
struct InFlight {
    stream: StreamId,
    first: u64,
    end: u64,
}

struct World {
    core: Core<()>,
    indexes: Vec<NodeIndex>,
    copies_wanted: usize,
    servers: Vec<Server>,
    connections: u64,
    /// The streams of each writer, newest last, as the writer knows them.
    writers: BTreeMap<u8, Vec<StreamId>>,
    streams: u64,
    appended: u64,
    in_flight: VecDeque<InFlight>,
    closed: BTreeSet<StreamId>,
    now: u64,
    last: SequencerTails,
    ended: bool,
}

impl World {
    fn new(members: u32, copies: u8, retained: usize) -> Self {
        let params = params(members, copies);
        let indexes: Vec<NodeIndex> = params.nodeset.indexes().collect();
        let core = Core::new(params, retaining(retained)).expect("enough members");
        let server = || Server { tail: 1, committed: 1, ..Server::default() };
        Self {
            last: core.tails(),
            core,
            copies_wanted: usize::from(copies),
            servers: indexes.iter().map(|_| server()).collect(),
            indexes,
            connections: 0,
            writers: BTreeMap::new(),
            streams: 0,
            appended: 0,
            in_flight: VecDeque::new(),
            closed: BTreeSet::new(),
            now: 0,
            ended: false,
        }
    }

    fn act(&mut self, action: &Action) {
        let members = self.servers.len();
        match *action {
            Action::Open { writer } => self.open(writer),
            Action::Leave { writer } => {
                if let Some(stream) = self.writers.get(&writer).and_then(|streams| streams.last()).copied() {
                    self.step(Event::StreamEnded { stream });
                    self.closed.insert(stream);
                }
            }
            Action::Append { writer, older, records, bytes } => self.append(writer, older, records, bytes),
            Action::Send(copy) => self.send(copy % members),
            Action::Serve(copy) => self.serve(copy % members),
            Action::Refuse(copy, refusal) => self.refuse(copy % members, refusal),
            Action::Answer { copy, again } => self.answer(copy % members, again),
            Action::AnswerLate(copy) => {
                if let Some((connection, outcome)) = self.servers[copy % members].late.pop_front() {
                    self.stored(copy % members, connection, outcome);
                }
            }
            Action::Break { copy, lose } => self.break_off(copy % members, lose),
            Action::Connect(copy) => self.connect(copy % members),
            Action::Follow { copy, followed } => {
                if let Some(connection) = self.servers[copy % members].connection {
                    self.step(Event::Followed { index: self.indexes[copy % members], connection, followed });
                }
            }
            Action::Backfill { copy, works } => self.backfill(copy % members, works),
            Action::Wait(millis) => {
                self.now += millis;
                self.step(Event::Tick);
            }
            Action::Seal(copy) => self.servers[copy % members].sealed = true,
            Action::Wipe(copy) => {
                // As many disks as may be lost without losing what is acknowledged.
                let lost = self.servers.iter().filter(|server| server.wiped).count();
                if lost + self.copies_wanted < members && lost + 1 < self.copies_wanted {
                    let server = &mut self.servers[copy % members];
                    server.wiped = true;
                    server.has.clear();
                }
            }
        }
        let tails = self.core.tails();
        let unacknowledged = self.in_flight.front().map_or(tails.next_offset.get(), |batch| batch.first);
        assert!(self.ended || unacknowledged == tails.committed_tail.get(), "committed and not told, or the reverse");
    }

    fn open(&mut self, writer_number: u8) {
        self.streams += 1;
        let stream = StreamId(self.streams);
        let streams = self.writers.entry(writer_number).or_default();
        streams.push(stream);
        let incarnation = streams.len() as u64;
        let writer = writer(u128::from(writer_number) + 1);
        self.step(Event::StreamOpened { stream, writer, incarnation });
    }

    fn append(&mut self, writer: u8, older: bool, records: u8, bytes: usize) {
        let streams = self.writers.get(&writer).map_or(&[][..], Vec::as_slice);
        let place = streams.len().checked_sub(if older { 2 } else { 1 });
        let Some(stream) = place.and_then(|place| streams.get(place)).copied() else { return };
        let newest = !older && !self.closed.contains(&stream);
        self.appended += 1;
        // What it is, so that a server can tell one batch from another: how many records, and which.
        let mut batch = vec![records; bytes];
        batch[1..9].copy_from_slice(&self.appended.to_be_bytes());
        let first = self.core.tails().next_offset;
        self.step(Event::Append { stream, records: records.into(), batch: batch.into(), room: () });
        let end = self.core.tails().next_offset;
        if end > first {
            assert!(newest, "A7: a stream that was superseded or closed got an offset");
            assert_eq!(end.get(), first.get() + u64::from(records));
            self.in_flight.push_back(InFlight { stream, first: first.get(), end: end.get() });
        }
    }

    fn send(&mut self, copy: usize) {
        let Some(connection) = self.servers[copy].connection else { return };
        if let Some(request) = self.core.next_store(self.indexes[copy]) {
            assert_eq!(request.committed_tail, self.core.tails().committed_tail, "old news");
            self.core.check();
            self.servers[copy].requests.push_back((connection, request));
        }
    }

    fn serve(&mut self, copy: usize) {
        let server = &mut self.servers[copy];
        let Some((connection, request)) = server.requests.pop_front() else { return };
        let outcome = server.take(&request);
        if outcome.is_err() || !request.batches.is_empty() {
            let answers = if server.connection == Some(connection) { &mut server.answers } else { &mut server.late };
            answers.push_back((connection, outcome));
        }
    }

    fn refuse(&mut self, copy: usize, refusal: Refusal) {
        let server = &mut self.servers[copy];
        if server.wiped || server.sealed || server.requests.front().is_none_or(|(_, store)| store.batches.is_empty()) {
            return;
        }
        let Some((connection, request)) = server.requests.pop_front() else { return };
        let error = match refusal {
            Refusal::Overloaded => CopyError::Overloaded,
            Refusal::DiskFull => CopyError::DiskFull,
            Refusal::Damaged => CopyError::BadBatch { offset: request.first_offset },
        };
        let answers = if server.connection == Some(connection) { &mut server.answers } else { &mut server.late };
        answers.push_back((connection, Err(error)));
    }

    fn answer(&mut self, copy: usize, again: bool) {
        let answers = &mut self.servers[copy].answers;
        let Some((connection, outcome)) = answers.pop_front() else { return };
        if again && outcome.is_ok() {
            answers.push_front((connection, outcome));
        }
        self.stored(copy, connection, outcome);
    }

    fn stored(&mut self, copy: usize, connection: u64, outcome: Result<CopyState, CopyError>) {
        let index = self.indexes[copy];
        let fenced =
            matches!(outcome, Err(CopyError::Sealed { .. })) && self.core.copies()[copy].is_current(connection);
        self.step(Event::Stored { index, connection, outcome });
        assert!(!fenced || self.core.phase() != Phase::Running, "a sealed answer ends a sequencer");
    }

    fn break_off(&mut self, copy: usize, lose: bool) {
        let server = &mut self.servers[copy];
        let Some(connection) = server.connection.take() else { return };
        let answers = std::mem::take(&mut server.answers);
        if lose {
            server.requests.clear();
        } else {
            // They are carried out, and answered to nobody who still asks.
            server.late.extend(answers);
        }
        self.step(Event::CopyDown { index: self.indexes[copy], connection });
    }

    fn connect(&mut self, copy: usize) {
        if self.servers[copy].connection.is_none() {
            self.connections += 1;
            self.servers[copy].connection = Some(self.connections);
            self.step(Event::CopyUp { index: self.indexes[copy], connection: self.connections });
        }
    }

    fn backfill(&mut self, copy: usize, works: bool) {
        let Some((from, until)) = self.core.copies()[copy].first_missing() else { return };
        assert!(until <= self.core.tails().committed_tail, "only what is committed is backfilled");
        let mut reached = from.get();
        if works && !self.servers[copy].wiped {
            for place in from.get()..until.get() {
                let held = self.servers.iter().find_map(|server| server.has.get(&place)).cloned();
                let batch = held.expect("what is committed is somewhere");
                let known = self.servers[copy].has.entry(place).or_insert_with(|| batch.clone());
                assert_eq!(known, &batch, "A1");
                self.servers[copy].had.insert(place);
                reached = place + 1;
            }
        }
        self.step(Event::Backfilled { index: self.indexes[copy], until: offset(reached) });
    }

    fn step(&mut self, event: Event<()>) {
        let mut effects = Vec::new();
        self.core.step(self.now, event, &mut effects);
        self.core.check();
        for effect in effects {
            match effect {
                Effect::Committed { stream, first_offset } => {
                    assert!(!self.ended, "acknowledged after its end");
                    let batch = self.in_flight.pop_front().expect("only what was appended is acknowledged");
                    assert_eq!(
                        (stream, first_offset.get()),
                        (batch.stream, batch.first),
                        "in order, each in its place"
                    );
                    for place in batch.first..batch.end {
                        let holders = self.servers.iter().filter(|server| server.had.contains(&place)).count();
                        assert!(holders >= self.copies_wanted, "A2: {place} is acknowledged on {holders} copies");
                    }
                }
                Effect::Opened { tails, .. } => assert_eq!(tails, self.core.tails()),
                Effect::Close { stream, .. } => {
                    self.closed.insert(stream);
                }
                Effect::Alarm { .. } => {}
            }
        }
        let tails = self.core.tails();
        assert!(self.last.committed_tail <= tails.committed_tail, "the committed tail went back");
        assert!(self.last.next_offset <= tails.next_offset, "an offset is given again");
        self.last = tails;
        self.ended = self.core.phase() != Phase::Running;
        for (copy, server) in self.core.copies().iter().zip(&self.servers) {
            assert!(server.wiped || copy.link != Link::Lost, "a good copy is left out");
            assert!(server.wiped || copy.stored_tail.get() <= server.tail, "more is counted than is there");
        }
    }

    /// Everybody is well again: whatever was appended is acknowledged, and no copy lacks anything.
    fn heal(&mut self) {
        if self.ended || self.servers.iter().any(|server| server.sealed) {
            return;
        }
        for _ in 0..200 {
            self.now += 2_000;
            self.step(Event::Tick);
            for copy in 0..self.servers.len() {
                self.connect(copy);
                self.send(copy);
                while !self.servers[copy].requests.is_empty() {
                    self.serve(copy);
                }
                while !self.servers[copy].answers.is_empty() {
                    self.answer(copy, false);
                }
                self.backfill(copy, true);
            }
        }
        let tails = self.core.tails();
        assert_eq!(tails.committed_tail, tails.next_offset, "something is never acknowledged");
        for (copy, server) in self.core.copies().iter().zip(&self.servers).filter(|(_, server)| !server.wiped) {
            assert_eq!(copy.first_missing(), None, "a copy is never caught up");
            let missing = (1..tails.next_offset.get()).find(|place| !server.has.contains_key(place));
            assert_eq!(missing, None, "a copy is not caught up, and nobody knows");
            assert_eq!(server.committed, tails.next_offset.get(), "a copy is not told how far its readers may go");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_schedule_breaks_a_promise_or_leaves_anything_behind(
        (members, copies) in prop_oneof![Just((3, 2)), Just((4, 3)), Just((5, 2)), Just((3, 3)), Just((2, 1))],
        retained in 0..400_usize,
        actions in prop::collection::vec(action(), 1..500),
    ) {
        #[cfg(bifrost_plant)]
        bifrost_types::plant::set_from_env();
        let mut world = World::new(members, copies, retained);
        for action in &actions {
            world.act(action);
        }
        world.heal();
    }
}
