//! The appender: a queue in front, a task behind, and a ticket for each append.

mod driver;
mod look;
mod probe;
mod queue;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bifrost_types::limits::BATCH_BYTES_MAX;
use bifrost_types::{LogId, Lsn, Record, WriterId};
use bifrost_wire::batch::{BATCH_HEADER_BYTES, EncodeError, RECORD_HEADER_BYTES, encoded_bytes};
use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::cluster::fresh_writer;
use crate::error::{AppendError, NotAppended, ReserveError};
use crate::log_state::LogState;
use crate::options::AppenderOptions;

use self::driver::Driver;
use self::queue::{NotTaken, Queue};

/// Most bytes that keys take in a record.
const KEYS_BYTES: usize = 16;

/// What an append or a barrier waits for.
type Outcome<T> = oneshot::Sender<Result<T, AppendError>>;

/// Whom to tell, and the room that is given back then.
#[derive(Debug)]
enum Waiter {
    Append { outcome: Outcome<Lsn>, _room: OwnedSemaphorePermit },
    Barrier { outcome: Outcome<()> },
}

/// What handles and the task share.
#[derive(Debug)]
struct Shared {
    log: LogId,
    writer: WriterId,
    room: Arc<Semaphore>,
    bytes_max: usize,
    inbox: Mutex<Inbox>,
    /// Rung when something was put in the inbox.
    bell: Notify,
}

#[derive(Debug)]
struct Inbox {
    queue: Queue<Waiter>,
    /// Why nothing is taken any more.
    closed: Option<AppendError>,
    /// The first failure since the last barrier.
    failed: Option<AppendError>,
}

/// Appends records to one log, in order, with as many in flight as its options allow. Each appender is a writer of its
/// own; two appenders are not ordered with each other. Cheap to clone: clones share the writer and its order.
///
/// An append is sent at once. What is sent while others are on their way may share a batch with its neighbours, which
/// changes nothing but the cost: each append has its own outcome.
///
/// When the last clone is dropped, what was sent is still carried out in the background; a ticket tells the outcome.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let bifrost = bifrost::Bifrost::in_memory().await?;
/// # let log = bifrost.create_log("orders", bifrost::LogOptions::default()).await?;
/// let appender = log.appender();
/// let one = appender.reserve(5).await?.send("first");
/// let two = appender.reserve(6).await?.send("second");
/// assert!(one.await? < two.await?);
/// # bifrost.shutdown().await; Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct Appender {
    shared: Arc<Shared>,
    /// Tells the task that no handle is left.
    _alive: Arc<DropGuard>,
}

impl Appender {
    /// Starts the task of a new writer.
    pub(crate) fn start(state: Arc<LogState>, options: AppenderOptions) -> Self {
        let bytes_max =
            options.bytes_in_flight_max.clamp(BATCH_BYTES_MAX, Semaphore::MAX_PERMITS.min(u32::MAX as usize));
        let writer = fresh_writer();
        let shared = Arc::new(Shared {
            log: state.log,
            writer,
            room: Arc::new(Semaphore::new(bytes_max)),
            bytes_max,
            inbox: Mutex::new(Inbox { queue: Queue::new(writer), closed: None, failed: None }),
            bell: Notify::new(),
        });
        let dropped = CancellationToken::new();
        let cluster = state.cluster.clone();
        let driver = Driver::new(state, shared.clone(), options.give_up_after, dropped.clone());
        cluster.tasks.spawn(driver.run());
        Self { shared, _alive: Arc::new(dropped.drop_guard()) }
    }

    /// The log that is appended to.
    pub fn log(&self) -> LogId {
        self.shared.log
    }

    /// The identity of this writer; readers see it with each record.
    pub fn writer(&self) -> WriterId {
        self.shared.writer
    }

