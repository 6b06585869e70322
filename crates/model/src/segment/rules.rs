//! What holds in every state, and what every run comes to. The ids are those of `docs/PROTOCOL.md`.

use bifrost_types::{LogletOffset, NodeSet};
use stateright::Property;

use super::server::{Server, at};
use super::{Life, Segment, State};

/// All rules.
pub(super) fn all() -> Vec<Property<Segment>> {
    vec![
        Property::always("every core keeps its own order, and no step breaks a rule", |_, state: &State| {
            state.broken.is_none()
        }),
        Property::always(
            "promise 1, A3: what was acknowledged is on a write quorum with its bytes",
            |model: &Segment, state: &State| model.is_on_write_quorum(state, state.acknowledged),
        ),
        Property::always("S1, S2: nothing at or above the decided tail was acknowledged", |_, state: &State| {
            state.decided.is_none_or(|decided| state.acknowledged <= decided.tail)
        }),
        Property::always("S2: no candidate is below an acknowledged record", |_, state: &State| {
            state.finders.iter().all(|finder| match finder.life {
                Life::Candidate(tail) => state.acknowledged <= tail,
                Life::Working | Life::Over | Life::Superseded => true,
            })
        }),
        Property::always(
            "S3: everything below the decided tail is on a write quorum with its bytes",
            |model: &Segment, state: &State| {
                state.decided.is_none_or(|decided| model.is_on_write_quorum(state, decided.tail))
            },
        ),
        Property::always("S4, R1: nothing that a reader saw was dropped by the decision", |_, state: &State| {
            state.decided.is_none_or(|decided| state.shown <= decided.tail)
        }),
        Property::always(
            "R1: a reader of the open segment sees what the sequencer committed, nothing else",
            |_, state: &State| {
                state.shown <= state.acknowledged.max(state.decided.map_or(LogletOffset::FIRST, |decided| decided.tail))
            },
        ),
        Property::always("L4: copies agree on what may be read", |_, state: &State| {
            let readable = state.decided.map_or(state.shown, |decided| decided.tail.max(state.shown));
            let copies = state.servers.iter();
            copies.flat_map(|server| differs(server, readable)).next().is_none()
        }),
        Property::always("L1: a copy has no hole above its committed tail", |_, state: &State| {
            state.servers.iter().all(Server::is_without_hole)
        }),
        Property::always(
            "S5: a copy that knows the end has nothing behind it, and knows the right one",
            |_, state: &State| {
                state.servers.iter().all(|server| {
                    let known = server.durable.decided_tail;
                    known.is_none() || known == state.decided.map(|decided| decided.tail)
                })
            },
        ),
        Property::always(
            "R4: a linearizable tail is not below what was acknowledged before it was asked for",
            |_, state: &State| {
                let probe = state.probe.as_ref();
                probe.is_none_or(|probe| probe.answer().is_none_or(|tail| probe.acknowledged_before <= tail))
            },
        ),
        Property::always("trim: nothing is trimmed at or above the committed tail", |_, state: &State| {
            let committed = state.decided.map_or(state.acknowledged, |decided| decided.tail);
            state.servers.iter().all(|server| server.core.staged().trim_point.is_none_or(|point| point < committed))
        }),
        Property::eventually("promise 5: every run ends with a decided tail", |_, state: &State| {
            let given_up = state.finders.iter().any(|finder| finder.life == Life::Superseded);
            state.finders.is_empty() || state.decided.is_some() || given_up || state.broken.is_some()
        }),
    ]
}

/// The offsets below `tail` where a copy has other bytes than the writer appended.
fn differs(server: &Server, tail: LogletOffset) -> impl Iterator<Item = LogletOffset> {
    let offsets = (1..tail.get()).map(at);
    offsets.filter(|offset| !matches!(server.held(*offset), 0) && u64::from(server.held(*offset)) != offset.get())
}

impl Segment {
    /// Whether each record below `tail` is on a write quorum, disks counted that were lost since.
    pub(super) fn is_on_write_quorum(&self, state: &State, tail: LogletOffset) -> bool {
        (1..tail.get()).map(at).all(|offset| {
            let copies = state.servers.iter().zip(self.stage.params.nodeset.indexes());
            let holders = copies.filter(|(server, _)| u64::from(server.held(offset)) == offset.get());
            self.is_write_quorum(holders.map(|(_, index)| index).collect())
        })
    }

    /// A write quorum as the design says, counted here and not by the core: so many nodes, in so many zones.
    fn is_write_quorum(&self, holders: NodeSet) -> bool {
        let zones: std::collections::BTreeSet<u8> =
            holders.iter().filter_map(|index| self.scope().zones.get(index.get()).copied()).collect();
        self.stage.params.replication.counts().all(|(scope, count)| {
            let reached = match scope {
                bifrost_types::Scope::Node => holders.count(),
                bifrost_types::Scope::Zone => zones.len(),
                bifrost_types::Scope::Region => 1,
            };
            reached >= usize::from(count.get())
        })
    }
}
