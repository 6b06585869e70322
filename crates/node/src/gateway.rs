//! The door for clients in any language: the service of logs over this node's own [`Bifrost`].
//!
//! ```text
//!  thin client ═► LogsGrpc ─► Gateway ─┬─► Shelf: open logs, one appender each, while they are used
//!                                      ├─► stream task, with an appender of its own, for each append stream
//!                                      └─► Reader, polled by the response, for each read
//! ```
//!
//! Everything is bounded: open logs, append streams, reads, bytes on their way in. Full is an answer (`Overloaded`), and
//! every wait ends with [`GatewayOptions::request_deadline`] or sooner. It decides nothing: outcomes are those of the log.
//!
//! Reading order: [`GatewayOptions`], [`Gateway`], `shelf` (which logs are kept open), `append` (one batch, and streams),
//! `read`, `refusal` (what the errors of a log are called outside).

mod append;
mod read;
mod refusal;
mod shelf;

use std::num::NonZeroUsize;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bifrost::{Appender, AppenderOptions, Bifrost, Log, LogOptions, Resolved, TailKind as LogTailKind};
use bifrost_types::{AppendId, LogId, Lsn};
use bifrost_wire::RpcError;
use bifrost_wire::logs::{
    AppendOutcome, AppendRecords, CreateLog, ListLogs, LogAppends, LogDescription, LogEvents, LogPage, LogRef,
    LogRefusal, LogSummary, LogTail, Logs, LogsError, ReadLog, ResolvedAppend, TailKind,
};
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::refusal::{of_catalog, of_log, of_resolve};
use self::shelf::Shelf;

/// Limits of a node's door for thin clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewayOptions {
    /// Logs that are kept open with an appender for requests that come alone. Default 256; beyond it the one that was not
    /// used for the longest time is closed.
    pub open_logs_max: NonZeroUsize,
    /// Time after which an unused log is closed. Default 60 s: a client that appends once a minute finds it open.
    pub idle_after: Duration,
    /// Append streams that are open at once. Default 256: each has an appender, and with it a stream to a sequencer.
    pub append_streams_max: NonZeroUsize,
    /// Batches of one append stream that are sent and not answered. Default 256; more wait at the client.
    pub stream_batches_max: NonZeroUsize,
    /// Reads that are open at once. Default 1,024: a reader that never reads costs [`Self::read_credit_bytes`] and one
    /// response.
    pub reads_max: NonZeroUsize,
    /// Bytes that one read has fetched ahead of its client. Default 256 KiB: all reads together stay at 256 MiB when nobody
    /// takes anything, and one of them still gets 250 MB/s over a millisecond.
    pub read_credit_bytes: NonZeroUsize,
    /// Bytes of batches that came alone and have no outcome yet. Default 64 MiB; beyond it appends are refused as
    /// overloaded. At least twice the largest batch, 32 MiB; less counts as that.
    pub append_bytes_max: usize,
    /// Bytes of batches of all streams that have no outcome yet. Default 64 MiB; beyond it streams wait. At least 32 MiB;
    /// less counts as that.
    pub stream_bytes_max: usize,
    /// How long a log may go without progress before an append is given up as not appended or unknown. Default 10 s: longer
    /// than a failover, and below the deadline, so that an unknown append gets its id.
    pub give_up_after: Duration,
    /// Longest time for one request. Default 20 s: below the listener's own limit of 30 s, so that the answer is ours.
    pub request_deadline: Duration,
    /// Time that appends under way get to end when the node stops. Default 500 ms: a healthy one takes a few; the others
    /// are told that they were not appended, or that their outcome is unknown.
    pub drain: Duration,
}

const fn count(value: usize) -> NonZeroUsize {
    NonZeroUsize::new(value).expect("not 0")
}

impl Default for GatewayOptions {
    fn default() -> Self {
        Self {
            open_logs_max: count(256),
            idle_after: Duration::from_secs(60),
            append_streams_max: count(256),
            stream_batches_max: count(256),
            reads_max: count(1024),
            read_credit_bytes: count(256 << 10),
            append_bytes_max: 64 << 20,
            stream_bytes_max: 64 << 20,
            give_up_after: Duration::from_secs(10),
            request_deadline: Duration::from_secs(20),
            drain: Duration::from_millis(500),
        }
    }
}

/// A log that is kept open.
#[derive(Debug)]
struct OpenLog {
    log: Log,
    options: AppenderOptions,
    appender: OnceLock<Appender>,
}

impl OpenLog {
    /// The one appender of all batches that come alone.
    fn appender(&self) -> &Appender {
        self.appender.get_or_init(|| self.log.appender_with(self.options.clone()))
    }
}

/// The logs of the cluster, through this node. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Gateway {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    bifrost: Bifrost,
    options: GatewayOptions,
    shelf: Mutex<Shelf<Arc<OpenLog>>>,
    append_room: Arc<Semaphore>,
    stream_room: Arc<Semaphore>,
    streams: Arc<Semaphore>,
    reads: Arc<Semaphore>,
    /// Appends under way, the tasks of streams, and the one that closes unused logs.
    tasks: TaskTracker,
    /// Nothing new is begun.
    closing: CancellationToken,
    /// What is still under way is dropped.
    closed: CancellationToken,
}

