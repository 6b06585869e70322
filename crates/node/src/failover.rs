//! What a node does so that logs go on without it, and without others: how it is configured.

use bifrost::HandOverOptions;
use bifrost::controller::ControllerOptions;
use bifrost::liveness::LivenessOptions;

/// Of one node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FailoverOptions {
    /// When a node counts as silent.
    pub liveness: LivenessOptions,
    /// What is done about logs that nobody touches.
    pub controller: ControllerOptions,
    /// How a planned stop hands sequencers over.
    pub hand_over: HandOverOptions,
}
