//! `bifrost demo`: a cluster of three log servers in this process under real load, disturbed, and judged at the end.
//!
//! ```text
//!   appenders ─┐                     ┌─► n1 (RocksDB, gRPC)        operator: a reconfiguration every second
//!   reader 1  ─┼─ clients over gRPC ─┼─► n2                        restarts: a log server goes and returns
//!   reader 2  ─┘                     └─► n3
//!        └─► ledger ─► final scan by a fresh client ─► verdicts ─► Report
//! ```
//! Reading order: `options`, this file (the course of a run), `ground` (directory, space, disk speed), `load` (writers), `tailing`
//! (readers), `disturbance`, `progress`, [`report`].

mod disturbance;
mod ground;
mod load;
mod options;
mod progress;
pub mod report;
mod tailing;

pub use self::options::{DemoError, DemoOptions};

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bifrost::{Bifrost, Log, LogOptions, Lsn};
use bifrost_metadata::OpenError;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::disturbance::{Operated, Restarts, operate, restart_servers};
use self::ground::{Ground, memory_peak};
use self::load::{Load, WriterOptions, Written, latencies, oldest, write};
use self::progress::{Line, Seen};
use self::report::{PromiseReport, Report, Times, closed_by, grouped};
use self::tailing::{Read, final_tail, scan, tail};
use crate::ledger::{Ledger, ReaderLedger};
use crate::local_cluster::{LocalCluster, LocalClusterError, LocalClusterOptions};

const LOG: &str = "demo";
const NODES: usize = 3;
const READERS: usize = 2;
/// The demo stops writing at so much payload, so that it never fills a disk by surprise.
const PAYLOAD_BYTES_MAX: u64 = 3 << 30;
/// And at so many records, since it remembers each of them.
const RECORDS_MAX: u64 = 4_000_000;
/// How long the operator and the restarts have to end what they began.
const PATIENCE: Duration = Duration::from_secs(30);
/// A disk whose fdatasync is faster keeps nothing through a power cut.
const DISK_SYNC_MIN: Duration = Duration::from_micros(15);

/// Runs the demo on nodes with default settings; see [`run_on`].
///
/// # Errors
/// See [`run_on`].
///
/// # Cancel safety
/// See [`run_on`].
pub async fn run(options: &DemoOptions, stop: CancellationToken) -> Result<Report, DemoError> {
    run_on(LocalClusterOptions::default(), options, stop).await
}

/// Runs the demo on nodes with these settings; how many they are and where their data is are the demo's own. Cancelling `stop` ends it early with [`DemoError::Interrupted`], in good order.
///
/// # Errors
/// [`DemoError`] when it could not run to its end. A promise that was found broken is no error: the report says so.
///
/// # Cancel safety
/// Dropping the future leaves the cluster's tasks to the runtime; cancel `stop` instead.
pub async fn run_on(
    nodes: LocalClusterOptions,
    options: &DemoOptions,
    stop: CancellationToken,
) -> Result<Report, DemoError> {
    let ground = Ground::prepare(options.data_dir.as_deref())?;
    let outcome = run_in(&ground, nodes, options, stop).await;
    ground.leave()?;
    outcome
}

async fn run_in(
    ground: &Ground,
    nodes: LocalClusterOptions,
    options: &DemoOptions,
    stop: CancellationToken,
) -> Result<Report, DemoError> {
    let payload_bytes_max = ground.payload_budget(options.seconds, PAYLOAD_BYTES_MAX)?;
    let disk_sync = ground.canary()?;
    let cluster = Arc::new(start_cluster(ground.directory(), nodes).await?);
    let outcome = match Clients::connect(&cluster).await {
        Ok(clients) => {
            let seed = options.seed.unwrap_or_else(draw);
            let course = Course {
                cluster: cluster.clone(),
                clients: &clients,
                options,
                seed,
                stop,
                payload_bytes_max,
                disk_sync,
            };
            let outcome = course.run(ground.directory()).await;
            clients.shutdown().await;
            outcome
        }
        Err(error) => Err(DemoError::Client(error)),
    };
    cluster.shutdown().await;
    outcome
}

async fn start_cluster(directory: &Path, nodes: LocalClusterOptions) -> Result<LocalCluster, DemoError> {
    let options = LocalClusterOptions { nodes: NODES, directory: Some(directory.to_owned()), ..nodes };
    LocalCluster::start(options).await.map_err(|source| {
        let directory = directory.to_owned();
        match source {
            LocalClusterError::Metadata(OpenError::InUse { .. }) => DemoError::InUse { directory },
            source => DemoError::Cluster { directory, source: Box::new(source) },
        }
    })
}

/// The writers' client, one for each reader, and one for the final scan, each with connections of its own.
struct Clients {
    writers: Bifrost,
    readers: Vec<Bifrost>,
    scan: Bifrost,
}

