//! Figures, for people and for scripts.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;
use tokio::time::Instant;

use super::LogsArgs;
use crate::cli::context::{Context, Output};
use crate::cli::error::CliError;

/// Longer ones count as this: ten minutes.
const NANOS_MAX: u64 = 600_000_000_000;

/// Times of operations.
#[derive(Debug, Clone)]
pub(super) struct Times {
    nanos: Histogram<u64>,
}

impl Default for Times {
    fn default() -> Self {
        let nanos = Histogram::new_with_bounds(1, NANOS_MAX, 3);
        Self { nanos: nanos.expect("the bounds are more than a factor of two apart, and three digits are allowed") }
    }
}

impl Times {
    pub(super) fn record(&mut self, time: Duration) {
        self.nanos.saturating_record(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }

    pub(super) fn since(&mut self, begun: Instant) {
        self.record(begun.elapsed());
    }

    pub(super) fn add(&mut self, others: &Self) {
        self.nanos.add(&others.nanos).expect("both have the same bounds");
    }

    pub(super) fn len(&self) -> u64 {
        self.nanos.len()
    }

    pub(super) fn percentiles(&self) -> Percentiles {
        let at = |share: f64| self.nanos.value_at_quantile(share) as f64 / 1e3;
        Percentiles {
            count: self.nanos.len(),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: self.nanos.max() as f64 / 1e3,
        }
    }
}

/// Of times, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Percentiles {
    pub(super) count: u64,
    pub(super) p50: f64,
    pub(super) p90: f64,
    pub(super) p99: f64,
    pub(super) p999: f64,
    pub(super) max: f64,
}

/// What was done, how much of it in how long.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Rate {
    pub(super) seconds: f64,
    pub(super) records: u64,
    pub(super) records_per_second: f64,
    /// Of payloads, in millions.
    pub(super) megabytes_per_second: f64,
}

impl Rate {
    pub(super) fn of(records: u64, size: usize, time: Duration) -> Self {
        let seconds = time.as_secs_f64().max(1e-9);
        let records_per_second = records as f64 / seconds;
        Self { seconds, records, records_per_second, megabytes_per_second: records_per_second * size as f64 / 1e6 }
    }
}

/// What every report begins with.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Setting {
    pub(super) bench: &'static str,
    pub(super) logs: u32,
    pub(super) size: usize,
    pub(super) replication: Option<String>,
}

impl Setting {
    pub(super) fn of(bench: &'static str, args: &LogsArgs) -> Self {
        let replication = args.replication.as_ref().map(ToString::to_string);
        Self { bench, logs: args.logs.get(), size: args.size, replication }
    }
}

/// A result that has both forms.
pub(super) trait Report: Serialize {
    /// Names and values, a line each.
    fn rows(&self) -> Vec<(String, String)>;
}

pub(super) fn print(context: &Context, report: &impl Report) -> Result<(), CliError> {
    if context.output() == Output::Json {
        return context.print_json(report);
    }
    let rows = report.rows();
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let lines: String = rows.iter().map(|(name, value)| format!("{name:width$}  {value}\n")).collect();
    context.print(&lines)
}

pub(super) fn rate_rows(rate: &Rate) -> Vec<(String, String)> {
    vec![
        ("records".to_owned(), format!("{} in {:.1} s", rate.records, rate.seconds)),
        ("rate".to_owned(), format!("{:.0} records/s, {:.1} MB/s", rate.records_per_second, rate.megabytes_per_second)),
    ]
}

pub(super) fn times_row(name: &str, times: &Percentiles) -> (String, String) {
    let Percentiles { p50, p90, p99, p999, max, .. } = times;
    let ms = |micros: &f64| format!("{:.3}", micros / 1e3);
    let shown = [p50, p90, p99, p999, max].map(ms).join(" / ");
    (format!("{name} ms, p50 / p90 / p99 / p99.9 / max"), shown)
}
