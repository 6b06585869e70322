//! The core over a small model: servers that obey L1 and L3, a sequencer, and a network that loses, repeats and reorders.
//! Finders come in pairs, are dropped at any step and begin again. S1 to S4 are checked after every step.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

/// One copy. Records have no bytes here: one sequencer numbers them, so an offset is a record.
#[derive(Debug, Clone, Default)]
struct Server {
    records: BTreeSet<u64>,
    /// All that was ever stored: a finder may propose, too late, what the decision has dropped since.
    ever: BTreeSet<u64>,
    /// What came from the sequencer and not by repair: only this can be acknowledged.
    from_sequencer: BTreeSet<u64>,
    local: u64,
    committed: u64,
    sealed: Option<OpId>,
    decided: Option<u64>,
    lost: bool,
}

impl Server {
    fn new() -> Self {
        Self { local: 1, committed: 1, ..Self::default() }
    }

    fn state(&self) -> CopyState {
        CopyState {
            local_tail: offset(self.local),
            committed_tail: offset(self.committed),
            sealed: self.sealed,
            decided_tail: self.decided.map(offset),
            trim_point: None,
        }
    }

    /// L1, for stores and repairs alike.
    fn take(&mut self, first: u64, end: u64, committed: u64) -> bool {
        self.committed = self.committed.max(committed);
        if first > self.local.max(self.committed) || self.decided.is_some_and(|tail| end > tail) {
            return false;
        }
        self.records.extend(first..end);
        self.ever.extend(first..end);
        self.local = self.local.max(end);
        true
    }

    /// The committed tail is not durable, but no hole may lie above it.
    fn restart(&mut self) {
        self.committed = (1..self.local).rev().find(|at| !self.records.contains(at)).map_or(1, |hole| hole + 1);
    }

    fn settle(&mut self, tail: u64) {
        self.decided = Some(tail);
        self.records.retain(|at| *at < tail);
        self.local = self.local.min(tail);
    }
}

#[derive(Debug, Clone)]
enum Message {
    Store { server: usize, first: u64, end: u64, committed: u64 },
    Stored { server: usize, local: u64 },
    Call { finder: usize, life: u32, op: OpId, effect: Effect },
    Reply { finder: usize, life: u32, event: Event, lost: Event },
    End { finder: usize, life: u32 },
    Settle { server: usize, tail: u64 },
}

struct Finder {
    core: CloseLoglet,
    op: OpId,
    life: u32,
    done: bool,
}

struct World {
    params: LogletParams,
    quorum: Quorum,
    servers: Vec<Server>,
    next: u64,
    committed: u64,
    /// The sequencer gave its last word.
    ended: bool,
    acknowledged: Vec<Option<LogletOffset>>,
    finders: Vec<Finder>,
    network: Vec<Message>,
    decided: Option<u64>,
    now: Duration,
    /// Any number of disks may be lost.
    disaster: bool,
}

impl World {
    fn new(places: &[&str], replication: &str, two_ops: bool, disaster: bool) -> Self {
        let params = params(&places.iter().map(|place| (*place).to_owned()).collect::<Vec<_>>(), replication);
        let ops = [op(1), op(if two_ops { 2 } else { 1 })];
        Self {
            quorum: Quorum::new(&params.nodeset, &params.replication).expect("a property that the nodeset meets"),
            servers: vec![Server::new(); places.len()],
            next: 1,
            committed: 1,
            ended: false,
            acknowledged: vec![None; places.len()],
            finders: ops
                .map(|op| Finder { core: CloseLoglet::new(&params, op).expect("as above"), op, life: 0, done: false })
                .into_iter()
                .collect(),
            network: Vec::new(),
            decided: None,
            now: Duration::ZERO,
            disaster,
            params,
        }
    }

