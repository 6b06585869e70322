//! A store in memory: for tests, for the simulator, and for `Bifrost::in_memory()`. Gone with its last handle.

use std::sync::Arc;

use bifrost_wire::metadata::{MetadataError, MetadataStore, Page, Revision, Txn, TxnOutcome, Versioned, WatchStream};
use futures_util::future::BoxFuture;
use parking_lot::Mutex;

use crate::keyspace::{Keyspace, Staged, validate};
use crate::live::Live;

/// A handle to one store in memory; clones share it. No call waits for anything.
#[derive(Debug, Clone, Default)]
pub struct MemoryMetadata {
    live: Arc<Mutex<Live>>,
}

impl MemoryMetadata {
    /// A new empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// A store that begins as this keyspace.
    pub fn of(keyspace: Keyspace) -> Self {
        Self { live: Arc::new(Mutex::new(Live::new(keyspace))) }
    }
}

impl MetadataStore for MemoryMetadata {
    fn get(&self, key: String) -> BoxFuture<'_, Result<Option<Versioned>, MetadataError>> {
        Box::pin(async move { self.live.lock().get(&key) })
    }

    fn list(&self, prefix: String, after: Option<String>, limit: usize) -> BoxFuture<'_, Result<Page, MetadataError>> {
        Box::pin(async move { self.live.lock().list(&prefix, after.as_deref(), limit) })
    }

    fn txn(&self, txn: Txn) -> BoxFuture<'_, Result<TxnOutcome, MetadataError>> {
        Box::pin(async move {
            validate(&txn)?;
            let mut live = self.live.lock();
            let mut staged = Staged::default();
            let outcome = live.stage(&mut staged, &txn);
            live.commit(staged);
            Ok(outcome)
        })
    }

    fn watch(&self, prefix: String, after: Revision) -> BoxFuture<'_, Result<WatchStream, MetadataError>> {
        Box::pin(async move { self.live.lock().watch(prefix, after) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::conformance;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn memory_passes_the_conformance_suite() {
        conformance(async || MemoryMetadata::new()).await;
    }

    #[tokio::test]
    async fn clones_share_one_store() {
        let one = MemoryMetadata::new();
        let two = one.clone();
        one.txn(Txn::new().put("a", "1")).await.expect("memory never fails");
        assert_eq!(two.get("a".into()).await.expect("memory never fails").map(|value| value.revision), Some(1));
    }
}
