//! What one disk should have: its part of the closed segments of a chain.

use bifrost_types::{DiskId, LogletOffset, LogletParams, NodeId, OpId, SegmentState};
use bifrost_wire::metadata::Revision;

use crate::catalog::StoredChain;

/// One closed segment that a disk is a member of. `from < end <= decided_tail`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    /// The segment's loglet.
    pub params: LogletParams,
    /// A revision of the chain that names its nodeset.
    pub named_at: Revision,
    /// The operation that closed it.
    pub op: OpId,
    /// First offset that is not trimmed.
    pub from: LogletOffset,
    /// First offset that no copy has.
    pub end: LogletOffset,
    /// Where it ended: at `end`, unless what follows is lost.
    pub decided_tail: LogletOffset,
}

/// The shares of a disk in a log. Segments of which everything is trimmed are none.
pub fn shares(stored: &StoredChain, node: NodeId, disk: DiskId) -> Vec<Share> {
    let (chain, named_at) = (&stored.chain, stored.revision);
    let mut shares = Vec::new();
    for segment in &chain.segments {
        let SegmentState::Sealed { tail: decided_tail, op, .. } = segment.state else { continue };
        let members = segment.params.nodeset.members();
        if !members.iter().any(|member| member.node == node && member.disk == disk) {
            continue;
        }
        let trim_point = chain.trim_point.and_then(|point| LogletOffset::from_lsn(point, segment.base_lsn));
        let from = trim_point.map_or(LogletOffset::FIRST, |point| point.advance(1).unwrap_or(LogletOffset::MAX));
        let end = segment.held_tail().unwrap_or(decided_tail);
        if from < end {
            shares.push(Share { params: segment.params.clone(), named_at, op, from, end, decided_tail });
        }
    }
    shares
}
