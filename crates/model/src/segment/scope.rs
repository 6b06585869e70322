//! How much may go wrong in a run, and where: the named scopes.

use bifrost::chain;
use bifrost::reconfigure::{Intent, Step};
use bifrost_types::{
    Actor, Chain, CloseReason, DiskId, Generation, Location, LogId, LogletParams, Member, NodeGeneration, NodeId,
    Nodeset, OpId, SegmentIndex, Successor,
};

use crate::witness::Witness;

/// What may still go wrong. Each number is how often.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Budget {
    /// A finder gives up on a call; the request is carried out later, or was, or never is.
    pub(crate) calls_lost: u8,
    /// A request of a finder is carried out twice.
    pub(crate) calls_doubled: u8,
    /// The connection of the sequencer breaks with a store under way, which arrives late or never.
    pub(crate) stores_lost: u8,
    /// A server stops and comes back with what is durable.
    pub(crate) crashes: u8,
    /// A server comes back with an empty disk.
    pub(crate) disks_lost: u8,
    /// A stream of the writer breaks with a batch under way, which arrives late or never.
    pub(crate) streams_broken: u8,
    /// The sequencer is gone.
    pub(crate) sequencer_dies: u8,
    /// The sequencer ends because a finder asks for its last word.
    pub(crate) last_words: u8,
    /// A store of another life of the sequencer's node comes to a copy that is bound.
    pub(crate) foreign_stores: u8,
    /// A store with other bytes than were appended comes to a copy, as if from its own sequencer.
    pub(crate) other_bytes: u8,
    /// A disk is full and refuses a group.
    pub(crate) full: u8,
    /// A copy is asked to trim.
    pub(crate) trims: u8,
    /// Somebody asks for the linearizable tail.
    pub(crate) tails: u8,
}

/// One scope.
#[derive(Debug, Clone)]
pub(crate) struct Scope {
    pub(crate) name: &'static str,
    /// Part of the quick selection.
    pub(crate) quick: bool,
    /// The zone of each server.
    pub(crate) zones: &'static [u8],
    pub(crate) replication: &'static str,
    /// Batches of one record each that the writer appends.
    pub(crate) appends: u8,
    /// The operation of each finder.
    pub(crate) finders: &'static [u8],
    /// A group is built and becomes durable in two steps. Otherwise each request is durable at once.
    pub(crate) groups: bool,
    /// Answers to finders travel, and may be stale when they arrive. Otherwise they arrive at once.
    pub(crate) late_answers: bool,
    /// Reads between copies travel. Otherwise they happen at once.
    pub(crate) late_reads: bool,
    /// Requests that a finder sent still arrive after it ended. Otherwise they are lost then.
    pub(crate) late_requests: bool,
    /// Servers are told the decided tail. Otherwise nobody tells them.
    pub(crate) settles: bool,
    /// Disks are lost in this zone only.
    pub(crate) lost_in: Option<u8>,
    /// Answers to the sequencer travel. Otherwise they arrive at once.
    pub(crate) answers: bool,
    /// Servers count as different even if they differ by name only.
    pub(crate) by_name: bool,
    /// The sequencer keeps committed batches for copies that are behind. Otherwise those have holes (L1).
    pub(crate) retained: bool,
    pub(crate) budget: Budget,
    /// What must have happened in some run.
    pub(crate) witnesses: &'static [Witness],
}

impl Scope {
    /// Three servers, two copies, two records, one finder, nothing goes wrong.
    pub(crate) const PLAIN: Self = Self {
        name: "plain",
        quick: true,
        zones: &[0, 0, 0],
        replication: "2",
        appends: 2,
        finders: &[0],
        groups: false,
        late_answers: false,
        late_reads: false,
        late_requests: false,
        settles: false,
        lost_in: None,
        answers: true,
        by_name: false,
        retained: true,
        budget: Budget {
            calls_lost: 0,
            calls_doubled: 0,
            stores_lost: 0,
            crashes: 0,
            disks_lost: 0,
            streams_broken: 0,
            sequencer_dies: 0,
            last_words: 0,
            foreign_stores: 0,
            other_bytes: 0,
            full: 0,
            trims: 0,
            tails: 0,
        },
        witnesses: &[],
    };
}

/// What is fixed in a scope.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) scope: Scope,
    pub(crate) params: LogletParams,
    pub(crate) ops: [OpId; 2],
    /// What the driver of each operation wants.
    pub(crate) intents: [Intent; 2],
    /// The chain in which each operation is pending.
    pub(crate) announced: [Chain; 2],
    pub(crate) foreign: NodeGeneration,
    pub(crate) other_disk: DiskId,
}

impl Stage {
    /// Sets the stage.
    ///
    /// # Panics
    /// When the scope contradicts itself.
    pub(crate) fn new(scope: Scope) -> Self {
        // A read from a lost disk that travels is not the same as none, and states are told apart as if it were.
        assert!(!scope.late_reads || scope.budget.disks_lost == 0, "reads travel where no disk is lost");
        let node = |number: usize| NodeId::try_from(number as u32 + 1).expect("not 0");
        let disk = |number: usize| DiskId::try_from(number as u128 + 1).expect("not 0");
        let zoned = scope.zones.iter().any(|zone| *zone != 0);
        let members = scope.zones.iter().enumerate().map(|(number, zone)| Member {
            node: node(number),
            disk: disk(number),
            location: Location { region: "".into(), zone: if zoned { format!("z{zone}").into() } else { "".into() } },
        });
        let sequencer = NodeGeneration::new(node(100), Generation::FIRST);
        let successor = Successor {
            nodeset: Nodeset::new(members.collect()).expect("each node once"),
            replication: scope.replication.parse().expect("a replication property"),
            sequencer,
        };
        let op = |number: u128| OpId::try_from(number).expect("not 0");
        let ops = [op(1), op(2)];
        let created = chain::create(LogId::try_from(1).expect("not 0"), None, op(99), successor.clone());
        let params = created.last().expect("a log has a segment").params.clone();
        let intents = ops.map(|op| Intent {
            op,
            segment: SegmentIndex::FIRST,
            actor: Actor::Operator,
            reason: CloseReason::Requested,
            successor: Some(successor.clone()),
        });
        let announced = intents.clone().map(|intent| match intent.next_step(&created, None, 0) {
            Ok(Step::Write(announced)) => announced,
            other => unreachable!("a new log takes an operation: {other:?}"),
        });
        let foreign = NodeGeneration::new(sequencer.node, Generation::FIRST.next().expect("far from the end"));
        Self { scope, params, ops, intents, announced, foreign, other_disk: disk(1000) }
    }
}
