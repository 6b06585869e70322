//! The programs of users and operators: they append, follow, ask for tails, trim and reconfigure, and write down what they
//! were told.

use std::time::Duration;

use bifrost::{
    AppendError, AppenderOptions, Bifrost, GapKind, Log, LogOptions, LogRecord, Lsn, ReadError, ReadEvent, ReadOptions,
    ReconfigureOptions, Reconfigured, Resolved, TailKind,
};
use bifrost_checker::event::{AppendOutcome, AppenderId, Event, Gap, ReaderId, ReconfigureOutcome};
use bifrost_types::{LogId, ReplicationProperty};
use futures_util::future::{BoxFuture, join_all};
use futures_util::stream::{FuturesUnordered, StreamExt};
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::time::{sleep, timeout};

use crate::control::{Control, Stage};
use crate::history::{History, value_of};
use crate::plan::Work;

/// The longest that an append may go without progress of its log, for appenders that are patient.
const GIVE_UP_AFTER: Duration = Duration::from_secs(40);
/// After this a client stops waiting for an answer, as people do.
const PATIENCE: Duration = Duration::from_secs(25);

/// One client process.
#[derive(Debug, Clone)]
pub struct Client {
    /// Its host.
    pub host: String,
    /// Its place among the clients, from 0.
    pub place: usize,
    /// Its way into the cluster.
    pub bifrost: Bifrost,
    /// The run.
    pub control: Control,
    /// What it writes down.
    pub history: History,
    /// What it does.
    pub work: Work,
    /// How often it scans each log at the end.
    pub scans: u8,
    /// Where its randomness begins.
    pub seed: u64,
}

impl Client {
    /// Makes the logs of the run. Repeats what fails: the cluster may just be starting.
    pub async fn make_logs(&self, replication: Option<ReplicationProperty>) {
        let mut logs = Vec::new();
        for number in 1..=self.work.logs {
            let name = format!("log-{number}");
            let options = LogOptions { replication: replication.clone(), ..LogOptions::default() };
            let log = loop {
                match self.bifrost.open_log(&name, options.clone()).await {
                    Ok(log) => break log,
                    Err(error) => {
                        self.history.note(format!("{name} is not made yet: {error}"));
                        sleep(Duration::from_millis(200)).await;
                    }
                }
            };
            logs.push(log.id());
        }
        self.control.set_logs(logs);
    }

