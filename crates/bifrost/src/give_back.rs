//! Servers give the space of closed segments back, of which nothing is wanted any more: all of a deleted log, or what is wholly
//! trimmed. Each member is told where the segment ended and to trim all of it; it keeps the seal, the decided tail and the
//! trim point, so that a late store finds a closed door.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bifrost_loglet::peers::{MemberError, Peers};
use bifrost_types::{
    DiskId, LogletId, LogletOffset, NodeId, NodeRecord, OpId, Segment, SegmentIndex, SegmentState, StorageState,
};
use bifrost_wire::RpcError;
use bifrost_wire::log_server::{CallError, CopyError, LogServer, SettleRequest, TrimRequest};
use futures_util::future::{BoxFuture, join_all};
use futures_util::stream::{StreamExt, iter};
use tokio::time::timeout;

/// For one answer, which is one fsync.
const CALL_DEADLINE: Duration = Duration::from_secs(5);

/// Loglets of which one server is told at once: they share its fsyncs.
const AT_ONCE: usize = 16;

/// What one disk has of a closed loglet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Share {
    loglet: LogletId,
    disk: DiskId,
    op: OpId,
    decided_tail: LogletOffset,
}

/// The nodes that have not given the space back, and why.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Owed {
    /// By node id.
    pub by: BTreeMap<NodeId, MemberError>,
}

/// What became of telling the servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Told {
    /// Who still owes what.
    pub(crate) owed: Owed,
    /// The oldest segment of which somebody owes; `None` when nobody does.
    pub(crate) oldest_owed: Option<SegmentIndex>,
}

/// Makes the servers drop everything of closed segments, oldest first. A node that is not among `nodes`, which were read
/// after the chain that names it, or whose disk is gone, owes nothing. Any number of processes may do this at once, again
/// and again: everything that the servers are told is idempotent.
///
/// # Cancel safety
/// Safe: do it again.
pub(crate) async fn tell(peers: &dyn Peers, segments: &[Segment], nodes: &[NodeRecord]) -> Told {
    let mut telling: Vec<BoxFuture<'_, _>> = Vec::new();
    for (node, shares) in shares(segments, nodes) {
        let server = peers.log_server(node);
        telling.push(Box::pin(async move {
            let oldest = shares.first().map(|share| share.loglet.segment);
            match server {
                Some(server) => drop_all(server, shares).await.err().map(|(from, error)| (node, Some(from), error)),
                None => Some((node, oldest, MemberError::AddressUnknown)),
            }
        }));
    }
    let failed: Vec<_> = join_all(telling).await.into_iter().flatten().collect();
    Told {
        oldest_owed: failed.iter().filter_map(|(_, from, _)| *from).min(),
        owed: Owed { by: failed.into_iter().map(|(node, _, error)| (node, error)).collect() },
    }
}

/// What each node has to drop, oldest loglet first.
fn shares(segments: &[Segment], nodes: &[NodeRecord]) -> BTreeMap<NodeId, Vec<Share>> {
    let owing: BTreeMap<NodeId, DiskId> = nodes.iter().filter_map(|node| Some((node.id.node, served(node)?))).collect();
    let mut shares: BTreeMap<NodeId, Vec<Share>> = BTreeMap::new();
    for segment in segments {
        let SegmentState::Sealed { tail, op, .. } = segment.state else { continue };
        for member in segment.params.nodeset.members() {
            if owing.get(&member.node) == Some(&member.disk) {
                let share = Share { loglet: segment.params.id, disk: member.disk, op, decided_tail: tail };
                shares.entry(member.node).or_default().push(share);
            }
        }
    }
    shares
}

/// The disk of a node, by its record. One that is lost or retired is never served again.
const fn served(node: &NodeRecord) -> Option<DiskId> {
    match node.storage {
        StorageState::Provisioning | StorageState::ReadWrite | StorageState::ReadOnly => node.disk,
        StorageState::DataLoss | StorageState::Retired => None,
    }
}

/// Tells one server; on an error, from which segment on it may not have dropped them.
async fn drop_all(server: Arc<dyn LogServer>, shares: Vec<Share>) -> Result<(), (SegmentIndex, MemberError)> {
    let told = iter(shares).map(|share| {
        let server = server.clone();
        async move { (share.loglet.segment, drop_one(server.as_ref(), share).await) }
    });
    let mut told = std::pin::pin!(told.buffered(AT_ONCE));
    while let Some((segment, dropped)) = told.next().await {
        dropped.map_err(|error| (segment, error))?;
    }
    Ok(())
}

/// Ends a loglet where it was decided to end, then trims all of it.
async fn drop_one(server: &dyn LogServer, share: Share) -> Result<(), MemberError> {
    let Share { loglet, disk, op, decided_tail } = share;
    match in_time(server.settle(SettleRequest { loglet, disk, op, decided_tail })).await {
        Ok(_) => {}
        // It knows as many loglets as it may, and this is none of them.
        Err(MemberError::Call(CallError::Copy(CopyError::TooManyLoglets))) => return Ok(()),
        Err(error) => return Err(error),
    }
    if let Some(trim_point) = decided_tail.previous() {
        in_time(server.trim(TrimRequest { loglet, disk, trim_point })).await?;
    }
    Ok(())
}

async fn in_time<T, E: Into<MemberError>>(call: impl Future<Output = Result<T, E>>) -> Result<T, MemberError> {
    match timeout(CALL_DEADLINE, call).await {
        Ok(answer) => answer.map_err(Into::into),
        Err(_) => Err(RpcError::DeadlinePassed.into()),
    }
}
