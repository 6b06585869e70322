//! What a controller counts. Handles are made once; labels are enums.

use metrics::{Counter, Gauge, counter, describe_counter, describe_gauge, gauge};

const IN_TROUBLE: &str = "bifrost_controller_logs_in_trouble";
const UNDER_WAY: &str = "bifrost_controller_attempts_under_way";
const ATTEMPTS: &str = "bifrost_controller_attempts_total";
const SILENT: &str = "bifrost_controller_silent_nodes";

/// The handles of one controller.
#[derive(Clone)]
pub(super) struct Metrics {
    /// Logs in trouble now.
    pub(super) logs_in_trouble: Gauge,
    /// Attempts that run now.
    pub(super) attempts_under_way: Gauge,
    /// Attempts that closed a segment, or found that it was closed.
    pub(super) helped: Counter,
    /// Attempts that could not.
    pub(super) failed: Counter,
    /// Attempts that took too long.
    pub(super) late: Counter,
    /// Nodes that the detector beside it calls silent.
    pub(super) silent_nodes: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        describe_gauge!(
            IN_TROUBLE,
            "logs whose sequencer is gone or silent, or with an operation that was left pending"
        );
        describe_gauge!(UNDER_WAY, "attempts at logs in trouble that run");
        describe_counter!(ATTEMPTS, "attempts at logs in trouble, by outcome: helped, failed, late");
        describe_gauge!(SILENT, "nodes of which the metadata leader in this process hears nothing");
        let attempts = |outcome| counter!(ATTEMPTS, "outcome" => outcome);
        Self {
            logs_in_trouble: gauge!(IN_TROUBLE),
            attempts_under_way: gauge!(UNDER_WAY),
            helped: attempts("helped"),
            failed: attempts("failed"),
            late: attempts("late"),
            silent_nodes: gauge!(SILENT),
        }
    }
}
