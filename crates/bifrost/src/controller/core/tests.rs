#![allow(clippy::panic)]

use std::num::NonZeroUsize;

use bifrost_types::Roles;
use proptest::prelude::*;

use super::*;

const GRACE: Duration = Duration::from_secs(5);
const SEQUENCER_GRACE: Duration = Duration::from_secs(1);

const AT_ONCE: usize = 4;
const RETRIES_AT_ONCE: usize = 2;

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn log(number: u64) -> LogId {
    LogId::try_from(number).expect("not 0")
}

fn node(number: u32) -> NodeId {
    NodeId::try_from(number).expect("not 0")
}

fn life(number: u32, generation: u32) -> NodeGeneration {
    NodeGeneration::new(node(number), Generation::try_from(generation).expect("not 0"))
}

fn alive(generation: u32) -> NodeView {
    NodeView { generation: Generation::try_from(generation).expect("not 0"), in_service: true }
}

fn op(number: u128) -> OpId {
    OpId::try_from(number).expect("not 0")
}

fn open(segment: u32, sequencer: NodeGeneration) -> LogView {
    LogView { segment: SegmentIndex::new(segment), sequencer, pending: None }
}

fn pending(view: LogView, number: u128, attempt: u32) -> LogView {
    LogView { pending: Some((op(number), attempt)), ..view }
}

fn options() -> ControllerOptions {
    ControllerOptions {
        pending_grace: GRACE,
        sequencer_grace: Some(SEQUENCER_GRACE),
        turn: secs(1),
        attempts_at_once: NonZeroUsize::new(AT_ONCE).expect("not 0"),
        retries_at_once: NonZeroUsize::new(RETRIES_AT_ONCE).expect("not 0"),
        pause_min: secs(1),
        pause_max: secs(30),
        attempt_deadline: secs(30),
    }
}

/// What a detector says whose member leads.
fn leading(silent: impl IntoIterator<Item = NodeGeneration>) -> Event {
    let silent = silent.into_iter().map(|life| (life.node, life.generation)).collect();
    Event::Judged { verdict: Verdict { leads: true, silent } }
}

/// A core, the time, and a check after each step.
struct Bench {
    core: Core,
    now: Duration,
}

impl Bench {
    /// Nodes N1 to N3 in their first lives, and these logs.
    fn with(me: Option<NodeId>, logs: impl IntoIterator<Item = (LogId, LogView)>) -> Self {
        let mut bench = Self { core: Core::new(me, options()), now: secs(1000) };
        let nodes = (1..=3).map(|number| (node(number), alive(1))).collect();
        let logs = logs.into_iter().map(|(log, view)| (log, (1, view))).collect();
        assert_eq!(bench.step(Event::Listed { nodes, logs }), []);
        bench
    }

    fn step(&mut self, event: Event) -> Vec<(LogId, Trouble)> {
        let mut out = Vec::new();
        self.core.step(self.now, event, &mut out);
        self.core.check();
        out.into_iter().map(|Effect::Attempt { log, trouble }| (log, trouble)).collect()
    }

    fn see(&mut self, log: LogId, revision: Revision, view: LogView) {
        assert_eq!(self.step(Event::LogSeen { log, revision, view: Some(view) }), []);
    }

    /// Goes on to when the core wants to be woken; returns how long that was, and what it does then.
    fn wake(&mut self) -> (Duration, Vec<(LogId, Trouble)>) {
        let due = self.core.wake_at().expect("something is due");
        let waited = due.saturating_sub(self.now);
        self.now = self.now.max(due);
        (waited, self.step(Event::Woken))
    }

    fn end(&mut self, log: LogId) -> Vec<(LogId, Trouble)> {
        self.step(Event::AttemptEnded { log })
    }
}

#[test]
fn a_cluster_in_order_gives_nothing_to_do() {
    let bench = Bench::with(None, (1..100).map(|number| (log(number), open(0, life(1, 1)))));
    assert_eq!((bench.core.wake_at(), bench.core.in_trouble()), (None, (0, 0)));
}

