//! The named scopes of chains.

use std::sync::Arc;

use bifrost::chain;
use bifrost_types::{
    DiskId, Generation, Location, LogId, Lsn, Member, NodeGeneration, NodeId, Nodeset, OpId, Successor,
};

use super::{Budget, Chains, Scope, Wanted};
use crate::witness::Seen;
use crate::witness::Witness::{ActorDied, Conflict, LateRequest, Repeated, Replaced, Superseded};

/// All of them, cheap ones first.
pub(crate) fn scopes() -> Vec<Chains> {
    let op = |number: u128| OpId::try_from(number).expect("not 0");
    let opens = |number: u128| Wanted::Close { op: op(number), successor: Some(successor(number as u32)) };
    let ends = |number: u128| Wanted::Close { op: op(number), successor: None };
    let trims = |point: u64| Wanted::Trim { trim_point: Lsn::new(point).expect("not 0") };
    let budget = Budget { replies_lost: 2, crashes: 1, replacements: 1, repeats: 0 };
    let scopes = [
        Scope {
            name: "chain: two trims and a reconfiguration",
            quick: true,
            actors: vec![opens(1), trims(1), trims(2)],
            budget: Budget { replies_lost: 1, ..Budget::default() },
            candidates: vec![1, 2],
            witnesses: &[Conflict, LateRequest],
        },
        Scope {
            name: "chain: one operation by two actors, replies lost, one actor dies",
            quick: true,
            actors: vec![opens(1), opens(1)],
            budget,
            candidates: vec![1, 2],
            witnesses: &[Conflict, LateRequest, ActorDied, Replaced],
        },
        Scope {
            name: "chain: two operations, replies lost, one actor dies",
            quick: true,
            actors: vec![opens(1), opens(2)],
            budget,
            candidates: vec![1, 2],
            witnesses: &[Conflict, LateRequest, ActorDied, Superseded, Replaced],
        },
        Scope {
            name: "chain: one operation opens the next segment, the other closes the log for good",
            quick: true,
            actors: vec![opens(1), ends(2)],
            budget: Budget { replacements: 0, ..budget },
            candidates: vec![1, 2],
            witnesses: &[Conflict, LateRequest, ActorDied, Superseded],
        },
        Scope {
            name: "chain: two operations, each asked for again when it is over",
            quick: false,
            actors: vec![opens(1), opens(2)],
            budget: Budget { replies_lost: 1, crashes: 1, replacements: 0, repeats: 2 },
            candidates: vec![1, 2],
            witnesses: &[Conflict, LateRequest, ActorDied, Repeated],
        },
    ];
    let created = chain::create(LogId::try_from(1).expect("not 0"), None, op(99), successor(90));
    let model = |scope| Chains {
        scope: Arc::new(scope),
        created: Arc::new(created.clone()),
        replacement: successor(80),
        seen: Seen::default(),
    };
    scopes.into_iter().map(model).collect()
}

/// What a segment is to be; each number is told from every other.
fn successor(number: u32) -> Successor {
    let node = NodeId::try_from(number).expect("not 0");
    let disk = DiskId::try_from(u128::from(number)).expect("not 0");
    let member = Member { node, disk, location: Location::default() };
    Successor {
        nodeset: Nodeset::new(vec![member]).expect("one member"),
        replication: "1".parse().expect("a replication property"),
        sequencer: NodeGeneration::new(node, Generation::FIRST),
    }
}
