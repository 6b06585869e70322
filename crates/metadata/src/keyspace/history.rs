//! The changes of the last revisions, bounded by count and bytes. Watchers resume from here.

use std::collections::VecDeque;

use bifrost_wire::metadata::{Changes, Revision};

/// Revisions that history holds at most.
pub const HISTORY_REVISIONS_MAX: usize = 4096;
/// Bytes of keys and values that history holds at most.
pub const HISTORY_BYTES_MAX: usize = 32 << 20;

/// Every revision above `oldest`, without a gap, in order.
#[derive(Debug, Clone, Default)]
pub(super) struct History {
    revisions: VecDeque<Changes>,
    bytes: usize,
    oldest: Revision,
}

impl History {
    /// Nothing yet; the first revision that can be pushed is the one after `oldest`.
    pub(super) fn starting_after(oldest: Revision) -> Self {
        Self { revisions: VecDeque::new(), bytes: 0, oldest }
    }

    /// The highest revision that is gone, 0 if none is.
    pub(super) fn oldest(&self) -> Revision {
        self.oldest
    }

    /// Adds the next revision and forgets the oldest beyond the limits.
    pub(super) fn push(&mut self, changes: Changes) {
        self.bytes += bytes(&changes);
        self.revisions.push_back(changes);
        while self.revisions.len() > HISTORY_REVISIONS_MAX || self.bytes > HISTORY_BYTES_MAX {
            let Some(gone) = self.revisions.pop_front() else { break };
            self.bytes -= bytes(&gone);
            self.oldest = gone.revision;
        }
    }

    /// The revisions above `after`, in order.
    pub(super) fn after(&self, after: Revision) -> impl Iterator<Item = &Changes> {
        let known = self.revisions.partition_point(|changes| changes.revision <= after);
        self.revisions.range(known..)
    }
}

fn bytes(changes: &Changes) -> usize {
    changes.changes.iter().map(|change| change.key.len() + change.value.as_ref().map_or(0, |value| value.len())).sum()
}
