//! A metadata store whose calls are steps of one actor: see [`Stepper`].

use std::sync::Arc;

use bifrost_wire::metadata::{MetadataError, MetadataStore, Page, Revision, Txn, TxnOutcome, Versioned, WatchStream};
use futures_util::future::BoxFuture;

use super::interpose::Stepper;

/// The store as one actor reaches it.
#[derive(Debug)]
pub struct SteppedMetadata {
    pub inner: Arc<dyn MetadataStore>,
    pub stepper: Stepper,
}

impl SteppedMetadata {
    async fn call<T>(&self, what: &str, call: BoxFuture<'_, Result<T, MetadataError>>) -> Result<T, MetadataError> {
        let _turn = self.stepper.turn().await;
        self.stepper.step(format!("send {what} to metadata")).await;
        let answer = call.await;
        self.stepper.step(format!("reply of metadata to {what}")).await;
        answer
    }
}

impl MetadataStore for SteppedMetadata {
    fn get(&self, key: String) -> BoxFuture<'_, Result<Option<Versioned>, MetadataError>> {
        Box::pin(self.call("get", self.inner.get(key)))
    }

    fn list(&self, prefix: String, after: Option<String>, limit: usize) -> BoxFuture<'_, Result<Page, MetadataError>> {
        Box::pin(self.call("list", self.inner.list(prefix, after, limit)))
    }

    fn txn(&self, txn: Txn) -> BoxFuture<'_, Result<TxnOutcome, MetadataError>> {
        Box::pin(self.call("txn", self.inner.txn(txn)))
    }

    fn watch(&self, prefix: String, after: Revision) -> BoxFuture<'_, Result<WatchStream, MetadataError>> {
        Box::pin(self.call("watch", self.inner.watch(prefix, after)))
    }
}
