//! Many logs: what making them costs, the first append to each, an append while all the others are there, and a restart.

use std::path::Path;
use std::time::{Duration, Instant};

use bifrost::catalog::Catalog;
use bifrost::metadata_pool::MetadataPool;
use bifrost::{Appender, Bifrost, LogId, LogOptions};
use bifrost_wire::grpc::ClientOptions;
use futures_util::{StreamExt, stream};
use tokio::time::sleep;

use super::appends::{self, record};
use super::effort::Effort;
use super::point::Point;
use super::processes::Processes;

/// Copies, leader and followers of metadata, and a sequencer with peers are part of what is measured.
const SERVERS: usize = 3;
/// Logs that are made, or appended to for the first time, at once.
const AT_ONCE: usize = 64;
/// Logs with an open appender at once, at every point alike but that of one log, whose appends share batches.
const OPEN_MAX: usize = 100;
/// How long it is waited at most until every log has a sequencer that lives.
const CARE_MAX: Duration = Duration::from_secs(300);
/// Between two looks whether they have.
const LOOK: Duration = Duration::from_millis(200);

pub async fn measure(below: &Path, logs: usize, effort: &Effort) -> Point {
    let count = logs as f64;
    let mut point = Point::new("logs", logs as u64);
    let mut processes = Processes::start(SERVERS, below);
    let client = processes.connect().await;
    let empty = processes.sample();

    let begun = Instant::now();
    let ids = make(&client, logs).await;
    let made = processes.sample();
    let taken = begun.elapsed();
    point.add("create_cpu_us", made.since(empty).cpu * 1e6 / count);
    point.add("create_written_bytes", made.since(empty).written / count);
    point.add("create_wall_ms", taken.as_secs_f64() * 1e3 / count);
    effort.told(&format!("{logs} logs were made in {taken:.1?}"));

    let begun = Instant::now();
    stream::iter(&ids).map(|id| first_append(&client, *id)).buffer_unordered(AT_ONCE).collect::<Vec<()>>().await;
    let touched = processes.sample();
    let taken = begun.elapsed();
    point.add("first_append_cpu_us", touched.since(made).cpu * 1e6 / count);
    point.add("first_append_wall_ms", taken.as_secs_f64() * 1e3 / count);
    point.add("memory_mib", touched.resident / f64::from(1 << 20));
    point.add("memory_per_log_bytes", (touched.resident - empty.resident) / count);
    effort.told(&format!("each had an append after {taken:.1?}"));

    sleep(effort.idle).await;
    let idle = processes.sample().since(touched);
    point.add("idle_cpu_ms_per_s", idle.cpu * 1e3 / effort.idle.as_secs_f64());
    point.add("idle_switches_per_s", idle.switches / effort.idle.as_secs_f64());

    let open = open(&client, &ids).await;
    appends::measure(&mut point, &processes, &open, effort).await;
    point.add("disk_mib", processes.disk_bytes() as f64 / f64::from(1 << 20));
    drop(open);
    client.shutdown().await;

    let first = ids[0];
    let killed = processes.restarts(&mut point, first, effort).await;
    let (left, took) = await_sequencers(&processes).await;
    let cared = processes.sample();
    point.add("care_s", took.as_secs_f64());
    point.add("care_cpu_us_per_log", (cared.cpu - killed.cpu) * 1e6 / (count - left as f64).max(1.0));
    point.add("care_left_logs", left as f64);
    point.add("memory_after_care_mib", cared.resident / f64::from(1 << 20));
    effort.told(&format!("{left} logs without a sequencer that lives after {took:.1?}"));
    point
}

async fn make(client: &Bifrost, logs: usize) -> Vec<LogId> {
    let one = |_| async { client.create_unnamed_log(LogOptions::default()).await.expect("a log").id() };
    stream::iter(0..logs).map(one).buffer_unordered(AT_ONCE).collect().await
}

async fn first_append(client: &Bifrost, log: LogId) {
    let log = client.log_by_id(log).await.expect("metadata answers");
    log.appender().append(record()).await.expect("it takes appends");
}

/// Appenders of logs from all over the range.
async fn open(client: &Bifrost, ids: &[LogId]) -> Vec<Appender> {
    let step = ids.len().div_ceil(OPEN_MAX);
    let one = |id: &LogId| {
        let id = *id;
        async move { client.log_by_id(id).await.expect("metadata answers").appender() }
    };
    stream::iter(ids.iter().step_by(step)).map(one).buffer_unordered(AT_ONCE).collect().await
}

/// Waits until no log has a sequencer of an earlier life, and says how many have when that takes too long.
async fn await_sequencers(processes: &Processes) -> (usize, Duration) {
    let pool = MetadataPool::connect_lazy(processes.addresses(), &ClientOptions::default()).expect("addresses");
    let catalog = Catalog::new(std::sync::Arc::new(pool));
    let begun = Instant::now();
    loop {
        let looking = Instant::now();
        let left = orphaned(&catalog).await;
        if left == Some(0) || begun.elapsed() > CARE_MAX {
            return (left.unwrap_or(usize::MAX), begun.elapsed());
        }
        // A look lists all chains: it must not be what the cluster works on.
        sleep(LOOK.max(looking.elapsed() * 4)).await;
    }
}

/// Logs whose sequencer lived before the kill; `None` if metadata does not answer.
async fn orphaned(catalog: &Catalog) -> Option<usize> {
    let (records, _) = catalog.nodes().await.ok()?;
    let (mut left, mut after) = (0, None);
    loop {
        let page = catalog.logs(after, 500).await.ok()?;
        let Some(last) = page.last() else { return Some(left) };
        after = Some(last.chain.log);
        let lives = |life| records.iter().any(|record| record.id == life);
        left +=
            page.iter().filter_map(|stored| stored.chain.last()).filter(|last| !lives(last.params.sequencer)).count();
    }
}
