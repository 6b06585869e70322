//! A disk that is a directory, with RocksDB in it. Everything that touches it blocks, and runs on threads for that.

use std::path::PathBuf;
use std::sync::Arc;

use bifrost_logserver::{Marker, MarkerError, Recent, RocksOptions, RocksStore, WriterRuntime, check_directory};
use futures_util::future::BoxFuture;

use super::NodeError;
use super::disk::{Disk, OpenStore};

#[derive(Debug)]
pub(super) struct DirectoryDisk {
    pub(super) directory: PathBuf,
    pub(super) options: RocksOptions,
}

impl Disk for DirectoryDisk {
    fn check(&self) -> BoxFuture<'_, Result<(), NodeError>> {
        let directory = self.directory.clone();
        Box::pin(async { Ok(blocking(move || check_directory(&directory)).await?) })
    }

    fn read_marker(&self) -> BoxFuture<'_, Result<Option<Marker>, MarkerError>> {
        let directory = self.directory.clone();
        Box::pin(blocking(move || Marker::read(&directory)))
    }

    fn write_marker(&self, marker: Marker) -> BoxFuture<'_, Result<(), MarkerError>> {
        let directory = self.directory.clone();
        Box::pin(blocking(move || marker.write(&directory)))
    }

    fn open(&self) -> BoxFuture<'_, Result<OpenStore, NodeError>> {
        Box::pin(async {
            let store = Arc::new(RocksStore::open(&self.directory, &self.options)?);
            Ok(OpenStore::new(Arc::new(Recent::new(store, self.options.recent_bytes)), WriterRuntime::Thread))
        })
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