impl Clients {
    async fn connect(cluster: &LocalCluster) -> anyhow::Result<Self> {
        let mut readers = Vec::new();
        for _ in 0..READERS {
            readers.push(cluster.connect().await?);
        }
        Ok(Self { writers: cluster.connect().await?, readers, scan: cluster.connect().await? })
    }

    async fn shutdown(&self) {
        for client in self.readers.iter().chain([&self.writers, &self.scan]) {
            client.shutdown().await;
        }
    }
}

/// One run over a cluster that stands.
struct Course<'a> {
    cluster: Arc<LocalCluster>,
    clients: &'a Clients,
    options: &'a DemoOptions,
    seed: u64,
    stop: CancellationToken,
    payload_bytes_max: u64,
    disk_sync: Duration,
}

/// What runs during the load.
struct Running {
    load: Arc<Load>,
    writers: Vec<JoinHandle<Written>>,
    readers: Vec<(JoinHandle<Read>, Arc<AtomicU64>)>,
    /// Tells the readers where they end.
    until: watch::Sender<Option<Lsn>>,
    operator: JoinHandle<Operated>,
    restarter: JoinHandle<()>,
    restarts: Arc<Mutex<Restarts>>,
}

impl Course<'_> {
    async fn run(&self, directory: &Path) -> Result<Report, DemoError> {
        let client = |error: bifrost::LogError| DemoError::Client(error.into());
        let log = self.clients.writers.open_log(LOG, LogOptions::default()).await.map_err(client)?;
        let from = oldest(log.describe().await.map_err(client)?.trim_point);
        let ledger = Ledger::new(u32::try_from(draw() >> 32).unwrap_or(u32::MAX));
        let line = Line::new(self.options.quiet);
        line.say(&format!(
            "three log servers on {}, {} appenders with {} in flight each, {} s",
            directory.display(),
            self.options.appenders,
            self.options.in_flight,
            self.options.seconds
        ));
        let tasks = TaskTracker::new();
        let running = self.start(&tasks, &log, &ledger, from).await.map_err(client)?;
        let began = Instant::now();
        self.wait(&running, &log, &line).await;
        running.load.stop.cancel();
        ledger.order().stop();
        let seconds = began.elapsed().as_secs_f64();
        if !self.stop.is_cancelled() {
            line.say("stopped writing; readers go to the tail, then a fresh reader scans all of it");
        }
        let report = self.finish(running, ledger, from, seconds).await;
        line.clear();
        report
    }

    async fn start(
        &self,
        tasks: &TaskTracker,
        log: &Log,
        ledger: &Ledger,
        from: Lsn,
    ) -> Result<Running, bifrost::LogError> {
        let options = self.options;
        let (until, until_receiver) = watch::channel(None);
        let mut readers = Vec::new();
        for (client, number) in self.clients.readers.iter().zip(1..) {
            let at = Arc::new(AtomicU64::new(from.get()));
            let log = client.log_by_id(log.id()).await?;
            let ledger = ledger.reader(format!("reader {number}"), from);
            readers.push((tasks.spawn(tail(log, ledger, until_receiver.clone(), at.clone())), at));
        }
        let load = Load::new(self.payload_bytes_max, RECORDS_MAX, self.stop.child_token());
        let writers = (0..options.appenders).map(|number| {
            let writer = WriterOptions {
                in_flight: usize::from(options.in_flight),
                record_bytes: options.record_bytes,
                seed: self.seed.wrapping_add(u64::from(number)),
            };
            tasks.spawn(write(log.clone(), ledger.appender(number), load.clone(), writer))
        });
        let writers = writers.collect();
        let operator = tasks.spawn(operate(log.clone(), ledger.order().clone(), load.stop.clone()));
        let restarts = Arc::new(Mutex::new(Restarts::default()));
        let restarter = tasks.spawn(restart_servers(
            self.cluster.clone(),
            log.clone(),
            options.seconds,
            self.seed,
            restarts.clone(),
            load.stop.clone(),
        ));
        Ok(Running { load, writers, readers, until, operator, restarter, restarts })
    }

    /// Lets the load run for its time.
    async fn wait(&self, running: &Running, log: &Log, line: &Line) {
        let seen = Seen {
            load: running.load.clone(),
            restarts: running.restarts.clone(),
            readers: running.readers.iter().map(|(_, at)| at.clone()).collect(),
            log: log.clone(),
        };
        let time = Duration::from_secs(self.options.seconds);
        tokio::select! {
            biased;
            () = running.load.stop.cancelled() => {}
            () = tokio::time::sleep(time) => {}
            () = line.follow(&seen, self.options.seconds) => {}
        }
    }

    /// Waits for everything that was begun, reads all of it once more, and judges. `seconds` is how long was written.
    async fn finish(&self, running: Running, mut ledger: Ledger, from: Lsn, seconds: f64) -> Result<Report, DemoError> {
        let Running { load, writers, readers, until, operator, restarter, restarts } = running;
        let mut notes = Vec::new();
        let mut latency = latencies();
        let mut failed = 0;
        for writer in writers {
            let written = writer.await.map_err(|error| DemoError::Client(error.into()))?;
            latency += &written.latency;
            failed += written.failed;
            ledger.add_appender(written.ledger);
        }
        let operated = match timeout(PATIENCE, operator).await {
            Ok(Ok(operated)) => operated,
            Ok(Err(error)) => return Err(DemoError::Client(error.into())),
            Err(_) => {
                notes.push("a reconfiguration did not end in time".to_owned());
                Operated::default()
            }
        };
        for (from, until) in &operated.done {
            ledger.reconfigured(*from, *until);
        }
        if timeout(PATIENCE, restarter).await.is_err() {
            notes.push("a log server did not stop and start in time".to_owned());
        }
        if self.stop.is_cancelled() {
            // The readers end with their clients.
            return Err(DemoError::Interrupted);
        }
        let log = self.clients.scan.log(LOG).await.map_err(|error| DemoError::Client(error.into()))?;
        let tail = final_tail(&log).await;
        if tail.is_none() {
            notes.push("the linearizable tail was not found in time".to_owned());
        }
        until.send_replace(Some(tail.unwrap_or(Lsn::MAX)));
        for (reader, _) in readers {
            let read = reader.await.map_err(|error| DemoError::Client(error.into()))?;
            ledger.add_reader(note_reader(read, &mut notes));
        }
        let tail = tail.unwrap_or(Lsn::MAX);
        let scanned = note_reader(scan(&log, ledger.reader("the final scan", from), tail).await, &mut notes);
        let chain = log.describe().await.map_err(|error| DemoError::Client(error.into()))?;
        let verdicts = ledger.verify(&chain, tail, &scanned);
        let records = load.records.load(Ordering::Relaxed);
        let payload_bytes = load.bytes.load(Ordering::Relaxed);
        let Restarts { done: restarted, failed: not_restarted, .. } = std::mem::take(&mut *restarts.lock());
        notes.extend(not_restarted.iter().map(|text| format!("a log server did not start again: {text}")));
        notes.extend(operated.failed.iter().map(|text| format!("a reconfiguration failed: {text}")));
        if load.exhausted.load(Ordering::Relaxed) {
            notes.push(format!(
                "stopped writing early, at {} records: the demo's limit of payload, of records, or of this disk",
                grouped(records)
            ));
        }
        notes.extend(self.standing_notes());
        Ok(Report {
            ok: verdicts.all_hold() && not_restarted.is_empty(),
            seed: self.seed,
            seconds,
            appenders: self.options.appenders,
            in_flight: usize::from(self.options.in_flight),
            records,
            payload_bytes,
            records_per_second: records as f64 / seconds,
            megabytes_per_second: payload_bytes as f64 / seconds / 1e6,
            earlier_records: scanned.records().saturating_sub(records),
            appends_not_acknowledged: failed,
            append: Times::of(&latency),
            segments: chain.segments.len(),
            closed: closed_by(&chain),
            reconfiguration: Times::of_all(
                operated.done.iter().map(|(from, until)| until.saturating_sub(*from)).collect(),
            ),
            reconfigurations_superseded: operated.superseded,
            longest_gap_micros: u64::try_from(ledger.order().longest_pause().as_micros()).unwrap_or(u64::MAX),
            restarted,
            memory_peak_bytes: memory_peak(),
            disk_sync_p50_micros: u64::try_from(self.disk_sync.as_micros()).unwrap_or(u64::MAX),
            promises: PromiseReport::of_all(&verdicts),
            notes,
        })
    }

    /// What a reader of the figures should know, however the run went.
    fn standing_notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if self.disk_sync < DISK_SYNC_MIN {
            notes.push(format!(
                "fdatasync takes {:.0?} here: this is memory, or a disk that does not wait for itself; these figures say \
                 little about a real one",
                self.disk_sync
            ));
        }
        if let Some(kept) = &self.options.data_dir {
            notes.push(format!("the data is kept in {}; run again with it to continue", kept.display()));
        }
        notes
    }
}

/// What a reader handed in; an error that ended it is told.
fn note_reader(read: Read, notes: &mut Vec<String>) -> ReaderLedger {
    let Read { ledger, error } = read;
    if let Some(error) = error {
        let error = anyhow::Error::from(error);
        notes.push(format!("{} ended at {}: {error:#}", ledger.name(), ledger.next()));
    }
    ledger
}

#[expect(clippy::disallowed_methods, reason = "the one place where the demo draws; the seed is printed")]
fn draw() -> u64 {
    rand::random()
}
