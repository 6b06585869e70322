//! Many appenders and two sealers on one log over three real log servers, with everything going wrong at once: sealers
//! are cancelled at random awaits, one node restarts, the replies of another one are lost. Every promise of the log is
//! judged by a ledger of what was acknowledged and what readers saw, byte for byte.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bifrost::{
    AppendError, Bifrost, Chain, Log, LogOptions, Lsn, ReadEvent, ReadOptions, ReconfigureOptions, Record, TailKind,
    Ticket,
};
use bifrost_node::ledger::{AppenderLedger, Ledger, ReaderLedger};
use bifrost_node::local_cluster::{LocalCluster, LocalClusterOptions};
use bifrost_types::{CloseReason, SegmentState};
use futures_util::StreamExt;
use rand::RngExt;
use rand::rngs::StdRng;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::faults::{Faults, cancelled_after, rng_of, seed_of, trace_if_asked};

const APPENDERS: u32 = 400;
const SEALERS: u64 = 2;
const RUN: Duration = Duration::from_secs(10);
/// How long the node that restarts is down.
const DOWN: Duration = Duration::from_secs(1);
/// A sealer seals again after so many more acknowledgements: segments hold work however fast the machine is.
const PACE: u64 = 2_000;
/// Awaits after which a sealer is cancelled, at most; a reconfiguration has fewer.
const POLLS: u32 = 40;
const IN_FLIGHT_MAX: usize = 8;
/// Fewer segments would test nothing.
const SEGMENTS_MIN: usize = 8;
/// Stretches of [`PACE`] records in a row without one of a certain appender, at most, besides a quarter of the run. Each
/// holds several of each appender on average; back-off is in time, so the run counts too.
const STARVED_MAX: usize = 8;
/// Only what hangs takes this long.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the tasks of the run share, and what is told about it when something hangs.
struct Shared {
    seed: u64,
    stop: CancellationToken,
    /// Acknowledgements of all appenders together.
    acknowledged: watch::Sender<u64>,
    /// Of each appender: sent, and with an outcome.
    appenders: Vec<[AtomicU64; 2]>,
    /// Where each reader is.
    readers: [AtomicU64; 2],
    sealed: AtomicU64,
    cancelled: AtomicU64,
}

impl Shared {
    /// Waits, or fails the test with everything that is known about who waits for whom.
    async fn within<T>(&self, what: &str, clients: &[&Log], future: impl Future<Output = T>) -> T {
        match timeout(PATIENCE, future).await {
            Ok(output) => output,
            Err(_) => panic!("{what} hangs, BIFROST_SEED={}\n{}", self.seed, self.state(clients).await),
        }
    }

    async fn state(&self, clients: &[&Log]) -> String {
        let mut told = String::new();
        let at = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let waiting = self.appenders.iter().enumerate().filter(|(_, [sent, ended])| at(sent) > at(ended));
        let waiting: Vec<_> = waiting.map(|(appender, [sent, ended])| (appender, at(sent), at(ended))).collect();
        let few = &waiting[..waiting.len().min(10)];
        let _ = writeln!(told, "{} appenders wait, (appender, sent, ended): {few:?}", waiting.len());
        let _ = writeln!(told, "acknowledged {}, readers at {:?}", *self.acknowledged.borrow(), self.readers);
        let _ = writeln!(told, "reconfigurations: {} ended, {} cancelled", at(&self.sealed), at(&self.cancelled));
        for (client, log) in clients.iter().enumerate() {
            let chain = log.chain();
            let _ = writeln!(told, "client {client}: {}, {:?}", of_chain(&chain), *log.progress().borrow());
        }
        if let Some(log) = clients.first() {
            let now = timeout(Duration::from_secs(5), log.describe()).await;
            let now = now.map(|chain| chain.map(|chain| of_chain(&chain)));
            let _ = writeln!(told, "metadata: {now:?}");
        }
        told
    }
}

