//! The buckets that nodes are weighed in. They are coarse: what changes all the time must not move a log.

use bifrost_types::NodeId;
use bifrost_wire::node::{Fullness, NodeStatus};

/// What a node is worth to a new segment; less is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fitness {
    /// It answers, stays, and has room.
    Well,
    /// It does not answer, or is about to stop: its disk is expected back.
    Absent,
    /// Its disk is below the soft mark: only if nothing else can hold the segment.
    Low,
}

pub(super) fn fitness(status: Option<&NodeStatus>) -> Fitness {
    let Some(status) = status else { return Fitness::Absent };
    let low = status.disk.is_some_and(|disk| disk.fullness > Fullness::Ample);
    match (low, status.leaving) {
        (true, _) => Fitness::Low,
        (false, true) => Fitness::Absent,
        (false, false) => Fitness::Well,
    }
}

/// A disk is tight when less than this part of what records may ever take of it is free.
const TIGHT_PART: u64 = 8;

/// Whether a disk comes near its soft mark. What is not known is taken for room.
pub(super) fn is_tight(status: Option<&NodeStatus>) -> bool {
    let Some(space) = status.and_then(|status| status.disk?.space) else { return false };
    let usable = space.total_bytes.saturating_sub(space.soft_mark_bytes);
    space.free_bytes.saturating_sub(space.soft_mark_bytes) < usable / TIGHT_PART
}

/// More than this, and twice as much as whoever has least, is much.
const BUSY_SEQUENCERS: u64 = 16;
const BUSY_LOGLETS: u64 = 1024;

/// Whether a node numbers the appends of many more logs than `least`.
pub(super) fn is_busy_sequencer(open: u64, least: u64) -> bool {
    open > least.saturating_mul(2).saturating_add(BUSY_SEQUENCERS)
}

/// Whether a node keeps many more loglets than `least`.
pub(super) fn is_busy_disk(loglets: u64, least: u64) -> bool {
    loglets > least.saturating_mul(2).saturating_add(BUSY_LOGLETS)
}

/// An order of the nodes that is another one for each log.
pub(super) fn turn(seed: u64, node: NodeId) -> u64 {
    // The finalizer of SplitMix64: all bits of log and node reach all bits of the result.
    let mut mixed = seed ^ u64::from(node.get()).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