    /// Waits until that many nodes serve, so that the first segments can be spread over all of them.
    pub async fn nodes_are_there(&self, count: usize) {
        while self.control.alive().len() < count || self.bifrost.nodes().len() < count {
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Works until the faults are over, then lets everything end.
    pub async fn work(&self) {
        let logs = self.control.logs().await;
        self.control.reached(Stage::Work).await;
        let mut actors: Vec<BoxFuture<'_, ()>> = Vec::new();
        for (place, id) in logs.iter().enumerate() {
            let Some(log) = self.open(*id).await else { continue };
            let mut turn = self.place;
            // The actors of a kind are spread over the clients.
            let mut mine = |count: u8| {
                turn += 1;
                (0..usize::from(count)).filter(move |number| (number + turn).is_multiple_of(2))
            };
            for number in mine(self.work.appenders) {
                actors.push(Box::pin(self.append(log.clone(), place, number)));
            }
            for number in mine(self.work.readers) {
                actors.push(Box::pin(self.follow(log.clone(), number)));
            }
            for number in mine(self.work.operators) {
                actors.push(Box::pin(self.reconfigure(log.clone(), number)));
            }
            actors.push(Box::pin(self.ask_for_tails(log.clone(), place)));
            if place % 2 == self.place % 2 {
                actors.push(Box::pin(self.trim(log.clone())));
            }
        }
        join_all(actors).await;
    }

    /// What must be possible after the heal, from a process that saw nothing of the past.
    pub async fn probe(&self) {
        let logs = self.control.logs().await;
        let probes = logs.into_iter().map(|id| async move {
            let open = self.control.begin(&self.host, "probe");
            let Some(log) = self.open(id).await else { return };
            self.tail(&log, None).await;
            self.append_one(&log.appender_with(appender_options()), self.control.appender(), id, 64, false).await;
            // What is scanned now is for ever: nobody appends any more.
            while self.control.open_of("appender") > 0 {
                sleep(Duration::from_millis(20)).await;
            }
            if let Some(tail) = self.tail(&log, None).await {
                self.control.set_final_tail(id, tail);
                // Readers take turns among the copies: with so many, each copy is read.
                join_all((0..self.scans).map(|_| self.read(&log, Lsn::FIRST, Some(tail)))).await;
            }
            drop(open);
        });
        join_all(probes).await;
    }

    fn random(&self, what: u64) -> SmallRng {
        let salt = what.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(self.place as u64);
        // A client that was restarted does something else.
        SmallRng::seed_from_u64(self.seed ^ salt ^ crate::interpose::now_micros())
    }

    async fn open(&self, id: LogId) -> Option<Log> {
        loop {
            match self.bifrost.log_by_id(id).await {
                Ok(log) => return Some(log),
                Err(error) => {
                    self.history.note(format!("{} cannot open log {id}: {error}", self.host));
                    if self.control.stage() == Stage::Over {
                        return None;
                    }
                    sleep(Duration::from_millis(200)).await;
                }
            }
        }
    }

    /// A pause of about `mean_ms`; `false` when the work is over or was over before.
    async fn pause(&self, random: &mut SmallRng, mean_ms: u32) -> bool {
        let millis = random.random_range(1..=u64::from(mean_ms).saturating_mul(2).max(1));
        tokio::select! {
            biased;
            () = self.control.reached(Stage::Dark) => false,
            () = sleep(Duration::from_millis(millis)) => true,
        }
    }

    async fn append(&self, log: Log, place: usize, number: usize) {
        let open = self.control.begin(&self.host, "appender");
        let mut random = self.random(100 + number as u64 + 10 * log.id().get());
        let mut patience = self.random(600 + number as u64 + 10 * log.id().get());
        let mut bursts = self.random(700 + number as u64 + 10 * log.id().get());
        let give_up_after = match patience.random_range(0..2) {
            0 => GIVE_UP_AFTER,
            _ => Duration::from_millis(patience.random_range(500..5_000)),
        };
        let appender = log.appender_with(AppenderOptions { give_up_after, ..AppenderOptions::default() });
        let name = self.control.appender();
        let mut waiting = FuturesUnordered::new();
        let idle_from = (place == 0 && self.work.idle_from_ms > 0).then_some(self.work.idle_from_ms);
        let started = tokio::time::Instant::now();
        loop {
            let room = waiting.len() < usize::from(self.work.in_flight.max(1));
            tokio::select! {
                biased;
                Some(()) = waiting.next(), if !waiting.is_empty() => {}
                more = self.pause(&mut random, self.work.append_every_ms), if room => {
                    let idle = idle_from.is_some_and(|from| started.elapsed() >= Duration::from_millis(u64::from(from)));
                    if !more || idle {
                        break;
                    }
                    let bytes = if random.random_ratio(1, 20) { 20_000 } else { random.random_range(24..200) };
                    let resolve = random.random_bool(0.7);
                    waiting.push(self.append_one(&appender, name, log.id(), bytes, resolve));
                    // What is sent in one go shares a batch.
                    let burst = if bursts.random_ratio(1, 8) { bursts.random_range(1..6) } else { 0 };
                    for _ in 0..burst {
                        let (bytes, resolve) = (bursts.random_range(24..200), bursts.random_bool(0.7));
                        waiting.push(self.append_one(&appender, name, log.id(), bytes, resolve));
                    }
                }
            }
        }
        while waiting.next().await.is_some() {}
        drop(open);
    }

    /// One append and its outcome, asked for once more if it is unknown.
    async fn append_one(
        &self,
        appender: &bifrost::Appender,
        name: AppenderId,
        log: LogId,
        bytes: usize,
        resolve: bool,
    ) {
        let call = self.control.call();
        let mut payload = format!("{}#", call.0).into_bytes();
        payload.resize(bytes.max(payload.len()), b'.');
        self.history.record(Event::AppendInvoked { call, appender: name, log, value: value_of(&payload) });
        let outcome = match appender.append(payload).await {
            Ok(lsn) => AppendOutcome::Committed(lsn),
            Err(AppendError::NotAppended { .. } | AppendError::Closed { .. }) => AppendOutcome::NotAppended,
            Err(AppendError::Unknown { id }) if resolve => match self.bifrost.log_by_id(log).await {
                Ok(log) => match timeout(PATIENCE, log.resolve(id)).await {
                    Ok(Ok(Resolved::Committed(lsn))) => AppendOutcome::Committed(lsn),
                    Ok(Ok(Resolved::NotAppended)) => AppendOutcome::NotAppended,
                    _ => AppendOutcome::Unknown,
                },
                Err(_) => AppendOutcome::Unknown,
            },
            Err(AppendError::Unknown { .. }) => AppendOutcome::Unknown,
        };
        self.history.record(Event::AppendEnded { call, outcome });
    }

    async fn ask_for_tails(&self, log: Log, place: usize) {
        if self.work.tail_every_ms == 0 {
            return;
        }
        let open = self.control.begin(&self.host, "tails");
        let mut random = self.random(200 + log.id().get());
        let idle_from = (place == 0 && self.work.idle_from_ms > 0).then_some(self.work.idle_from_ms);
        let started = tokio::time::Instant::now();
        while self.pause(&mut random, self.work.tail_every_ms).await {
            if idle_from.is_some_and(|from| started.elapsed() >= Duration::from_millis(u64::from(from))) {
                break;
            }
            self.tail(&log, Some(PATIENCE)).await;
        }
        drop(open);
    }

    async fn tail(&self, log: &Log, patience: Option<Duration>) -> Option<Lsn> {
        let call = self.control.call();
        self.history.record(Event::TailInvoked { call, log: log.id() });
        let asking = log.find_tail(TailKind::Linearizable);
        let answer = match patience {
            Some(patience) => timeout(patience, asking).await.ok(),
            None => Some(asking.await),
        };
        let tail = match answer {
            Some(Ok(tail)) => Some(tail.lsn),
            Some(Err(error)) => {
                self.history.note(format!("{} is given no tail of log {}: {error}", self.host, log.id()));
                None
            }
            None => None,
        };
        self.history.record(Event::TailEnded { call, tail });
        tail
    }

    async fn trim(&self, log: Log) {
        if self.work.trim_every_ms == 0 {
            return;
        }
        let open = self.control.begin(&self.host, "trims");
        let mut random = self.random(300 + log.id().get());
        while self.pause(&mut random, self.work.trim_every_ms).await {
            let Ok(tail) = log.find_tail(TailKind::Cached).await else { continue };
            // Mostly what is old, sometimes more than there is.
            let up_to = match random.random_range(0..10) {
                0 => tail.lsn.get().saturating_add(random.random_range(0..5)),
                _ => random.random_range(0..=tail.lsn.get() / 2),
            };
            let Ok(up_to) = Lsn::try_from(up_to) else { continue };
            let call = self.control.call();
            self.history.record(Event::TrimInvoked { call, log: log.id(), up_to });
            let trim_point = match timeout(PATIENCE, log.trim(up_to)).await {
                Ok(Ok(trim_point)) => Some(trim_point),
                _ => None,
            };
            self.history.record(Event::TrimEnded { call, trim_point });
        }
        drop(open);
    }

    async fn reconfigure(&self, log: Log, number: usize) {
        if self.work.reconfigure_every_ms == 0 {
            return;
        }
        let open = self.control.begin(&self.host, "operator");
        let mut random = self.random(400 + number as u64 + 10 * log.id().get());
        while self.pause(&mut random, self.work.reconfigure_every_ms).await {
            let known = self.control.operations(log.id());
            let op = match known.first() {
                // Done again, by the same or by another operator (C4).
                Some(op) if random.random_ratio(1, 4) => *op,
                _ => bifrost::fresh_op(),
            };
            self.control.began(log.id(), op);
            let call = self.control.call();
            self.history.record(Event::ReconfigureInvoked { call, log: log.id(), op });
            let options = ReconfigureOptions { op: Some(op), ..ReconfigureOptions::default() };
            let patience = match random.random_range(0..4) {
                // The operator goes away in the middle.
                0 => Duration::from_millis(random.random_range(1..400)),
                _ => PATIENCE,
            };
            let outcome = match timeout(patience, log.reconfigure(options)).await {
                Ok(Ok(Reconfigured::Done(finished))) => ReconfigureOutcome::Done(finished),
                Ok(Ok(Reconfigured::Superseded { by, .. })) => ReconfigureOutcome::Superseded(by),
                Ok(Err(error)) => {
                    self.history.note(format!("{} cannot reconfigure log {}: {error}", self.host, log.id()));
                    ReconfigureOutcome::Unknown
                }
                Err(_) => ReconfigureOutcome::Unknown,
            };
            self.history.record(Event::ReconfigureEnded { call, outcome });
        }
        drop(open);
    }

    /// Follows a log from some place on; every now and then from another one. At the end it must reach the tail.
    async fn follow(&self, log: Log, number: usize) {
        let open = self.control.begin(&self.host, "reader");
        let mut random = self.random(500 + number as u64 + 10 * log.id().get());
        let mut from = Lsn::FIRST;
        loop {
            let until_ms = random.random_range(1_000..15_000_u64);
            let reading = self.read(&log, from, None);
            let turned = tokio::select! {
                biased;
                () = reading => true,
                () = self.control.reached(Stage::Dark) => false,
                () = sleep(Duration::from_millis(until_ms)) => true,
            };
            if !turned {
                break;
            }
            let known = log.find_tail(TailKind::Cached).await.map_or(1, |tail| tail.lsn.get());
            from = Lsn::try_from(random.random_range(1..=known.max(1))).unwrap_or(Lsn::FIRST);
        }
        let tail = self.control.final_tail(log.id()).await;
        self.read(&log, from.min(tail), Some(tail)).await;
        drop(open);
    }

    /// Reads until the end, or for ever.
    async fn read(&self, log: &Log, from: Lsn, until: Option<Lsn>) {
        let reader = self.control.reader();
        self.history.record(Event::ReaderOpened { reader, log: log.id(), from });
        let _closed = Closed { history: self.history.clone(), reader };
        if until == Some(from) {
            return;
        }
        let mut events = log.read(ReadOptions { from, until, ..ReadOptions::default() });
        while let Some(event) = events.next().await {
            match event {
                Ok(ReadEvent::Record(LogRecord { lsn, payload, .. })) => {
                    self.history.record(Event::Delivered { reader, lsn, value: value_of(&payload) });
                }
                Ok(ReadEvent::Gap { from, end, kind }) => {
                    let gap = match kind {
                        GapKind::Trimmed => Gap::Trimmed,
                        GapKind::Lost => Gap::Lost,
                    };
                    self.history.record(Event::Skipped { reader, from, until: end, gap });
                }
                Ok(ReadEvent::CaughtUp { .. }) => {}
                Err(error) => return self.read_failed(log, &error),
            }
        }
    }

    fn read_failed(&self, log: &Log, error: &ReadError) {
        self.control.fail(format!("P2 a reader of log {} on {} ended: {error}", log.id(), self.host));
    }
}

/// Notes the end of a reader, also when its task is dropped.
struct Closed {
    history: History,
    reader: ReaderId,
}

impl Drop for Closed {
    fn drop(&mut self) {
        self.history.record(Event::ReaderClosed { reader: self.reader });
    }
}

fn appender_options() -> AppenderOptions {
    AppenderOptions { give_up_after: GIVE_UP_AFTER, ..AppenderOptions::default() }
}
