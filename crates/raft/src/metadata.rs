//! The replicated store as everybody else sees it: a [`MetadataStore`] that answers where it leads.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bifrost_metadata::{
    MetadataError, MetadataStore, Page, Revision, Txn, TxnOutcome, Versioned, WatchStream, validate_key,
};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::runtime::{Builder, Handle};
use tokio::sync::{Semaphore, oneshot, watch};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::disk::Disk;
use crate::engine::LogEngine;
use crate::machine::Witness;
use crate::member::{AdminError, RunningMember, StartError, Status, short_turns};
use crate::options::RaftOptions;
use crate::peers::{Peers, Receive, Refusal, encode_answer};
use crate::types::{Lineage, Member, MemberId};

/// Calls that one member carries out at the same time; one more is refused.
const CALLS_MAX: usize = 8192;
/// How long what a member left running may go on after it stopped.
const GRACE: Duration = Duration::from_secs(5);

/// A handle to one member of the metadata group; clones share it. Reads and transactions are answered by the leader;
/// elsewhere they are [`MetadataError::Unavailable`], and [`leader`](Self::leader) says who to ask. A watch that was begun
/// goes on when its member does not lead any more.
///
/// The member stops when the last handle is gone; [`shutdown`](Self::shutdown) tells when.
#[derive(Clone)]
pub struct RaftMetadata {
    shared: Arc<Shared>,
}

struct Shared {
    member: Arc<RunningMember>,
    runtime: Handle,
    calls: Arc<Semaphore>,
    tasks: TaskTracker,
    stop: CancellationToken,
    ended: CancellationToken,
    _stops: DropGuard,
}

impl fmt::Debug for RaftMetadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RaftMetadata").field("status", &*self.shared.member.status.borrow()).finish_non_exhaustive()
    }
}

impl RaftMetadata {
    /// Starts a member on a thread and a runtime of its own, so that nothing else in the process can starve an election.
    /// `engine` is its disk; nobody else uses it.
    ///
    /// # Errors
    /// [`StartError`].
    ///
    /// # Cancel safety
    /// Safe. A member that was being started stops again, in the background.
    pub async fn start(
        options: RaftOptions,
        engine: Arc<dyn LogEngine>,
        peers: Arc<dyn Peers>,
    ) -> Result<Self, StartError> {
        Self::start_with(options, move || Ok(engine), peers).await
    }

    /// As [`start`](Self::start), with a RocksDB database in `dir`, made if there is none.
    ///
    /// # Errors
    /// [`StartError`].
    ///
    /// # Cancel safety
    /// Safe. A member that was being started stops again, in the background.
    #[cfg(feature = "rocksdb")]
    pub async fn open(
        options: RaftOptions,
        dir: impl Into<std::path::PathBuf>,
        peers: Arc<dyn Peers>,
    ) -> Result<Self, StartError> {
        let dir = dir.into();
        let open = move || Ok(Arc::new(crate::engine::rocks::RocksEngine::open(&dir)?) as Arc<dyn LogEngine>);
        Self::start_with(options, open, peers).await
    }

    async fn start_with(
        options: RaftOptions,
        open: impl FnOnce() -> Result<Arc<dyn LogEngine>, StartError> + Send + 'static,
        peers: Arc<dyn Peers>,
    ) -> Result<Self, StartError> {
        let (stop, ended) = (CancellationToken::new(), CancellationToken::new());
        let stops = stop.clone().drop_guard();
        let (started, starting) = oneshot::channel();
        let run = {
            let (stop, ended) = (stop.clone(), ended.clone());
            move || {
                let _ended = ended.drop_guard();
                let runtime = match Builder::new_multi_thread()
                    .worker_threads(2)
                    .thread_name("bifrost-raft")
                    .on_thread_start(short_turns)
                    .enable_all()
                    .build()
                {
                    Ok(runtime) => runtime,
                    Err(error) => {
                        let _gone = started.send(Err(StartError::Thread(error)));
                        return;
                    }
                };
                runtime.block_on(async {
                    // Nothing else runs here yet that opening a database could hold up.
                    let starting = async { RunningMember::start(options, Disk::new(open()?), peers, None, stop).await };
                    match starting.await {
                        Ok(member) => {
                            // Nobody to tell means that nobody has the guard: it stops at once.
                            let _gone = started.send(Ok((Arc::clone(&member), Handle::current())));
                            member.run().await;
                        }
                        Err(error) => drop(started.send(Err(error))),
                    }
                });
                runtime.shutdown_timeout(GRACE);
            }
        };
        std::thread::Builder::new().name("bifrost-raft-main".to_owned()).spawn(run)?;
        match starting.await {
            Ok(started) => {
                let (member, runtime) = started?;
                Ok(Self::over(member, runtime, stop, ended, stops))
            }
            Err(_) => Err(StartError::Thread(std::io::ErrorKind::BrokenPipe.into())),
        }
    }

