//! Metrics of the sequencer. Handles are made once; labels never carry log ids.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use metrics::{Counter, Gauge, counter, describe_counter, describe_gauge, gauge};

const BATCHES: &str = "bifrost_sequencer_committed_batches_total";
const BYTES: &str = "bifrost_sequencer_committed_bytes_total";
const MESSAGES: &str = "bifrost_sequencer_store_messages_total";
const ALARMS: &str = "bifrost_sequencer_copy_alarms_total";
const RUNNING: &str = "bifrost_sequencer_loglets_running";
const BACKFILLED: &str = "bifrost_sequencer_backfilled_bytes_total";

/// The handles of one sequencer host.
#[derive(Clone)]
pub struct Metrics {
    /// Batches acknowledged.
    pub committed_batches: Counter,
    /// Bytes of batches taken.
    pub committed_bytes: Counter,
    /// The same of this host alone.
    pub sequenced_bytes: Arc<AtomicU64>,
    /// Store messages put on pipes, those that only tell the committed tail included.
    pub store_messages: Counter,
    /// Refusals by copies that contradict the protocol, or were sent damaged bytes.
    pub copy_alarms: Counter,
    /// Loglets that take appends on this node.
    pub loglets_running: Gauge,
    /// Bytes sent to copies that had been left behind.
    pub backfilled_bytes: Counter,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        describe_counter!(BATCHES, "batches acknowledged by sequencers of this process");
        describe_counter!(BYTES, "bytes of batches given an offset by sequencers of this process");
        describe_counter!(MESSAGES, "store messages sent to log servers");
        describe_counter!(ALARMS, "refusals by copies that contradict the protocol or were sent damaged bytes");
        describe_gauge!(RUNNING, "loglets that take appends in this process");
        describe_counter!(BACKFILLED, "bytes sent to copies that had been left behind");
        Self {
            committed_batches: counter!(BATCHES),
            committed_bytes: counter!(BYTES),
            sequenced_bytes: Arc::default(),
            store_messages: counter!(MESSAGES),
            copy_alarms: counter!(ALARMS),
            loglets_running: gauge!(RUNNING),
            backfilled_bytes: counter!(BACKFILLED),
        }
    }
}
