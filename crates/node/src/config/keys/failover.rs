//! Keys of how logs go on when nodes fail or stop.

use super::{not_zero, number};
use crate::config::key::{Access, Key, KeyName};

pub(super) const KEYS: &[Key] = keys! {
    failover.beat_interval Time {
        |config| config.failover.liveness.beat_interval,
        |config, time| config.failover.liveness.beat_interval = time
    }
    "Time between two signs of life that a node sends to the metadata leader. The same on all nodes."

    failover.silent_after Time {
        |config| config.failover.liveness.silent_after,
        |config, time| config.failover.liveness.silent_after = time
    }
    "Time without a sign of life after which a node counts as silent, and its logs are moved. From three beat_intervals \
     to 1s. A wrong verdict costs a move and never a record. The same on all nodes."

    failover.pending_grace Time {
        |config| config.failover.controller.pending_grace,
        |config, time| config.failover.controller.pending_grace = time
    }
    "Time that a reconfiguration may be pending before a controller joins it. Most are over by then."

    failover.sequencer_grace Time {
        |config| config.failover.controller.sequencer_grace.unwrap_or_default(),
        |config, time| config.failover.controller.sequencer_grace = Some(time)
    }
    "Time that a log may have a sequencer that is gone before controllers that hear no signs of life replace it. Where \
     the metadata leads, none is waited for."

    failover.turn Time {
        |config| config.failover.controller.turn,
        |config, time| config.failover.controller.turn = time
    }
    "Time that the controller of one node has before the next one begins too. Most attempts are over by then."

    failover.attempts_at_once Count {
        |config| number(config.failover.controller.attempts_at_once.get()),
        |config, value| not_zero(value, &mut config.failover.controller.attempts_at_once)
    }
    "Logs in trouble that one controller works on at once. Each waits for the network and fsyncs of others most of the \
     time."

    failover.retries_at_once Count {
        |config| number(config.failover.controller.retries_at_once.get()),
        |config, value| not_zero(value, &mut config.failover.controller.retries_at_once)
    }
    "Of them, those that were tried in vain before: hopeless logs leave room for others."

    failover.pause_min Time {
        |config| config.failover.controller.pause_min,
        |config, time| config.failover.controller.pause_min = time
    }
    "Pause after the first attempt in vain. It doubles with each."

    failover.pause_max Time {
        |config| config.failover.controller.pause_max,
        |config, time| config.failover.controller.pause_max = time
    }
    "Longest pause: how late it may be noticed that servers answer again which never stopped."

    failover.attempt_deadline Time {
        |config| config.failover.controller.attempt_deadline,
        |config, time| config.failover.controller.attempt_deadline = time
    }
    "Longest time for one attempt: to repair a full window on slow disks. What was done stays done."

    failover.hand_over_deadline Time {
        |config| config.failover.hand_over.deadline,
        |config, time| config.failover.hand_over.deadline = time
    }
    "How long a planned stop may be held up by handing sequencers to other nodes. What is left is moved as after a crash."

    failover.hand_over_at_once Count {
        |config| number(config.failover.hand_over.at_once.get()),
        |config, value| not_zero(value, &mut config.failover.hand_over.at_once)
    }
    "Logs that are handed over at once."
};