#[test]
fn what_is_pending_is_left_to_its_actor_for_a_while_and_then_driven() {
    let mut bench = Bench::with(None, [(log(7), open(0, life(1, 1)))]);
    bench.see(log(7), 2, pending(open(0, life(1, 1)), 66, 1));
    let trouble = Trouble::LeftPending { op: op(66), attempt: 1 };
    assert_eq!(bench.wake(), (GRACE, vec![(log(7), trouble)]));
    assert_eq!(bench.core.wake_at(), None, "an attempt is under way");
    bench.see(log(7), 3, open(1, life(2, 1)));
    assert_eq!(bench.end(log(7)), []);
    assert_eq!((bench.core.wake_at(), bench.core.in_trouble()), (None, (0, 0)));
}

#[test]
fn only_progress_of_the_operation_restarts_its_grace() {
    let mut bench = Bench::with(None, []);
    bench.see(log(7), 2, pending(open(0, life(1, 1)), 66, 1));
    bench.now += secs(3);
    // Somebody trims: the chain changes, and what is pending does not.
    bench.see(log(7), 3, pending(open(0, life(1, 1)), 66, 1));
    assert_eq!(bench.core.wake_at(), Some(bench.now + secs(2)));
    // Somebody replaces the successor: it is being driven.
    bench.see(log(7), 4, pending(open(0, life(1, 1)), 66, 2));
    assert_eq!(bench.core.wake_at(), Some(bench.now + GRACE));
    // Decided; nothing is left.
    bench.see(log(7), 5, open(1, life(1, 1)));
    assert_eq!(bench.core.wake_at(), None);
}

#[test]
fn a_sequencer_whose_node_lives_another_life_is_replaced() {
    let mut bench = Bench::with(None, [(log(7), open(0, life(1, 1))), (log(8), open(4, life(2, 1)))]);
    assert_eq!(bench.step(Event::NodeSeen { node: node(1), view: alive(2) }), []);
    let trouble = Trouble::SequencerGone { segment: SegmentIndex::new(0), sequencer: life(1, 1) };
    assert_eq!(bench.wake(), (SEQUENCER_GRACE, vec![(log(7), trouble)]));
}

#[test]
fn a_sequencer_whose_node_is_gone_or_out_of_service_is_replaced() {
    let out = |storage| {
        let record = NodeRecord {
            id: life(1, 1),
            name: "one".to_owned(),
            address: String::new(),
            location: bifrost_types::Location::default(),
            disk: None,
            storage,
            declared_lost: false,
            roles: Roles::DATA,
        };
        Event::NodeSeen { node: node(1), view: NodeView::from(&record) }
    };
    for (event, replaced) in [
        (Event::NodeGone { node: node(1) }, true),
        (out(StorageState::DataLoss), true),
        (out(StorageState::Retired), true),
        (out(StorageState::Provisioning), false),
        (out(StorageState::ReadOnly), false),
        (out(StorageState::ReadWrite), false),
    ] {
        let mut bench = Bench::with(None, [(log(7), open(0, life(1, 1)))]);
        assert_eq!(bench.step(event.clone()), []);
        assert_eq!(bench.core.wake_at().is_some(), replaced, "{event:?}");
    }
}

#[test]
fn the_logs_of_a_silent_sequencer_are_moved_at_once_whosever_turn_it_is() {
    for me in 1..=3 {
        let logs = (1..=3).map(|number| (log(number), open(0, life(if number == 3 { 2 } else { 1 }, 1))));
        let mut bench = Bench::with(Some(node(me)), logs);
        assert_eq!(bench.step(leading([])), []);
        let trouble = Trouble::SequencerSilent { segment: SegmentIndex::new(0), sequencer: life(1, 1) };
        assert_eq!(bench.step(leading([life(1, 1)])), [(log(1), trouble), (log(2), trouble)]);
        for number in 1..=2 {
            bench.see(log(number), 2, open(1, life(2, 1)));
            assert_eq!(bench.end(log(number)), []);
        }
        assert_eq!((bench.core.wake_at(), bench.core.in_trouble()), (None, (0, 0)));
    }
}

#[test]
fn a_sequencer_that_is_heard_again_is_left_alone() {
    let mut bench = Bench::with(None, (1..=20).map(|number| (log(number), open(0, life(1, 1)))));
    assert_eq!(bench.step(leading([life(1, 1)])).len(), AT_ONCE);
    assert_eq!(bench.step(leading([])), []);
    for number in 1..=20 {
        assert_eq!(bench.end(log(number)), []);
    }
    assert_eq!((bench.core.wake_at(), bench.core.in_trouble()), (None, (0, 0)));
}

