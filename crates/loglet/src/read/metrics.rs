//! Metrics of readers.

use std::sync::Once;

use metrics::{counter, describe_counter};

const CORRUPT: &str = "bifrost_loglet_read_corrupt_ranges_total";
const LAGGING: &str = "bifrost_loglet_read_lagging_copies_total";

/// Says what the metrics mean; once per process is enough.
pub(super) fn describe() {
    static DESCRIBED: Once = Once::new();
    DESCRIBED.call_once(|| {
        describe_counter!(CORRUPT, "ranges that a copy had damaged and that were read from another copy, or are lost");
        describe_counter!(LAGGING, "times that a reader left a copy which was silent about something readable");
    });
}

/// A copy had a damaged range.
pub(super) fn corrupt() {
    counter!(CORRUPT).increment(1);
}

/// A copy was left for being silent.
pub(super) fn lagging() {
    counter!(LAGGING).increment(1);
}
