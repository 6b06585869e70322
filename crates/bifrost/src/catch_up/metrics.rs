//! Metrics of catching up. Labels never carry ids of logs.

use metrics::{Counter, Gauge, counter, describe_counter, describe_gauge, gauge};

use super::progress::Progress;

const BYTES: &str = "bifrost_catch_up_bytes_total";
const RECORDS: &str = "bifrost_catch_up_records_total";
const FAILURES: &str = "bifrost_catch_up_failures_total";
const SEGMENTS_LEFT: &str = "bifrost_catch_up_segments_left_count";
const RECORDS_LEFT: &str = "bifrost_catch_up_records_left_count";
const BYTES_LEFT: &str = "bifrost_catch_up_left_bytes";

/// Handles, made once for each disk.
#[derive(Clone)]
pub(super) struct Metrics {
    pub(super) bytes: Counter,
    pub(super) records: Counter,
    pub(super) failures: Counter,
    segments_left: Gauge,
    records_left: Gauge,
    bytes_left: Gauge,
}

impl Metrics {
    pub(super) fn new() -> Self {
        describe_counter!(BYTES, "bytes of batches that disks of this process got from other copies");
        describe_counter!(RECORDS, "records that disks of this process got from other copies");
        describe_counter!(FAILURES, "steps of catching up that were in vain and are tried again");
        describe_gauge!(SEGMENTS_LEFT, "closed segments whose copy here is not known to be whole");
        describe_gauge!(RECORDS_LEFT, "records of closed segments that are known to be missing here");
        describe_gauge!(BYTES_LEFT, "bytes of closed segments that are known to be missing here, estimated");
        Self {
            bytes: counter!(BYTES),
            records: counter!(RECORDS),
            failures: counter!(FAILURES),
            segments_left: gauge!(SEGMENTS_LEFT),
            records_left: gauge!(RECORDS_LEFT),
            bytes_left: gauge!(BYTES_LEFT),
        }
    }

    pub(super) fn show(&self, progress: &Progress) {
        self.segments_left.set(progress.segments_left as f64);
        self.records_left.set(progress.records_left as f64);
        self.bytes_left.set(progress.bytes_left.unwrap_or(0) as f64);
    }
}
