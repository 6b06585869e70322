//! Appending: batches that come alone, over the shared appender of their log, and streams, each over its own.

use std::sync::Arc;

use bifrost::{AppendError, Appender, AppenderOptions, NotAppended as Cause, ReserveError, Ticket};
use bifrost_types::limits::BATCH_BYTES_MAX;
use bifrost_types::{Lsn, Record};
use bifrost_wire::RpcError;
use bifrost_wire::batch::EncodeError;
use bifrost_wire::logs::{
    AppendOutcome, AppendRecords, CommittedAt, LogAppends, LogRef, LogRefusal, LogsError, NewRecord, NotAppended, check,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Instant, timeout_at};

use super::Shared;

/// What a record may take of a batch besides its payload, rounded up.
const RECORD_OVERHEAD_BYTES: usize = 64;

/// Permits for so many bytes: at least the largest batch, and what one batch asks for fits a number of permits.
pub(super) fn room_for(bytes: usize) -> usize {
    bytes.clamp(2 * BATCH_BYTES_MAX, Semaphore::MAX_PERMITS.min(u32::MAX as usize))
}

/// A batch that passed its check.
struct Checked {
    records: Vec<Record>,
    payload_bytes: usize,
    /// Of the gateway's room. Below twice the largest batch, because the check bounds the encoded batch.
    room: u32,
}

impl Checked {
    fn of(records: Vec<NewRecord>) -> Result<Self, NotAppended> {
        check(&records)?;
        let payload_bytes = records.iter().map(|new| new.record.payload.len()).sum::<usize>();
        let bytes = payload_bytes + records.len() * RECORD_OVERHEAD_BYTES;
        let room = u32::try_from(bytes.min(2 * BATCH_BYTES_MAX)).expect("twice a batch is below 4 GiB by its limit");
        let records = records.into_iter().map(|new| new.record).collect();
        Ok(Self { records, payload_bytes, room })
    }

    fn count(&self) -> u32 {
        u32::try_from(self.records.len()).expect("a checked batch has at most 2^16 records")
    }
}

/// Where a batch is whose first record is at `first_lsn`.
pub(super) fn committed(first_lsn: Lsn, records: u32) -> Option<CommittedAt> {
    let last_lsn = first_lsn.advance(u64::from(records).checked_sub(1)?).ok()?;
    Some(CommittedAt { first_lsn, last_lsn })
}

fn outcome(result: Result<Lsn, AppendError>, records: u32) -> AppendOutcome {
    match result {
        // A log ends long before its positions do; if it did not, nobody could say where this batch ends.
        Ok(first_lsn) => committed(first_lsn, records).map_or(AppendOutcome::Unknown(None), AppendOutcome::Committed),
        Err(AppendError::NotAppended { cause }) => AppendOutcome::NotAppended(not_appended(cause)),
        Err(AppendError::Unknown { id }) => AppendOutcome::Unknown(Some(id)),
        Err(AppendError::Closed { .. }) => AppendOutcome::NotAppended(LogRefusal::Closed.into()),
    }
}

fn not_appended(cause: Cause) -> NotAppended {
    match cause {
        // The check has refused these by name before; what is left is a writer that ran out of numbers.
        Cause::Encode(EncodeError::BatchTooLarge { bytes }) => {
            NotAppended::BatchTooLarge { bytes: u64::try_from(bytes).unwrap_or(u64::MAX) }
        }
        Cause::Encode(_) | Cause::BeyondReservation { .. } => NotAppended::NoProgress,
        Cause::NoProgress | Cause::ShutDown => NotAppended::NoProgress,
        Cause::DiskFull => NotAppended::DiskFull,
        Cause::Exhausted => LogRefusal::Exhausted.into(),
        Cause::Deleted => LogRefusal::UnknownLog.into(),
    }
}