impl Gateway {
    /// Opens the door to the logs of `bifrost`, which the gateway shuts down in the end.
    pub fn start(bifrost: Bifrost, options: GatewayOptions) -> Self {
        let shared = Arc::new(Shared {
            bifrost,
            shelf: Mutex::new(Shelf::new(options.open_logs_max)),
            append_room: Arc::new(Semaphore::new(append::room_for(options.append_bytes_max))),
            stream_room: Arc::new(Semaphore::new(append::room_for(options.stream_bytes_max))),
            streams: Arc::new(Semaphore::new(options.append_streams_max.get())),
            reads: Arc::new(Semaphore::new(options.reads_max.get())),
            tasks: TaskTracker::new(),
            closing: CancellationToken::new(),
            closed: CancellationToken::new(),
            options,
        });
        let closing = shared.closing.clone();
        let tidying = tidy(shared.clone());
        shared.tasks.spawn(async move {
            let _stopped = closing.run_until_cancelled_owned(tidying).await;
        });
        Self { shared }
    }

    /// Takes nothing more, lets appends under way end for a moment, tells the others their outcome, and shuts the
    /// [`Bifrost`] down.
    ///
    /// # Cancel safety
    /// Safe: nothing new is taken; call again to go on.
    pub async fn shutdown(&self) {
        let Shared { tasks, closing, closed, bifrost, options, .. } = &*self.shared;
        closing.cancel();
        tasks.close();
        // Whether they ended by themselves or not, they end now.
        let _drained = timeout(options.drain, tasks.wait()).await;
        // Every ticket has an outcome after this; streams tell it to clients that read.
        bifrost.shutdown().await;
        let _told = timeout(options.drain, tasks.wait()).await;
        closed.cancel();
        tasks.wait().await;
        self.shared.shelf.lock().clear();
    }

    /// Carries out a request that is not an append, within its deadline.
    async fn answer<T>(&self, request: impl Future<Output = Result<T, LogsError>>) -> Result<T, LogsError> {
        if self.shared.closing.is_cancelled() {
            return Err(RpcError::ShuttingDown.into());
        }
        match timeout(self.shared.options.request_deadline, request).await {
            Ok(answer) => answer,
            Err(_) => Err(RpcError::DeadlinePassed.into()),
        }
    }
}

impl Shared {
    /// The id of a log. A name is looked up each time: it may belong to another log since.
    async fn id_of(&self, log: &LogRef) -> Result<LogId, LogsError> {
        match log {
            LogRef::Id(id) => Ok(*id),
            LogRef::Name(name) => {
                let found = self.bifrost.catalog().log_id(name).await.map_err(of_catalog)?;
                Ok(found.ok_or(LogRefusal::UnknownLog)?)
            }
        }
    }

    /// A log that is kept open, or opened now.
    async fn open(&self, log: &LogRef) -> Result<Arc<OpenLog>, LogsError> {
        let id = self.id_of(log).await?;
        if let Some(open) = self.shelf.lock().by_id(id, Instant::now()) {
            return Ok(open);
        }
        let found = self.bifrost.log_by_id(id).await.map_err(of_log)?;
        let options = AppenderOptions { give_up_after: self.options.give_up_after, ..AppenderOptions::default() };
        let open = Arc::new(OpenLog { log: found, options, appender: OnceLock::new() });
        let name = match log {
            LogRef::Name(name) => Some(name.clone()),
            LogRef::Id(_) => None,
        };
        Ok(self.shelf.lock().put(id, name, open, Instant::now()))
    }

    /// Like [`open`](Self::open), but believes a name that it knows. Only for appends: one to a log that was deleted since
    /// says so, and is not made.
    async fn open_known(&self, log: &LogRef) -> Result<Arc<OpenLog>, LogsError> {
        if let LogRef::Name(name) = log
            && let Some(open) = self.shelf.lock().by_name(name, Instant::now())
        {
            return Ok(open);
        }
        self.open(log).await
    }

    /// Makes the next request look the log up anew.
    fn forget(&self, open: &OpenLog) {
        self.shelf.lock().remove(open.log.id());
    }

    /// Forgets a log that turned out to be gone.
    fn unless_gone<T>(&self, open: &OpenLog, answer: Result<T, LogsError>) -> Result<T, LogsError> {
        if answer.as_ref().err() == Some(&LogsError::Refused(LogRefusal::UnknownLog)) {
            self.forget(open);
        }
        answer
    }

    async fn create(&self, request: CreateLog) -> Result<LogDescription, LogsError> {
        let options = LogOptions { replication: request.replication, ..LogOptions::default() };
        let made = match &request.name {
            Some(name) => self.bifrost.create_log(name, options).await,
            None => self.bifrost.create_unnamed_log(options).await,
        };
        Ok(made.map_err(of_log)?.chain().into())
    }

