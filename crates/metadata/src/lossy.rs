//! A store that fails by a script: calls that never arrive, replies that get lost, calls that hang (M2).

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bifrost_wire::metadata::{MetadataError, MetadataStore, Page, Revision, Txn, TxnOutcome, Versioned, WatchStream};
use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;

/// Which call of the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallKind {
    /// [`MetadataStore::get`].
    Get,
    /// [`MetadataStore::list`].
    List,
    /// [`MetadataStore::txn`].
    Txn,
    /// [`MetadataStore::watch`].
    Watch,
}

/// One call, as the script sees it before it is carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Number of the call among all calls to this wrapper and its clones, from 0, in order of their first poll.
    pub index: u64,
    /// Number of the call among those of its kind, from 0.
    pub nth: u64,
    /// What is called.
    pub kind: CallKind,
    /// The key of a get, the prefix of a list or watch, the written keys of a transaction.
    pub keys: Vec<String>,
}

/// What becomes of a call.
#[derive(Debug, Clone)]
pub enum Fault {
    /// It is carried out and answered.
    None,
    /// It is not carried out and answered with this error.
    FailBefore(MetadataError),
    /// It is carried out and answered with [`MetadataError::Unknown`].
    LoseReply,
    /// It waits until the token is cancelled, then is carried out and answered. Dropped meanwhile, it has no effect.
    HangBefore(CancellationToken),
    /// It is carried out, then waits until the token is cancelled, then is answered. Dropped meanwhile, it has its
    /// effect.
    HangAfter(CancellationToken),
}

/// Decides what becomes of each call. To be deterministic it must depend on the call and its own state only.
pub type Script = Arc<dyn Fn(&Call) -> Fault + Send + Sync>;

/// Wraps a store; clones share the script and the numbering of calls.
#[derive(Clone)]
pub struct LossyMetadata<S> {
    inner: Arc<S>,
    script: Script,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    all: AtomicU64,
    kinds: [AtomicU64; 4],
}

impl<S: MetadataStore> LossyMetadata<S> {
    /// Wraps `inner`; every call asks `script` once, when it is first polled.
    pub fn new(inner: S, script: Script) -> Self {
        Self { inner: Arc::new(inner), script, counts: Arc::default() }
    }

    /// The store itself, without faults.
    pub fn inner(&self) -> &S {
        &self.inner
    }

    /// Calls made so far.
    pub fn calls(&self) -> u64 {
        self.counts.all.load(Ordering::SeqCst)
    }

    async fn disturb<T>(
        &self,
        kind: CallKind,
        keys: Vec<String>,
        call: BoxFuture<'_, Result<T, MetadataError>>,
    ) -> Result<T, MetadataError> {
        let nth = match kind {
            CallKind::Get => &self.counts.kinds[0],
            CallKind::List => &self.counts.kinds[1],
            CallKind::Txn => &self.counts.kinds[2],
            CallKind::Watch => &self.counts.kinds[3],
        }
        .fetch_add(1, Ordering::SeqCst);
        let index = self.counts.all.fetch_add(1, Ordering::SeqCst);
        match (self.script)(&Call { index, nth, kind, keys }) {
            Fault::None => call.await,
            Fault::FailBefore(error) => Err(error),
            Fault::LoseReply => {
                // The answer is what gets lost; an error that the store itself gave is lost with it.
                let _ = call.await;
                Err(MetadataError::Unknown)
            }
            Fault::HangBefore(released) => {
                released.cancelled().await;
                call.await
            }
            Fault::HangAfter(released) => {
                let answer = call.await;
                released.cancelled().await;
                answer
            }
        }
    }
}

impl<S: MetadataStore> MetadataStore for LossyMetadata<S> {
    fn get(&self, key: String) -> BoxFuture<'_, Result<Option<Versioned>, MetadataError>> {
        let keys = vec![key.clone()];
        Box::pin(self.disturb(CallKind::Get, keys, self.inner.get(key)))
    }

    fn list(&self, prefix: String, after: Option<String>, limit: usize) -> BoxFuture<'_, Result<Page, MetadataError>> {
        let keys = vec![prefix.clone()];
        Box::pin(self.disturb(CallKind::List, keys, self.inner.list(prefix, after, limit)))
    }

    fn txn(&self, txn: Txn) -> BoxFuture<'_, Result<TxnOutcome, MetadataError>> {
        let keys = txn.writes.iter().map(|(key, _)| key.clone()).collect();
        Box::pin(self.disturb(CallKind::Txn, keys, self.inner.txn(txn)))
    }

    fn watch(&self, prefix: String, after: Revision) -> BoxFuture<'_, Result<WatchStream, MetadataError>> {
        let keys = vec![prefix.clone()];
        Box::pin(self.disturb(CallKind::Watch, keys, self.inner.watch(prefix, after)))
    }
}

impl<S: fmt::Debug> fmt::Debug for LossyMetadata<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LossyMetadata")
            .field("inner", &self.inner)
            .field("counts", &self.counts)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
