//! Which logs are in trouble, and whose turn it is: the core of a controller. No clock, no IO; times are since an
//! arbitrary start.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bifrost_types::plant::{self, Plant};
use bifrost_types::{Chain, Generation, LogId, NodeGeneration, NodeId, NodeRecord, OpId, SegmentIndex, StorageState};
use bifrost_wire::metadata::Revision;

use super::ControllerOptions;
use crate::liveness::core::Verdict;

/// What somebody should do something about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Trouble {
    /// A reconfiguration was announced and is not decided: its actor may be dead.
    LeftPending {
        /// Which one.
        op: OpId,
        /// Which attempt of it (T1').
        attempt: u32,
    },
    /// The sequencer of the open segment can never answer again: its node lives another life, or is out of service.
    SequencerGone {
        /// The open segment.
        segment: SegmentIndex,
        /// The life that is over.
        sequencer: NodeGeneration,
    },
    /// Nothing is heard of the sequencer of the open segment: it may be dead, paused or cut off. Only a controller beside
    /// the metadata member that leads knows of this.
    SequencerSilent {
        /// The open segment.
        segment: SegmentIndex,
        /// The life that is silent.
        sequencer: NodeGeneration,
    },
}

/// What a controller keeps of a log that is not closed for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LogView {
    /// The last segment, which is open.
    pub segment: SegmentIndex,
    /// Its sequencer.
    pub sequencer: NodeGeneration,
    /// What is pending, and which attempt of it.
    pub pending: Option<(OpId, u32)>,
}

impl LogView {
    /// What is kept of a chain; `None` of one that is closed for good, which nobody needs to care for: if the log is being
    /// deleted, its tombstone says so to the sweepers.
    pub fn of(chain: &Chain) -> Option<Self> {
        let last = chain.last().filter(|last| last.decided_tail().is_none())?;
        let pending = chain.pending.as_ref().map(|pending| (pending.op, pending.attempt));
        Some(Self { segment: last.index(), sequencer: last.params.sequencer, pending })
    }

    /// What is wrong with the log, given what is known of the node of its sequencer.
    pub fn trouble(&self, node: Option<NodeView>) -> Option<Trouble> {
        if let Some((op, attempt)) = self.pending {
            if plant::is(Plant::NobodyResumes) {
                return None;
            }
            return Some(Trouble::LeftPending { op, attempt });
        }
        if plant::is(Plant::DeadSequencerStays) {
            return None;
        }
        let gone = node.is_none_or(|node| !node.in_service || node.generation > self.sequencer.generation);
        gone.then_some(Trouble::SequencerGone { segment: self.segment, sequencer: self.sequencer })
    }

    /// The same where silence is known of.
    pub fn trouble_by(&self, node: Option<NodeView>, verdict: &Verdict) -> Option<Trouble> {
        let Self { segment, sequencer, .. } = *self;
        let silent = || verdict.is_silent(sequencer).then_some(Trouble::SequencerSilent { segment, sequencer });
        self.trouble(node).or_else(silent)
    }
}

/// What a controller keeps of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct NodeView {
    /// Its present life.
    pub generation: Generation,
    /// Whether that life may serve at all: neither a lost disk nor retired.
    pub in_service: bool,
}

impl From<&NodeRecord> for NodeView {
    fn from(record: &NodeRecord) -> Self {
        let in_service = match record.storage {
            StorageState::Provisioning | StorageState::ReadWrite | StorageState::ReadOnly => true,
            StorageState::DataLoss | StorageState::Retired => false,
        };
        Self { generation: record.id.generation, in_service }
    }
}

