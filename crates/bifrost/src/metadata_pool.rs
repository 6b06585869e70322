//! Metadata through any of several addresses.

use std::sync::atomic::{AtomicUsize, Ordering};

use bifrost_wire::grpc::{ClientOptions, GrpcMetadata, InvalidAddress};
use bifrost_wire::metadata::{MetadataError, MetadataStore, Page, Revision, Txn, TxnOutcome, Versioned, WatchStream};
use futures_util::future::BoxFuture;
use thiserror::Error;

/// An address that is none.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{address:?} is not an address of the form host:port")]
pub struct WrongAddress {
    /// The text.
    pub address: String,
}

/// Asks one address until it fails, then the next. A read is tried at each address once. So is a transaction, as long as it
/// was refused: that one was not carried out. After a lost reply it is not sent again, because a second attempt is the
/// caller's decision then (M2). Addresses are tried in the order in which they were given.
#[derive(Debug)]
pub struct MetadataPool {
    members: Vec<GrpcMetadata>,
    current: AtomicUsize,
}

impl MetadataPool {
    /// Metadata behind these addresses (`host:port`), each connected by the first call that goes there. Must be called
    /// inside a Tokio runtime.
    ///
    /// # Errors
    /// [`WrongAddress`] names the first that is none. Without addresses every call is answered
    /// [`MetadataError::Unavailable`].
    pub fn connect_lazy<A: AsRef<str>>(
        addresses: impl IntoIterator<Item = A>,
        options: &ClientOptions,
    ) -> Result<Self, WrongAddress> {
        let member = |address: A| {
            let address = address.as_ref();
            GrpcMetadata::connect_lazy(address, options.clone())
                .map_err(|InvalidAddress| WrongAddress { address: address.to_owned() })
        };
        let members = addresses.into_iter().map(member).collect::<Result<_, _>>()?;
        Ok(Self { members, current: AtomicUsize::new(0) })
    }

    async fn read<'a, T>(
        &'a self,
        ask: impl Fn(&'a GrpcMetadata) -> BoxFuture<'a, Result<T, MetadataError>>,
    ) -> Result<T, MetadataError> {
        let mut result = Err(MetadataError::Unavailable);
        for _ in 0..self.members.len() {
            let index = self.current.load(Ordering::Relaxed);
            let Some(member) = self.members.get(index) else { break };
            result = ask(member).await;
            if !self.failed(index, result.as_ref().err()) {
                break;
            }
        }
        result
    }

    /// Moves on to the next address if this one did not serve.
    fn failed(&self, index: usize, error: Option<&MetadataError>) -> bool {
        let failed = match error {
            Some(MetadataError::Unknown | MetadataError::Unavailable | MetadataError::OtherCluster { .. }) => true,
            Some(MetadataError::TooLarge | MetadataError::Invalid | MetadataError::Compacted { .. }) | None => false,
        };
        if failed {
            let next = (index + 1) % self.members.len().max(1);
            let _moved = self.current.compare_exchange(index, next, Ordering::Relaxed, Ordering::Relaxed);
        }
        failed
    }
}

impl MetadataStore for MetadataPool {
    fn get(&self, key: String) -> BoxFuture<'_, Result<Option<Versioned>, MetadataError>> {
        Box::pin(async move { self.read(move |member| member.get(key.clone())).await })
    }

    fn list(&self, prefix: String, after: Option<String>, limit: usize) -> BoxFuture<'_, Result<Page, MetadataError>> {
        Box::pin(async move { self.read(move |member| member.list(prefix.clone(), after.clone(), limit)).await })
    }

    fn txn(&self, txn: Txn) -> BoxFuture<'_, Result<TxnOutcome, MetadataError>> {
        Box::pin(async move {
            let mut result = Err(MetadataError::Unavailable);
            for _ in 0..self.members.len() {
                let index = self.current.load(Ordering::Relaxed);
                let Some(member) = self.members.get(index) else { break };
                result = member.txn(txn.clone()).await;
                self.failed(index, result.as_ref().err());
                if !matches!(result, Err(MetadataError::Unavailable)) {
                    break;
                }
            }
            result
        })
    }

    fn watch(&self, prefix: String, after: Revision) -> BoxFuture<'_, Result<WatchStream, MetadataError>> {
        Box::pin(async move { self.read(move |member| member.watch(prefix.clone(), after)).await })
    }
}
