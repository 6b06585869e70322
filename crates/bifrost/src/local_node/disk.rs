//! What a starting node needs of its disk, whatever the disk is made of.

use std::fmt;
use std::sync::Arc;

use bifrost_logserver::{
    LogServerHandle, LogStore, Marker, MarkerError, MemoryStore, ServerOptions, StartError, WriterRuntime,
};
use futures_util::future::BoxFuture;
use parking_lot::Mutex;

use super::NodeError;

/// A disk: a marker that says whose it is, and a store. A node that starts calls the methods in this order, and stops at
/// the first error: `check` and `read_marker` without leaving a trace, then `open`, then `read_marker` and `write_marker`
/// until the disk may be served.
pub trait Disk: Send + Sync + fmt::Debug {
    /// Refuses what cannot be a disk of this build, without a trace on it.
    ///
    /// # Errors
    /// [`NodeError`]: the node does not start.
    fn check(&self) -> BoxFuture<'_, Result<(), NodeError>>;

    /// The marker as last written; `None` if there is none, or nothing at all.
    ///
    /// # Errors
    /// [`MarkerError`]: the node does not start.
    fn read_marker(&self) -> BoxFuture<'_, Result<Option<Marker>, MarkerError>>;

    /// Replaces the marker. It is durable when this returns; interrupted, the old one is there, or the new one.
    ///
    /// # Errors
    /// [`MarkerError`]: the node does not start.
    fn write_marker(&self, marker: Marker) -> BoxFuture<'_, Result<(), MarkerError>>;

    /// Opens the store, and keeps everybody else from opening it until it is dropped.
    ///
    /// # Errors
    /// [`NodeError`]: the node does not start.
    fn open(&self) -> BoxFuture<'_, Result<OpenStore, NodeError>>;
}

type Serve = dyn FnOnce(ServerOptions) -> BoxFuture<'static, Result<LogServerHandle, StartError>> + Send;

/// A store that is open and not served yet. Dropping it closes it.
pub struct OpenStore {
    serve: Box<Serve>,
}

impl OpenStore {
    /// A store, and where its writer is to run.
    pub fn new<S: LogStore>(store: Arc<S>, runtime: WriterRuntime) -> Self {
        Self { serve: Box::new(move |options| Box::pin(LogServerHandle::start(store, options, runtime))) }
    }

    /// Starts a log server on it.
    pub(super) async fn serve(self, options: ServerOptions) -> Result<LogServerHandle, StartError> {
        (self.serve)(options).await
    }
}

impl fmt::Debug for OpenStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenStore").finish_non_exhaustive()
    }
}

/// Always a new and empty one.
#[derive(Debug, Default)]
pub(super) struct MemoryDisk {
    marker: Mutex<Option<Marker>>,
}

impl Disk for MemoryDisk {
    fn check(&self) -> BoxFuture<'_, Result<(), NodeError>> {
        Box::pin(async { Ok(()) })
    }

    fn read_marker(&self) -> BoxFuture<'_, Result<Option<Marker>, MarkerError>> {
        Box::pin(async { Ok(*self.marker.lock()) })
    }

    fn write_marker(&self, marker: Marker) -> BoxFuture<'_, Result<(), MarkerError>> {
        Box::pin(async move {
            *self.marker.lock() = Some(marker);
            Ok(())
        })
    }

    fn open(&self) -> BoxFuture<'_, Result<OpenStore, NodeError>> {
        Box::pin(async { Ok(OpenStore::new(Arc::new(MemoryStore::new()), WriterRuntime::Task)) })
    }
}