fn of_chain(chain: &Chain) -> String {
    format!("version {}, pending {:?}, last {:?}", chain.version, chain.pending, chain.last())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn append_and_seal_concurrent() -> anyhow::Result<()> {
    trace_if_asked();
    let seed = seed_of("append_and_seal_concurrent");
    let mut random = rng_of(seed, 1);
    let faults = Faults::new(seed);
    let directory = tempfile::tempdir()?;
    let options = LocalClusterOptions {
        directory: Some(directory.path().to_owned()),
        interpose: Some(faults.clone() as _),
        ..LocalClusterOptions::default()
    };
    let cluster = Arc::new(LocalCluster::start(options).await?);
    let writing = cluster.connect().await?;
    let log = writing.create_log("contended", LogOptions::default()).await?;
    let mut others = Vec::new();
    for _ in 0..SEALERS + 1 {
        let client = cluster.connect().await?;
        let log = client.log("contended").await?;
        others.push((client, log));
    }
    let clients: Vec<&Log> = [&log].into_iter().chain(others.iter().map(|(_, log)| log)).collect();
    let shared = Arc::new(Shared {
        seed,
        stop: CancellationToken::new(),
        acknowledged: watch::Sender::new(0),
        appenders: (0..APPENDERS).map(|_| Default::default()).collect(),
        readers: Default::default(),
        sealed: AtomicU64::new(0),
        cancelled: AtomicU64::new(0),
    });
    let mut ledger = Ledger::new(random.random());
    ledger.set_pause_max(PATIENCE);

    let mut appenders = JoinSet::new();
    for appender in 0..APPENDERS {
        let notes = ledger.appender(appender);
        appenders.spawn(append(log.clone(), notes, rng_of(seed, 10_000 + u64::from(appender)), shared.clone()));
    }
    let mut sealers = JoinSet::new();
    for (sealer, (_, log)) in (0..SEALERS).zip(&others) {
        sealers.spawn(seal(log.clone(), rng_of(seed, 20_000 + sealer), shared.clone()));
    }
    let end = watch::Sender::new(None);
    let mut readers = JoinSet::new();
    // One reads beside the appenders, one from a client that does nothing else.
    for (place, log) in [&log, &others[SEALERS as usize].1].into_iter().enumerate() {
        let notes = ledger.reader(format!("reader {place}"), Lsn::FIRST);
        readers.spawn(tail(log.clone(), notes, place, end.subscribe(), shared.clone()));
    }

    let lossy = random.random_range(0..cluster.size());
    let restarted = (lossy + random.random_range(1..cluster.size())) % cluster.size();
    let lossy = faults.of(cluster.node_id(lossy).await.expect("it runs"));
    lossy.lost_calls.store(200, Ordering::Relaxed);
    lossy.broken_stores.store(10, Ordering::Relaxed);
    let run = async {
        sleep(RUN.mul_f64(random.random_range(0.1..0.5))).await;
        cluster.stop_node(restarted).await;
        sleep(DOWN).await;
        cluster.start_node(restarted).await
    };
    let (run, ()) = tokio::join!(shared.within("the restart of a node", &clients, run), sleep(RUN));
    run?;
    // A slow machine gets the time that it needs; one that no longer moves is found out.
    let mut acknowledged = shared.acknowledged.subscribe();
    let enough = acknowledged.wait_for(|_| log.chain().segments.len() > SEGMENTS_MIN);
    shared.within("the reconfiguration of the log", &clients, enough).await?;

    shared.stop.cancel();
    while let Some(sealer) = shared.within("a sealer", &clients, sealers.join_next()).await {
        sealer?;
    }
    let mut refused = 0;
    while let Some(ended) = shared.within("an append", &clients, appenders.join_next()).await {
        let (notes, refusals) = ended?;
        refused += refusals;
        ledger.add_appender(notes);
    }
    // Whatever the cancelled ones left is joined and finished by one that is let alone.
    shared.within("the last reconfiguration", &clients, log.reconfigure(ReconfigureOptions::default())).await?;
    let chain = log.describe().await?;
    let last = shared.within("the tail", &clients, log.find_tail(TailKind::Linearizable)).await?.lsn;
    end.send_replace(Some(last));
    while let Some(reader) = shared.within("a reader", &clients, readers.join_next()).await {
        ledger.add_reader(reader?);
    }
    let scan = ledger.reader("the final scan", Lsn::FIRST);
    let scan = shared.within("the final scan", &clients, read_all(&cluster, scan, last)).await?;

    let verdicts = ledger.verify(&chain, last, &scan);
    println!(
        "{verdicts}\n{} acknowledged, {} segments, {} reconfigurations ended and {} cancelled, {} replies lost",
        *shared.acknowledged.borrow(),
        chain.segments.len(),
        shared.sealed.load(Ordering::Relaxed),
        shared.cancelled.load(Ordering::Relaxed),
        lossy.happened.load(Ordering::Relaxed),
    );
    assert!(verdicts.all_hold(), "BIFROST_SEED={seed}\n{verdicts}\n{}", shared.state(&clients).await);
    assert_eq!(refused, 0, "a living appender settles its appends itself, BIFROST_SEED={seed}");
    require_announced(&chain, seed);
    assert!(lossy.happened.load(Ordering::Relaxed) > 0, "no reply was lost, BIFROST_SEED={seed}");
    require_fair(&chain, &log, last, seed).await?;
    for (client, _) in &others {
        client.shutdown().await;
    }
    writing.shutdown().await;
    cluster.shutdown().await;
    Ok(())
}

/// Appends until it is stopped, then waits for every outcome. Returns how many were not acknowledged.
async fn append(log: Log, mut notes: AppenderLedger, mut random: StdRng, shared: Arc<Shared>) -> (AppenderLedger, u64) {
    let appender = log.appender();
    let in_flight_max = random.random_range(1..=IN_FLIGHT_MAX);
    let mut in_flight: VecDeque<(u32, u32, Ticket)> = VecDeque::new();
    let [sent, ended] = &shared.appenders[notes.appender() as usize];
    let mut refused = 0;
    loop {
        let stopped = shared.stop.is_cancelled();
        if (stopped || in_flight.len() >= in_flight_max)
            && let Some((first, records, ticket)) = in_flight.pop_front()
        {
            let outcome = ticket.await;
            ended.fetch_add(1, Ordering::Relaxed);
            notes.ended_batch(first, records, &outcome);
            match outcome {
                Ok(_) => shared.acknowledged.send_modify(|acknowledged| *acknowledged += 1),
                Err(AppendError::Unknown { id }) => {
                    refused += 1;
                    let resolved = log.resolve(id).await.expect("an outcome");
                    notes.resolved(first, records, resolved);
                }
                Err(error) => {
                    refused += 1;
                    println!("appender {}: {error:?}", notes.appender());
                }
            }
            continue;
        }
        if stopped {
            return (notes, refused);
        }
        let records = if random.random_range(0..8) == 0 { random.random_range(2..=4) } else { 1 };
        let sizes: Vec<u32> = (0..records).map(|_| random.random_range(20..=1500)).collect();
        let bytes = sizes.iter().sum::<u32>() as usize;
        let permit = appender.reserve_batch(bytes, sizes.len()).await.expect("an open log");
        let begun: Vec<_> = sizes.into_iter().map(|bytes| notes.begin(bytes)).collect();
        let first = begun[0].0;
        let ticket = permit.send_batch(begun.into_iter().map(|(_, payload)| Record::new(payload)).collect());
        sent.fetch_add(1, Ordering::Relaxed);
        in_flight.push_back((first, records, ticket));
    }
}

/// Reconfigures again and again; most times its caller goes away at some await, and somebody else finishes.
async fn seal(log: Log, mut random: StdRng, shared: Arc<Shared>) {
    let mut acknowledged = shared.acknowledged.subscribe();
    loop {
        let due = *acknowledged.borrow() + random.random_range(0..=2 * PACE);
        tokio::select! {
            biased;
            () = shared.stop.cancelled() => return,
            paced = acknowledged.wait_for(|acknowledged| *acknowledged >= due) => drop(paced.expect("shared lives")),
        }
        let polls = if random.random_range(0..4) == 0 { u32::MAX } else { random.random_range(1..=POLLS) };
        match cancelled_after(polls, log.reconfigure(ReconfigureOptions::default())).await {
            Some(ended) => {
                // A node that stops takes its answers with it; whatever the reason, the next one finishes the work.
                if let Err(error) = ended {
                    println!("sealer: {error}");
                }
                shared.sealed.fetch_add(1, Ordering::Relaxed)
            }
            None => shared.cancelled.fetch_add(1, Ordering::Relaxed),
        };
    }
}

/// Reads until it has everything below the end, once that is known.
async fn tail(
    log: Log,
    mut notes: ReaderLedger,
    place: usize,
    mut end: watch::Receiver<Option<Lsn>>,
    shared: Arc<Shared>,
) -> ReaderLedger {
    let mut reader = log.read(ReadOptions::default());
    let mut next = Lsn::FIRST;
    loop {
        if end.borrow_and_update().is_some_and(|end| next >= end) {
            return notes;
        }
        let event = tokio::select! {
            biased;
            event = reader.next() => event.expect("a log that is open").expect("a reader that goes on"),
            changed = end.changed() => {
                changed.expect("the test holds the sender");
                continue;
            }
        };
        notes.observe(&event);
        next = match event {
            ReadEvent::Record(record) => record.lsn.advance(1).expect("far from the end"),
            ReadEvent::Gap { end, .. } => end,
            ReadEvent::CaughtUp { .. } => next,
        };
        shared.readers[place].store(next.get(), Ordering::Relaxed);
    }
}

/// Everything below `last`, through a client that knows nothing yet.
async fn read_all(cluster: &LocalCluster, mut notes: ReaderLedger, last: Lsn) -> anyhow::Result<ReaderLedger> {
    let client: Bifrost = cluster.connect().await?;
    let log = client.log("contended").await?;
    let mut reader = log.read(ReadOptions { until: Some(last), ..ReadOptions::default() });
    while let Some(event) = reader.next().await {
        notes.observe(&event?);
    }
    client.shutdown().await;
    Ok(notes)
}

/// Every seal in this run is announced in the chain before it is made, so no appender may take one for an orphan: it would
/// close a segment that nobody wanted closed.
fn require_announced(chain: &Chain, seed: u64) {
    let orphans = chain
        .segments
        .iter()
        .filter(|segment| matches!(segment.state, SegmentState::Sealed { reason: CloseReason::OrphanedSeal, .. }));
    let orphans: Vec<_> = orphans.map(|segment| segment.index()).collect();
    assert!(orphans.is_empty(), "closed without need: {orphans:?}, BIFROST_SEED={seed}");
}

/// No appender was passed over while the others went on: each has records in one of every few segments.
async fn require_fair(chain: &Chain, log: &Log, last: Lsn, seed: u64) -> anyhow::Result<()> {
    let mut writers: BTreeMap<_, (usize, usize)> = BTreeMap::new(); // segment seen last, most segments passed over
    let mut reader = log.read(ReadOptions { until: Some(last), ..ReadOptions::default() });
    let bases: Vec<Lsn> = chain.segments.iter().map(|segment| segment.base_lsn).collect();
    // Only those that hold work: a segment may be closed before anybody got there.
    let mut rank = 0;
    let mut place = 0;
    let mut full = 0;
    while let Some(event) = reader.next().await {
        let ReadEvent::Record(record) = event? else { continue };
        full += 1;
        while bases.get(place + 1).is_some_and(|base| *base <= record.lsn) {
            place += 1;
            if full >= PACE {
                rank += 1;
                full = 0;
            }
        }
        let (seen, passed) = writers.entry(record.writer).or_insert((0, 0));
        *passed = (*passed).max((rank - *seen).saturating_sub(1));
        *seen = rank;
    }
    let ended = writers.values().map(|(seen, passed)| (rank - seen).max(*passed)).max().unwrap_or(usize::MAX);
    println!("{rank} segments hold work; the appender that waited longest was passed over by {ended}");
    anyhow::ensure!(writers.len() == APPENDERS as usize, "only {} appenders wrote, BIFROST_SEED={seed}", writers.len());
    anyhow::ensure!(
        ended <= STARVED_MAX + rank / 4,
        "an appender was passed over by {ended} segments, BIFROST_SEED={seed}"
    );
    Ok(())
}
