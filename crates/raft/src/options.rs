//! What one member is told at its start.

use std::time::Duration;

use bifrost_types::ClusterId;
use thiserror::Error;

use crate::machine::SNAPSHOT_BYTES_MAX;
use crate::types::{Lineage, MemberId};

/// Most bytes that a group may hold.
pub const STATE_BYTES_MAX: u64 = 256 << 20;

const _: () =
    assert!(STATE_BYTES_MAX * 2 <= SNAPSHOT_BYTES_MAX, "what is on its way when a group is full fits a snapshot");

/// Who this member is, and how long it waits for what. All members of a group should have the same times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RaftOptions {
    /// The cluster; members of another one are refused.
    pub cluster: ClusterId,
    /// This member.
    pub member: MemberId,
    /// The group that a member with an empty disk is about to join. One that was there before knows it.
    pub lineage: Lineage,
    /// The member has had a log. If there is none, its votes are lost and it must not start.
    pub returning: bool,
    /// Between two signs of life of a leader, and how long it waits for the answer to one request to append. The answer
    /// comes after an fsync, so this is well above what one takes.
    pub heartbeat: Duration,
    /// So long after a sign of life of a leader nobody else gets a vote. One heartbeat later the first of the other members
    /// asks for votes. Default 400 ms.
    pub lease: Duration,
    /// Between one member that asks for votes and the next: time for the fsyncs of an election. Default 250 ms: with the
    /// default of the others members ask 0.5 and 0.75 s after the last sign of life.
    pub turn: Duration,
    /// For a read or a transaction of a caller. What was not answered by then is unknown.
    pub request_timeout: Duration,
    /// For one piece of a snapshot; the last one is installed in this time.
    pub snapshot_timeout: Duration,
    /// Bytes of keys and values that the group may hold, about: above it transactions that put something are refused.
    /// Default 256 MiB, the most: a snapshot is sent and read as a whole.
    pub state_bytes_max: u64,
    /// A snapshot is made after this many entries, if it was not made before for their bytes, and once they have a quarter of
    /// the bytes of a state that is larger than 1 MiB. Default 4096: reading so many again at a start takes no time that
    /// anybody notices.
    pub snapshot_entries: u64,
    /// Entries that stay in the log at most though a snapshot covers them, for members that are a little behind. Default
    /// 512.
    pub kept_entries: usize,
    /// Entries that go to another member in one request at most. Default 300.
    pub request_entries: u64,
}

/// Times that contradict each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum InvalidOptions {
    /// The next member would ask for votes before a new leader gave a sign of life.
    #[error("a turn of {turn:?} in an election does not leave time for two signs of life every {heartbeat:?}")]
    TurnTooShort {
        /// The time between two signs of life.
        heartbeat: Duration,
        /// The time of one member.
        turn: Duration,
    },
    /// A lease is not longer than a turn.
    #[error("a lease of {lease:?} is not longer than a turn of {turn:?}")]
    LeaseTooShort {
        /// The time of one member.
        turn: Duration,
        /// The lease.
        lease: Duration,
    },
    /// More than a snapshot takes.
    #[error("a group cannot hold {bytes} bytes, but {STATE_BYTES_MAX} at most")]
    StateTooLarge {
        /// How many it should hold.
        bytes: u64,
    },
    /// A snapshot after no entry at all, or a request with none.
    #[error("a snapshot after no entries, or a request without any, is never over")]
    NoEntries,
    /// A time is zero or above an hour.
    #[error("{what} is {value:?}, and must be above zero and at most an hour")]
    OutOfRange {
        /// Which one.
        what: &'static str,
        /// Its value.
        value: Duration,
    },
}

impl RaftOptions {
    /// The default times.
    pub fn new(cluster: ClusterId, member: MemberId) -> Self {
        Self {
            cluster,
            member,
            lineage: Lineage::default(),
            returning: false,
            heartbeat: Duration::from_millis(100),
            lease: Duration::from_millis(400),
            turn: Duration::from_millis(250),
            request_timeout: Duration::from_secs(5),
            snapshot_timeout: Duration::from_secs(10),
            state_bytes_max: STATE_BYTES_MAX,
            snapshot_entries: 4096,
            kept_entries: 512,
            request_entries: 300,
        }
    }

    /// Checks the times.
    ///
    /// # Errors
    /// [`InvalidOptions`].
    pub fn validate(&self) -> Result<(), InvalidOptions> {
        for (what, value) in [
            ("heartbeat", self.heartbeat),
            ("lease", self.lease),
            ("turn", self.turn),
            ("request_timeout", self.request_timeout),
            ("snapshot_timeout", self.snapshot_timeout),
        ] {
            if value < Duration::from_millis(1) || value > Duration::from_secs(3600) {
                return Err(InvalidOptions::OutOfRange { what, value });
            }
        }
        if self.state_bytes_max > STATE_BYTES_MAX {
            return Err(InvalidOptions::StateTooLarge { bytes: self.state_bytes_max });
        }
        if self.snapshot_entries == 0 || self.request_entries == 0 {
            return Err(InvalidOptions::NoEntries);
        }
        if self.turn < self.heartbeat * 2 {
            return Err(InvalidOptions::TurnTooShort { heartbeat: self.heartbeat, turn: self.turn });
        }
        if self.lease <= self.turn {
            let (turn, lease) = (self.turn, self.lease);
            return Err(InvalidOptions::LeaseTooShort { turn, lease });
        }
        Ok(())
    }
}

/// Whole milliseconds, at least one: what openraft counts in.
pub(crate) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_that_contradict_each_other_are_refused() {
        let options = RaftOptions::new(ClusterId::try_from(1).unwrap(), MemberId::from(1));
        assert_eq!(options.validate(), Ok(()));
        let soon = RaftOptions { turn: options.heartbeat, ..options.clone() };
        assert!(matches!(soon.validate(), Err(InvalidOptions::TurnTooShort { .. })));
        let empty = RaftOptions { lease: options.turn, ..options.clone() };
        assert!(matches!(empty.validate(), Err(InvalidOptions::LeaseTooShort { .. })));
        let large = RaftOptions { state_bytes_max: STATE_BYTES_MAX + 1, ..options.clone() };
        assert!(matches!(large.validate(), Err(InvalidOptions::StateTooLarge { .. })));
        let endless = RaftOptions { snapshot_entries: 0, ..options.clone() };
        assert_eq!(endless.validate(), Err(InvalidOptions::NoEntries));
        let zero = RaftOptions { request_timeout: Duration::ZERO, ..options };
        assert!(matches!(zero.validate(), Err(InvalidOptions::OutOfRange { what: "request_timeout", .. })));
    }
}
