//! What the log looks like without reading it: where it begins and ends, and how many bytes it has.

use std::collections::BTreeMap;

use openraft::LogIdOptionExt;

use crate::types::LogId;

/// A snapshot is due when the log has grown by this many bytes since the last one.
const LOG_BYTES: u64 = 16 << 20;
/// A snapshot of this size costs nothing worth waiting for.
const CHEAP_BYTES: u64 = 1 << 20;

/// The log in numbers, shared by the log store, the state machine and the member.
///
/// Pointer order: `purged <= last`; `covered` and `purged_on_disk` tell what a restart finds:
/// `purged_on_disk <= covered`, or the log could not be read from a snapshot on.
#[derive(Debug, Default)]
pub struct Shape {
    /// The last entry that nobody reads any more.
    pub(crate) purged: Option<LogId>,
    /// The same on the disk. Behind `purged` while the snapshot that stands for these entries is being installed.
    pub(crate) purged_on_disk: Option<LogId>,
    /// The last entry, or `purged` if there is none.
    pub(crate) last: Option<LogId>,
    /// The last entry that the snapshot on the disk covers.
    pub(crate) covered: Option<LogId>,
    /// The last entry known to be committed.
    pub(crate) committed: Option<LogId>,
    /// Bytes of the current snapshot.
    pub(crate) snapshot_bytes: u64,
    /// Bytes of each entry on the disk.
    sizes: BTreeMap<u64, u64>,
    bytes: u64,
    /// Of them, those after `covered`.
    fresh_bytes: u64,
}

impl Shape {
    /// A log without entries.
    pub(crate) fn opened(purged: Option<LogId>, covered: Option<LogId>, committed: Option<LogId>) -> Self {
        Self { purged, purged_on_disk: purged, last: purged, covered, committed, ..Self::default() }
    }

    /// Bytes of all entries on the disk.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes that the next snapshot may have at most: the last one, and all that was written since.
    pub fn state_bytes_max(&self) -> u64 {
        self.snapshot_bytes.saturating_add(self.bytes)
    }

    /// Bytes of the entries after this one.
    pub fn bytes_after(&self, id: Option<LogId>) -> u64 {
        self.sizes.range(id.next_index()..).map(|(_, bytes)| bytes).sum()
    }

    /// A snapshot on the disk covers the entries up to this one.
    pub(crate) fn covers(&mut self, upto: Option<LogId>) {
        self.covered = self.covered.max(upto);
        self.fresh_bytes = self.bytes_after(self.covered);
    }

    /// Whether a snapshot is due when the log is applied up to here: after so many entries, or [`LOG_BYTES`]. It writes the
    /// whole state, so a large one waits until the log has grown by a quarter of it: what a change costs must not grow with all
    /// that there is.
    pub(crate) fn is_snapshot_due(&self, applied: Option<LogId>, entries: u64) -> bool {
        let fresh = applied.next_index().saturating_sub(self.covered.next_index());
        let worth = self.snapshot_bytes.saturating_sub(CHEAP_BYTES) / 4;
        (fresh >= entries || self.fresh_bytes >= LOG_BYTES) && self.fresh_bytes >= worth
    }

    /// The last entry that may go so that those up to `covered` that stay have at most so many bytes, and are at most so many.
    pub fn purge_point(&self, covered: LogId, keep_bytes: u64, keep: usize) -> u64 {
        let (mut bytes, mut kept) = (0_u64, 0_usize);
        for (index, size) in self.sizes.range(..=covered.index).rev() {
            bytes = bytes.saturating_add(*size);
            kept += 1;
            if bytes > keep_bytes || kept > keep {
                return *index;
            }
        }
        0
    }

    /// Whether entries are purged that only a snapshot stands for that is not on the disk yet.
    pub(crate) fn awaits_snapshot(&self) -> bool {
        self.purged > self.covered && self.purged > self.purged_on_disk
    }

    /// The index of the last entry on the disk, if there is one.
    pub(crate) fn last_on_disk(&self) -> Option<u64> {
        let present = self.sizes.last_key_value().map(|(index, _)| *index);
        present.max(self.purged_on_disk.index())
    }

    pub(crate) fn appended(&mut self, id: LogId, bytes: u64) {
        self.last = Some(id);
        let old = self.sizes.insert(id.index, bytes).unwrap_or(0);
        self.bytes = self.bytes + bytes - old;
        if id.index >= self.covered.next_index() {
            self.fresh_bytes = self.fresh_bytes + bytes - old;
        }
    }

    /// Forgets the entries from this index on; `last` is the one that is the last now.
    pub(crate) fn truncated(&mut self, since: u64, last: Option<LogId>) {
        let gone = self.sizes.split_off(&since);
        self.bytes -= gone.values().sum::<u64>();
        self.last = last;
        self.fresh_bytes = self.bytes_after(self.covered);
    }

    /// Forgets the entries up to this one.
    pub(crate) fn purged(&mut self, upto: LogId) {
        self.hidden(upto);
        self.purged_on_disk = self.purged_on_disk.max(Some(upto));
        let kept = self.sizes.split_off(&(upto.index + 1));
        self.bytes -= self.sizes.values().sum::<u64>();
        self.sizes = kept;
        self.fresh_bytes = self.bytes_after(self.covered);
    }

    /// Nobody reads the entries up to this one any more; they are on the disk still.
    pub(crate) fn hidden(&mut self, upto: LogId) {
        self.purged = self.purged.max(Some(upto));
        self.last = self.last.max(self.purged);
    }
}

#[cfg(test)]
mod tests {
    use openraft::CommittedLeaderId;

    use super::*;
    use crate::types::MemberId;

    fn entry(index: u64) -> LogId {
        LogId::new(CommittedLeaderId::new(1, MemberId::from(1)), index)
    }

    /// Appends entries of 1 KiB until a snapshot is due; how many that were.
    fn until_due(shape: &mut Shape, entries: u64) -> u64 {
        let first = shape.last.next_index();
        (first..).find(|index| {
            shape.appended(entry(*index), 1024);
            shape.is_snapshot_due(Some(entry(*index)), entries)
        });
        shape.last.next_index() - first
    }

    #[test]
    fn a_snapshot_is_due_after_entries_or_bytes_and_for_a_large_state_after_a_quarter_of_it() {
        let mut shape = Shape::opened(None, None, None);
        assert_eq!(until_due(&mut shape, 100), 100);
        shape.covers(shape.last);
        assert_eq!(until_due(&mut shape, 100), 100, "counted from the last one");
        shape.covers(shape.last);
        assert_eq!(until_due(&mut shape, u64::MAX), LOG_BYTES / 1024);
        shape.covers(shape.last);
        shape.snapshot_bytes = (100 << 20) + CHEAP_BYTES;
        assert_eq!(until_due(&mut shape, 100), (25 << 20) / 1024, "the state is written for each quarter of it");
        shape.truncated(entry(1).index.max(shape.last.next_index() - 10), Some(entry(shape.last.next_index() - 11)));
        assert!(!shape.is_snapshot_due(shape.last, 100), "what was overwritten does not count");
        shape.purged(entry(50));
        assert_eq!(shape.fresh_bytes, shape.bytes_after(shape.covered));
    }
}
