//! A long log: what an append costs at its end, a restart with it, and what trimming gives back.

use std::collections::VecDeque;
use std::num::NonZeroU8;
use std::path::Path;
use std::time::{Duration, Instant};

use bifrost::{Appender, Log, LogOptions, Lsn, ReadEvent, ReadOptions, ReplicationProperty, Ticket};
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::time::sleep;

use super::appends::alone;
use super::effort::Effort;
use super::point::Point;
use super::processes::Processes;

/// Each copy is as long: more servers would only have more of them.
const SERVERS: usize = 1;
/// A record of the history, and how many are in flight.
const HISTORY_RECORD_BYTES: usize = 64 << 10;
const IN_FLIGHT: usize = 64;
/// The part of the history that is trimmed.
const TRIMMED_TENTHS: u64 = 9;
/// Whole files that a server may keep.
const KEPT_BYTES: u64 = 5 << 28;
/// How long the space may take to come back.
const GIVES_BACK_MAX: Duration = Duration::from_secs(180);

pub async fn measure(below: &Path, bytes: u64, effort: &Effort) -> Point {
    let mut point = Point::new("history", bytes);
    let mut processes = Processes::start(SERVERS, below);
    let client = processes.connect().await;
    let options = LogOptions { replication: Some(ReplicationProperty::nodes(NonZeroU8::MIN)), ..LogOptions::default() };
    let log = client.create_unnamed_log(options.clone()).await.expect("a log");
    let appender = log.appender();
    let before = processes.sample();
    let (disk_before, begun) = (processes.disk_bytes(), Instant::now());
    let records = bytes.div_ceil(HISTORY_RECORD_BYTES as u64);
    write(&appender, records).await;
    let written = processes.sample().since(before);
    let taken = begun.elapsed();
    let mib = bytes as f64 / f64::from(1 << 20);
    point.add("write_cpu_ms_per_mib", written.cpu * 1e3 / mib);
    point.add("write_mib_per_s", mib / taken.as_secs_f64());
    point.add("written_per_byte", written.written / bytes as f64);
    point.add("memory_mib", written.resident / f64::from(1 << 20));
    let disk = processes.disk_bytes();
    point.add("disk_per_byte", (disk - disk_before) as f64 / bytes as f64);
    effort.told(&format!("{bytes} bytes were written in {taken:.1?}"));

    let before = processes.sample();
    let times = alone(&[appender], effort.alone).await;
    point.add("append_cpu_us", processes.sample().since(before).cpu * 1e6 / effort.alone as f64);
    point.add_times("append_alone_p50_ms", "append_alone_p99_ms", times);
    let id = log.id();
    drop(log);
    client.shutdown().await;

    processes.restarts(&mut point, id, effort).await;
    point.add("memory_after_start_mib", processes.sample().resident / f64::from(1 << 20));

    let client = processes.connect().await;
    let log = client.log_by_id(id).await.expect("metadata answers");
    let begun = Instant::now();
    first_record(&log, Lsn::FIRST).await;
    point.add("first_record_ms", begun.elapsed().as_secs_f64() * 1e3);
    let (before, begun, full) = (processes.sample(), Instant::now(), processes.disk_bytes());
    let trimmed = records * TRIMMED_TENTHS / 10;
    log.trim(Lsn::try_from(trimmed.max(1)).expect("not 0")).await.expect("trimmed");
    point.add("trim_ms", begun.elapsed().as_secs_f64() * 1e3);
    // What stays: the last tenth, and as much again for files that are partly needed; and some that are kept to be used again.
    let wanted = full.saturating_sub(bytes * (TRIMMED_TENTHS - 1) / 10) + KEPT_BYTES;
    let mut left = processes.disk_bytes();
    while left > wanted && begun.elapsed() < GIVES_BACK_MAX {
        sleep(Duration::from_millis(100)).await;
        left = processes.disk_bytes();
    }
    point.add("trim_gives_back_s", begun.elapsed().as_secs_f64());
    point.add("trim_given_back_per_byte", (full.saturating_sub(left)) as f64 / bytes as f64);
    point.add("trim_written_per_byte", processes.sample().since(before).written / bytes as f64);
    client.shutdown().await;
    point
}

async fn write(appender: &Appender, records: u64) {
    let record = Bytes::from(vec![b'h'; HISTORY_RECORD_BYTES]);
    let mut waiting: VecDeque<Ticket> = VecDeque::with_capacity(IN_FLIGHT);
    for _ in 0..records {
        if waiting.len() == IN_FLIGHT
            && let Some(oldest) = waiting.pop_front()
        {
            oldest.await.expect("acknowledged");
        }
        waiting.push_back(appender.reserve(record.len()).await.expect("room").send(record.clone()));
    }
    for ticket in waiting {
        ticket.await.expect("acknowledged");
    }
}

async fn first_record(log: &Log, from: Lsn) {
    let mut reader = log.read(ReadOptions { from, ..ReadOptions::default() });
    let event = reader.next().await.expect("a log that goes on").expect("a log that can be read");
    assert!(matches!(event, ReadEvent::Record(_)), "{event:?}");
}
