//! Metadata through any of several addresses.

mod doors;
mod group;

use std::sync::Arc;
use std::time::Duration;

use bifrost_wire::grpc::{ClientOptions, GrpcMetadata, GrpcMetadataAdmin, InvalidAddress, connect_lazy};
use bifrost_wire::metadata::{MetadataError, MetadataStore, Page, Revision, Txn, TxnOutcome, Versioned, WatchStream};
use bifrost_wire::metadata_admin::MetadataAdminError;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use thiserror::Error;
use tokio::sync::{Semaphore, watch};

use self::group::Group;

/// An address that is none.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{address:?} is not an address of the form host:port")]
pub struct WrongAddress {
    /// The text.
    pub address: String,
}

/// Asks one address until it fails, then another. A read is repeated elsewhere. So is a transaction, as long as it was
/// refused: that one was not carried out. After a lost reply it is not sent again, because a second attempt is the
/// caller's decision then (M2).
///
/// There are two kinds. A [fixed](Self::connect_lazy) pool tries its addresses in the order in which they were given, each
/// once. A pool over the [metadata group](Self::follow) asks its members who leads and who else there is, so that members
/// may come and go, and goes on for some seconds while there is no leader.
#[derive(Debug)]
pub struct MetadataPool {
    targets: Mutex<Targets>,
    group: Option<Group>,
}

/// How long a watch of metadata may hang at a server that is gone: both together.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(1);
/// See above.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(2);

/// One address.
#[derive(Debug)]
struct Target {
    address: String,
    metadata: GrpcMetadata,
    admin: GrpcMetadataAdmin,
    /// How often it was left because it was silent: watches that were begun there end then.
    left: watch::Sender<u64>,
    /// For one check at a time of whether it is.
    checking: Arc<Semaphore>,
}

#[derive(Debug)]
struct Targets {
    all: Vec<Arc<Target>>,
    /// The one to ask, if it is there.
    current: usize,
}

impl Target {
    fn connect(address: &str, options: &ClientOptions) -> Result<Arc<Self>, InvalidAddress> {
        // A watch says nothing for as long as nothing changes: only a ping tells that its server is gone.
        let keepalive_interval = options.keepalive_interval.min(KEEPALIVE_INTERVAL);
        let keepalive_timeout = options.keepalive_timeout.min(KEEPALIVE_TIMEOUT);
        let options = &ClientOptions { keepalive_interval, keepalive_timeout, ..options.clone() };
        let channel = connect_lazy(address, options)?;
        Ok(Arc::new(Self {
            address: address.to_owned(),
            metadata: GrpcMetadata::over(channel.clone(), options.clone()),
            admin: GrpcMetadataAdmin::over(channel, options),
            left: watch::Sender::new(0),
            checking: Arc::new(Semaphore::new(1)),
        }))
    }
}

impl Targets {
    fn current(&self) -> Option<Arc<Target>> {
        self.all.get(self.current).cloned()
    }

    fn is_current(&self, target: &Arc<Target>) -> bool {
        self.all.get(self.current).is_some_and(|current| Arc::ptr_eq(current, target))
    }

    /// All of them, the current one first.
    fn all_from_current(&self) -> Vec<Arc<Target>> {
        let (before, from) = self.all.split_at(self.current.min(self.all.len()));
        from.iter().chain(before).cloned().collect()
    }

    /// Goes on with that one, if it is still there.
    fn prefer(&mut self, target: &Arc<Target>) {
        if let Some(place) = self.all.iter().position(|known| Arc::ptr_eq(known, target)) {
            self.current = place;
        }
    }

