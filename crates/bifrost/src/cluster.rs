//! What all handles of one [`Bifrost`](crate::Bifrost) share: metadata, the nodes, the tasks and their end.

use std::num::{NonZeroU8, NonZeroU128};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bifrost_loglet::peers::Peers;
use bifrost_types::{DiskId, NodeGeneration, NodeId, NodeRecord, OpId, Role, WriterId};
use bifrost_wire::node::NodeStatus;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::catalog::Catalog;
use crate::create::Creator;
use crate::directory::Directory;
use crate::follow::Follower;
use crate::liveness::Detector;
use crate::options::Options;

/// Shared by everything that one `Bifrost` hands out.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) catalog: Catalog,
    pub(crate) creator: Creator,
    pub(crate) directory: Directory,
    pub(crate) options: Options,
    pub(crate) rounds: Rounds,
    pub(crate) follower: Follower,
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

    /// What the nodes that answer now say of themselves. Waits for a majority, and for as many as there are to be copies;
    /// the slower ones then get as long again, so that a member is not left behind for being the last to answer.
    ///
    /// Many may ask at once, for example when the logs of a dead node move: they share a round that began after they asked.
    pub(crate) async fn answering(&self, copies: NonZeroU8) -> Arc<Vec<NodeStatus>> {
        let asked = self.rounds.begun.load(Ordering::Acquire);
        let mut last = self.rounds.last.lock().await;
        if last.number > asked && last.copies >= copies {
            return Arc::clone(&last.answers);
        }
        let number = self.rounds.begun.fetch_add(1, Ordering::AcqRel).saturating_add(1);
        let answers = Arc::new(self.ask_all(copies).await);
        *last = Round { number, copies, answers: Arc::clone(&answers) };
        answers
    }

    async fn ask_all(&self, copies: NonZeroU8) -> Vec<NodeStatus> {
        let nodes = self.directory.records();
        let wanted = usize::from(copies.get()).max(nodes.len() / 2 + 1);
        let mut asked: FuturesUnordered<_> = nodes
            .iter()
            .filter(|record| !self.is_silent(record.id))
            .map(|record| served(&self.directory, record))
            .collect();
        let mut answers = Vec::new();
        let began = Instant::now();
        let mut deadline = began + PROBE_DEADLINE;
        while let Ok(Some(answer)) = timeout_at(deadline, asked.next()).await {
            answers.extend(answer);
            if answers.len() == wanted {
                deadline = deadline.min(Instant::now() + began.elapsed().max(AGAIN_MIN));
            }
        }
        answers
    }

    /// What a node says of itself; `None` if it does not answer now, or does not serve the disk of its record.
    pub(crate) async fn answer_of(&self, node: NodeId) -> Option<NodeStatus> {
        let records = self.directory.records();
        served(&self.directory, records.iter().find(|record| record.id.node == node)?).await
    }

    /// What a node says that is not among those who answered: somebody wants it, so it is asked for itself.
    pub(crate) async fn answer_if_missing(&self, node: Option<NodeId>, answers: &[NodeStatus]) -> Option<NodeStatus> {
        let node = node.filter(|node| answers.iter().all(|status| status.id.node != *node))?;
        self.answer_of(node).await
    }

    /// Whether a node answers now.
    pub(crate) async fn answers(&self, node: NodeId) -> bool {
        self.answer_of(node).await.is_some()
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
}

/// Who asked all nodes last.
#[derive(Debug, Default)]
pub(crate) struct Rounds {
    /// How many rounds began.
    begun: AtomicU64,
    last: tokio::sync::Mutex<Round>,
}

#[derive(Debug)]
struct Round {
    /// Which one, from 1.
    number: u64,
    /// For how many copies it waited.
    copies: NonZeroU8,
    answers: Arc<Vec<NodeStatus>>,
}

impl Default for Round {
    fn default() -> Self {
        Self { number: 0, copies: NonZeroU8::MIN, answers: Arc::default() }
    }
}

/// What a node says of itself now; `None` if it does not answer in time, or if another node answers at its address.
pub(crate) async fn status_of(directory: &Directory, node: NodeId) -> Option<NodeStatus> {
    let asked = directory.node(node)?;
    let status = timeout(PROBE_DEADLINE, asked.status()).await.ok()?.ok()?;
    (status.id.node == node).then_some(status)
}

/// The same, unless its log server does not serve the disk of this record: such a node is as good as gone.
async fn served(directory: &Directory, record: &NodeRecord) -> Option<NodeStatus> {
    let status = status_of(directory, record.id.node).await?;
    let serves = record.disk.is_none() || status.disk.map(|disk| disk.disk) == record.disk;
    serves.then_some(status)
}

/// Whether a node answers now, with this disk.
pub(crate) async fn serves(directory: &Directory, node: NodeId, disk: DiskId) -> bool {
    status_of(directory, node).await.and_then(|status| status.disk).is_some_and(|served| served.disk == disk)
}

/// The least time that the slower nodes get once enough have answered.
const AGAIN_MIN: Duration = Duration::from_millis(1);

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