#[test]
fn silence_of_another_life_says_nothing_of_this_one() {
    let mut bench = Bench::with(None, [(log(7), open(0, life(1, 1)))]);
    assert_eq!(bench.step(leading([life(1, 2)])), []);
    assert_eq!(bench.core.wake_at(), None);
}

#[test]
fn what_is_pending_on_a_silent_sequencer_is_joined_at_once() {
    let mut bench = Bench::with(Some(node(2)), [(log(7), pending(open(0, life(1, 1)), 66, 1))]);
    bench.now += secs(1);
    let trouble = Trouble::LeftPending { op: op(66), attempt: 1 };
    assert_eq!(bench.step(leading([life(1, 1)])), [(log(7), trouble)]);
    // The other way round: announced by somebody who may have died with the node.
    let mut bench = Bench::with(Some(node(2)), []);
    bench.step(leading([life(1, 1)]));
    let view = Some(pending(open(0, life(1, 1)), 66, 1));
    assert_eq!(bench.step(Event::LogSeen { log: log(7), revision: 2, view }), [(log(7), trouble)]);
}

#[test]
fn what_is_pending_when_the_lead_is_gained_is_joined_at_once() {
    let trouble = Trouble::LeftPending { op: op(66), attempt: 1 };
    let view = pending(open(0, life(1, 1)), 66, 1);
    let mut bench = Bench::with(Some(node(3)), [(log(7), view)]);
    bench.now += secs(1);
    assert_eq!(bench.step(Event::Woken), [], "it is not its turn, and nobody died as far as it knows");
    assert_eq!(bench.step(leading([])), [(log(7), trouble)]);
    // What the leader before took last may be heard of a moment later.
    let mut bench = Bench::with(Some(node(3)), []);
    bench.step(leading([]));
    let seen = Event::LogSeen { log: log(7), revision: 2, view: Some(view) };
    assert_eq!(bench.step(seen.clone()), [(log(7), trouble)]);
    // Announced later: its actor lives, as far as anybody knows, and is left at work.
    let mut bench = Bench::with(None, []);
    bench.step(leading([]));
    bench.now += secs(1);
    assert_eq!(bench.step(seen), []);
    assert_eq!(bench.wake(), (GRACE, vec![(log(7), trouble)]));
}

#[test]
fn beside_the_leader_a_sequencer_that_is_gone_is_replaced_at_once_and_elsewhere_after_a_grace() {
    let trouble = Trouble::SequencerGone { segment: SegmentIndex::new(0), sequencer: life(1, 1) };
    let mut bench = Bench::with(Some(node(3)), [(log(7), open(0, life(1, 1)))]);
    bench.step(leading([]));
    assert_eq!(bench.step(Event::NodeSeen { node: node(1), view: alive(2) }), [(log(7), trouble)]);
    // It gains the lead while others are given time.
    let mut bench = Bench::with(Some(node(3)), [(log(7), open(0, life(1, 1)))]);
    assert_eq!(bench.step(Event::NodeSeen { node: node(1), view: alive(2) }), []);
    assert_eq!(bench.step(leading([])), [(log(7), trouble)]);
}

#[test]
fn a_detector_is_told_of_the_lives_that_are_in_service() {
    let mut bench = Bench::with(None, []);
    bench.step(Event::NodeSeen { node: node(1), view: NodeView { in_service: false, ..alive(1) } });
    bench.step(Event::NodeSeen { node: node(2), view: alive(5) });
    let lives: Vec<(u32, u32)> =
        bench.core.lives().into_iter().map(|(node, generation)| (node.get(), generation.get())).collect();
    assert_eq!(lives, [(2, 5), (3, 1)]);
}

#[test]
fn a_record_that_is_older_than_the_sequencer_is_only_late() {
    let mut bench = Bench::with(None, []);
    bench.see(log(7), 2, open(1, life(1, 2)));
    assert_eq!(bench.core.wake_at(), None);
}

#[test]
fn without_a_grace_for_sequencers_only_what_is_pending_is_cared_for() {
    let mut bench = Bench::with(None, [(log(7), open(0, life(1, 1)))]);
    bench.core.options.sequencer_grace = None;
    bench.step(Event::NodeSeen { node: node(1), view: alive(2) });
    assert_eq!(bench.core.wake_at(), None);
    bench.see(log(7), 2, pending(open(0, life(1, 1)), 66, 1));
    assert_eq!(bench.core.wake_at(), Some(bench.now + GRACE));
}

