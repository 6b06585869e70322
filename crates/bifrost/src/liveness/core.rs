//! Which nodes are silent: the core of a detector. No clock, no IO; times are since an arbitrary start.

use std::collections::BTreeMap;
use std::time::Duration;

use bifrost_types::{Generation, NodeGeneration, NodeId};
use bifrost_wire::liveness::Beat;
use thiserror::Error;

use super::LivenessOptions;

/// Most nodes that a detector keeps.
pub const NODES_MAX: usize = 4096;

/// As many nodes are kept as may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("signs of life of {NODES_MAX} nodes are kept, and of no more")]
pub struct TooManyNodes;

/// What a detector is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Its member leads, or does not lead. The same term again changes nothing.
    Lead {
        /// How it leads.
        lead: Option<Lead>,
    },
    /// The lives that there are by metadata; they replace those it was told before.
    Known {
        /// The present life of each node that may have sequencers.
        lives: BTreeMap<NodeId, Generation>,
    },
    /// A sign of life.
    Beat {
        /// Whose.
        beat: Beat,
    },
    /// Time passed.
    Tick,
}

/// How a member leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lead {
    /// The term.
    pub term: u64,
    /// The node of the leader before, if this one took its place because nothing was heard of it for so long.
    pub missed: Option<(NodeId, Duration)>,
}

impl Lead {
    /// A lead that was not taken from anybody.
    pub const fn of(term: u64) -> Self {
        Self { term, missed: None }
    }
}

/// What a detector concludes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Verdict {
    /// Whether its member leads: otherwise it concludes nothing.
    pub leads: bool,
    /// The lives of which nothing was heard for long enough, or that said that they stop.
    pub silent: BTreeMap<NodeId, Generation>,
}

impl Verdict {
    /// Whether a life is silent. Of one that is over metadata tells.
    pub fn is_silent(&self, life: NodeGeneration) -> bool {
        self.silent.get(&life.node) == Some(&life.generation)
    }
}

/// What is kept of a node while the member leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Life {
    generation: Generation,
    /// When it was heard, or became known.
    heard: Duration,
    /// It said that it stops.
    stopped: bool,
}

/// The core of a detector.
///
/// Kept: `heard <= stepped <=` now; `lives` is empty while its member does not lead, and has at most [`NODES_MAX`] entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Core {
    options: LivenessOptions,
    term: Option<u64>,
    known: BTreeMap<NodeId, Generation>,
    lives: BTreeMap<NodeId, Life>,
    /// When it was told something last: a detector that is told nothing for long was paused itself.
    stepped: Duration,
}

impl Core {
    /// Knows nobody, and does not lead.
    pub const fn new(options: LivenessOptions) -> Self {
        Self { options, term: None, known: BTreeMap::new(), lives: BTreeMap::new(), stepped: Duration::ZERO }
    }

    /// Whether its member leads.
    pub const fn leads(&self) -> bool {
        self.term.is_some()
    }

    /// Whether a beat of this node can be taken.
    ///
    /// # Errors
    /// [`TooManyNodes`].
    pub fn has_room_for(&self, node: NodeGeneration) -> Result<(), TooManyNodes> {
        let has_room = self.lives.len() < NODES_MAX || self.lives.contains_key(&node.node);
        has_room.then_some(()).ok_or(TooManyNodes)
    }

    /// Takes note of an event. `now` never goes back.
    pub fn step(&mut self, now: Duration, event: Event) {
        self.forgive_pause(now);
        match event {
            Event::Lead { lead } if lead.map(|lead| lead.term) == self.term => {}
            Event::Lead { lead } => {
                // Nothing was heard under this lead yet: everybody gets one full period.
                self.term = lead.map(|lead| lead.term);
                self.lives.clear();
                self.count_known(now);
                if let Some((node, silence)) = lead.and_then(|lead| lead.missed) {
                    self.count_silence(now, node, silence);
                }
            }
            Event::Known { lives } => {
                self.known = lives;
                // One that is heard and not known yet is only ahead of our news.
                let since = |life: &Life| now.saturating_sub(life.heard);
                self.lives.retain(|node, life| {
                    self.known.contains_key(node) || since(life) < self.options.silent_after && !life.stopped
                });
                self.count_known(now);
            }
            Event::Beat { beat } => self.on_beat(now, beat),
            Event::Tick => {}
        }
    }

