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

use std::sync::Arc;

use bifrost_loglet::close::CloseLoglet;
use bifrost_sequencer::core::{Core, Event, SegmentLimits, StreamId};
use bifrost_types::{LogletOffset, WriterId};
use stateright::{Model, Property};

use self::action::Action;
use self::scope::{Budget, Scope, Stage};
pub(crate) use self::scopes::scopes;
use self::server::Server;
use self::tail::Probe;
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
    /// Appends so far; the record at offset `n` is `n`.
    appended: u8,
    finders: Vec<Finder>,
    decided: Option<Decided>,
    /// Somebody was told of each offset below.
    acknowledged: LogletOffset,
    /// The highest tail that the open segment showed to a reader (R1).
    shown: LogletOffset,
    /// The successor acknowledged a record, at the first LSN after the decided tail.
    successor_acknowledged: bool,
    probe: Option<Probe>,
    left: Budget,
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
        let mut sequencer = Core::new(params.clone(), SegmentLimits::default(), retained_bytes_max)
            .expect("a scope that can take records");
        let mut out = Vec::new();
        let writer = WriterId::try_from(1).expect("not 0");
        sequencer.step(0, Event::StreamOpened { stream: StreamId(1), writer, incarnation: 1 }, &mut out);
        for index in params.nodeset.indexes() {
            sequencer.step(0, Event::CopyUp { index, connection: 1 }, &mut out);
        }
        let servers = params.nodeset.iter().zip(self.scope().zones);
        let mut state = State {
            servers: servers.map(|((index, member), zone)| Server::new(index, *zone, member.disk)).collect(),
            sequencer: Some(Arc::new(sequencer)),
            appended: 0,
            finders: Vec::new(),
            decided: None,
            acknowledged: LogletOffset::FIRST,
            shown: LogletOffset::FIRST,
            successor_acknowledged: false,
            probe: None,
            left: self.scope().budget,
            broken: None,
        };
        for op in self.scope().finders {
            let id = self.stage.ops.get(usize::from(*op)).copied().expect("a scope names operations that exist");
            let core = CloseLoglet::new(params, id).expect("a scope that can take records");
            state.finders.push(Finder { core: Arc::new(core), op: *op, retry: false, life: Life::Working });
        }
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
