//! The chain of one log under several actors: the real transitions and the real next step, over one versioned value
//! that is replaced by compare-and-set, with replies that are lost and actors that die between any two steps.
//!
//! Closing the loglet is one step here: it returns any candidate between what was acknowledged and what was stored.
//! That two actors may find two candidates is what the segment scopes show.

mod history;
mod scopes;
mod step;

use std::sync::Arc;

use bifrost_types::{Chain, LogletOffset, Lsn, OpId, SegmentIndex, Successor};
use stateright::{Model, Property};

use self::history::History;
pub(crate) use self::scopes::scopes;
use crate::explore::Explored;
use crate::witness::{Seen, Witness};

/// What may still go wrong; each number is how often.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
struct Budget {
    /// An actor hears nothing of its transaction, which is carried out, now or later, or never.
    replies_lost: u8,
    /// An actor dies and begins again with nothing but its intent.
    crashes: u8,
    /// The successor became impossible and is replaced (T1').
    replacements: u8,
    /// An operation that is over is asked for again, by somebody who sees the log as it is now.
    repeats: u8,
}

/// What an actor wants.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Wanted {
    /// Close the segment that is last when it first looks, and open this successor, or none.
    Close { op: OpId, successor: Option<Successor> },
    /// Trim up to and including this position.
    Trim { trim_point: Lsn },
}

/// One scope.
#[derive(Debug, Clone)]
struct Scope {
    name: &'static str,
    quick: bool,
    actors: Vec<Wanted>,
    budget: Budget,
    /// What closing a loglet may return.
    candidates: Vec<u64>,
    witnesses: &'static [Witness],
}

/// The model of one scope.
#[derive(Debug, Clone)]
pub(crate) struct Chains {
    scope: Arc<Scope>,
    created: Arc<Chain>,
    replacement: Successor,
    seen: Seen,
}

/// Everything at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct State {
    revision: u8,
    chain: Arc<Chain>,
    actors: Vec<Actor>,
    /// Transactions under way.
    txns: Vec<Txn>,
    history: History,
    left: Budget,
    broken: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Actor {
    /// The segment that it wants to close, from its first look.
    segment: Option<SegmentIndex>,
    /// The revision and the chain that it saw last, until it acts on them.
    look: Option<(u8, Arc<Chain>)>,
    candidate: Option<(OpId, LogletOffset)>,
    /// Waits for the reply to its transaction.
    waits: bool,
    done: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Txn {
    /// Who waits for the reply, or nobody.
    actor: Option<u8>,
    expected: u8,
    next: Arc<Chain>,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// An actor reads the chain.
    Look { actor: usize },
    /// An actor acts on what it read: writes, decides or ends.
    Act { actor: usize },
    /// An actor closes the loglet and finds this candidate.
    Close { actor: usize, tail: u64 },
    /// An actor replaces the successor instead of deciding.
    Replace { actor: usize },
    /// A transaction arrives, and so does its reply.
    Arrive { txn: usize },
    /// An actor hears nothing of its transaction, which stays under way.
    ReplyLost { actor: usize },
    /// An actor dies; it, or another with the same intent, begins again.
    Crash { actor: usize },
    /// The intent of an actor that is done is carried out again.
    Repeat { actor: usize },
}

impl Model for Chains {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let actor = Actor { segment: None, look: None, candidate: None, waits: false, done: false };
        vec![State {
            revision: 1,
            chain: Arc::clone(&self.created),
            actors: vec![actor; self.scope.actors.len()],
            txns: Vec::new(),
            history: History::of(&self.created),
            left: self.scope.budget,
            broken: None,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        self.possible(state, actions);
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        Some(self.take(state, &action))
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("C1-C4: every change of the chain is a legal one", |_, state: &State| {
                state.broken.is_none()
            }),
            Property::eventually("promise 5: every actor comes to an end", |_, state: &State| {
                state.broken.is_some() || state.actors.iter().all(|actor| actor.done)
            }),
        ]
    }
}

impl Explored for Chains {
    fn name(&self) -> &'static str {
        self.scope.name
    }

    fn is_quick(&self) -> bool {
        self.scope.quick
    }

    fn tell(&self, before: &State, action: &Action, after: &State) -> String {
        let chain = |state: &State| {
            let segments: Vec<String> = state
                .chain
                .segments
                .iter()
                .map(|segment| match segment.decided_tail() {
                    Some(tail) => format!("{}@{} ends {tail}", segment.index(), segment.base_lsn),
                    None => format!("{}@{} open", segment.index(), segment.base_lsn),
                })
                .collect();
            let pending = state.chain.pending.as_ref().map(|pending| format!(", pending {}", pending.op.get()));
            format!("v{} [{}]{}", state.chain.version, segments.join(", "), pending.unwrap_or_default())
        };
        let change = if before.chain == after.chain { String::new() } else { format!(" → {}", chain(after)) };
        format!("{action:?}{change}")
    }

    fn verdict(&self, last: &State) -> Option<String> {
        last.broken.clone()
    }

    fn unseen(&self) -> Option<&'static str> {
        self.seen.missing(self.scope.witnesses)
    }
}