    fn act(&mut self, kind: u8, pick: usize) {
        let (server, finder) = (pick % self.servers.len(), pick % self.finders.len());
        let message = (!self.network.is_empty()).then(|| pick % self.network.len());
        match (kind % 24, message) {
            (0..=2, _) => {
                self.next += 1;
                for server in 0..self.servers.len() {
                    let (first, end) = (self.next - 1, self.next);
                    self.network.push(Message::Store { server, first, end, committed: self.committed });
                }
            }
            (3, _) => {
                // Catch-up: everything from the acknowledged tail, or a jump to the committed one (A4).
                let acknowledged = self.acknowledged[server].map_or(1, LogletOffset::get);
                let first = if pick.is_multiple_of(2) { acknowledged } else { self.committed };
                let message = Message::Store { server, first, end: self.next, committed: self.committed };
                self.network.push(message);
            }
            (4, _) => self.step(finder, Event::RetryDue),
            (5, _) => {
                self.now += Duration::from_millis(1 << (pick % 13));
                self.step(finder, Event::RetryDue);
            }
            (6, _) if pick.is_multiple_of(4) => self.restart_finder(finder),
            (6, _) => self.servers[server].restart(),
            (7, _) if pick.is_multiple_of(if self.disaster { 2 } else { 8 }) => self.lose(server),
            (8, Some(message)) => {
                let message = self.network[message].clone();
                self.deliver(message);
            }
            (9..=10, Some(message)) => {
                let message = self.network.swap_remove(message);
                self.drop(message);
            }
            (_, Some(message)) => {
                let message = self.network.swap_remove(message);
                self.deliver(message);
            }
            (_, None) => {}
        }
        self.check();
    }

    fn restart_finder(&mut self, finder: usize) {
        let finder = &mut self.finders[finder];
        finder.core = CloseLoglet::new(&self.params, finder.op).expect("as the first time");
        finder.life += 1;
        finder.done = false;
    }

    /// Wipes one disk for good, if the others can still do everything, or if that is not asked for.
    fn lose(&mut self, server: usize) {
        let indexes = || self.params.nodeset.indexes();
        let left: NodeSet = indexes().filter(|index| index.get() != server).collect();
        if self.disaster {
            self.servers[server].lost = true;
            return;
        }
        let enough = self.quorum.is_f_majority(left) && self.quorum.is_write_quorum(left);
        self.servers[server].lost |= enough && !self.servers.iter().any(|server| server.lost);
    }

    fn step(&mut self, number: usize, event: Event) {
        let finder = &mut self.finders[number];
        let mut effects = Vec::new();
        finder.core.step(self.now, event, &mut effects);
        for effect in effects {
            match effect {
                Effect::Seal { .. } | Effect::Read { .. } | Effect::Repair { .. } => {
                    let (life, op) = (self.finders[number].life, self.finders[number].op);
                    self.network.push(Message::Call { finder: number, life, op, effect });
                }
                Effect::AskWhoIsLost => {
                    let life = self.finders[number].life;
                    let event = Event::DeclaredLost(Some(self.holders(|server| server.lost)));
                    self.network.push(Message::Reply { finder: number, life, event, lost: Event::DeclaredLost(None) });
                }
                Effect::EndSequencer => {
                    let life = self.finders[number].life;
                    self.network.push(Message::End { finder: number, life });
                }
                Effect::RetryAt { .. } | Effect::Blocked(_) => {}
                Effect::Done(closed) => self.done(number, &closed),
                Effect::Failed(CloseError::Superseded { .. }) => self.restart_finder(number),
                Effect::Failed(error) => panic!("{error}"),
            }
        }
    }

    fn done(&mut self, finder: usize, closed: &Closed) {
        self.finders[finder].done = true;
        let (tail, committed) = (closed.candidate_tail.get(), closed.committed_tail.get());
        assert!(committed <= self.committed, "the committed tail comes from the sequencer");
        if let Some(decided) = closed.decided_tail {
            assert_eq!(Some(decided.get()), self.decided, "a copy was told what the first transaction decided");
            assert_eq!(decided, closed.candidate_tail);
            return;
        }
        assert!(tail >= self.committed, "S2: {tail} drops acknowledged records below {}", self.committed);
        let left = self.holders(|server| !server.lost);
        if let Some(lost_from) = closed.lost_from {
            assert!(!self.quorum.is_f_majority(left), "what is left is enough to know the end");
            assert!(tail > self.next, "an offset that was given may be given again");
            // What another finder copies at the same time may be beyond.
            let beyond = |server: &Server| server.from_sequencer.iter().any(|at| *at >= lost_from.get());
            let beyond = self.holders(|server| !server.lost && beyond(server));
            assert!(beyond.is_empty(), "{beyond:?} have records that are told to be lost");
        } else {
            let enough = self.quorum.is_write_quorum(left);
            for at in 1..tail {
                let on = self.holders(|server| server.ever.contains(&at));
                let stored = self.quorum.is_write_quorum(on) || (!enough && !on.is_empty());
                assert!(stored, "S3: {at} below {tail} is on {on:?} only");
            }
        }
        if self.decided.is_none() {
            self.decided = Some(tail);
            self.network.extend((0..self.servers.len()).map(|server| Message::Settle { server, tail }));
        }
    }

