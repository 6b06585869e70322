//! Writers and readers of some logs while a cluster is disturbed, and the judgement of everything that they saw.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bifrost::{AppendError, Bifrost, Log, LogOptions, Lsn, ReadOptions, ReconfigureOptions, TailKind};
use bifrost_node::ledger::{AppenderLedger, Ledger, ReaderLedger};
use bifrost_types::NodeId;
use futures_util::StreamExt;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::support::cluster::{Cluster, PATIENCE};

/// How hard the cluster works meanwhile.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Logs under load. The sequencer of the first one begins at the first node, and so on.
    pub logs: usize,
    /// Of each log. Each waits for an append before it makes the next one.
    pub writers: u32,
    /// Between two appends of a writer.
    pub pace: Duration,
    pub record_bytes: u32,
}

impl Shape {
    /// Enough to notice everything, and little enough to leave the machine to the faults.
    pub const LIGHT: Self = Self { logs: 3, writers: 2, pace: Duration::from_millis(10), record_bytes: 100 };
}

/// One log under load.
struct Loaded {
    log: Log,
    ledger: Ledger,
    acknowledged: Arc<AtomicU64>,
    writers: Vec<JoinHandle<AppenderLedger>>,
    reader: JoinHandle<ReaderLedger>,
    /// Tells the reader where it ends.
    until: watch::Sender<Option<Lsn>>,
}

/// A moment, to ask later what happened since.
#[derive(Debug, Clone)]
pub struct Mark {
    at: Instant,
    acknowledged: Vec<u64>,
    places: Vec<u64>,
}

/// All logs under load.
pub struct Load {
    runtime: Runtime,
    client: Bifrost,
    reading: Bifrost,
    shape: Shape,
    logs: Vec<Loaded>,
    stop: CancellationToken,
}

/// What a run was, in a line.
#[derive(Debug, Clone, Copy, Default)]
pub struct Judged {
    pub records: u64,
    pub segments: usize,
    pub longest_gap: Duration,
}

impl Load {
    /// Makes logs of these names and begins. Call it where the clients are.
    pub fn start(cluster: &Cluster, name: &str, shape: Shape) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
        let stop = CancellationToken::new();
        let (client, reading, logs) = runtime.block_on(async {
            let client = cluster.connect().await.expect("the cluster answers");
            let reading = cluster.connect().await.expect("the cluster answers");
            let mut logs = Vec::new();
            for number in 0..shape.logs {
                let log = make_log(&client, &format!("{name}-{number}"), cluster.id(number % cluster.size())).await;
                let read = reading.log_by_id(log.id()).await.expect("it was made");
                logs.push(Loaded::start(log, read, shape, &stop));
            }
            (client, reading, logs)
        });
        let load = Self { runtime, client, reading, shape, logs, stop };
        load.await_progress(&load.mark(), "before anything happened");
        load
    }

    /// Where its tasks run.
    pub const fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    /// The client of the writers.
    pub const fn client(&self) -> &Bifrost {
        &self.client
    }

    /// The logs under load.
    pub fn logs(&self) -> impl Iterator<Item = &Log> {
        self.logs.iter().map(|loaded| &loaded.log)
    }

    pub fn mark(&self) -> Mark {
        Mark {
            at: Instant::now(),
            acknowledged: self.logs.iter().map(|log| log.acknowledged.load(Ordering::Relaxed)).collect(),
            places: self.logs.iter().map(|log| log.ledger.order().now()).collect(),
        }
    }

    /// Waits until each log has taken an append that began after the mark. Tells how long after the mark that was.
    #[track_caller]
    pub fn await_progress(&self, mark: &Mark, when: &str) -> Duration {
        // One of each writer may have been under way.
        let begun_before = u64::from(self.shape.writers);
        for (loaded, before) in self.logs.iter().zip(&mark.acknowledged) {
            while loaded.acknowledged.load(Ordering::Relaxed) <= before + begun_before {
                if mark.at.elapsed() > PATIENCE {
                    let explained = self.runtime.block_on(self.client.explain(loaded.log.id()));
                    panic!("log {} takes no appends {when}: {explained:?}", loaded.log.id());
                }
                std::thread::sleep(Duration::from_millis(2));
            }
        }
        mark.at.elapsed()
    }

    /// For each log, the longest time without an acknowledged append that touches the time since the mark.
    pub fn gaps(&self, since: &Mark) -> Vec<Duration> {
        let gap = |(loaded, from): (&Loaded, &u64)| loaded.ledger.order().longest_pause_around(*from, u64::MAX);
        self.logs.iter().zip(&since.places).map(gap).collect()
    }

    /// Everything that was begun ends; then a client that saw nothing of the past appends and reads everything, and the
    /// checker judges.
    #[track_caller]
    pub fn finish(self, cluster: &Cluster) -> Judged {
        let Self { runtime, client, reading, logs, stop, shape } = self;
        let judged = runtime.block_on(async {
            let fresh = timeout(PATIENCE, cluster.connect()).await.expect("in time").expect("the cluster answers");
            stop.cancel();
            let mut judged = Judged::default();
            for loaded in logs {
                let one = loaded.finish(&fresh, shape).await;
                judged.records += one.records;
                judged.segments += one.segments;
                judged.longest_gap = judged.longest_gap.max(one.longest_gap);
            }
            for client in [&fresh, &reading, &client] {
                client.shutdown().await;
            }
            judged
        });
        runtime.shutdown_timeout(Duration::from_secs(5));
        judged
    }
}

