//! A disk that takes no new segments leaves the open ones too: their segments are closed, and the next ones are opened on
//! disks that are read-write. What is closed stays where it is; it is what `node remove` asks about.
//!
//! A disk that was lost is one of them: it is never served again, so each further record of an open segment would have a copy
//! less for ever, and nothing would catch up.
//!
//! The owner is the node that numbers the segment: it lives, or somebody replaces it, and whoever places the next segment
//! chooses disks that are read-write. So each node looks after the segments that it sequences itself, and nobody needs to be
//! told. Nothing is remembered: the records of the nodes say which disks are to be left.

use std::sync::Arc;
use std::time::Duration;

use bifrost_loglet::quorum::Quorum;
use bifrost_types::{
    Actor, Chain, CloseReason, LogletId, LogletParams, Member, NodeGeneration, NodeId, NodeRecord, NodeSet,
    StorageState,
};
use bifrost_wire::metadata::Revision;
use futures_util::stream::{StreamExt, iter};
use tokio::time::{sleep, timeout};
use tracing::{debug, info};

use crate::catalog::{Catalog, CatalogError, StoredChain};
use crate::cluster::Cluster;
use crate::log_state::LogState;
use crate::reconfigure::ReconfigureError;

/// Gives the shared state of a log, or `None` when whoever shares it is gone.
pub(crate) type OpenLog = Arc<dyn Fn(StoredChain) -> Option<Arc<LogState>> + Send + Sync>;

/// Segments that are moved at once.
const AT_ONCE: usize = 4;
/// For one move; what was done stays done.
const MOVE_DEADLINE: Duration = Duration::from_secs(30);
/// The pause after the first round that left something, doubled with each, and the longest one.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// The open segment of a chain, if this node numbers its appends and a member's disk takes no new segments.
///
/// Not if too many disks are lost to seal the segment (S1): after the first seal there is no way back, and its appends, which
/// may well go on, would end for nothing.
fn to_leave(chain: &Chain, nodes: &[NodeRecord], me: NodeId) -> Option<(LogletId, NodeGeneration)> {
    let last = chain.last().filter(|last| last.decided_tail().is_none() && last.params.sequencer.node == me)?;
    let LogletParams { id, nodeset, replication, sequencer } = &last.params;
    let storage = |member: &Member| {
        let of = |record: &&NodeRecord| record.id.node == member.node && record.disk == Some(member.disk);
        nodes.iter().find(of).map(|record| record.storage)
    };
    let in_service =
        |member| matches!(storage(member), Some(StorageState::Provisioning | StorageState::ReadWrite) | None);
    let leaves = nodeset.members().iter().any(|member| !in_service(member));
    let there = nodeset.iter().filter(|(_, member)| storage(member) != Some(StorageState::DataLoss));
    let there: NodeSet = there.map(|(index, _)| index).collect();
    let can_be_sealed = Quorum::new(nodeset, replication).is_ok_and(|quorum| quorum.is_f_majority(there));
    (leaves && can_be_sealed).then_some((*id, *sequencer))
}

