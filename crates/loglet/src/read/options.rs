//! Settings of a reader.

use std::num::NonZeroU64;
use std::time::Duration;

use bifrost_types::limits::READ_CREDIT_BYTES;
use bifrost_types::{NodeId, NodeSet};

/// Settings of one reader. Every combination works; extreme ones are slow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadOptions {
    /// Bytes that may be on their way ahead of the caller, all copies together; one batch more per stream, since a
    /// server sends while it has any credit at all. Default 4 MiB: a few round trips of a fast network.
    pub credit_bytes: NonZeroU64,
    /// The member to read from first, for example one in the reader's zone. Default: by `spread`.
    pub preferred: Option<NodeId>,
    /// Any number; readers with different numbers start at different members. Default 0, the lowest node id.
    pub spread: u64,
    /// Disks of the nodeset that an operator declared lost (R3). They are not asked. Default none.
    pub declared_lost: NodeSet,
    /// How long a copy may be silent about something known to be readable before another one is asked, and about the
    /// tail before the others are asked for news of it. Doubles with each change of copy up to 256 times, until records
    /// come, so that a slow network still gets a large batch through. Default 100 ms: far above a healthy answer,
    /// far below what a person notices.
    pub patience: Duration,
    /// First pause before a copy that failed is asked again, or all that denied. Default 20 ms; doubles each time.
    pub retry_min: Duration,
    /// Longest such pause. Default 2 s: how long a reader may take to notice that a copy is back.
    pub retry_max: Duration,
}

impl Default for ReadOptions {
    fn default() -> Self {
        Self {
            credit_bytes: const { NonZeroU64::new(READ_CREDIT_BYTES as u64).expect("the default credit is not 0") },
            preferred: None,
            spread: 0,
            declared_lost: NodeSet::EMPTY,
            patience: Duration::from_millis(100),
            retry_min: Duration::from_millis(20),
            retry_max: Duration::from_secs(2),
        }
    }
}

/// `first` doubled `times` times, at most `longest` unless `first` is longer; at least a millisecond, so that a setting of
/// zero is no busy loop.
pub(super) fn doubled(first: Duration, times: u32, longest: Duration) -> Duration {
    let first = first.max(Duration::from_millis(1));
    let factor = 1_u32.checked_shl(times).unwrap_or(u32::MAX);
    first.checked_mul(factor).unwrap_or(longest).min(longest.max(first))
}
