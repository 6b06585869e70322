//! What the demo tells at the end: figures and verdicts, for people or as JSON.

use std::collections::BTreeMap;
use std::time::Duration;

use bifrost_types::{Chain, SegmentState};
use comfy_table::{CellAlignment, Table, presets};
use hdrhistogram::Histogram;
use serde::Serialize;

use crate::ledger::{Verdict, Verdicts};

/// The median, the 99th percentile and the maximum, in microseconds; zero of nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Times {
    /// How many were measured.
    pub count: u64,
    /// Half were at most this.
    pub p50_micros: u64,
    /// 99 of 100 were at most this.
    pub p99_micros: u64,
    /// The longest.
    pub max_micros: u64,
}

impl Times {
    pub(super) fn of(histogram: &Histogram<u64>) -> Self {
        Self {
            count: histogram.len(),
            p50_micros: histogram.value_at_quantile(0.5),
            p99_micros: histogram.value_at_quantile(0.99),
            max_micros: histogram.max(),
        }
    }

    pub(super) fn of_all(mut micros: Vec<u64>) -> Self {
        micros.sort_unstable();
        let count = micros.len();
        let at = |place: usize| micros.get(place.min(count.saturating_sub(1))).copied().unwrap_or(0);
        Self {
            count: u64::try_from(count).unwrap_or(u64::MAX),
            p50_micros: at(count / 2),
            p99_micros: at(count * 99 / 100),
            max_micros: at(count),
        }
    }
}

/// The verdict on one promise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PromiseReport {
    /// Which promise, from 1.
    pub number: usize,
    /// The promise, in short.
    pub promise: &'static str,
    /// Whether it held.
    pub holds: bool,
    /// What was checked, with counts.
    pub checked: String,
    /// How many breaches were found.
    pub breaches: u64,
    /// The first few, as sentences.
    pub breach_examples: Vec<String>,
}

/// The outcome of a run. The JSON form has the same fields.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Whether every promise held.
    pub ok: bool,
    /// The seed of payload sizes and restarts.
    pub seed: u64,
    /// How long was written, in seconds.
    pub seconds: f64,
    /// Appenders, each with `in_flight` appends in flight.
    pub appenders: u32,
    /// Appends in flight of each appender.
    pub in_flight: usize,
    /// Records that were acknowledged.
    pub records: u64,
    /// Payload bytes of them.
    pub payload_bytes: u64,
    /// Records a second.
    pub records_per_second: f64,
    /// Payload bytes a second, in units of 10^6.
    pub megabytes_per_second: f64,
    /// Records that earlier runs left on the log.
    pub earlier_records: u64,
    /// Appends that ended without an acknowledgement.
    pub appends_not_acknowledged: u64,
    /// From send to acknowledgement.
    pub append: Times,
    /// Segments of the chain.
    pub segments: usize,
    /// How many of them were closed for which reason by whom.
    pub closed: BTreeMap<String, u64>,
    /// Planned reconfigurations, from the call to its return.
    pub reconfiguration: Times,
    /// Planned reconfigurations that another one came before.
    pub reconfigurations_superseded: u64,
    /// The longest time without an acknowledged append, in microseconds.
    pub longest_gap_micros: u64,
    /// Log servers that were stopped and started, in order.
    pub restarted: Vec<String>,
    /// The most memory that the process had, in bytes, where the system tells.
    pub memory_peak_bytes: Option<u64>,
    /// A 4 KiB write with its fdatasync in the data directory, before the load: the median in microseconds.
    pub disk_sync_p50_micros: u64,
    /// One for each promise.
    pub promises: Vec<PromiseReport>,
    /// What else should be known, as sentences.
    pub notes: Vec<String>,
}

impl PromiseReport {
    pub(super) fn of_all(verdicts: &Verdicts) -> Vec<Self> {
        (1..).zip(&verdicts.promises).map(|(number, verdict)| Self::new(number, verdict)).collect()
    }

    fn new(number: usize, verdict: &Verdict) -> Self {
        Self {
            number,
            promise: verdict.promise,
            holds: verdict.holds(),
            checked: verdict.checked.clone(),
            breaches: verdict.breaches.count(),
            breach_examples: verdict.breaches.sentences().to_vec(),
        }
    }
}