/// What a controller is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Everything that there is, read anew.
    Listed {
        /// The nodes.
        nodes: BTreeMap<NodeId, NodeView>,
        /// The logs that are not closed for good, and the revision of each.
        logs: BTreeMap<LogId, (Revision, LogView)>,
    },
    /// A chain as it was at a revision; `None` when it is closed for good.
    LogSeen {
        /// The log.
        log: LogId,
        /// The revision. News that is older than what is known changes nothing.
        revision: Revision,
        /// What is kept of it.
        view: Option<LogView>,
    },
    /// The log was deleted.
    LogGone {
        /// The log.
        log: LogId,
    },
    /// The record of a node was written.
    NodeSeen {
        /// The node.
        node: NodeId,
        /// What is kept of it.
        view: NodeView,
    },
    /// The record of a node was taken away.
    NodeGone {
        /// The node.
        node: NodeId,
    },
    /// What the detector beside this controller concludes now.
    Judged {
        /// Who is silent.
        verdict: Verdict,
    },
    /// An attempt ended, however. What it saw of the log was told before.
    AttemptEnded {
        /// The log.
        log: LogId,
    },
    /// It is [`Core::wake_at`].
    Woken,
}

/// What a controller has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Do something about this, and tell when it ended.
    Attempt {
        /// The log.
        log: LogId,
        /// What is wrong with it.
        trouble: Trouble,
    },
}

/// A log in trouble.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Case {
    trouble: Trouble,
    /// Attempts at this trouble that ended and left it.
    failed: u32,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum State {
    /// Nothing before then.
    Waiting { due: Duration },
    /// An attempt is under way. `over` says that the trouble, as it was, ended meanwhile: what is there when the attempt
    /// ends is another one.
    Running { over: bool },
}

/// The core of a controller.
///
/// Kept: a case for each log that is in trouble, and none beside those but of attempts that run; retries under way
/// `<=` `retries_at_once` `<=` attempts under way `<=` `attempts_at_once` of its options.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Core {
    me: Option<NodeId>,
    options: ControllerOptions,
    nodes: BTreeMap<NodeId, NodeView>,
    verdict: Verdict,
    /// When the metadata member beside this controller gained the lead, while it has it.
    leads_since: Option<Duration>,
    logs: BTreeMap<LogId, (Revision, LogView)>,
    cases: BTreeMap<LogId, Case>,
    /// Waiting cases in the order in which they are due, for which nothing has been tried.
    fresh: BTreeSet<(Duration, LogId)>,
    /// The same of those that were tried in vain.
    again: BTreeSet<(Duration, LogId)>,
    running: BTreeMap<LogId, Running>,
    /// How many of them are retries.
    retries: usize,
}

/// Whether an attempt that runs is the first at its trouble.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Running {
    First,
    Retry,
}

/// Nodes that let others go first wait for at most so many of them.
const TURNS_MAX: usize = 3;

/// What is promised of memory, the tree's own share aside.
const _: () = assert!(size_of::<(LogId, (Revision, LogView))>() <= 96);

impl Core {
    /// Knows nothing yet, and does nothing before it is told of everything. `me` is the node whose controller it is, if
    /// there are others.
    pub const fn new(me: Option<NodeId>, options: ControllerOptions) -> Self {
        Self {
            me,
            options,
            nodes: BTreeMap::new(),
            verdict: Verdict { leads: false, silent: BTreeMap::new() },
            leads_since: None,
            logs: BTreeMap::new(),
            cases: BTreeMap::new(),
            fresh: BTreeSet::new(),
            again: BTreeSet::new(),
            running: BTreeMap::new(),
            retries: 0,
        }
    }

    /// Takes note of an event; `out` gets what is to be done.
    pub fn step(&mut self, now: Duration, event: Event, out: &mut Vec<Effect>) {
        match event {
            Event::Listed { nodes, logs } => self.on_listed(now, nodes, logs),
            Event::LogSeen { log, revision, view } => self.on_log_seen(now, log, revision, view),
            Event::LogGone { log } => {
                self.logs.remove(&log);
                self.judge(now, log);
            }
            Event::NodeSeen { node, view } => self.on_node_seen(now, node, view),
            Event::NodeGone { node } => {
                self.nodes.remove(&node);
                self.judge_logs_of(now, node);
            }
            Event::Judged { verdict } => self.on_judged(now, verdict),
            Event::AttemptEnded { log } => self.on_attempt_ended(now, log),
            Event::Woken => {}
        }
        self.start(now, out);
    }