    /// Starts a member on the runtime of the caller: for tests and for the simulator, which own the clock.
    ///
    /// # Errors
    /// [`StartError`].
    ///
    /// # Cancel safety
    /// Safe. A member that was being started stops again, in the background.
    pub async fn start_here(
        options: RaftOptions,
        engine: Arc<dyn LogEngine>,
        peers: Arc<dyn Peers>,
    ) -> Result<Self, StartError> {
        Self::start_watched(options, engine, peers, None).await
    }

    /// As [`start_here`](Self::start_here), with somebody who sees what the member applies.
    ///
    /// # Errors
    /// [`StartError`].
    ///
    /// # Cancel safety
    /// Safe. A member that was being started stops again, in the background.
    pub async fn start_watched(
        options: RaftOptions,
        engine: Arc<dyn LogEngine>,
        peers: Arc<dyn Peers>,
        witness: Option<Arc<dyn Witness>>,
    ) -> Result<Self, StartError> {
        let (stop, ended) = (CancellationToken::new(), CancellationToken::new());
        let stops = stop.clone().drop_guard();
        let member = RunningMember::start(options, Disk::new(engine), peers, witness, stop.clone()).await?;
        let this = Self::over(Arc::clone(&member), Handle::current(), stop, ended.clone(), stops);
        this.shared.tasks.spawn(async move {
            let _ended = ended.drop_guard();
            member.run().await;
        });
        Ok(this)
    }

    /// What is applied here, leader or not.
    #[cfg(test)]
    pub(crate) fn applied(&self) -> bifrost_metadata::Keyspace {
        self.shared.member.read(|live| Ok(live.keyspace().clone())).unwrap_or_default()
    }

    fn over(
        member: Arc<RunningMember>,
        runtime: Handle,
        stop: CancellationToken,
        ended: CancellationToken,
        stops: DropGuard,
    ) -> Self {
        let calls = Arc::new(Semaphore::new(CALLS_MAX));
        let shared = Shared { member, runtime, calls, tasks: TaskTracker::new(), stop, ended, _stops: stops };
        Self { shared: Arc::new(shared) }
    }

    /// Stops the member and returns when it has let go of its disk: a directory can be opened again. Every later call is
    /// refused; watches end. Repeating is success.
    ///
    /// # Cancel safety
    /// Safe. Once polled, the member stops, whether or not anybody waits for it.
    pub async fn shutdown(&self) {
        self.shared.stop.cancel();
        self.shared.ended.cancelled().await;
    }

    /// What this member knows now.
    pub fn status(&self) -> Status {
        self.shared.member.status.borrow().clone()
    }

    /// Whether this member stopped because its group was recovered without it.
    pub fn was_replaced(&self) -> bool {
        self.shared.member.replaced.is_cancelled()
    }

    /// The group that this member belongs to, and those that it replaces.
    pub fn lineage(&self) -> &Lineage {
        &self.shared.member.lineage
    }

    /// Tells whenever that changes.
    pub fn watch_status(&self) -> watch::Receiver<Status> {
        self.shared.member.status.clone()
    }

    /// Who leads, as far as this member knows: the one to ask after [`MetadataError::Unavailable`].
    pub fn leader(&self) -> Option<(MemberId, Member)> {
        let status = self.shared.member.status.borrow();
        let leader = status.leader?;
        Some((leader, status.members.get(&leader)?.clone()))
    }

    /// Begins a new group. Asked of one member, once; the others only start.
    ///
    /// # Errors
    /// [`AdminError::Initialized`] when this member belongs to a group.
    ///
    /// # Cancel safety
    /// The group may have begun.
    pub async fn initialize(&self, members: BTreeMap<MemberId, Member>) -> Result<(), AdminError> {
        self.admin(async move |member| member.initialize(members).await).await
    }

    /// Adds a member: it learns until it has what the others have, then it votes. Doing it again goes on where it was.
    ///
    /// # Errors
    /// [`AdminError`]. A member that was added and did not catch up in time stays a learner.
    ///
    /// # Cancel safety
    /// The change goes on in the background.
    pub async fn add_member(&self, id: MemberId, member: Member, deadline: Duration) -> Result<(), AdminError> {
        self.admin(async move |running| running.add(id, member, deadline).await).await
    }

