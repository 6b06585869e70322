//! The table at the end.

use std::fmt;
use std::time::Duration;

use crate::canary::BareGroup;
use crate::counters::Sums;
use crate::process::Usage;
use crate::work::Latencies;

/// What was measured in one cell.
#[derive(Debug, Clone)]
pub struct Row {
    /// Back end and work.
    pub cell: String,
    /// Latency of each operation; empty where only the rate counts.
    pub latencies: Latencies,
    /// Records appended or read.
    pub records: u64,
    /// Time that it took.
    pub took: Duration,
    /// The canary's median before the cell.
    pub canary_before: Duration,
    /// The canary's median after the cell.
    pub canary_after: Duration,
    /// Of groups of the same size in a bare file, taken between runs; for one copy only.
    pub bare_groups: Vec<BareGroup>,
    /// What the process took from the machine, servers included.
    pub usage: Usage,
    /// The product's metrics before the cell.
    pub sums_before: Sums,
    /// The product's metrics after the cell.
    pub sums_after: Sums,
}

impl Row {
    fn per_record(&self, amount: f64) -> f64 {
        if self.records == 0 { 0.0 } else { amount / self.records as f64 }
    }

    fn grown(&self, name: &str) -> f64 {
        self.sums_after.grown(&self.sums_before, name)
    }

    fn group_bytes(&self) -> f64 {
        self.sums_after.mean(&self.sums_before, GROUP_BYTES)
    }

    /// The rate in bytes, of that of a bare file with the median time of a group.
    fn of_bare(&self, time: fn(&BareGroup) -> Duration) -> Option<f64> {
        let mut times: Vec<Duration> = self.bare_groups.iter().map(time).collect();
        times.sort_unstable();
        let bare = self.group_bytes() / times.get(times.len() / 2)?.as_secs_f64();
        Some(self.grown(GROUP_BYTES) / self.took.as_secs_f64() / bare)
    }

    /// The mean of both canaries.
    fn canary(&self) -> Duration {
        (self.canary_before + self.canary_after) / 2
    }
}

/// All cells, as a table with a legend.
#[derive(Debug, Default)]
pub struct Summary {
    rows: Vec<Row>,
}

impl Summary {
    /// Adds a cell.
    pub fn push(&mut self, row: Row) {
        self.rows.push(row);
    }

    /// Whether nothing was measured.
    pub const fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}

/// The metric that says how large groups are.
pub const GROUP_BYTES: &str = "bifrost_logserver_group_bytes";

const LEGEND: &str = "\
us: microseconds. canary: median of 4 KiB write + fdatasync before and after the cell. ratio: p50 / mean of both.
Per record, all servers and the client together: cpu us, context switches, store messages from the sequencer.
group: batches per fsync. commit us: mean time of one write and fsync of a log server.
of bare: bytes per second, of those of a bare preallocated file with groups of the same size; from ordinary memory, huge pages.";

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<40} {:>8} {:>8} {:>9} {:>11} {:>6} {:>7} {:>8} {:>8} {:>6} {:>9} {:>9}",
            "cell",
            "p50 us",
            "p99 us",
            "records/s",
            "canary us",
            "ratio",
            "cpu us",
            "switches",
            "messages",
            "group",
            "commit us",
            "of bare"
        )?;
        for row in &self.rows {
            let rate = row.records as f64 / row.took.as_secs_f64().max(f64::MIN_POSITIVE);
            let canary = format!("{} {}", row.canary_before.as_micros(), row.canary_after.as_micros());
            let (p50, p99, ratio) = if row.latencies.is_empty() {
                ("-".to_owned(), "-".to_owned(), "-".to_owned())
            } else {
                let p50 = row.latencies.quantile(0.5);
                let ratio = p50.as_secs_f64() / row.canary().as_secs_f64().max(f64::MIN_POSITIVE);
                (
                    p50.as_micros().to_string(),
                    row.latencies.quantile(0.99).as_micros().to_string(),
                    format!("{ratio:.2}"),
                )
            };
            let of_bare = row.of_bare(|bare| bare.ordinary).zip(row.of_bare(|bare| bare.huge_pages));
            let of_bare = of_bare.map_or_else(|| "-".to_owned(), |(ordinary, huge)| format!("{ordinary:.2} {huge:.2}"));
            writeln!(
                f,
                "{:<40} {:>8} {:>8} {:>9.0} {:>11} {:>6} {:>7.1} {:>8.2} {:>8.2} {:>6.1} {:>9.0} {:>9}",
                row.cell,
                p50,
                p99,
                rate,
                canary,
                ratio,
                row.per_record(row.usage.cpu.as_secs_f64() * 1e6),
                row.per_record(row.usage.switches as f64),
                row.per_record(row.grown("bifrost_sequencer_store_messages_total")),
                row.sums_after.mean(&row.sums_before, "bifrost_logserver_group_batches"),
                row.sums_after.mean(&row.sums_before, "bifrost_logserver_commit_seconds") * 1e6,
                of_bare,
            )?;
        }
        f.write_str(LEGEND)
    }
}