    /// When to send [`Event::Woken`] if nothing else happens; `None` when only news changes anything.
    pub fn wake_at(&self) -> Option<Duration> {
        let fresh = self.fresh.first().filter(|_| self.has_room());
        let again = self.again.first().filter(|_| self.has_room_for_retry());
        fresh.into_iter().chain(again).map(|(due, _)| *due).min()
    }

    /// Logs in trouble, and attempts under way.
    pub fn in_trouble(&self) -> (usize, usize) {
        (self.cases.len(), self.running.len())
    }

    fn on_listed(
        &mut self,
        now: Duration,
        nodes: BTreeMap<NodeId, NodeView>,
        logs: BTreeMap<LogId, (Revision, LogView)>,
    ) {
        self.nodes = nodes;
        let before = std::mem::replace(&mut self.logs, logs);
        for log in before.into_keys() {
            if !self.logs.contains_key(&log) {
                self.judge(now, log);
            }
        }
        let listed: Vec<LogId> = self.logs.keys().copied().collect();
        for log in listed {
            self.judge(now, log);
        }
    }

    fn on_log_seen(&mut self, now: Duration, log: LogId, revision: Revision, view: Option<LogView>) {
        match view {
            // C3: an attempt reads the chain itself, so news of the watch may be older than what is known.
            _ if self.logs.get(&log).is_some_and(|(known, _)| *known > revision) => {}
            Some(view) => {
                self.logs.insert(log, (revision, view));
            }
            None => {
                self.logs.remove(&log);
            }
        }
        self.judge(now, log);
    }

    fn on_node_seen(&mut self, now: Duration, node: NodeId, view: NodeView) {
        let known = self.nodes.insert(node, view);
        if known == Some(view) {
            return;
        }
        self.judge_logs_of(now, node);
        if known.is_none_or(|known| known.generation < view.generation) {
            self.hurry(now);
        }
    }

    /// Whoever fell silent is in trouble now, and nobody's turn is waited for where silence is known of.
    fn on_judged(&mut self, now: Duration, verdict: Verdict) {
        let before = std::mem::replace(&mut self.verdict, verdict);
        let leads = self.verdict.leads && !before.leads;
        self.leads_since = self.verdict.leads.then(|| self.leads_since.unwrap_or(now));
        let changed = |life| leads || before.is_silent(life) != self.verdict.is_silent(life);
        let changed = self.logs.iter().filter(|(_, (_, view))| changed(view.sequencer));
        let changed: Vec<LogId> = changed.map(|(log, _)| *log).collect();
        for log in changed {
            self.judge(now, log);
            if let Some(case) = self.cases.get(&log).copied()
                && let State::Waiting { due } = case.state
                && case.failed == 0
            {
                let due = due.min(now.saturating_add(self.patience(now, log, case.trouble)));
                self.forget(log);
                self.put(log, Case { state: State::Waiting { due }, ..case });
            }
        }
    }

    /// The lives that sequencers may have, for a detector.
    pub fn lives(&self) -> BTreeMap<NodeId, Generation> {
        let in_service = self.nodes.iter().filter(|(_, view)| view.in_service);
        in_service.map(|(node, view)| (*node, view.generation)).collect()
    }

    /// A node began a life: perhaps it was what logs in trouble waited for.
    fn hurry(&mut self, now: Duration) {
        for (due, log) in std::mem::take(&mut self.again) {
            let Some(case) = self.cases.get(&log).copied() else { continue };
            let soon = now.saturating_add(self.patience(now, log, case.trouble));
            self.put(log, Case { state: State::Waiting { due: due.min(soon) }, ..case });
        }
    }

