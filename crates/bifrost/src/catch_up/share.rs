//! What one disk should have: its part of the closed segments of a chain.

use bifrost_types::{Chain, DiskId, LogletOffset, LogletParams, NodeId, OpId, SegmentState};

/// One closed segment that a disk is a member of. `from < decided_tail`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    /// The segment's loglet.
    pub params: LogletParams,
    /// The operation that closed it.
    pub op: OpId,
    /// First offset that is not trimmed.
    pub from: LogletOffset,
    /// Where it ended.
    pub decided_tail: LogletOffset,
}

/// The shares of a disk in a log. Segments of which everything is trimmed are none.
pub fn shares(chain: &Chain, node: NodeId, disk: DiskId) -> Vec<Share> {
    let mut shares = Vec::new();
    for segment in &chain.segments {
        let SegmentState::Sealed { tail: decided_tail, op, .. } = segment.state else { continue };
        let members = segment.params.nodeset.members();
        if !members.iter().any(|member| member.node == node && member.disk == disk) {
            continue;
        }
        let trim_point = chain.trim_point.and_then(|point| LogletOffset::from_lsn(point, segment.base_lsn));
        let from = trim_point.map_or(LogletOffset::FIRST, |point| point.advance(1).unwrap_or(LogletOffset::MAX));
        if from < decided_tail {
            shares.push(Share { params: segment.params.clone(), op, from, decided_tail });
        }
    }
    shares
}
