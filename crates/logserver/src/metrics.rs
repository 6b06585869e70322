//! What a log server counts. Names are `bifrost_logserver_<what>_<unit>`; labels are enums, never ids of logs.

use bifrost_wire::log_server::CopyError;
use metrics::{
    Counter, Gauge, Histogram, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};

use crate::space::Fullness;

/// Bytes of batches per group commit.
pub const GROUP_BYTES: &str = "bifrost_logserver_group_bytes";
/// Batches per group commit.
pub const GROUP_BATCHES: &str = "bifrost_logserver_group_batches";
/// Time of a group commit: one write and one fsync.
pub const COMMIT_SECONDS: &str = "bifrost_logserver_commit_seconds";
/// Requests that were refused, by `kind`.
pub const REFUSED: &str = "bifrost_logserver_refused_total";
/// Batches that could not be read back or whose checksum does not match.
pub const CORRUPT_BATCHES: &str = "bifrost_logserver_corrupt_batches_total";
/// Stores of other bytes than those stored (L4): two sequencers, or one that forgot.
pub const CONFLICTS: &str = "bifrost_logserver_conflicts_total";
/// Decided tails that contradict what this copy knows: two deciders for one segment (C1).
pub const CONTRADICTIONS: &str = "bifrost_logserver_contradicting_tails_total";
/// Store streams that were dropped because their peer took no replies.
pub const DROPPED_STREAMS: &str = "bifrost_logserver_dropped_streams_total";
/// Bytes of batches sent to readers.
pub const READ_BYTES: &str = "bifrost_logserver_read_bytes_total";
/// Bytes free on the file system at the last look.
pub const DISK_FREE_BYTES: &str = "bifrost_logserver_disk_free_bytes";
/// How full the disk is: 0 ample, 1 low (no new loglets), 2 full (no stores), 3 scarce (no repairs), 4 exhausted.
pub const DISK_FULLNESS: &str = "bifrost_logserver_disk_fullness_level";
/// Loglets that the server has a promise about.
pub const LOGLETS: &str = "bifrost_logserver_loglets_count";

/// Bytes that the files of a log server were written, by `kind`: `records` (groups, with what fills their blocks), `moved`
/// (once more, out of sparse files), `zeros` (files made ahead). Beside [`GROUP_BYTES`] it says how much a byte costs.
pub const FILES_WRITTEN: &str = "bifrost_logserver_files_written_bytes_total";

/// Handles, registered once.
#[derive(Clone)]
pub(crate) struct Metrics {
    pub(crate) group_bytes: Histogram,
    pub(crate) group_batches: Histogram,
    pub(crate) commit_seconds: Histogram,
    pub(crate) corrupt_batches: Counter,
    pub(crate) conflicts: Counter,
    pub(crate) contradictions: Counter,
    pub(crate) dropped_streams: Counter,
    pub(crate) read_bytes: Counter,
    pub(crate) disk_free_bytes: Gauge,
    disk_fullness: Gauge,
    pub(crate) loglets: Gauge,
}

/// Gives each metric its help text; called when a server starts, harmless when repeated.
pub fn describe() {
    describe_histogram!(GROUP_BYTES, "bytes of batches per group commit");
    describe_histogram!(GROUP_BATCHES, "batches per group commit");
    describe_histogram!(COMMIT_SECONDS, "seconds of one group commit, write and fsync");
    describe_counter!(REFUSED, "requests refused, by kind");
    describe_counter!(CORRUPT_BATCHES, "batches that could not be read back intact");
    describe_counter!(CONFLICTS, "stores of other bytes than those stored");
    describe_counter!(CONTRADICTIONS, "decided tails that contradict what the copy knows");
    describe_counter!(DROPPED_STREAMS, "store streams dropped because their peer took no replies");
    describe_counter!(READ_BYTES, "bytes of batches sent to readers");
    describe_gauge!(DISK_FREE_BYTES, "bytes free on the file system at the last look");
    describe_gauge!(DISK_FULLNESS, "0 ample, 1 no new loglets, 2 no stores, 3 no repairs, 4 the reserve is gone");
    describe_counter!(
        FILES_WRITTEN,
        "bytes written to files of records: groups, moved out of sparse files, zeros ahead"
    );
    describe_gauge!(LOGLETS, "loglets that the server has a promise about");
}

impl Metrics {
    pub(crate) fn new() -> Self {
        describe();
        Self {
            group_bytes: histogram!(GROUP_BYTES),
            group_batches: histogram!(GROUP_BATCHES),
            commit_seconds: histogram!(COMMIT_SECONDS),
            corrupt_batches: counter!(CORRUPT_BATCHES),
            conflicts: counter!(CONFLICTS),
            contradictions: counter!(CONTRADICTIONS),
            dropped_streams: counter!(DROPPED_STREAMS),
            read_bytes: counter!(READ_BYTES),
            disk_free_bytes: gauge!(DISK_FREE_BYTES),
            disk_fullness: gauge!(DISK_FULLNESS),
            loglets: gauge!(LOGLETS),
        }
    }

    pub(crate) fn fullness(&self, fullness: Fullness) {
        self.disk_fullness.set(match fullness {
            Fullness::Ample => 0.0,
            Fullness::Low => 1.0,
            Fullness::Full => 2.0,
            Fullness::Scarce => 3.0,
            Fullness::Exhausted => 4.0,
        });
    }

    /// Refusals are rare: the handle is looked up.
    pub(crate) fn refused(&self, error: CopyError) {
        if matches!(error, CopyError::Conflict { .. }) {
            self.conflicts.increment(1);
        }
        counter!(REFUSED, "kind" => kind(error)).increment(1);
    }
}

const fn kind(error: CopyError) -> &'static str {
    match error {
        CopyError::WrongDisk { .. } => "wrong_disk",
        CopyError::Sealed { .. } => "sealed",
        CopyError::NotSealed => "not_sealed",
        CopyError::OtherSequencer { .. } => "other_sequencer",
        CopyError::Hole { .. } => "hole",
        CopyError::Conflict { .. } => "conflict",
        CopyError::BadBatch { .. } => "bad_batch",
        CopyError::OutOfRange => "out_of_range",
        CopyError::DiskFull => "disk_full",
        CopyError::Overloaded => "overloaded",
        CopyError::Stopping => "stopping",
        CopyError::TooManyLoglets => "too_many_loglets",
    }
}
