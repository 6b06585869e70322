//! Metrics of this crate. Nothing here is on the path of an append.

use ::metrics::{Unit, counter, describe_counter, describe_histogram, histogram};

use crate::close::Closed;

const CLOSE_SEAL_SECONDS: &str = "bifrost_loglet_close_seal_seconds";
const CLOSE_REPAIR_SECONDS: &str = "bifrost_loglet_close_repair_seconds";
const REPAIRED_BYTES: &str = "bifrost_loglet_repaired_bytes_total";
const CLOSES_BLOCKED: &str = "bifrost_loglet_closes_blocked_total";

/// Describes the metrics of this crate to the recorder of the process.
pub fn describe() {
    describe_histogram!(CLOSE_SEAL_SECONDS, Unit::Seconds, "Closing a loglet: until an f-majority was sealed");
    describe_histogram!(CLOSE_REPAIR_SECONDS, Unit::Seconds, "Closing a loglet: until all was on a write quorum");
    describe_counter!(REPAIRED_BYTES, Unit::Bytes, "Bytes of batches copied while closing loglets");
    describe_counter!(CLOSES_BLOCKED, Unit::Count, "Times that closing a loglet began to wait for other disks");
}

pub(crate) fn closed(closed: &Closed) {
    histogram!(CLOSE_SEAL_SECONDS).record(closed.seal_time);
    histogram!(CLOSE_REPAIR_SECONDS).record(closed.repair_time);
    counter!(REPAIRED_BYTES).increment(closed.repaired_bytes);
}

pub(crate) fn close_blocked() {
    counter!(CLOSES_BLOCKED).increment(1);
}