/// Looks after the segments of a node for ever; run it as a task.
///
/// # Cancel safety
/// Safe at every await: what was begun is finished by whoever comes next (C4).
pub(crate) async fn drain(cluster: Arc<Cluster>, open: OpenLog, me: NodeId) {
    let mut pause = PAUSE_MIN;
    loop {
        match round(&cluster, &open, me).await {
            Ok((0, seen)) => {
                pause = PAUSE_MIN;
                // A new segment is placed on disks that are read-write, so only a record changes anything.
                if until_a_record_changes(&cluster.catalog, seen).await.is_ok() {
                    continue;
                }
            }
            Ok((left, _)) => debug!(left, "segments stay on disks that are to be left"),
            Err(error) => debug!(%error, "what is to be left cannot be read"),
        }
        sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// One attempt at each segment; returns how many stayed, and the revision of the nodes' records that it went by.
async fn round(cluster: &Arc<Cluster>, open: &OpenLog, me: NodeId) -> Result<(usize, Revision), CatalogError> {
    let (nodes, seen) = cluster.catalog.nodes().await?;
    // Read after the records: what is opened from now on is placed by them, or by newer ones.
    let mut leaving = Vec::new();
    let visit = |stored: StoredChain| {
        let found = to_leave(&stored.chain, &nodes, me);
        leaving.extend(found.map(|(loglet, sequencer)| (loglet, sequencer, stored)));
    };
    cluster.catalog.visit_chains(visit).await?;
    let moving = leaving.into_iter().map(|(loglet, sequencer, stored)| async move {
        let Some(state) = open(stored) else { return true };
        let closing = state.close_segment(loglet, CloseReason::Placement, Actor::Node(sequencer));
        match timeout(MOVE_DEADLINE, closing).await {
            Ok(Ok(())) => {
                info!(%loglet, "a segment left a disk that takes no new ones");
                true
            }
            Ok(Err(error)) => {
                report(loglet, &error);
                false
            }
            Err(_) => false,
        }
    });
    let moved = iter(moving).buffer_unordered(AT_ONCE).collect::<Vec<bool>>().await;
    Ok((moved.into_iter().filter(|moved| !moved).count(), seen))
}

/// Returns after a change of any record; an error when the watch broke.
async fn until_a_record_changes(catalog: &Catalog, seen: Revision) -> Result<(), CatalogError> {
    let mut watch = catalog.watch_nodes(seen).await?;
    while let Some(news) = watch.recv().await {
        // One without changes only tells how far the store is: a watch begins with it.
        if !news?.changes.is_empty() {
            return Ok(());
        }
    }
    Err(CatalogError::Conflict)
}

fn report(loglet: LogletId, error: &ReconfigureError) {
    debug!(%loglet, %error, "a segment cannot leave a disk now");
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::num::NonZeroU8;

    use bifrost_types::{DiskId, Generation, Location, LogId, Nodeset, OpId, ReplicationProperty, Roles, Successor};

    use super::*;
    use crate::chain::create;
    use crate::test_world::World;

    fn node(number: u32) -> NodeId {
        NodeId::try_from(number).unwrap()
    }

    fn disk(number: u32) -> DiskId {
        DiskId::try_from(u128::from(number)).unwrap()
    }

    /// An open segment on the first three nodes, numbered by the first, with so many copies of each record.
    fn open(copies: u8) -> Chain {
        let member = |number| Member { node: node(number), disk: disk(number), location: Location::default() };
        let first = Successor {
            nodeset: Nodeset::new((1..=3).map(member).collect()).unwrap(),
            replication: ReplicationProperty::nodes(NonZeroU8::new(copies).unwrap()),
            sequencer: NodeGeneration::new(node(1), Generation::FIRST),
        };
        create(LogId::try_from(7).unwrap(), None, OpId::try_from(1).unwrap(), first)
    }

    /// The records of nodes with these storage states, from the first on.
    fn records(states: &[StorageState]) -> Vec<NodeRecord> {
        let record = |(number, storage): (u32, &StorageState)| NodeRecord {
            id: NodeGeneration::new(node(number), Generation::FIRST),
            name: format!("n{number}"),
            address: String::new(),
            location: Location::default(),
            disk: Some(disk(number)),
            storage: *storage,
            declared_lost: false,
            roles: Roles::DATA,
        };
        (1..).zip(states).map(record).collect()
    }

    #[test]
    fn a_segment_leaves_disks_that_take_no_new_ones_and_that_are_lost_if_it_can_be_sealed() {
        use StorageState::{DataLoss, ReadOnly, ReadWrite, Retired};
        let leaves = |copies, states: &[StorageState]| to_leave(&open(copies), &records(states), node(1)).is_some();
        assert!(!leaves(2, &[ReadWrite, ReadWrite, ReadWrite, DataLoss]), "the fourth holds no copy");
        for storage in [ReadOnly, Retired, DataLoss] {
            assert!(leaves(2, &[ReadWrite, ReadWrite, storage]), "{storage}");
        }
        // Of one copy each, all three must be sealed: appends go on with what is left, and would not if it were begun.
        assert!(!leaves(1, &[ReadWrite, ReadWrite, DataLoss]));
        assert!(leaves(1, &[ReadWrite, ReadWrite, ReadOnly]), "a disk that is read-only can be sealed");
        assert!(!leaves(2, &[ReadWrite, DataLoss, DataLoss]));
        assert!(leaves(3, &[ReadWrite, DataLoss, DataLoss]), "one copy of three that are always written is enough");
        let other = to_leave(&open(2), &records(&[ReadWrite, ReadWrite, DataLoss]), node(2));
        assert_eq!(other, None, "another node numbers it");
        let mut replaced = records(&[ReadWrite, ReadWrite, DataLoss]);
        replaced[2].disk = Some(disk(9));
        assert_eq!(to_leave(&open(2), &replaced, node(1)), None, "that is another disk");
    }

    #[tokio::test(start_paused = true)]
    async fn an_open_segment_leaves_a_disk_that_was_lost_without_its_node() {
        let world = World::new().await;
        let log = world.idle_log("orders", 0).await;
        let (owner, gone) = (world.nodes[0].id().node, world.nodes[2].id().node);
        world.nodes[2].shutdown().await;
        let node = world.client().await;
        node.start_drain(owner);
        let operator = world.client().await;
        operator.set_storage_state(gone, StorageState::DataLoss).await.unwrap();
        let moved = world.until(log, |chain| chain.segments.len() == 2).await;
        assert_eq!(moved.segments[1].params.nodeset.index_of(gone), None, "{moved:?}");
        operator.log_by_id(log).await.unwrap().appender().append("four").await.unwrap();
        node.shutdown().await;
        operator.shutdown().await;
        world.shutdown().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_read_only_disk_leaves_the_open_segments_and_keeps_the_closed_ones() {
        let world = World::new().await;
        let log = world.idle_log("orders", 0).await;
        let (owner, leaving) = (world.nodes[0].id().node, world.nodes[2].id().node);
        let node = world.client().await;
        node.start_drain(owner);
        let operator = world.client().await;
        operator.set_storage_state(leaving, StorageState::ReadOnly).await.unwrap();
        let moved = world.until(log, |chain| chain.segments.len() == 2).await;
        let has = |index: usize| moved.segments[index].params.nodeset.members().iter().any(|one| one.node == leaving);
        assert!(has(0) && !has(1), "{moved:?}");
        operator.log_by_id(log).await.unwrap().appender().append("four").await.unwrap();
        // What is closed still needs it, and that is said.
        assert!(!operator.node_needs(leaving).await.unwrap().is_empty());
        node.shutdown().await;
        operator.shutdown().await;
        world.shutdown().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_segment_that_cannot_be_placed_elsewhere_stays_until_it_can() {
        let world = World::new().await;
        let log = world.idle_log("orders", 0).await;
        let operator = world.client().await;
        let node = world.client().await;
        node.start_drain(world.nodes[0].id().node);
        for place in [1, 2] {
            operator.set_storage_state(world.nodes[place].id().node, StorageState::ReadOnly).await.unwrap();
        }
        sleep(Duration::from_secs(120)).await;
        assert!(world.chain(log).await.segments.len() <= 2, "it does not move to and fro");
        operator.log_by_id(log).await.unwrap().appender().append("four").await.unwrap();
        operator.set_storage_state(world.nodes[1].id().node, StorageState::ReadWrite).await.unwrap();
        let leaving = world.nodes[2].id().node;
        let left = |chain: &Chain| {
            chain.last().is_some_and(|last| last.params.nodeset.members().iter().all(|one| one.node != leaving))
        };
        world.until(log, left).await;
        node.shutdown().await;
        operator.shutdown().await;
        world.shutdown().await;
    }
}