const NO_PROGRESS: AppendOutcome = AppendOutcome::NotAppended(NotAppended::NoProgress);
const GONE: AppendOutcome = AppendOutcome::NotAppended(NotAppended::Refused(LogRefusal::UnknownLog));

/// Appends one batch that came alone.
pub(super) async fn one(shared: &Shared, request: AppendRecords) -> Result<AppendOutcome, RpcError> {
    if shared.closing.is_cancelled() {
        return Err(RpcError::ShuttingDown);
    }
    let appended = shared.closed.run_until_cancelled(within_room(shared, request)).await;
    appended.unwrap_or(Err(RpcError::Unreachable))
}

async fn within_room(shared: &Shared, request: AppendRecords) -> Result<AppendOutcome, RpcError> {
    let AppendRecords { log, records } = request;
    let batch = match Checked::of(records) {
        Ok(batch) => batch,
        Err(cause) => return Ok(AppendOutcome::NotAppended(cause)),
    };
    // Not a wait: whoever has to wait holds the memory of the batch meanwhile.
    let _room = shared.append_room.try_acquire_many(batch.room).map_err(|_| RpcError::Overloaded)?;
    let deadline = Instant::now() + shared.options.request_deadline;
    let first = attempt(shared, &log, &batch, deadline).await?;
    match (&log, &first) {
        // The name that was known may be another log's by now: look it up, once.
        (LogRef::Name(_), outcome) if *outcome == GONE => attempt(shared, &log, &batch, deadline).await,
        _ => Ok(first),
    }
}

async fn attempt(shared: &Shared, log: &LogRef, batch: &Checked, deadline: Instant) -> Result<AppendOutcome, RpcError> {
    let open = match timeout_at(deadline, shared.open_known(log)).await {
        Ok(Ok(open)) => open,
        Ok(Err(LogsError::Refused(refusal))) => return Ok(AppendOutcome::NotAppended(refusal.into())),
        Ok(Err(LogsError::Rpc(error))) => return Err(error),
        Err(_) => return Ok(NO_PROGRESS),
    };
    let appender = open.appender();
    let result = match timeout_at(deadline, send(appender, batch.records.clone(), batch.payload_bytes)).await {
        // Nothing was sent.
        Err(_) => return Ok(NO_PROGRESS),
        Ok(Err(closed)) => Err(closed),
        Ok(Ok(ticket)) => match timeout_at(deadline, ticket).await {
            Ok(result) => result,
            Err(_) => return Ok(AppendOutcome::Unknown(None)),
        },
    };
    if result.as_ref().is_err_and(is_last) {
        // The appender takes nothing any more; the next request gets another one, or is told why there is none.
        shared.forget(&open);
    }
    Ok(outcome(result, batch.count()))
}

/// Whether an appender that says so takes nothing any more.
const fn is_last(error: &AppendError) -> bool {
    match error {
        AppendError::Closed { .. } => true,
        AppendError::NotAppended { cause } => matches!(cause, Cause::Deleted | Cause::ShutDown),
        AppendError::Unknown { .. } => false,
    }
}

/// Waits for room and sends. Cancelled before it ends, nothing was sent.
async fn send(appender: &Appender, records: Vec<Record>, payload_bytes: usize) -> Result<Ticket, AppendError> {
    match appender.reserve_batch(payload_bytes, records.len()).await {
        Ok(permit) => Ok(permit.send_batch(records)),
        Err(ReserveError::TooLarge { bytes, .. }) => {
            Err(AppendError::NotAppended { cause: EncodeError::BatchTooLarge { bytes }.into() })
        }
        // It says why at once.
        Err(ReserveError::Closed) => match appender.append_batch(records).await {
            Err(closed) => Err(closed),
            Ok(_) => Err(AppendError::NotAppended { cause: Cause::ShutDown }),
        },
    }
}

