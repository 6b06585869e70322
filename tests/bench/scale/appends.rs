//! Appends of one record each.

use std::time::{Duration, Instant};

use bifrost::Appender;
use bytes::Bytes;
use futures_util::{StreamExt, stream};

use super::effort::{Effort, RECORD_BYTES};
use super::point::Point;
use super::processes::Processes;

/// Appends at once.
const IN_FLIGHT: usize = 64;

pub fn record() -> Bytes {
    Bytes::from_static(&[b'r'; RECORD_BYTES])
}

/// What an append costs: some at once, by turns through all of these, and then one after the other.
pub async fn measure(point: &mut Point, processes: &Processes, open: &[Appender], effort: &Effort) {
    together(open, effort.appends / 10).await;
    let before = processes.sample();
    together(open, effort.appends).await;
    let used = processes.sample().since(before);
    let appends = effort.appends as f64;
    point.add("append_cpu_us", used.cpu * 1e6 / appends);
    point.add("append_switches", used.switches / appends);
    point.add("append_written_per_byte", used.written / (appends * RECORD_BYTES as f64));
    point.add_times("append_alone_p50_ms", "append_alone_p99_ms", alone(open, effort.alone).await);
}

async fn together(open: &[Appender], appends: usize) {
    let one = |number: usize| async move { open[number % open.len()].append(record()).await.expect("acknowledged") };
    let done = stream::iter(0..appends).map(one).buffer_unordered(IN_FLIGHT);
    done.for_each(|_| async {}).await;
}

/// The time of each of some appends, one after the other.
pub async fn alone(open: &[Appender], appends: usize) -> Vec<Duration> {
    let mut times = Vec::with_capacity(appends);
    for number in 0..appends {
        let begun = Instant::now();
        open[number % open.len()].append(record()).await.expect("acknowledged");
        times.push(begun.elapsed());
    }
    times
}
