//! Who is told of what. The writer pushes; there is no task, and nobody polls.
//!
//! The channel of a watcher has room for as many revisions as history holds, so "the watcher fell out of history" and
//! "its channel is full" are one condition: as long as the oldest undelivered revision is in history, there is room
//! and the watcher misses nothing; once it is not, the watcher ends with `Compacted`. Values are shared with history,
//! hence a slow watcher pins at most what history held, and never makes the writer wait.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bifrost_wire::metadata::{Changes, MetadataError, Revision, WatchStream};
use tokio::sync::mpsc;

use crate::keyspace::{HISTORY_REVISIONS_MAX, Keyspace, select};

/// Watches that one store serves at most.
pub(crate) const WATCHERS_MAX: usize = 1 << 16;
/// Undelivered revisions lie in `[oldest, current]`; one more item is the final `Compacted`.
const QUEUE: usize = HISTORY_REVISIONS_MAX + 2;
/// A watcher without news is told the revision after this many, so that it can resume from within history.
const PROGRESS_REVISIONS: Revision = (HISTORY_REVISIONS_MAX / 2) as Revision;

/// Between two looks at every watcher. Some fall silent or go without any news of theirs: that is seen then.
const SWEEP_REVISIONS: Revision = (HISTORY_REVISIONS_MAX / 8) as Revision;
/// With fewer watchers than this none is looked at for having gone when another one comes.
const SWEEP_AT_FIRST: usize = 64;

const _: () =
    assert!(PROGRESS_REVISIONS + SWEEP_REVISIONS < HISTORY_REVISIONS_MAX as Revision, "progress comes in time");

/// All watches of one store, by prefix: a commit costs what those cost that it is news for, not what all cost.
#[derive(Debug)]
pub(crate) struct Watchers {
    watchers: BTreeMap<String, Vec<Watcher>>,
    count: usize,
    /// With this many watchers, those that were dropped are swept out.
    sweep_at: usize,
    /// After this revision all are looked at.
    swept: Revision,
}

impl Default for Watchers {
    fn default() -> Self {
        Self { watchers: BTreeMap::new(), count: 0, sweep_at: SWEEP_AT_FIRST, swept: 0 }
    }
}

#[derive(Debug)]
struct Watcher {
    prefix: String,
    items: mpsc::Sender<Result<Changes, MetadataError>>,
    /// Revisions that were sent and not seen to be received, ascending.
    queued: VecDeque<Revision>,
    /// The last revision that was sent.
    told: Revision,
}

impl Watchers {
    /// Starts a watch: the revisions above `after` that are in history, then, unless the last of them says so already,
    /// an empty item with the current revision, then what is [published](Self::publish).
    pub(crate) fn subscribe(
        &mut self,
        keyspace: &Keyspace,
        prefix: String,
        after: Revision,
    ) -> Result<WatchStream, MetadataError> {
        self.retain_of(&prefix, |watcher| !watcher.items.is_closed());
        if self.count >= self.sweep_at.min(WATCHERS_MAX) {
            self.retain(|watcher| !watcher.items.is_closed());
            self.sweep_at = SWEEP_AT_FIRST.max(self.count * 2);
        }
        if self.count >= WATCHERS_MAX {
            return Err(MetadataError::Unavailable);
        }
        let (items, stream) = mpsc::channel(QUEUE);
        let mut watcher = Watcher { prefix, items, queued: VecDeque::new(), told: after };
        let prefix = watcher.prefix.clone();
        for changes in keyspace.changes_after(after, &prefix)? {
            watcher.send(changes);
        }
        if watcher.queued.is_empty() || watcher.told < keyspace.revision() {
            watcher.send(Changes { revision: keyspace.revision(), changes: Vec::new() });
        }
        self.watchers.entry(prefix).or_default().push(watcher);
        self.count += 1;
        Ok(stream)
    }

    /// Tells of the revisions that were just committed to `keyspace`.
    pub(crate) fn publish(&mut self, commits: &[Changes], oldest: Revision) {
        for changes in commits {
            let touched: BTreeSet<&str> = changes.changes.iter().flat_map(|change| prefixes(&change.key)).collect();
            for prefix in touched {
                self.retain_of(prefix, |watcher| watcher.publish(changes, oldest));
            }
            if changes.revision.saturating_sub(self.swept) >= SWEEP_REVISIONS {
                self.swept = changes.revision;
                self.retain(|watcher| watcher.told >= changes.revision || watcher.publish(changes, oldest));
            }
        }
    }

    /// Keeps those watchers of one prefix that are to stay.
    fn retain_of(&mut self, prefix: &str, stays: impl FnMut(&mut Watcher) -> bool) {
        let Some(watchers) = self.watchers.get_mut(prefix) else { return };
        let before = watchers.len();
        watchers.retain_mut(stays);
        self.count -= before - watchers.len();
        if watchers.is_empty() {
            self.watchers.remove(prefix);
        }
    }

    /// Keeps those watchers that are to stay.
    fn retain(&mut self, mut stays: impl FnMut(&mut Watcher) -> bool) {
        self.count = 0;
        self.watchers.retain(|_, watchers| {
            watchers.retain_mut(&mut stays);
            self.count += watchers.len();
            !watchers.is_empty()
        });
    }
}

/// Whatever a key begins with, from nothing to all of it.
fn prefixes(key: &str) -> impl Iterator<Item = &str> {
    (0..=key.len()).filter_map(|end| key.get(..end))
}

impl Watcher {
    /// Returns whether the watch goes on.
    fn publish(&mut self, changes: &Changes, oldest: Revision) -> bool {
        self.forget_received();
        if self.queued.front().is_some_and(|undelivered| *undelivered < oldest) {
            // The room for this item is kept free by the size of the channel; a dropped receiver needs no news.
            let _ = self.items.try_send(Err(MetadataError::Compacted { oldest }));
            return false;
        }
        match select(changes, &self.prefix) {
            Some(selected) => self.send(selected),
            None if changes.revision.saturating_sub(self.told) >= PROGRESS_REVISIONS => {
                self.send(Changes { revision: changes.revision, changes: Vec::new() })
            }
            None => !self.items.is_closed(),
        }
    }

    fn send(&mut self, changes: Changes) -> bool {
        let revision = changes.revision;
        let sent = self.items.try_send(Ok(changes)).is_ok();
        self.queued.push_back(revision);
        self.told = revision;
        sent
    }

    fn forget_received(&mut self) {
        let undelivered = self.items.max_capacity() - self.items.capacity();
        while self.queued.len() > undelivered {
            self.queued.pop_front();
        }
    }
}

#[cfg(test)]
mod tests;