/// A log with two copies on three nodes, and its sequencer here.
pub async fn make_log(client: &Bifrost, name: &str, sequencer: NodeId) -> Log {
    let log = client.create_log(name, LogOptions::default()).await.expect("all nodes are well");
    if log.chain().last().is_some_and(|last| last.params.sequencer.node != sequencer) {
        let there = ReconfigureOptions { sequencer: Some(sequencer), ..ReconfigureOptions::default() };
        log.reconfigure(there).await.expect("all nodes are well");
    }
    log
}

impl Loaded {
    fn start(log: Log, read: Log, shape: Shape, stop: &CancellationToken) -> Self {
        let ledger = Ledger::new(rand::random());
        let acknowledged = Arc::new(AtomicU64::new(0));
        let (until, end) = watch::channel(None);
        let writers = (0..shape.writers).map(|number| {
            let (ledger, count, stop) = (ledger.appender(number), acknowledged.clone(), stop.clone());
            tokio::spawn(write(log.clone(), ledger, count, shape, stop))
        });
        let writers = writers.collect();
        let reader = tokio::spawn(follow(read, ledger.reader("the follower", Lsn::FIRST), end));
        Self { log, ledger, acknowledged, writers, reader, until }
    }

    async fn finish(self, fresh: &Bifrost, shape: Shape) -> Judged {
        let Self { log, mut ledger, writers, reader, until, .. } = self;
        let id = log.id();
        ledger.set_pause_max(PATIENCE);
        ledger.order().stop();
        for writer in writers {
            let Ok(written) = timeout(PATIENCE * 2, writer).await else {
                panic!("an append to log {id} has no outcome: {:?}", fresh.explain(id).await)
            };
            ledger.add_appender(written.expect("writers do not panic"));
        }
        let fresh_log = fresh.log_by_id(id).await.expect("the log is there");
        let mut mine = ledger.appender(shape.writers);
        let (number, payload) = mine.begin(shape.record_bytes);
        let Ok(outcome) = timeout(PATIENCE, fresh_log.appender().append(payload)).await else {
            panic!("log {id} takes nothing of a fresh client: {:?}", fresh.explain(id).await)
        };
        assert!(outcome.is_ok(), "log {id} takes nothing of a fresh client: {outcome:?}");
        mine.ended(number, &outcome);
        ledger.add_appender(mine);
        let tail = timeout(PATIENCE, fresh_log.find_tail(TailKind::Linearizable)).await.expect("a tail in time");
        let tail = tail.expect("a tail").lsn;
        until.send_replace(Some(tail));
        ledger.add_reader(reader.await.expect("readers do not panic"));
        let scanned = scan(&fresh_log, ledger.reader("the final scan", Lsn::FIRST), tail).await;
        let chain = settled_chain(&fresh_log).await;
        let verdicts = ledger.verify(&chain, tail, &scanned);
        assert!(verdicts.all_hold(), "log {id}:\n{verdicts}");
        Judged {
            records: scanned.records(),
            segments: chain.segments.len(),
            longest_gap: ledger.order().longest_pause(),
        }
    }
}

/// The chain once nobody changes it any more.
async fn settled_chain(log: &Log) -> bifrost::Chain {
    let begun = Instant::now();
    loop {
        let chain = log.describe().await.expect("metadata answers");
        if chain.pending.is_none() {
            return chain;
        }
        assert!(begun.elapsed() < PATIENCE, "an operation stays pending: {:?}", chain.pending);
        sleep(Duration::from_millis(20)).await;
    }
}

async fn write(
    log: Log,
    mut ledger: AppenderLedger,
    acknowledged: Arc<AtomicU64>,
    shape: Shape,
    stop: CancellationToken,
) -> AppenderLedger {
    let appender = log.appender();
    let mut pace = interval(shape.pace.max(Duration::from_micros(1)));
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !stop.is_cancelled() {
        if !shape.pace.is_zero() {
            pace.tick().await;
        }
        let (number, payload) = ledger.begin(shape.record_bytes);
        let outcome = appender.append(payload).await;
        ledger.ended(number, &outcome);
        match outcome {
            Ok(_) => {
                acknowledged.fetch_add(1, Ordering::Relaxed);
            }
            Err(AppendError::Unknown { id }) => {
                if let Ok(Ok(resolved)) = timeout(PATIENCE, log.resolve(id)).await {
                    ledger.resolved(number, 1, resolved);
                }
            }
            Err(AppendError::NotAppended { .. } | AppendError::Closed { .. }) => {}
        }
    }
    ledger
}

async fn follow(log: Log, mut ledger: ReaderLedger, mut until: watch::Receiver<Option<Lsn>>) -> ReaderLedger {
    let mut reader = log.read(ReadOptions::default());
    loop {
        let end = *until.borrow_and_update();
        if end.is_some_and(|end| ledger.next() >= end) {
            return ledger;
        }
        tokio::select! {
            biased;
            event = reader.next() => match event {
                Some(Ok(event)) => ledger.observe(&event),
                Some(Err(error)) => panic!("the follower of log {} ended: {error:?}", log.id()),
                None => panic!("the follower of log {} ended at {}", log.id(), ledger.next()),
            },
            _ = until.changed(), if end.is_none() => {}
            () = sleep(PATIENCE), if end.is_some() => panic!("a reader of log {} is stuck at {}", log.id(), ledger.next()),
        }
    }
}

async fn scan(log: &Log, mut ledger: ReaderLedger, tail: Lsn) -> ReaderLedger {
    let mut reader = log.read(ReadOptions { until: Some(tail), ..ReadOptions::default() });
    loop {
        match timeout(PATIENCE, reader.next()).await {
            Ok(Some(Ok(event))) => {
                ledger.observe(&event);
            }
            Ok(None) => return ledger,
            Ok(Some(Err(error))) => panic!("log {} cannot be read: {error:?}", log.id()),
            Err(_) => panic!("the final scan of log {} is stuck at {}", log.id(), ledger.next()),
        }
    }
}