    /// What is concluded by now.
    pub fn verdict(&self, now: Duration) -> Verdict {
        let is_silent = |life: &Life| life.stopped || now.saturating_sub(life.heard) >= self.options.silent_after;
        let silent = self.lives.iter().filter(|(_, life)| is_silent(life));
        Verdict { leads: self.leads(), silent: silent.map(|(node, life)| (*node, life.generation)).collect() }
    }

    /// How long nothing was heard of a node, or, if the detector stood still meanwhile, of what it heard nothing.
    pub fn silence(&self, node: NodeId, now: Duration) -> Option<Duration> {
        self.lives.get(&node).map(|life| now.saturating_sub(life.heard))
    }

    /// When to look next: after a tick at the latest, or in the moment in which somebody falls silent.
    pub fn next_look(&self, now: Duration) -> Duration {
        let falls = self.lives.values().map(|life| life.heard.saturating_add(self.options.silent_after));
        let tick = now.saturating_add(self.options.tick_interval());
        falls.filter(|falls| *falls > now).fold(tick, Duration::min)
    }

    /// The leader before was silent already. It may have failed as a leader only, so it has time for two beats.
    fn count_silence(&mut self, now: Duration, node: NodeId, silence: Duration) {
        let LivenessOptions { beat_interval, silent_after } = self.options;
        let most = silent_after.saturating_sub(beat_interval.saturating_mul(2));
        if let Some(life) = self.lives.get_mut(&node) {
            life.heard = now.saturating_sub(silence.min(most));
        }
    }

    /// Known lives that do not count yet count from now on.
    fn count_known(&mut self, now: Duration) {
        if !self.leads() {
            return;
        }
        for (node, generation) in &self.known {
            let counts = self.lives.get(node).is_some_and(|life| life.generation >= *generation);
            if !counts && (self.lives.len() < NODES_MAX || self.lives.contains_key(node)) {
                self.lives.insert(*node, Life { generation: *generation, heard: now, stopped: false });
            }
        }
    }

    fn on_beat(&mut self, now: Duration, Beat { node: NodeGeneration { node, generation }, last }: Beat) {
        if !self.leads() || self.has_room_for(NodeGeneration::new(node, generation)).is_err() {
            return;
        }
        let life = self.lives.entry(node).or_insert(Life { generation, heard: now, stopped: last });
        // A beat of an earlier life is late, and so is one that comes after the last one.
        if life.generation < generation {
            *life = Life { generation, heard: now, stopped: last };
        } else if life.generation == generation {
            *life = Life { generation, heard: now, stopped: life.stopped || last };
        }
    }

