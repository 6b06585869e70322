//! Many readers: at the ends of one log and of many, and of one backlog.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bifrost::{Log, LogOptions, Lsn, ReadEvent, ReadOptions, ReplicationProperty};
use futures_util::{StreamExt, stream};
use tokio::sync::Notify;
use tokio::time::timeout;

use super::appends::{alone, record};
use super::effort::{Effort, RECORD_BYTES};
use super::point::Point;
use super::processes::{PATIENCE, Processes};

/// A reader reads one copy: more servers would only have more of them.
const SERVERS: usize = 1;
/// What is written behind the part of the backlog that is read, so that no server has that in memory.
const BEHIND_BYTES: u64 = 96 << 20;
/// Records of one append while a backlog is written.
const TOGETHER: usize = 64;
/// Readers that are opened, or logs that are made, at once.
const AT_ONCE: usize = 64;

/// What all readers together were delivered.
#[derive(Debug, Default)]
struct Delivered {
    records: AtomicU64,
    more: Notify,
}

impl Delivered {
    async fn reach(&self, records: u64) {
        let reached = async {
            loop {
                let more = self.more.notified();
                if self.records.load(Ordering::Acquire) >= records {
                    return;
                }
                more.await;
            }
        };
        timeout(PATIENCE, reached).await.expect("everything is delivered in time");
    }

    /// Reads a log until its end, or for ever.
    async fn read(self: Arc<Self>, log: Log, options: ReadOptions) {
        let mut reader = log.read(options);
        while let Some(event) = reader.next().await {
            if let ReadEvent::Record(_) = event.expect("a log that can be read") {
                self.records.fetch_add(1, Ordering::AcqRel);
                self.more.notify_one();
            }
        }
    }
}

async fn make(processes: &Processes, logs: usize) -> (bifrost::Bifrost, Vec<Log>) {
    let client = processes.connect().await;
    let one = |_| async {
        let replication = ReplicationProperty::nodes(std::num::NonZeroU8::MIN);
        let options = LogOptions { replication: Some(replication), ..LogOptions::default() };
        client.create_unnamed_log(options).await.expect("a log")
    };
    let made = stream::iter(0..logs).map(one).buffer_unordered(AT_ONCE).collect().await;
    (client, made)
}

/// Readers at the end of `logs` logs, while records are appended one after the other.
pub async fn at_the_tail(load: &'static str, below: &Path, readers: usize, logs: usize, effort: &Effort) -> Point {
    let mut point = Point::new(load, readers as u64);
    let processes = Processes::start(SERVERS, below);
    let (client, made) = make(&processes, logs).await;
    let appenders: Vec<_> = made.iter().map(Log::appender).collect();
    for appender in &appenders {
        appender.append(record()).await.expect("acknowledged");
    }
    let before = processes.sample();
    let delivered = Arc::<Delivered>::default();
    let reading: Vec<_> = made
        .iter()
        .cycle()
        .take(readers)
        .map(|log| tokio::spawn(Arc::clone(&delivered).read(log.clone(), ReadOptions::default())))
        .collect();
    delivered.reach(readers as u64).await;
    let opened = processes.sample();
    point.add("open_cpu_us_per_reader", opened.since(before).cpu * 1e6 / readers as f64);
    point.add("memory_per_reader_bytes", (opened.resident - before.resident).max(0.0) / readers as f64);
    effort.told(&format!("{readers} readers are at the end of {logs} logs"));

    // As many appends for many readers as for few would be delivered for ever.
    let appends = effort.appends.min(effort.deliveries.div_ceil(readers.div_ceil(logs)));
    let before = processes.sample();
    let times = alone(&appenders, appends).await;
    let of_log = |log: usize| appends / logs + usize::from(log < appends % logs);
    let expected: usize = (0..readers).map(|reader| 1 + of_log(reader % logs)).sum();
    delivered.reach(expected as u64).await;
    let used = processes.sample().since(before);
    let deliveries = (expected - readers) as f64;
    point.add("append_cpu_us", used.cpu * 1e6 / appends as f64);
    point.add("delivery_cpu_us", used.cpu * 1e6 / deliveries.max(1.0));
    point.add("append_switches", used.switches / appends as f64);
    point.add("read_from_disk_bytes", used.read);
    point.add_times("append_alone_p50_ms", "append_alone_p99_ms", times);
    point.add("memory_mib", used.resident / f64::from(1 << 20));
    reading.iter().for_each(tokio::task::JoinHandle::abort);
    client.shutdown().await;
    point
}

/// Readers of the same old records, which no server has in memory as records.
pub async fn of_a_backlog(below: &Path, readers: usize, effort: &Effort) -> Point {
    let mut point = Point::new("backlog_readers", readers as u64);
    let processes = Processes::start(SERVERS, below);
    let (client, made) = make(&processes, 1).await;
    let behind = if effort.tells { BEHIND_BYTES } else { 0 };
    let records = effort.backlog_bytes / RECORD_BYTES as u64;
    let appender = made[0].appender();
    for _ in 0..(effort.backlog_bytes + behind).div_ceil((RECORD_BYTES * TOGETHER) as u64) {
        appender.append_batch(vec![record().into(); TOGETHER]).await.expect("acknowledged");
    }
    let before = processes.sample();
    let begun = Instant::now();
    let until = Lsn::try_from(records + 1).expect("not 0");
    let options = ReadOptions { until: Some(until), ..ReadOptions::default() };
    let delivered = Arc::<Delivered>::default();
    let reading: Vec<_> =
        (0..readers).map(|_| tokio::spawn(Arc::clone(&delivered).read(made[0].clone(), options))).collect();
    let mut resident = before.resident;
    let done = delivered.reach(records * readers as u64);
    tokio::pin!(done);
    while timeout(Duration::from_millis(100), &mut done).await.is_err() {
        resident = resident.max(processes.sample().resident);
    }
    let used = processes.sample().since(before);
    let mib = (records * readers as u64 * RECORD_BYTES as u64) as f64 / f64::from(1 << 20);
    point.add("cpu_us_per_mib", used.cpu * 1e6 / mib);
    point.add("switches_per_mib", used.switches / mib);
    point.add("read_from_disk_per_byte", used.read / effort.backlog_bytes as f64);
    point.add("mib_per_s", mib / begun.elapsed().as_secs_f64());
    point.add("memory_peak_mib", resident.max(used.resident) / f64::from(1 << 20));
    point.add("memory_per_reader_bytes", (resident.max(used.resident) - before.resident).max(0.0) / readers as f64);
    for reader in reading {
        reader.await.expect("it ends at its end");
    }
    client.shutdown().await;
    point
}