/// Opens a stream of appends.
pub(super) async fn stream(shared: &Arc<Shared>, log: LogRef) -> Result<LogAppends, LogsError> {
    let place = shared.streams.clone().try_acquire_owned().map_err(|_| RpcError::Overloaded)?;
    let open = shared.open(&log).await?;
    let options = AppenderOptions { give_up_after: shared.options.give_up_after, ..AppenderOptions::default() };
    // One batch waits here; more wait at the client.
    let (requests, taken) = mpsc::channel(1);
    let (answers, replies) = mpsc::channel(shared.options.stream_batches_max.get());
    let log = open.log.id();
    let appender = open.log.appender_with(options);
    let serving = Serving { shared: shared.clone(), appender, _place: place };
    let closed = shared.closed.clone();
    shared.tasks.spawn(async move {
        let _dropped = closed.run_until_cancelled_owned(serving.run(taken, answers)).await;
    });
    Ok(LogAppends { log, requests, replies })
}

/// A batch of a stream whose answer is due.
enum Due {
    Sent { ticket: Ticket, records: u32, _room: OwnedSemaphorePermit },
    Known(AppendOutcome),
}

/// The task of one stream.
struct Serving {
    shared: Arc<Shared>,
    appender: Appender,
    _place: OwnedSemaphorePermit,
}

impl Serving {
    /// Sends and answers until the client is done or gone, or the node stops. What was taken is answered in any case, in
    /// order; so what was not answered when the stream ends with [`RpcError::ShuttingDown`] was not appended.
    async fn run(
        self,
        requests: mpsc::Receiver<Vec<NewRecord>>,
        replies: mpsc::Sender<Result<AppendOutcome, RpcError>>,
    ) {
        let (due, waiting) = mpsc::channel(self.shared.options.stream_batches_max.get());
        let sending = self.send_all(requests, due);
        let answering = answer_all(waiting, &replies);
        let both = async { tokio::join!(sending, answering).0 };
        tokio::select! {
            biased;
            () = replies.closed() => {}
            stopped = both => {
                if let Err(error) = stopped {
                    let _gone = replies.send(Err(error)).await;
                }
            }
        }
    }

    /// Ends when the client is done, or with the reason why nothing more is taken.
    async fn send_all(
        &self,
        mut requests: mpsc::Receiver<Vec<NewRecord>>,
        due: mpsc::Sender<Due>,
    ) -> Result<(), RpcError> {
        loop {
            let next = async {
                let records = requests.recv().await?;
                Some(self.send_one(records).await)
            };
            let sent = tokio::select! {
                biased;
                () = self.shared.closing.cancelled() => return Err(RpcError::ShuttingDown),
                sent = next => sent,
            };
            let Some(sent) = sent else { return Ok(()) };
            if due.send(sent).await.is_err() {
                return Ok(());
            }
        }
    }

    /// Cancelled before it ends, nothing was sent.
    async fn send_one(&self, records: Vec<NewRecord>) -> Due {
        let batch = match Checked::of(records) {
            Ok(batch) => batch,
            Err(cause) => return Due::Known(AppendOutcome::NotAppended(cause)),
        };
        let Ok(room) = self.shared.stream_room.clone().acquire_many_owned(batch.room).await else {
            return Due::Known(NO_PROGRESS);
        };
        let records = batch.count();
        match send(&self.appender, batch.records, batch.payload_bytes).await {
            Ok(ticket) => Due::Sent { ticket, records, _room: room },
            Err(closed) => Due::Known(outcome(Err(closed), records)),
        }
    }
}

async fn answer_all(mut waiting: mpsc::Receiver<Due>, replies: &mpsc::Sender<Result<AppendOutcome, RpcError>>) {
    while let Some(due) = waiting.recv().await {
        let outcome = match due {
            Due::Known(outcome) => outcome,
            Due::Sent { ticket, records, _room } => outcome(ticket.await, records),
        };
        if replies.send(Ok(outcome)).await.is_err() {
            return;
        }
    }
}
