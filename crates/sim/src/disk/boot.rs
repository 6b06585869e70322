//! The disk as a starting node sees it.

use std::sync::Arc;

use bifrost::local_node::{Disk as NodeDisk, NodeError, OpenStore};
use bifrost_logserver::{Marker, MarkerError, Recent, WriterRuntime};
use futures_util::future::BoxFuture;

use super::Disk;

impl NodeDisk for Disk {
    /// Anything can be a disk.
    fn check(&self) -> BoxFuture<'_, Result<(), NodeError>> {
        Box::pin(async { Ok(()) })
    }

    fn read_marker(&self) -> BoxFuture<'_, Result<Option<Marker>, MarkerError>> {
        Box::pin(async { Ok(self.marker()) })
    }

    fn write_marker(&self, marker: Marker) -> BoxFuture<'_, Result<(), MarkerError>> {
        Box::pin(async move {
            self.set_marker(marker);
            Ok(())
        })
    }

    /// Never refused: whoever has it open loses it.
    fn open(&self) -> BoxFuture<'_, Result<OpenStore, NodeError>> {
        Box::pin(async {
            let store = Arc::new(Self::open(self));
            Ok(match self.recent_bytes() {
                Some(bytes) => OpenStore::new(Arc::new(Recent::new(store, bytes)), WriterRuntime::Task),
                None => OpenStore::new(store, WriterRuntime::Task),
            })
        })
    }
}
