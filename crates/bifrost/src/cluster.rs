//! What all handles of one [`Bifrost`](crate::Bifrost) share: metadata, the nodes, the tasks and their end.

use std::num::{NonZeroU8, NonZeroU64, NonZeroU128};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bifrost_loglet::peers::Peers;
use bifrost_types::{DiskId, LogId, LogletId, NodeGeneration, NodeId, OpId, Role, SegmentIndex, WriterId};
use bifrost_wire::log_server::StateRequest;
use bifrost_wire::node::NodeStatus;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::catalog::Catalog;
use crate::directory::Directory;
use crate::liveness::Detector;
use crate::options::Options;

/// Shared by everything that one `Bifrost` hands out.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) catalog: Catalog,
    pub(crate) directory: Directory,
    pub(crate) options: Options,
    pub(crate) tasks: TaskTracker,
    pub(crate) stop: CancellationToken,
    /// Of the metadata member in this process, if there is one.
    pub(crate) detector: OnceLock<Detector>,
}

impl Cluster {
    /// The log servers, for the loglet protocol.
    pub(crate) fn peers(&self) -> Arc<dyn Peers> {
        Arc::new(self.directory.clone())
    }

    /// The nodes that answer now, fastest first. Waits for a majority, and for as many as there are to be copies, not
    /// for the slowest.
    pub(crate) async fn answering(&self, copies: NonZeroU8) -> Vec<NodeId> {
        let nodes = self.directory.records();
        let wanted = usize::from(copies.get()).max(nodes.len() / 2 + 1);
        let mut probes: FuturesUnordered<_> = nodes
            .iter()
            .filter(|node| !self.is_silent(node.id))
            .filter_map(|node| Some((node.id.node, node.disk?)))
            .map(|(node, disk)| async move { self.probe(node, disk).await.then_some(node) })
            .collect();
        let mut answering = Vec::new();
        let probing = async {
            while answering.len() < wanted
                && let Some(answer) = probes.next().await
            {
                answering.extend(answer);
            }
        };
        let _passed = timeout(PROBE_DEADLINE, probing).await;
        answering
    }

    /// Whether a node answers now.
    pub(crate) async fn answers(&self, node: NodeId) -> bool {
        let disk = self.directory.records().into_iter().find(|record| record.id.node == node);
        match disk.and_then(|record| record.disk) {
            Some(disk) => timeout(PROBE_DEADLINE, self.probe(node, disk)).await.unwrap_or(false),
            None => false,
        }
    }

    /// Whether a node other than `me` answers now and does not stop either.
    pub(crate) async fn others_stay(&self, me: NodeGeneration) -> bool {
        let others = self.directory.records().into_iter().filter(|node| node.id.node != me.node);
        let others = others.filter(|node| !self.is_silent(node.id));
        let mut statuses: FuturesUnordered<_> =
            others.map(|node| async move { status_of(&self.directory, node.id.node).await }).collect();
        while let Some(status) = statuses.next().await {
            if status.is_some_and(|status| !status.leaving && status.roles.has(Role::Sequencer)) {
                return true;
            }
        }
        false
    }

    /// Whether nothing is heard of this life, as far as this process can tell: what is chosen in spite of it would only be
    /// moved again.
    fn is_silent(&self, life: NodeGeneration) -> bool {
        self.detector.get().is_some_and(|detector| detector.verdict().borrow().is_silent(life))
    }

    async fn probe(&self, node: NodeId, disk: DiskId) -> bool {
        serves(&self.directory, node, disk).await
    }
}

/// What a node says about itself now; `None` if it does not answer in time, or if another node answers at its address.
pub(crate) async fn status_of(directory: &Directory, node: NodeId) -> Option<NodeStatus> {
    let asked = directory.node(node)?;
    let status = timeout(PROBE_DEADLINE, asked.status()).await.ok()?.ok()?;
    (status.id.node == node).then_some(status)
}

/// Whether a node answers now, with this disk.
pub(crate) async fn serves(directory: &Directory, node: NodeId, disk: DiskId) -> bool {
    let Some(server) = directory.log_server(node) else { return false };
    // A loglet that there will never be: asking for it creates nothing.
    let loglet = LogletId::new(LogId::new(NonZeroU64::MAX), SegmentIndex::FIRST);
    server.state(StateRequest { loglet, disk }).await.is_ok()
}

/// How long nodes have to answer before a segment is placed without them.
const PROBE_DEADLINE: Duration = Duration::from_secs(1);

/// A fresh operation id: the time in front so that ids sort by it for people, then 80 random bits.
pub fn fresh_op() -> OpId {
    let time = u128::from(crate::clock::now_millis()) << 80;
    let random = random_id().get() >> 48;
    OpId::try_from(time | random).unwrap_or(OpId::new(NonZeroU128::MIN))
}

/// A fresh writer id: 128 random bits.
pub(crate) fn fresh_writer() -> WriterId {
    WriterId::new(random_id())
}

/// A random number that is not 0.
#[expect(clippy::disallowed_methods, reason = "the one place where ids are made")]
pub(crate) fn random_id() -> NonZeroU128 {
    NonZeroU128::new(rand::random()).unwrap_or(NonZeroU128::MAX)
}