    /// Removes a member, also one that is dead. A leader that removes itself leads on until the others know.
    ///
    /// # Errors
    /// [`AdminError`].
    ///
    /// # Cancel safety
    /// The change goes on in the background.
    pub async fn remove_member(&self, id: MemberId, deadline: Duration) -> Result<(), AdminError> {
        self.admin(async move |member| member.remove(id, deadline).await).await
    }

    /// Makes this member ask for votes now, for example because the leader said that it stops.
    ///
    /// # Errors
    /// [`AdminError::Stopped`].
    ///
    /// # Cancel safety
    /// The election may have begun.
    pub async fn elect(&self) -> Result<(), AdminError> {
        self.admin(async |member| member.elect().await).await
    }

    /// Makes a snapshot in the background.
    ///
    /// # Errors
    /// [`AdminError::Stopped`].
    ///
    /// # Cancel safety
    /// The snapshot may have begun.
    pub async fn snapshot(&self) -> Result<(), AdminError> {
        self.admin(async |member| member.snapshot().await).await
    }

    /// Carries a call out on the member's own runtime, so that its timers are. `None` when it is stopped or too busy to
    /// begin.
    async fn call<T, F>(&self, begin: impl FnOnce(Arc<RunningMember>) -> F, gone: T) -> Result<T, Refusal>
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        if self.shared.stop.is_cancelled() {
            return Err(Refusal::Stopped);
        }
        let place = Arc::clone(&self.shared.calls).try_acquire_owned().map_err(|_| Refusal::Busy)?;
        let (call, stop) = (begin(Arc::clone(&self.shared.member)), self.shared.stop.clone());
        let task = async move {
            let _place = place;
            tokio::select! {
                biased;
                answer = call => Some(answer),
                () = stop.cancelled() => None,
            }
        };
        let task = self.shared.tasks.spawn_on(task, &self.shared.runtime);
        Ok(task.await.ok().flatten().unwrap_or(gone))
    }

    async fn admin<F>(&self, begin: impl FnOnce(Arc<RunningMember>) -> F) -> Result<(), AdminError>
    where
        F: Future<Output = Result<(), AdminError>> + Send + 'static,
    {
        self.call(begin, Err(AdminError::Stopped)).await.unwrap_or(Err(AdminError::Stopped))
    }

    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&mut bifrost_metadata::Live) -> Result<T, MetadataError> + Send + 'static,
    ) -> Result<T, MetadataError> {
        let call = async move |member: Arc<RunningMember>| {
            member.linearizable().await?;
            member.read(read)
        };
        self.call(call, Err(MetadataError::Unavailable)).await.unwrap_or(Err(MetadataError::Unavailable))
    }
}

impl MetadataStore for RaftMetadata {
    fn get(&self, key: String) -> BoxFuture<'_, Result<Option<Versioned>, MetadataError>> {
        Box::pin(async move {
            validate_key(&key)?;
            self.read(move |live| live.get(&key)).await
        })
    }

    fn list(&self, prefix: String, after: Option<String>, limit: usize) -> BoxFuture<'_, Result<Page, MetadataError>> {
        Box::pin(async move { self.read(move |live| live.list(&prefix, after.as_deref(), limit)).await })
    }

    fn txn(&self, txn: Txn) -> BoxFuture<'_, Result<TxnOutcome, MetadataError>> {
        Box::pin(async move {
            let call = async move |member: Arc<RunningMember>| member.txn(txn).await;
            self.call(call, Err(MetadataError::Unknown)).await.unwrap_or(Err(MetadataError::Unavailable))
        })
    }

    fn watch(&self, prefix: String, after: Revision) -> BoxFuture<'_, Result<WatchStream, MetadataError>> {
        // From a state that has `after`: a member that is behind would take it for a revision of another store.
        Box::pin(async move { self.read(move |live| live.watch(prefix, after)).await })
    }

    fn seen(&self, key: &str) -> Option<Versioned> {
        self.shared.member.seen(key)
    }
}

impl Receive for RaftMetadata {
    fn receive(&self, message: Bytes) -> BoxFuture<'_, Bytes> {
        Box::pin(async move {
            let stopped = encode_answer(&Err(Refusal::Stopped));
            let call = async move |member: Arc<RunningMember>| member.inbound.receive(&message).await;
            let answer = self.call(call, stopped).await;
            Bytes::from(answer.unwrap_or_else(|refusal| encode_answer(&Err(refusal))))
        })
    }
}