impl Report {
    /// For machines: one object.
    ///
    /// # Errors
    /// When a figure is not a number.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string_pretty(self)
    }

    /// For people: a table, one line for each promise, notes, and the verdict.
    pub fn to_text(&self) -> String {
        let mut text = self.table().to_string();
        text.push_str("\n\n");
        for promise in &self.promises {
            let mark = if promise.holds { "ok    " } else { "BROKEN" };
            text += &format!("{mark} {}. {}: {}\n", promise.number, promise.promise, promise.checked);
            for example in &promise.breach_examples {
                text += &format!("          {example}\n");
            }
            let told = u64::try_from(promise.breach_examples.len()).unwrap_or(u64::MAX);
            if promise.breaches > told {
                text += &format!("          and {} more\n", grouped(promise.breaches - told));
            }
        }
        for note in &self.notes {
            text += &format!("note: {note}\n");
        }
        text
    }

    fn table(&self) -> Table {
        let micros = |micros| told(Duration::from_micros(micros));
        let times = |times: &Times| [times.p50_micros, times.p99_micros, times.max_micros].map(micros).join(" / ");
        let mut table = Table::new();
        table.load_style(presets::UTF8_FULL_CONDENSED);
        let mut row = |name: &str, value: String| {
            table.add_row([name.to_owned(), value]);
        };
        row("records acknowledged", grouped(self.records));
        row("payload", format!("{} bytes", grouped(self.payload_bytes)));
        row(
            "throughput",
            format!("{} records/s, {:.1} MB/s", grouped(self.records_per_second as u64), self.megabytes_per_second),
        );
        row("append p50 / p99 / max", times(&self.append));
        row("segments", grouped(u64::try_from(self.segments).unwrap_or(u64::MAX)));
        for (reason, count) in &self.closed {
            row(&format!("  closed by {reason}"), grouped(*count));
        }
        row(
            &format!("reconfiguration p50 / p99 / max, of {}", self.reconfiguration.count),
            times(&self.reconfiguration),
        );
        row("longest gap without an acknowledged append", micros(self.longest_gap_micros));
        row(
            "log servers restarted",
            match self.restarted.is_empty() {
                true => "none".to_owned(),
                false => self.restarted.join(", "),
            },
        );
        let memory = self
            .memory_peak_bytes
            .map_or("not told by the system".to_owned(), |bytes| format!("{} MiB", grouped(bytes >> 20)));
        row("peak memory", memory);
        row("this disk: 4 KiB write + fdatasync p50", micros(self.disk_sync_p50_micros));
        if let Some(values) = table.column_mut(1) {
            values.set_cell_alignment(CellAlignment::Right);
        }
        table
    }
}

/// How many segments were closed for which reason by whom: `operator: requested`.
pub(super) fn closed_by(chain: &Chain) -> BTreeMap<String, u64> {
    let mut closed = BTreeMap::new();
    for segment in &chain.segments {
        if let SegmentState::Sealed { actor, reason, .. } = &segment.state {
            *closed.entry(format!("{actor}: {reason}")).or_default() += 1;
        }
    }
    closed
}

/// A duration in the unit that fits: `350 µs`, `12.3 ms`, `1.50 s`.
fn told(duration: Duration) -> String {
    let micros = duration.as_micros();
    match micros {
        0..1_000 => format!("{micros} µs"),
        1_000..1_000_000 => format!("{:.1} ms", duration.as_secs_f64() * 1e3),
        _ => format!("{:.2} s", duration.as_secs_f64()),
    }
}

/// A number with its digits in groups of three.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_told_in_units_that_people_read() {
        for (number, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(number), text);
        }
        for (micros, text) in [(350, "350 µs"), (12_300, "12.3 ms"), (1_500_000, "1.50 s")] {
            assert_eq!(told(Duration::from_micros(micros)), text);
        }
    }

    #[test]
    fn times_of_few_and_of_none() {
        assert_eq!(Times::of_all(vec![]), Times { count: 0, p50_micros: 0, p99_micros: 0, max_micros: 0 });
        let times = Times::of_all(vec![3, 1, 2]);
        assert_eq!(times, Times { count: 3, p50_micros: 2, p99_micros: 3, max_micros: 3 });
    }
}