    /// Waits until there is room for one append whose payloads have at most `payload_bytes` bytes together: the
    /// back-pressure of the log.
    ///
    /// # Errors
    /// [`ReserveError::TooLarge`] for more than the appender may ever hold, [`ReserveError::Closed`] once it takes no
    /// more records.
    ///
    /// # Cancel safety
    /// Safe. Dropping the future gives up its place in the queue and nothing else.
    pub async fn reserve(&self, payload_bytes: usize) -> Result<Permit<'_>, ReserveError> {
        self.reserve_for(payload_bytes, 1).await
    }

    /// Like [`reserve`](Self::reserve), for a batch of up to `records` records.
    ///
    /// # Errors
    /// See [`reserve`](Self::reserve).
    ///
    /// # Cancel safety
    /// Safe. Dropping the future gives up its place in the queue and nothing else.
    pub async fn reserve_batch(&self, payload_bytes: usize, records: usize) -> Result<Permit<'_>, ReserveError> {
        self.reserve_for(payload_bytes, records).await
    }

    /// Appends one record and waits until it is on stable storage on a write quorum.
    ///
    /// # Errors
    /// [`AppendError`] says whether it is in the log.
    ///
    /// # Cancel safety
    /// Dropping the future before it has reserved room appends nothing; after that the append goes on and its outcome
    /// is not told. Use [`reserve`](Self::reserve) and [`Permit::send`] to tell the two apart.
    pub async fn append(&self, record: impl Into<Record>) -> Result<Lsn, AppendError> {
        let record = record.into();
        let permit = match self.reserve_for(record.payload.len(), 1).await {
            Ok(permit) => permit,
            Err(error) => return Err(self.refusal(error)),
        };
        permit.send(record).await
    }

    /// Appends records as one atomic batch: all of them, at contiguous LSNs, or none. Returns the LSN of the first; the
    /// i-th has that LSN + i.
    ///
    /// # Errors
    /// [`AppendError`] says whether they are in the log.
    ///
    /// # Cancel safety
    /// Like [`append`](Self::append).
    pub async fn append_batch(&self, records: Vec<Record>) -> Result<Lsn, AppendError> {
        let payload_bytes = records.iter().map(|record| record.payload.len()).fold(0, usize::saturating_add);
        let permit = match self.reserve_for(payload_bytes, records.len()).await {
            Ok(permit) => permit,
            Err(error) => return Err(self.refusal(error)),
        };
        permit.send_batch(records).await
    }

    /// Waits until everything that was sent before has an outcome.
    ///
    /// # Errors
    /// The first failure since the last barrier, if any append was not acknowledged.
    ///
    /// # Cancel safety
    /// Safe: it only waits. The failure is told to the next barrier then.
    pub async fn barrier(&self) -> Result<(), AppendError> {
        let (outcome, passed) = oneshot::channel();
        {
            let mut inbox = self.shared.inbox.lock();
            if let Some(closed) = inbox.closed {
                return Err(inbox.failed.take().unwrap_or(closed));
            }
            inbox.queue.push_barrier(Waiter::Barrier { outcome });
        }
        self.shared.bell.notify_one();
        match passed.await {
            Ok(outcome) => outcome,
            Err(_) => Err(AppendError::NotAppended { cause: NotAppended::ShutDown }),
        }
    }

    async fn reserve_for(&self, payload_bytes: usize, records: usize) -> Result<Permit<'_>, ReserveError> {
        let bytes_max = self.shared.bytes_max;
        let overhead = records.saturating_mul(RECORD_HEADER_BYTES + KEYS_BYTES).saturating_add(BATCH_HEADER_BYTES);
        let bytes = payload_bytes.saturating_add(overhead);
        let too_large = ReserveError::TooLarge { bytes, bytes_max };
        if bytes > bytes_max {
            return Err(too_large);
        }
        let bytes = u32::try_from(bytes).map_err(|_| too_large)?;
        let room = self.shared.room.clone().acquire_many_owned(bytes).await.map_err(|_| ReserveError::Closed)?;
        Ok(Permit { appender: self, payload_bytes, room })
    }

    fn refusal(&self, error: ReserveError) -> AppendError {
        match error {
            ReserveError::TooLarge { bytes, .. } => {
                AppendError::NotAppended { cause: EncodeError::BatchTooLarge { bytes }.into() }
            }
            ReserveError::Closed => self.shared.inbox.lock().closed.unwrap_or(SHUT_DOWN),
        }
    }
}

const SHUT_DOWN: AppendError = AppendError::NotAppended { cause: NotAppended::ShutDown };
const DELETED: AppendError = AppendError::NotAppended { cause: NotAppended::Deleted };

/// Room for one append. Dropping it gives the room back.
#[derive(Debug)]
#[must_use = "room is held until it is used or dropped"]
pub struct Permit<'a> {
    appender: &'a Appender,
    payload_bytes: usize,
    room: OwnedSemaphorePermit,
}

impl Permit<'_> {
    /// Sends one record. Does not wait; the order of calls is the order in the log.
    pub fn send(self, record: impl Into<Record>) -> Ticket {
        self.send_all(&[record.into()])
    }

    /// Sends records as one atomic batch at contiguous LSNs. Does not wait; the order of calls is the order in the log.
    pub fn send_batch(self, records: Vec<Record>) -> Ticket {
        self.send_all(&records)
    }

    fn send_all(self, records: &[Record]) -> Ticket {
        let (outcome, told) = oneshot::channel();
        let ticket = Ticket { told };
        let checked = self.check(records);
        let Self { appender, room, .. } = self;
        let shared = &appender.shared;
        let waiter = Waiter::Append { outcome, _room: room };
        let mut inbox = shared.inbox.lock();
        // Encoded under the lock, since appends share a batch and their sequence numbers are in the order of the queue.
        let refused = match checked.err().or(inbox.closed) {
            Some(error) => Some((error, waiter)),
            None => inbox.queue.push(crate::clock::now_millis(), records, waiter).err().map(|not_taken| {
                let NotTaken { error, ticket } = not_taken;
                (AppendError::NotAppended { cause: error.into() }, ticket)
            }),
        };
        match refused {
            None => {
                drop(inbox);
                shared.bell.notify_one();
            }
            Some((error, waiter)) => {
                inbox.failed.get_or_insert(error);
                if let Waiter::Append { outcome, .. } = waiter {
                    let _gone = outcome.send(Err(error));
                }
            }
        }
        ticket
    }

    fn check(&self, records: &[Record]) -> Result<(), AppendError> {
        let needed = records.iter().map(|record| record.payload.len()).fold(0, usize::saturating_add);
        if needed > self.payload_bytes || encoded_bytes(records) > self.room.num_permits() {
            let cause = NotAppended::BeyondReservation { reserved: self.payload_bytes, needed };
            return Err(AppendError::NotAppended { cause });
        }
        Ok(())
    }
}

/// Resolves to the LSN of the append's first record once it is acknowledged. Dropping it does not undo the append.
#[derive(Debug)]
#[must_use = "a ticket tells the outcome of an append"]
pub struct Ticket {
    told: oneshot::Receiver<Result<Lsn, AppendError>>,
}

impl Future for Ticket {
    type Output = Result<Lsn, AppendError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        // The task tells every waiter before it ends; a closed channel means that the runtime went away under it.
        Pin::new(&mut self.told).poll(context).map(|told| told.unwrap_or(Err(SHUT_DOWN)))
    }
}

#[cfg(test)]
mod tests;
