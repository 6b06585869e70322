//! Metadata behind a network that loses, repeats and delays (M2).

use std::sync::Arc;

use bifrost_wire::metadata::{
    MetadataError, MetadataStore, Page, Precondition, Revision, Txn, TxnOutcome, Versioned, WatchStream,
};
use futures_util::future::BoxFuture;
use tokio::sync::mpsc;

use super::call::{Failures, Repeat};
use super::log_server::next;
use super::{Faults, Route, spawn};

/// Changes that wait on the way.
const QUEUED: usize = 64;

const FAILURES: Failures<MetadataError> =
    Failures { refused: MetadataError::Unavailable, lost: MetadataError::Unknown };

/// Does to the calls of one host to one store what [`Faults`] say.
#[derive(Debug)]
pub struct FaultyMetadata {
    route: Route,
    inner: Arc<dyn MetadataStore>,
}

impl FaultyMetadata {
    /// The calls of the host `from` to `inner`, which is the host `to`.
    pub fn new(from: &str, to: &str, inner: Arc<dyn MetadataStore>, faults: &Faults) -> Self {
        Self { route: faults.route(from, to), inner }
    }
}

/// A transaction that demands a revision commits once at most, however often it arrives. Others are not repeated: their
/// sender did not ask for that.
fn repeat(txn: &Txn) -> Repeat {
    let once = txn.preconditions.iter().any(|(_, precondition)| matches!(precondition, Precondition::Revision(_)));
    if once { Repeat::AnsweredFirst } else { Repeat::Once }
}

impl MetadataStore for FaultyMetadata {
    fn get(&self, key: String) -> BoxFuture<'_, Result<Option<Versioned>, MetadataError>> {
        let inner = Arc::clone(&self.inner);
        let execute = move |_| -> BoxFuture<'static, Result<Option<Versioned>, MetadataError>> {
            let (inner, key) = (Arc::clone(&inner), key.clone());
            Box::pin(async move { inner.get(key).await })
        };
        Box::pin(self.route.call("get", Repeat::Reads, FAILURES, execute))
    }

    fn seen(&self, key: &str) -> Option<Versioned> {
        self.inner.seen(key)
    }

    fn list(&self, prefix: String, after: Option<String>, limit: usize) -> BoxFuture<'_, Result<Page, MetadataError>> {
        let inner = Arc::clone(&self.inner);
        let execute = move |_| -> BoxFuture<'static, Result<Page, MetadataError>> {
            let (inner, prefix, after) = (Arc::clone(&inner), prefix.clone(), after.clone());
            Box::pin(async move { inner.list(prefix, after, limit).await })
        };
        Box::pin(self.route.call("list", Repeat::Reads, FAILURES, execute))
    }

    fn txn(&self, txn: Txn) -> BoxFuture<'_, Result<TxnOutcome, MetadataError>> {
        let inner = Arc::clone(&self.inner);
        let repeat = repeat(&txn);
        let execute = move |_| -> BoxFuture<'static, Result<TxnOutcome, MetadataError>> {
            let (inner, txn) = (Arc::clone(&inner), txn.clone());
            Box::pin(async move { inner.txn(txn).await })
        };
        Box::pin(self.route.call("txn", repeat, FAILURES, execute))
    }

    fn watch(&self, prefix: String, after: Revision) -> BoxFuture<'_, Result<WatchStream, MetadataError>> {
        Box::pin(async move {
            let inner = Arc::clone(&self.inner);
            let execute = move |_| -> BoxFuture<'static, Result<WatchStream, MetadataError>> {
                let (inner, prefix) = (Arc::clone(&inner), prefix.clone());
                Box::pin(async move { inner.watch(prefix, after).await })
            };
            let mut back = self.route.call("watch", Repeat::Reads, FAILURES, execute).await?;
            let (caller, changes) = mpsc::channel(QUEUED);
            let route = self.route.clone();
            spawn(async move {
                while let Some(item) = next(back.recv(), &caller).await {
                    if route.loses_reply("watch") || caller.send(item).await.is_err() {
                        return;
                    }
                }
            });
            Ok(changes)
        })
    }
}
