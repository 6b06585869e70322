//! What a node of this process says about itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bifrost_logserver::LogServerHandle;
use bifrost_sequencer::SequencerHost;
use bifrost_types::{NodeGeneration, NodeRecord, Roles};
use bifrost_wire::RpcError;
use bifrost_wire::node::{CatchUpProgress, NodeLoad, NodeService, NodeStatus};
use futures_util::future::BoxFuture;
use tokio::sync::watch;
use tokio::time::Instant;

/// The word of one life of a node about itself. Cheap to clone; clones speak of the same node.
#[derive(Debug, Clone)]
pub struct LocalStatus {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    id: NodeGeneration,
    roles: Roles,
    started: Instant,
    log_server: LogServerHandle,
    sequencers: SequencerHost,
    leaving: AtomicBool,
    catch_up: watch::Sender<Option<CatchUpProgress>>,
}

impl LocalStatus {
    pub(super) fn new(record: &NodeRecord, log_server: LogServerHandle, sequencers: SequencerHost) -> Self {
        let inner = Inner {
            id: record.id,
            roles: record.roles,
            started: Instant::now(),
            log_server,
            sequencers,
            leaving: AtomicBool::new(false),
            catch_up: watch::Sender::new(None),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Says from now on that the node is about to stop. A life that leaves does not come back.
    pub fn leave(&self) {
        self.inner.leaving.store(true, Ordering::Relaxed);
    }

    /// Where whoever catches up for this node tells how far it is.
    pub fn catch_up(&self) -> &watch::Sender<Option<CatchUpProgress>> {
        &self.inner.catch_up
    }

    /// How the node is now.
    pub fn now(&self) -> NodeStatus {
        let Inner { id, roles, started, log_server, sequencers, leaving, catch_up } = &*self.inner;
        NodeStatus {
            id: *id,
            roles: *roles,
            disk: log_server.disk_status(),
            load: NodeLoad {
                open_sequencers: u64::try_from(sequencers.running().len()).unwrap_or(u64::MAX),
                loglets: log_server.loglets(),
                sequenced_bytes: sequencers.sequenced_bytes(),
                stored_bytes: log_server.stored_bytes(),
            },
            uptime: Duration::from_millis(u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX)),
            leaving: leaving.load(Ordering::Relaxed),
            catch_up: catch_up.borrow().clone(),
        }
    }
}

impl NodeService for LocalStatus {
    fn status(&self) -> BoxFuture<'_, Result<NodeStatus, RpcError>> {
        Box::pin(std::future::ready(Ok(self.now())))
    }
}