#[test]
fn controllers_take_turns_and_each_log_begins_with_another_one() {
    let mut first = Vec::new();
    for number in 1..=3 {
        let mut waits = Vec::new();
        for me in 1..=3 {
            let mut bench = Bench::with(Some(node(me)), []);
            bench.see(log(number), 2, pending(open(0, life(1, 1)), 66, 1));
            waits.push(bench.core.wake_at().expect("in trouble") - bench.now - GRACE);
        }
        first.push(waits.iter().position(Duration::is_zero).expect("somebody is first"));
        waits.sort();
        assert_eq!(waits, [secs(0), secs(1), secs(2)]);
    }
    first.sort_unstable();
    assert_eq!(first, [0, 1, 2]);
}

#[test]
fn what_cannot_be_helped_is_left_alone_for_longer_each_time() {
    let mut bench = Bench::with(None, []);
    bench.see(log(7), 2, pending(open(0, life(1, 1)), 66, 1));
    let mut pauses = Vec::new();
    for _ in 0..8 {
        let (waited, begun) = bench.wake();
        assert_eq!(begun.len(), 1);
        pauses.push(waited.as_secs());
        bench.end(log(7));
    }
    assert_eq!(pauses, [5, 1, 2, 4, 8, 16, 30, 30]);
}

#[test]
fn a_node_that_begins_a_life_may_be_what_a_log_waits_for() {
    let mut bench = Bench::with(None, []);
    bench.see(log(7), 2, pending(open(0, life(1, 1)), 66, 1));
    for _ in 0..8 {
        bench.wake();
        bench.end(log(7));
    }
    assert_eq!(bench.core.wake_at(), Some(bench.now + secs(30)));
    // The same again is no news, a life is.
    bench.step(Event::NodeSeen { node: node(3), view: alive(1) });
    assert_eq!(bench.core.wake_at(), Some(bench.now + secs(30)));
    bench.step(Event::NodeSeen { node: node(3), view: alive(2) });
    assert_eq!(bench.core.wake_at(), Some(bench.now + GRACE));
    bench.wake();
    bench.end(log(7));
    assert_eq!(bench.core.wake_at(), Some(bench.now + secs(30)), "nor does a node in a loop of crashes make a storm");
}

#[test]
fn hopeless_logs_leave_room_for_others() {
    let stuck = |number| (log(number), pending(open(0, life(1, 1)), 66, 1));
    let mut bench = Bench::with(None, (1..=20).map(stuck));
    let (_, begun) = bench.wake();
    assert_eq!(begun.len(), AT_ONCE);
    // Each that ends in vain makes room for one that was not tried yet, then for few that were.
    for number in 1..=20 {
        bench.end(log(number));
    }
    bench.now += secs(60);
    assert_eq!(bench.step(Event::Woken).len(), RETRIES_AT_ONCE);
    assert_eq!(bench.core.wake_at(), None, "no retry is due before one ends");
    bench.see(log(99), 2, pending(open(0, life(1, 1)), 67, 1));
    assert_eq!(bench.wake().1, [(log(99), Trouble::LeftPending { op: op(67), attempt: 1 })]);
}

#[test]
fn trouble_that_changes_under_an_attempt_waits_for_its_end() {
    let mut bench = Bench::with(None, [(log(7), open(0, life(1, 1)))]);
    bench.step(Event::NodeSeen { node: node(1), view: alive(2) });
    bench.wake();
    // The attempt announces, and then its deadline passes.
    bench.see(log(7), 2, pending(open(0, life(1, 1)), 66, 1));
    assert_eq!(bench.core.wake_at(), None);
    assert_eq!(bench.end(log(7)), []);
    assert_eq!(bench.wake(), (GRACE, vec![(log(7), Trouble::LeftPending { op: op(66), attempt: 1 })]));
}

#[test]
fn closed_and_deleted_logs_are_forgotten() {
    let stuck = pending(open(0, life(1, 1)), 66, 1);
    for event in [Event::LogSeen { log: log(7), revision: 3, view: None }, Event::LogGone { log: log(7) }] {
        let mut bench = Bench::with(None, []);
        bench.see(log(7), 2, stuck);
        bench.step(event);
        assert_eq!((bench.core.wake_at(), bench.core.logs.len()), (None, 0));
    }
    let mut bench = Bench::with(None, [(log(7), stuck)]);
    bench.step(Event::Listed { nodes: BTreeMap::new(), logs: BTreeMap::new() });
    assert_eq!((bench.core.wake_at(), bench.core.logs.len()), (None, 0));
}

