//! The handle that others call: checks what comes in, and passes it to the writer or to a read task.

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use bifrost_turns::take_short_turns;
use bifrost_types::{DiskId, LogletId, LogletOffset, NodeId};
use bifrost_wire::RpcError;
use bifrost_wire::account::Ahead;
use bifrost_wire::log_server::{
    CallError, CopyError, CopyState, LogServer, ReadRequest, ReadStream, RepairRequest, SealRequest, SettleRequest,
    StateRequest, StoreStream, TrimRequest,
};
use bifrost_wire::node::DiskStatus;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use thiserror::Error;
use tokio::runtime::Handle;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, TryAcquireError, mpsc, oneshot, watch};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::copy::RepairFacts;
use crate::guard::LOOK_INTERVAL;
use crate::metrics::Metrics;
use crate::options::{InvalidOption, ServerOptions};
use crate::published::Published;
use crate::read::{ReadStore, ReadTask};
use crate::space::Fullness;
use crate::store::{LogStore, StoreError};
use crate::stream::{StreamTask, check_disk, place, room_for};
use crate::writer::{Call, CallCommand, Peer, Queues, StoreCommand, Writer};

/// Grants that a reader may send ahead of the server.
const GRANTS: usize = 16;
/// Parts of a read that wait for the reader to take them; their bytes are bounded by its credit.
const READ_PARTS: usize = 16;
/// Reads that have something read from the store and not counted yet; more than a disk reads at once by default.
const READ_TURNS: usize = 8;

/// Where the writer runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriterRuntime {
    /// On a thread of its own: for stores whose commits block. Closing the store may block too.
    Thread,
    /// As a task of the runtime: for stores whose commits wait, such as a simulated disk. No thread takes part.
    Task,
}

