//! Keys of how logs go on when nodes fail or stop.

use crate::config::key::{Access, Key, KeyName};

pub(super) const KEYS: &[Key] = keys! {
    failover.beat_interval Time (failover.liveness.beat_interval)
    "Time between two signs of life that a node sends to the metadata leader. The same on all nodes."

    failover.silent_after Time (failover.liveness.silent_after)
    "Time without a sign of life after which a node counts as silent, and its logs are moved. From three beat_intervals \
     to 1s. A wrong verdict costs a move and never a record. The same on all nodes."

    failover.pending_grace Time (failover.controller.pending_grace)
    "Time that a reconfiguration may be pending before a controller joins it. Most are over by then."

    failover.sequencer_grace Time {
        |config| config.failover.controller.sequencer_grace.unwrap_or_default(),
        |config, time| config.failover.controller.sequencer_grace = Some(time)
    }
    "Time that a log may have a sequencer that is gone before controllers that hear no signs of life replace it. Where \
     the metadata leads, none is waited for."

    failover.turn Time (failover.controller.turn)
    "Time that the controller of one node has before the next one begins too. Most attempts are over by then."

    failover.attempts_at_once Count (not_zero failover.controller.attempts_at_once)
    "Logs in trouble that one controller works on at once. Each waits for the network and fsyncs of others most of the \
     time."

    failover.retries_at_once Count (not_zero failover.controller.retries_at_once)
    "Of them, those that were tried in vain before: hopeless logs leave room for others."

    failover.pause_min Time (failover.controller.pause_min)
    "Pause after the first attempt in vain. It doubles with each."

    failover.pause_max Time (failover.controller.pause_max)
    "Longest pause: how late it may be noticed that servers answer again which never stopped."

    failover.attempt_deadline Time (failover.controller.attempt_deadline)
    "Longest time for one attempt: to repair a full window on slow disks. What was done stays done."

    failover.hand_over_deadline Time (failover.hand_over.deadline)
    "How long a planned stop may be held up by handing sequencers to other nodes. What is left is moved as after a crash."

    failover.hand_over_at_once Count (not_zero failover.hand_over.at_once)
    "Logs that are handed over at once."
};