    fn holders(&self, keep: impl Fn(&Server) -> bool) -> NodeSet {
        self.params.nodeset.indexes().filter(|index| keep(&self.servers[index.get()])).collect()
    }

    /// Whether a write quorum has what the sequencer sent of something at or above `decided`.
    fn drops_what_is_stored(&self, decided: u64) -> bool {
        let on = |at| self.holders(|server| server.from_sequencer.contains(&at));
        (decided..self.next).any(|at| self.quorum.is_write_quorum(on(at)))
    }

    fn check(&self) {
        for server in &self.servers {
            assert!(server.committed <= self.committed, "S4: only the sequencer raises a committed tail");
            let hole = (server.committed..server.local).find(|at| !server.records.contains(at));
            assert_eq!(hole, None, "L1");
        }
        if let Some(decided) = self.decided {
            assert!(self.committed <= decided, "S1: {} was acknowledged above {decided}", self.committed - 1);
            // Once the sequencer has ended, what its copies have matters to nobody: it acknowledges, and nobody else does.
            assert!(self.ended || !self.drops_what_is_stored(decided), "S1: what is dropped could be acknowledged");
        }
    }

    fn deliver(&mut self, message: Message) {
        match message {
            Message::Store { server, first, end, committed } => {
                let copy = &mut self.servers[server];
                if !copy.lost && copy.sealed.is_none() && copy.take(first, end, committed) {
                    copy.from_sequencer.extend(first..end);
                    self.network.push(Message::Stored { server, local: copy.local });
                }
            }
            Message::Stored { server, local } => {
                let known = &mut self.acknowledged[server];
                *known = (*known).max(Some(offset(local)));
                let best = self.quorum.best_committed(&self.acknowledged).map_or(1, LogletOffset::get);
                if !self.ended {
                    self.committed = self.committed.max(best);
                }
            }
            Message::End { finder, life } => {
                self.ended |= !plant::is(Plant::LastWordTooSoon);
                let (event, lost) = (Event::SequencerEnded(Some(offset(self.committed))), Event::SequencerEnded(None));
                self.network.push(Message::Reply { finder, life, event, lost });
            }
            Message::Settle { server, tail } => {
                if !self.servers[server].lost {
                    self.servers[server].settle(tail);
                }
            }
            Message::Call { finder, life, op, effect } => {
                let lost = lost(&effect);
                let event = self.serve(op, &effect).unwrap_or_else(|error| failed(&effect, error));
                self.network.push(Message::Reply { finder, life, event, lost });
            }
            Message::Reply { finder, life, event, .. } if life == self.finders[finder].life => self.step(finder, event),
            Message::Reply { .. } => {}
        }
    }

    fn drop(&mut self, message: Message) {
        match message {
            Message::Call { finder, life, effect, .. } if life == self.finders[finder].life => {
                self.step(finder, lost(&effect));
            }
            Message::Reply { finder, life, lost, .. } if life == self.finders[finder].life => self.step(finder, lost),
            Message::End { finder, life } if life == self.finders[finder].life => {
                self.step(finder, Event::SequencerEnded(None));
            }
            // Settling goes on until it is done.
            Message::Settle { .. } => self.network.push(message),
            Message::Store { .. }
            | Message::Stored { .. }
            | Message::Call { .. }
            | Message::Reply { .. }
            | Message::End { .. } => {}
        }
    }

    fn serve(&mut self, op: OpId, effect: &Effect) -> Result<Event, MemberError> {
        let at = match effect {
            Effect::Seal { index } => *index,
            Effect::Read { source, .. } => *source,
            Effect::Repair { target, .. } => *target,
            other => panic!("no call: {other:?}"),
        };
        let server = &mut self.servers[at.get()];
        if server.lost {
            let actual = DiskId::try_from(99).expect("non-zero");
            return Err(MemberError::Call(CopyError::WrongDisk { actual }.into()));
        }
        match effect {
            Effect::Seal { index } => {
                server.sealed = Some(op);
                Ok(Event::Sealed { index: *index, state: server.state() })
            }
            Effect::Read { target, source, from, until } => {
                let (target, source, from) = (*target, *source, *from);
                // One or two records at a time, so that there is something to interrupt.
                let wanted = from.get()..until.get().min(from.get() + 1 + from.get() % 2);
                let end = wanted.clone().find(|at| !server.records.contains(at)).unwrap_or(wanted.end);
                if end == from.get() {
                    let failure = ReadFailure::Absent { end: offset(end + 1) };
                    return Ok(Event::ReadFailed { target, source, from, failure });
                }
                let chunk = Chunk { first_offset: from, end: offset(end), batches: vec![Bytes::from_static(b"x")] };
                Ok(Event::Read { target, source, from, chunk })
            }
            Effect::Repair { target, committed_tail, chunk } => {
                if server.sealed != Some(op) {
                    return Err(MemberError::Call(CopyError::NotSealed.into()));
                }
                if !server.take(chunk.first_offset.get(), chunk.end.get(), committed_tail.get()) {
                    return Err(MemberError::Call(CopyError::OutOfRange.into()));
                }
                Ok(Event::Repaired { target: *target, state: server.state() })
            }
            other => panic!("no call: {other:?}"),
        }
    }