    async fn get(&self, log: &LogRef) -> Result<LogDescription, LogsError> {
        let id = self.id_of(log).await?;
        let stored = self.bifrost.catalog().chain(id).await.map_err(of_catalog)?;
        Ok(stored.chain.into())
    }

    async fn list(&self, request: ListLogs) -> Result<LogPage, LogsError> {
        let wanted = request.page_size.get();
        let mut logs: Vec<LogSummary> = Vec::new();
        let mut after = request.after;
        // A page of the store may be cut short by its bytes; an empty one says that there are no more.
        while let Some(missing) = wanted.checked_sub(logs.len()).filter(|missing| *missing > 0) {
            let chains = self.bifrost.catalog().logs(after, missing).await.map_err(of_catalog)?;
            let Some(last) = chains.last() else { return Ok(LogPage { logs, next_after: None }) };
            after = Some(last.chain.log);
            logs.extend(chains.iter().map(|stored| LogSummary::from(&stored.chain)));
        }
        Ok(LogPage { logs, next_after: after })
    }

    async fn delete(&self, log: &LogRef) -> Result<LogId, LogsError> {
        let id = self.id_of(log).await?;
        self.bifrost.delete_log(id).await.map_err(of_log)?;
        self.shelf.lock().remove(id);
        Ok(id)
    }

    async fn find_tail(&self, log: &LogRef, kind: TailKind) -> Result<LogTail, LogsError> {
        let open = self.open(log).await?;
        let asked = match kind {
            TailKind::Cached => LogTailKind::Cached,
            TailKind::Linearizable => LogTailKind::Linearizable,
        };
        let tail = open.log.find_tail(asked).await.map_err(of_log);
        Ok(LogTail { lsn: self.unless_gone(&open, tail)?.lsn, kind })
    }

    async fn trim(&self, log: &LogRef, up_to: Lsn) -> Result<Lsn, LogsError> {
        let open = self.open(log).await?;
        let trimmed = open.log.trim(up_to).await.map_err(of_log);
        self.unless_gone(&open, trimmed)
    }

    async fn resolve(&self, append: AppendId) -> Result<ResolvedAppend, LogsError> {
        let open = self.open(&LogRef::Id(append.log)).await?;
        let resolved = open.log.resolve(append).await.map_err(of_resolve);
        Ok(match self.unless_gone(&open, resolved)? {
            Resolved::Committed(first_lsn) => match append::committed(first_lsn, append.records.get()) {
                Some(at) => ResolvedAppend::Committed(at),
                None => ResolvedAppend::Unknowable,
            },
            Resolved::NotAppended => ResolvedAppend::Absent,
            Resolved::Unknowable => ResolvedAppend::Unknowable,
        })
    }
}

/// Closes logs that nobody uses.
async fn tidy(shared: Arc<Shared>) {
    let idle_after = shared.options.idle_after;
    loop {
        sleep(idle_after).await;
        let idle = shared.shelf.lock().take_idle(Instant::now(), idle_after);
        drop(idle);
    }
}

impl Logs for Gateway {
    fn create(&self, request: CreateLog) -> BoxFuture<'_, Result<LogDescription, LogsError>> {
        Box::pin(self.answer(self.shared.create(request)))
    }

    fn get(&self, log: LogRef) -> BoxFuture<'_, Result<LogDescription, LogsError>> {
        Box::pin(async move { self.answer(self.shared.get(&log)).await })
    }

    fn list(&self, request: ListLogs) -> BoxFuture<'_, Result<LogPage, LogsError>> {
        Box::pin(self.answer(self.shared.list(request)))
    }

    fn delete(&self, log: LogRef) -> BoxFuture<'_, Result<LogId, LogsError>> {
        Box::pin(async move { self.answer(self.shared.delete(&log)).await })
    }

    fn append(&self, request: AppendRecords) -> BoxFuture<'_, Result<AppendOutcome, RpcError>> {
        Box::pin(self.shared.tasks.track_future(append::one(&self.shared, request)))
    }

    fn open_append(&self, log: LogRef) -> BoxFuture<'_, Result<LogAppends, LogsError>> {
        Box::pin(async move { self.answer(append::stream(&self.shared, log)).await })
    }

    fn read(&self, request: ReadLog) -> BoxFuture<'_, Result<LogEvents, LogsError>> {
        Box::pin(self.answer(read::open(&self.shared, request)))
    }

    fn find_tail(&self, log: LogRef, kind: TailKind) -> BoxFuture<'_, Result<LogTail, LogsError>> {
        Box::pin(async move { self.answer(self.shared.find_tail(&log, kind)).await })
    }

    fn trim(&self, log: LogRef, up_to: Lsn) -> BoxFuture<'_, Result<Lsn, LogsError>> {
        Box::pin(async move { self.answer(self.shared.trim(&log, up_to)).await })
    }

    fn resolve(&self, append: AppendId) -> BoxFuture<'_, Result<ResolvedAppend, LogsError>> {
        Box::pin(self.answer(self.shared.resolve(append)))
    }
}
