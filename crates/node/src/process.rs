//! One node as a process of its own: what `bifrost server` runs. It makes or joins a cluster, takes part in its metadata if
//! it has that role, and goes on where its last life was interrupted.
//!
//! ```text
//!  NodeDirectory (lock, node.json) ─► Order: what next? ─► Start: does it ─► member: Raft, listener │ pool │ Node
//!                                       ╰──── what it led to ◄─╯
//! ```
//! Each step is written as desired state before it is taken ([`NodeState`](state::NodeState)); taking one again is success.
//! Nobody waits for ever: each wait has a deadline, and its error says what was waited for.
//!
//! With metadata in etcd there is no member and no pool: the store is etcd's.
//!
//! Reading order: [`state`] (what survives), `order` (the core: which step comes next), `start` (its driver), `group` (what is
//! asked of the metadata group), `etcd`, `lead` (who judges silence there), this file, `tended` (a member that comes back), [`error`].

pub mod error;
mod etcd;
mod group;
mod lead;
mod options;
mod order;
mod start;
pub mod state;
mod tended;

use std::sync::Arc;
use std::time::Duration;

use bifrost::HandOverOptions;
use bifrost::liveness::Farewell;
use bifrost::metadata_pool::MetadataPool;
use bifrost_types::{ClusterId, NodeRecord};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::warn;

use crate::server::Node;

pub use self::error::ProcessError;
pub use self::options::{MemberAddresses, ProcessOptions};
pub use self::order::Refused;
use self::start::Start;
use self::state::{NodeDirectory, NodeState};
use self::tended::Tended;

/// How often the members of the metadata group are looked up although nothing failed.
const REFRESH: Duration = Duration::from_secs(30);
/// Of the data directory.
const LOG_SERVER: &str = "log-server";
pub(crate) const METADATA: &str = "metadata";

/// A running process of a node.
#[derive(Debug)]
pub struct Process {
    cluster: ClusterId,
    node: Node,
    member: Option<Tended>,
    hand_over: HandOverOptions,
    farewell: Farewell,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Process {
    /// Goes through all steps from an empty directory, or from wherever the last life ended, to a node that serves.
    ///
    /// # Errors
    /// [`ProcessError`]; nothing runs then.
    ///
    /// # Cancel safety
    /// Safe: the steps that were taken are recognised at the next start.
    pub async fn start(options: ProcessOptions) -> Result<Self, ProcessError> {
        Start::new(options).await?.run().await
    }

    /// The cluster.
    pub const fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// The record of the node as of its start.
    pub const fn record(&self) -> &NodeRecord {
        self.node.record()
    }

    /// The node.
    pub const fn node(&self) -> &Node {
        &self.node
    }

    /// Where its metadata member is reached, if it has one.
    pub fn member_address(&self) -> Option<String> {
        self.member.as_ref().map(|tended| tended.member().member().1.address)
    }

    /// Stops in good order. First its sequencers go to other nodes, and it says farewell to the detector; then the node
    /// stops, which needs metadata for that; last its metadata member, which gives up the lead if it has it.
    ///
    /// # Cancel safety
    /// Safe: call again to go on.
    pub async fn shutdown(&self) {
        self.node.hand_over(&self.hand_over).await;
        self.farewell.say().await;
        self.node.shutdown().await;
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        if let Some(tended) = &self.member {
            tended.member().shutdown().await;
        }
    }
}

/// Looks the members up now and then, and writes down where they are.
async fn keep_addresses(pool: Arc<MetadataPool>, directory: Arc<NodeDirectory>, mut state: NodeState) {
    let Some(mut addresses) = pool.watch_addresses() else { return };
    // What was learned during the start is not written down yet.
    addresses.mark_changed();
    let mut looks = interval(REFRESH);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            changed = addresses.changed() => {
                if changed.is_err() {
                    return;
                }
                state.metadata = addresses.borrow_and_update().clone();
                if let Err(error) = save(&directory, &state).await {
                    warn!(%error, "where metadata is cannot be written down");
                }
            }
            _ = looks.tick() => pool.refresh().await,
        }
    }
}

async fn save(directory: &Arc<NodeDirectory>, state: &NodeState) -> Result<(), ProcessError> {
    let (directory, state) = (Arc::clone(directory), state.clone());
    Ok(blocking(move || directory.write(&state)).await?)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