/// Why a server does not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// The options are not valid.
    #[error(transparent)]
    Options(#[from] InvalidOption),
    /// The store cannot say what it holds.
    #[error("the copies cannot be recovered")]
    Recover(#[from] StoreError),
    /// No thread for the writer.
    #[error("cannot start the writer thread")]
    Thread(#[source] std::io::Error),
}

/// A running log server; clones are cheap and name the same server. It stops when the last clone is dropped, or by
/// [`shutdown`](Self::shutdown), which also waits.
#[derive(Clone)]
pub struct LogServerHandle {
    server: Arc<Server>,
}

struct Server {
    options: ServerOptions,
    runtime: WriterRuntime,
    published: Arc<Published>,
    metrics: Metrics,
    /// Taken at shutdown, so that handles that are still around do not keep the data directory locked.
    store: Mutex<Option<Arc<dyn ReadStore>>>,
    calls: mpsc::Sender<CallCommand>,
    stores: mpsc::Sender<StoreCommand>,
    room: Arc<Semaphore>,
    streams: Arc<Semaphore>,
    reads: Arc<Semaphore>,
    turns: Arc<Semaphore>,
    next_stream: AtomicU64,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl LogServerHandle {
    /// Reads what the store holds and starts to serve it. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`StartError`]; nothing runs then, and the store is dropped.
    ///
    /// # Cancel safety
    /// Safe: nothing runs before the last await.
    pub async fn start<S: LogStore>(
        store: Arc<S>,
        options: ServerOptions,
        runtime: WriterRuntime,
    ) -> Result<Self, StartError> {
        options.validate()?;
        let metrics = Metrics::new();
        let published = Arc::new(Published::default());
        let writer =
            Writer::recover(Arc::clone(&store), Arc::clone(&published), metrics.clone(), options.loglets_max).await?;
        let (calls, queued_calls) = mpsc::channel(options.queue_requests);
        let (stores, queued_stores) = mpsc::channel(options.queue_requests);
        let stop = CancellationToken::new();
        let tasks = TaskTracker::new();
        let looks = Arc::new(Notify::new());
        if store.space().is_some() {
            let looks = Arc::clone(&looks);
            tasks.spawn(stop.clone().run_until_cancelled_owned(async move {
                loop {
                    sleep(LOOK_INTERVAL).await;
                    looks.notify_one();
                }
            }));
        }
        let queues = Queues { calls: queued_calls, stores: queued_stores, looks };
        let work = drive(writer, queues, stop.clone(), options.node);
        match runtime {
            WriterRuntime::Task => drop(tasks.spawn(work)),
            WriterRuntime::Thread => spawn_thread(work, &tasks, options.node).map_err(StartError::Thread)?,
        }
        let server = Server {
            published,
            metrics,
            store: Mutex::new(Some(store)),
            calls,
            stores,
            room: Arc::new(Semaphore::new(options.queue_bytes)),
            streams: Arc::new(Semaphore::new(options.streams)),
            reads: Arc::new(Semaphore::new(options.reads)),
            turns: Arc::new(Semaphore::new(READ_TURNS)),
            next_stream: AtomicU64::new(0),
            stop,
            tasks,
            runtime,
            options,
        };
        Ok(Self { server: Arc::new(server) })
    }

    /// Answers what is queued, closes every stream, and lets go of the store: the same process may open it again.
    /// Repeating it is harmless.
    ///
    /// # Cancel safety
    /// Safe: the server stops all the same; call it again to wait for it.
    pub async fn shutdown(&self) {
        self.server.stop.cancel();
        self.server.tasks.close();
        self.server.tasks.wait().await;
        let store = self.server.store.lock().take();
        match self.server.runtime {
            WriterRuntime::Task => drop(store),
            // Closing a store on disk blocks.
            WriterRuntime::Thread => {
                if let Err(error) = tokio::task::spawn_blocking(move || drop(store)).await {
                    tracing::error!(%error, "closing the store failed");
                }
            }
        }
    }

    /// Completes when the server stops, by [`shutdown`](Self::shutdown) or because its store failed. What was not
    /// answered by then is unknown.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn stopped(&self) {
        self.server.stop.cancelled().await;
    }

    /// The node that it runs on.
    pub fn node(&self) -> NodeId {
        self.server.options.node
    }

    /// Its disk.
    pub fn disk(&self) -> DiskId {
        self.server.options.disk
    }

    /// First offset of a loglet that is not known to be here without a hole between the trim point and it. Everything below
    /// is durable.
    pub fn whole_tail(&self, loglet: LogletId) -> LogletOffset {
        self.server.published.shown(loglet).whole_tail
    }

    /// Remembers that somebody found everything of a loglet here from the trim point up to `whole_tail`, so that nobody
    /// looks again; durable when this returns.
    ///
    /// # Errors
    /// [`CallError`]; it is remembered or not.
    ///
    /// # Cancel safety
    /// Safe: attest again.
    pub async fn attest_whole(&self, loglet: LogletId, whole_tail: LogletOffset) -> Result<CopyState, CallError> {
        self.server.call(loglet, self.disk(), Call::Attest { whole_tail }).await
    }

    /// How full its disk is, now and as that changes. From [`Fullness::Low`] on new loglets should go elsewhere. Looked
    /// at with each group and once a second; always [`Fullness::Ample`] for a store without a disk.
    pub fn fullness(&self) -> watch::Receiver<Fullness> {
        self.server.published.fullness.subscribe()
    }

    /// Its disk as of the last look, or `None` once the server stopped: a disk that is not served is no disk to count on.
    pub fn disk_status(&self) -> Option<DiskStatus> {
        let Published { fullness, space, .. } = &*self.server.published;
        let status = DiskStatus { disk: self.disk(), fullness: *fullness.borrow(), space: *space.borrow() };
        (!self.server.stop.is_cancelled()).then_some(status)
    }

    /// Loglets that it has a promise about.
    pub fn loglets(&self) -> u64 {
        self.server.published.promised.load(Ordering::Relaxed)
    }

    /// Bytes of batches that it made durable since it started.
    pub fn stored_bytes(&self) -> u64 {
        self.server.published.stored_bytes.load(Ordering::Relaxed)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl fmt::Debug for LogServerHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogServerHandle")
            .field("node", &self.server.options.node)
            .field("disk", &self.server.options.disk)
            .finish_non_exhaustive()
    }
}

async fn drive<S: LogStore>(writer: Writer<S>, queues: Queues, stop: CancellationToken, node: NodeId) {
    if let Err(error) = writer.run(queues, stop.clone()).await {
        let error = &error as &dyn std::error::Error;
        tracing::error!(%node, error, "the store failed, the log server stops");
    }
    // A server whose writer is gone must not look alive.
    stop.cancel();
}

fn spawn_thread(
    work: impl Future<Output = ()> + Send + 'static,
    tasks: &TaskTracker,
    node: NodeId,
) -> Result<(), std::io::Error> {
    let runtime = Handle::current();
    // The token counts as a task: shutdown waits for the thread.
    let token = tasks.token();
    thread::Builder::new().name(format!("log-writer-{node}")).spawn(move || {
        let _token = token;
        if let Err(error) = take_short_turns() {
            tracing::debug!(%error, "the writer thread has turns of the usual length");
        }
        runtime.block_on(work);
    })?;
    Ok(())
}

impl Server {
    async fn call(&self, loglet: LogletId, disk: DiskId, call: Call) -> Result<CopyState, CallError> {
        self.refusing(check_disk(disk, self.options.disk))?;
        let (reply, answer) = oneshot::channel();
        match self.calls.try_send(CallCommand { loglet, call, reply }) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(_)) => return Err(self.overloaded().into()),
            Err(mpsc::error::TrySendError::Closed(_)) => return Err(RpcError::ShuttingDown.into()),
        }
        match answer.await {
            Ok(outcome) => Ok(outcome?),
            // The writer stopped with the command in its hands.
            Err(_) => Err(CopyError::Stopping.into()),
        }
    }

    async fn repair(&self, request: RepairRequest) -> Result<CopyState, CallError> {
        let RepairRequest { loglet, disk, op, committed_tail, first_offset, batches } = request;
        self.refusing(check_disk(disk, self.options.disk))?;
        let room = Arc::clone(&self.room)
            .try_acquire_many_owned(room_for(&batches, self.options.queue_bytes))
            .map_err(|_| CallError::from(self.overloaded()))?;
        let batches = self.refusing(place(first_offset, batches))?;
        self.call(loglet, disk, Call::Repair { facts: RepairFacts { op, committed_tail }, batches, room }).await
    }

    fn read(self: &Arc<Self>, request: ReadRequest, ahead: Ahead) -> Result<ReadStream, CallError> {
        self.refusing(check_disk(request.disk, self.options.disk))?;
        let store = self.store.lock().clone().filter(|_| !self.stop.is_cancelled()).ok_or(RpcError::ShuttingDown)?;
        let permit = self.admit(&self.reads)?;
        let (grants, granted) = mpsc::channel(GRANTS);
        let (parts, replies) = mpsc::channel(READ_PARTS);
        let states = self.published.watch(request.loglet);
        let CopyState { local_tail, committed_tail, decided_tail, .. } = states.borrow().state;
        if committed_tail < local_tail && decided_tail.is_none() {
            // Without room in the queue news comes all the same, only later.
            let (reply, _nobody) = oneshot::channel();
            let _full = self.calls.try_send(CallCommand { loglet: request.loglet, call: Call::Follow, reply });
        }
        let task = ReadTask {
            store,
            states,
            grants: granted,
            replies: parts,
            ahead,
            turns: Arc::clone(&self.turns),
            metrics: self.metrics.clone(),
            stop: self.stop.clone(),
            request,
        };
        let published = Arc::clone(&self.published);
        self.tasks.spawn(async move {
            task.run().await;
            published.forget(request.loglet);
            drop(permit);
        });
        Ok(ReadStream { grants, replies })
    }

    fn open_store(self: &Arc<Self>) -> Result<StoreStream, RpcError> {
        if self.stop.is_cancelled() {
            return Err(RpcError::ShuttingDown);
        }
        let permit = self.admit(&self.streams)?;
        let (requests, received) = mpsc::channel(self.options.stream_requests);
        let (outgoing, replies) = mpsc::channel(self.options.stream_replies);
        let id = self.next_stream.fetch_add(1, Ordering::Relaxed);
        let peer = Arc::new(Peer { id, replies: outgoing, gone: self.stop.child_token() });
        let stream = StreamTask {
            disk: self.options.disk,
            room: Arc::clone(&self.room),
            queue_bytes: self.options.queue_bytes,
            stores: self.stores.clone(),
            peer,
        };
        self.tasks.spawn(async move {
            stream.run(received).await;
            drop(permit);
        });
        Ok(StoreStream { requests, replies })
    }

    fn admit(&self, limit: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, RpcError> {
        Arc::clone(limit).try_acquire_owned().map_err(|error| match error {
            TryAcquireError::NoPermits => RpcError::Overloaded,
            TryAcquireError::Closed => RpcError::ShuttingDown,
        })
    }

    fn refusing<T>(&self, outcome: Result<T, CopyError>) -> Result<T, CopyError> {
        outcome.inspect_err(|error| self.metrics.refused(*error))
    }

    fn overloaded(&self) -> CopyError {
        self.metrics.refused(CopyError::Overloaded);
        CopyError::Overloaded
    }
}

impl LogServer for LogServerHandle {
    fn open_store(&self) -> BoxFuture<'_, Result<StoreStream, RpcError>> {
        Box::pin(async { self.server.open_store() })
    }

    fn seal(&self, request: SealRequest) -> BoxFuture<'_, Result<CopyState, CallError>> {
        let SealRequest { loglet, disk, op } = request;
        Box::pin(self.server.call(loglet, disk, Call::Seal { op }))
    }

    fn state(&self, request: StateRequest) -> BoxFuture<'_, Result<CopyState, CallError>> {
        let StateRequest { loglet, disk } = request;
        Box::pin(async move {
            self.server.refusing(check_disk(disk, self.server.options.disk))?;
            if self.server.stop.is_cancelled() {
                return Err(RpcError::ShuttingDown.into());
            }
            // What is published is durable, and nothing that was answered before this call is missing in it.
            Ok(self.server.published.state(loglet))
        })
    }

    fn repair(&self, request: RepairRequest) -> BoxFuture<'_, Result<CopyState, CallError>> {
        Box::pin(self.server.repair(request))
    }

    fn settle(&self, request: SettleRequest) -> BoxFuture<'_, Result<CopyState, CallError>> {
        let SettleRequest { loglet, disk, op, decided_tail } = request;
        Box::pin(self.server.call(loglet, disk, Call::Settle { op, decided_tail }))
    }

    fn trim(&self, request: TrimRequest) -> BoxFuture<'_, Result<CopyState, CallError>> {
        let TrimRequest { loglet, disk, trim_point } = request;
        Box::pin(self.server.call(loglet, disk, Call::Trim { trim_point }))
    }

    fn read(&self, request: ReadRequest) -> BoxFuture<'_, Result<ReadStream, CallError>> {
        self.read_ahead(request, Ahead::uncounted())
    }

    fn read_ahead(&self, request: ReadRequest, ahead: Ahead) -> BoxFuture<'_, Result<ReadStream, CallError>> {
        Box::pin(async move { self.server.read(request, ahead) })
    }
}