    fn judge_logs_of(&mut self, now: Duration, node: NodeId) {
        let of_node = self.logs.iter().filter(|(_, (_, view))| view.sequencer.node == node);
        let of_node: Vec<LogId> = of_node.map(|(log, _)| *log).collect();
        for log in of_node {
            self.judge(now, log);
        }
    }

    fn trouble(&self, log: LogId) -> Option<Trouble> {
        let (_, view) = self.logs.get(&log)?;
        let trouble = view.trouble_by(self.nodes.get(&view.sequencer.node).copied(), &self.verdict)?;
        let cared_for = match trouble {
            Trouble::LeftPending { .. } => true,
            Trouble::SequencerGone { .. } | Trouble::SequencerSilent { .. } => self.options.sequencer_grace.is_some(),
        };
        cared_for.then_some(trouble)
    }

    /// Opens, keeps or closes the case of a log. One with an attempt under way is judged when that has ended.
    fn judge(&mut self, now: Duration, log: LogId) {
        let trouble = self.trouble(log);
        if let Some(case) = self.cases.get_mut(&log) {
            if Some(case.trouble) == trouble {
                return;
            }
            if let State::Running { over } = &mut case.state {
                *over = true;
                return;
            }
        }
        self.forget(log);
        if let Some(trouble) = trouble {
            let due = now.saturating_add(self.patience(now, log, trouble));
            self.put(log, Case { trouble, failed: 0, state: State::Waiting { due } });
        }
    }

    fn on_attempt_ended(&mut self, now: Duration, log: LogId) {
        let Some(kind) = self.running.remove(&log) else { return };
        self.retries -= usize::from(kind == Running::Retry);
        let trouble = self.trouble(log);
        match self.cases.get(&log).copied() {
            Some(case) if Some(case.trouble) == trouble && case.state == State::Running { over: false } => {
                let failed = case.failed.saturating_add(1);
                let due = now.saturating_add(self.pause(failed)).saturating_add(self.turn(log));
                self.put(log, Case { failed, state: State::Waiting { due }, ..case });
            }
            _ => {
                self.cases.remove(&log);
                self.judge(now, log);
            }
        }
    }

    /// Starts what is due, as far as there is room: what was not tried before comes first.
    fn start(&mut self, now: Duration, out: &mut Vec<Effect>) {
        while self.has_room() {
            let is_due = |next: &&(Duration, LogId)| next.0 <= now;
            let (next, kind) = match self.fresh.first().filter(is_due) {
                Some(next) => (*next, Running::First),
                None => match self.again.first().filter(is_due).filter(|_| self.has_room_for_retry()) {
                    Some(next) => (*next, Running::Retry),
                    None => return,
                },
            };
            let (_, log) = next;
            self.fresh.remove(&next);
            self.again.remove(&next);
            let Some(case) = self.cases.get_mut(&log) else { continue };
            case.state = State::Running { over: false };
            self.retries += usize::from(kind == Running::Retry);
            self.running.insert(log, kind);
            out.push(Effect::Attempt { log, trouble: case.trouble });
        }
    }

    fn has_room(&self) -> bool {
        self.running.len() < self.options.attempts_at_once.get()
    }

    fn has_room_for_retry(&self) -> bool {
        self.has_room() && self.retries < self.options.retries_at_once.get()
    }

    fn put(&mut self, log: LogId, case: Case) {
        if let State::Waiting { due } = case.state {
            let queue = if case.failed == 0 { &mut self.fresh } else { &mut self.again };
            queue.insert((due, log));
        }
        self.cases.insert(log, case);
    }

    fn forget(&mut self, log: LogId) {
        if let Some(Case { state: State::Waiting { due }, .. }) = self.cases.remove(&log) {
            self.fresh.remove(&(due, log));
            self.again.remove(&(due, log));
        }
    }

