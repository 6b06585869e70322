//! One log of many segments: what the next move costs, an append, a read through all of them, and a restart.

use std::path::Path;
use std::time::{Duration, Instant};

use bifrost::{Appender, Log, LogOptions, Lsn, ReadEvent, ReadOptions, ReconfigureOptions};
use futures_util::StreamExt;

use super::appends::{self, record};
use super::effort::Effort;
use super::point::Point;
use super::processes::Processes;

/// Copies, and members of metadata, are part of what is measured.
const SERVERS: usize = 3;
/// Of all moves, one in so many is among the first ones, and as many are among the last ones.
const PART: usize = 10;
/// Figures of those.
const FIRST_MOVES: [&str; 3] = ["first_moves_p50_ms", "first_moves_p99_ms", "first_moves_cpu_us"];
const LAST_MOVES: [&str; 3] = ["last_moves_p50_ms", "last_moves_p99_ms", "last_moves_cpu_us"];

pub async fn measure(below: &Path, segments: usize, effort: &Effort) -> Point {
    let mut point = Point::new("segments", segments as u64);
    let mut processes = Processes::start(SERVERS, below);
    let client = processes.connect().await;
    let log = client.create_unnamed_log(LogOptions::default()).await.expect("a log");
    let appender = log.appender();
    appender.append(record()).await.expect("acknowledged");

    let part = segments.div_ceil(PART);
    moved(&mut point, FIRST_MOVES, &processes, &log, &appender, part).await;
    move_often(&log, &appender, segments.saturating_sub(2 * part)).await;
    moved(&mut point, LAST_MOVES, &processes, &log, &appender, part).await;
    let chain = log.describe().await.expect("metadata answers");
    point.add("segments", chain.segments.len() as f64);
    point.add("memory_mib", processes.sample().resident / f64::from(1 << 20));
    effort.told(&format!("the log has {} segments", chain.segments.len()));

    appends::measure(&mut point, &processes, &[appender], effort).await;
    drop(log);
    client.shutdown().await;
    processes.restarts(&mut point, chain.log, effort).await;

    let client = processes.connect().await;
    let log = client.log_by_id(chain.log).await.expect("metadata answers");
    let before = processes.sample();
    let begun = Instant::now();
    let until = chain.segments.last().expect("it has segments").base_lsn;
    let mut reader = log.read(ReadOptions { until: Some(until), ..ReadOptions::default() });
    let mut records = 0_u64;
    while let Some(event) = reader.next().await {
        if let ReadEvent::Record(_) = event.expect("a log that can be read") {
            if records == 0 {
                point.add("first_record_ms", begun.elapsed().as_secs_f64() * 1e3);
            }
            records += 1;
        }
    }
    assert_eq!(Some(records), until.distance_from(Lsn::FIRST), "all of it");
    let closed = (chain.segments.len() - 1).max(1) as f64;
    point.add("read_segment_ms", begun.elapsed().as_secs_f64() * 1e3 / closed);
    point.add("read_segment_cpu_us", processes.sample().since(before).cpu * 1e6 / closed);
    client.shutdown().await;
    point
}

/// So many moves, and what one of them costs.
async fn moved(
    point: &mut Point,
    names: [&'static str; 3],
    processes: &Processes,
    log: &Log,
    appender: &Appender,
    moves: usize,
) {
    let before = processes.sample();
    let times = move_often(log, appender, moves).await;
    let [p50, p99, cpu] = names;
    point.add_times(p50, p99, times);
    point.add(cpu, processes.sample().since(before).cpu * 1e6 / moves as f64);
}

/// Moves a log, and appends a record to each of its segments.
async fn move_often(log: &Log, appender: &Appender, moves: usize) -> Vec<Duration> {
    let mut times = Vec::with_capacity(moves);
    for _ in 0..moves {
        let begun = Instant::now();
        log.reconfigure(ReconfigureOptions::default()).await.expect("it moves");
        times.push(begun.elapsed());
        appender.append(record()).await.expect("acknowledged");
    }
    times
}