    /// What was not heard while the detector itself stood still counts against nobody: after a short pause it goes on from
    /// where it was, after one as long as a silence it begins anew.
    fn forgive_pause(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.stepped);
        self.stepped = self.stepped.max(now);
        let expected = self.options.tick_interval().saturating_add(self.options.beat_interval);
        let Some(paused) = passed.checked_sub(expected).filter(|paused| !paused.is_zero()) else { return };
        let anew = paused >= self.options.silent_after;
        for life in self.lives.values_mut() {
            life.heard = if anew { now } else { life.heard.saturating_add(paused).min(now) };
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SILENT: u64 = 600;

    fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn node(number: u32) -> NodeId {
        NodeId::try_from(number).expect("not 0")
    }

    fn generation(number: u32) -> Generation {
        Generation::try_from(number).expect("not 0")
    }

    fn life(number: u32, of: u32) -> NodeGeneration {
        NodeGeneration::new(node(number), generation(of))
    }

    /// A detector that ticks, and its time.
    struct Bench {
        core: Core,
        now: u64,
    }

    impl Bench {
        /// N1 to N3 in their first lives, and a member that leads.
        fn leading() -> Self {
            let mut bench = Self { core: Core::new(LivenessOptions::default()), now: 50_000 };
            bench.know(&[(1, 1), (2, 1), (3, 1)]);
            bench.lead(Some(Lead::of(4)));
            bench
        }

        fn step(&mut self, event: Event) {
            self.core.step(millis(self.now), event);
        }

        fn lead(&mut self, lead: Option<Lead>) {
            self.step(Event::Lead { lead });
        }

        fn know(&mut self, lives: &[(u32, u32)]) {
            let lives = lives.iter().map(|(number, of)| (node(*number), generation(*of))).collect();
            self.step(Event::Known { lives });
        }

        fn beat(&mut self, number: u32, of: u32) {
            self.step(Event::Beat { beat: Beat { node: life(number, of), last: false } });
        }

        /// Goes on with ticks, and with beats of these nodes.
        fn pass(&mut self, time: u64, beating: &[u32]) {
            let end = self.now + time;
            while self.now < end {
                self.now = end.min(self.now + 50);
                self.step(Event::Tick);
                if self.now.is_multiple_of(100) {
                    beating.iter().for_each(|number| self.beat(*number, 1));
                }
            }
        }

        fn silent(&self) -> Vec<u32> {
            self.core.verdict(millis(self.now)).silent.keys().map(|node| node.get()).collect()
        }
    }

    #[test]
    fn a_node_that_gives_no_sign_is_silent_after_its_time_and_heard_again_with_the_next_sign() {
        let mut bench = Bench::leading();
        bench.pass(2000, &[1, 2, 3]);
        assert_eq!(bench.silent(), [0_u32; 0]);
        bench.pass(SILENT - 50, &[1, 3]);
        assert_eq!(bench.silent(), [0_u32; 0]);
        bench.pass(50, &[1, 3]);
        assert_eq!(bench.silent(), [2]);
        assert!(bench.core.verdict(millis(bench.now)).is_silent(life(2, 1)));
        bench.beat(2, 1);
        assert_eq!(bench.silent(), [0_u32; 0]);
    }

    #[test]
    fn a_fresh_leader_gives_everybody_one_full_period_also_who_was_never_heard() {
        let mut bench = Bench::leading();
        bench.pass(SILENT - 50, &[]);
        assert_eq!(bench.silent(), [0_u32; 0]);
        bench.pass(50, &[1]);
        assert_eq!(bench.silent(), [2, 3]);
        bench.lead(Some(Lead::of(6)));
        assert_eq!(bench.silent(), [0_u32; 0], "it led anew meanwhile, and heard nothing in between");
        bench.pass(SILENT, &[1, 2]);
        assert_eq!(bench.silent(), [3]);
    }

    #[test]
    fn the_leader_that_was_missed_has_been_silent_already_and_has_time_for_two_beats() {
        let missed = |silence| Some(Lead { term: 6, missed: Some((node(1), millis(silence))) });
        for (silence, left) in [(100, SILENT - 100), (SILENT - 200, 200), (60_000, 200)] {
            let mut bench = Bench::leading();
            bench.pass(1000, &[1, 2, 3]);
            bench.lead(missed(silence));
            bench.pass(left - 50, &[]);
            assert_eq!(bench.silent(), [0_u32; 0]);
            bench.lead(missed(60_000));
            bench.pass(50, &[]);
            assert_eq!(bench.silent(), [1]);
            bench.pass(SILENT - left, &[]);
            assert_eq!(bench.silent(), [1, 2, 3]);
        }
        let mut bench = Bench::leading();
        bench.lead(missed(60_000));
        bench.pass(150, &[1]);
        bench.pass(SILENT - 100, &[]);
        assert!(!bench.silent().contains(&1), "it only does not lead any more");
    }

    #[test]
    fn the_next_look_is_when_somebody_falls_silent() {
        let mut bench = Bench::leading();
        let tick = LivenessOptions::default().tick_interval();
        let next = |bench: &Bench| bench.core.next_look(millis(bench.now));
        let heard = bench.now;
        assert_eq!(next(&bench), millis(heard) + tick);
        bench.now += SILENT - 30;
        bench.beat(1, 1);
        bench.beat(2, 1);
        // The detector stood still: what was not heard meanwhile counts less.
        bench.step(Event::Tick);
        let falls = bench.core.lives[&node(3)].heard + millis(SILENT);
        while next(&bench) < falls {
            bench.now = u64::try_from(next(&bench).as_millis()).expect("small");
            bench.step(Event::Tick);
            assert_eq!(bench.silent(), [0_u32; 0]);
        }
        assert_eq!(next(&bench), falls, "not a tick later");
        bench.now = u64::try_from(falls.as_millis()).expect("small");
        bench.step(Event::Tick);
        assert_eq!(bench.silent(), [3]);
        assert_eq!(next(&bench), millis(bench.now) + tick, "who is silent is not waited for");
    }

    #[test]
    fn who_does_not_lead_calls_nobody_silent() {
        let mut bench = Bench::leading();
        bench.pass(SILENT, &[]);
        bench.lead(None);
        bench.pass(5000, &[]);
        assert_eq!(bench.core.verdict(millis(bench.now)), Verdict::default());
    }

    #[test]
    fn a_last_sign_is_silence_at_once_and_a_late_one_after_it_changes_nothing() {
        let mut bench = Bench::leading();
        bench.pass(500, &[1, 2, 3]);
        bench.step(Event::Beat { beat: Beat { node: life(2, 1), last: true } });
        assert_eq!(bench.silent(), [2]);
        bench.beat(2, 1);
        assert_eq!(bench.silent(), [2], "it was on its way when the last one overtook it");
        bench.beat(2, 2);
        assert_eq!(bench.silent(), [0_u32; 0], "the next life");
        bench.beat(2, 1);
        assert!(!bench.core.verdict(millis(bench.now)).is_silent(life(2, 2)));
    }

    #[test]
    fn a_life_that_became_known_counts_from_then_on_and_one_that_is_gone_does_not() {
        let mut bench = Bench::leading();
        bench.pass(1000, &[1, 2, 3]);
        bench.know(&[(1, 1), (2, 1), (3, 2), (4, 1)]);
        bench.pass(SILENT - 50, &[1, 2]);
        assert_eq!(bench.silent(), [0_u32; 0]);
        bench.pass(50, &[1, 2]);
        assert_eq!(bench.silent(), [3, 4]);
        bench.know(&[(1, 1), (2, 1), (3, 2)]);
        assert_eq!(bench.silent(), [3]);
    }

    #[test]
    fn a_detector_that_was_paused_calls_nobody_silent_for_that() {
        let mut bench = Bench::leading();
        bench.pass(1000, &[1, 2, 3]);
        bench.now += 60_000;
        bench.step(Event::Tick);
        assert_eq!(bench.silent(), [0_u32; 0]);
        bench.pass(SILENT - 50, &[1, 2]);
        assert_eq!(bench.silent(), [0_u32; 0]);
        bench.pass(50, &[1, 2]);
        assert_eq!(bench.silent(), [3], "who stays silent is found after one full period");
    }

    #[test]
    fn a_detector_on_a_busy_machine_still_finds_who_is_silent() {
        let mut bench = Bench::leading();
        bench.pass(1000, &[1, 2, 3]);
        // It comes to run every 300 ms: the time that it missed counts against nobody, the rest does.
        let mut rounds = 0;
        while bench.silent().is_empty() {
            bench.now += 300;
            bench.beat(1, 1);
            bench.beat(2, 1);
            bench.step(Event::Tick);
            rounds += 1;
            assert!(rounds < 10, "never");
        }
        assert_eq!((bench.silent(), rounds), (vec![3], 4));
    }

    #[test]
    fn memory_is_bounded_whoever_beats() {
        let mut bench = Bench::leading();
        for number in 1..10_000 {
            bench.beat(number, 1);
        }
        assert_eq!(bench.core.lives.len(), NODES_MAX);
        assert_eq!(bench.core.has_room_for(life(9000, 1)), Err(TooManyNodes));
        assert_eq!(bench.core.has_room_for(life(2, 9)), Ok(()));
    }

    proptest! {
        /// Whatever happens: silent is only who was not heard for the whole time, or said so.
        #[test]
        fn nobody_is_silent_who_was_heard_within_the_time(steps in prop::collection::vec((0..200_u64, 0..5_u32), 1..200)) {
            let mut bench = Bench::leading();
            let mut heard = BTreeMap::from([(1, bench.now), (2, bench.now), (3, bench.now)]);
            for (passed, what) in steps {
                bench.now += passed;
                match what {
                    number @ 1..=3 => {
                        bench.beat(number, 1);
                        heard.insert(number, bench.now);
                    }
                    _ => bench.step(Event::Tick),
                }
                for number in bench.silent() {
                    prop_assert!(bench.now - heard[&number] >= SILENT, "N{} after {:?}", number, bench.now);
                }
            }
        }
    }
}