#[test]
fn news_that_is_older_than_what_an_attempt_saw_changes_nothing() {
    let mut bench = Bench::with(None, []);
    bench.see(log(7), 5, open(1, life(2, 1)));
    bench.see(log(7), 4, pending(open(0, life(1, 1)), 66, 1));
    assert_eq!(bench.core.wake_at(), None);
}

/// What may happen to the cluster of the random schedules.
#[derive(Debug, Clone)]
enum Happens {
    Log { number: u64, view: LogView },
    Closed { number: u64 },
    Deleted { number: u64 },
    Node { number: u32, generation: u32, in_service: bool },
    NodeGone { number: u32 },
    Judged { leads: bool, silent: BTreeSet<(u32, u32)> },
    Ended { place: usize, helped: bool },
    Later { millis: u64 },
    Woken,
    Listed,
}

fn a_view() -> impl Strategy<Value = LogView> {
    let pending = prop::option::of((1..4_u128, 1..3_u32));
    (0..3_u32, 1..5_u32, 1..4_u32, pending).prop_map(|(segment, number, generation, pending)| LogView {
        segment: SegmentIndex::new(segment),
        sequencer: life(number, generation),
        pending: pending.map(|(number, attempt)| (op(number), attempt)),
    })
}

fn a_happening() -> impl Strategy<Value = Happens> {
    prop_oneof![
        6 => (1..12_u64, a_view()).prop_map(|(number, view)| Happens::Log { number, view }),
        1 => (1..12_u64).prop_map(|number| Happens::Closed { number }),
        1 => (1..12_u64).prop_map(|number| Happens::Deleted { number }),
        3 => (1..5_u32, 1..4_u32, any::<bool>())
            .prop_map(|(number, generation, in_service)| Happens::Node { number, generation, in_service }),
        1 => (1..5_u32).prop_map(|number| Happens::NodeGone { number }),
        2 => (any::<bool>(), prop::collection::btree_set((1..5_u32, 1..4_u32), 0..3))
            .prop_map(|(leads, silent)| Happens::Judged { leads, silent }),
        6 => (0..AT_ONCE, any::<bool>()).prop_map(|(place, helped)| Happens::Ended { place, helped }),
        4 => (0..8_000_u64).prop_map(|millis| Happens::Later { millis }),
        4 => Just(Happens::Woken),
        1 => Just(Happens::Listed),
    ]
}

/// A cluster as it is, and what the core has begun.
struct World {
    bench: Bench,
    revision: Revision,
    nodes: BTreeMap<NodeId, NodeView>,
    logs: BTreeMap<LogId, (Revision, LogView)>,
    verdict: Verdict,
    leads_since: Option<Duration>,
    /// Since when each log is in the trouble that it is in, and whether nobody had to be left alone at any time.
    since: BTreeMap<LogId, (Trouble, Duration, bool)>,
    under_way: Vec<LogId>,
}

impl World {
    fn new() -> Self {
        Self {
            bench: Bench { core: Core::new(Some(node(2)), options()), now: secs(1000) },
            revision: 1,
            nodes: BTreeMap::new(),
            logs: BTreeMap::new(),
            verdict: Verdict::default(),
            leads_since: None,
            since: BTreeMap::new(),
            under_way: Vec::new(),
        }
    }

