//! What a node of this process says about itself.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bifrost_logserver::LogServerHandle;
use bifrost_sequencer::SequencerHost;
use bifrost_types::{NodeGeneration, NodeRecord, Roles};
use bifrost_wire::RpcError;
use bifrost_wire::node::{CatchUpProgress, NodeLoad, NodeService, NodeStatus};
use futures_util::future::BoxFuture;
use tokio::time::Instant;

use crate::catch_up::{CatchUp, CatchUpState, Progress};

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
    log_server: Option<LogServerHandle>,
    sequencers: SequencerHost,
    leaving: AtomicBool,
    stopped: AtomicBool,
    catch_up: OnceLock<CatchUp>,
}

impl LocalStatus {
    pub(super) fn new(record: &NodeRecord, log_server: Option<LogServerHandle>, sequencers: SequencerHost) -> Self {
        let inner = Inner {
            id: record.id,
            roles: record.roles,
            started: Instant::now(),
            log_server,
            sequencers,
            leaving: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            catch_up: OnceLock::new(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Says from now on that the node is about to stop. A life that leaves does not come back.
    pub fn leave(&self) {
        self.inner.leaving.store(true, Ordering::Relaxed);
    }

    /// Nothing is to be said any more: the node stopped.
    pub(super) fn stop(&self) {
        self.leave();
        self.inner.stopped.store(true, Ordering::Relaxed);
    }

    /// Tells from now on how far this is. Only the first one counts: a life has one disk.
    pub fn tell_catch_up(&self, catch_up: CatchUp) {
        let _first = self.inner.catch_up.set(catch_up);
    }

    /// How the node is now.
    pub fn now(&self) -> NodeStatus {
        let Inner { id, roles, started, log_server, sequencers, leaving, stopped: _, catch_up } = &*self.inner;
        NodeStatus {
            id: *id,
            roles: *roles,
            disk: log_server.as_ref().and_then(LogServerHandle::disk_status),
            load: NodeLoad {
                open_sequencers: u64::try_from(sequencers.running().len()).unwrap_or(u64::MAX),
                loglets: log_server.as_ref().map_or(0, LogServerHandle::loglets),
                sequenced_bytes: sequencers.sequenced_bytes(),
                stored_bytes: log_server.as_ref().map_or(0, LogServerHandle::stored_bytes),
            },
            uptime: Duration::from_millis(u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX)),
            leaving: leaving.load(Ordering::Relaxed),
            catch_up: catch_up.get().and_then(|catch_up| told(&catch_up.progress())),
        }
    }
}

/// `None` until it was seen what there is to do.
fn told(progress: &Progress) -> Option<CatchUpProgress> {
    if progress.state == CatchUpState::Unknown {
        return None;
    }
    // Errors chain: what was in vain, and why.
    let mut words = progress.last_error.map(|error| match std::error::Error::source(&error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    });
    if words.is_none() && progress.state == CatchUpState::NoRoom {
        words = Some("the disk is full".to_owned());
    }
    if words.is_none() && progress.state == CatchUpState::OutOfService {
        words = Some("the disk is not read-write".to_owned());
    }
    Some(CatchUpProgress {
        bytes_to_do: progress.bytes_done.saturating_add(progress.bytes_left.unwrap_or(0)),
        bytes_done: progress.bytes_done,
        segments_left: progress.segments_left,
        since_last_byte: progress.since_last_byte(),
        last_error: words,
    })
}

impl NodeService for LocalStatus {
    fn status(&self) -> BoxFuture<'_, Result<NodeStatus, RpcError>> {
        let stopped = self.inner.stopped.load(Ordering::Relaxed);
        Box::pin(std::future::ready(if stopped { Err(RpcError::ShuttingDown) } else { Ok(self.now()) }))
    }
}
