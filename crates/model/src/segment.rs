//! One segment from its first append to its decided tail: a sequencer, its copies, finders, readers, and whoever asks
//! for the linearizable tail.
//!
//! All decisions are made by the real cores; what is here moves their effects about as events. A state holds the cores,
//! what is under way between them, and what may still go wrong. A sequencer or a finder that dies is one that takes no
//! further step, and a message that is lost is one that never arrives; both are in every scope, without being spent.

mod action;
mod call;
mod canonical;
mod finding;
mod rules;
mod scope;
mod scopes;
mod sequencing;
mod server;
mod step;
mod tail;
mod tell;
mod writer;

use std::sync::Arc;

use bifrost_loglet::close::CloseLoglet;
use bifrost_sequencer::core::{Core, Event, SegmentLimits};
use bifrost_types::{Chain, LogletOffset};
use stateright::{Model, Property};

use self::action::Action;
use self::scope::{Budget, Scope, Stage};
pub(crate) use self::scopes::scopes;
use self::sequencing::followed;
use self::server::Server;
use self::tail::Probe;
use self::writer::Writer;
use crate::explore::Explored;
use crate::witness::Seen;

/// The model of one scope.
#[derive(Debug, Clone)]
pub(crate) struct Segment {
    stage: Arc<Stage>,
    seen: Seen,
}

/// Everything at one moment.
#[derive(Debug, Clone)]
pub(crate) struct State {
    servers: Vec<Server>,
    /// `None` once it ended or died.
    sequencer: Option<Arc<Core<()>>>,
    writer: Writer,
    /// Appends so far; the record at offset `n` is `n`.
    appended: u8,
    finders: Vec<Finder>,
    decided: Option<Decided>,
    /// The chain that decided; told by `decided`.
    chain: Option<Arc<Chain>>,
    /// Somebody was told of each offset below.
    acknowledged: LogletOffset,
    /// The highest tail that the open segment showed to a reader (R1).
    shown: LogletOffset,
    /// The successor acknowledged a record, at the first LSN after the decided tail.
    successor_acknowledged: bool,
    probe: Option<Probe>,
    left: Budget,
    /// Servers that differ by name only are different.
    by_name: bool,
    /// A core or a rule that looks at steps found a breach.
    broken: Option<String>,
}

/// The decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Decided {
    op: u8,
    tail: LogletOffset,
}

#[derive(Debug, Clone)]
struct Finder {
    core: Arc<CloseLoglet>,
    op: u8,
    /// The clock will ring.
    retry: bool,
    life: Life,
}

/// What became of a finder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Life {
    Working,
    /// Has its candidate, on the way to the transaction.
    Candidate(LogletOffset),
    Over,
    /// A newer operation took over.
    Superseded,
}

impl Segment {
    /// The model of a scope.
    pub(crate) fn new(scope: Scope) -> Self {
        let stage = Stage::new(scope);
        Self { stage: Arc::new(stage), seen: Seen::default() }
    }

    fn scope(&self) -> &Scope {
        &self.stage.scope
    }

    fn begin(&self) -> State {
        let retained_bytes_max = if self.scope().retained { usize::MAX } else { 0 };
        let params = &self.stage.params;
        let limits = SegmentLimits { retained_bytes_max, ..SegmentLimits::default() };
        let mut sequencer = Core::new(params.clone(), limits).expect("a scope that can take records");
        for index in params.nodeset.indexes() {
            sequencer.step(0, Event::CopyUp { index, connection: 1 }, &mut Vec::new());
            sequencer.step(0, followed(index, 1), &mut Vec::new());
        }
        let servers = params.nodeset.iter().zip(self.scope().zones);
        let mut state = State {
            servers: servers.map(|((index, member), zone)| Server::new(index, *zone, member.disk)).collect(),
            sequencer: Some(Arc::new(sequencer)),
            writer: Writer::FIRST,
            appended: 0,
            finders: Vec::new(),
            decided: None,
            chain: None,
            acknowledged: LogletOffset::FIRST,
            shown: LogletOffset::FIRST,
            successor_acknowledged: false,
            probe: None,
            left: self.scope().budget,
            by_name: self.scope().by_name,
            broken: None,
        };
        for op in self.scope().finders {
            let id = self.stage.ops.get(usize::from(*op)).copied().expect("a scope names operations that exist");
            let core = CloseLoglet::new(params, id).expect("a scope that can take records");
            state.finders.push(Finder { core: Arc::new(core), op: *op, retry: false, life: Life::Working });
        }
        self.open_first_stream(&mut state);
        // They begin at once: their requests may be under way for as long as one likes.
        for finder in 0..state.finders.len() {
            self.ring(&mut state, finder);
        }
        state
    }
}

impl Model for Segment {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![self.begin()]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        self.possible(state, actions);
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        self.take(state, &action)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        rules::all()
    }
}

impl Explored for Segment {
    fn name(&self) -> &'static str {
        self.scope().name
    }

    fn tell(&self, before: &State, action: &Action, after: &State) -> String {
        tell::step(before, action, after)
    }

    fn verdict(&self, last: &State) -> Option<String> {
        last.broken.clone()
    }

    fn is_quick(&self) -> bool {
        self.scope().quick
    }

    fn unseen(&self) -> Option<&'static str> {
        self.seen.missing(self.scope().witnesses)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explore::explore;

    #[test]
    fn without_an_f_majority_a_run_ends_undecided_and_that_is_told() {
        // Guards the liveness rule: an exploration that never reached the end of a run would keep it too.
        let budget = Budget { disks_lost: 2, ..Scope::PLAIN.budget };
        let report = explore(&Segment::new(Scope { appends: 1, budget, ..Scope::PLAIN }), 1);
        let violation = report.violation.expect("two disks of three are lost");
        assert!(violation.property.starts_with("promise 5"), "{violation:?}");
    }

    #[test]
    fn a_scope_that_never_shows_what_it_is_for_does_not_pass() {
        let witnesses = &[crate::witness::Witness::WrongDisk];
        let report = explore(&Segment::new(Scope { appends: 1, witnesses, ..Scope::PLAIN }), 1);
        let violation = report.violation.expect("no disk is lost in this scope");
        assert_eq!(violation.property, "sometimes: a request named a disk that was lost");
    }
}
