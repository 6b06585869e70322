//! Servers give the space of closed segments back, of which nothing is wanted any more: all of a deleted log, or what is wholly
//! trimmed. Each member is told where the segment ended and to trim all of it; it keeps the seal, the decided tail and the
//! trim point, so that a late store finds a closed door.

use std::collections::{BTreeMap, BTreeSet};
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
use parking_lot::Mutex;
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

/// Up to which segment of a log each disk is known to have dropped all that it had, so that a node which is away for long does
/// not have the others told again and again. Whoever forgets it tells them once more, and nothing else happens.
#[derive(Debug, Default)]
pub struct Given {
    up_to: Mutex<BTreeMap<DiskId, SegmentIndex>>,
    /// Up to which segment nobody owes anything any more.
    returned: Mutex<Option<SegmentIndex>>,
}

impl Given {
    fn has(&self, disk: DiskId, segment: SegmentIndex) -> bool {
        self.up_to.lock().get(&disk).is_some_and(|up_to| segment <= *up_to)
    }

    /// Segments are told in order, so that those before it were dropped, too.
    fn note(&self, disk: DiskId, segment: SegmentIndex) {
        let mut up_to = self.up_to.lock();
        let known = up_to.entry(disk).or_insert(segment);
        *known = segment.max(*known);
    }

    /// Up to which segment of the log its servers have dropped everything, as far as it is known here: what is known stays true.
    pub(crate) fn returned(&self) -> Option<SegmentIndex> {
        *self.returned.lock()
    }

    /// Takes note that nobody owes anything of any segment up to this one.
    pub(crate) fn note_returned(&self, segment: Option<SegmentIndex>) {
        let mut returned = self.returned.lock();
        *returned = segment.max(*returned);
    }

    /// Forgets disks that nobody serves any more.
    fn retain(&self, nodes: &[NodeRecord]) {
        let served: BTreeSet<DiskId> = nodes.iter().filter_map(served).collect();
        self.up_to.lock().retain(|disk, _| served.contains(disk));
    }
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
/// after the chain that names it, or whose disk is gone, owes nothing, and what is `given` is not asked for again. Any number
/// of processes may do this at once, again and again: everything that the servers are told is idempotent.
///
/// # Cancel safety
/// Safe: do it again.
pub(crate) async fn tell(peers: &dyn Peers, segments: &[Segment], nodes: &[NodeRecord], given: &Given) -> Told {
    given.retain(nodes);
    let mut telling: Vec<BoxFuture<'_, _>> = Vec::new();
    for (node, shares) in shares(segments, nodes, given) {
        let server = peers.log_server(node);
        telling.push(Box::pin(async move {
            let oldest = shares.first().map(|share| share.loglet.segment);
            match server {
                Some(server) => {
                    drop_all(server, shares, given).await.err().map(|(from, error)| (node, Some(from), error))
                }
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
fn shares(segments: &[Segment], nodes: &[NodeRecord], given: &Given) -> BTreeMap<NodeId, Vec<Share>> {
    let owing: BTreeMap<NodeId, DiskId> = nodes.iter().filter_map(|node| Some((node.id.node, served(node)?))).collect();
    let mut shares: BTreeMap<NodeId, Vec<Share>> = BTreeMap::new();
    for segment in segments {
        let SegmentState::Sealed { tail, op, .. } = segment.state else { continue };
        for member in segment.params.nodeset.members() {
            if owing.get(&member.node) == Some(&member.disk) && !given.has(member.disk, segment.index()) {
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
async fn drop_all(
    server: Arc<dyn LogServer>,
    shares: Vec<Share>,
    given: &Given,
) -> Result<(), (SegmentIndex, MemberError)> {
    let mut shares = shares.into_iter();
    let server = server.as_ref();
    let drop_next = async |share: Share| {
        let segment = share.loglet.segment;
        drop_one(server, share).await.map(|()| (share.disk, segment)).map_err(|error| (segment, error))
    };
    // One that is away is not called for all of them.
    let Some(first) = shares.next() else { return Ok(()) };
    let (disk, segment) = drop_next(first).await?;
    given.note(disk, segment);
    let mut dropped = std::pin::pin!(iter(shares).map(drop_next).buffered(AT_ONCE));
    while let Some(next) = dropped.next().await {
        let (disk, segment) = next?;
        given.note(disk, segment);
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