    /// Moves on if that one is still the current one.
    fn pass(&mut self, failed: &Arc<Target>) {
        if self.is_current(failed) {
            self.current = (self.current + 1) % self.all.len().max(1);
        }
    }
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
        Ok(Self { targets: Mutex::new(targets(addresses, options)?), group: None })
    }

    /// Metadata of the group that has members at some of these addresses. The pool learns the others from them, and keeps
    /// these as the last resort. Must be called inside a Tokio runtime.
    ///
    /// # Errors
    /// [`WrongAddress`] names the first that is none.
    pub fn follow<A: AsRef<str>>(
        addresses: impl IntoIterator<Item = A>,
        options: &ClientOptions,
    ) -> Result<Self, WrongAddress> {
        let targets = targets(addresses, options)?;
        let group = Group::new(options.clone(), targets.all.clone());
        Ok(Self { targets: Mutex::new(targets), group: Some(group) })
    }

    /// Where members of the group listen, as far as this pool knows. The first value is what it was given.
    pub fn addresses(&self) -> Vec<String> {
        self.targets.lock().all.iter().map(|target| target.address.clone()).collect()
    }

    /// Tells whenever a pool over the group learns other addresses. `None` for a fixed pool.
    pub fn watch_addresses(&self) -> Option<watch::Receiver<Vec<String>>> {
        self.group.as_ref().map(Group::watch_addresses)
    }

    /// Asks the members anew who there is and who leads. A fixed pool does nothing.
    ///
    /// # Cancel safety
    /// Safe: what was learned is kept.
    pub async fn refresh(&self) {
        if let Some(group) = &self.group {
            group.look(&self.targets, None).await;
        }
    }

    /// Who knows it at once tells where the leader of the group listens: a member in the same process. What waits for another
    /// one goes there. An address that is no member's changes nothing, nor does anything in a fixed pool.
    pub fn led_at(&self, address: &str) {
        if let Some(group) = &self.group {
            group.led_at(&self.targets, address);
        }
    }

    /// Asks the member that leads to change the group, and follows its hints. One attempt at each leader that is named.
    ///
    /// # Errors
    /// What the last one answered.
    ///
    /// # Cancel safety
    /// As the change itself: see [`MetadataAdmin`](bifrost_wire::metadata_admin::MetadataAdmin).
    pub async fn change(
        &self,
        change: impl for<'a> Fn(&'a GrpcMetadataAdmin) -> BoxFuture<'a, Result<(), MetadataAdminError>>,
    ) -> Result<(), MetadataAdminError> {
        let mut result = Err(MetadataAdminError::NotLeader { leader: None });
        for _ in 0..CHANGE_ATTEMPTS {
            let Some(target) = self.current() else { break };
            result = change(&target.admin).await;
            match (&result, &self.group) {
                (Err(MetadataAdminError::NotLeader { .. } | MetadataAdminError::Rpc(_)), Some(group)) => {
                    group.look(&self.targets, Some(&target)).await;
                }
                _ => break,
            }
        }
        result
    }

    fn current(&self) -> Option<Arc<Target>> {
        self.targets.lock().current()
    }

    /// Asks the group until an answer may not be followed by another attempt; `again` says which errors may.
    async fn ask_group<T>(
        &self,
        group: &Group,
        ask: impl for<'a> Fn(&'a GrpcMetadata) -> BoxFuture<'a, Result<T, MetadataError>> + Send + Sync,
        again: fn(MetadataError) -> bool,
    ) -> Result<(Arc<Target>, T), MetadataError> {
        let attempts = group::attempts();
        loop {
            let Some(target) = self.current() else { return Err(MetadataError::Unavailable) };
            let result = tokio::select! {
                biased;
                result = ask(&target.metadata) => result,
                // Its outcome may never be told: as after any lost reply.
                () = group.led_elsewhere(&self.targets, &target) => Err(MetadataError::Unknown),
            };
            let error = match result {
                Ok(answer) => return Ok((target, answer)),
                Err(error) if moves_on(error) => error,
                Err(error) => return Err(error),
            };
            if !again(error) || !attempts.more() {
                self.targets.lock().pass(&target);
                return Err(error);
            }
            let found = group.look(&self.targets, Some(&target)).await;
            // Time does not change whose member listens there.
            if !found && matches!(error, MetadataError::OtherCluster { .. }) {
                return Err(error);
            }
        }
    }

    async fn read<T>(
        &self,
        ask: impl for<'a> Fn(&'a GrpcMetadata) -> BoxFuture<'a, Result<T, MetadataError>> + Send + Sync,
    ) -> Result<(Arc<Target>, T), MetadataError> {
        match &self.group {
            Some(group) => self.ask_group(group, ask, moves_on).await,
            None => doors::read(&self.targets, ask).await,
        }
    }
}

/// Leaders that are asked for one change before the caller is told.
const CHANGE_ATTEMPTS: usize = 3;

fn targets<A: AsRef<str>>(
    addresses: impl IntoIterator<Item = A>,
    options: &ClientOptions,
) -> Result<Targets, WrongAddress> {
    let target = |address: A| {
        let address = address.as_ref();
        Target::connect(address, options).map_err(|InvalidAddress| WrongAddress { address: address.to_owned() })
    };
    let all = addresses.into_iter().map(target).collect::<Result<_, _>>()?;
    Ok(Targets { all, current: 0 })
}

/// Whether an address that answers so does not serve.
const fn moves_on(error: MetadataError) -> bool {
    match error {
        MetadataError::Unknown | MetadataError::Unavailable | MetadataError::OtherCluster { .. } => true,
        MetadataError::TooLarge | MetadataError::Invalid | MetadataError::Compacted { .. } => false,
    }
}

impl MetadataStore for MetadataPool {
    fn get(&self, key: String) -> BoxFuture<'_, Result<Option<Versioned>, MetadataError>> {
        Box::pin(async move { Ok(self.read(move |store| store.get(key.clone())).await?.1) })
    }

    fn list(&self, prefix: String, after: Option<String>, limit: usize) -> BoxFuture<'_, Result<Page, MetadataError>> {
        Box::pin(async move { Ok(self.read(move |store| store.list(prefix.clone(), after.clone(), limit)).await?.1) })
    }

    fn txn(&self, txn: Txn) -> BoxFuture<'_, Result<TxnOutcome, MetadataError>> {
        let refused = |error| matches!(error, MetadataError::Unavailable);
        Box::pin(async move {
            match &self.group {
                Some(group) => Ok(self.ask_group(group, move |store| store.txn(txn.clone()), refused).await?.1),
                None => doors::write(&self.targets, move |store| store.txn(txn.clone())).await,
            }
        })
    }

    fn watch(&self, prefix: String, after: Revision) -> BoxFuture<'_, Result<WatchStream, MetadataError>> {
        Box::pin(async move {
            let (door, changes) = self.read(move |store| store.watch(prefix.clone(), after)).await?;
            Ok(doors::until_left(door, changes))
        })
    }
}
