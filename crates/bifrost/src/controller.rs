//! Cares for logs that nobody touches: what an actor left half-way is finished, and a sequencer that can never answer
//! again is replaced. Each node runs one; they need not know of each other.
//!
//! | metadata says | for longer than | what a controller does |
//! |---|---|---|
//! | an operation is pending, in the same attempt | `pending_grace`; at once when the metadata member beside it gains the lead | joins it and drives it to its end (C4) |
//! | the open segment's sequencer lives another life, or its node is gone, retired or lost its disk | `sequencer_grace` | closes the segment and opens the next elsewhere |
//! | nothing of it, but the detector beside it calls the sequencer [silent](crate::liveness) | at once | the same |
//! | a chain begins with segments that are wholly trimmed | 1 s | [shortens](crate::shorten) it |
//! | a tombstone | | nothing: that is the [sweeper](crate::delete::sweeper)'s |
//!
//! Nothing else that a dead actor leaves is to be seen in metadata alone: a chain, a name and a node record are each made
//! in one transaction; a server that was not told a decided tail or a trim point keeps what nobody asks for (S5).
//!
//! The controller beside the metadata member that leads has a failure detector, and waits for nothing and nobody's turn
//! when a sequencer is silent or gone, and so has the one on the node that leads over etcd. On other nodes none takes part, and the
//! others come in when the first does not. No decision here needs to be right for safety. Everything is done as an appender
//! does it, by the chain's transactions: two controllers at once, or one whose news is old, cost a few messages (C1, C4).
//! To cost few of them, controllers take turns, begin each attempt with a look at the chain itself, and leave a log that
//! cannot be helped alone for longer each time. A cluster without logs in trouble is listed once and then only watched.
//!
//! ```text
//!  watches of chains and nodes ─► driver ─► Core::step ─► Attempt{log} ─► LogState::close_segment
//!                   Verdict ───────►  ▲                                             │
//!                                    └──────────── what it saw, ended ─────────────┘
//! ```
//!
//! Memory: about a hundred bytes for each log that is not closed for good, and a log's whole state only while an attempt
//! at it runs.

pub mod core;
mod driver;
mod metrics;

use std::num::NonZeroUsize;
use std::time::Duration;

pub(crate) use self::driver::control;

/// When a controller does what.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ControllerOptions {
    /// How long the same attempt of an operation may be pending before a controller joins it. Default 5 s: most
    /// reconfigurations are over by then.
    pub pending_grace: Duration,
    /// How long the open segment may have a sequencer that is gone. Default 1 s: an appender that meets it replaces it at
    /// once. `None` leaves it to whoever appends next; readers may wait until then.
    pub sequencer_grace: Option<Duration>,
    /// How long one node's controller has before the next begins too. Default 1 s: most attempts are over by then.
    pub turn: Duration,
    /// Logs that are worked on at once. Default 64: what an attempt waits for is the network and fsyncs of others, and a
    /// dead node leaves thousands of logs.
    pub attempts_at_once: NonZeroUsize,
    /// Of them, those that were tried in vain before. Default 2: hopeless logs leave room for others.
    pub retries_at_once: NonZeroUsize,
    /// The pause after the first attempt in vain; it doubles with each. Default 1 s.
    pub pause_min: Duration,
    /// The longest pause. Default 30 s: how late it may be noticed that servers answer again that never stopped.
    pub pause_max: Duration,
    /// How long one attempt may take. Default 30 s: time to repair a full window on slow disks. What was done stays done.
    pub attempt_deadline: Duration,
}

impl Default for ControllerOptions {
    fn default() -> Self {
        Self {
            pending_grace: Duration::from_secs(5),
            sequencer_grace: Some(Duration::from_secs(1)),
            turn: Duration::from_secs(1),
            attempts_at_once: const { NonZeroUsize::new(64).expect("not 0") },
            retries_at_once: const { NonZeroUsize::new(2).expect("not 0") },
            pause_min: Duration::from_secs(1),
            pause_max: Duration::from_secs(30),
            attempt_deadline: Duration::from_secs(30),
        }
    }
}

#[cfg(test)]
mod tests;
