//! Metrics of catching up. Labels never carry ids of logs.

use metrics::{Counter, Gauge, counter, describe_counter, describe_gauge, gauge};

use super::progress::{CatchUpError, Progress};
use crate::clock::now_millis;

const BYTES: &str = "bifrost_catch_up_bytes_total";
const RECORDS: &str = "bifrost_catch_up_records_total";
const FAILURES: &str = "bifrost_catch_up_failures_total";
/// Which error.
const ERROR: &str = "error";
const DONE: &str = "bifrost_catch_up_done_bytes";
const PERCENT: &str = "bifrost_catch_up_done_percent";
const LAST_BYTE: &str = "bifrost_catch_up_last_byte_timestamp_seconds";
const SEGMENTS_LEFT: &str = "bifrost_catch_up_segments_left_count";
const RECORDS_LEFT: &str = "bifrost_catch_up_records_left_count";
const BYTES_LEFT: &str = "bifrost_catch_up_left_bytes";

/// Handles, made once for each disk.
#[derive(Clone)]
pub(super) struct Metrics {
    bytes: Counter,
    pub(super) records: Counter,
    done_bytes: Gauge,
    percent: Gauge,
    last_byte: Gauge,
    segments_left: Gauge,
    records_left: Gauge,
    bytes_left: Gauge,
}

impl Metrics {
    pub(super) fn new() -> Self {
        describe_counter!(BYTES, "bytes of batches that disks of this process got from other copies");
        describe_counter!(RECORDS, "records that disks of this process got from other copies");
        describe_counter!(FAILURES, "steps of catching up that were in vain and are tried again, by error");
        describe_gauge!(DONE, "bytes that came since there was last nothing to do");
        describe_gauge!(PERCENT, "records done of those to do; 100 when there is nothing to do");
        describe_gauge!(LAST_BYTE, "when the last batch came, in seconds since the Unix epoch; 0 before the first one");
        describe_gauge!(SEGMENTS_LEFT, "closed segments whose copy here is not known to be whole");
        describe_gauge!(RECORDS_LEFT, "records of closed segments that are known to be missing here");
        describe_gauge!(BYTES_LEFT, "bytes of closed segments that are known to be missing here, estimated");
        Self {
            bytes: counter!(BYTES),
            records: counter!(RECORDS),
            done_bytes: gauge!(DONE),
            percent: gauge!(PERCENT),
            last_byte: gauge!(LAST_BYTE),
            segments_left: gauge!(SEGMENTS_LEFT),
            records_left: gauge!(RECORDS_LEFT),
            bytes_left: gauge!(BYTES_LEFT),
        }
    }

    /// Something came.
    pub(super) fn got(&self, bytes: u64) {
        self.bytes.increment(bytes);
        self.last_byte.set(now_millis() as f64 / 1e3);
    }

    /// A step was in vain.
    pub(super) fn failed(error: &CatchUpError) {
        counter!(FAILURES, ERROR => kind(error)).increment(1);
    }

    pub(super) fn show(&self, progress: &Progress) {
        self.segments_left.set(progress.segments_left as f64);
        self.records_left.set(progress.records_left as f64);
        self.bytes_left.set(progress.bytes_left.unwrap_or(0) as f64);
        self.done_bytes.set(progress.bytes_done as f64);
        self.percent.set(f64::from(progress.percent()));
    }
}

const fn kind(error: &CatchUpError) -> &'static str {
    match error {
        CatchUpError::NoSource { .. } => "no_source",
        CatchUpError::Read { .. } => "read",
        CatchUpError::Here { .. } => "refused_here",
        CatchUpError::Unreadable { .. } => "unreadable",
        CatchUpError::DeadlinePassed { .. } => "deadline",
    }
}