    /// How long whoever is at it, and nodes whose turn comes earlier, are left alone. The controller beside the metadata
    /// member that leads waits for nobody when a sequencer cannot answer: the others are there in case that it does not.
    /// Nor for an actor whose announcement it finds when it gains the lead: whoever made it may have died with the leader
    /// before, and one that lives is only joined (C4). News of what that leader took last may come a moment later.
    fn patience(&self, now: Duration, log: LogId, trouble: Trouble) -> Duration {
        let silent = || self.logs.get(&log).is_some_and(|(_, view)| self.verdict.is_silent(view.sequencer));
        let took_over = || self.leads_since.is_some_and(|since| now.saturating_sub(since) < self.options.turn);
        let grace = match trouble {
            Trouble::LeftPending { .. } if silent() || took_over() => return Duration::ZERO,
            Trouble::SequencerGone { .. } if self.verdict.leads => return Duration::ZERO,
            Trouble::SequencerSilent { .. } => return Duration::ZERO,
            Trouble::LeftPending { .. } => self.options.pending_grace,
            Trouble::SequencerGone { .. } => self.options.sequencer_grace.unwrap_or(Duration::MAX),
        };
        grace.saturating_add(self.turn(log))
    }

    /// The pause after so many attempts in vain.
    fn pause(&self, failed: u32) -> Duration {
        let doubled = 2_u32.saturating_pow(failed.saturating_sub(1));
        self.options.pause_min.saturating_mul(doubled).min(self.options.pause_max)
    }

    /// All controllers see the same at about the same time. They take turns, and each log begins with another one, so
    /// that usually one of them does all there is to do, and the others see that it is done.
    pub(crate) fn turn(&self, log: LogId) -> Duration {
        let (Some(me), Ok(nodes)) = (self.me, u64::try_from(self.nodes.len())) else { return Duration::ZERO };
        let Some(first) = log.get().checked_rem(nodes) else { return Duration::ZERO };
        let before_me = self.nodes.range(..me).count();
        let first = usize::try_from(first).unwrap_or(0);
        let turn = if before_me >= first { before_me - first } else { before_me + self.nodes.len() - first };
        let turn = u32::try_from(turn.min(TURNS_MAX)).unwrap_or(0);
        self.options.turn.saturating_mul(turn)
    }

    /// Checks the order that the struct promises.
    ///
    /// # Panics
    /// When it is broken.
    pub fn check(&self) {
        let retries = self.running.values().filter(|kind| **kind == Running::Retry).count();
        assert_eq!(retries, self.retries);
        let (all_max, retries_max) = (self.options.attempts_at_once.get(), self.options.retries_at_once.get());
        assert!(retries <= retries_max && self.running.len() <= all_max, "{:?}", self.running);
        for (log, case) in &self.cases {
            match case.state {
                State::Running { .. } => assert!(self.running.contains_key(log), "{log} runs and is not counted"),
                State::Waiting { due } => {
                    assert_eq!(Some(case.trouble), self.trouble(*log), "{log} waits for nothing");
                    let queues = (self.fresh.contains(&(due, *log)), self.again.contains(&(due, *log)));
                    assert_eq!(queues, (case.failed == 0, case.failed > 0), "{log} is in the wrong queue");
                }
            }
        }
        for log in self.running.keys() {
            let runs = self.cases.get(log).is_some_and(|case| matches!(case.state, State::Running { .. }));
            assert!(runs, "{log} is counted and does not run");
        }
        for log in self.logs.keys() {
            let cared_for = self.trouble(*log).is_none() || self.cases.contains_key(log);
            assert!(cared_for, "{log} is in trouble and nobody knows");
        }
        let waiting = self.cases.len() - self.running.len();
        assert_eq!(self.fresh.len() + self.again.len(), waiting, "a queue names a case twice, or none");
    }
}

#[cfg(test)]
mod tests;