    /// The network heals, and whoever is left finishes, alone and one after the other.
    fn heal(&mut self) {
        for finder in 0..self.finders.len() {
            let is_call = |message: &Message| {
                matches!(message, Message::Call { .. } | Message::Reply { .. } | Message::End { .. })
            };
            self.network.retain(|message| !is_call(message));
            self.restart_finder(finder);
            for _ in 0..10_000 {
                if self.finders[finder].done {
                    break;
                }
                if self.network.is_empty() {
                    self.now += Duration::from_secs(5);
                    self.step(finder, Event::RetryDue);
                } else {
                    let message = self.network.remove(0);
                    self.deliver(message);
                }
                self.check();
            }
            assert!(self.finders[finder].done, "stuck: {:?}", self.finders[finder].core.progress());
        }
    }
}

fn lost(effect: &Effect) -> Event {
    failed(effect, RpcError::DeadlinePassed.into())
}

fn failed(effect: &Effect, error: MemberError) -> Event {
    match effect {
        Effect::Seal { index } => Event::SealFailed { index: *index, error },
        Effect::Read { target, source, from, .. } => {
            let failure = ReadFailure::Member(error);
            Event::ReadFailed { target: *target, source: *source, from: *from, failure }
        }
        Effect::Repair { target, .. } => Event::RepairFailed { target: *target, error },
        other => panic!("no call: {other:?}"),
    }
}

const TOPOLOGIES: [(&[&str], &str); 5] = [
    (&["1", "2", "3"], "2"),
    (&["1", "2", "3"], "3"),
    (&["1", "2", "3", "4"], "3"),
    (&["1", "2", "3", "4"], "2"),
    (&["1:a", "2:a", "3:a", "4:b", "5:b"], "{zone:2,node:3}"),
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, ..ProptestConfig::default() })]

    #[test]
    fn no_schedule_loses_an_acknowledged_record_or_gets_stuck(
        topology in 0..TOPOLOGIES.len(),
        two_ops in any::<bool>(),
        disaster in any::<bool>(),
        schedule in prop::collection::vec((any::<u8>(), any::<usize>()), 1..160),
    ) {
        #[cfg(bifrost_plant)]
        bifrost_types::plant::set_from_env();
        let (places, replication) = TOPOLOGIES[topology];
        let mut world = World::new(places, replication, two_ops, disaster);
        for (kind, pick) in schedule {
            world.act(kind, pick);
        }
        world.heal();
    }
}

#[test]
fn the_random_schedules_reach_what_they_are_for() {
    // Guards the test above: a model in which repair never runs would pass it too.
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    for round in 0..1000 {
        let (places, replication) = TOPOLOGIES[round % TOPOLOGIES.len()];
        let mut world = World::new(places, replication, round % 2 == 0, round % 3 == 0);
        for _ in 0..120 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            world.act((seed >> 33) as u8, (seed >> 41) as usize);
        }
        world.heal();
        let repaired = world.finders.iter().any(|finder| finder.core.progress().repaired_bytes > 0);
        let decided = world.decided.expect("healed");
        for (what, happened) in [
            ("repair", repaired),
            ("committed", world.committed > 1),
            ("dropped", decided < world.next),
            ("kept unacknowledged", world.committed < decided && decided <= world.next),
            ("lost disk", world.servers.iter().any(|server| server.lost)),
            ("lost end", decided > world.next),
            ("last word", world.ended),
            ("dropped from a write quorum", world.ended && world.drops_what_is_stored(decided)),
        ] {
            *seen.entry(what).or_default() += usize::from(happened);
        }
    }
    for (what, times) in &seen {
        assert!(*times >= 10, "{what} happened {times} times in 1000 schedules: {seen:?}");
    }
}
