//! Parts of histories for tests.

use std::num::{NonZeroU32, NonZeroU64, NonZeroU128};

use bifrost_types::{
    DiskId, Generation, Location, LogId, LogletId, LogletParams, Member, NodeGeneration, NodeId, Nodeset, SegmentIndex,
};

pub(crate) fn log_id() -> LogId {
    LogId::new(NonZeroU64::MIN)
}

pub(crate) fn node(number: u32) -> NodeId {
    NodeId::new(NonZeroU32::new(number).expect("not 0"))
}

pub(crate) fn disk(number: u32) -> DiskId {
    DiskId::new(NonZeroU128::new(u128::from(number)).expect("not 0"))
}

/// Nodes 1 to `nodes` with disks of the same number, in zones of region 0 or 1, by turns.
pub(crate) fn params(segment: u32, nodes: u32, property: &str) -> LogletParams {
    let member = |number: u32| Member {
        node: node(number),
        disk: disk(number),
        location: Location { region: format!("r{}", number / 4), zone: format!("z{}", number % 2) },
    };
    LogletParams {
        id: LogletId::new(log_id(), SegmentIndex::new(segment)),
        nodeset: Nodeset::new((1..=nodes).map(member).collect()).expect("a few nodes"),
        replication: property.parse().expect("a property"),
        sequencer: NodeGeneration::new(node(1), Generation::FIRST),
    }
}
