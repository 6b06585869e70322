//! What the log looks like without reading it: where it begins and ends, and how many bytes it has.

use std::collections::BTreeMap;

use openraft::LogIdOptionExt;

use crate::types::LogId;

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
        self.bytes += bytes;
        if let Some(old) = self.sizes.insert(id.index, bytes) {
            self.bytes -= old;
        }
    }

    /// Forgets the entries from this index on; `last` is the one that is the last now.
    pub(crate) fn truncated(&mut self, since: u64, last: Option<LogId>) {
        let gone = self.sizes.split_off(&since);
        self.bytes -= gone.values().sum::<u64>();
        self.last = last;
    }

    /// Forgets the entries up to this one.
    pub(crate) fn purged(&mut self, upto: LogId) {
        self.hidden(upto);
        self.purged_on_disk = self.purged_on_disk.max(Some(upto));
        let kept = self.sizes.split_off(&(upto.index + 1));
        self.bytes -= self.sizes.values().sum::<u64>();
        self.sizes = kept;
    }

    /// Nobody reads the entries up to this one any more; they are on the disk still.
    pub(crate) fn hidden(&mut self, upto: LogId) {
        self.purged = self.purged.max(Some(upto));
        self.last = self.last.max(self.purged);
    }
}