    fn tell(&mut self, event: Event) {
        let now = self.bench.now;
        let troubles: BTreeMap<LogId, Trouble> = self
            .logs
            .iter()
            .filter_map(|(log, (_, view))| {
                Some((*log, view.trouble_by(self.nodes.get(&view.sequencer.node).copied(), &self.verdict)?))
            })
            .collect();
        let took_over = self.leads_since.is_some_and(|since| now < since + options().turn);
        self.since.retain(|log, (trouble, ..)| troubles.get(log) == Some(trouble));
        for (log, trouble) in troubles {
            let silent = self.verdict.is_silent(self.logs[&log].1.sequencer);
            let known = self.since.entry(log).or_insert((trouble, now, false));
            known.2 |= match trouble {
                Trouble::LeftPending { .. } => silent || took_over,
                Trouble::SequencerGone { .. } => silent || self.verdict.leads,
                Trouble::SequencerSilent { .. } => silent,
            };
        }
        for (log, trouble) in self.bench.step(event) {
            assert!(!self.under_way.contains(&log), "{log} is worked on twice at once");
            let (real, since, at_once) = self.since.get(&log).expect("what is attempted is in trouble");
            assert_eq!(*real, trouble);
            let grace = match trouble {
                _ if *at_once => Duration::ZERO,
                Trouble::LeftPending { .. } => GRACE,
                Trouble::SequencerGone { .. } | Trouble::SequencerSilent { .. } => SEQUENCER_GRACE,
            };
            assert!(now >= *since + grace, "{log} was not left alone");
            self.under_way.push(log);
        }
        assert!(self.under_way.len() <= AT_ONCE);
    }

    fn help(&mut self, log: LogId) {
        let Some((_, view)) = self.logs.get(&log).copied() else { return };
        let sequencer = NodeGeneration::new(node(9), alive(1).generation);
        self.nodes.insert(node(9), alive(1));
        self.tell(Event::NodeSeen { node: node(9), view: alive(1) });
        let segment = view.segment.next().expect("few segments");
        self.put(log, LogView { segment, sequencer, pending: None });
    }

    fn put(&mut self, log: LogId, view: LogView) {
        self.revision += 1;
        self.logs.insert(log, (self.revision, view));
        self.tell(Event::LogSeen { log, revision: self.revision, view: Some(view) });
    }

    fn happen(&mut self, happens: Happens) {
        match happens {
            Happens::Log { number, view } => self.put(log(number), view),
            Happens::Closed { number } => {
                self.revision += 1;
                self.logs.remove(&log(number));
                self.tell(Event::LogSeen { log: log(number), revision: self.revision, view: None });
            }
            Happens::Deleted { number } => {
                self.logs.remove(&log(number));
                self.tell(Event::LogGone { log: log(number) });
            }
            Happens::Node { number, generation, in_service } => {
                let view = NodeView { in_service, ..alive(generation) };
                self.nodes.insert(node(number), view);
                self.tell(Event::NodeSeen { node: node(number), view });
            }
            Happens::NodeGone { number } => {
                self.nodes.remove(&node(number));
                self.tell(Event::NodeGone { node: node(number) });
            }
            Happens::Judged { leads, silent } => {
                let silent =
                    silent.into_iter().map(|(number, of)| (node(number), life(number, of).generation)).collect();
                self.verdict = Verdict { leads, silent };
                self.leads_since = leads.then(|| self.leads_since.unwrap_or(self.bench.now));
                self.tell(Event::Judged { verdict: self.verdict.clone() });
            }
            Happens::Ended { place, helped } => {
                if place < self.under_way.len() {
                    let log = self.under_way[place];
                    if helped {
                        self.help(log);
                    }
                    self.under_way.retain(|other| *other != log);
                    self.tell(Event::AttemptEnded { log });
                }
            }
            Happens::Later { millis } => self.bench.now += Duration::from_millis(millis),
            Happens::Woken => self.tell(Event::Woken),
            Happens::Listed => self.tell(Event::Listed { nodes: self.nodes.clone(), logs: self.logs.clone() }),
        }
    }

    /// Every attempt helps from now on; returns how long it takes until nothing is left to do.
    fn settle(&mut self) -> Duration {
        let begun = self.bench.now;
        loop {
            while let Some(log) = self.under_way.first().copied() {
                self.help(log);
                self.under_way.retain(|other| *other != log);
                self.tell(Event::AttemptEnded { log });
            }
            let Some(due) = self.bench.core.wake_at() else { return self.bench.now - begun };
            self.bench.now = self.bench.now.max(due);
            self.tell(Event::Woken);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_each_log_in_trouble_is_left_alone_first_and_helped_in_the_end(
        happenings in prop::collection::vec(a_happening(), 1..120)
    ) {
        let mut world = World::new();
        world.happen(Happens::Listed);
        for happens in happenings {
            world.happen(happens);
        }
        let took = world.settle();
        prop_assert_eq!(world.bench.core.in_trouble(), (0, 0));
        prop_assert!(world.since.is_empty(), "{:?}", world.since);
        // The longest pause and the last turn.
        prop_assert!(took <= secs(30 + 3), "{:?}", took);
    }
}
